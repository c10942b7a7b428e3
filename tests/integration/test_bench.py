"""The benchmark's shape: names, finite numbers, one line for a mistake. Time never decides a test."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from argan.config.schema import training
from argan.errors import UserError
from argan.files import write_json
from benchmarks import ablation, bench


@pytest.mark.pipeline
def test_optics_is_compared_with_the_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OPTICS", {16: (2, 1)})
    bench.run(tmp_path / "bench.json", ["optics"])
    numbers = json.loads((tmp_path / "bench.json").read_text())
    assert set(numbers) == {f"optics_16_{m}{k}" for m in ("", "mixture_") for k in ("speedup", "ms", "memory_ratio")}
    assert all(math.isfinite(value) and value > 0 for value in numbers.values())


def test_a_comparison_of_different_numbers_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OPTICS", {16: (2, 1)})
    monkeypatch.setattr("benchmarks.reference_optics.render", lambda image, disparity, *_: image + disparity)
    with pytest.raises(AssertionError):
        bench.optics()


@pytest.mark.pipeline
def test_the_step_is_compared_with_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STEP", {"quick": (2, 1)})
    monkeypatch.setattr(bench, "CHOICES", (2, 1))
    numbers = bench.step() | bench.choices()
    assert {"step_quick_speedup", "step_quick_memory_ratio", "choice_all_gain"} < set(numbers)
    assert all(math.isfinite(value) and value > 0 for value in numbers.values())
    assert numbers["step_quick_memory_ratio"] > 1.5 and numbers["choice_all_memory_ratio"] > 1.5, "bytes, not seconds"


@pytest.mark.pipeline
def test_using_a_model_is_timed_without_one() -> None:
    assert bench.sample()["sample_warm_ms"] > 0
    assert bench.depth()["depth_warm_ms"] > 0


@pytest.mark.pipeline
def test_bokeh_is_compared_with_the_scatter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BOKEH", (400, 300))
    numbers = bench.bokeh()
    assert set(numbers) == {"bokeh_12mp_seconds", "bokeh_speedup", "bokeh_flatness", "bokeh_preview_ms"}
    assert all(math.isfinite(value) and value > 0 for value in numbers.values())


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    def one_by_one() -> None:
        for _ in range(5):
            torch.empty(250_000)

    assert bench.peak_bytes(one_by_one) == pytest.approx(1e6, rel=0.01)
    assert bench.peak_bytes(lambda: [torch.empty(250_000) for _ in range(5)]) == pytest.approx(5e6, rel=0.01)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UserError, match="did you mean 'optics'"):
        bench.run(only=["optcs"])


def test_the_frechet_distance_is_compared_with_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FRECHET", (60, 12, 1))
    assert set(bench.frechet()) == {"frechet_speedup", "frechet_seconds"}
    monkeypatch.setattr("benchmarks.reference_frechet.frechet_distance", lambda a, b: 1.0)
    with pytest.raises(AssertionError):
        bench.frechet()


def test_every_idea_of_the_ablation_is_a_recipe_of_its_own(tmp_path: Path) -> None:
    recipes = [training("quick", {"images": 128_000, **row}) for row in ablation.ROWS.values()]
    assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i])
    for seed, depth in enumerate((0.5, 0.6)):
        told = {"name": "as it is", "seed": seed, "images": 64, "depth": depth, "depth_before_filter": 0.4, "kid": 0.1}
        write_json(tmp_path / f"{seed}.json", told | {"right_way_round": 1.0})
    assert "| as it is | 64 | 0, 1 | 0.500, 0.600 | 0.400, 0.400 | 0.100, 0.100 | 1.000, 1.000 |" in ablation.table(
        tmp_path
    )
