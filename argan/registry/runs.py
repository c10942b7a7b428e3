"""A training run in MLflow: its parameters, its curves and its pictures over training."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.config.schema import Mlflow, Training
from argan.errors import UserError
from argan.registry import connection, lineage
from argan.registry.connection import connect, none_if_missing, redacted_uri, tracking_uri, translate_errors
from argan.registry.spool import Event, Spool

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

ARTIFACTS = Path("mlartifacts")  # of stores that are a database without a server
PICTURE_STEP = re.compile(r"samples\W+step\W+(\d+)")  # in the names that MLflow gives to pictures
UNSENT = "unsent"  # beside a training's checkpoints: what its server has not received yet


@dataclass
class TrainingRun:
    """A training run in MLflow. A server that goes away while training runs costs neither the training nor its log.

    What could not be sent waits in `spool` and is sent with the next row, by the next start of this training, or by `deliver`,
    each row once: a training that resumes repeats the rows since its checkpoint, and those are not logged again.
    """

    client: MlflowClient
    uri: str
    id: str
    say: Callable[[str], None]
    spool: Spool
    last_row: int = -1  # images of the newest row that MLflow or the spool has ...
    last_picture: int = -1  # ... and of the newest picture
    _pending: list[Event] = field(default_factory=list)
    _spooled: int = 0  # so many of them are in the spool
    _away: bool = False
    _retry_at: float = 0.0  # of time.monotonic: the server is tried again no earlier

    def log_row(self, images: int, row: Mapping[str, float]) -> None:
        """Log a row of numbers at `images` seen."""
        if images > self.last_row:
            self.last_row = images
            self._queue(_row_event(images, row))

    def log_missing(self, history: Sequence[Mapping[str, float]]) -> None:
        """Log what is missing of the rows of a training that resumes, at once."""
        if missing := [row for row in history if row["images"] > self.last_row]:
            self._pending += [_row_event(int(row["images"]), row) for row in missing[:-1]]
            self.log_row(int(missing[-1]["images"]), missing[-1])

    def log_picture(self, images: int, picture: np.ndarray) -> None:
        """Log a picture (H, W, 3) uint8 at `images` seen: MLflow shows them under a slider."""
        if images > self.last_picture:
            self.last_picture = images
            self._queue(Event(images, picture=picture))

    def end(self, status: str = "FINISHED", tags: Mapping[str, str] | None = None) -> None:
        self._retry_at = 0.0
        self._pending.append(Event(end=status, tags=tags or {}))
        self._spool()  # first: after a signal there may be no time for a server that hangs
        self._send()

    def reference(self) -> dict[str, str]:
        return {"run_id": self.id, "tracking_uri": redacted_uri(self.uri)}

    def resume(self) -> None:
        """Go on where the run was left: with what waits in the spool, after the rows that MLflow has."""
        self._pending = [event for event in self.spool.events(self.say) if not event.end]  # it has not ended after all
        self._spooled = len(self._pending)
        with translate_errors(self.uri):
            metrics = self.client.get_run(self.id).data.metrics
            logged = sorted(key for key in metrics if not key.startswith(("eval/", "eval_")))
            key = "loss_d" if "loss_d" in logged else logged[0] if logged else ""
            steps = [metric.step for metric in self.client.get_metric_history(self.id, key)] if key else []
            files = [file.path for file in self.client.list_artifacts(self.id, "images")]
            pictures = [int(match[1]) for path in files if (match := PICTURE_STEP.search(path))]
            self.client.update_run(self.id, status="RUNNING")
            for key, value in lineage.prefect_tags().items():  # another flow run takes it up
                self.client.set_tag(self.id, key, value)
        self.last_row = max([*steps, *(event.images for event in self._pending if event.row)], default=-1)
        pictures += [event.images for event in self._pending if event.picture is not None]
        self.last_picture = max(pictures, default=-1)
        self._send()

    def deliver(self) -> int:
        """Send what waits in the spool; how much that was. Raises UserError when the server is away still."""
        self._pending = self.spool.events(self.say)
        with translate_errors(self.uri):
            self._deliver()
        count = len(self._pending)
        self.spool.clear()
        return count

    def _queue(self, event: Event) -> None:
        self._pending.append(event)
        self._send()

    def _send(self) -> None:
        """Send what is pending; where the server is away, spool it, say so once and go on."""
        began = time.monotonic()
        if began >= self._retry_at:
            try:
                connection.check_reachable(self.uri)
                with translate_errors(self.uri):
                    self._deliver()
                self._pending.clear()
                if self._spooled:
                    self.spool.clear()
                    self._spooled = 0
                if self._away:
                    self.say("MLflow is back; what was missing is logged")
                self._away = False
                return
            except UserError as error:
                if not self._away:
                    self.say(f"warning: not logged yet, nothing is lost: {error}")
                self._away = True
                # One that hangs takes a twentieth of the time, not all of it
                self._retry_at = time.monotonic() + min(20 * (time.monotonic() - began), 600)
        self._spool()

    def _spool(self) -> None:
        """Write what is pending into the spool."""
        with suppress(OSError):  # on a full disk it stays in memory
            self._pending[self._spooled :] = self.spool.append(self._pending[self._spooled :])
            self._spooled = len(self._pending)

    def _deliver(self) -> None:
        rows = [(event.images, dict(event.row), event.time) for event in self._pending if event.row]
        log_rows(self.client, self.id, rows)
        for event in self._pending:
            if event.picture is not None:
                self.client.log_image(self.id, event.pixels(), key="samples", step=event.images, synchronous=True)
            for key, value in event.tags.items():
                self.client.set_tag(self.id, key, value)
            if event.end:
                self.client.set_terminated(self.id, event.end, end_time=event.time)


def _row_event(images: int, row: Mapping[str, float]) -> Event:
    return Event(images, {k: float(v) for k, v in row.items() if k != "images" and v == v})  # no NaN


def start_run(
    settings: Mlflow, domain: str, training: Training, data: str, folder: Path, say: Callable[[str], None]
) -> TrainingRun:
    """The run that `folder`/run.json names, if this MLflow has it and it is of the same recipe; else a new one. `folder` holds one
    generator's checkpoints, of which several estimators may be taught.

    Raises UserError when MLflow cannot be reached: before an hour of training, not after it.
    """
    from argan.files import write_json
    from argan.training.checkpoint import fingerprint

    spool, recipe = Spool(folder / UNSENT), fingerprint(training.learning_params, data)
    earlier = _reference(folder)
    if run := open_run(settings, earlier.get("run_id"), say, spool):
        if earlier.get("recipe") == recipe:
            run.resume()
            return run
        run.deliver()  # the generator's, with another estimator
    spool.clear()  # else another MLflow's
    uri = tracking_uri(settings)
    client = connect(uri)
    with translate_errors(uri):
        run = TrainingRun(client, uri, create_run(client, settings, domain, training.model_dump(), data), say, spool)
    write_json(folder / "run.json", run.reference() | {"recipe": recipe})
    return run


def deliver(home: Path, settings: Mlflow, say: Callable[[str], None]) -> None:
    """Send what the trainings whose checkpoints lie in folders of `home` could not send while they ran. Raises UserError."""
    from filelock import FileLock, Timeout

    for folder in sorted({file.parent.parent for file in home.glob(f"*/{UNSENT}/events.jsonl")}):
        try:
            with FileLock(home / ".lock", timeout=0):  # else a training runs, and sends it itself
                run = open_run(settings, _reference(folder).get("run_id"), say, Spool(folder / UNSENT))
                if run is None:
                    say(
                        f"warning: {folder / UNSENT} stays: its run is not in the MLflow at {redacted_uri(tracking_uri(settings))}"
                    )
                else:
                    say(f"logged late: {run.deliver()} rows and pictures of {folder}")
        except Timeout:
            return


def _reference(folder: Path) -> dict[str, str]:
    """The run that run.json names; empty where that is missing or damaged."""
    try:
        return {str(key): str(value) for key, value in json.loads((folder / "run.json").read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def open_run(settings: Mlflow, run_id: str | None, say: Callable[[str], None], spool: Spool) -> TrainingRun | None:
    """A run made earlier, or None when this MLflow does not have it."""
    uri = tracking_uri(settings)
    client = connect(uri)
    with translate_errors(uri):
        return TrainingRun(client, uri, run_id, say, spool) if run_id and is_alive(client, run_id) else None


def create_run(client: MlflowClient, settings: Mlflow, domain: str, training: Mapping[str, Any], data: str) -> str:
    from mlflow.entities import Param

    tags = {
        "domain": domain,
        "data_revision": data,
        "git_revision": lineage.revision(),
        **lineage.prefect_tags(),
        **{name: str(training[name]) for name in ("preset", "resolution", "recipe", "renderer", "seed")},
    }
    name = f"{domain}-{training['preset']}-{training['recipe']}-seed{training['seed']}"
    run = client.create_run(_experiment(client, settings.experiment), run_name=name, tags=tags)
    client.log_batch(run.info.run_id, params=[Param(k, str(v)) for k, v in training.items()])
    return run.info.run_id


def _experiment(client: MlflowClient, name: str) -> str:
    """Its id. In a store without a server the artifacts lie in ./mlartifacts; a server has its own place for them."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = not client.tracking_uri.startswith("http")
        return client.create_experiment(name, artifact_location=ARTIFACTS.absolute().as_uri() if local else None)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


def is_alive(client: MlflowClient, run_id: str | None) -> bool:
    """Whether MLflow has the run, and it is not deleted."""
    run = None if run_id is None else none_if_missing(lambda: client.get_run(run_id))
    return run is not None and run.info.lifecycle_stage == "active"


def log_rows(client: MlflowClient, run_id: str, rows: Sequence[tuple[int, Mapping[str, float], int]]) -> None:
    """Rows of (step, numbers, milliseconds since 1970); a row that is there already stays one."""
    from mlflow.entities import Metric

    metrics = [Metric(name, float(value), when, step) for step, row, when in rows for name, value in row.items()]
    for i in range(0, len(metrics), 1000):  # a batch holds at most so many
        client.log_batch(run_id, metrics=metrics[i : i + 1000])
