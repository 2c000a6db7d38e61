// Evaluates flags with the official Node server SDK and prints what was evaluated, identified and tracked.
//
// Proves nothing by itself: `tests/e2e/test_sdks.py` compares the printed numbers with the table and the search answers.
'use strict';

const { init, basicLogger } = require('@launchdarkly/node-server-sdk');
const { TestData } = require('@launchdarkly/node-server-sdk/integrations');

const FLAGS = [['checkout-redesign', false], ['banner-text', 'none'], ['no-such-flag', 'fallback']];

function flagSource() {
  const source = new TestData();
  source.update(source.flag('checkout-redesign').variationForAll(true));
  source.update(source.flag('banner-text').variations('plain', 'bold', 'loud').fallthroughVariation(0)
    .ifMatch('user', 'plan', 'gold').thenReturn(2));
  return source;
}

function groups(prefix) {
  const numbers = (count) => Array.from({ length: count }, (_, index) => index);
  const users = numbers(8).map((index) => [{
    kind: 'user', key: `${prefix}u-${index}`, name: `User ${index}`, plan: index % 2 === 0 ? 'gold' : 'silver', seats: index,
  }]);
  const organisations = numbers(2).map((index) => [
    { kind: 'org', key: `${prefix}o-${index}`, name: `Org ${index}`, region: 'eu' }]);
  const pairs = numbers(2).map((index) => [
    { kind: 'user', key: `${prefix}mu-${index}`, plan: 'gold' }, { kind: 'org', key: `${prefix}mo-${index}`, region: 'us' }]);
  return [...users, ...organisations, ...pairs];
}

function toContext(parts) {
  if (parts.length === 1) return parts[0];
  const inner = parts.map(({ kind, ...rest }) => [kind, rest]);
  return { kind: 'multi', ...Object.fromEntries(inner) };
}

async function oneRound(client, contexts, evaluations, number) {
  for (const [index, context] of contexts.entries()) {
    for (const [key, fallback] of FLAGS) {
      await client.variation(key, context, fallback);
      evaluations[key] = (evaluations[key] || 0) + 1;
    }
    client.track('checkout', context, { round: number }, index + 0.5);
  }
  // A flush that fails is the SDK's to repeat; it says so by a rejection that is no concern of ours.
  await client.flush().catch(() => {});
}

async function main(eventsUri, sdkKey, prefix, rounds) {
  const logger = basicLogger({ level: 'warn', destination: (line) => process.stderr.write(`${line}\n`) });
  const client = init(sdkKey, { eventsUri, updateProcessor: flagSource().getFactory(), logger });
  await client.waitForInitialization({ timeout: 5 });
  const parts = groups(prefix);
  const contexts = parts.map(toContext);
  const evaluations = {};
  contexts.forEach((context) => client.identify(context));
  for (let number = 0; number < Number(rounds); number += 1) await oneRound(client, contexts, evaluations, number);
  await client.flush().catch(() => {});
  client.close();
  process.stdout.write(JSON.stringify({ evaluations, custom: contexts.length * Number(rounds), identified: parts.flat() }));
}

main(...process.argv.slice(2));
