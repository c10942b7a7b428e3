"""Runs and registered models. The only file that knows MLflow.

A training run holds what was logged while training ran; a version of the registered model `argan-<domain>` points at plain
files (safetensors, JSON, Markdown, pictures) among that run's artifacts. Nothing is pickled and no MLflow flavour is used.
`challenger` is the newest version; `champion` moves only when the gate (gate.py) says that the new one is better.

MLflow takes seconds to import, so it is imported where it is first needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from argan.errors import UserError
from argan.files import swapped
from argan.params import Mlflow, Training
from argan.spool import Event, Spool

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

    from argan.gate import Decision

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A server that is away is said to be within seconds; MLflow's own defaults retry for many minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

ARTIFACTS = Path("mlartifacts")  # of stores that are a database without a server
UNSENT = "unsent"  # beside a training's checkpoints: what its server has not got yet
MODEL_FILES = ("generator.safetensors", "estimator.safetensors", "config.json")


# ---- Where the registry is -------------------------------------------------------------------------------------------


def tracking_uri(settings: Mlflow | None = None) -> str:
    """The environment's MLFLOW_TRACKING_URI, else the parameter, else params.yaml's in this folder, else the default."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if settings is None and Path("params.yaml").exists():
        from argan import params

        settings = params.load().mlflow
    return (settings or Mlflow()).tracking_uri


def public(uri: str) -> str:
    """The URI without user, password and query: fit for a receipt that goes into Git."""
    if not uri.startswith("sqlite"):  # a file's name may hold an @
        uri = re.sub("://.*@", "://", uri)
    return uri.split("?")[0].rstrip("/")


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


def _reach(uri: str) -> None:
    """Raises UserError at once where MLflow would try again for minutes."""
    parts, file = urlsplit(uri), _sqlite_file(uri)
    try:
        if file is not None:
            if file.exists():
                with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
                    database.execute("pragma schema_version").fetchone()
            elif not os.access(file.absolute().parent, os.W_OK):
                raise OSError(f"the folder {file.absolute().parent} is not there or not writable")
        elif parts.hostname:
            port = parts.port or {"https": 443, "http": 80}.get(
                parts.scheme, 5432 if "postgres" in parts.scheme else 3306
            )
            socket.create_connection((parts.hostname, port), timeout=5).close()
        elif not parts.scheme.startswith(("sqlite", "databricks", "http", "postgresql", "mysql", "mssql")):
            raise OSError(
                "MLflow keeps no registry in a folder; use sqlite:///FILE, postgresql+psycopg://... or http(s)://..."
            )
    except (OSError, ValueError, sqlite3.Error) as error:
        raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: Exception) -> UserError:
    reason = re.sub(r"://[^\s/]*@", "://", " ".join(str(error).replace(uri, public(uri)).split()))[:300]
    if isinstance(error, ModuleNotFoundError):
        reason += "; for PostgreSQL: pip install 'argan[postgres]', and a URI that starts with postgresql+psycopg://"
    return UserError(
        f"MLflow at {public(uri)} cannot be used ({reason}); start it, or set mlflow.tracking_uri or MLFLOW_TRACKING_URI"
    )


