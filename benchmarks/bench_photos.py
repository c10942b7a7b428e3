"""Photographs taken in, against a plain loop over Pillow, and photographs of the embedded domain."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from argan.meadow import SMALL, photographs
from argan.photos import duplicates
from argan.photos.ingest import ingest as ingest_photos
from argan.photos.prepare import SourceFile
from benchmarks import reference_ingest
from benchmarks.timing import Numbers, interleaved, median_ms

# photos, times each is taken in by us (the start of processes does not count in a large folder), their size, rounds
INGEST = (12, 20, (4000, 3000), 3)
INDEX = (1_000, 4_000, 16_000)  # photos among which near duplicates are looked for


def meadow() -> Numbers:
    """Photographs of the embedded domain at 64 px, on every core, starting the workers included."""
    count = 4 * SMALL
    photographs(SMALL, 64, 0, depth=False)  # compiled, should it not be yet
    seconds = median_ms(lambda: photographs(count, 64, 0, depth=False), 1, warm=False) / 1e3
    return {"meadow_64_photos_per_second": count / seconds}


def ingest() -> Numbers:
    """Photographs of 12 megapixels into a store of 128 px, photos a second against a plain loop over Pillow; and the time of the
    duplicate index a photo, which must not grow with their number."""
    count, times, (width, height), rounds = INGEST
    size = min(128, height // 2)
    numbers: Numbers = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [_photograph(folder / f"{i}.jpg", width, height, i) for i in range(count)]
        files = [SourceFile(path, f"{path.name} {i}") for i in range(times) for path in paths]

        def ours() -> None:
            ingest_photos(files, folder, size)

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


def _photograph(path: Path, width: int, height: int, seed: int) -> Path:
    """A JPEG that is as hard to decode as a camera's: contrast falls with frequency as in nature, and the sensor's noise."""
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
