"""Every parameter, typed, with its reason.

`params.yaml` holds the list of domains to build, one section per stage and one per known domain. A domain names a
preset; the `train` section may override any number of it. Everything is validated here, once, before any work: an
unknown or ill-typed parameter is named together with the nearest right name.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from filelock import FileLock
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from argan.errors import UserError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

T = TypeVar("T", bound=BaseModel)

NAME = re.compile(
    r"[a-z0-9][a-z0-9_-]{0,62}"
)  # of a domain: it becomes part of file names, DVC stages and MLflow models

STAGES = ("fetch", "crop", "train", "evaluate", "register")


class Frozen(BaseModel):
    """Immutable, and strict about names: a typo is an error, never a silently ignored setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _odd(layers: int) -> int:
    if layers % 2 == 0:
        raise ValueError("must be odd, so that one layer lies in the focal plane and what is in focus stays sharp")
    return layers


class Training(Frozen):
    """Everything training depends on. A change to any of these starts afresh, but for what RUNNING names, and of the
    estimator's the estimator alone.

    Images seen is the only clock: every length below is counted in real photographs shown to the discriminator.
    """

    preset: str
    resolution: Annotated[int, Field(ge=32, le=256)]
    seed: NonNegative = 0
    recipe: Literal["modern", "paper"] = "modern"
    renderer: Literal["gather", "occlusion"] = "occlusion"

    # Which way round depth is: told by the prior, or found from the photographs by trying both (argan/training/sign.py)
    sign: Literal["prior", "photographs"] = "prior"
    sign_images: Positive = 64_000  # images each way is tried for

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
    prior_sign: Weight = 0.0  # holds which way round depth is, throughout; 0 in models from before it was
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

    # Where and how it runs: nothing here changes what is learned, but for the rounding of sums, so a training goes on under others
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: every GPU there is, else the CPU
    precision: Literal["auto", "float32", "bfloat16"] = (
        "auto"  # of convolutions; auto: bfloat16 where there are units for it
    )
    accumulate: Positive = 1  # parts a batch is worked off in, one after the other: less memory, somewhat slower
    stop_when_hopeless: bool = (
        False  # end a training that argan/training/health.py has given up, by name; it only warns otherwise
    )

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
    def recipe_only(self) -> dict[str, Any]:
        """What decides what is learned: the whole but for where and how it runs."""
        return {name: value for name, value in self.model_dump().items() if name not in RUNTIME_ONLY}

    @property
    def adversarial_only(self) -> dict[str, Any]:
        """Of that, what decides the generator: all but the estimator's. A checkpoint belongs to it."""
        return {name: value for name, value in self.recipe_only.items() if not name.startswith("estimator_")}


# What trainings once had and their models, still there, do not need
REMOVED = ("prior_floor", "aperture_told", "prior_front")
RUNTIME_ONLY = (
    "device", "precision", "accumulate", "stop_when_hopeless",
    "log_every", "samples_every", "checkpoint_every", "checkpoints_kept",
)  # fmt: skip

