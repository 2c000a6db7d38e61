"""Running it: health and readiness, metrics, draining on SIGTERM, whose data directory it is, an index that is deleted."""

import json
import os
import re
import shutil
import signal
import socket
import threading

import pytest
from harness import audit, payloads, wire
from harness.load import Load
from harness.metrics import metric, metric_names
from harness.payloads import custom
from harness.waiting import wait_equal, wait_until


def test_health_and_readiness(server):
    for path in ("/healthz", "/readyz"):
        answer = server.get(path)
        assert answer.status == 200


def test_metrics_are_prometheus_text(server):
    answer = server.get("/metrics")
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    for line in answer.body.decode().splitlines():
        assert (
            not line
            or line.startswith("# ")
            or re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^}]*\})? [-+]?([0-9.eE+-]+|NaN|Inf)$", line)
        ), line


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_drains(serve, signal_number):
    """Under load: whatever was accepted is answered and stored, the exit code is 0 within ten seconds."""
    server = serve()
    with Load(server, clients=4) as load:
        wait_until(lambda: load.acknowledged > 200, 60, "load")
        server.process.send_signal(signal_number)
        assert server.wait_exit(10) == 0
        load.halt.set()
    server.start()
    audit.assert_exactly_once(server, load.ledgers)
    audit.assert_newest_state(server, load.ledgers)


def test_request_under_way_is_answered_on_sigterm(serve):
    """The server has asked for the body (`100 Continue`) when the signal comes; the body follows after it."""
    server = serve()
    body = json.dumps([custom("under-way")]).encode()
    head = f"Authorization: {server.sdk_key}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(f"POST /bulk HTTP/1.1\r\nHost: x\r\n{head}".encode())
        assert wire.statuses(wire.read_head(connection)) == [100]
        connection.sendall(body[:10])
        server.process.send_signal(signal.SIGTERM)
        connection.sendall(body[10:])
        assert wire.statuses(wire.read_head(connection)) == [202]
    assert server.wait_exit(10) == 0
    server.start()
    wait_equal(lambda: len(server.events("event_key", "event_key = 'under-way'")), 1)


def test_idle_connections_do_not_delay_the_stop(serve):
    server = serve()
    idle = [socket.create_connection(server.address) for _ in range(50)]
    assert server.stop() < 5
    for connection in idle:
        connection.close()


def refuses_to_start(server, pattern):
    server.launch()
    server.expect_log(".")
    assert server.wait_exit(20) != 0
    assert re.search(pattern, server.text(), re.IGNORECASE), server.text()


def test_second_process_on_the_same_directory_is_refused(serve):
    first = serve()
    second = serve(start=False, data_dir=first.data_dir)
    refuses_to_start(second, "another process|in use|locked|already")
    assert str(first.data_dir) in second.text()
    assert first.bulk([custom("still-here")]).status == 202


def test_directory_is_free_after_kill9(serve):
    server = serve()
    server.kill9()
    server.start()


def crc32c(data):
    """CRC-32C, bit by bit: the checksum in the log's `format` file."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_directory_of_a_newer_version_is_refused(serve):
    """The log's `format` file as a later version would write it, its checksum right."""
    server = serve()
    server.stop()
    file = server.data_dir / "log" / "format"
    before, _, _ = file.read_bytes().partition(b"checksum ")
    assert b"version 1\n" in before
    newer = before.replace(b"version 1\n", b"version 2\n")
    file.write_bytes(newer + f"checksum {crc32c(newer):08x}\n".encode())
    refuses_to_start(server, "newer|version 2")
    file.write_bytes(before + f"checksum {crc32c(before):08x}\n".encode())
    server.start()


def test_half_written_directory_is_refused(serve):
    """Segments without the `format` file that makes a log of them: not taken for a new, empty log."""
    server = serve()
    server.bulk([custom("kept")])
    server.stop()
    file = server.data_dir / "log" / "format"
    content = file.read_bytes()
    file.unlink()
    refuses_to_start(server, re.escape(str(server.data_dir / "log")))
    file.write_bytes(content)
    server.start()
    wait_equal(lambda: len(server.events("event_key", "event_key = 'kept'")), 1)


def test_listen_address_in_use_is_said(serve):
    first = serve()
    second = serve(start=False)
    second.address = first.address
    refuses_to_start(second, "in use")


def test_deleted_index_comes_back(serve):
    server = serve()
    server.bulk([payloads.identify({"kind": "user", "key": f"u{number}", "n": number}) for number in range(50)])
    wait_equal(lambda: len(server.found()), 50)
    before = {context["key"]: context for context in server.found()}
    server.stop()
    server.expect_log("begun anew")
    shutil.rmtree(server.data_dir / "index")
    server.start()
    wait_equal(lambda: {context["key"]: context for context in server.found()}, before)


