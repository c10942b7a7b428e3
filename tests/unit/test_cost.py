"""What a training will take is told before it begins, and is near what it takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import train

from argan import networks
from argan.config.schema import PRESETS, training
from argan.errors import UserError
from argan.training import device, memory
from argan.training.step import Trainer
from benchmarks.bench_cost import operations
from benchmarks.timing import peak_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "changes", [{}, {"recipe": "paper"}, {"renderer": "gather"}, {"precision": "bfloat16"}], ids=str
)
def test_memory_is_near_what_a_step_takes(changes: dict[str, str]) -> None:
    config = training("quick", {"precision": "float32"} | changes)
    photos = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    trainer = Trainer(config, photos, CPU)
    trainer.step()  # Adam's moments and the average are there
    trainer.state.images = 0  # a step with the penalty
    peaks = [peak_bytes(trainer.step)]
    trainer.parts = trainer.processes.slices(config.batch, 4)
    trainer.state.images = 0
    peaks.append(peak_bytes(trainer.step))
    assert 0.7 < peaks[0] / (config.batch * memory.bytes_per_image(config, CPU)) < 1.4
    assert peaks[1] < 0.5 * peaks[0], "in parts it takes less"


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_those_of_the_networks(preset: str) -> None:
    config = training(preset, {"renderer": "gather"})
    counts = memory.parameter_counts(config)
    if preset == "quick":
        assert counts["generator"] == sum(p.numel() for p in networks.build_generator(config).parameters())
    assert 0 < counts["expansion"] < counts["generator"] < 1e8
    assert memory.bytes_needed(config, CPU) > 4 * sum(counts.values())


def test_what_cannot_fit_says_what_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = training("256")
    monkeypatch.setattr(memory, "free_bytes", lambda device: memory.bytes_needed(config, CPU) // 3)
    with pytest.raises(
        UserError, match=r"train\.batch 16 at 256 px needs about .* GB .*set train\.accumulate to \d+"
    ) as error:
        train(config, np.zeros((16, 256, 256, 3), np.uint8), tmp_path)
    parts = int(re.findall(r"accumulate to (\d+)", str(error.value))[0])
    memory.check_fits(config.model_copy(update={"accumulate": parts}), CPU)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    with pytest.raises(UserError, match="single image does not fit; choose a smaller preset"):
        memory.check_fits(config, CPU)


def test_a_container_may_have_less_memory_than_its_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 200\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert device._left_to_container(tmp_path) == 4200
    (tmp_path / "memory.max").write_text("max\n")
    assert device._left_to_container(tmp_path) == device._left_to_container(tmp_path / "none") == sys.maxsize


def test_operations_are_counted_through_a_penalty_on_gradients() -> None:
    layer, x = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.randn(2, 3, 8, 8)
    forward = 2 * 2 * 64 * 27 * 5
    assert operations(lambda: layer(x)) == forward

    def penalised() -> None:
        given = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(layer(given).square().sum(), given, create_graph=True)
        gradient.square().sum().backward()

    assert operations(penalised) > 3 * forward
