"""Real servers for tests: Prefect, MLflow and a worker in a temporary folder on free ports, once for each test process.

The fixtures `servers`, `team` and `bucket` are there for every test.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from conftest import AUTHOR, OFFLINE, ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Servers:
    """`python -m pipelines.services` on a folder and ports of its own."""

    home: Path
    work: Path  # where the worker runs
    connections: Path  # attempts to reach the outside are written here
    prefect_port: int = field(default_factory=free_port)
    mlflow_port: int = field(default_factory=free_port)
    changed: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of the services themselves."""
        kept = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TMPDIR", "CI")}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home.parent),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(OFFLINE), *_entry_point(self.home.parent)]),
            "OMP_NUM_THREADS": "1",
            "ARGAN_SERVICES": str(self.home),
            "ARGAN_TEST_CONNECTIONS": str(self.connections),
            "DVC_SITE_CACHE_DIR": str(self.home.parent / "dvc"),
            **AUTHOR,
            **self.changed,
        }

    @property
    def client(self) -> dict[str, str]:
        """What a flow, a stage or a command needs to use them: PREFECT_API_URL, MLFLOW_TRACKING_URI and passwords."""
        lines = (self.home / "env").read_text().splitlines()
        pairs = (line.removeprefix("export ").split("=", 1) for line in lines)
        return {name: value.strip("'") for name, value in pairs}

    def run(self, command: str, *options: str, code: int = 0, **changed: str) -> str:
        """Run a command of pipelines.services to its end, check its exit code, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.services", command, *options],
            cwd=self.work,
            env=self.environment | changed,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == code, f"services {command} ended with {done.returncode}:\n{output}\n{self.logs()}"
        return output

    def start(self, *options: str, code: int = 0, **changed: str) -> str:
        ports = ["--prefect-port", str(self.prefect_port), "--mlflow-port", str(self.mlflow_port)]
        return self.run("start", *ports, *options, code=code, **changed)

    def stop(self) -> str:
        return self.run("stop")

    def pid(self, name: str) -> int:
        return int(json.loads((self.home / "run" / f"{name}.json").read_text())["pid"])

    def ended(self) -> list[str]:
        """Those that were started here and whose process is there no more."""
        notes = sorted((self.home / "run").glob("*.json"))
        return [note.stem for note in notes if not _runs(int(json.loads(note.read_text())["pid"]))]

    def kill(self, name: str) -> None:
        """SIGKILL one of them and its children, as a lack of memory would."""
        process = psutil.Process(self.pid(name))
        process.suspend()  # or it sees a child end before its own turn comes, and reports that
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs([process], timeout=20)

    def api(self, method: str, path: str, content: object = None) -> httpx.Response:
        """A request to Prefect's interface, with the password and a CSRF token, as Prefect's own client makes them."""
        with httpx.Client(base_url=f"{self.prefect}/api", auth=self.auth, timeout=60, trust_env=False) as client:
            headers = {}
            if method != "GET":
                token = client.get("/csrf-token", params={"client": "tests"})
                if token.is_error:
                    return token
                headers = {"Prefect-Csrf-Client": "tests", "Prefect-Csrf-Token": token.json()["token"]}
            return client.request(method, path, json=content, headers=headers)

    @property
    def auth(self) -> tuple[str, str] | None:
        """User and password, where there are some."""
        user, _, password = self.client.get("PREFECT_API_AUTH_STRING", "").partition(":")
        return (user, password) if user else None

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in self.home.glob("logs/*.log"))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _entry_point(folder: Path) -> list[str]:
    """Where the package is not installed but lies on the path, MLflow would not find its app with the guard."""
    if entry_points(group="mlflow.app", name="argan"):
        return []
    output = folder / "entry" / "argan_guard-0.dist-info"
    output.mkdir(parents=True, exist_ok=True)
    (output / "METADATA").write_text("Metadata-Version: 2.1\nName: argan-guard\nVersion: 0\n")
    (output / "entry_points.txt").write_text("[mlflow.app]\nargan = pipelines.services.auth:mlflow\n")
    return [str(output.parent)]


@contextmanager
def serving(work: Path, *options: str, **changed: str) -> Iterator[Servers]:
    """Servers that run for the length of a `with`; `work` is the worker's folder."""
    base = Path(tempfile.mkdtemp(prefix="argan-"))  # short, and reachable for the user that PostgreSQL runs as
    base.chmod(0o755)
    servers = Servers(base / "services", work, base / "connections.txt", changed=changed)
    try:
        servers.start(*options)
        yield servers
        assert not servers.connections.exists(), servers.connections.read_text()
    finally:
        servers.run("stop")
        shutil.rmtree(base, ignore_errors=True)


@dataclass(frozen=True)
class Bucket:
    """A bucket on a real S3 server of this machine."""

    endpoint: str
    name: str = "argan"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "argan",
            "AWS_SECRET_ACCESS_KEY": "not-so-secret",
        }

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id="argan", aws_secret_access_key="not-so-secret"
        )


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket in SeaweedFS, started for the session."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    keys = [{"accessKey": "argan", "secretKey": "not-so-secret"}]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "a", "credentials": keys, "actions": actions}]})
    )
    named = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    ports = {name: free_port() for name in [*named, "s3.port", "s3.port.grpc"]}
    command = ["weed", "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += ["-master.telemetry=false", f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=20", *(f"-{name}={port}" for name, port in ports.items())]
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    made = Bucket(f"http://127.0.0.1:{ports['s3.port']}")
    try:
        for attempt in range(240):
            try:
                made.client().create_bucket(Bucket=made.name)
                break
            except Exception:
                assert server.poll() is None and attempt < 239, (folder / "log").read_text()[-3000:]
                time.sleep(0.25)
        yield made
    finally:
        server.kill()  # nothing in it is to be kept
        server.wait()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Prefect's and MLflow's servers and a worker, on SQLite, one set for all tests."""
    with serving(tmp_path_factory.mktemp("work")) as started:
        yield started


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket) -> Iterator[Servers]:
    """As a team runs them: on PostgreSQL, artifacts in a bucket, behind a proxy's name. Tests may end and restart single ones."""
    given = {"ARGAN_DATABASE_URL": "embedded", **bucket.environment}
    proxied = ("--allowed-hosts", "argan.example")
    port, place = str(free_port()), f"s3://{bucket.name}/mlflow"
    with serving(
        tmp_path_factory.mktemp("team"), *proxied, "--postgres-port", port, "--artifacts", place, **given
    ) as started:
        yield started