_QUICK: dict[str, Any] = {
    "resolution": 32,  # the least at which a petal's blur (3 px at the far end) can be told from its texture
    "images": 128_000,  # 8 to 17 minutes on two CPU cores, as fast as they are; the pictures still improve at the end
    "sign_images": 128_000,  # the whole length: after 64,000 one of three seeds could not tell (docs/results.md)
    "batch": 8,  # at this length steps matter more than their noise: flowers took shape in half the images of batch 16
    "learning_rate": 4e-4,  # at 1e-3 the generator died within 1,000 steps
    "ema_images": 10_000,  # of 128,000: the average forgets the shapeless beginning
    "latent": 64,  # more dimensions than 32 px can show differences
    "generator_channels": 16,  # 0.4 M parameters; twice the width is about twice the step
    "discriminator_channels": 48,  # 0.4 M parameters, the generator's equal
    "channels_max": 128,  # at 4x4 and 8x8 width is nearly free
    "disparity_max": 0.15,  # half as much again as photographs of this kind show: at 0.1 all that is far ended at the limit
    "penalty": 0.3,  # at 1.0 slower, at 0.05 the discriminator won (loss D 0.34, G 2.1)
    "penalty_every": 8,  # the penalty costs about two more steps: every eighth time that is a quarter more
    "aperture_zero": 0.15,  # that I itself is judged keeps blur out of it; deep photos are about as rare
    "aperture_min": 0.1,  # below, the largest blur is half a pixel: the same as 0
    "light": "linear",  # exact scenes come to within 0.053 of their photographs for 0.065 (RMS)
    "layers": 9,  # steps of 1.2 px; odd, so that one lies in the focal plane; 13 cost a fifth of the speed
    "prior": 1.0,  # decides the first thousand steps, when the discriminator knows nothing of depth
    "prior_fade": 8_000,  # colours and a subject are there by then
    "prior_sign": 1.0,  # as heavy as the prior: without, one of four longer ones of an older recipe ended inside out
    "prior_focus": 0.05,  # without, petals lay at the far limit long into an older recipe; 0.1 throughout was too much
    "prior_focus_fade": 96_000,  # the blur has taken its place by then; held to the end, smooth backgrounds stay in focus
    "prior_radius": 0.12,  # at 0.25 everything but the borders stayed in focus
    "prior_slope": 0.18,  # 0.1 in the upper corners: as far as anything is
    "prior_below": 0.0,  # at 1 the ground at the bottom stayed as far as the sky
    "smoothness": 0.1,  # at 0.05 the depth is patchy, at 0.25 it no longer follows the flowers
    "expansion_tie": 0.1,  # with the gather renderer: T is to refine, not replace; too little for it (docs/results.md)
    "augment_translate": 0.0,  # sixteen epochs of 8,000 photos do not overfit; flips alone are kept
    "augment_cutout": 0.0,
    "augment_color": 0.0,
    "estimator_images": 32_000,  # a good minute
    "estimator_batch": 8,  # steps matter more than their noise here too
    "estimator_channels": 24,  # 0.3 M parameters
    "estimator_outline": 2,  # at 0 depth is 0.66, at 1 0.68, at 2 0.69, at 3 no better (validation photos of meadow)
    "estimator_learning_rate": 2e-3,  # with one cycle; the task is plain regression
    "log_every": 2_000,  # a row every 11 s
    "samples_every": 16_000,  # eight sheets
    "checkpoint_every": 8_000,  # a minute of work at most is lost
}
_GPU: dict[str, Any] = (
    _QUICK
    | {
        "batch": 32,  # a GPU is not filled by less
        "learning_rate": 2e-4,  # longer training, larger batch: steadier, as R3GAN
        "ema_images": 50_000,  # with hundreds of thousands of images to come
        "latent": 128,  # photographs differ in more ways than meadow's, and more pixels show it
        "penalty_every": 16,  # as StyleGAN2
        "prior_fade": 200_000,  # 6,250 steps at half the rate, for `quick`'s 1,000: more pixels take shape later
        "prior_focus_fade": 1_000_000,  # 31,250 steps at half the rate, for `quick`'s 12,000
        "sign_images": 1_000_000,  # 31,250 steps for `quick`'s 16,000; the whole length would cost days
        "augment_translate": 0.125,  # thousands of photos seen a hundred times over: the discriminator would learn them by heart
        "augment_cutout": 0.25,  # half of DiffAugment's: the subject must not be gone
        "augment_color": 0.4,  # below half of DiffAugment's: light tells what is real
        "estimator_images": 500_000,  # 16,000 steps, four times `quick`'s, for four times the parameters
        "estimator_batch": 32,  # as above
        "estimator_channels": 48,  # 1.2 M parameters, half of the smallest generator's
        "log_every": 3_200,  # a hundred steps
        "samples_every": 100_000,  # 50 to 100 sheets
        "checkpoint_every": 50_000,  # 200 at most; on a fast GPU minutes apart
    }
)
PRESETS: dict[str, dict[str, Any]] = {
    # Two CPU cores, 12 minutes: the embedded domain, and a first look at any other.
    "quick": _QUICK,
    # One GPU each; untried so far. Lengths are those at which networks of this size settle on photographs.
    "64": _GPU
    | {
        "resolution": 64,
        "layers": 13,  # steps of 1.6 px
        "images": 5_000_000,  # forty times `quick`'s
        "generator_channels": 32,  # 2.3 M parameters
        "discriminator_channels": 96,  # 3.0 M
        "channels_max": 256,  # from 8x8 (the discriminator's from 16x16) down: more adds parameters and hardly any picture
    },
    "128": _GPU
    | {
        "resolution": 128,
        "images": 8_000_000,  # more to learn, and slower steps: a night on a GPU, as predicted
        "generator_channels": 32,  # 5.1 M parameters
        "discriminator_channels": 96,  # 8.1 M
        "channels_max": 384,  # as above (the discriminator's from 32x32)
        "penalty": 1.0,  # gradients per pixel shrink with the number of pixels
        "layers": 17,  # steps of 2.4 px
    },
    "256": _GPU
    | {
        "resolution": 256,
        "images": 10_000_000,  # two days on a GPU, as predicted
        "batch": 16,  # memory: 7 GB of a GPU for it, as predicted
        "generator_channels": 24,  # of full resolution, where all the time and memory go: 8.9 M parameters
        "discriminator_channels": 64,  # 14.3 M
        "channels_max": 512,  # 16x16 and below are nearly free here
        "penalty": 3.0,  # as above
        "layers": 21,  # steps of 3.8 px; more would cost memory
    },
}


