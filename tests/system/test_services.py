"""`python -m pipelines.services` on real servers: in order, safe to repeat, safe after a crash, clear about what is wrong; and
what they keep, backed up, destroyed and brought back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import psycopg
import pytest
from conftest import Workspace
from mlflow import MlflowClient
from mlflow.server.security_utils import is_allowed_host_header
from servers import Servers, serving

from argan.serving.http_guard import RequestGuard
from pipelines.services import auth as basic_auth
from pipelines.services.daemon import Daemon
from pipelines.services.servers import Services

pytestmark = pytest.mark.pipeline


def log_in(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as a shell after `source services/env`."""
    for name, value in servers.client.items():
        monkeypatch.setenv(name, value)


def make_versions(servers: Servers, monkeypatch: pytest.MonkeyPatch, folder: Path, count: int = 3) -> None:
    """Versions of a model with artifacts, tags and aliases; a flow run and a variable in Prefect."""
    log_in(servers, monkeypatch)
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
    client, message = MlflowClient(servers.mlflow), dict[str, Any]()
    for version in client.search_model_versions("name = 'argan-meadow'"):
        place = Path(client.download_artifacts(version.run_id, "model", dst_path=str(_fresh(folder / version.version))))
        message[version.version] = {
            "aliases": list(client.get_model_version("argan-meadow", version.version).aliases),
            "tags": version.tags,
            "metrics": client.get_run(version.run_id).data.metrics,
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(place.iterdir())},
        }
    message["prefect"] = servers.api("GET", "/variables/name/kept").json()["value"]
    message["pool"] = servers.api("GET", "/work_pools/argan").json()["id"]
    return message


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
    passwords = {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    assert set(servers.client) == {"PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI"} | passwords
    message = servers.start()
    assert message.count("already running") == 3
    assert "/#/models?workflowType=machine_learning" in message
    assert servers.run("status").count(" running,") == 3
    assert servers.auth and servers.auth[1] not in message  # printed at the first start alone
    assert "with passwords True and not False; to change it" in servers.run("start", "--no-passwords", code=2)
    refused = servers.run("start", "--allowed-hosts", "argan.example", code=2)
    assert "with allowed_hosts none and not argan.example; to change it" in refused
    assert "with another password than ARGAN_AUTH's" in servers.run("start", code=2, ARGAN_AUTH="argan:other")
    assert servers.auth[1] in (servers.home / "auth").read_text()
    assert "no host: write a.example" in servers.run("start", "--allowed-hosts", "https://a.example/", code=2)
    for port in (servers.prefect_port, servers.mlflow_port):
        listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_what_runs_is_not_moved_and_a_taken_port_is_told(servers: Servers, tmp_path: Path) -> None:
    message = servers.run("start", "--prefect-port", "4999", code=2)
    assert message == (
        f"error: prefect runs already, with prefect_port {servers.prefect_port} and not 4999; to change it: "
        "make services-stop, then make services\n"
    )
    elsewhere = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt", servers.prefect_port)
    message = elsewhere.run("start", "--prefect-port", str(servers.prefect_port), code=2)
    assert message.startswith(
        f"error: port {servers.prefect_port} is taken by another program; choose another: make services PREFECT_PORT="
    )
    assert message.count("\n") == 1
    assert elsewhere.run("status", code=1).count("not running") == 3
    note = servers.home / "run" / "mlflow.json"
    content = note.read_text()
    note.write_text(json.dumps(json.loads(content) | {"version": "3.1.0"}))
    try:
        assert "the mlflow that runs is mlflow 3.1.0, installed is 3." in servers.run("start", code=2)
    finally:
        note.write_text(content)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://argan:wrong@127.0.0.1:9/", "PostgreSQL at 127.0.0.1:9 cannot be used"),
        (
            "mysql://a:b@127.0.0.1/",
            "ARGAN_DATABASE_URL does not name a PostgreSQL server, its user and host; write it as postgresql://",
        ),
        ("nonsense", "ARGAN_DATABASE_URL is no URL; write it as"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path, url: str, message: str) -> None:
    output = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt").start(
        code=2, ARGAN_DATABASE_URL=url
    )
    assert output.startswith(f"error: {message}")
    assert output.count("\n") == 1
    assert "wrong" not in output


