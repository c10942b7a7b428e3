"""Progress of a training in the log."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL = 10.0  # seconds between two lines


class Progress:
    """An `on_row` that says now and then how far a training is, how fast, how long it will take, and its losses."""

    def __init__(self, name: str, total: int, say: Callable[[str], None]) -> None:
        self.name, self.total, self.say = name, total, say
        self.start: tuple[float, int] | None = (
            None  # time and images at the first row, so that a resumed run tells its own speed
        )
        self.last = float("-inf")

    def __call__(self, images: int, row: dict[str, float]) -> None:
        now = time.perf_counter()
        if self.start is None:
            self.start = (now, images)
        elif now - self.last >= INTERVAL or images >= self.total:
            speed = (images - self.start[1]) / (now - self.start[0])
            left = max(self.total - images, 0) / speed
            self.last = now
            self.say(
                f"{self.name}: {images}/{self.total} images ({images / self.total:.0%}), {speed:.0f}/s, "
                f"{left // 60:.0f}:{left % 60:02.0f} left, "
                f"loss D {row['loss_d']:.3f} G {row['loss_g']:.3f}, disparity std {row['disparity_std']:.3f}"
            )
