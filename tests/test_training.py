"""The loop: exact, resumable, and refusing to save nonsense."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from argan.errors import UserError
from argan.params import Training, training
from argan.training import Loader, Order, Trained, step_random, train

SMALL = {
    "images": 96, "batch": 8, "latent": 8, "generator_channels": 4, "discriminator_channels": 8, "channels_max": 16,
    "checkpoint_every": 24, "log_every": 16, "samples_every": 48, "penalty_every": 2, "prior_fade": 48,
}  # fmt: skip


@pytest.fixture
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)


def small(**changes: object) -> Training:
    return training("quick", SMALL | changes)


def same(a: Trained, b: Trained) -> bool:
    """Weights and curves, bit for bit."""
    x, y = a.generator.state_dict(), b.generator.state_dict()
    return all(torch.equal(x[k], y[k]) for k in x) and json.dumps(a.history, sort_keys=True) == json.dumps(
        b.history, sort_keys=True
    )


@pytest.mark.parametrize(
    "changes", [{}, {"recipe": "paper", "renderer": "gather"}, {"augment_color": 0.4, "augment_cutout": 0.3}]
)
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    tmp_path: Path, photos: np.ndarray, changes: dict[str, object]
) -> None:
    config = small(**changes)
    whole = train(config, photos, tmp_path / "whole", data="d")

    class Killed(Exception): ...

    for stop in (16, 48, 64):  # before the first checkpoint, on one, and between two

        def kill(images: int, row: dict[str, float], stop: int = stop) -> None:
            if images >= stop:
                raise Killed

        with pytest.raises(Killed):
            train(config, photos, tmp_path / "killed", data="d", watch=kill, say=lambda line: None)
    said: list[str] = []
    resumed = train(config, photos, tmp_path / "killed", data="d", say=said.append)
    assert any("resuming at" in line for line in said)
    equal = same(whole, resumed)  # a name, for a failing comparison would print every weight
    assert equal and resumed.images == whole.images == 96


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(tmp_path: Path, photos: np.ndarray, number: signal.Signals) -> None:
    whole = train(small(), photos, tmp_path / "whole", data="d")
    handler = signal.getsignal(number)

    def interrupt(images: int, row: dict[str, float]) -> None:
        if images == 32:  # between the checkpoints at 24 and 48
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt, match=number.name):
        train(small(), photos, tmp_path / "cut", data="d", watch=interrupt, say=lambda line: None)
    assert signal.getsignal(number) == handler
    said: list[str] = []
    resumed = train(small(), photos, tmp_path / "cut", data="d", say=said.append)
    equal = same(whole, resumed)
    assert equal and said == ["resuming at 32 of 96 images"]


def test_another_seed_is_another_training(tmp_path: Path, photos: np.ndarray) -> None:
    a, b = (train(small(seed=s, images=16), photos, tmp_path / str(s), data="d") for s in (0, 1))
    equal = same(a, b)
    assert not equal


def test_a_finished_training_is_not_trained_again(tmp_path: Path, photos: np.ndarray) -> None:
    first = train(small(images=32), photos, tmp_path, data="d")
    rows: list[int] = []
    again = train(
        small(images=32), photos, tmp_path, data="d", watch=lambda i, row: rows.append(i), say=lambda line: None
    )
    equal = same(first, again)
    assert equal and not rows


def test_changed_params_over_an_old_checkpoint_start_fresh(tmp_path: Path, photos: np.ndarray) -> None:
    train(small(images=32), photos, tmp_path, data="d")
    said: list[str] = []
    fresh = train(small(images=48, learning_rate=1e-3), photos, tmp_path, data="d", say=said.append)
    assert any("starting fresh" in line for line in said)
    equal = same(fresh, train(small(images=48, learning_rate=1e-3), photos, tmp_path / "other", data="d"))
    assert equal


def test_the_discriminator_sees_photographs_of_every_epoch_once() -> None:
    order = Order(50, seed=3)
    first = np.concatenate([order(i, 10) for i in range(0, 50, 10)])
    assert sorted(first) == list(range(50))
    second = np.concatenate([order(i, 10) for i in range(50, 100, 10)])
    assert sorted(second) == list(range(50)) and list(first) != list(second)
    assert list(Order(50, seed=3)(45, 10)) == [*first[45:], *second[:5]], "a batch may span two epochs"


def test_random_state_is_a_function_of_seed_and_images() -> None:
    draws = {
        (s, i, salt): torch.rand(1, generator=step_random(s, i, salt)).item()
        for s in (0, 1)
        for i in (0, 8)
        for salt in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[1, 8, 1] == torch.rand(1, generator=step_random(1, 8, 1)).item()


def test_divergence_is_named_and_the_last_good_checkpoint_stays(tmp_path: Path, photos: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"loss_d is not finite|is not finite in the step at \d+ images.*learning_rate"):
        train(small(learning_rate=0.1, images=4000, penalty=1e38), photos, tmp_path, data="d")


def test_too_few_photos_for_a_batch(tmp_path: Path, photos: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"7 training photos are fewer than one batch of 8"):
        train(small(), photos[:7], tmp_path, data="d")


def test_samples_are_shown_on_the_clock(tmp_path: Path, photos: np.ndarray) -> None:
    shown: list[int] = []
    train(small(), photos, tmp_path, data="d", show=lambda images, generator: shown.append(images))
    assert shown == [48, 96]


def test_photos_come_the_same_from_memory_and_from_the_file(tmp_path: Path, photos: np.ndarray) -> None:
    np.save(tmp_path / "photos.npy", photos)
    store, rows = np.load(tmp_path / "photos.npy", mmap_mode="r"), np.array([3, 5, 8, 13, 21, 34])
    cpu = torch.device("cpu")
    held, read = Loader(store, rows, cpu), Loader(store, rows, cpu, share=0.0)
    assert held.held is not None and held.held.dtype == torch.uint8 and read.held is None
    wanted = np.array([5, 0, 0, 2])
    expected = torch.from_numpy(photos[rows[wanted]]).permute(0, 3, 1, 2)
    for load in (held, read):
        assert len(load) == 6
        assert torch.equal(load(wanted), expected)
