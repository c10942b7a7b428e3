"""A trained model in use: where it is found, what photographs it takes, what it refuses. The network is small, untrained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import argan
from argan import networks
from argan.config.schema import training
from argan.errors import UserError
from argan.files import write_json
from argan.inference.edges import fit_to_edges
from argan.inference.model import Model
from argan.inference.novelty import NoveltyDetector
from argan.inference.photo import read_photo
from argan.tensors import write_tensors

SMALL = {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = training("quick", SMALL)
    place = tmp_path_factory.mktemp("work") / "models" / "meadow"
    write_tensors(place / "generator.safetensors", networks.build_generator(config).state_dict())
    student = networks.Estimator(config.estimator_channels, config.disparity_max)
    write_tensors(place / "estimator.safetensors", student.state_dict())
    write_json(place / "config.json", {"domain": "meadow", "training": config.model_dump()})
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return argan.load(folder)


def test_a_model_is_a_domain_a_folder_or_named_with_what_there_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert argan.load("meadow").domain == argan.load(folder).domain == "meadow"
    with pytest.raises(UserError, match="did you mean 'meadow'"):
        argan.load("medow")
    with pytest.raises(UserError, match="half written"):
        argan.load(folder.parent)


def test_a_model_without_its_estimator_still_makes_scenes(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "generator.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    alone = argan.load(tmp_path)
    assert alone.sample(1).images.shape == (1, 32, 32, 3)
    with pytest.raises(UserError, match=r"estimator\.safetensors"):
        alone.depth(np.zeros((32, 32, 3), np.uint8))


def test_a_model_with_the_parameters_of_an_earlier_version_loads(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["training"]["prior_sign"]
    content["training"]["prior_floor"] = 0.03  # its predecessor
    write_json(tmp_path / "config.json", content)
    assert np.array_equal(argan.load(tmp_path).sample(1).images, argan.load(folder).sample(1).images)
    for damage in ("quick", ["prior_floor"], None):
        write_json(tmp_path / "config.json", content | {"training": damage})
        with pytest.raises(UserError, match=r"config\.json"):
            argan.load(tmp_path)


def test_an_estimate_is_the_depth_with_confidence_and_novelty(model: Model, folder: Path, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    estimate = model.estimate(photo)
    assert np.array_equal(estimate.disparity, model.depth(photo))
    assert estimate.confidence.shape == (48, 80) and 0 <= estimate.confidence.min() <= estimate.confidence.max() <= 1
    assert estimate.novelty is None and estimate.warning is None, "the folder does not say what the domain looks like"
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dull = np.full((40, 32, 32, 3), 90, np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    NoveltyDetector.fit(dull, np.arange(30), np.arange(30, 40)).save(tmp_path / "likeness.safetensors")
    other = argan.load(tmp_path).estimate(photo)
    assert other.novelty == 1 and "unlike the photographs the model learned from" in str(other.warning)
    assert argan.load(tmp_path).estimate(np.full((50, 64, 3), 100, np.uint8)).warning is None


def test_scenes_have_their_ranges_and_views(model: Model) -> None:
    scenes = model.sample(3, seed=1)
    assert scenes.images.shape == scenes.photos.shape == (3, 32, 32, 3)
    assert scenes.images.dtype == scenes.photos.dtype == np.uint8
    assert scenes.disparity.dtype == np.float32 and np.abs(scenes.disparity).max() <= model.config.disparity_max
    views = model.light_field(2, seed=1)
    assert views.shape == (25, 32, 32, 3)
    assert np.abs(views[12].astype(int) - scenes.images[2]).max() <= 1, "the central view is the image"
    with pytest.raises(ValueError, match="count"):
        model.sample(0)


@pytest.mark.parametrize(("h", "w"), [(48, 48), (40, 90), (90, 40), (33, 47), (20, 20), (1, 1), (5, 200)])
def test_depth_has_the_size_of_any_photo(model: Model, h: int, w: int) -> None:
    disparity = model.depth(np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8))
    assert disparity.shape == (h, w) and disparity.dtype == np.float32
    assert np.isfinite(disparity).all()
    limit = model.config.disparity_max * min(h, w) / w  # the unit is the photo's own width
    assert np.abs(disparity).max() <= limit * (1 + 1e-5)


def test_a_flipped_photo_has_flipped_depth(model: Model) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.allclose(model.depth(photo[:, ::-1].copy()), model.depth(photo)[:, ::-1], atol=2e-3)


def test_edges_of_the_photo_become_edges_of_depth() -> None:
    photo = np.zeros((128, 128, 3), np.uint8)
    photo[:, 70:] = 200
    coarse = np.repeat(np.linspace(-0.05, 0.05, 16, dtype=np.float32)[None], 16, 0)  # a ramp across the edge
    fine = fit_to_edges(coarse, photo, pixel=8)
    jump = np.abs(np.diff(fine[64]))
    assert jump.argmax() == 69 and jump.max() > 5 * np.median(jump)
    assert coarse.min() <= fine.min() and fine.max() <= coarse.max()


def test_a_pattern_on_a_surface_is_no_relief() -> None:
    """Speckled feathers before a dark background: the outline is followed, the speckles are not."""
    inside = np.zeros((128, 128), bool)
    inside[:, 64:] = True
    speckled = np.random.default_rng(0).integers(135, 256, (128, 128))
    photo = np.where(inside, speckled, 40).astype(np.uint8)[..., None].repeat(3, 2)
    coarse = cv2.GaussianBlur(np.where(inside, 0.05, -0.05).astype(np.float32), (0, 0), 12)[4::8, 4::8]
    fine = fit_to_edges(coarse, photo, pixel=8)
    assert np.abs(np.diff(fine[:, 66:90], axis=1)).mean() < 0.002, "2 % of the range from pixel to pixel"
    assert fine[:, 66:70].mean() - fine[:, 58:62].mean() > 0.04


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_photos_in_any_mode_are_read(tmp_path: Path, mode: str) -> None:
    grey = np.tile(np.arange(0, 256, 8, np.uint8), (16, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) << 8)
    else:
        image = Image.fromarray(grey).convert(mode if mode != "CMYK" else "RGB").convert(mode)
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    image.save(path)
    pixels = read_photo(path)
    assert pixels.shape == (16, 32, 3) and pixels.dtype == np.uint8
    if mode in ("L", "I;16"):
        assert np.abs(pixels[..., 0].astype(int) - grey).max() <= 1


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png") == 255).all()


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("1", (11_000, 11_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match=r"bomb\.png is refused, too large"):
        read_photo(tmp_path / "bomb.png")


def test_folders_and_arrays_that_are_no_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        read_photo(tmp_path)
    for array in (np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)):
        with pytest.raises(UserError, match="uint8"):
            read_photo(array)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 3000, 3), (5000, 1, 3)])
def test_a_photo_that_is_all_length_is_refused(shape: tuple[int, int, int], model: Model) -> None:
    with pytest.raises(UserError, match="one side more than 64 times the other"):
        model.depth(np.zeros(shape, np.uint8))
