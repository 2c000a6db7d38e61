"""Events and headers as SDKs send them, small enough to be read in a test."""

import gzip
import itertools
import time
import uuid

import zstandard

_numbers = itertools.count()


def now_ms():
    return int(time.time() * 1000)


def unique(prefix):
    """A name that no other call of this run gives out."""
    return f"{prefix}-{next(_numbers)}-{uuid.uuid4().hex[:6]}"


def payload_id():
    return str(uuid.uuid4())


def custom(key, context=None, **fields):
    return {
        "kind": "custom",
        "creationDate": now_ms(),
        "key": key,
        "context": context or {"kind": "user", "key": "u1"},
        **fields,
    }


def identify(context, **fields):
    return {"kind": "identify", "creationDate": now_ms(), "context": context, **fields}


def identify_each(contexts):
    """One event for each, every one created a millisecond after the one before and the last one now: their order is certain."""
    first = now_ms() - len(contexts) + 1
    return [identify(context, creationDate=first + number) for number, context in enumerate(contexts)]


def feature(key, context=None, **fields):
    return {
        "kind": "feature",
        "creationDate": now_ms(),
        "key": key,
        "context": context or {"kind": "user", "key": "u1"},
        **fields,
    }


def diagnostic(kind="diagnostic-init", **fields):
    return {
        "kind": kind,
        "creationDate": now_ms(),
        "id": {"diagnosticId": str(uuid.uuid4()), "sdkKeySuffix": "00000a"},
        **fields,
    }


def server_headers(environment, **more):
    """Headers of an event post by a server SDK; keyword names are header names with `_` for `-`."""
    headers = {
        "Authorization": environment.sdk_key,
        "Content-Type": "application/json",
        "X-LaunchDarkly-Event-Schema": "4",
    }
    return {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}


def gzip_members(body):
    """The body as two gzip members, as some proxies write it."""
    middle = len(body) // 2
    return gzip.compress(body[:middle]) + gzip.compress(body[middle:])


def zstd(body):
    return zstandard.ZstdCompressor().compress(body)
