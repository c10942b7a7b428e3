"""A trained model in use: sample scenes, estimate the depth of photographs and blur them by it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from argan import networks
from argan.config.schema import REMOVED, Training
from argan.effects.aperture_shape import COLLECTION, SHAPES, Shape
from argan.effects.bokeh import refocus
from argan.effects.iris import Iris
from argan.errors import UserError
from argan.inference.edges import Disparity, fit_to_edges, resize
from argan.inference.novelty import NOVELTY_FILE, NOVELTY_THRESHOLD, NoveltyDetector
from argan.inference.photo import Photo, Pixels, read_photo
from argan.networks.estimator import estimate_with_error
from argan.optics import Aperture
from argan.photos import photograph
from argan.photos.photograph import Photograph
from argan.tensors import read_tensors

MODELS = Path("models")
BATCH = 32  # scenes generated at a time
VIEWS = Aperture.size  # along each side of the aperture, as trained
MAX_VIEWS = 33  # 66 dB from twice as many at 256 px
MAX_ASPECT = 64  # longest side over shortest: the model sees as many of its frames side by side; panoramas have 3 to 20
CONFIDENCE_TOLERANCE = 0.1  # of the full range of disparity: off by less, far, focal plane and near stay distinct


@dataclass(frozen=True)
class Estimate:
    """A photograph's depth as a model estimates it, and its reliability.

    disparity: (H, W), signed, 0 in the focal plane, larger = nearer, fraction of the photo's width. confidence: (H, W) in 0..1,
    the probability that the disparity is within CONFIDENCE_TOLERANCE of the model's range, see `Model.estimate`. novelty: 0..1,
    the share of the domain's own photos that lie nearer to the training photos than this one; None where that is unknown.
    """

    disparity: Disparity
    confidence: Disparity
    novelty: float | None

    @property
    def warning(self) -> str | None:
        """One sentence where the photograph is not of the kind the model learned from; None where it may be."""
        if self.novelty is None or self.novelty < NOVELTY_THRESHOLD:
            return None
        return (
            "this is unlike the photographs the model learned from; its depth may be wrong whatever the confidence says"
        )


@dataclass(frozen=True)
class Scenes:
    """N generated scenes, one per latent. R is the model's resolution."""

    images: Pixels  # (N, R, R, 3), all in focus
    photos: Pixels  # (N, R, R, 3), through the full aperture
    disparity: Disparity  # (N, R, R), signed, 0 in the focal plane, larger = nearer, fraction of image width


