"""More than it can take: requests are held and then told to come back, memory stays bounded, what was acknowledged stays.

Item 14.8 of the event protocol: no 4xx other than 429, no 413, no 3xx, whatever the pressure.
"""

import contextlib
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from harness import audit, payloads, wire
from harness.load import Load
from harness.metrics import metric
from harness.payloads import custom, server_headers
from harness.waiting import wait_equal, wait_until

MIB = 1 << 20
TIGHT = {"ingest": {"body_bytes_max": "2MiB", "bytes_in_flight_max": "6MiB", "hold_max": "300ms"}}


def begin_body(server, declared, sent):
    """A connection that has sent a part of a body and keeps the rest back."""
    connection = socket.create_connection(server.address, timeout=30)
    head = f"POST /bulk HTTP/1.1\r\nHost: x\r\nAuthorization: {server.sdk_key}\r\nContent-Length: {declared}\r\n\r\n"
    connection.sendall(head.encode() + b"[" + b" " * (sent - 1))
    return connection


def test_bytes_in_flight_are_bounded(serve):
    """Bodies under way fill the room: the next is held, answered 503, and stored when it comes again afterwards."""
    server = serve(settings=TIGHT)
    stuck = [begin_body(server, 2 * MIB, 2 * MIB - 10) for _ in range(3)]
    wait_until(lambda: metric(server, "tidegate_ingest_in_flight_bytes") > 5 * MIB)
    event = json.dumps([custom("held", data="x" * MIB)])
    headers = server_headers(server.environments[0], X_LaunchDarkly_Payload_ID="held-1")
    began = time.monotonic()
    answer = server.post("/bulk", event, headers)
    assert answer.status == 503 and "retry-after" in answer.headers
    assert 0.3 <= time.monotonic() - began < 5
    for connection in stuck:
        connection.close()
    wait_until(lambda: server.post("/bulk", event, headers).status == 202)
    wait_equal(lambda: len(server.events("event_key", "payload_id = 'held-1'")), 1)


def test_rate_of_an_environment_is_429(serve):
    server = serve(settings={"ingest": {"environment_requests_per_second": 5}})
    other = server.environments[1]
    # At once: one after the other they might come no faster than is allowed.
    with ThreadPoolExecutor(8) as senders:
        answers = list(
            senders.map(lambda _: server.bulk([custom("rate")], payloads.payload_id()).status, range(40))
        )
    assert set(answers) == {202, 429}
    assert server.bulk([custom("rate")], payloads.payload_id(), other).status == 202
    wait_until(lambda: server.bulk([custom("rate")], payloads.payload_id()).status == 202)


def test_idle_connections_make_room(serve):
    server = serve(settings={"ingest": {"connections_max": 50}})
    idle = [socket.create_connection(server.address) for _ in range(100)]
    assert server.bulk([custom("room")], payloads.payload_id()).status == 202
    for connection in idle:
        connection.close()
    wait_equal(lambda: len(server.events("event_key", "event_key = 'room'")), 1)


class Flood(threading.Thread):
    """Posts large bodies without pause and without manners, and keeps what it was answered."""

    def __init__(self, server, name, halt):
        super().__init__(name=name, daemon=True)
        self.server, self.halt = server, halt
        self.answers, self.acknowledged = [], []
        self.filler = random.Random(name).randbytes(400_000).hex()

    def run(self):
        number = 0
        while not self.halt.is_set():
            number += 1
            self._post(f"{self.name}.{number}")

    def _post(self, payload):
        body = [custom(payload, data=self.filler)]
        headers = server_headers(self.server.environments[0], X_LaunchDarkly_Payload_ID=payload)
        with contextlib.suppress(OSError):
            status = wire.send(self.server.address, "POST", "/bulk", body, headers).status
            self.answers.append(status)
            if status == 202:
                self.acknowledged.append(payload)


def stored_payloads(server):
    return {row["payload_id"] for row in server.events("payload_id", "event_key = payload_id")}


def test_flood_costs_requests_not_memory_nor_events(serve, measured):
    """Forty senders of 0.8 MB bodies against room for few of them, beside clients that behave."""
    server = serve(settings={"ingest": {"body_bytes_max": "2MiB", "bytes_in_flight_max": "8MiB", "hold_max": "300ms"}})
    server.expect_log("come back|overload|room")
    halt = threading.Event()
    flood = [Flood(server, f"flood-{number}", halt) for number in range(40)]
    with Load(server, clients=2) as load:
        for sender in flood:
            sender.start()
        wait_until(lambda: sum(len(sender.answers) for sender in flood) > 400, 90, "400 answers")
        halt.set()
        for sender in flood:
            sender.join()
    answers = [status for sender in flood for status in sender.answers]
    acknowledged = {payload for sender in flood for payload in sender.acknowledged}
    peak = server.memory_bytes("VmHWM")
    measured("flood", f"{len(answers)} answers, {answers.count(503)} of them 503, peak {peak / MIB:.0f} MiB")
    assert set(answers) <= {202, 503} and peak < 1024 * MIB
    wait_equal(lambda: sorted(acknowledged - stored_payloads(server))[:5], [], 60, "acknowledged payloads missing")
    wait_equal(lambda: audit.missing(server, load.ledgers)[:5], [], 60, "acknowledged payloads missing")
