"""Rows and pictures of a training whose server went away arrive later, each once, after the training's process has ended too."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from argan import registry
from argan.config import schema
from argan.config.schema import Mlflow
from argan.errors import UserError
from argan.registry.spool import Event, Spool


@pytest.fixture
def here(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(database, tmp_path / "mlflow.db")
    (tmp_path / "checkpoints" / "abc").mkdir(parents=True)
    return tmp_path


def start(messages: list[str], **changes: object) -> registry.TrainingRun:
    folder = Path("checkpoints/abc")
    return registry.start_run(Mlflow(), "meadow", schema.training("quick", changes), "abc", folder, say=messages.append)


def steps(run: registry.TrainingRun) -> list[int]:
    return [m.step for m in run.client.get_metric_history(run.id, "loss_d")]


def pictures(run: registry.TrainingRun) -> int:
    return len([f for f in run.client.list_artifacts(run.id, "images") if f.path.endswith(".png")])


def picture() -> np.ndarray:
    return np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def test_what_was_not_sent_arrives_after_the_process_has_ended(here: Path) -> None:
    messages: list[str] = []
    run = start(messages)
    run.log_row(32, {"loss_d": 0.5})
    (here / "mlflow.db").rename(here / "away.db")
    (here / "mlflow.db").mkdir()  # neither a file nor a place to make one
    for images in (64, 96):
        run.log_row(images, {"loss_d": 0.4, "penalty": float("nan")})
    run.log_picture(96, picture())
    run.end()
    assert [line[:45] for line in messages] == ["warning: not logged yet, nothing is lost: MLf"]
    with pytest.raises(UserError, match="cannot be used"):
        registry.deliver(Path("checkpoints"), Mlflow(), messages.append)
    (here / "mlflow.db").rmdir()
    (here / "away.db").rename(here / "mlflow.db")

    registry.deliver(Path("checkpoints"), Mlflow(), messages.append)
    assert messages[1:] == ["logged late: 4 rows and pictures of checkpoints/abc"]
    assert steps(run) == [32, 64, 96]
    assert pictures(run) == 1
    assert run.client.get_run(run.id).info.status == "FINISHED"
    assert not (here / "checkpoints/abc/unsent").exists()
    registry.deliver(Path("checkpoints"), Mlflow(), messages.append)
    assert len(messages) == 2


def test_what_a_running_training_has_not_sent_is_left_to_it(here: Path) -> None:
    lines: list[str] = []
    run = start(lines)
    waiting = run.spool.append([Event(32, {"loss_d": 0.5})])
    training = FileLock(Path("checkpoints/.lock"))  # as the train stage holds it
    with training:
        registry.deliver(Path("checkpoints"), Mlflow(), lines.append)
        assert (lines, steps(run), run.spool.events()) == ([], [], waiting)
    registry.deliver(Path("checkpoints"), Mlflow(), lines.append)
    assert lines == ["logged late: 1 rows and pictures of checkpoints/abc"] and steps(run) == [32]


def test_a_row_whose_receipt_was_lost_is_there_once(here: Path) -> None:
    run = start([])
    events = Spool(Path("checkpoints/abc/unsent")).append([Event(32, {"loss_d": 0.5}), Event(64, {"loss_d": 0.4})])
    run.deliver()
    Spool(Path("checkpoints/abc/unsent")).append(
        [*events, Event(96, {"loss_d": 0.3})]
    )  # as though the first were never heard
    run.deliver()
    assert steps(run) == [32, 64, 96]


def test_a_resumed_training_repeats_no_row_and_no_picture(here: Path) -> None:
    run = start([])
    for images in (32, 64):
        run.log_row(images, {"loss_d": images / 100})
        run.log_picture(images, picture())
    there = pictures(run)
    Spool(Path("checkpoints/abc/unsent")).append([Event(96, {"loss_d": 0.96}), Event(end="KILLED")])
    again = start([])  # from the checkpoint at 32
    assert (again.id, again.client.get_run(again.id).info.status) == (run.id, "RUNNING")
    for images in (64, 96, 128):
        again.log_row(images, {"loss_d": images / 100})
    again.log_picture(64, picture())
    assert steps(again) == [32, 64, 96, 128]
    assert pictures(again) == there


def test_another_estimator_of_the_same_generator_is_a_run_with_all_its_curves(here: Path) -> None:
    run = start([])
    rows = [{"images": images, "loss_d": images / 100} for images in (32, 64, 96)]
    run.log_missing(rows[:1])
    run.log_missing(rows[:2])
    assert steps(run) == [32, 64]
    Spool(Path("checkpoints/abc/unsent")).append([Event(96, {"loss_d": 0.96}), Event(end="FINISHED")])
    other = start([], estimator_outline=0)
    assert other.id != run.id and steps(other) == []
    assert steps(run) == [32, 64, 96], "what the one before could not send is not lost"
    other.log_missing(rows)
    assert steps(other) == [32, 64, 96]
    assert start([], estimator_outline=0).id == other.id


def test_a_spool_cut_off_by_a_kill_loses_its_last_line_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "unsent")
    first = spool.append([Event(32, {"loss_d": 0.5}), Event(32, picture=picture())])
    with spool.file.open("ab") as file:
        file.write(b'{"images": 64, "ro')
    assert spool.events() == first
    third = spool.append([Event(96, {"loss_d": 0.4})])
    assert spool.events() == first + third
    assert np.array_equal(first[1].pixels(), picture())
    (tmp_path / "unsent" / first[1].picture.name).unlink()  # type: ignore[union-attr]
    assert spool.events() == first[:1] + third


def test_a_full_disk_keeps_rows_in_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start([])
    reach = registry.connection.check_reachable

    def away(uri: str) -> None:
        raise UserError("away")

    monkeypatch.setattr(registry.connection, "check_reachable", away)
    Path("checkpoints/abc/unsent").write_text("")  # no folder can be made there
    run.log_row(32, {"loss_d": 0.5})
    Path("checkpoints/abc/unsent").unlink()
    run.log_row(64, {"loss_d": 0.4})
    assert [event.images for event in run.spool.events()] == [32, 64]
    monkeypatch.setattr(registry.connection, "check_reachable", reach)
    run.log_row(96, {"loss_d": 0.3})
    assert steps(run) == [32, 64, 96]
    assert not run.spool.folder.exists()


def test_a_server_that_hangs_does_not_hold_up_training(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, tried = start([]), []

    def hang(uri: str) -> None:
        tried.append(uri)
        clock[0] += 5.0
        raise UserError("timed out")

    clock = [1000.0]
    monkeypatch.setattr(registry.connection, "check_reachable", hang)
    monkeypatch.setattr(registry.runs.time, "monotonic", lambda: clock[0])
    for images in range(32, 32 * 200, 32):
        run.log_row(images, {"loss_d": 0.5})
        clock[0] += 1.0  # a row a second
    assert len(tried) <= 4
    assert len(run.spool.events()) == 199


def test_a_picture_that_a_power_cut_tore_is_left_out_aloud_and_the_training_resumes(here: Path) -> None:
    run = start([])
    spool = Spool(Path("checkpoints/abc/unsent"))
    torn = spool.append([Event(32, {"loss_d": 0.5}), Event(32, picture=picture()), Event(64, {"loss_d": 0.4})])[1]
    assert isinstance(torn.picture, Path)
    torn.picture.write_bytes(torn.picture.read_bytes()[:50])
    with spool.file.open("ab") as file:
        file.write(b'{"images": 96, "row": [1], "time": 1}\n\0\0\0\0\n')
    lines: list[str] = []
    again = start(lines)
    assert again.id == run.id and steps(again) == [32, 64] and pictures(again) == 0
    assert [line.partition(" cannot be read")[0] for line in lines] == [
        f"warning: checkpoints/abc/unsent/events.jsonl, line {number}" for number in (2, 4, 5)
    ]
    assert not spool.folder.exists()


def test_a_picture_is_on_disk_before_the_line_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync = os.fsync

    def synced(handle: int) -> None:
        order.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    (event,) = Spool(tmp_path / "unsent").append([Event(32, picture=picture())])
    assert isinstance(event.picture, Path)
    assert order == [event.picture.name, "unsent", "events.jsonl", "unsent", tmp_path.name]
