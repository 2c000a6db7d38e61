"""Processes that share one Kafka log and one place for tables: what they are told, and how their work is divided."""

import uuid

from harness.config import merged
from harness.lake import Lake
from harness.payloads import identify
from harness.services import kafka_settings, shared_broker

PARTITIONS = 4
SESSION_SECONDS = 6
# What processes say of others that took their place, and of what they have lost by it.
TAKEN_OVER = "could not be landed|another process has taken over|does not hold|thrown out"


def shared_settings(folder):
    """Settings of all processes of a cluster, with topics of its own and tables below `folder`."""
    kafka = kafka_settings(shared_broker(), f"roles-{uuid.uuid4()}.")
    return settings_of_a_cluster(kafka, {"storage": {"url": str(folder / "lake")}})


def settings_of_a_cluster(kafka, storage):
    log = {"events_partitions": PARTITIONS, "contexts_partitions": PARTITIONS}
    index = {"snapshots": "on", "snapshot_interval": "1s", "table_interval": "1s"}
    session = {"session_timeout": f"{SESSION_SECONDS}s"}
    return merged(merged(kafka, storage), {"log": log, "kafka": session, "indexer": index})


def users(numbers, **attributes):
    """Events that name users by number."""
    return [identify({"kind": "user", "key": f"u{number:05}", **attributes}) for number in numbers]


class Cluster:
    """Processes that share their settings. As a server it is what outside readers see of all of them."""

    def __init__(self, serve, settings, lake=None):
        self.serve, self.settings = serve, settings
        self.lake = lake or Lake(settings["storage"]["url"])
        self.processes = {}

    def add(self, task, number, settings=None, **more):
        own = merged({"kafka": {"member": f"{task}-{number}"}}, settings or {})
        server = self.serve(settings=merged(self.settings, own), task=task, **more)
        server.expect_log(TAKEN_OVER)
        server.lake_elsewhere = self.lake
        self.processes[task, number] = server
        return server

    def of(self, task):
        return [server for (name, _), server in sorted(self.processes.items()) if name == task and server.process.poll() is None]

    # As the audit asks.

    def events(self, columns, where):
        return self.of("ingest")[0].events(columns, where)

    def table_rows(self, query):
        return self.lake.sql(query)

    def found(self, filter_text=""):
        return [context for server in self.of("index") for context in server.found(filter_text)]

    # How the work is divided.

    def shards(self):
        """Of each index process the partitions that it has open."""
        return [sorted(server.pipeline()["index"]["partitions"]) for server in self.of("index")]

    def divided(self):
        held = self.shards()
        return sorted(sum(held, [])) == list(range(PARTITIONS)) and all(held)

    def caught_up(self):
        lags = [server.pipeline()["table"]["lagRecords"] for server in self.of("compact")]
        lags += [server.pipeline()["index"]["lagRecords"] for server in self.of("index")]
        return sum(lags) == 0
