"""Every parameter of params.yaml, typed. The presets' values, each with its reason, are in the folder `presets`.

A domain names a preset; the `train` section may override any number of it. Everything is validated before any work: an unknown or
ill-typed parameter is reported together with the nearest valid name.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from argan.errors import UserError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

T = TypeVar("T", bound=BaseModel)

# Of a domain: the name becomes part of file names, DVC stages and MLflow models
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
STAGES = ("fetch", "crop", "train", "evaluate", "register")

Preset = Literal["quick", "64", "128", "256"]
PRESETS: tuple[str, ...] = get_args(Preset)
PRESET_FOLDER = Path(__file__).parent / "presets"

# Parameters that older models have in their config.json and that no longer exist
REMOVED = ("prior_floor", "aperture_told", "prior_front")
# Parameters that say where and how training runs, and not what is learned
PLACEMENT = ("device", "precision", "accumulate", "stop_when_hopeless")
WATCHING = ("log_every", "samples_every", "checkpoint_every", "checkpoints_kept")
RUNTIME_ONLY = (*PLACEMENT, *WATCHING)


class Frozen(BaseModel):
    """Immutable, and strict about names: a typo is an error, never a silently ignored setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _odd(layers: int) -> int:
    if layers % 2 == 0:
        raise ValueError("must be odd, so that one layer lies in the focal plane and what is in focus stays sharp")
    return layers


class Training(Frozen):
    """Everything training depends on. A change to any of these starts a fresh training, except those in RUNTIME_ONLY; a change to
    an estimator_... starts the estimator alone afresh.

    Images seen is the only clock: every length below is counted in real photographs shown to the discriminator.
    """

    preset: str
    resolution: Annotated[int, Field(ge=32, le=256)]
    seed: NonNegative = 0
    recipe: Literal["modern", "paper"] = "modern"
    renderer: Literal["gather", "occlusion"] = "occlusion"

    # The sign of depth: given by the prior, or learned from the photographs by trying both (argan/training/sign.py)
    sign: Literal["prior", "photographs"] = "prior"
    sign_images: Positive = 64_000  # length of the trial of each sign

    # Length and step
    images: Positive
    batch: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0, le=0.1)]
    ema_images: Positive  # half-life of the weight average

    # Networks
    latent: Positive
    generator_channels: Positive  # width at the finest resolution; doubles towards 4x4 up to the maximum
    discriminator_channels: Positive
    channels_max: Positive
    disparity_max: Annotated[float, Field(gt=0, le=0.25)]  # range of the generator's tanh, fraction of image width

    # Adversarial objective
    penalty: Weight  # gamma of R1 (and of R2 in the modern recipe)
    penalty_every: Positive  # lazy regularisation interval in steps; the penalty is scaled to match

    # Aperture: the DoF mixture's distribution of scales, drawn per image
    apertures: Literal["uniform", "bernoulli", "half-normal", "learned"] = "uniform"  # see argan/networks/mixture.py
    aperture_zero: Fraction  # probability of s = 0: the discriminator must see I itself, else blur hides in I
    aperture_min: Fraction  # otherwise s is in [aperture_min, 1]
    light: Literal["linear", "display"] = "display"  # what a lens adds up: light, or pixel values as in the paper
    layers: Annotated[int, Field(ge=3, le=31), AfterValidator(_odd)]  # disparity layers of the occlusion renderer

    # Depth priors
    prior: Weight
    prior_fade: NonNegative  # images over which the prior falls linearly to nothing
    prior_sign: Weight = 0.0  # holds the sign of depth throughout; 0 in models older than it
    prior_focus: Weight = 0.0  # keeps |D| small while pictures take shape, so that what is smooth does not drift away
    prior_focus_fade: NonNegative = 0  # images over which that falls linearly to nothing
    prior_radius: Fraction  # r_th, image widths from the centre
    prior_slope: Weight  # g, disparity per image width
    prior_below: Fraction = 1.0  # how much of the way down from the centre counts; 1: circles, the paper's
    smoothness: Weight  # edge-aware, on disparity
    expansion: bool = True  # T, of the gather renderer; without it rays are taken as they are, M = D~
    expansion_tie: Weight  # L1 between M and D~ (gather renderer)

    # Augmentation (what the discriminator sees, reals and fakes alike)
    augment_translate: Annotated[float, Field(ge=0, le=0.125)]  # beyond 1/8 of the frame D stops seeing composition
    augment_cutout: Annotated[float, Field(ge=0, le=0.5)]
    augment_color: Fraction

    # The estimator distilled from generated pairs
    estimator_images: Positive
    estimator_batch: Positive
    estimator_channels: Positive
    estimator_outline: NonNegative = 0  # pixels by which generated subjects are too large, and are made smaller
    estimator_learning_rate: Annotated[float, Field(gt=0, le=0.1)]

    # Watching
    log_every: Positive  # images between two logged rows
    samples_every: Positive  # images between two sample grids
    checkpoint_every: Positive  # images between two checkpoints
    checkpoints_kept: Positive = 2  # the newest, and the one before it should the newest be damaged

    # Where and how it runs. Nothing here changes what is learned, except for the rounding of sums: a training resumes under others.
    # device: auto is every GPU there is, else the CPU
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # precision of convolutions: auto is bfloat16 where the hardware has units for it
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # accumulate: parts of a batch that are computed one after the other: less memory, somewhat slower
    accumulate: Positive = 1
    # stop_when_hopeless: end a training that argan/training/health.py finds stalled; otherwise it only warns
    stop_when_hopeless: bool = False

    @model_validator(mode="after")
    def _parts_are_even(self) -> Training:
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} must divide batch {self.batch}")
        return self

    @model_validator(mode="after")
    def _prior_has_a_direction(self) -> Training:
        corner = math.sqrt(0.5) * (1 - 1 / self.resolution)  # the farthest centre of a pixel
        if (self.prior_sign or self.sign == "photographs") and (self.prior_slope == 0 or self.prior_radius >= corner):
            raise ValueError(
                f"prior_slope {self.prior_slope:g} and prior_radius {self.prior_radius:g} make a prior that is the same "
                "everywhere and tells no sign: a slope above 0 and a smaller radius, or prior_sign: 0 and sign: prior"
            )
        return self

    @model_validator(mode="after")
    def _sign_can_be_seen(self) -> Training:
        if self.sign == "photographs" and self.renderer != "occlusion":
            raise ValueError(
                "sign: photographs needs renderer: occlusion; gather makes the same photos both ways round"
            )
        if self.sign == "photographs" and self.sign_images > self.images:
            raise ValueError(f"sign_images {self.sign_images} must be no more than images {self.images}")
        return self

    @property
    def learning_params(self) -> dict[str, Any]:
        """The parameters that decide what is learned: all but RUNTIME_ONLY."""
        return {name: value for name, value in self.model_dump().items() if name not in RUNTIME_ONLY}

    @property
    def generator_params(self) -> dict[str, Any]:
        """Of those, the parameters that decide the generator: all but the estimator's. They identify a checkpoint."""
        return {name: value for name, value in self.learning_params.items() if not name.startswith("estimator_")}


