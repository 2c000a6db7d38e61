"""The pipeline with its log on a real Kafka broker: recorded requests, deaths of program and broker, wrong set-ups.

What is killed or recreated has a broker of its own, behind a proxy; the rest shares the one that `./test` starts.
"""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import time
import uuid

import pytest
from harness import audit, payloads, recorded
from harness.config import merged
from harness.load import Load
from harness.metrics import metric
from harness.payloads import custom
from harness.process import binary, clean_environment
from harness.services import Broker, kafka_settings, kafka_tool, kafka_topics, shared_broker
from harness.waiting import wait_equal, wait_until
from harness.wire import Wire

SEED = 20261128
KILLS = 6
# What the program says of a broker that is away; each is told once, as it should be.
BROKER_AWAY = "Kafka takes no records|append of a batch failed|could not be landed|indexing failed|could not be written"


@pytest.fixture
def on_kafka():
    """Settings with topics of one's own on the shared broker."""
    return kafka_settings(shared_broker(), f"e2e-{uuid.uuid4()}.")


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "kafka") as broker:
        yield broker


def acknowledge_more(load, count):
    target = load.acknowledged + count
    wait_until(lambda: load.acknowledged >= target, 60, f"{count} more acknowledged payloads")


def users(numbers, **attributes):
    return [payloads.identify({"kind": "user", "key": f"u{number:05}", **attributes}) for number in numbers]


def whole(server):
    state = server.pipeline()
    return not state["index"]["rebuilding"] and state["index"]["lagRecords"] == 0 == state["table"]["lagRecords"]


# It works.


def test_recorded_requests_reach_table_and_index(serve, on_kafka):
    server = serve(settings=on_kafka)
    folder = "python-server-9.17.0--gzip"
    expected = recorded.expectations()[folder]
    with contextlib.closing(Wire(server.address)) as wire:
        for request in recorded.requests(folder):
            assert request.send(wire).status in (200, 202)

    def stored():
        rows = server.events("kind, payload_id, payload_index", "true")
        counted = {}
        for kind, *_ in {(row["kind"], row["payload_id"], row["payload_index"]) for row in rows}:
            counted[kind] = counted.get(kind, 0) + 1
        return counted

    wait_equal(stored, expected["events"])
    wait_until(lambda: whole(server) and server.pipeline()["index"]["contexts"] > 0, 30, "contexts in the index")
    # A repeat of everything, as a client does whose answers were lost.
    with contextlib.closing(Wire(server.address)) as wire:
        for request in recorded.requests(folder):
            request.send(wire)
    wait_until(lambda: whole(server), 30, "no lag")
    assert stored() == expected["events"]
    state = server.pipeline()["log"]
    assert state["kind"] == "kafka" and len(state["partitions"]) == 5
    assert sum(partition["next"] for partition in state["partitions"]) == metric(server, "tidegate_log_appended_records_total")