def test_databases_of_other_versions_are_told_before_anything_starts(tmp_path: Path) -> None:
    servers = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt")
    file = servers.home / "mlflow" / "mlflow.db"
    file.parent.mkdir(parents=True)
    with sqlite3.connect(file) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('e1f2a3b4c5d6')")
    message = servers.start(code=2)
    assert "error: the mlflow database (SQLite files) is not migrated to the installed mlflow 3." in message
    assert "back up, then run: python -m pipelines.services migrate" in message
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
    message = servers.start(code=2)
    assert message.count("\n") == 1 and message.startswith("error: ") and "mlflow.db" in message
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
    until(lambda: daemon.log.read_text().count("child") and daemon.log.read_text().count("ready"), None)
    return daemon


def marked(daemon: Daemon) -> int:
    return len(daemon._of_mark())


def test_what_outlives_its_parent_is_found_and_ended(tmp_path: Path) -> None:
    daemon = started(tmp_path, apart=False)
    os.kill(daemon.note()["pid"], signal.SIGKILL)
    until(lambda: daemon.leader() is None, None)
    assert len(daemon.members()) == 1
    assert daemon.stop() and marked(daemon) == 0 and not daemon.stop()


def test_flow_runs_outlive_a_worker_but_not_the_end_of_all(tmp_path: Path) -> None:
    daemon = started(tmp_path, apart=True)
    daemon.stop()
    assert marked(daemon) == 1
    assert daemon.stop(everything=True) and marked(daemon) == 0


def test_one_whose_pid_was_never_written_down_is_found_and_ended(tmp_path: Path) -> None:
    """As after a kill between the start of a server and the writing of its pid file."""
    daemon = started(tmp_path, apart=False)
    leader = daemon.note()["pid"]
    for note in (None, json.dumps({"pid": os.getpid()})):
        daemon.pid_file.unlink() if note is None else daemon.pid_file.write_text(note)
        found = daemon.leader()
        assert found is not None and found.pid == leader and len(daemon.members()) == 2
    daemon.pid_file.unlink()
    assert replace(daemon, patience=0.1).stop() and marked(daemon) == 0


def test_a_pid_that_is_another_programs_now_is_left_alone(tmp_path: Path) -> None:
    stranger = started(tmp_path / "other", apart=False)
    daemon = Daemon("it", tmp_path, [], {})
    daemon.pid_file.parent.mkdir()
    daemon.pid_file.write_text(json.dumps(stranger.note()))
    assert daemon.leader() is None and not daemon.stop()
    assert marked(stranger) == 2 and stranger.stop()


def test_a_daemon_hears_sigint_though_its_parent_was_deaf(tmp_path: Path) -> None:
    script = "import pathlib; from pipelines.services.daemon import Daemon; "
    script += f"Daemon('it', pathlib.Path({str(tmp_path)!r}), ['sleep', '600'], {{}}).start()"
    subprocess.run(
        [sys.executable, "-c", script], check=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    daemon = Daemon("it", tmp_path, end=signal.SIGINT, patience=300)
    began = time.monotonic()
    assert daemon.stop() and time.monotonic() - began < 200


# ---- Crashes, backups, on SQLite -------------------------------------------------------------------------------------


def test_crash_backup_loss_and_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("domains: [meadow]\n")
    archive = tmp_path / "kept" / "backup.tar"
    with serving(tmp_path, "--no-worker") as servers:
        make_versions(servers, monkeypatch, tmp_path / "made")
        before = what_is_there(servers, tmp_path / "before")
        assert before["2"]["aliases"] == ["champion"]

        message = servers.run("backup", str(archive))  # while they run
        assert "both databases (sqlite), artifacts (6 files)" in message
        assert archive.stat().st_mode & 0o077 == 0
        assert "is intact" in servers.run("verify", str(archive))
        assert "run; make services-stop first" in servers.run("restore", str(archive), "--force", code=2)

        # A crash: MLflow loses its parent alone, Prefect all, and a stranger has the pid of before
        os.kill(servers.pid("mlflow"), signal.SIGKILL)
        servers.kill("prefect")
        note = servers.home / "run" / "prefect.json"
        note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": os.getpid()}))
        servers.start()
        # Killed between the start of Prefect's server and the writing of its pid: the next start begins with that one's end
        before_it = servers.pid("prefect")
        note.unlink()
        message = servers.start()
        assert "mlflow: already running" in message and "prefect: up" in message
        assert servers.pid("prefect") != before_it and not psutil.pid_exists(before_it)
        assert what_is_there(servers, tmp_path / "after") == before

        MlflowClient(servers.mlflow).delete_registered_model("argan-meadow")
        servers.stop()
        assert servers.stop() == "nothing was running\n"
        message = servers.run("restore", str(archive), code=2)  # something is there, and nobody to ask
        assert "would be replaced by what is in" in message and "FORCE=1" in message

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
        message = servers.start()
        assert servers.auth and servers.auth[1] in message  # no password is in a backup: another was made
        log_in(servers, monkeypatch)
        assert what_is_there(servers, tmp_path / "restored") == before


# ---- Who is let in -----------------------------------------------------------------------------------------------------

FOREIGN = {
    "a name pointed at this machine (DNS rebinding)": {"Host": "evil.example:{port}"},
    "a page from elsewhere": {"Origin": "http://evil.example"},
    "a page of another server of this machine": {"Origin": "http://127.0.0.1:1"},
    "a page in a sandbox": {"Origin": "null"},
    "a picture in a page from elsewhere": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a frame in a page from elsewhere": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe",
    },
}
READS = {
    "prefect": ("/", "/ui-settings", "/api/health", "/api/work_pools/argan"),
    "mlflow": ("/", "/health", "/version"),
}
WRITES = {
    "prefect": ("/api/flows/", {"name": "theirs"}),
    "mlflow": ("/ajax-api/2.0/mlflow/registered-models/create", {"name": "theirs"}),
}