@contextmanager
def _speaking(uri: str) -> Iterator[None]:
    """Whatever MLflow, its database or its server throw comes out as one line."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, ModuleNotFoundError) as error:
        raise _unreachable(uri, error) from error


def _client(uri: str) -> MlflowClient:
    _reach(uri)
    from mlflow import MlflowClient

    with _speaking(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def revision() -> str:
    """The Git commit of this folder, `+` when code or params are changed since; empty without Git."""
    try:
        ask = {"capture_output": True, "text": True, "timeout": 20, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask).stdout.strip()  # type: ignore[call-overload]
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", "*.py", "params.yaml"], **ask
        ).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if dirty else "")


# ---- A training run --------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A training run in MLflow. A server that goes away while training runs costs neither the training nor its log.

    What could not be sent waits in `spool` and is sent with the next row, by the next start of this training, or by `deliver`,
    each row once: a training that resumes repeats the rows since its checkpoint, and those are not logged again.
    """

    client: MlflowClient
    uri: str
    id: str
    say: Callable[[str], None]
    spool: Spool
    seen: int = -1  # images of the newest row that MLflow or the spool has ...
    shown: int = -1  # ... and of the newest picture
    _pending: list[Event] = field(default_factory=list)
    _spooled: int = 0  # so many of them are in the spool
    _silent: bool = False
    _again: float = 0.0  # not before then is the server tried again

    def watch(self, images: int, row: Mapping[str, float]) -> None:
        """Log a row of numbers at `images` seen."""
        if images > self.seen:
            self.seen = images
            self._log(Event(images, {k: float(v) for k, v in row.items() if k != "images" and v == v}))  # no NaN

    def show(self, images: int, picture: np.ndarray) -> None:
        """Log a picture (H, W, 3) uint8 at `images` seen: MLflow shows them under a slider."""
        if images > self.shown:
            self.shown = images
            self._log(Event(images, picture=picture))

    def end(self, status: str = "FINISHED") -> None:
        self._again = 0.0
        self._log(Event(end=status))

    def reference(self) -> dict[str, str]:
        return {"run_id": self.id, "tracking_uri": public(self.uri)}

    def resume(self) -> None:
        """Go on where the run was left: with what waits in the spool, after the rows that MLflow has."""
        self._pending = [event for event in self.spool.events() if not event.end]  # it has not ended after all
        self._spooled = len(self._pending)
        with _speaking(self.uri):
            logged = sorted(key for key in self.client.get_run(self.id).data.metrics if not key.startswith("eval_"))
            key = "loss_d" if "loss_d" in logged else logged[0] if logged else ""
            steps = [m.step for m in self.client.get_metric_history(self.id, key)] if key else []
            shown = [
                re.search(r"samples\W+step\W+(\d+)", f.path) for f in self.client.list_artifacts(self.id, "images")
            ]
            self.client.update_run(self.id, status="RUNNING")
        self.seen = max([*steps, *(event.images for event in self._pending if event.row)], default=-1)
        pictures = [event.images for event in self._pending if event.picture is not None]
        self.shown = max([*pictures, *(int(found[1]) for found in shown if found)], default=-1)
        self._send()

    def deliver(self) -> int:
        """Send what waits in the spool; how much that was. Raises UserError when the server is away still."""
        self._pending = self.spool.events()
        with _speaking(self.uri):
            self._speak()
        count = len(self._pending)
        self.spool.clear()
        return count

    def _log(self, event: Event) -> None:
        self._pending.append(event)
        self._send()

    def _send(self) -> None:
        """Send what is pending; where the server is away, write it down, say so once and go on."""
        began = time.monotonic()
        if began >= self._again:
            try:
                _reach(self.uri)
                with _speaking(self.uri):
                    self._speak()
                self._pending.clear()
                if self._spooled:
                    self.spool.clear()
                    self._spooled = 0
                if self._silent:
                    self.say("MLflow is back; what was missing is logged")
                self._silent = False
                return
            except UserError as error:
                if not self._silent:
                    self.say(f"warning: not logged yet, training goes on: {error}")
                self._silent = True
                # One that hangs takes a twentieth of the time, not all of it
                self._again = time.monotonic() + min(20 * (time.monotonic() - began), 600)
        with suppress(OSError):  # a full disk: it stays in memory
            self._pending[self._spooled :] = self.spool.append(self._pending[self._spooled :])
            self._spooled = len(self._pending)

    def _speak(self) -> None:
        rows = [(event.images, dict(event.row), event.time) for event in self._pending if event.row]
        _log_rows(self.client, self.id, rows)
        for event in self._pending:
            if event.picture is not None:
                self.client.log_image(self.id, event.pixels(), key="samples", step=event.images, synchronous=True)
            if event.end:
                self.client.set_terminated(self.id, event.end, end_time=event.time)


