"""Speed and memory on this machine, each number beside what it is measured against, all in one run.

Every time is a median, and every ratio the median over rounds that take both sides in turn, so that whatever else the machine
does falls on both. Memory is the peak of what torch allocates above the start of a call, from its profiler's log of every
allocation: the same in every run, which a process's resident size is not.
"""

from __future__ import annotations

import difflib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from argan.config.schema import Training

Numbers = dict[str, float]
Work = Callable[[], Any]

# resolution -> batch, rounds. As many images as a step takes, and few enough that the plain loop fits a small machine.
OPTICS = {64: (16, 9), 128: (16, 5), 256: (4, 5)}


def run(json: Path | None = None, only: list[str] | None = None) -> Numbers:
    """Measure all parts, or those named; show a table; write `json`. Raises UserError for an unknown part."""
    for name in only or []:
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise UserError(f"--only: unknown part '{name}'{hint}; there are {', '.join(PARTS)}")
    numbers: Numbers = {}
    for name in only or PARTS:
        part = PARTS[name]()
        _show(name, part)
        numbers |= part
    if json is not None:
        from argan.files import write_json

        write_json(json, {name: round(value, 4) for name, value in numbers.items()})
    return numbers


def optics() -> Numbers:
    """`render` with its gradients against the plain loop over 25 views, on smooth scenes with disparities up to +-0.1.

    Every aperture is open. `mixture` is the same with apertures as training draws them, where a closed one costs nothing.
    """
    import torch
    from torch.nn.functional import interpolate

    from argan import optics
    from argan.config import schema
    from argan.networks.mixture import ApertureMixture
    from benchmarks import reference_optics

    aperture = optics.Aperture()

    def both_ways(renderer: Callable[..., torch.Tensor], inputs: list[torch.Tensor], weight: torch.Tensor) -> Work:
        def work() -> Any:
            image, disparity, scale = inputs
            photo = renderer(image, disparity, aperture, scale)
            return photo.detach(), *torch.autograd.grad(photo, (image, disparity), weight)

        return work

    numbers: Numbers = {}
    for resolution, (batch, rounds) in OPTICS.items():
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(batch, 4, 8, 8, generator=random) * 2 - 1
        maps = interpolate(coarse, (resolution, resolution), mode="bicubic")
        image, disparity = maps[:, :3].clone().requires_grad_(), (maps[:, 3:] * 0.1).requires_grad_()
        weight = torch.randn(batch, 3, resolution, resolution, generator=random)
        open_ = 0.1 + 0.9 * torch.rand(batch, generator=random)
        mixture = ApertureMixture(schema.training("quick")).draw(batch, random)
        for name, scale in (("", open_), ("mixture_", mixture)):
            inputs = [image, disparity, scale]
            ours, plain = (both_ways(r, inputs, weight) for r in (optics.render, reference_optics.render))
            # A ratio between two different things means nothing. Gradients are compared as wholes: a position that rounds
            # to the other side of a pixel's centre has another slope there, and as right a one.
            (photo, *gradients), (expected, *expected_gradients) = ours(), plain()
            torch.testing.assert_close(photo, expected, atol=1e-5, rtol=0)
            for a, b in zip(gradients, expected_gradients, strict=True):
                assert (a - b).norm() < 1e-3 * b.norm()
            times = interleaved(rounds, ours, plain)
            key = f"optics_{resolution}_{name}"
            numbers[f"{key}speedup"] = statistics.median(b / a for a, b in times)
            numbers[f"{key}ms"] = statistics.median(a for a, _ in times) * 1e3
            numbers[f"{key}memory_ratio"] = peak_bytes(plain) / peak_bytes(ours)
    return numbers


# preset -> images at a time, rounds. The plain way's memory must fit a small machine, and its patience a person.
STEP = {"quick": (8, 9), "64": (8, 5)}


