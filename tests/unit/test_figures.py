"""The pictures of an evaluation show what their captions say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from argan.config.schema import Evaluate
from argan.evaluation import figures

FAR, NEAR = -0.08, 0.06


class DefocusAsBrightness:
    """A generator whose photographs show the disparity they were taken at: grey where in focus."""

    def photograph(self, image: Tensor, disparity: Tensor, scale: Tensor, **_: Any) -> Tensor:
        return (disparity * 5).expand_as(image)

    def views(self, image: Tensor, disparity: Tensor, scale: Tensor) -> Tensor:
        return image[:, None].expand(-1, 25, -1, -1, -1)


def test_refocusing_goes_from_far_to_near(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disparity = torch.full((4, 1, 32, 32), FAR)
    disparity[..., 16:] = NEAR

    def generate(*_: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield torch.zeros(4, 3, 32, 32), disparity, torch.ones(4)

    shots: list[np.ndarray] = []
    monkeypatch.setattr(figures.plots, "refocus", lambda columns, *_: shots.extend(columns))
    monkeypatch.setattr(figures, "_show_interpolation", lambda *_: None)
    model: Any = SimpleNamespace(
        generate=generate, generator=DefocusAsBrightness(), config=SimpleNamespace(disparity_max=0.15)
    )
    figures.show_scenes(model, Evaluate(), torch.device("cpu"), tmp_path)
    in_focus = 128
    far, near = (np.array([shot[0, 16, x, 0] for shot in shots], int) for x in (4, 28))
    assert far[0] == in_focus and near[-1] == in_focus, (
        "the first column is focused on the far side, the last on the near"
    )
    assert (np.diff(far) < 0).all() and (np.diff(near) < 0).all(), "what was in focus falls behind the focal plane"
