"""Load from clients that behave like SDKs: each payload is tried twice under one id, a second apart, then given up.

Every client has contexts of its own and raises their `rev` attribute with each payload, so that the newest state is known
without regard to how clients interleave.
"""

import contextlib
import threading
import time
from dataclasses import dataclass, field

from harness import payloads
from harness.wire import Wire

RETRY_SECONDS = 1.0
CONTEXTS_PER_CLIENT = 5


@dataclass
class Ledger:
    """What one client sent. A payload that was given up may be stored or not, but never twice."""

    acknowledged: set = field(default_factory=set)
    given_up: set = field(default_factory=set)
    # Context key -> revision that was acknowledged last, and those that may have come after it.
    newest: dict = field(default_factory=dict)
    possible: dict = field(default_factory=dict)
    refused: int = 0

    def acknowledge(self, payload, key, revision):
        self.acknowledged.add(payload)
        self.newest[key] = revision
        self.possible[key] = {revision}

    def give_up(self, payload, key, revision):
        self.given_up.add(payload)
        self.possible.setdefault(key, set()).add(revision)


class Client(threading.Thread):
    """Posts payloads of one identify and two custom events until `halt` is set. After a failure it goes on with the spare server,
    if there is one, as behind a load balancer."""

    def __init__(self, server, name, halt, padding="", spare=None):
        super().__init__(name=name, daemon=True)
        self.server, self.spare, self.halt, self.padding = server, spare or server, halt, padding
        self.ledger = Ledger()
        self.sent = 0
        self._wire = None

    def run(self):
        while not self.halt.is_set():
            self._one_payload()
        self._disconnect()

    def _one_payload(self):
        self.sent += 1
        key, payload = f"{self.name}-{self.sent % CONTEXTS_PER_CLIENT}", f"{self.name}.{self.sent}"
        context = {"kind": "user", "key": key, "rev": self.sent, "client": self.name}
        events = [
            payloads.identify(context),
            *(payloads.custom(f"{payload}.{part}", context, data=self.padding) for part in "ab"),
        ]
        if self._attempt(events, payload) or self._again(events, payload):
            self.ledger.acknowledge(payload, key, self.sent)
        else:
            self.ledger.give_up(payload, key, self.sent)

    def _again(self, events, payload):
        # Not a wait for anything: an SDK lets this second pass, whatever happens meanwhile.
        time.sleep(RETRY_SECONDS)
        self._disconnect()
        self.server, self.spare = self.spare, self.server
        return self._attempt(events, payload)

    def _attempt(self, events, payload):
        try:
            self._wire = self._wire or Wire(self.server.address, timeout=15)
            headers = payloads.server_headers(self.server.environments[0], X_LaunchDarkly_Payload_ID=payload)
            answer = self._wire.send("POST", "/bulk", events, headers)
        except Exception:  # whatever the connection died of, it is a failed attempt
            self._disconnect()
            return False
        self.ledger.refused += answer.status != 202
        return answer.status == 202

    def _disconnect(self):
        with contextlib.suppress(OSError):
            if self._wire:
                self._wire.close()
        self._wire = None


class Load:
    """Several clients as a context manager; `ledgers` is complete once it is left."""

    def __init__(self, server, clients=8, prefix="c", padding="", spare=None):
        self.halt = threading.Event()
        self.clients = [Client(server, f"{prefix}{number}", self.halt, padding, spare) for number in range(clients)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.halt.set()
        for client in self.clients:
            client.join()

    @property
    def acknowledged(self):
        return sum(len(client.ledger.acknowledged) for client in self.clients)

    @property
    def refused(self):
        return sum(client.ledger.refused for client in self.clients)

    @property
    def ledgers(self):
        return [client.ledger for client in self.clients]


class Loads:
    """Load on several servers at once, as one."""

    def __init__(self, *loads):
        self.loads = loads
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        for load in self.loads:
            self._stack.enter_context(load)
        return self

    def __exit__(self, *raised):
        # All of them are told to end before the first is waited for.
        for load in self.loads:
            load.halt.set()
        return self._stack.__exit__(*raised)

    @property
    def acknowledged(self):
        return sum(load.acknowledged for load in self.loads)

    @property
    def ledgers(self):
        return [ledger for load in self.loads for ledger in load.ledgers]