def step() -> Numbers:
    """The whole training step against the plain one of `benchmarks/reference_step.py`, at the presets' networks; the share of it
    that optics takes, and how much faster than the step photos come out of the loader.

    `speedup`: images a second, the plain way taking R1 and R2 in every step. `speedup_lazy`: the plain way taking them as rarely as
    ours. `memory_ratio`: peaks of a step with them. Both take the same first step, and their answers are compared after it.
    """
    import numpy as np
    import torch

    from argan.config import schema
    from argan.training.noise import StepNoise, step_random
    from argan.training.step import Trainer
    from benchmarks import reference_step

    numbers: Numbers = {}
    for preset, (batch, rounds) in STEP.items():
        config = schema.training(preset, {"batch": batch})
        exact = config.model_copy(update={"precision": "float32"})
        photos = np.random.default_rng(0).integers(0, 256, (256, config.resolution, config.resolution, 3), np.uint8)
        ours, plain = Trainer(exact, photos, torch.device("cpu")), reference_step.Trainer(config, photos, ["lazy"])
        ours.step()
        plain.step()
        latents = torch.randn(8, config.latent, generator=step_random(0, 0))
        with torch.no_grad():
            for a, b in zip(ours.state.generator(latents), plain.generator(latents), strict=True):
                assert (a - b).norm() < 1e-3 * b.norm()  # a ratio between two different things means nothing
        ours = Trainer(config, photos, torch.device("cpu"))

        def at(trainer: Any, images: int) -> Work:
            def work() -> None:
                holder = getattr(trainer, "state", trainer)
                holder.images = images  # 0: a step with the penalty
                trainer.step()

            return work

        noise = StepNoise.sample(config, step_random(0, 0)).rows(slice(None), ours.device)
        image, disparity, _ = (t.detach().requires_grad_() for t in ours.render(noise))
        scale = ours.state.generator.mixture(noise.aperture)

        def optics_alone() -> None:
            ours.state.generator.photograph(image, disparity, scale).sum().backward()  # noqa: B023

        works = (at(ours, 0), at(ours, batch), at(plain, 0), at(plain, batch), optics_alone, ours.real_photos)
        rare, key = 1 / config.penalty_every, f"step_{preset}"
        means = []  # of a round: our step, the plain one, the plain one with rare penalties, our optics, our loader
        for a, b, c, d, optics_, loader in interleaved(rounds, *works):
            means.append((rare * a + (1 - rare) * b, c, rare * c + (1 - rare) * d, optics_, loader))
        mean = statistics.median(ours for ours, *_ in means)
        numbers[f"{key}_speedup"] = statistics.median(plain / ours for ours, plain, *_ in means)
        numbers[f"{key}_speedup_lazy"] = statistics.median(lazy / ours for ours, _, lazy, *_ in means)
        numbers[f"{key}_memory_ratio"] = peak_bytes(works[2]) / peak_bytes(works[0])
        numbers[f"{key}_images_per_second"] = batch / mean
        numbers[f"{key}_optics_share"] = statistics.median(m[3] / m[0] for m in means)
        if preset == "quick":
            numbers["loader_ratio"] = statistics.median(m[0] / m[4] for m in means)
    return numbers


CHOICES = (8, 9)  # images at a time, rounds


def choices() -> Numbers:
    """What each choice of the step is worth at the preset `quick`: the plain step of `benchmarks/reference_step.py`, which takes up
    one after the other. `gain`: in time, over the one before; `memory_ratio`: in peak memory; `all`: ours over the plain one."""
    import numpy as np

    from argan.config import schema
    from benchmarks import reference_step

    batch, rounds = CHOICES
    config = schema.training("quick", {"batch": batch})
    photos = np.random.default_rng(0).integers(0, 256, (256, config.resolution, config.resolution, 3), np.uint8)
    names = list(reference_step.CHOICES)
    trainers = [reference_step.Trainer(config, photos, names[:n]) for n in range(len(names) + 1)]
    rare = 1 / config.penalty_every

    def at(trainer: reference_step.Trainer, images: int) -> Work:
        def work() -> None:
            trainer.images = images  # 0: a step with the penalty
            trainer.step()

        return work

    works = [at(trainer, images) for trainer in trainers for images in (0, batch)]
    for work in works:
        work()
    means = [
        [rare * times[i] + (1 - rare) * times[i + 1] for i in range(0, len(times), 2)]
        for times in interleaved(rounds, *works)
    ]
    peaks = [peak_bytes(works[i]) for i in range(0, len(works), 2)]
    numbers: Numbers = {}
    for i, name in enumerate(names, 1):
        numbers[f"choice_{name}_gain"] = statistics.median(mean[i - 1] / mean[i] for mean in means)
        numbers[f"choice_{name}_memory_ratio"] = peaks[i - 1] / peaks[i]
    numbers["choice_all_gain"] = statistics.median(mean[0] / mean[-1] for mean in means)
    numbers["choice_all_memory_ratio"] = peaks[0] / peaks[-1]
    return numbers


