"""The loop: exact, resumable, and refusing to save nonsense."""

from __future__ import annotations

import hashlib
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from trainings import small, train

from argan import networks
from argan.config.schema import Training
from argan.errors import UserError
from argan.locks import exclusive_lock
from argan.training import checkpoint, health, losses
from argan.training.job import TrainingResult
from argan.training.loader import Loader, PhotoOrder
from argan.training.noise import step_random
from argan.training.state import State, optimizer_tensors
from argan.training.step import Trainer
from benchmarks import reference_step
from pipelines.stage import run_command


def weights(network: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(t.numpy(force=True).tobytes() for t in network.state_dict().values())).hexdigest()


def same(a: TrainingResult, b: TrainingResult) -> bool:
    """Weights and curves, bit for bit."""
    x, y = a.generator.state_dict(), b.generator.state_dict()
    return all(torch.equal(x[k], y[k]) for k in x) and json.dumps(a.history, sort_keys=True) == json.dumps(
        b.history, sort_keys=True
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recipe": "paper", "renderer": "gather"},
        {"augment_color": 0.4, "augment_translate": 0.1, "augment_cutout": 0.3, "accumulate": 2},
        {"apertures": "learned", "accumulate": 2},
    ],
)
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    tmp_path: Path, photos: np.ndarray, changes: dict[str, object]
) -> None:
    """Weights, average, curves and every sample sheet, wherever the kills fall."""
    config = small(**changes)

    class Killed(Exception): ...

    def run(
        folder: str, rows: dict[int, str], shown: dict[int, str], stop: int, say: Callable[[str], None]
    ) -> TrainingResult:
        def watch(images: int, row: dict[str, float]) -> None:
            rows[images] = json.dumps(row, sort_keys=True)
            if images == stop:
                raise Killed

        def show(images: int, generator: networks.SceneGenerator) -> None:
            shown[images] = weights(generator)
            if images == -stop:
                raise Killed

        return train(config, photos, tmp_path / folder, on_row=watch, on_samples=show, say=say)

    rows, shown, rows_again, shown_again = {}, {}, {}, {}  # type: ignore[var-annotated]
    uninterrupted = run("uninterrupted", rows, shown, 0, print)
    for stop in (16, -48, 64, 80):  # before the first checkpoint, in a sample sheet beside one, and between two
        with pytest.raises(Killed):
            run("killed", rows_again, shown_again, stop, lambda line: None)
    messages: list[str] = []
    resumed = run("killed", rows_again, shown_again, 0, messages.append)
    assert any("resuming at" in line for line in messages)
    equal = same(uninterrupted, resumed)  # a name, for a failing comparison would print every weight
    assert equal and resumed.images == uninterrupted.images == 96
    assert rows == rows_again and shown == shown_again and list(shown) == [48, 96]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(tmp_path: Path, photos: np.ndarray, number: signal.Signals) -> None:
    uninterrupted = train(small(), photos, tmp_path / "uninterrupted")
    handler = signal.getsignal(number)

    def interrupt(images: int, row: dict[str, float]) -> None:
        if images == 32:  # between the checkpoints at 24 and 48, while the next step is not begun: that one is the last
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt, match=number.name):
        train(small(), photos, tmp_path / "cut", on_row=interrupt, say=lambda line: None)
    assert signal.getsignal(number) == handler
    messages: list[str] = []
    resumed = train(small(), photos, tmp_path / "cut", say=messages.append)
    equal = same(uninterrupted, resumed)
    assert equal and messages == ["resuming at 40 of 96 images"]


def test_who_waits_for_another_training_says_so_and_goes_on_telling(tmp_path: Path) -> None:
    other, messages = FileLock(tmp_path / "lock"), []
    other.acquire()

    def waiting() -> None:
        messages.append("waits")
        other.release()

    with exclusive_lock(tmp_path / "lock", messages.append, "busy", waiting):
        assert messages == ["busy", "waits"]
        with pytest.raises(Timeout):
            other.acquire(timeout=0)
    other.acquire(timeout=0)
    with exclusive_lock(tmp_path / "free", messages.append, "busy", waiting):
        assert len(messages) == 2