@pytest.mark.parametrize("server", ["prefect", "mlflow"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_strangers_are_turned_away_even_with_the_password(servers: Servers, server: str, kind: str) -> None:
    """The password may be known to the browser that a foreign page sends its requests from."""
    base, (path, content) = getattr(servers, server), WRITES[server]
    headers = {name: value.format(port=base.rpartition(":")[2]) for name, value in FOREIGN[kind].items()}
    with httpx.Client(base_url=base, auth=servers.auth, headers=headers, trust_env=False) as client:
        answers = [client.get(read) for read in READS[server]]
        if server == "prefect":  # a page that could get a token would be trusted
            answers.append(client.get("/api/csrf-token", params={"client": "theirs"}))
        answers.append(client.post(path, json=content))
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
        answers.append(client.options(path, headers=ask))
    for answer in answers:
        assert answer.status_code == 403, f"{answer.request.method} {answer.request.url}: {answer.text}"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert _theirs(servers) == ([], [])


@pytest.mark.parametrize("path", ["/api/events/out", "/api/events/in", "/api/logs/out"])
@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Origin": "http://evil.example"}, "PASSWORD"),
        ({"Host": "evil.example"}, "PASSWORD"),
        ({}, "wrong"),
        ({}, None),
    ],
)
def test_strangers_get_no_websocket(servers: Servers, path: str, headers: dict[str, str], message: str | None) -> None:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    token = ":".join(servers.auth or ()) if message == "PASSWORD" else message
    url = servers.prefect.replace("http", "ws") + path
    origin = headers.get("Origin")
    if "Host" in headers:
        url = url.replace("127.0.0.1", headers["Host"])
    stream = socket.create_connection(("127.0.0.1", servers.prefect_port))
    with (
        pytest.raises((ConnectionClosed, InvalidStatus)) as refused,
        connect(url, sock=stream, origin=origin, subprotocols=["prefect"]) as opened,  # type: ignore[arg-type, list-item]
    ):
        opened.send(json.dumps({"type": "auth", "token": token} if token else {"type": "filter"}))
        opened.recv()
    assert "403" in str(refused.value) if headers else "1008" in str(refused.value)


def test_own_pages_are_let_in(servers: Servers) -> None:
    """Those of both servers, by either name of this machine: Prefect's pages show pictures that MLflow keeps."""
    for base in (servers.prefect, servers.mlflow):
        for page in (base, base.replace("127.0.0.1", "localhost"), servers.prefect, servers.mlflow):
            picture = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Referer": f"{page}/"}
            for headers in ({"Origin": page}, picture):
                assert httpx.get(
                    base, headers=headers, auth=servers.auth, trust_env=False, follow_redirects=True
                ).is_success