def start_run(
    settings: Mlflow, domain: str, training: Training, data: str, folder: Path, say: Callable[[str], None]
) -> Run:
    """The run that `folder`/run.json names, if this MLflow has it; else a new one. `folder` holds one training's checkpoints.

    Raises UserError when MLflow cannot be reached: before an hour of training, not after it.
    """
    from argan.files import write_json

    spool = Spool(folder / UNSENT)
    if run := open_run(settings, _run_of(folder), say, spool):
        run.resume()
        return run
    spool.clear()  # another MLflow's
    uri = tracking_uri(settings)
    client = _client(uri)
    with _speaking(uri):
        run = Run(client, uri, _create_run(client, settings, domain, training.model_dump(), data), say, spool)
    write_json(folder / "run.json", run.reference())
    return run


def deliver(home: Path, settings: Mlflow, say: Callable[[str], None]) -> None:
    """Send what the trainings whose checkpoints lie in folders of `home` could not send while they ran. Raises UserError."""
    from filelock import FileLock, Timeout

    for folder in sorted({file.parent.parent for file in home.glob(f"*/{UNSENT}/events.jsonl")}):
        try:
            with FileLock(home / ".lock", timeout=0):  # else a training runs, and sends it itself
                run = open_run(settings, _run_of(folder), say, Spool(folder / UNSENT))
                if run is None:
                    say(
                        f"warning: {folder / UNSENT} stays: its run is not in the MLflow at {public(tracking_uri(settings))}"
                    )
                else:
                    say(f"logged late: {run.deliver()} rows and pictures of {folder}")
        except Timeout:
            return


def _run_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_run(settings: Mlflow, run_id: str | None, say: Callable[[str], None], spool: Spool) -> Run | None:
    """A run made earlier, or None when this MLflow does not have it."""
    uri = tracking_uri(settings)
    client = _client(uri)
    with _speaking(uri):
        return Run(client, uri, run_id, say, spool) if run_id and _alive(client, run_id) else None


def _create_run(client: MlflowClient, settings: Mlflow, domain: str, training: Mapping[str, Any], data: str) -> str:
    from mlflow.entities import Param

    tags = {
        "domain": domain,
        "data_revision": data,
        "git_revision": revision(),
        **{name: str(training[name]) for name in ("preset", "resolution", "recipe", "renderer", "seed")},
    }
    name = f"{domain}-{training['preset']}-{training['recipe']}-seed{training['seed']}"
    run = client.create_run(_experiment(client, settings.experiment), run_name=name, tags=tags)
    client.log_batch(run.info.run_id, params=[Param(k, str(v)) for k, v in training.items()])
    return run.info.run_id


def _experiment(client: MlflowClient, name: str) -> str:
    """Its id. In a store without a server the artifacts lie in ./mlartifacts; a server has its own place for them."""
    found = client.get_experiment_by_name(name)
    if found is None:
        local = not client.tracking_uri.startswith("http")
        return client.create_experiment(name, artifact_location=ARTIFACTS.absolute().as_uri() if local else None)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _alive(client: MlflowClient, run_id: str | None) -> bool:
    return (
        run_id is not None
        and (found := _or_none(lambda: client.get_run(run_id))) is not None
        and (found.info.lifecycle_stage == "active")
    )


