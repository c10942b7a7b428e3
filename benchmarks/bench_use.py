"""A trained model in use: sampling, depth, bokeh. Its weights do not matter to the clock, so that it is untrained."""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan import networks
from argan.config import schema
from argan.effects.bokeh import refocus
from argan.inference.model import Model
from argan.inference.onnx_export import export_onnx, open_session
from argan.photos import photograph
from benchmarks.reference_bokeh import scatter
from benchmarks.timing import Numbers, interleaved, median_ms

BOKEH = (4000, 3000)  # pixels: 12 megapixels


def sample() -> Numbers:
    """One scene from a model that is loaded and warm; its weights do not matter to the clock."""
    model = _untrained()
    return {"sample_warm_ms": median_ms(lambda: model.sample(1), 25)}


def depth() -> Numbers:
    """Depth by a 64-px estimator, warm: of a photo of 640 x 480 pixels at its own size, and of one of 64 x 64 by onnxruntime."""
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
    all of `argan bokeh` except the start of Python; and a preview of one megapixel."""
    width, height = BOKEH
    small = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    photo = np.asarray(cv2.resize(small, BOKEH, interpolation=cv2.INTER_CUBIC), np.uint8)
    y, x = np.indices((height, width), np.float32)
    subject = np.hypot(y - height / 2, x - width / 2) < height / 4
    slope = 0.5 + 0.5 * y / height  # what lies behind recedes: the blur varies by two

    def background(radius: float) -> NDArray[Any]:
        return np.where(subject, 0, -radius / width * slope).astype(np.float32)

    scenes = {radius: background(radius) for radius in (5.0, 15.0, 60.0)}
    refocus(photo, scenes[60.0], 1.0)  # compiles, or reads what was
    rounds = interleaved(3, *(partial(refocus, photo, disparity, 1.0) for disparity in scenes.values()))
    seconds = [statistics.median(times) for times in zip(*rounds, strict=True)]

    corner = np.s_[: height // 20, : width // 20]
    light, radius = photo[corner].astype(np.float32) / 255, background(60.0)[corner] * width
    plain = median_ms(lambda: scatter(light, radius), 1, warm=False) / 1e3 * (photo.size / light.size)

    with tempfile.TemporaryDirectory() as name:
        path, model = Path(name) / "photo.jpg", _untrained()
        cv2.imwrite(str(path), photo)

        def command() -> None:
            taken = photograph.read(path)
            model.depth(taken)  # an untrained model's says nothing: the scene's own is used
            blurred = refocus(taken.pixels, scenes[60.0], 1.0)
            photograph.write_png(Path(name) / "blurred.png", blurred)

        command_seconds = median_ms(command, 3) / 1e3

    preview = (1154, 866)
    small_photo, small_disparity = cv2.resize(photo, preview), cv2.resize(scenes[60.0], preview)
    return {
        "bokeh_12mp_seconds": command_seconds,
        "bokeh_speedup": plain / seconds[-1],
        "bokeh_flatness": max(seconds) / min(seconds),
        "bokeh_preview_ms": median_ms(lambda: refocus(small_photo, small_disparity, 1.0), 5),
    }


def _untrained(preset: str = "quick") -> Model:
    config = schema.training(preset)
    return Model("none", config, networks.build_generator(config))
