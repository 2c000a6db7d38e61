// Makes the calls that it reads with the official TypeScript REST client and prints what the client made of the answers.
//
// Proves nothing by itself: `tests/e2e/test_clients.py` says what to call and what to expect.
'use strict';

const readline = require('node:readline');
const { Configuration, ContextsApi, UsersApi } = require('launchdarkly-api-typescript');

const PAGE = ['limit', 'continuationToken', 'sort', 'filter', 'includeTotalCount'];

// The client takes its parameters by position, after those of the path.
const ORDER = {
  searchContexts: ['contextSearch', ...PAGE],
  getContexts: PAGE,
  searchContextInstances: ['contextInstanceSearch', ...PAGE],
  getContextInstances: PAGE,
  deleteContextInstances: [],
  getContextAttributeNames: ['filter', 'limit'],
  getContextAttributeValues: ['filter', 'limit'],
  getContextKindsByProjectKey: [],
  putContextKind: ['upsertContextKindPayload'],
  getSearchUsers: ['q', 'limit', 'offset', 'after', 'sort', 'searchAfter', 'filter'],
  getUsers: ['limit', 'searchAfter'],
  getUser: [],
  deleteUser: [],
};

async function perform({ operation, url, token, path, parameters }) {
  const configuration = new Configuration({ apiKey: token, basePath: url });
  const service = [new ContextsApi(configuration), new UsersApi(configuration)].find((api) => operation in api);
  if (!service) return { absent: true };
  const unknown = Object.keys(parameters).filter((name) => !ORDER[operation].includes(name));
  if (unknown.length > 0) throw new Error(`${operation} has no ${unknown}`);
  const { data } = await service[operation](...path, ...ORDER[operation].map((name) => parameters[name]));
  // An answer without a body is an empty text to this client.
  return { value: data === '' ? null : data };
}

async function outcome(call) {
  try {
    return await perform(call);
  } catch (error) {
    if (error.response) return { status: error.response.status, error: error.response.data };
    return { fault: String(error) };
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await outcome(JSON.parse(line)))}\n`);
  }
}

main();
