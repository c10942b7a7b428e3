"""`python -m pipelines.services` on real servers: in order, safe to repeat, safe after a crash, clear about what is wrong; and
what they keep, backed up, destroyed and brought back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import psycopg
import pytest
from conftest import Workspace
from mlflow import MlflowClient
from servers import Servers, serving

from pipelines.daemon import Daemon

pytestmark = pytest.mark.pipeline


def make_versions(servers: Servers, monkeypatch: pytest.MonkeyPatch, folder: Path, count: int = 3) -> None:
    """Versions of a model with artifacts, tags and aliases; a flow run and a variable in Prefect."""
    for name, value in servers.client.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(servers.mlflow)
    client.create_registered_model("argan-meadow", description="of meadows")
    experiment = client.create_experiment("argan")
    for version in range(1, count + 1):
        run = client.create_run(experiment, run_name=f"run {version}").info.run_id
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model" / "generator.safetensors").write_bytes(os.urandom(50_000))
        (folder / "model" / "card.md").write_text(f"# {version} äöü\n")
        client.log_artifacts(run, str(folder / "model"), "model")
        client.log_metric(run, "kid", version / 7, step=version)
        client.create_model_version(
            "argan-meadow", f"{client.get_run(run).info.artifact_uri}/model", run, tags={"n": str(version)}
        )
    client.set_registered_model_alias("argan-meadow", "champion", str(count - 1))
    client.set_registered_model_alias("argan-meadow", "challenger", str(count))
    assert servers.api("POST", "/variables/", {"name": "kept", "value": {"a": ["ä", 1]}}).is_success


def what_is_there(servers: Servers, folder: Path) -> dict[str, Any]:
    """All that a user would miss: aliases, tags, metrics, the bytes of every artifact, what Prefect knows."""
    client, told = MlflowClient(servers.mlflow), dict[str, Any]()
    for version in client.search_model_versions("name = 'argan-meadow'"):
        place = Path(client.download_artifacts(version.run_id, "model", dst_path=str(_fresh(folder / version.version))))
        told[version.version] = {
            "aliases": list(client.get_model_version("argan-meadow", version.version).aliases),
            "tags": version.tags,
            "metrics": client.get_run(version.run_id).data.metrics,
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(place.iterdir())},
        }
    told["prefect"] = servers.api("GET", "/variables/name/kept").json()["value"]
    told["pool"] = servers.api("GET", "/work_pools/argan").json()["id"]
    return told


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# ---- Started, repeated, refused --------------------------------------------------------------------------------------


def test_started_servers_have_what_flows_need(servers: Servers) -> None:
    pool = servers.api("GET", "/work_pools/argan").json()
    environment = pool["base_job_template"]["variables"]["properties"]["env"]["default"]
    assert pool["type"] == "process"
    assert environment["MLFLOW_TRACKING_URI"] == servers.mlflow
    assert servers.api("GET", "/v2/concurrency_limits/gpu").json()["limit"] == 1
    assert set(servers.client) == {"PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI"}
    told = servers.start()
    assert told.count("already running") == 3
    assert "/#/models?workflowType=machine_learning" in told
    assert servers.run("status").count(" running,") == 3
    assert "with passwords False and not True; to change it" in servers.run("start", "--passwords", code=2)
    for port in (servers.prefect_port, servers.mlflow_port):
        listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_what_runs_is_not_moved_and_a_taken_port_is_told(servers: Servers, tmp_path: Path) -> None:
    told = servers.run("start", "--prefect-port", "4999", code=2)
    assert told == (
        f"error: prefect runs already, with prefect_port {servers.prefect_port} and not 4999; to change it: "
        "make services-stop, then make services\n"
    )
    elsewhere = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt", servers.prefect_port)
    told = elsewhere.run("start", "--prefect-port", str(servers.prefect_port), code=2)
    assert told.startswith(
        f"error: port {servers.prefect_port} is taken by another program; choose another: make services PREFECT_PORT="
    )
    assert told.count("\n") == 1
    assert elsewhere.run("status", code=1).count("not running") == 3
    note = servers.home / "run" / "mlflow.json"
    content = note.read_text()
    note.write_text(json.dumps(json.loads(content) | {"version": "3.1.0"}))
    try:
        assert "the mlflow that runs is mlflow 3.1.0, installed is 3." in servers.run("start", code=2)
    finally:
        note.write_text(content)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://argan:wrong@127.0.0.1:9/", "PostgreSQL at 127.0.0.1:9 cannot be used"),
        (
            "mysql://a:b@127.0.0.1/",
            "ARGAN_DATABASE_URL does not name a PostgreSQL server, its user and host; write it as postgresql://",
        ),
        ("nonsense", "ARGAN_DATABASE_URL is no URL; write it as"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, url: str, told: str) -> None:
    output = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt").start(
        code=2, ARGAN_DATABASE_URL=url
    )
    assert output.startswith(f"error: {told}")
    assert output.count("\n") == 1
    assert "wrong" not in output


def test_databases_of_other_versions_are_told_before_anything_starts(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt")
    file = servers.home / "mlflow" / "mlflow.db"
    file.parent.mkdir(parents=True)
    with sqlite3.connect(file) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('e1f2a3b4c5d6')")
    told = servers.start(code=2)
    assert "error: the mlflow database (SQLite files) is not migrated to the installed mlflow 3." in told
    assert "back up, then run: python -m pipelines.services migrate" in told
    with sqlite3.connect(file) as database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")
    assert "is at migration ffffffffffff, which the installed mlflow 3." in servers.start(code=2)
    file.write_bytes(b"no database at all" * 1000)
    assert "is damaged or no database" in servers.start(code=2)
    assert servers.run("status", code=1).count("not running") == 3


def test_a_server_that_cannot_start_is_told_by_its_own_words_and_leaves_nothing_running(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt")
    (servers.home / "mlflow").mkdir(parents=True)
    (servers.home / "mlflow" / "mlflow.db").mkdir()
    told = servers.start(code=2)
    assert told.count("\n") == 1 and told.startswith("error: ") and "mlflow.db" in told
    assert servers.run("status", code=1).count("not running") == 3


CHILD = "import time; print('child', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=APART)
print("ready", flush=True); time.sleep(600)
"""


