"""Evaluates flags with the official Python server SDK and prints what was evaluated, identified and tracked.

Proves nothing by itself: `tests/e2e/test_sdks.py` compares the printed numbers with the table and the search answers.
"""

import json
import sys
from collections import Counter

import ldclient
from ldclient import Context
from ldclient.config import Config
from ldclient.integrations.test_data import TestData

# The SDK posts five payloads at once and cannot wait for one. If five are under way when it is closed, the rest is lost in
# the SDK; so a client gets four flushes, its closing being the fifth.
FLUSHES_MAX = 4

FLAGS = (("checkout-redesign", False), ("banner-text", "none"), ("no-such-flag", "fallback"))


def flag_source():
    source = TestData.data_source()
    source.update(source.flag("checkout-redesign").variation_for_all(True))
    source.update(
        source.flag("banner-text")
        .variations("plain", "bold", "loud")
        .fallthrough_variation(0)
        .if_match("plan", "gold")
        .then_return(2)
    )
    return source


def users(prefix):
    for index in range(8):
        plan = "gold" if index % 2 == 0 else "silver"
        yield {"kind": "user", "key": f"{prefix}u-{index}", "name": f"User {index}", "plan": plan, "seats": index}


def organisations(prefix):
    for index in range(2):
        yield {"kind": "org", "key": f"{prefix}o-{index}", "name": f"Org {index}", "region": "eu"}


def pairs(prefix):
    for index in range(2):
        yield [
            {"kind": "user", "key": f"{prefix}mu-{index}", "plan": "gold"},
            {"kind": "org", "key": f"{prefix}mo-{index}", "region": "us"},
        ]


def groups(prefix):
    return [[single] for single in (*users(prefix), *organisations(prefix))] + list(pairs(prefix))


def to_context(parts):
    singles = [Context.from_dict(part) for part in parts]
    return singles[0] if len(singles) == 1 else Context.create_multi(*singles)


def one_round(client, contexts, evaluations, number):
    for index, context in enumerate(contexts):
        for key, default in FLAGS:
            client.variation(key, context, default)
            evaluations[key] += 1
        client.track("checkout", context, {"round": number}, metric_value=index + 0.5)
    client.flush()


def one_session(config, contexts, numbers, evaluations):
    """One client's life: closing it waits until everything that it took is delivered."""
    client = ldclient.LDClient(config, start_wait=5)
    for context in contexts:
        client.identify(context)
    for number in numbers:
        one_round(client, contexts, evaluations, number)
    client.close()


def main(events_url, sdk_key, prefix, rounds):
    rounds = int(rounds)
    parts = groups(prefix)
    contexts = [to_context(group) for group in parts]
    evaluations = Counter()
    for first in range(0, rounds, FLUSHES_MAX):
        config = Config(sdk_key, update_processor_class=flag_source(), events_uri=events_url)
        one_session(config, contexts, range(first, min(first + FLUSHES_MAX, rounds)), evaluations)
    identified = [single for group in parts for single in group]
    print(json.dumps({"evaluations": evaluations, "custom": len(contexts) * rounds, "identified": identified}))


if __name__ == "__main__":
    main(*sys.argv[1:])