def _text(preset: Any) -> Any:
    return str(preset) if isinstance(preset, int) else preset  # 64 without quotes is a number to YAML


class Domain(Frozen):
    """What every domain says: where its photographs come from, and the preset it is trained with."""

    source: str
    preset: Annotated[Preset, BeforeValidator(_text)] = "quick"

    @property
    def resolution(self) -> int:
        """Pixels of a photo's side in the store."""
        return int(preset_values(self.preset)["resolution"])


class Meadow(Domain):
    """The embedded domain, made from a seed."""

    source: Literal["meadow"]
    photos: Annotated[int, Field(ge=64)] = 10_000
    validation: Annotated[int, Field(ge=16)] = 1200
    test: Annotated[int, Field(ge=16)] = 800
    seed: NonNegative = 0

    @model_validator(mode="after")
    def _leaves_photos_to_train_on(self) -> Meadow:
        if self.photos <= self.validation + self.test:
            raise ValueError(f"photos {self.photos} must be more than validation {self.validation} + test {self.test}")
        return self


class CropRule(Frozen):
    """Which square of a photo is taken: `argan.photos.crop.Rule`, where each field is explained."""

    where: Literal["center", "box", "sharpness"] = "center"
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    background: Annotated[float, Field(ge=0, lt=1)] = 0.5


