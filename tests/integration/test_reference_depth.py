"""The network that judges depth where none is known, fetched from a server."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback import serving
from torch import nn

from argan.errors import UserError
from argan.metrics import reference
from argan.training.checkpoint import write_tensors


@pytest.fixture
def anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """A small network in the form of the published one, whose weights this machine's server offers in its place."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 12}
    head = {
        "neck_hidden_sizes": [4, 8, 16, 24],
        "fusion_hidden_size": 8,
        "head_hidden_size": 4,
        "reassemble_hidden_size": 24,
    }
    monkeypatch.setattr(reference, "BACKBONE", reference.BACKBONE | sizes)
    monkeypatch.setattr(reference, "HEAD", head)
    monkeypatch.setenv("ARGAN_ALLOW_HTTP", "loopback")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    config = DepthAnythingConfig(backbone_config=Dinov2Config(**reference.BACKBONE), **head)
    network = DepthAnythingForDepthEstimation(config).eval()
    write_tensors(tmp_path / "weights.safetensors", network.state_dict())
    with serving() as server:
        data = (tmp_path / "weights.safetensors").read_bytes()
        monkeypatch.setitem(reference.WEIGHTS, "url", server.offer("/model.safetensors", data))
        monkeypatch.setitem(reference.WEIGHTS, "sha256", hashlib.sha256(data).hexdigest())
        yield network


def test_the_reference_sees_what_it_was_trained_to_see(anything: nn.Module) -> None:
    photos_ = np.random.default_rng(0).integers(0, 256, (2, 252, 252, 3), np.uint8)  # at the size at which it looks
    mean, deviation = np.array(reference.MEAN), np.array(reference.DEVIATION)
    shown = torch.from_numpy((photos_ / 255 - mean) / deviation).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = anything(shown).predicted_depth
    found = reference.reference(torch.device("cpu"))(photos_)
    assert found.shape == (2, 252, 252) and found == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_reference_that_cannot_be_had_is_one_line(anything: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGAN_OFFLINE", "1")
    with pytest.raises(UserError, match="ARGAN_OFFLINE is set"):
        reference.reference(torch.device("cpu"))
    monkeypatch.delenv("ARGAN_OFFLINE")
    monkeypatch.setattr(reference, "HEAD", {})
    with pytest.raises(UserError, match="do not fit"):
        reference.reference(torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'argan\[reference\]'"):
        reference.reference(torch.device("cpu"))