def test_without_the_password_nothing_is_read_or_written(servers: Servers) -> None:
    assert servers.auth
    user = servers.auth[0]
    for auth in (None, (user, "other"), (user, "")):
        for server, (path, content) in WRITES.items():
            with httpx.Client(base_url=getattr(servers, server), auth=auth, trust_env=False) as client:
                headers, allowed = {}, {401}
                if server == "prefect":
                    assert client.get("/api/csrf-token", params={"client": "theirs"}).status_code == 401
                    headers, allowed = {"Prefect-Csrf-Token": "made-up", "Prefect-Csrf-Client": "theirs"}, {401, 403}
                assert client.post(path, json=content, headers=headers).status_code in allowed
                for read in (
                    ("/api/work_pools/argan", "/api/admin/settings") if server == "prefect" else ("/", "/version")
                ):
                    assert client.get(read).status_code == 401
    assert _theirs(servers) == ([], [])
    assert servers.api("GET", "/work_pools/argan").is_success
    assert httpx.get(f"{servers.mlflow}/version", auth=servers.auth, trust_env=False).is_success
    # The password alone does not do for Prefect: what a browser sends by itself is not enough to change anything
    path, content = WRITES["prefect"]
    assert httpx.post(f"{servers.prefect}{path}", json=content, auth=servers.auth, trust_env=False).status_code == 403


def _theirs(servers: Servers) -> tuple[list[Any], list[Any]]:
    """What a stranger would have made."""
    name = {"flows": {"name": {"any_": ["theirs"]}}}
    models = httpx.get(
        f"{servers.mlflow}/ajax-api/2.0/mlflow/registered-models/search",
        params={"filter": "name = 'theirs'"},
        auth=servers.auth,
        trust_env=False,
    )
    return servers.api("POST", "/flows/filter", name).json(), models.raise_for_status().json().get(
        "registered_models", []
    )


@pytest.mark.parametrize("fixture", ["servers", "team"])
def test_secrets_are_nowhere_to_be_seen(fixture: str, request: pytest.FixtureRequest) -> None:
    services: Servers = request.getfixturevalue(fixture)
    assert services.auth
    known = [services.auth[1]]
    if fixture == "team":
        known += [(services.home / "postgres-password").read_text(), "not-so-secret"]
    seen = json.dumps([p.info["cmdline"] for p in psutil.process_iter(["cmdline"])])
    seen += services.run("status") + services.run("start") + services.api("GET", "/work_pools/argan").text
    assert not [secret for secret in known if secret in seen]
    private = {"env", "auth", "postgres-password"}
    for file in (
        f for f in services.home.rglob("*") if f.is_file() and "postgres" not in f.relative_to(services.home).parts
    ):
        if file.name in private:
            assert file.stat().st_mode & 0o077 == 0, file
        else:
            assert not [secret for secret in known if secret.encode() in file.read_bytes()], file
    for folder in ("prefect", "mlflow", "logs", "run"):
        assert (services.home / folder).stat().st_mode & 0o077 == 0