class Model:
    """A generator of scenes and the depth estimator distilled from it, on the CPU."""

    def __init__(
        self, domain: str, config: Training, generator: networks.SceneGenerator, folder: Path | None = None
    ) -> None:
        self.domain, self.config, self.folder = domain, config, folder
        self.generator = generator.eval().requires_grad_(False)

    @classmethod
    def load(cls, reference: str | Path) -> Model:
        """A domain in models/ or a folder; `argan.load` takes registry references too. The estimator is read when first used."""
        folder = find_folder(reference)
        path = folder / "config.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            config = Training.model_validate({k: v for k, v in dict(content["training"]).items() if k not in REMOVED})
            domain = str(content["domain"])
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} is no model or half written: config.json is not there; run `dvc repro`"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{path}: training.{name}: {first['msg'].lower()}; it is another version's model"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); run `dvc repro` or fetch the model again") from error
        generator = networks.build_generator(config)
        _load_weights(generator, folder / "generator.safetensors")
        return cls(domain, config, generator, folder)

    @cached_property
    def estimator(self) -> networks.Estimator:
        student = networks.Estimator(self.config.estimator_channels, self.config.disparity_max)
        if self.folder is not None:
            _load_weights(student, self.folder / "estimator.safetensors")
        return student.eval().requires_grad_(False)

    @cached_property
    def novelty_detector(self) -> NoveltyDetector | None:
        """Fitted to the domain's photographs; None where the folder has none."""
        return NoveltyDetector.load(self.folder / NOVELTY_FILE) if self.folder else None

    @cached_property
    def iris(self) -> Iris | None:
        """The lens that the domain's photographs were taken with; None where the folder does not say."""
        return Iris.load(self.folder) if self.folder else None

    def aperture_shape(self, shape: str) -> Shape:
        """What `argan.effects.bokeh.refocus` takes for the shape of that name: "collection" is the photographs' own.

        Raises UserError where that is not known.
        """
        if shape != COLLECTION:
            return shape
        if self.iris is None:
            reason = "it was trained before that was measured; train it again"
        elif self.iris.outline is None:
            reason = self.iris.reason
        else:
            return self.iris.outline
        others = ", ".join(SHAPES)
        raise UserError(
            f"the model '{self.domain}' knows no aperture shape of its collection ({reason}); there is: {others}"
        )

    # Generated scenes

    def sample(self, count: int = 1, seed: int = 0, truncation: float = 1.0, views: int = VIEWS) -> Scenes:
        """`count` scenes. Scene i depends on (seed, i) alone: asking for more leaves the first ones as they are.

        `truncation` below 1 brings latents nearer to their mean: scenes more alike, and fewer that failed (Brock et al., 2019).
        `views` along each side of the aperture, odd: more than the 5 of training make a wide blur smooth. Raises UserError.
        """
        parts = list(self.stream(count, seed, truncation, views))
        return Scenes(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("images", "photos", "disparity"))
        )

    def stream(self, count: int, seed: int = 0, truncation: float = 1.0, views: int = VIEWS) -> Iterator[Scenes]:
        """The same, a batch at a time, for counts that do not fit into memory. Raises ValueError unless count >= 1."""
        if count < 1 or seed < 0:
            raise ValueError(f"count must be at least 1 and seed at least 0, got {count} and {seed}")
        for first in range(0, count, BATCH):
            yield self.scenes(self.latents(range(first, min(first + BATCH, count)), seed, truncation), views)

    def latents(self, indices: Iterable[int], seed: int = 0, truncation: float = 1.0) -> Disparity:
        """Of those scenes of `seed`: float32 (N, Z), standard normal times `truncation`."""
        if not 0 <= truncation <= 2:
            raise UserError(f"truncation must be between 0 (all scenes alike) and 2, got {truncation:g}")
        rows = [np.random.default_rng([seed, i]).standard_normal(self.config.latent, np.float32) for i in indices]
        return np.stack(rows) * np.float32(truncation)

    @torch.inference_mode()
    def scenes(self, latents: Disparity, views: int = VIEWS) -> Scenes:
        """The scenes of latents (N, Z)."""
        aperture = _aperture(views)
        image, disparity = self.generator(torch.from_numpy(latents))
        photo = self.generator.photograph(image, disparity, torch.ones(len(image)), aperture=aperture)
        return Scenes(networks.to_uint8(image), networks.to_uint8(photo), disparity[:, 0].numpy())

    @torch.inference_mode()
    def light_field(self, index: int = 0, seed: int = 0, truncation: float = 1.0, views: int = VIEWS) -> Pixels:
        """The `views` x `views` views of scene `index` of `seed`, row by row from the top left: (25, R, R, 3) of 5."""
        aperture = _aperture(views)
        image, disparity = self.generator(torch.from_numpy(self.latents([index], seed, truncation)))
        return networks.to_uint8(self.generator.views(image, disparity, torch.ones(1), aperture)[0])

    # Photographs

    def depth(self, photo: Photo) -> Disparity:
        """Disparity of a photograph at its own size: float32 (H, W), larger = nearer, as a fraction of the photo's width.

        photo: a path, a PIL image (EXIF orientation is applied) or uint8 (H, W, 3). The estimator sees it with its shorter
        side at the resolution the model was trained at; its output is then fitted to the photo's edges. Raises UserError
        for what is no photo.
        """
        pixels = read_photo(photo)
        disparity, _ = self._estimate_coarse(self._downscale(pixels))
        return self._upscale(disparity, pixels)

    def estimate(self, photo: Photo) -> Estimate:
        """`depth`, with the confidence at every pixel and the photo's novelty.

        Confidence is 1 - exp(-t / error), t being CONFIDENCE_TOLERANCE of the range of disparity. The error is what the estimator
        learned of its own errors on generated scenes (Laplace, Kendall and Gal 2017), and at least half of what the photo and its
        mirror image differ by. It says nothing of photographs of another kind: `novelty` does.
        """
        pixels = read_photo(photo)
        small = self._downscale(pixels)
        disparity, error = self._estimate_coarse(small)
        confidence = 1 - np.exp(-CONFIDENCE_TOLERANCE * 2 * self.config.disparity_max / error)
        novelty = None
        if self.novelty_detector is not None:
            (h, w), r = small.shape[:2], self.config.resolution
            top, left = (h - r) // 2, (w - r) // 2
            novelty = self.novelty_detector.score(small[top : top + r, left : left + r])
        size = (pixels.shape[1], pixels.shape[0])
        full: Disparity = cv2.resize(confidence, size, interpolation=cv2.INTER_CUBIC)
        return Estimate(self._upscale(disparity, pixels), np.clip(full, 0, 1), novelty)

    def _downscale(self, pixels: Pixels) -> Pixels:
        """The photo with its shorter side at the model's resolution. Raises UserError where the longer one would be endless."""
        (h, w), r = pixels.shape[:2], self.config.resolution
        if max(h, w) > MAX_ASPECT * min(h, w):
            raise UserError(
                f"the photo has {w} x {h} pixels, one side more than {MAX_ASPECT} times the other; cut it up"
            )
        return resize(pixels, max(r, round(h * r / min(h, w))), max(r, round(w * r / min(h, w))))

    @torch.inference_mode()
    def _estimate_coarse(self, small: Pixels) -> tuple[Disparity, Disparity]:
        """Disparity and its expected error (h, w), in the model's unit: the width of its square frame."""
        h, w = small.shape[:2]
        padded = np.pad(small, ((0, -h % 8), (0, -w % 8), (0, 0)), mode="symmetric")  # three halvings and back
        photos = networks.from_uint8(torch.from_numpy(padded).permute(2, 0, 1)[None])
        disparity, error = estimate_with_error(self.estimator, photos)
        return disparity[0, 0, :h, :w].numpy(), error[0, 0, :h, :w].numpy()

    def _upscale(self, coarse: Disparity, pixels: Pixels) -> Disparity:
        """Fitted to the photo's edges, in fractions of its width: the model's frame is the photo's shorter side."""
        h, w = pixels.shape[:2]
        return fit_to_edges(coarse, pixels, pixel=min(h, w) / self.config.resolution) * np.float32(min(h, w) / w)

    def bokeh(
        self, photo: Photo, aperture: float, focus: tuple[float, float] | None = None, shape: str = "disc"
    ) -> NDArray[Any]:
        """The photograph through an aperture `aperture` times the model's full one, focused on pixel `focus` = (x, y).

        Returns (H, W, 3), the photo's own size and values: uint16 where its file has 16 bits, else uint8. aperture 0 gives the
        photo itself; focus None is its centre; both numbers within 0..1 are fractions of width and height; shape is one of
        `bokeh.SHAPES` or "collection", the aperture of the photographs learned from. Raises UserError for what is no photo,
        an aperture below 0, a focus outside the frame, or an unknown shape.
        """
        opening = self.aperture_shape(shape)
        source = photograph.read(photo) if isinstance(photo, str | Path) else photo
        pixels = source.pixels if isinstance(source, Photograph) else read_photo(source)
        return refocus(pixels, self.depth(source), aperture, focus, opening)