def cost() -> Numbers:
    """What each preset costs: parameters, operations of a training step an image, and memory.

    Operations are multiplications and additions, as torch counts them, of convolutions and matrices, forward and backward, the
    rare penalty spread over its interval: counted on two images, and the same on every machine. A CPU's renderer has neither, a
    GPU's has those of `gflop_gpu_renderer` besides. `memory_gb` is `argan.training.memory`'s estimate for the preset's batch;
    `memory_measured` the peak of a step of these two images over the estimate for two.
    """
    import numpy as np
    import torch

    from argan.config import schema
    from argan.training import memory
    from argan.training.step import Trainer

    numbers: Numbers = {}
    for preset in COST:
        config = schema.training(preset, {"batch": 2})
        photos = np.random.default_rng(0).integers(0, 256, (4, config.resolution, config.resolution, 3), np.uint8)
        trainer, key = Trainer(config, photos, torch.device("cpu")), f"cost_{preset}"
        rare, often = _operations(trainer.step), _operations(trainer.step)
        numbers |= {
            f"{key}_parameters_{name}": count for name, count in memory.parameter_counts(config).items() if count
        }
        mean = (rare + (config.penalty_every - 1) * often) / config.penalty_every
        numbers[f"{key}_gflop_per_image"] = mean / config.batch / 1e9
        numbers[f"{key}_gflop_gpu_renderer"] = _operations(partial(_by_torch, config)) / 1e9
        numbers[f"{key}_memory_gb"] = memory.bytes_needed(schema.training(preset), trainer.device) / 1e9
        trainer.state.images = 0
        numbers[f"{key}_memory_measured"] = peak_bytes(trainer.step) / (
            2 * memory.bytes_per_image(config, trainer.device)
        )
    return numbers


COST = ("quick", "64", "128", "256")


def _by_torch(config: Training) -> None:
    """A photograph and its gradients, as a GPU makes them."""
    import torch

    from argan.optics import Aperture
    from argan.optics.layered import blur_layers, composite, slice_layers

    image, disparity = (torch.zeros(1, c, config.resolution, config.resolution, requires_grad=True) for c in (3, 1))
    stack, levels = slice_layers(image, disparity, config.layers, config.disparity_max)
    composite(blur_layers(stack, levels, torch.ones(1), Aperture())).sum().backward()


def _operations(work: Work) -> float:
    """Floating point operations of `work`, by torch's own formulas. (Its FlopCounterMode cannot follow a penalty on gradients.)"""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Count(TorchDispatchMode):
        total = 0.0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if (formula := flop_registry.get(func._overloadpacket)) is not None:
                self.total += formula(*args, **(kwargs or {}), out_val=out)
            return out

    with Count() as count:
        work()
    return count.total


def meadow() -> Numbers:
    """Photographs of the embedded domain at 64 px, on every core, starting the workers included."""
    from argan.meadow import SMALL, photographs

    count = 4 * SMALL
    photographs(SMALL, 64, 0, depth=False)  # compiled, should it not be yet
    seconds = median_ms(lambda: photographs(count, 64, 0, depth=False), 1, warm=False) / 1e3
    return {"meadow_64_photos_per_second": count / seconds}


def sample() -> Numbers:
    """One scene from a model that is loaded and warm; its weights do not matter to the clock."""
    model = _untrained()
    return {"sample_warm_ms": median_ms(lambda: model.sample(1), 25)}