@pytest.mark.parametrize(
    "changes",
    [{}, {"recipe": "paper", "renderer": "gather"}, {"apertures": "learned", "renderer": "gather", "expansion": False}],
)
def test_a_batch_in_parts_is_the_same_step(photos: np.ndarray, changes: dict[str, object]) -> None:
    torch.set_default_dtype(torch.float64)  # in which what Adam makes of rounding is nothing
    try:
        full_batch, parts = (
            Trainer(small(accumulate=n, augment_color=0.4, precision="float32", **changes), photos, torch.device("cpu"))
            for n in (1, 4)
        )
        for _ in range(4):
            expected, got = full_batch.step(), parts.step()
    finally:
        torch.set_default_dtype(torch.float32)
    for name in ("ema", "discriminator"):
        for a, b in zip(*(getattr(t.state, name).parameters() for t in (full_batch, parts)), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8)
    assert set(got) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-8, equal_nan=True, msg=name)


def test_where_and_how_it_runs_may_change_on_the_way(tmp_path: Path, photos: np.ndarray) -> None:
    train(small(precision="bfloat16"), photos, tmp_path, stop_at=48)
    running = {
        "accumulate": 4, "device": "cpu", "precision": "float32", "stop_when_hopeless": True,
        "log_every": 32, "samples_every": 8, "checkpoint_every": 8, "checkpoints_kept": 1,
    }  # fmt: skip
    mark = checkpoint.fingerprint(small().learning_params, "d")
    assert checkpoint.fingerprint(small(**running).learning_params, "d") == mark
    assert checkpoint.fingerprint(small(learning_rate=1e-3).learning_params, "d") != mark
    messages: list[str] = []
    trained = train(small(**running), photos, tmp_path, say=messages.append)
    assert messages == ["resuming at 48 of 96 images"] and trained.images == 96
    assert [row["images"] for row in trained.history] == [16, 32, 48, 64, 96]
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["000000000096.safetensors"]


@pytest.mark.parametrize(
    ("changes", "choices"),
    [
        ({}, ["lazy"]),
        ({"apertures": "learned"}, ["lazy"]),
        ({"renderer": "gather"}, ["lazy"]),
        ({}, reference_step.CHOICES),
    ],
)
def test_the_plain_way_of_writing_the_step_gives_the_same_numbers(
    photos: np.ndarray, changes: dict[str, object], choices: list[str]
) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        config = small(augment_color=0.4, precision="float32", **changes)
        ours, plain = Trainer(config, photos, torch.device("cpu")), reference_step.Trainer(config, photos, choices)
        for _ in range(3):
            ours.step()
            plain.step()
    finally:
        torch.set_default_dtype(torch.float32)
    for name in ("ema", "discriminator"):
        pairs = zip(getattr(ours.state, name).parameters(), getattr(plain, name).parameters(), strict=True)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


def test_another_seed_is_another_training(tmp_path: Path, photos: np.ndarray) -> None:
    a, b = (train(small(seed=s, images=16), photos, tmp_path / str(s)) for s in (0, 1))
    equal = same(a, b)
    assert not equal


def test_a_finished_training_is_not_trained_again(tmp_path: Path, photos: np.ndarray) -> None:
    first = train(small(images=32), photos, tmp_path)
    rows: list[int] = []
    again = train(small(images=32), photos, tmp_path, on_row=lambda i, row: rows.append(i), say=lambda line: None)
    equal = same(first, again)
    assert equal and not rows