def _or_none(ask: Callable[[], Any]) -> Any:
    """What `ask` returns, or None where MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _log_rows(client: MlflowClient, run_id: str, rows: Sequence[tuple[int, Mapping[str, float], int]]) -> None:
    """Rows of (step, numbers, milliseconds since 1970); a row that is there already stays one."""
    from mlflow.entities import Metric

    metrics = [Metric(name, float(value), when, step) for step, row, when in rows for name, value in row.items()]
    for i in range(0, len(metrics), 1000):  # a batch holds at most so many
        client.log_batch(run_id, metrics=metrics[i : i + 1000])


# ---- Registered models -----------------------------------------------------------------------------------------------


def model_hash(folder: Path) -> str:
    """Of what the model is: its weights and the parameters that shaped them, not when or how fast it was made."""
    told = hashlib.sha256()
    try:
        for name in MODEL_FILES[:2]:
            told.update(hashlib.sha256((folder / name).read_bytes()).digest())
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        told.update(json.dumps([config["domain"], config["training"]], sort_keys=True).encode())
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there; train the model first (dvc repro)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json is damaged ({error}); delete {folder} and run `dvc repro`") from error
    return told.hexdigest()[:16]


def register(
    folder: Path,
    metrics: Mapping[str, Any],
    plots: Path,
    report: Path,
    settings: Mlflow,
    decide: Callable[[Path | None], Decision],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Make the model in `folder` a version of `argan-<domain>`, set the aliases, and return the receipt.

    `report`, the folder with the report and the scores, becomes the version's `evaluation/`. `decide` is asked whether it
    becomes champion, and given the folder of the champion there is, None without one. The same model is the same version,
    however often it is registered. The receipt holds no secret.
    """
    from argan.gate import Decision as Decided  # brings scipy, which no other command of the registry needs
    from argan.metrics.page import with_gate

    digest = model_hash(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    domain, data = config["domain"], config["data"]
    name, uri = f"argan-{domain}", tracking_uri(settings)
    client = _client(uri)
    with _speaking(uri):
        if _or_none(lambda: client.get_registered_model(name)) is None:
            client.create_registered_model(name, description=f"AR-GAN trained on the domain '{domain}'")
        found = client.search_model_versions(f"name = '{name}' and tags.model_hash = '{digest}'")
        if found:
            version, run_id = str(found[0].version), str(found[0].run_id)
            say(f"already registered as version {version} of {name}")
        else:
            run_id = str((config.get("mlflow") or {}).get("run_id"))
            if not _alive(client, run_id):  # trained against another MLflow: the curves come along
                run_id = _create_run(client, settings, domain, config["training"], data)
                _log_rows(client, run_id, _history(folder))
                client.set_terminated(run_id)
            client.log_artifacts(run_id, str(folder), f"model/{digest}")
            source = f"{client.get_run(run_id).info.artifact_uri}/model/{digest}"
            version = str(client.create_model_version(name, source, run_id, tags={"model_hash": digest}).version)
        if report.is_dir():
            client.log_artifacts(run_id, str(report), f"model/{digest}/evaluation")
        if plots.is_dir():
            client.log_artifacts(run_id, str(plots), f"plots/{digest}")
        numbers = {f"eval_{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
        _log_rows(client, run_id, [(0, numbers, int(time.time() * 1000))])
        holder = _or_none(lambda: client.get_model_version_by_alias(name, "champion"))
        if holder is not None and str(holder.version) == version:
            decision = Decided(True, "is the champion already")
        else:
            try:
                decision = decide(_files(holder, uri) if holder else None)
            except UserError as error:  # the new version stays, as a challenger
                decision = Decided(False, f"not comparable: {error}")
        champion, reason = decision.champion, decision.reason
        page = report / "report.html"
        if page.exists():
            told = with_gate(page.read_text(encoding="utf-8"), reason, champion, decision.rows())
            client.log_text(run_id, told, f"model/{digest}/evaluation/report.html")
        client.set_registered_model_alias(name, "challenger", version)
        if champion:
            client.set_registered_model_alias(name, "champion", version)
        tags = {
            "domain": domain,
            "data_revision": data,
            "git_revision": revision(),
            "gate": reason,
        }
        tags |= {key: _number(value) for key, value in metrics.items() if value is not None}
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        client.update_model_version(name, version, _description(folder, metrics, run_id, digest, plots, reason))
    say(f"{name} version {version}: {'champion' if champion else 'challenger'} ({reason})")
    return {
        "name": name,
        "version": version,
        "aliases": ["challenger", *(["champion"] if champion else [])],
        "reason": reason,
        "comparison": {name: asdict(comparison) for name, comparison in decision.comparisons.items()},
        "model_hash": digest,
        "run_id": run_id,
        "tracking_uri": public(uri),
    }


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)


def _history(folder: Path) -> list[tuple[int, dict[str, float], int]]:
    import pandas as pd

    file, now = folder / "history.csv", int(time.time() * 1000)
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    return [(int(row["images"]), {str(k): v for k, v in row.items() if k != "images" and v == v}, now) for row in rows]


def _description(folder: Path, metrics: Mapping[str, Any], run_id: str, digest: str, plots: Path, reason: str) -> str:
    """Markdown: the card, the gate's reason, the scores, and pictures out of the run's artifacts."""
    card = folder / "card.md"
    told = card.read_text(encoding="utf-8") if card.exists() else ""
    table = "\n".join(f"| {key} | {_number(value)} |" for key, value in metrics.items() if value is not None)
    found = [(f"plots/{digest}", file) for file in sorted(plots.glob("*.png"))]
    found += [(f"model/{digest}/samples", file) for file in sorted((folder / "samples").glob("*.png"))]
    pictures = "\n\n".join(
        f"![{file.stem}](/get-artifact?path={quote(f'{place}/{file.name}', safe='')}&run_uuid={run_id})"
        for place, file in found
    )
    return f"{told.strip()}\n\n**Gate:** {reason}\n\n| score | |\n|---|---|\n{table}\n\n{pictures}\n"


def registered(receipt: Mapping[str, Any], settings: Mlflow) -> bool:
    """Whether the MLflow in use holds the version a receipt names. Quick for SQLite: MLflow itself is not imported."""
    uri, (name, version) = tracking_uri(settings), (str(receipt.get("name")), str(receipt.get("version")))
    if receipt.get("tracking_uri") != public(uri):
        return False
    file = _sqlite_file(uri)
    if file is not None:
        ask = "select 1 from model_versions where name = ? and version = ? and current_stage != 'Deleted_Internal'"
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
                return database.execute(ask, (name, version)).fetchone() is not None
        except sqlite3.Error:
            return False
    client = _client(uri)
    with _speaking(uri):
        return _or_none(lambda: client.get_model_version(name, version)) is not None


def tag(name: str, alias: str, tags: Mapping[str, str], settings: Mlflow) -> str:
    """Write tags of the version that an alias names, and return its number. Raises UserError."""
    uri = tracking_uri(settings)
    client = _client(uri)
    with _speaking(uri):
        version = str(client.get_model_version_by_alias(name, alias).version)
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
    return version


def download(reference: str, settings: Mlflow | None = None) -> Path:
    """The folder of `models:/<name>@<alias>` or `models:/<name>/<version>`; fetched once, then kept in the user's cache."""
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
    if match is None:
        raise UserError(
            f"'{reference}' is no registry reference; write models:/argan-<domain>@champion or models:/argan-<domain>/3"
        )
    name, alias, version = match.groups()
    uri = tracking_uri(settings)
    if (file := _sqlite_file(uri)) is not None and not file.exists():
        raise UserError(f"there is no registry at {file.absolute()}; run `dvc repro` first, or set MLFLOW_TRACKING_URI")
    client = _client(uri)
    with _speaking(uri):
        if alias:
            found = _or_none(lambda: client.get_model_version_by_alias(name, alias))
        else:
            found = _or_none(lambda: client.get_model_version(name, version))
        if found is None:
            raise UserError(
                f"{reference} is not in the MLflow at {public(uri)}; see its page of {name} for what there is"
            )
        return _files(found, uri)


def _files(version: Any, uri: str) -> Path:
    """The folder of a model version; from elsewhere it is fetched once, then kept in the user's cache."""
    if urlsplit(version.source).scheme in ("", "file"):
        local = Path(unquote(urlsplit(version.source).path))
        if not local.is_dir():
            raise UserError(
                f"models:/{version.name}/{version.version}: its files are gone from {local}; register it again (dvc repro -s -f "
                "register)"
            )
        return local
    import mlflow.artifacts

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "argan"
    key = hashlib.sha256(f"{uri} {version.source}".encode()).hexdigest()[:16]
    target = cache / f"{version.name}-{version.version}-{key}"
    if not target.is_dir():
        with swapped(target) as new:
            mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=str(new), tracking_uri=uri)
    inner = sorted((p.parent for p in target.rglob("config.json")), key=lambda p: len(p.parts))
    return inner[0] if inner else target