def test_traced_request_is_followed_into_table_and_index(serve, on_kafka):
    """A proxy before us traces a request: its record has the trace, and so have the lines of all who touch it."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    levels = ",".join(f"tidegate::{target}=debug" for target in ("request", "batch", "record"))
    server = serve(settings=on_kafka, wrapper=["env", f"TIDEGATE_LOG=info,{levels}", "TIDEGATE_LOG_FORMAT=json"])
    headers = {"Authorization": server.sdk_key, "traceparent": f"00-{trace}-{span}-01"}
    assert server.post("/bulk", users([1]), headers).status == 202
    wait_equal(lambda: len(server.found()), 1, what="contexts found")

    def told():
        lines = [json.loads(line) for line in server.output if trace in line]
        return {(line["target"], line.get("reader"), line.get("topic")) for line in lines}

    steps = {
        ("tidegate::request", None, None),
        ("tidegate::batch", None, None),
        ("tidegate::record", "compactor", "events"),
        ("tidegate::record", "indexer", "contexts"),
    }
    wait_equal(lambda: steps - told(), set(), what="steps without a line")
    # As a stranger reads the record.
    topic = on_kafka["kafka"]["topic_prefix"] + "events"
    words = ["--topic", topic, "--from-beginning", "--max-messages", "1", "--property", "print.headers=true"]
    shown = kafka_tool("consumer.ConsoleConsumer", shared_broker(), *words)
    found = re.search(rf"traceparent:00-{trace}-([0-9a-f]{{16}})-01", shown)
    assert found and found[1] != span, shown[:500]


def test_restart_goes_on_where_it_was(serve, on_kafka):
    server = serve(settings=on_kafka)
    assert server.bulk(users(range(20)), "before").status == 202
    assert server.stop() < 10
    server.start()
    assert server.bulk(users(range(10, 30)), "after").status == 202
    assert server.bulk(users(range(20)), "before").status == 202
    assert len(server.landed("before", "kind", 20)) == 20
    assert len(server.landed("after", "kind", 20)) == 20
    wait_equal(lambda: len(server.found()), 30)
    wait_until(lambda: whole(server), 30, "no lag")
    assert server.lake.count("events", "payload_id = 'before'") == 20


def test_index_is_rebuilt_from_table_and_log(serve, on_kafka):
    server = serve(settings=merged(on_kafka, {"indexer": {"table_interval": "300ms"}}))
    server.bulk(users(range(50), plan="gold"))
    wait_equal(lambda: len(server.found("plan equals gold")), 50)
    server.stop()
    command = [binary(), "index", "rebuild", "--config", server.config_file, "--data-dir", server.data_dir]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=clean_environment(), timeout=60)
    assert ran.returncode == 0 and "the index has 50 contexts" in ran.stdout, ran.stdout + ran.stderr
    server.start()
    wait_equal(lambda: len(server.found("plan equals gold")), 50)


def test_lost_disk_is_no_loss_with_tables_elsewhere(serve, on_kafka, tmp_path):
    """Everything but the tables is gone: the index comes back from table and log, the offsets from the table."""
    lake = tmp_path / "lake"
    settings = merged(on_kafka, {"storage": {"url": str(lake)}})
    server = serve(settings=settings)
    server.lake_elsewhere = type(server.lake)(str(lake))
    server.bulk(users(range(30)), "kept")
    assert len(server.landed("kept", "kind", 30)) == 30
    server.kill9()
    shutil.rmtree(server.data_dir)
    server.start()
    wait_equal(lambda: len(server.found()), 30)
    wait_until(lambda: whole(server), 30, "no lag")
    assert server.lake.count("events") == 30


# Deaths.


def test_kill_of_the_program_under_load(serve, on_kafka, measured):
    server = serve(settings=on_kafka)
    chance = random.Random(SEED)
    with Load(server) as load:
        for _ in range(KILLS):
            acknowledge_more(load, chance.randrange(1, 300))
            server.kill9()
            server.start()
        acknowledge_more(load, 100)
    audit.assert_exactly_once(server, load.ledgers)
    audit.assert_newest_state(server, load.ledgers)
    measured(f"Kafka, kill -9 of the program, {KILLS} rounds", f"{load.acknowledged} payloads, none lost or doubled")


def test_kill_of_the_broker_under_load(serve, broker, measured):
    """With nothing kept on the local disk; `test_spill.py` has the rest."""
    server = serve(settings=merged(broker.settings(), {"kafka": {"spill_max": "0B"}}))
    server.expect_log(BROKER_AWAY)
    slowest = 0.0
    with Load(server) as load:
        for _ in range(2):
            acknowledge_more(load, 200)
            broker.kill9()
            refused = load.refused
            wait_until(lambda refused=refused: load.refused > refused, 30, "a refusal")
            wait_until(lambda: server.get("/readyz").status == 503, 15, "a server that is not ready")
            assert server.get("/healthz").status == 200
            broker.start()
            began = time.monotonic()
            wait_until(server.is_ready, 30, "readiness")
            acknowledge_more(load, 1)
            slowest = max(slowest, time.monotonic() - began)
        acknowledge_more(load, 100)
    audit.assert_exactly_once(server, load.ledgers)
    audit.assert_newest_state(server, load.ledgers)
    measured("Kafka, broker killed under load", f"{load.acknowledged} payloads, none lost or doubled")
    measured("Kafka, from a broker that is back to an answer of 202", f"{slowest:.2f} s")


def test_end_and_start_without_a_broker(serve, broker):
    """The end comes in time all the same; a start waits a while and then says why it gives up."""
    server = serve(settings=merged(broker.settings(), {"kafka": {"spill_max": "0B"}}))
    server.expect_log(BROKER_AWAY)
    assert server.bulk([custom("x")], "first").status == 202
    broker.kill9()
    server.stop()
    server.launch()
    assert server.wait_exit(40) == 1
    assert "no answer from the Kafka brokers" in server.text()
    broker.start()
    server.start()
    assert len(server.landed("first", "kind", 1)) == 1


# Topics that are not what they were.


def test_recreated_topic_stops_its_readers_and_the_rest_goes_on(serve, on_kafka):
    server = serve(settings=on_kafka)
    brokers, name = on_kafka["kafka"]["brokers"], on_kafka["kafka"]["topic_prefix"] + "events"
    server.bulk(users(range(5)), "before")
    assert len(server.landed("before", "kind", 5)) == 5
    server.expect_log(f"reading of a topic stops|partition stopped|{BROKER_AWAY}")
    kafka_topics(brokers, "--delete", "--topic", name)
    wait_until(lambda: name not in kafka_topics(brokers, "--list").split(), 30, "deletion")
    config = ["--config", "message.timestamp.type=LogAppendTime", "--config", "unclean.leader.election.enable=false"]
    kafka_topics(brokers, "--create", "--topic", name, "--partitions", "2", *config, "--config", "max.message.bytes=99999999")
    stopped = wait_until(lambda: server.pipeline()["table"]["stopped"], 30, "a table that stops")
    assert any("was deleted" in why or "the log holds" in why for why in stopped), stopped
    wait_until(lambda: server.bulk(users(range(5, 9)), "after").status == 202, 30, "an answer of 202")
    wait_equal(lambda: len(server.found()), 9)
    # After a restart the table says what is wrong; nothing of the new topic is taken for something of the old one.
    server.stop()
    server.expect_log("replaced|another|stopped")
    server.start()
    wait_until(lambda: server.pipeline()["table"]["stopped"], 30, "a table that stops")
    assert server.lake.count("events", "payload_id = 'after'") == 0


def test_topic_with_wrong_settings_is_refused_with_all_of_them(serve, on_kafka):
    brokers, prefix = on_kafka["kafka"]["brokers"], on_kafka["kafka"]["topic_prefix"]
    wrong = ["--config", "cleanup.policy=compact", "--config", "retention.ms=1000"]
    kafka_topics(brokers, "--create", "--topic", f"{prefix}events", "--partitions", "3", *wrong)
    text = refusal(serve, on_kafka)
    for part in ("events has 3 partitions, log.events_partitions is 2", "cleanup.policy = compact", "retention.ms = 1000"):
        assert part in text, text


# Wrong set-ups.


def refusal(serve, settings):
    """What a program says that does not start."""
    server = serve(start=False, settings=settings)
    server.launch()
    assert server.wait_exit(40) == 1, server.text()
    assert not [line for line in server.output if "panicked at" in line]
    return server.text()


def test_wrong_address_is_told_with_the_reason(serve):
    text = refusal(serve, kafka_settings("127.0.0.1:1", "x."))
    assert "no answer from the Kafka brokers 127.0.0.1:1" in text and "refused" in text


def keystore(folder):
    """A key and a certificate for 127.0.0.1 that nobody vouches for; their paths as Java and others read them."""
    store, certificate = folder / "store.p12", folder / "certificate.pem"
    common = ["-alias", "broker", "-keystore", store, "-storepass", "changeit"]
    made = ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"]
    for words in ([*made, *common], ["-exportcert", "-rfc", "-file", certificate, *common]):
        subprocess.run(["keytool", *map(str, words)], check=True, capture_output=True, timeout=60)
    return store, certificate


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A broker that asks for TLS, a password and rights. `admin` may do all, `app` nothing yet."""
    folder = tmp_path_factory.mktemp("guarded")
    store, certificate = keystore(folder)
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    settings = [
        "listener.security.protocol.map=PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        "sasl.mechanism.inter.broker.protocol=PLAIN",
        f'listener.name.plaintext.plain.sasl.jaas.config={login} username="admin" password="fake-admin" '
        'user_admin="fake-admin" user_app="fake-app";',
        f"ssl.keystore.location={store}",
        "ssl.keystore.password=changeit",
        "ssl.keystore.type=PKCS12",
        # It tries at its start whether it would trust itself.
        f"ssl.truststore.location={certificate}",
        "ssl.truststore.type=PEM",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:admin;User:ANONYMOUS",
    ]
    with Broker(folder / "kafka", settings) as broker:
        yield broker, certificate


