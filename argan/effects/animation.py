"""Views in sequence as an animation: GIF, WebP or MP4."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from argan.errors import UserError
from argan.files import atomic

Pixels = NDArray[np.uint8]


def write_animation(frames: Pixels, path: Path, milliseconds: int = 50) -> None:
    """frames (F, H, W, 3) as an endless .gif or .webp, or as .mp4 (VP9). Written atomically.

    Raises UserError for another suffix. A GIF has one palette for all frames, so that nothing flickers.
    """
    suffix = path.suffix.lower()
    if suffix not in (".gif", ".webp", ".mp4"):
        raise UserError(f"{path}: an animation is .gif, .webp or .mp4")
    if suffix == ".mp4":
        _write_mp4(frames, path, 1000 / milliseconds)
        return
    pages = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    if suffix == ".gif":
        sampled = frames[:: max(1, len(frames) // 8)]
        sheet = Image.fromarray(np.ascontiguousarray(sampled.reshape(-1, *frames.shape[2:])))
        palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        pages = [page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for page in pages]
        pages[0].save(content, "GIF", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0, disposal=1)
    else:
        pages[0].save(
            content, "WEBP", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0, quality=85
        )
    with atomic(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _write_mp4(frames: Pixels, path: Path, rate: float) -> None:
    """VP9, the one codec that OpenCV's wheel writes and browsers play. An odd row or column is repeated."""
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder, atomic(path) as temporary:
        video = Path(folder) / "a.mp4"  # OpenCV infers the container from the name
        size = (frames.shape[2], frames.shape[1])
        writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"vp09"), rate, size)
        if not writer.isOpened():
            raise UserError(f"{path}: this OpenCV has no VP9 encoder; write .webp or .gif")
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
        temporary.write_bytes(video.read_bytes())