def _aperture(views: int) -> Aperture:
    if views % 2 == 0 or not 3 <= views <= MAX_VIEWS:
        raise UserError(f"views must be odd, from 3 to {MAX_VIEWS}, to have one in the middle; got {views}")
    return Aperture(views)


def find_folder(reference: str | Path) -> Path:
    """The folder of a model that lies on this machine. Raises UserError, listing what there is."""
    for folder in (MODELS / reference, Path(reference)):
        if folder.is_dir() and (folder.parent == MODELS or (folder / "config.json").exists()):
            return folder
    if Path(reference).is_dir():
        raise UserError(f"{reference} is no model or half written: config.json is not there; run `dvc repro`")
    known = sorted(p.parent.name for p in MODELS.glob("*/config.json"))
    near = difflib.get_close_matches(str(reference), known, 1)
    hint = (
        f"did you mean '{near[0]}'?" if near else f"there is: {', '.join(known)}" if known else "train one: make repro"
    )
    raise UserError(
        f"no model '{reference}': neither a domain in {MODELS}/ nor a folder nor a models:/ reference; {hint}"
    )


def _load_weights(network: torch.nn.Module, path: Path) -> None:
    tensors, _ = read_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[1].strip().rstrip(".") if "\n" in str(error) else str(error)
        raise UserError(
            f"{path} does not fit the config.json beside it ({reason:.120}); fetch the model again"
        ) from error