def with_login(guarded, user, password, **more):
    broker, certificate = guarded
    login = {"sasl_mechanism": "PLAIN", "sasl_username": user, "sasl_password": password}
    return broker.settings(security_protocol="SASL_SSL", **login, **{"ssl_ca_location": str(certificate), **more})


def test_tls_and_password_let_in_who_is_known(serve, guarded):
    server = serve(settings=with_login(guarded, "admin", "fake-admin"))
    assert server.bulk(users(range(3)), "guarded").status == 202
    assert len(server.landed("guarded", "kind", 3)) == 3
    assert "fake-admin" not in server.text()


def test_wrong_password_is_told(serve, guarded):
    text = refusal(serve, with_login(guarded, "admin", "fake-wrong"))
    assert "do not let us in" in text and "uthentication failed" in text
    assert "fake-wrong" not in text


def test_certificate_that_nobody_vouches_for_is_told(serve, guarded):
    text = refusal(serve, with_login(guarded, "admin", "fake-admin", ssl_ca_location="/etc/ssl/certs/ca-certificates.crt"))
    assert "do not let us in" in text and "certificate" in text


def test_missing_rights_are_told(serve, guarded):
    text = refusal(serve, with_login(guarded, "app", "fake-app"))
    assert "not allowed by the Kafka brokers" in text and "tidegate." in text