def test_the_shell_gets_everything_from_env(servers: Servers) -> None:
    script = f". {servers.home}/env && prefect gcl inspect gpu && "
    script += "python -c 'import mlflow; print(len(mlflow.search_experiments()), chr(33))'"
    done = subprocess.run(["sh", "-c", script], env=servers.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "!" in done.stdout, done.stdout + done.stderr


def test_who_is_let_in_after_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that had no passwords because nobody asked for them get some; whoever turns them off keeps them off."""
    monkeypatch.delenv("ARGAN_AUTH", raising=False)
    kept = tmp_path / "settings.json"
    kept.write_text(json.dumps({"prefect_port": 4300, "passwords": False, "worker": True}))
    services = Services.load(tmp_path)
    assert services.settings.passwords and services.settings.prefect_port == 4300
    assert (
        re.fullmatch(r"argan:[\w-]{24}", services.auth) and not (tmp_path / "auth").exists()
    )  # a start writes it down
    (tmp_path / "auth").write_text(services.auth)
    kept.write_text(json.dumps(asdict(Services.load(tmp_path, passwords=False).settings)))
    assert Services.load(tmp_path).auth == "" and not Services.load(tmp_path).settings.passwords
    assert Services.load(tmp_path, passwords=True).auth == services.auth


@pytest.mark.parametrize("server", ["prefect", "mlflow"])
def test_a_proxys_name_is_let_in(team: Servers, server: str) -> None:
    proxied = {"Host": "argan.example", "Origin": "https://argan.example"}
    with httpx.Client(base_url=getattr(team, server), auth=team.auth, trust_env=False) as client:
        path = WRITES[server][0]
        # Past the guard: Prefect asks for a token, MLflow misses a parameter
        for headers, status in (
            (proxied, 403 if server == "prefect" else 400),
            (proxied | {"Host": "evil.example"}, 403),
        ):
            assert client.get(READS[server][-1], headers=headers).is_success == (headers == proxied)
            answer = client.post(path, json={}, headers=headers)
            assert answer.status_code == status and ("by that name" in answer.text) == (headers != proxied)


def test_what_a_proxy_may_be_called(tmp_path: Path) -> None:
    """Our guard and MLflow's own agree."""
    services = Services.load(tmp_path, allowed_hosts="argan.example,mlflow.example:8443", passwords=False)
    hosts, origins = (services.guard[name].split(",") for name in (basic_auth.HOSTS, basic_auth.ORIGINS))
    mlflows = services.guard["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    ours = RequestGuard(lambda *_: None, hosts, origins)  # type: ignore[arg-type, return-value]
    for host in ("argan.example", "mlflow.example:8443", "127.0.0.1:5000", "[::1]:5000", "localhost"):
        assert is_allowed_host_header(mlflows, host)
        for page in ("https://argan.example", "https://mlflow.example:8443"):
            headers = [(b"host", host.encode()), (b"origin", page.encode())]
            assert ours.refusal({"type": "http", "method": "POST", "headers": headers}) is None
    assert not is_allowed_host_header(mlflows, "evil.example")
    assert not is_allowed_host_header(mlflows, "10.0.0.1:5000")


@pytest.mark.parametrize("page", ["v1", "v2"])
def test_a_person_logs_in_to_prefects_pages(servers: Servers, browser: Any, page: str) -> None:
    context = browser.new_context()
    context.add_cookies([{"name": "prefect_ui_version", "value": page, "url": servers.prefect}])
    try:
        opened = context.new_page()
        refused: list[str] = []
        opened.goto(f"{servers.prefect}/concurrency-limits")
        opened.locator("input").first.fill(":".join(servers.auth or ()))
        opened.on("response", lambda r: refused.append(f"{r.status} {r.url}") if r.status in (401, 403) else None)
        opened.keyboard.press("Enter")
        opened.get_by_text("gpu", exact=True).first.wait_for()  # what a POST with a CSRF token has brought
        elsewhere = "() => new Promise(done => {document.addEventListener('securitypolicyviolation', e => "
        elsewhere += (
            "done(e.effectiveDirective)); fetch('http://127.0.0.1:9/').catch(() => setTimeout(() => done(''), 1000))})"
        )
        assert opened.evaluate(elsewhere) == "connect-src"  # the page speaks to nobody else
    finally:
        context.close()
    assert not [answer for answer in refused if answer.startswith("403")]


# ---- PostgreSQL, and servers that go away ------------------------------------------------------------------------------


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
    message = team.run("start")
    assert "postgres: up" in message and "mlflow: already running" in message and "prefect: up" in message
    assert "worker: already running" in message
    assert team.auth and team.auth[1] not in message  # shown once
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
    message = ""
    for line in process.stdout:
        message += line
        if "training on" in line:
            team.kill("mlflow")
    assert process.wait() == 0, message
    assert message.count("warning: not logged yet, nothing is lost") == 1
    assert workspace.run("python", "-m", "pipelines.register", "meadow", code=2, **team.client).count("\n") == 1

    assert "mlflow: up" in team.run("start")
    message = workspace.run("python", "-m", "pipelines.register", "meadow", **team.client)  # the same command again
    assert "logged late: " in message
    again = workspace.run("python", "-m", "pipelines.register", "meadow", **team.client)
    assert "already registered as version" in again and "logged late" not in again
    log_in(team, monkeypatch)
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
        message = workspace.run("python", "-m", "argan", "models", "promote", "meadow", "1", **place)
        assert "version 1 is the champion already" in message and secret not in message


def test_postgres_backed_up_and_restored_beside_and_over(team: Servers, tmp_path: Path) -> None:
    archive, home = tmp_path / "backup.tar", tmp_path / "services"
    secret = (team.home / "postgres-password").read_text()
    port = json.loads((team.home / "settings.json").read_text())["postgres_port"]
    message = team.run("backup", str(archive))
    assert "both databases (postgresql), artifacts (not in it: they stay in s3://argan/mlflow)" in message
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
    message = other.run("start", code=2, ARGAN_DATABASE_URL="")
    assert "set ARGAN_DATABASE_URL to it" in message and secret not in message
    message = other.run("restore", str(archive), "--force", code=2, ARGAN_DATABASE_URL="sqlite")
    assert "the backup holds postgresql databases and cannot be loaded into sqlite" in message


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