def _text(preset: Any) -> Any:
    return str(preset) if isinstance(preset, int) else preset  # 64 without quotes is a number to YAML


class Domain(Frozen):
    """What every domain says: where its photographs come from, and the preset it is trained with."""

    source: str
    preset: Annotated[Literal["quick", "64", "128", "256"], BeforeValidator(_text)] = "quick"

    @property
    def resolution(self) -> int:
        """Pixels of a photo's side in the store."""
        return int(PRESETS[self.preset]["resolution"])


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


def training(preset: str, overrides: dict[str, Any] | None = None) -> Training:
    """A preset, with single numbers overridden. Unknown or ill-typed names raise UserError."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}'{nearest(preset, PRESETS)}; known: {', '.join(PRESETS)}")
    return validated(Training, {"preset": preset, **PRESETS[preset], **(overrides or {})}, "train")


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
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{path}: '{name}' is no domain name: use small letters, digits, - and _")
        if not isinstance(section, dict) or "source" not in section:
            raise UserError(
                f"{path}: unknown section '{name}'{nearest(name, sections)}; a domain's section must say its 'source'"
            )
        if (source := section["source"]) not in SOURCES:
            raise UserError(
                f"{path}: {name}.source: unknown source '{source}'{nearest(source, SOURCES)}; known: {', '.join(SOURCES)}"
            )
        known[name] = validated(SOURCES[source], section, name, str(path))
    params = validated(Params, {**content, "known": known}, "", str(path))
    for name in params.domains:
        params.training(name)
    return params


def record_revision(name: str, revision: Callable[[], str], path: str | Path = "params.yaml") -> bool:
    """Write a collection's revision into its section, which is made where there is none; every other byte stays as it is.

    `revision` is asked for it while nobody else writes. True when the section is new. Raises UserError when the name belongs
    to something else, or the file cannot be written.
    """
    from argan.files import write_text

    path = Path(path)
    with FileLock(path.with_name(f".{path.name}.lock")):
        check_collection_name(name, load(path))
        text = path.read_text(encoding="utf-8")
        content, told = yaml.safe_load(text), revision()
        new = name not in content
        section = re.search(rf"^{re.escape(name)}:[^\n]*\n(?:(?:[ \t#][^\n]*)?\n)*", text + "\n", re.MULTILINE)
        if new:
            content[name] = {"source": "collection", "preset": "64"}
            about = f"\n# Photographs of `argan collection show {name}`.\n"
            preset = 'preset: "64" # quick is 32 px; 64, 128 and 256 want one GPU'
            text = f"{text.rstrip()}\n{about}{name}:\n  source: collection\n  {preset}\n  revision: {_scalar(told)}\n"
        elif section:
            line = re.sub(r"(\brevision:[ \t]*)[\"']?\w+[\"']?", rf"\g<1>{_scalar(told)}", section[0], count=1)
            text = text[: section.start()] + line + text[section.end() :]
        content[name]["revision"] = told
        try:
            right = yaml.safe_load(text) == content
        except yaml.YAMLError:
            right = False
        if not right:
            raise UserError(
                f"{path} is written in a way that cannot be changed safely; write {name}.revision: '{told}' there"
            )
        write_text(path, text)
    return new


def _scalar(told: str) -> str:
    """As YAML: hexadecimal digits alone may look like a number."""
    return told if yaml.safe_load(told) == told else f"'{told}'"


def check_collection_name(name: str, params: Params) -> None:
    """Raises UserError when `name` cannot be a collection's: no domain name, or another section's."""
    if not NAME.fullmatch(name) or yaml.safe_load(name) != name:  # `on` and `2024` are not even words in YAML
        raise UserError(
            f"'{name}' is no name for a collection: use small letters, digits, - and _, "
            "but no number, date, on, off, yes, no or null"
        )
    sections = {f.alias or key for key, f in Params.model_fields.items()} - {"known"}
    if (
        name in sections
        or (name in SOURCES and name != "collection")
        or (name in params.known and params.known[name].source != "collection")
    ):
        raise UserError(f"'{name}' is taken by another section of params.yaml; choose another name for the collection")


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
