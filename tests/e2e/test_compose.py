"""The container set-up as far as it can be checked without an engine: read by Docker Compose's own library, every file that
it mounts is there, the configuration is right, and the dashboard shows only what the program exports."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from harness import payloads
from harness.cluster import shared_settings
from harness.config import merged
from harness.metrics import metric_names
from harness.payloads import custom
from harness.process import binary, clean_environment
from harness.waiting import wait_until

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "tidegate.json"


def read(what, path):
    program = os.environ.get("TIDEGATE_COMPOSE_CHECK")
    assert program, "TIDEGATE_COMPOSE_CHECK is not set; ./test builds it from tests/compose"
    ran = subprocess.run([program, what, path], capture_output=True, timeout=30, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def project():
    return read("project", ROOT / "docker-compose.yml")


def test_services_are_there_and_their_images_pinned(project):
    services = project["services"]
    assert services.keys() == {"tidegate", "kafka", "s3", "bucket", "prometheus", "grafana"}
    for name, service in services.items():
        assert "build" in service or re.search(r":[^:/]*\d[^:/]*$", service["image"]), f"{name} takes {service['image']}"


def test_every_mounted_file_is_there(project):
    mounts = [mount for service in project["services"].values() for mount in service.get("volumes") or []]
    bound = [Path(mount["source"]) for mount in mounts if mount["type"] == "bind"]
    assert len(bound) == 4 and all(path.exists() and path.is_relative_to(ROOT) for path in bound), bound
    named = {mount["source"] for mount in mounts if mount["type"] == "volume"}
    assert named == project["volumes"].keys()


def test_nothing_listens_beyond_this_machine(project):
    ports = [port for service in project["services"].values() for port in service.get("ports") or []]
    assert len(ports) == 5 and all(port["host_ip"] == "127.0.0.1" for port in ports), ports


@pytest.fixture(scope="module")
def cluster():
    return read("project", ROOT / "docker-compose.cluster.yml")


def test_every_stage_is_a_service_of_the_cluster(cluster):
    services = cluster["services"]
    assert services.keys() == {"ingest", "compact", "index-1", "index-2", "api", "kafka", "s3", "bucket"}
    ports = [port for service in services.values() for port in service.get("ports") or []]
    assert ports and all(port["host_ip"] == "127.0.0.1" for port in ports), ports
    settings = tomllib.loads((ROOT / "deploy" / "cluster.toml").read_text())
    for peer in settings["api"]["peers"]:
        name, port = peer.removeprefix("http://").split(":")
        assert f"0.0.0.0:{port}" in services[name]["command"]
    for name in ("ingest", "compact", "index-1", "index-2", "api"):
        files = {mount["target"]: mount["source"] for mount in services[name]["volumes"]}
        variables = services[name]["environment"]
        environment = {**clean_environment(), "TIDEGATE__API__SECRET": variables["TIDEGATE__API__SECRET"]}
        command = [binary(), "config", "check", "--config", files[variables["TIDEGATE_CONFIG"]]]
        checked = subprocess.run(command, capture_output=True, env=environment)
        assert checked.returncode == 0, checked.stderr
        assert services[name]["command"][0] == name.split("-")[0]
    assert services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{settings['kafka']['brokers']}"


def test_a_schema_stands_behind_it(tmp_path):
    """What reads the file refuses what Docker Compose would refuse."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("depends_on:", "depends_one:"))
    with pytest.raises(AssertionError, match="depends_one"):
        read("project", wrong)


def test_program_takes_its_command_and_configuration(project):
    service = project["services"]["tidegate"]
    command, files = service["command"], {mount["target"]: mount["source"] for mount in service["volumes"]}
    path = files[command[command.index("--config") + 1]]
    assert command[command.index("--data-dir") + 1] in files
    checked = subprocess.run([binary(), "config", "check", "--config", path], capture_output=True, env=clean_environment())
    assert checked.returncode == 0, checked.stderr
    help_text = subprocess.run([binary(), command[0], "--help"], capture_output=True, text=True).stdout
    assert all(flag in help_text for flag in command if flag.startswith("--"))
    # The broker is where the program looks for it, and tells clients the same address.
    brokers = tomllib.loads(Path(path).read_text())["kafka"]["brokers"]
    assert project["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{brokers}"
    assert service["depends_on"]["kafka"]["condition"] == "service_healthy"
    # The bucket that is made is the one that is used.
    assert f"s3/{Path(path).read_text().split('s3://')[1].split('/')[0]}" in project["services"]["bucket"]["command"][0]


def test_scrape_targets_are_services(project):
    config = read("yaml", ROOT / "deploy" / "prometheus.yml")
    targets = [target for job in config["scrape_configs"] for part in job["static_configs"] for target in part["targets"]]
    assert targets
    for target in targets:
        name, port = target.split(":")
        assert name in project["services"] and f"0.0.0.0:{port}" in project["services"][name]["command"]


def test_grafana_finds_its_source_and_its_dashboard(project):
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = read("yaml", provisioning / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in project["services"]
    (provider,) = read("yaml", provisioning / "dashboards" / "tidegate.yml")["providers"]
    targets = {mount["target"] for mount in project["services"]["grafana"]["volumes"]}
    assert provider["options"]["path"] in targets
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_metric_of_the_dashboard_is_exported(serve, tmp_path):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = {name for panel in panels for query in panel.get("targets", []) for name in re.findall(r"tidegate_\w+", query["expr"])}
    assert len(shown) > 20
    server = serve()
    # Some are those of a log on Kafka, and of an API over other processes.
    shared = merged(shared_settings(tmp_path), {"api": {"secret": "a-secret-of-the-cluster"}})
    on_kafka = serve(settings=shared)
    api = serve(settings=merged(shared, {"api": {"peers": [on_kafka.url]}}), task="api")
    # Families have members only once something happened: a reason for a dead letter.
    assert server.bulk([custom("compose"), {"kind": "feature"}]).status == 202
    server.bulk([payloads.identify({"kind": "user", "key": "compose"})])
    wait_until(lambda: not shown - set().union(*map(metric_names, (server, on_kafka, api))), 10, "all metrics of the dashboard")
