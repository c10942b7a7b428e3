"""The benchmark's shape: names, finite numbers, one line for a mistake. Time never decides a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from argan.config.schema import training
from argan.errors import UserError
from argan.files import write_json
from benchmarks import ablation, bench, bench_metrics, bench_optics, bench_step, bench_use, reference_step, timing

Clock = Callable[..., list[tuple[float, ...]]]


def clock(*seconds: float) -> Clock:
    """In the place of `interleaved`: every work is done once, and takes the seconds given here."""

    def interleaved(rounds: int, *works: Callable[[], object]) -> list[tuple[float, ...]]:
        for work in works:
            work()
        assert len(works) == len(seconds)
        return [seconds]

    return interleaved


def test_works_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order, durations = [0.0], [], iter([1.0, 9.0, 2.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)

    def work(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    assert timing.interleaved(2, lambda: work("a", 2), lambda: work("b", 3)) == [(2, 3), (2, 3)]
    assert order == ["a", "b", "a", "b"]
    assert timing.median_ms(lambda: work("c", next(durations)), 3, warm=False) == 2000


@pytest.mark.pipeline
def test_optics_is_compared_with_the_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_optics, "OPTICS", {16: (2, 1)})
    monkeypatch.setattr(bench_optics, "interleaved", clock(0.5, 2.0))
    bench.run(tmp_path / "bench.json", ["optics"])
    numbers = json.loads((tmp_path / "bench.json").read_text())
    assert set(numbers) == {f"optics_16_{m}{k}" for m in ("", "mixture_") for k in ("speedup", "ms", "memory_ratio")}
    assert numbers["optics_16_speedup"] == numbers["optics_16_mixture_speedup"] == 4
    assert numbers["optics_16_ms"] == 500
    assert numbers["optics_16_memory_ratio"] > 2, "bytes, not seconds: the loop keeps all views"


def test_a_comparison_of_different_numbers_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_optics, "OPTICS", {16: (2, 1)})
    monkeypatch.setattr("benchmarks.reference_optics.render", lambda image, disparity, *_: image + disparity)
    with pytest.raises(AssertionError):
        bench.optics()


@pytest.mark.pipeline
def test_the_step_is_compared_with_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_step, "STEP", {"quick": (2, 1)})
    monkeypatch.setattr(bench_step, "CHOICES", (2, 1))
    # seconds of our step with the penalty and without, the plain one's, our optics, our loader
    monkeypatch.setattr(bench_step, "interleaved", clock(2.0, 2.0, 6.0, 6.0, 0.5, 0.1))
    numbers = bench.step()
    expected = {"speedup": 3, "speedup_lazy": 3, "images_per_second": 1, "optics_share": 0.25}
    assert {name: numbers[f"step_quick_{name}"] for name in expected} == pytest.approx(expected)
    assert numbers["loader_ratio"] == pytest.approx(20)
    assert numbers["step_quick_memory_ratio"] > 1.5, "bytes, not seconds"

    count = len(reference_step.CHOICES) + 1
    monkeypatch.setattr(bench_step, "interleaved", clock(*(s for i in range(count) for s in (2.0**-i,) * 2)))
    numbers = bench.choices()
    gains = [numbers[f"choice_{name}_gain"] for name in reference_step.CHOICES]
    assert gains == pytest.approx([2] * (count - 1)) and numbers["choice_all_gain"] == pytest.approx(2 ** (count - 1))
    assert numbers["choice_all_memory_ratio"] > 1.5, "bytes, not seconds"


@pytest.mark.pipeline
def test_using_a_model_is_timed_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []

    def once(work: Callable[[], object], rounds: int) -> float:
        results.append(work())
        return float(len(results))

    monkeypatch.setattr(bench_use, "median_ms", once)
    assert bench.sample() | bench.depth() == {"sample_warm_ms": 1, "depth_warm_ms": 2, "depth_onnx_ms": 3}
    scenes, disparity, exported = results
    assert len(scenes.images) == 1 and disparity.shape == (480, 640) and exported[0].shape[-2:] == (64, 64)


@pytest.mark.pipeline
def test_bokeh_is_compared_with_the_scatter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_use, "BOKEH", (400, 300))
    monkeypatch.setattr(bench_use, "interleaved", clock(1.0, 2.0, 4.0))
    monkeypatch.setattr(bench_use, "median_ms", lambda work, rounds, warm=True: (work(), 8000.0)[1])
    numbers = bench.bokeh()
    expected = {"bokeh_12mp_seconds": 8, "bokeh_flatness": 4, "bokeh_preview_ms": 8000}
    assert numbers == pytest.approx(expected | {"bokeh_speedup": 8 * 400 / 4})  # the scatter's part is a 400th


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    def one_by_one() -> None:
        for _ in range(5):
            torch.empty(250_000)

    assert timing.peak_bytes(one_by_one) == pytest.approx(1e6, rel=0.01)
    assert timing.peak_bytes(lambda: [torch.empty(250_000) for _ in range(5)]) == pytest.approx(5e6, rel=0.01)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UserError, match="did you mean 'optics'"):
        bench.run(only=["optcs"])


def test_the_frechet_distance_is_compared_with_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_metrics, "FRECHET", (60, 12, 1))
    monkeypatch.setattr(bench_metrics, "interleaved", clock(0.5, 2.0))
    assert bench.frechet() == {"frechet_speedup": 4, "frechet_seconds": 0.5}
    monkeypatch.setattr("benchmarks.reference_frechet.frechet_distance", lambda a, b: 1.0)
    with pytest.raises(AssertionError):
        bench.frechet()


def test_every_idea_of_the_ablation_is_a_recipe_of_its_own(tmp_path: Path) -> None:
    recipes = [training("quick", {"images": 128_000, **row}) for row in ablation.ROWS.values()]
    assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i])
    for seed, depth in enumerate((0.5, 0.6)):
        output = {
            "name": "as it is",
            "seed": seed,
            "images": 64,
            "depth": depth,
            "depth_before_filter": 0.4,
            "kid": 0.1,
        }
        write_json(tmp_path / f"{seed}.json", output | {"right_way_round": 1.0})
    assert "| as it is | 64 | 0, 1 | 0.500, 0.600 | 0.400, 0.400 | 0.100, 0.100 | 1.000, 1.000 |" in ablation.table(
        tmp_path
    )