def test_pipeline_reports_what_happened(serve):
    server = serve()
    key = payloads.unique("pipeline")
    assert server.bulk([custom(key), {"kind": "feature"}], "pipeline-1").status == 202
    assert server.bulk([custom(key)], "pipeline-1").status == 202
    server.post("/diagnostic", payloads.diagnostic("diagnostic", droppedEvents=7), {"Authorization": server.sdk_key})
    wait_equal(lambda: len(server.events("event_key", f"event_key = '{key}'")), 1)
    state = wait_until(
        lambda: (p := server.pipeline()) and p["table"]["lagRecords"] == 0 == p["index"]["lagRecords"] and p
    )
    ingest = state["ingest"]
    assert (
        ingest["requestsTotal"] == 3
        and ingest["deduplicatedPayloadsTotal"] == 1
        and ingest["sdkDroppedEventsTotal"] == 7
    )
    assert ingest["deadLettersTotal"] == {"missing_field": 1} or ingest["deadLettersTotal"].get("missing_field") == 1
    assert ingest["answers"]["202"] == 3
    assert {partition["topic"] for partition in state["log"]["partitions"]} == {"events", "contexts", "dead_letters"}


# What dashboards and alerts are built on: a name that is changed here breaks somebody's alert.
METRICS = {
    *(
        f"tidegate_ingest_{name}_total"
        for name in ["payloads", "accepted_events", "requests", "body_bytes", "unpacked_bytes", "dead_letters"]
    ),
    "tidegate_ingest_deduplicated_payloads_total",
    "tidegate_ingest_represented_evaluations_total",
    "tidegate_ingest_sdk_dropped_events_total",
    "tidegate_ingest_in_flight_bytes",
    "tidegate_ingest_connections",
    *(
        f"tidegate_{stage}_{name}"
        for stage in ("table", "index")
        for name in ("lag_records", "lag_seconds", "freshness_seconds")
    ),
    "tidegate_log_held_bytes",
    "tidegate_index_contexts_count",
}


def test_metrics_have_their_names(server):
    server.bulk([custom("metrics")])
    wait_until(lambda: metric_names(server) >= METRICS, 10, "all metrics")


def test_metrics_count_what_happened(serve):
    server = serve()
    summary = {
        "kind": "summary",
        "startDate": 1,
        "endDate": 2,
        "features": {"f": {"counters": [{"value": 1, "count": 318}]}},
    }
    assert server.bulk([summary, custom("c"), 5], "metrics-1").status == 202
    assert server.bulk([summary, custom("c"), 5], "metrics-1").status == 202
    server.post("/diagnostic", payloads.diagnostic("diagnostic", droppedEvents=7), {"Authorization": server.sdk_key})
    assert server.post("/bulk", b"[", {"Authorization": server.sdk_key}).status == 400
    assert metric(server, "tidegate_ingest_represented_evaluations_total") == 318
    assert metric(server, "tidegate_ingest_deduplicated_payloads_total") == 1
    assert metric(server, "tidegate_ingest_sdk_dropped_events_total") == 7
    assert metric(server, "tidegate_ingest_dead_letters_total", reason="not_an_event") == 1
    assert metric(server, "tidegate_ingest_dead_letters_total", reason="invalid_json") == 1
    assert metric(server, "tidegate_ingest_requests_total", status="202") == 3
    assert metric(server, "tidegate_ingest_requests_total", status="400") == 1


def test_keys_and_tokens_are_never_logged(serve):
    server = serve()
    server.bulk([custom("quiet")])
    server.post("/bulk", b"[", {"Authorization": server.sdk_key})
    server.post("/bulk", b"[]", {"Authorization": "sdk-11111111-unknown"})
    server.search()
    server.stop()
    for secret in (server.sdk_key, server.mobile_key, server.api_token, server.reader_token, "sdk-11111111-unknown"):
        assert secret not in "\n".join(server.output)


def test_idle_server_is_small(serve, measured):
    server = serve()
    server.bulk([custom("idle")])
    resident = server.memory_bytes() / (1 << 20)
    measured("idle, resident memory of the test build", f"{resident:.0f} MiB")
    assert resident < 150


def test_many_connections_at_once(server):
    """More clients than workers: everybody is answered."""
    answers = []

    def client():
        answers.append(server.bulk([custom("many")], payloads.payload_id()).status)

    threads = [threading.Thread(target=client) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [202] * 200


def test_open_files_do_not_grow(server):
    folder = f"/proc/{server.pid}/fd"
    server.bulk([custom("warm")])
    before = len(os.listdir(folder))
    for _ in range(300):
        server.bulk([custom("fds")], payloads.payload_id())
    wait_until(lambda: len(os.listdir(folder)) <= before + 20, 20, "as few open files as before")