def started(tmp_path: Path, apart: bool, name: str = "it") -> Daemon:
    command = [sys.executable, "-c", PARENT.replace("APART", str(apart))]
    daemon = Daemon(name, tmp_path, command, dict(os.environ), patience=5)
    daemon.start()
    until(lambda: daemon.log.read_text().count("child") and daemon.log.read_text().count("ready"), None, 30)
    return daemon


def marked(daemon: Daemon) -> int:
    return len(daemon._of_mark())


def test_what_outlives_its_parent_is_found_and_ended(tmp_path: Path) -> None:
    daemon = started(tmp_path, apart=False)
    os.kill(daemon.note()["pid"], signal.SIGKILL)
    until(lambda: daemon.leader() is None, None, 10)
    assert len(daemon.members()) == 1
    assert daemon.stop() and marked(daemon) == 0 and not daemon.stop()


def test_flow_runs_outlive_a_worker_but_not_the_end_of_all(tmp_path: Path) -> None:
    daemon = started(tmp_path, apart=True)
    daemon.stop()
    assert marked(daemon) == 1
    assert daemon.stop(everything=True) and marked(daemon) == 0


def test_a_pid_that_is_another_programs_now_is_left_alone(tmp_path: Path) -> None:
    stranger = started(tmp_path / "other", apart=False)
    daemon = Daemon("it", tmp_path, [], {})
    daemon.pid_file.parent.mkdir()
    daemon.pid_file.write_text(json.dumps(stranger.note()))
    assert daemon.leader() is None and not daemon.stop()
    assert marked(stranger) == 2 and stranger.stop()