def depth() -> Numbers:
    """Depth by a 64-px estimator, warm: of a photo of 640 x 480 pixels at its own size, and of one of 64 x 64 by onnxruntime."""
    import tempfile

    import numpy as np

    from argan.inference.onnx_export import export_onnx, open_session

    model = _untrained("64")
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "estimator.onnx"
        export_onnx(model, path)  # which compares the two: a time of another answer means nothing
        session = open_session(path)
        small = np.zeros((1, 3, 64, 64), np.float32)
        return {
            "depth_warm_ms": median_ms(lambda: model.depth(photo), 9),
            "depth_onnx_ms": median_ms(lambda: session.run(None, {"photo": small}), 25),
        }


def bokeh() -> Numbers:
    """A photo of 12 megapixels behind a subject in focus, its blur 5 to 60 pixels wide; the plain scatter over a part of it; the
    whole of `argan bokeh` but for the start of Python; and a preview of one megapixel."""
    import tempfile

    import cv2
    import numpy as np

    from argan.effects.bokeh import refocus
    from argan.photos import photograph
    from benchmarks.reference_bokeh import scatter

    width, height = BOKEH
    small = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    photo = np.asarray(cv2.resize(small, BOKEH, interpolation=cv2.INTER_CUBIC), np.uint8)
    y, x = np.indices((height, width), np.float32)
    subject = np.hypot(y - height / 2, x - width / 2) < height / 4
    slope = 0.5 + 0.5 * y / height  # what lies behind recedes: the blur varies by two

    def behind(radius: float) -> NDArray[Any]:
        return np.where(subject, 0, -radius / width * slope).astype(np.float32)

    scenes = {radius: behind(radius) for radius in (5.0, 15.0, 60.0)}
    refocus(photo, scenes[60.0], 1.0)  # compiles, or reads what was
    rounds = interleaved(3, *(partial(refocus, photo, disparity, 1.0) for disparity in scenes.values()))
    seconds = [statistics.median(times) for times in zip(*rounds, strict=True)]

    part = np.s_[: height // 20, : width // 20]
    light, radius = photo[part].astype(np.float32) / 255, behind(60.0)[part] * width
    plain = median_ms(lambda: scatter(light, radius), 1, warm=False) / 1e3 * (photo.size / light.size)

    with tempfile.TemporaryDirectory() as name:
        file, model = Path(name) / "photo.jpg", _untrained()
        cv2.imwrite(str(file), photo)

        def command() -> None:
            taken = photograph.read(file)
            model.depth(taken)  # an untrained model's says nothing: the scene's own is used
            made = refocus(taken.pixels, scenes[60.0], 1.0)
            photograph.write_png(Path(name) / "made.png", made)

        whole = median_ms(command, 3) / 1e3

    preview = (1154, 866)
    little, depth = cv2.resize(photo, preview), cv2.resize(scenes[60.0], preview)
    return {
        "bokeh_12mp_seconds": whole,
        "bokeh_speedup": plain / seconds[-1],
        "bokeh_flatness": max(seconds) / min(seconds),
        "bokeh_preview_ms": median_ms(lambda: refocus(little, depth, 1.0), 5),
    }


BOKEH = (4000, 3000)  # pixels: 12 megapixels

# photos, times each is taken in by us (the start of processes does not count in a large folder), their size, rounds
INGEST = (12, 20, (4000, 3000), 3)
INDEX = (1_000, 4_000, 16_000)  # photos among which near duplicates are looked for


def ingest() -> Numbers:
    """Photographs of 12 megapixels into a store of 128 px, photos a second against a plain loop over Pillow; and the time of the
    duplicate index a photo, which must not grow with their number."""
    import tempfile

    import numpy as np

    from argan.photos import duplicates
    from argan.photos.ingest import ingest
    from argan.photos.prepare import File
    from benchmarks import reference_ingest

    count, times, (width, height), rounds = INGEST
    size = min(128, height // 2)
    numbers: Numbers = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [_photograph(folder / f"{i}.jpg", width, height, i) for i in range(count)]
        files = [File(path, f"{path.name} {i}") for i in range(times) for path in paths]

        def ours() -> None:
            ingest(files, folder, size)

        def plain() -> None:
            reference_ingest.ingest(paths, folder / "plain.npy", size)

        rates = [(len(files) / a, count / b) for a, b in interleaved(rounds, ours, plain)]
        ours_pixels, plain_pixels = (np.load(folder / file) for file in ("photos.npy", "plain.npy"))
        # The square may be off by a quarter of a pixel; with more, it is not the same that is compared
        assert np.abs(ours_pixels.astype(np.int16) - plain_pixels).mean() < 4
    numbers["ingest_speedup"] = statistics.median(a / b for a, b in rates)
    numbers["ingest_photos_per_second"] = statistics.median(a for a, _ in rates)
    for n in INDEX:
        hashes = np.random.default_rng(0).integers(0, 2**64, n, dtype=np.uint64)
        numbers[f"ingest_index_{n}_us"] = median_ms(lambda: list(duplicates.near_pairs(hashes)), 3) * 1e3 / n  # noqa: B023
    return numbers


FRECHET = (10_000, 2048, 3)  # photos, features of Inception, rounds


def frechet() -> Numbers:
    """The Fréchet distance after the features, against the formula with scipy's square root of a matrix, in float64."""
    import numpy as np

    from argan.metrics import frechet_distance
    from benchmarks import reference_frechet

    photos, features, rounds = FRECHET
    random = np.random.default_rng(0)
    mix = random.normal(size=(features, features)) * np.exp(
        -np.arange(features) / (features / 10)
    )  # as few matter as do there
    a, b = (((random.normal(size=(photos, features)) + shift) @ mix).astype(np.float32) for shift in (0, 0.1))
    # A ratio between two different things means nothing
    assert abs(frechet_distance(a, b) / reference_frechet.frechet_distance(a, b) - 1) < 1e-6
    times = interleaved(rounds, lambda: frechet_distance(a, b), lambda: reference_frechet.frechet_distance(a, b))
    return {
        "frechet_speedup": statistics.median(plain / ours for ours, plain in times),
        "frechet_seconds": statistics.median(ours for ours, _ in times),
    }


def _photograph(path: Path, width: int, height: int, seed: int) -> Path:
    """A JPEG that is as hard to decode as a camera's: contrast falls with frequency as in nature, and the sensor's noise."""
    import cv2
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    h, w = height // 4, width // 4
    frequency = np.hypot(np.fft.fftfreq(h)[:, None] * h / w, np.fft.rfftfreq(w)[None])
    frequency[0, 0] = np.inf
    planes = [np.fft.irfft2(np.fft.rfft2(random.standard_normal((h, w))) / frequency, (h, w)) for _ in range(3)]
    colors = np.stack([planes[0] + 0.3 * plane for plane in planes], -1)
    large = cv2.resize(
        (colors / colors.std() * 45 + 120).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    large += random.normal(0, 3, (height, width, 1)).astype(np.float32)
    Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


PARTS: dict[str, Callable[[], Numbers]] = {
    "optics": optics,
    "step": step,
    "choices": choices,
    "cost": cost,
    "meadow": meadow,
    "sample": sample,
    "depth": depth,
    "bokeh": bokeh,
    "ingest": ingest,
    "frechet": frechet,
}


def _untrained(preset: str = "quick") -> Any:
    from argan import networks
    from argan.config import schema
    from argan.inference.model import Model

    config = schema.training(preset)
    return Model("none", config, networks.build_generator(config))


SETTLE = 0.02  # seconds; after its work torch's threads keep their cores for some milliseconds, at the cost of whoever is next


def interleaved(rounds: int, *works: Work) -> list[tuple[float, ...]]:
    """Seconds of each piece of work, round by round, taken in turn."""

    def once(work: Work) -> float:
        time.sleep(SETTLE)
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return [tuple(once(work) for work in works) for _ in range(rounds)]


def median_ms(work: Work, rounds: int, warm: bool = True) -> float:
    if warm:
        for _ in range(3):
            work()
    return statistics.median(t for (t,) in interleaved(rounds, work)) * 1e3


def peak_bytes(work: Work) -> int:
    """The most that torch holds at a time during `work`, above what it held before. (The compiled gather has ten planes of
    one image a thread besides.)"""
    from torch.profiler import ProfilerActivity, profile

    with _no_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


@contextmanager
def _no_stderr() -> Iterator[None]:
    """The profiler's library talks there, below Python."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _show(part: str, numbers: Numbers) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"argan bench: {part}", show_header=False, title_justify="left")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