class FileOverride(Frozen):
    """What a user says of a dataset's file: their own copy, another address, the hash to trust."""

    path: Annotated[Path | None, Field(strict=False)] = None
    url: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None


class Published(Domain):
    """A published dataset, fetched and checked."""

    source: Literal["flowers", "birds", "faces"]
    crop: CropRule = CropRule()
    files: dict[str, FileOverride] = {}


class Collection(Domain):
    """Anybody's photographs, put together by `argan collection add`, which writes `revision`: what the collection held."""

    source: Literal["collection"]
    crop: CropRule = CropRule()
    revision: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


SOURCES: dict[str, type[Domain]] = {
    "meadow": Meadow,
    "flowers": Published,
    "birds": Published,
    "faces": Published,
    "collection": Collection,
}


class Fetch(Frozen):
    """Nothing to set yet: a domain's section says where its photographs come from."""


@dataclass(frozen=True)
class Floors:
    """Least values with which AR-GAN can work, of what `argan.photos.quality` measures."""

    photos: int = 500  # to train on: fewer are learned by heart before depth is
    defocus: float = 0.15  # share of photos: photographs without any defocus to see reach 0.11
    centered: float = 0.1  # subjects anywhere in the frame reach 0, give or take 0.04


class Crop(Frozen):
    """What becomes of a source that is not what it should be, and of one that AR-GAN cannot learn from."""

    refused_max: Fraction = 0.05
    photos_min: NonNegative = 500
    defocus_min: Fraction = 0.15
    centered_min: Annotated[float, Field(ge=-1, le=1)] = 0.1

    @property
    def floors(self) -> Floors:
        return Floors(self.photos_min, self.defocus_min, self.centered_min)


class Evaluate(Frozen):
    images: Positive = 2000
    features: Literal["efficientnet-lite0", "inception", "inception-if-available"] = "efficientnet-lite0"
    reference: Literal["none", "depth-anything-v2-small"] = "none"
    seed: NonNegative = 0


class Register(Frozen):
    """The gate: what makes a challenger champion."""

    depth_gain: Weight = 0.0
    kid_slack: Weight = 0.1
    sign_slack: Weight = 0.02


class Mlflow(Frozen):
    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = "argan"


class Params(Frozen):
    """All of params.yaml."""

    domains: list[str]
    fetch: Fetch = Fetch()
    crop: Crop = Crop()
    train: dict[str, Any] = {}
    evaluate: Evaluate = Evaluate()
    register_: Annotated[Register, Field(alias="register")] = Register()
    mlflow: Mlflow = Mlflow()
    known: dict[str, Domain]

    def domain(self, name: str) -> Domain:
        """The section of a known domain; UserError names the nearest one."""
        if name not in self.known:
            raise UserError(
                f"unknown domain '{name}'{nearest(name, self.known)}; known: {', '.join(sorted(self.known))}"
            )
        return self.known[name]

    def training(self, name: str) -> Training:
        """The domain's preset with the overrides of the `train` section."""
        return training(self.domain(name).preset, self.train)


@cache
def preset_values(preset: str) -> dict[str, Any]:
    """The values of presets/<preset>.yaml."""
    values: dict[str, Any] = yaml.safe_load((PRESET_FOLDER / f"{preset}.yaml").read_text(encoding="utf-8"))
    return values


def training(preset: str, overrides: dict[str, Any] | None = None) -> Training:
    """A preset, with single numbers overridden. Raises UserError for unknown or ill-typed names."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'{nearest(preset, PRESETS)}; known: {', '.join(PRESETS)}")
    return validated(Training, {"preset": preset, **preset_values(preset), **(overrides or {})}, "train")


def nearest(name: Any, names: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(n) for n in names], 1, 0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def validated(model: type[T], values: dict[str, Any], section: str, file: str = "params.yaml") -> T:
    """Validate, or raise UserError with the first mistake: one line, the parameter named as the user wrote it."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([*([section] if section else []), *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            names = [f.alias or name for name, f in model.model_fields.items()]
            raise UserError(f"{file}: unknown parameter '{where}'{nearest(first['loc'][-1], names)}") from error
        one = first["type"] != "missing" and first["loc"]  # a rule about several has no value of its own
        got = f", got {first['input']!r}" if one else ""
        raise UserError(f"{file}: {where}: {first['msg'].lower().removeprefix('value error, ')}{got}") from error