def test_a_daemon_hears_sigint_though_its_parent_was_deaf(tmp_path: Path) -> None:
    script = "import pathlib; from pipelines.daemon import Daemon; "
    script += f"Daemon('it', pathlib.Path({str(tmp_path)!r}), ['sleep', '600'], {{}}).start()"
    subprocess.run(
        [sys.executable, "-c", script], check=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    daemon = Daemon("it", tmp_path, end=signal.SIGINT, patience=60)
    began = time.monotonic()
    assert daemon.stop() and time.monotonic() - began < 30


# ---- Crashes, backups, on SQLite -------------------------------------------------------------------------------------


def test_crash_backup_loss_and_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("domains: [meadow]\n")
    archive = tmp_path / "kept" / "backup.tar"
    with serving(tmp_path, "--no-worker") as servers:
        make_versions(servers, monkeypatch, tmp_path / "made")
        before = what_is_there(servers, tmp_path / "before")
        assert before["2"]["aliases"] == ["champion"]

        told = servers.run("backup", str(archive))  # while they run
        assert "both databases (sqlite), artifacts (6 files)" in told
        assert archive.stat().st_mode & 0o077 == 0
        assert "is whole" in servers.run("verify", str(archive))
        assert "run; make services-stop first" in servers.run("restore", str(archive), "--force", code=2)

        # A crash: MLflow loses its parent alone, Prefect all, and a stranger has the pid of before
        os.kill(servers.pid("mlflow"), signal.SIGKILL)
        servers.kill("prefect")
        note = servers.home / "run" / "prefect.json"
        note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": os.getpid()}))
        servers.start()
        assert what_is_there(servers, tmp_path / "after") == before

        MlflowClient(servers.mlflow).delete_registered_model("argan-meadow")
        servers.stop()
        assert servers.stop() == "nothing was running\n"
        told = servers.run("restore", str(archive), code=2)  # something is there, and nobody to ask
        assert "would be replaced by what is in" in told and "FORCE=1" in told

        # Damage is found before anything is replaced
        content = archive.read_bytes()
        damaged = tmp_path / "damaged.tar"
        middle = content.index(b"safetensors") + 1000
        damaged.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        state = {p: p.read_bytes() for p in sorted(servers.home.rglob("*")) if p.is_file()}
        assert "is damaged" in servers.run("restore", str(damaged), "--force", code=2)
        damaged.write_bytes(content[: len(content) // 2])
        assert "is damaged" in servers.run("restore", str(damaged), "--force", code=2)
        assert {p: p.read_bytes() for p in sorted(servers.home.rglob("*")) if p.is_file()} == state

        shutil.rmtree(servers.home)
        servers.run("restore", str(archive))
        assert (servers.home / "restored/workspace/params.yaml").read_text() == "domains: [meadow]\n"
        servers.start()
        assert what_is_there(servers, tmp_path / "restored") == before


# ---- PostgreSQL and passwords, and servers that go away ---------------------------------------------------------------


def test_passwords_are_wanted_and_nowhere_to_be_seen(team: Servers) -> None:
    client = team.client
    user, password = client["MLFLOW_TRACKING_USERNAME"], client["MLFLOW_TRACKING_PASSWORD"]
    for url in (f"{team.prefect}/api/work_pools/argan", f"{team.mlflow}/version"):
        assert httpx.get(url, trust_env=False).status_code == 401
        assert httpx.get(url, auth=(user, "other"), trust_env=False).status_code == 401
        assert httpx.get(url, auth=(user, password), trust_env=False).status_code == 200
    assert (team.home / "env").stat().st_mode & 0o077 == 0
    secret = (team.home / "postgres-password").read_text()
    seen = json.dumps([p.info["cmdline"] for p in psutil.process_iter(["cmdline"])])
    seen += team.logs() + (team.home / "settings.json").read_text() + team.run("status")
    assert password not in seen and secret not in seen and "not-so-secret" not in seen
    assert password not in team.api("GET", "/work_pools/argan").text


FLOW = """
import pathlib, time
from prefect import flow
from prefect.concurrency.sync import concurrency

@flow(name="holding")
def holding():
    with concurrency("gpu", occupy=1, strict=True):
        pathlib.Path("holding").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.1)
    pathlib.Path("done").touch()
"""


def test_prefect_and_postgres_die_in_the_middle_of_a_run(team: Servers) -> None:
    (team.work / "flow.py").write_text(FLOW)
    flow = team.api("POST", "/flows/", {"name": "holding"}).json()["id"]
    deployment = {"name": "it", "flow_id": flow, "work_pool_name": "argan", "entrypoint": "flow.py:holding"}
    deployment |= {
        "path": str(team.work),
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(team.work)}}],
    }
    deployed = team.api("POST", "/deployments/", deployment).json()["id"]
    run = team.api("POST", f"/deployments/{deployed}/create_flow_run", {}).json()["id"]
    until(lambda: (team.work / "holding").exists(), team)
    slots = lambda: team.api("GET", "/v2/concurrency_limits/gpu").json()["active_slots"]  # noqa: E731
    assert slots() == 1
    team.kill("prefect")
    team.kill("postgres")
    told = team.run("start")
    assert "postgres: up" in told and "mlflow: already running" in told and "prefect: up" in told
    assert "worker: already running" in told
    assert slots() == 1  # held still
    (team.work / "go").touch()
    until(lambda: team.api("GET", f"/flow_runs/{run}").json()["state"]["type"] == "COMPLETED", team)
    assert (team.work / "done").exists()
    until(lambda: slots() == 0, team)


