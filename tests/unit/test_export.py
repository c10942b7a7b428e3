"""The estimator as ONNX says what torch says, at every size, and nothing is written that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import argan
from argan.errors import UserError
from argan.inference import onnx_export as export
from argan.inference.model import Model
from argan.networks.estimator import estimate_with_error


@pytest.fixture(scope="module")
def model(untrained: Path) -> Model:
    return argan.load(untrained)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 48), (1, 104, 40), (2, 8, 64), (1, 256, 16)])
def test_every_size_gives_what_torch_gives(model: Model, exported: Path, shape: tuple[int, int, int]) -> None:
    n, h, w = shape
    photo = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(1)) * 2 - 1
    outputs = export.open_session(exported, 1).run(["disparity", "error"], {"photo": photo.numpy()})
    for said, expected in zip(outputs, estimate_with_error(model.estimator, photo), strict=True):
        assert said.shape == expected.shape and np.allclose(said, expected.numpy(), atol=1e-5)
        assert said.std() > 1e-4, "an answer, and no constant"


def test_the_file_says_what_it_takes_and_gives(exported: Path) -> None:
    about = export.open_session(exported).get_modelmeta().custom_metadata_map
    assert about["argan.resolution"] == "32" and about["argan.domain"] == "meadow"
    assert (
        "127.5" in about["argan.input"]
        and "larger = nearer" in about["argan.output"]
        and "fraction" in about["argan.unit"]
    )
    assert [p.name for p in exported.parent.iterdir()] == ["estimator.onnx"], "weights are inside"


def test_a_file_that_says_something_else_is_not_kept(
    model: Model, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = exported.read_bytes()
    monkeypatch.setattr(export, "converted", lambda _: content)
    assert export.export_onnx(model, tmp_path / "same.onnx") < 1e-5
    (tmp_path / "same.onnx").unlink()
    another = argan.load(model.folder)  # type: ignore[arg-type]
    with torch.no_grad():
        another.estimator.doubt.bias.add_(0.01)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="differ"):
        export.export_onnx(another, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"\.onnx"):
        export.export_onnx(model, tmp_path / "a.pt")
