"""What the workers of `argan serve` do: scenes, depth and bokeh, from a file to a file. Loaded in their fork server alone."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from argan import load, visualization
from argan.effects import bokeh
from argan.errors import UserError
from argan.inference.model import Model
from argan.photos import photograph
from argan.serving.workers import Handler

Reply = dict[str, Any]


def prepare(references: list[str], megapixels: float) -> tuple[Handler, list[dict[str, Any]]]:
    """Load and warm the models; the handler of jobs, and what `GET /v1/models` answers. Raises UserError.

    A job is {"kind": "sample" | "depth" | "bokeh", "domain", "folder", and its options}. The photograph is `folder`/photo; the
    answer is written into `folder`/answer, and its media type and headers are the reply. A refusal is {"status", "error"}.
    """
    models: dict[str, Model] = {}
    for reference in references:
        model = load(reference)
        if model.domain in models:
            raise UserError(f"{reference} is a second model of the domain '{model.domain}'; serve it at another --port")
        models[model.domain] = model
    warm(models)
    jobs: dict[str, Callable[..., tuple[bytes, Reply]]] = {"sample": _sample, "depth": _depth, "bokeh": _bokeh}

    def handle(job: dict[str, Any]) -> Reply:
        kind, domain, folder = job.pop("kind"), job.pop("domain"), Path(job.pop("folder"))
        try:
            if kind != "sample":
                job["photo"] = _read(folder / "photo", megapixels)
            content, reply = jobs[kind](models[domain], **job)
        except photograph.TooManyPixels as error:
            return {"status": 413, "error": _without_path(folder, error)}
        except UserError as error:
            return {"status": 422, "error": _without_path(folder, error)}
        try:
            (folder / "answer").write_bytes(content)
        except FileNotFoundError:  # the client left while this was worked out, and this process is about to be killed
            return {"status": 499, "error": "its client has left"}
        return reply

    facts = [
        {
            "domain": domain,
            "resolution": model.config.resolution,
            "disparity_max": model.config.disparity_max,
            "recipe": model.config.recipe,
        }
        for domain, model in models.items()
    ]
    return handle, facts


def warm(models: Mapping[str, Model]) -> None:
    """Read and compile all that a first request would wait for. Raises UserError for an incomplete model."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # its threads would not survive the fork
    grey = np.full((96, 96, 3), 128, np.uint8)
    for model in models.values():
        model.sample(1)
        disparity = model.estimate(grey).disparity
    bokeh.refocus(grey, disparity + np.linspace(0, 0.1, 96, dtype=np.float32), 1.0)
    sys.stdout.flush()  # what is buffered would be written again by each worker


def _sample(model: Model, count: int, seed: int) -> tuple[bytes, Reply]:
    files: dict[str, bytes] = {}
    scenes = model.sample(count, seed)
    for i, (image, photo, disparity) in enumerate(zip(scenes.images, scenes.photos, scenes.disparity, strict=True)):
        files |= {f"{i}_image.png": visualization.png(image), f"{i}_photo.png": visualization.png(photo)}
        files[f"{i}_disparity.npy"] = _npy(disparity)
    return _zip(files)


def _depth(model: Model, photo: photograph.Photograph) -> tuple[bytes, Reply]:
    estimate = model.estimate(photo)
    files = {
        "disparity.npy": _npy(estimate.disparity),
        "depth.png": visualization.png(visualization.depth_colors(estimate.disparity)),
        "confidence.png": visualization.png((estimate.confidence * 255).round().astype(np.uint8)),
    }
    return _zip(files, estimate.warning)


def _bokeh(
    model: Model, photo: photograph.Photograph, aperture: float, focus: tuple[float, float], shape: str
) -> tuple[bytes, Reply]:
    blurred = model.bokeh(photo, aperture, focus, shape)
    return photograph.png(blurred, photo.icc, photo.exif), {"media": "image/png"}


def _read(path: Path, megapixels: float) -> photograph.Photograph:
    return photograph.read(path, pixels=round(megapixels * 1e6))


def _without_path(folder: Path, error: UserError) -> str:
    """The message, without where the file lies."""
    return str(error).replace(str(folder / "photo"), "what was sent")


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zip(files: Mapping[str, bytes], warning: str | None = None) -> tuple[bytes, Reply]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # stored: PNGs are compressed already
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue(), {"media": "application/zip", "headers": {"Argan-Warning": warning} if warning else {}}