def until(true: Callable[[], object], servers: Servers | None, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, servers.logs() if servers else "it never was"
        time.sleep(0.25)


def test_mlflow_is_away_while_training_logs_and_while_it_is_to_register(
    finished: Workspace, team: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = finished.copy(tmp_path / "copy")
    workspace.params(lambda content: content["train"].update(seed=7, images=640))
    process = workspace.start("python", "-m", "pipelines.train", "meadow", **team.client)
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if "training on" in line:
            team.kill("mlflow")
    assert process.wait() == 0, told
    assert told.count("warning: not logged yet, nothing is lost") == 1
    assert workspace.run("python", "-m", "pipelines.register", "meadow", code=2, **team.client).count("\n") == 1

    assert "mlflow: up" in team.run("start")
    told = workspace.run("python", "-m", "pipelines.register", "meadow", **team.client)  # the same command again
    assert "logged late: " in told
    again = workspace.run("python", "-m", "pipelines.register", "meadow", **team.client)
    assert "already registered as version" in again and "logged late" not in again
    for name, value in team.client.items():
        monkeypatch.setenv(name, value)
    client, history = MlflowClient(team.mlflow), pd.read_csv(workspace.folder / "models/meadow/history.csv")
    run = json.loads((workspace.folder / "models/meadow/config.json").read_text())["mlflow"]["run_id"]
    logged = [(m.step, m.value) for m in client.get_metric_history(run, "loss_d")]
    assert logged == list(zip(history["images"], history["loss_d"], strict=True))
    assert client.get_run(run).info.status == "FINISHED"
    pictures = [re.search(r"\Wstep\W(\d+).*png$", file.path) for file in client.list_artifacts(run, "images")]
    assert sorted(int(found[1]) for found in pictures if found) == [160, 320, 480, 640]

    # The registry's commands, of the server and straight of its PostgreSQL
    secret = (team.home / "postgres-password").read_text()
    port = json.loads((team.home / "settings.json").read_text())["postgres_port"]
    direct = {"MLFLOW_TRACKING_URI": f"postgresql+psycopg://argan:{secret}@127.0.0.1:{port}/mlflow"}
    for place in (team.client, team.client | direct):
        assert re.search(r"^meadow +1 +1 ", workspace.run("python", "-m", "argan", "models", **place), re.M)
        told = workspace.run("python", "-m", "argan", "models", "promote", "meadow", "1", **place)
        assert "version 1 is the champion already" in told and secret not in told


def test_postgres_backed_up_and_restored_beside_and_over(team: Servers, tmp_path: Path) -> None:
    archive, home = tmp_path / "backup.tar", tmp_path / "services"
    secret = (team.home / "postgres-password").read_text()
    port = json.loads((team.home / "settings.json").read_text())["postgres_port"]
    told = team.run("backup", str(archive))
    assert "both databases (postgresql), artifacts (not in it: they stay in s3://argan/mlflow)" in told
    assert secret.encode() not in archive.read_bytes()
    url = f"postgresql://argan:{secret}@127.0.0.1:{port}/copy"
    other = Servers(home, tmp_path, tmp_path / "connections.txt", changed={**team.changed, "ARGAN_DATABASE_URL": url})
    assert "for a URL" not in other.run("restore", str(archive))
    with (
        psycopg.connect(url.replace("/copy", "/copy_prefect")) as copy,
        psycopg.connect(url.replace("/copy", "/prefect")) as first,
    ):
        ask = "select id, name from work_pool order by id"
        assert copy.execute(ask).fetchall() == first.execute(ask).fetchall() != []
    assert "the database prefect, the database mlflow would be replaced" in other.run("restore", str(archive), code=2)
    with psycopg.connect(url.replace("/copy", "/copy_mlflow"), autocommit=True) as copy:
        copy.execute("delete from alembic_version")  # open while it is replaced
        copy.execute("insert into alembic_version values ('e1f2a3b4c5d6')")
        assert "not migrated to the installed mlflow" in other.start("--no-worker", code=2)
        assert "is being accessed by other users; end what" in other.run("restore", str(archive), "--force", code=2)
    other.run("restore", str(archive), "--force")
    with (
        psycopg.connect(url.replace("/copy", "/copy_mlflow")) as copy,
        psycopg.connect(url.replace("/copy", "/mlflow")) as first,
    ):
        ask = "select version_num from alembic_version"
        assert copy.execute(ask).fetchall() == first.execute(ask).fetchall()
    assert "cannot be used (password authentication failed" in other.run(
        "restore", str(archive), code=2, ARGAN_DATABASE_URL=url.replace(secret, "wrong")
    )
    assert other.run("status", code=1, ARGAN_DATABASE_URL="").count("not running") == 3
    told = other.run("start", code=2, ARGAN_DATABASE_URL="")
    assert "set ARGAN_DATABASE_URL to it" in told and secret not in told
    told = other.run("restore", str(archive), "--force", code=2, ARGAN_DATABASE_URL="sqlite")
    assert "the backup holds postgresql databases and cannot be loaded into sqlite" in told


def test_a_full_disk_is_one_line_and_leaves_no_half_backup(servers: Servers, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=64k none {small}"
    if shutil.which("unshare") is None or subprocess.run([*alone, mount], check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    script = f"{mount} && {sys.executable} -m pipelines.services backup {small}/backup.tar; echo $?; ls -A {small}"
    done = subprocess.run(
        [*alone, script], env=servers.environment, cwd=servers.work, capture_output=True, text=True, check=False
    )
    assert "is full" in done.stderr and str(small) in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "2\n"
