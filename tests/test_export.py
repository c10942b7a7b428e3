"""The estimator as ONNX says what torch says, at every size, and nothing is written that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from argan import export, networks
from argan.errors import UserError
from argan.estimator import estimate
from argan.model import Model
from argan.params import training

SMALL = {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    config = training("quick", SMALL)
    return Model("meadow", config, networks.generator(config))


@pytest.fixture(scope="module")
def file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "estimator.onnx"
    assert export.export_onnx(model, path) < 1e-5
    return path


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 48), (1, 104, 40), (2, 8, 64), (1, 256, 16)])
def test_every_size_gives_what_torch_gives(model: Model, file: Path, shape: tuple[int, int, int]) -> None:
    n, h, w = shape
    photo = torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(1)) * 2 - 1
    (said,) = export.open_session(file, 1).run(None, {"photo": photo.numpy()})
    expected = estimate(model.estimator, photo).numpy()
    assert said.shape == expected.shape and np.allclose(said, expected, atol=1e-5)
    assert np.abs(expected).max() > 1e-4, "an answer, and no zeros"


def test_the_file_says_what_it_takes_and_gives(file: Path) -> None:
    about = export.open_session(file).get_modelmeta().custom_metadata_map
    assert about["argan.resolution"] == "32" and about["argan.domain"] == "meadow"
    assert (
        "127.5" in about["argan.input"]
        and "larger = nearer" in about["argan.output"]
        and "fraction" in about["argan.unit"]
    )
    assert [p.name for p in file.parent.iterdir()] == ["estimator.onnx"], "weights are inside"


def test_a_file_that_says_something_else_is_not_kept(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="differ"):
        export.export_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"\.onnx"):
        export.export_onnx(model, tmp_path / "a.pt")
