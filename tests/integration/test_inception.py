"""The Inception network of the FID, fetched from a server."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loopback import Server, serving
from PIL import Image

from argan.errors import UserError
from argan.metrics.features import INCEPTION, extractor


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a small network in the form of the published one, in its place."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(13), torch.nn.Flatten())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("with its own resizing, which is not wanted")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Network()).save(tmp_path / "network.pt")
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving() as server:
        data = (tmp_path / "network.pt").read_bytes()
        monkeypatch.setitem(INCEPTION, "url", server.offer("/inception.pt", data))
        monkeypatch.setitem(INCEPTION, "sha256", hashlib.sha256(data).hexdigest())
        yield server


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("size", [32, 64, 512])
def test_inception_sees_what_clean_fid_shows_it(weights: Server, size: int) -> None:
    photos = random(50).integers(0, 256, (3, size, size, 3), np.uint8)
    found = extractor("inception")(photos)

    def resized(photo: np.ndarray) -> np.ndarray:
        channels = [Image.fromarray(photo[..., c].astype(np.float32)) for c in range(3)]
        shown = [np.asarray(c.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255) for c in channels]
        return (np.stack(shown) - 128) / 128

    pooled = F.adaptive_avg_pool2d(torch.from_numpy(np.stack([resized(photo) for photo in photos])), 13).flatten(1)
    assert found == pytest.approx(pooled.numpy(), abs=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inception_is_fetched_once_checked_and_never_replaced_in_silence(
    weights: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extractor("inception").name == extractor("inception-if-available").name == "inception-2015-12-05"
    assert len(weights.asked) == 1
    monkeypatch.setenv("ARGAN_OFFLINE", "1")
    assert extractor("inception").name == "inception-2015-12-05"
    monkeypatch.setitem(INCEPTION, "sha256", "0" * 64)
    monkeypatch.delenv("ARGAN_OFFLINE")
    with pytest.raises(UserError, match=r"cannot download inception-2015-12-05\.pt .*wrong bytes"):
        extractor("inception")
    assert (
        extractor("inception-if-available").name == "efficientnet-lite0@128"
    )  # the parameter allows it, the name tells it
    monkeypatch.setenv("ARGAN_OFFLINE", "1")
    with pytest.raises(UserError, match="ARGAN_OFFLINE is set"):
        extractor("inception")