def test_changed_params_over_an_old_checkpoint_start_fresh(tmp_path: Path, photos: np.ndarray) -> None:
    train(small(images=32), photos, tmp_path)
    messages: list[str] = []
    fresh = train(small(images=48, learning_rate=1e-3), photos, tmp_path, say=messages.append)
    assert any("starting fresh" in line for line in messages)
    equal = same(fresh, train(small(images=48, learning_rate=1e-3), photos, tmp_path / "other"))
    assert equal


def test_the_discriminator_sees_photographs_of_every_epoch_once() -> None:
    order = PhotoOrder(50, seed=3)
    first = np.concatenate([order(i, 10) for i in range(0, 50, 10)])
    assert sorted(first) == list(range(50))
    second = np.concatenate([order(i, 10) for i in range(50, 100, 10)])
    assert sorted(second) == list(range(50)) and list(first) != list(second)
    assert list(PhotoOrder(50, seed=3)(45, 10)) == [*first[45:], *second[:5]], "a batch may span two epochs"


def test_random_state_is_a_function_of_seed_and_images() -> None:
    draws = {
        (s, i, salt): torch.rand(1, generator=step_random(s, i, salt)).item()
        for s in (0, 1)
        for i in (0, 8)
        for salt in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[1, 8, 1] == torch.rand(1, generator=step_random(1, 8, 1)).item()


def test_divergence_is_named_and_the_last_good_checkpoint_stays(
    tmp_path: Path, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on from it, the cause mended, is the undisturbed training."""
    turns, real = iter(range(100)), losses.generator_loss

    def broken(*args: Any) -> torch.Tensor:
        return real(*args) * (math.nan if next(turns) == 7 else 1)

    monkeypatch.setattr(losses, "generator_loss", broken)
    with pytest.raises(UserError, match=r"loss_g is not finite in the step at 56 images.*lower train\.learning_rate"):
        train(small(), photos, tmp_path / "cut")
    monkeypatch.undo()
    assert sorted(path.stem[-2:] for path in (tmp_path / "cut").iterdir()) == ["24", "48"]
    resumed = train(small(), photos, tmp_path / "cut", say=lambda line: None)
    equal = same(resumed, train(small(), photos, tmp_path / "uninterrupted"))
    assert equal


def test_a_flat_prior_is_no_obstacle_where_no_sign_is_held(tmp_path: Path, photos: np.ndarray) -> None:
    trained = train(small(prior_sign=0.0, prior_slope=0.0, images=32), photos, tmp_path)
    assert all(p.isfinite().all() for p in trained.generator.parameters())


def test_another_estimator_needs_no_other_generator(tmp_path: Path, photos: np.ndarray) -> None:
    first = train(small(images=32), photos, tmp_path)
    messages: list[str] = []
    again = train(small(images=32, estimator_outline=0, estimator_images=64), photos, tmp_path, say=messages.append)
    equal = same(first, again)
    assert equal and messages == ["resuming at 32 of 32 images"]


def test_an_observer_gets_the_earlier_rows_on_resuming(tmp_path: Path, photos: np.ndarray) -> None:
    """A kill between a checkpoint and what watches it would else leave a gap."""
    first_part = train(small(), photos, tmp_path, stop_at=48)
    seen: list[int] = []
    train(
        small(), photos, tmp_path, say=lambda line: None,
        on_row=lambda images, row: seen.append(images),
        on_resume=lambda history: seen.extend(int(row["images"]) for row in history),
    )  # fmt: skip
    assert seen == [16, 32, 48, 64, 80, 96] and len(first_part.history) == 3


def test_a_signal_beside_the_last_step_is_heard(tmp_path: Path, photos: np.ndarray) -> None:
    """Else whoever sent it would wait for the estimator, or for the other sign, to be learned."""

    def show(images: int, generator: networks.SceneGenerator) -> None:
        if images == 96:
            signal.raise_signal(signal.SIGTERM)

    messages: list[str] = []
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        train(small(), photos, tmp_path, on_samples=show, say=messages.append)
    assert messages == ["interrupted, saved at 96 images; run the same command again to resume"]
    train(small(), photos, tmp_path, say=messages.append)
    assert messages[1:] == ["resuming at 96 of 96 images"]


@pytest.mark.filterwarnings("ignore:for .*non-meta:UserWarning")
def test_what_is_restored_lies_where_training_runs(tmp_path: Path, photos: np.ndarray) -> None:
    """Quantities of the steps since the last row are stacked with those of the next; on a GPU, on the GPU."""
    train(small(), photos, tmp_path, stop_at=24)
    found = checkpoint.newest(tmp_path, checkpoint.fingerprint(small().generator_params, "d"), print)
    assert found is not None
    elsewhere = State.fresh(small(), torch.device("meta"))
    elsewhere.restore(*found)
    assert len(elsewhere.pending) == 1 and {t.device.type for t in elsewhere.pending[0].values()} == {"meta"}
    moments = [t for t in optimizer_tensors(elsewhere.optimizer_g).values() if t.ndim]
    assert moments and {t.device.type for t in moments} == {"meta"}


def test_a_signal_is_answered_by_a_checkpoint_before_anything_else(tmp_path: Path, photos: np.ndarray) -> None:
    """A server that hangs while the last row is sent costs no images."""

    class Hangs(Exception): ...

    def watch(images: int, row: dict[str, float]) -> None:
        if images == 16:
            signal.raise_signal(signal.SIGTERM)
        if images == 24:
            raise Hangs

    with pytest.raises(Hangs):
        train(small(checkpoint_every=96, log_every=8), photos, tmp_path, on_row=watch, say=lambda line: None)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["000000000024.safetensors"]


def test_memory_that_ran_out_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        torch.empty(10**15)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(SystemExit) as left:
            run_command(work)
    finally:
        for n, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(n, handler)
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.count("\n") == 1
    assert "out of memory" in error and "train.accumulate" in error


def test_too_few_photos_for_a_batch(tmp_path: Path, photos: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"7 training photos are fewer than one batch of 8"):
        train(small(), photos[:7], tmp_path)


def test_held_out_photos_change_nothing(tmp_path: Path, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the weights nor the spread that warnings compare with."""
    spreads: list[float] = []
    warnings = health.warnings

    def recorded(history: list[dict[str, float]], config: Training, photo_std: float) -> list[str]:
        spreads.append(photo_std)
        return warnings(history, config, photo_std)

    monkeypatch.setattr(health, "warnings", recorded)
    rows = np.arange(1, 50, 3)
    alone = train(small(images=32), photos[rows], tmp_path / "alone")
    others = np.zeros_like(photos)
    others[rows] = photos[rows]
    beside = train(small(images=32), others, tmp_path / "beside", rows=rows)
    equal = same(alone, beside)
    assert equal and len(set(spreads)) == 1


def test_samples_are_shown_on_the_clock(tmp_path: Path, photos: np.ndarray) -> None:
    shown: list[int] = []
    train(small(), photos, tmp_path, on_samples=lambda images, generator: shown.append(images))
    assert shown == [48, 96]


def test_photos_come_the_same_from_memory_and_from_the_file(tmp_path: Path, photos: np.ndarray) -> None:
    np.save(tmp_path / "photos.npy", photos)
    store, rows = np.load(tmp_path / "photos.npy", mmap_mode="r"), np.array([3, 5, 8, 13, 21, 34])
    cpu = torch.device("cpu")
    held, read = Loader(store, rows, cpu), Loader(store, rows, cpu, share=0.0)
    assert held.resident is not None and held.resident.dtype == torch.uint8 and read.resident is None
    wanted = np.array([5, 0, 0, 2])
    expected = torch.from_numpy(photos[rows[wanted]]).permute(0, 3, 1, 2)
    for load in (held, read):
        assert len(load) == 6
        assert torch.equal(load(wanted), expected)
