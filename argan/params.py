"""Every parameter, typed, with its reason.

`params.yaml` holds the list of domains to build, one section per stage and one per known domain. A domain names a
preset; the `train` section may override any number of it. Everything is validated here, once, before any work: an
unknown or ill-typed parameter is named together with the nearest right name.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from argan.errors import UserError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

T = TypeVar("T", bound=BaseModel)

STAGES = ("fetch", "crop", "train", "evaluate", "register")


class Frozen(BaseModel):
    """Immutable, and strict about names: a typo is an error, never a silently ignored setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Training(Frozen):
    """Everything training depends on. A change to any of these starts a fresh checkpoint.

    Images seen is the only clock: every length below is counted in real photographs shown to the discriminator.
    """

    preset: str
    resolution: Annotated[int, Field(ge=32, le=256)]
    seed: NonNegative = 0
    recipe: Literal["modern", "paper"] = "modern"
    renderer: Literal["gather", "occlusion"] = "occlusion"

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
    aperture_zero: Fraction  # probability of s = 0: the discriminator must see I itself, else blur hides in I
    aperture_min: Fraction  # otherwise s is uniform in [aperture_min, 1]
    layers: Annotated[int, Field(ge=2, le=32)]  # disparity layers of the occlusion renderer

    # Depth priors
    prior: Weight
    prior_fade: NonNegative  # images over which the prior falls linearly to its floor
    prior_floor: Weight  # what remains afterwards
    prior_radius: Fraction  # r_th, image widths from the centre
    prior_slope: Weight  # g, disparity per image width
    smoothness: Weight  # edge-aware, on disparity
    expansion_tie: Weight  # L1 between M and D~ (gather renderer)

    # Augmentation (what the discriminator sees, reals and fakes alike)
    augment_translate: Annotated[float, Field(ge=0, le=0.125)]  # beyond 1/8 of the frame D stops seeing composition
    augment_cutout: Annotated[float, Field(ge=0, le=0.5)]
    augment_color: Fraction

    # The estimator distilled from generated pairs
    estimator_images: Positive
    estimator_batch: Positive
    estimator_channels: Positive
    estimator_learning_rate: Annotated[float, Field(gt=0, le=0.1)]

    # Watching
    log_every: Positive  # images between two logged rows
    samples_every: Positive  # images between two sample grids
    checkpoint_every: Positive  # images between two checkpoints
    checkpoints_kept: Positive = 2  # the newest, and the one before it should the newest be damaged


PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
                "resolution": 32,
        "images": 80_000,
        "batch": 16,
        "learning_rate": 4e-4,
        "ema_images": 10_000,
        "latent": 64,
        "generator_channels": 32,
        "discriminator_channels": 32,
        "channels_max": 128,
        "disparity_max": 0.1,
        "penalty": 1.0,
        "penalty_every": 8,
        "aperture_zero": 0.25,
        "aperture_min": 0.1,
        "layers": 5,
        "prior": 1.0,
        "prior_fade": 16_000,
        "prior_floor": 0.05,
        "prior_radius": 0.25,
        "prior_slope": 0.2,
        "smoothness": 0.05,
        "expansion_tie": 0.1,
        "augment_translate": 0.0,
        "augment_cutout": 0.0,
        "augment_color": 0.0,
        "estimator_images": 40_000,
        "estimator_batch": 32,
        "estimator_channels": 16,
        "estimator_learning_rate": 2e-3,
        "log_every": 800,
        "samples_every": 8_000,
        "checkpoint_every": 4_000,
    },
}


class Domain(Frozen):
    """One object domain: where its photographs come from and the preset it is trained with."""

    source: Literal["meadow"]
    preset: Literal["quick", "64", "128", "256"] = "quick"
    photos: Annotated[int, Field(ge=64)] = 8000
    validation: Annotated[int, Field(ge=16)] = 400
    test: Annotated[int, Field(ge=16)] = 800
    seed: NonNegative = 0

    @model_validator(mode="after")
    def _leaves_photos_to_train_on(self) -> Domain:
        if self.photos <= self.validation + self.test:
            raise ValueError(f"photos {self.photos} must be more than validation {self.validation} + test {self.test}")
        return self


class Fetch(Frozen):
    """Nothing to set yet: a domain's section says where its photographs come from."""


class Crop(Frozen):
    refused_max: Fraction = 0.05


class Evaluate(Frozen):
    images: Positive = 2000
    features: Literal["efficientnet-lite0"] = "efficientnet-lite0"
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
            raise UserError(f"unknown domain '{name}'{_nearest(name, self.known)}; known: {', '.join(sorted(self.known))}")
        return self.known[name]

    def training(self, name: str) -> Training:
        """The domain's preset with the overrides of the `train` section."""
        return training(self.domain(name).preset, self.train)


def training(preset: str, overrides: dict[str, Any] | None = None) -> Training:
    """A preset, with single numbers overridden. Unknown or ill-typed names raise UserError."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'{_nearest(preset, PRESETS)}; known: {', '.join(PRESETS)}")
    return _validated(Training, {"preset": preset, **PRESETS[preset], **(overrides or {})}, "train")


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml. Raises UserError naming the file, the parameter, the reason and the nearest right name."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run in the top folder of the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of sections, not {type(content).__name__}")
    sections = {f.alias or name for name, f in Params.model_fields.items()} - {"known"}
    known = {}
    for name in [key for key in content if key not in sections]:
        section = content.pop(name)
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name):
            raise UserError(f"{path}: '{name}' is no domain name: use small letters, digits, - and _")
        if not isinstance(section, dict) or "source" not in section:
            raise UserError(f"{path}: unknown section '{name}'{_nearest(name, sections)}; a domain's section must say its 'source'")
        known[name] = _validated(Domain, section, name, str(path))
    params = _validated(Params, {**content, "known": known}, "", str(path))
    for name in params.domains:
        params.training(name)
    return params


def _nearest(name: Any, names: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(n) for n in names], 1, 0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _validated(model: type[T], values: dict[str, Any], section: str, file: str = "params.yaml") -> T:
    """Validate, or raise UserError with the first mistake: one line, the parameter named as the user wrote it."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([*([section] if section else []), *(str(part) for part in first["loc"])])
        if first["type"] == "extra_forbidden":
            names = [f.alias or name for name, f in model.model_fields.items()]
            raise UserError(f"{file}: unknown parameter '{where}'{_nearest(first['loc'][-1], names)}") from error
        got = f", got {first['input']!r}" if first["type"] != "missing" else ""
        raise UserError(f"{file}: {where}: {first['msg'].lower()}{got}") from error
