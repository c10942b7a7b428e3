"""The estimator as ONNX computes what torch computes, at every size; a file that differs is not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import argan
from argan.errors import UserError
from argan.inference import onnx_export
from argan.inference.model import Model
from argan.networks.estimator import estimate_with_error


@pytest.fixture(scope="module")
def model(untrained: Path) -> Model:
    return argan.load(untrained)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 48), (1, 104, 40), (2, 8, 64), (1, 256, 16)])
def test_every_size_gives_what_torch_gives(model: Model, exported: Path, shape: tuple[int, int, int]) -> None:
    n, h, w = shape
    photo = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(1)) * 2 - 1
    outputs = onnx_export.open_session(exported, 1).run(["disparity", "error"], {"photo": photo.numpy()})
    for output, expected in zip(outputs, estimate_with_error(model.estimator, photo), strict=True):
        assert output.shape == expected.shape and np.allclose(output, expected.numpy(), atol=1e-5)
        assert output.std() > 1e-4, "not a constant"


def test_the_file_describes_its_input_and_output(exported: Path) -> None:
    metadata = onnx_export.open_session(exported).get_modelmeta().custom_metadata_map
    assert metadata["argan.resolution"] == "32" and metadata["argan.domain"] == "meadow"
    assert (
        "127.5" in metadata["argan.input"]
        and "larger = nearer" in metadata["argan.output"]
        and "fraction" in metadata["argan.unit"]
    )
    assert [p.name for p in exported.parent.iterdir()] == ["estimator.onnx"], "weights are inside"


def test_a_file_that_differs_from_torch_is_not_kept(
    model: Model, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = exported.read_bytes()
    monkeypatch.setattr(onnx_export, "to_onnx", lambda _: content)
    assert onnx_export.export_onnx(model, tmp_path / "same.onnx") < 1e-5
    (tmp_path / "same.onnx").unlink()
    another = argan.load(model.folder)  # type: ignore[arg-type]
    with torch.no_grad():
        another.estimator.doubt.bias.add_(0.01)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="differ"):
        onnx_export.export_onnx(another, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"\.onnx"):
        onnx_export.export_onnx(model, tmp_path / "a.pt")
