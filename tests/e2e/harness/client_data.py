"""What the REST clients are shown beside the check data: odd names, instances, versions of several applications."""

import base64

from harness import check_data, payloads
from harness.check_data import CONTEXTS
from harness.config import Environment
from harness.waiting import wait_equal

# Beside the check data: odd names, what several applications reported, and what the tests change.
ODD = Environment.numbered("odd", "dev", 0xD)
SEVERAL = Environment.numbered("several", "dev", 0xE)
CHANGED = Environment.numbered("changed", "dev", 0xF)

ODD_TEXTS = ["a/b:c", "50%", "%2F", "x+y z", " x ", "why?", "#1", "a&b=c;d", "{key}", "$&", "a~b", "a\\b", '"a"']
ODD_TEXTS += ["ключ", "名前", "\U0001f600"]

ANA_AT_LAGOA = [{"kind": "org", "key": "lagoa"}, {"kind": "user", "key": "u-ana"}]
BO_AT_LAGOA = [{"kind": "org", "key": "lagoa"}, {"kind": "user", "key": "v:bo%"}]
BO_AT_ACME = [{"kind": "org", "key": "acme"}, {"kind": "user", "key": "bo"}]
ANA_ALONE = [{"kind": "user", "key": "u-ana"}]
ANONYMOUS_DEVICE = {"kind": "device", "key": "d-1", "anonymous": True}

TAGGED = "shop"
UNTAGGED = "GoSDK/1.2"


def multi(parts):
    """The parts as one context."""
    if len(parts) == 1:
        return parts[0]
    inner = {part["kind"]: {name: part[name] for name in part if name != "kind"} for part in parts}
    return {"kind": "multi", **inner}


def canonical_key(parts):
    escaped = {part["kind"]: part["key"].replace("%", "%25").replace(":", "%3A") for part in parts}
    return ":".join(f"{kind}:{escaped[kind]}" for kind in sorted(escaped))


def instance_id(parts):
    return base64.urlsafe_b64encode(canonical_key(parts).encode()).decode().rstrip("=")


# Instances of SEVERAL with the applications that reported them, in the order of a search.
INSTANCES = [
    (multi(BO_AT_ACME), TAGGED),
    (multi(ANA_AT_LAGOA), UNTAGGED),
    (multi(ANA_AT_LAGOA), TAGGED),
    (multi(BO_AT_LAGOA), TAGGED),
    (multi(ANA_ALONE), TAGGED),
]


def _send_odd(server):
    for text in ODD_TEXTS:
        contexts = [{"kind": "odd", "key": text, text: "here"}, {"kind": "user", "key": text}]
        assert server.bulk([payloads.identify(context) for context in contexts], environment=ODD).status == 202


def _send_several(server):
    """All from an application that names itself; then one of them from a sender whose SDK alone is known."""
    tags = {"X_LaunchDarkly_Tags": f"application-id/{TAGGED}"}
    sent = [(parts, tags) for parts in (ANA_AT_LAGOA, BO_AT_LAGOA, [*BO_AT_ACME, ANONYMOUS_DEVICE], ANA_ALONE)]
    sent.append((ANA_AT_LAGOA, {}))
    events = payloads.identify_each([multi(parts) for parts, _ in sent])
    for event, (_, more) in zip(events, sent, strict=True):
        headers = payloads.server_headers(SEVERAL, X_LaunchDarkly_User_Agent=UNTAGGED, **more)
        assert server.post("/bulk", [event], headers).status == 202


def _instances(server):
    return server.api("POST", f"/v2/{SEVERAL.path}/context-instances/search", {"limit": 50}).json()["items"]


def fill(server):
    """Makes all of it known; the first two environments are those of the check data."""
    check_data.send(server)
    _send_odd(server)
    _send_several(server)
    wait_equal(lambda: len(server.found()), len(CONTEXTS))
    wait_equal(lambda: len(server.found("", ODD)), 2 * len(ODD_TEXTS))
    wait_equal(lambda: len(_instances(server)), len(INSTANCES))
