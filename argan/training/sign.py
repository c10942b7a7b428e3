"""Which way round depth is, from photographs alone: both ways are tried, and kept is the one that the scenes' own edges bear out.

A photograph has no sign written on it, but what is out of focus behind a subject ends at the subject's outline, and what is out of
focus before it spills over it. A generator told the wrong way round makes photographs as good all the same; what it pays with is
its depth, which no longer follows the picture (docs/method.md, "Learning the sign"). `borne_out` measures that without any truth.
Nothing here prefers one way: the two trainings differ in the prior's sign alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from argan import networks
from argan.config.schema import Training
from argan.errors import UserError
from argan.files import write_json
from argan.guided_filter import guided_filter
from argan.training import loop as training
from argan.training.distributed import Processes
from argan.training.loop import Show, TrainingResult, Watch

SIDES = ("behind", "before")  # where most of what is out of focus lies, seen from the subject
SCENES = 512  # the mean of `borne_out` over them is known to 3 %


RATIO = (
    1.5  # of the better to the other, at least: right answers were 1.6 to 9 times apart from one training to the next
)
SIGMAS = 3.0  # standard errors of the difference, at least: chance among scenes alone passes it one time in 370


class Evidence(NamedTuple):
    """A mean over generated scenes and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Verdict:
    """What the photographs say: `side` of SIDES, and of each way round the mean of `borne_out`, the higher the better, and its
    standard error over scenes, None in verdicts of before they were kept."""

    side: str
    behind: float
    before: float
    seconds: float  # that the training not gone on with took
    behind_se: float | None = None
    before_se: float | None = None

    @property
    def clear(self) -> bool:
        """Whether one way round is borne out by the picture, and the other is worse by more than chance among scenes and among
        trainings: the better is positive, RATIO times the other, and SIGMAS standard errors of the difference above it.

        Without standard errors nothing is clear. It is no proof: with an earlier recipe one clear answer for photographs
        mirrored on purpose was wrong (docs/tried.md).
        """
        if self.behind_se is None or self.before_se is None:
            return False
        worse, better = sorted((self.behind, self.before))
        error = math.hypot(self.behind_se, self.before_se)
        return better > 0 and better > RATIO * worse and better - worse > SIGMAS * error

    def __str__(self) -> str:
        doubt = "" if self.clear else "; the two are too near each other to trust it"
        behind, before = _with_error(self.behind, self.behind_se), _with_error(self.before, self.before_se)
        return (
            f"what is out of focus lies {self.side} the subject: the picture bears depth out by "
            f"{behind} for behind, by {before} for before{doubt}"
        )


def _with_error(mean: float, error: float | None) -> str:
    return f"{mean:.4f}" if error is None else f"{mean:.4f} ± {error:.4f}"


@torch.inference_mode()
def edge_alignment(generator: networks.SceneGenerator, scenes: int = SCENES) -> Evidence:
    """How much of depth the picture explains, less what it does not, over generated scenes, in units of the range squared.

    Of a scene, Var(D) - 2 E (D - q(D, I))^2, q the guided filter (`guided_filter`), the affine function of colour nearest
    to D in every window: variance in line with the picture less variance against it. 0 where scenes are flat, below 0 where depth
    has its edges elsewhere than the picture. The same for D and -D.
    """
    device = next(generator.parameters()).device
    latents = torch.randn(scenes, generator.latent, generator=torch.Generator().manual_seed(0)).to(device)
    parts = []
    for some in latents.split(64):
        image, disparity = generator(some)
        off = (disparity - guided_filter(disparity, image)).square().mean((1, 2, 3))
        parts.append(disparity.var((1, 2, 3), correction=0) - 2 * off)
    found = torch.cat(parts).double() / generator.disparity_max**2
    return Evidence(float(found.mean()), float(found.std()) / math.sqrt(scenes))


def with_sign(config: Training, side: str) -> Training:
    """The same training, told that what is out of focus lies on that side."""
    return config if side == "behind" else config.model_copy(update={"prior_slope": -config.prior_slope})


def train(
    config: Training,
    photos: np.ndarray,
    folder: Path,
    *,
    watch: Watch = lambda images, row: None,
    watch_trial: Callable[[str], Watch] = lambda side: lambda images, row: None,
    remember: training.Remember = lambda history: None,
    show: Show = lambda images, generator: None,
    say: Callable[[str], None] = print,
    processes: Processes | None = None,
    **rest: Any,
) -> tuple[TrainingResult, Verdict | None]:
    """`loop.train`, and with `sign: photographs` without being told the sign: both ways round for `sign_images` each,
    then the better one to the end.

    Each has a folder of its own within `folder`, and the verdict, once there, is kept in `folder`/sign.json: resuming is as there.
    `watch_trial(side)` gets the rows of a trial as they come; those of the one that is kept are then what the rest resumes from,
    and what `remember` gets, which never hears of the other's.
    No trial is given up as hopeless: one of them is told what is wrong, and is meant to lose.
    """
    processes = processes or Processes()
    if config.sign == "prior":
        return training.train(
            config, photos, folder, watch=watch, remember=remember, show=show, say=say, processes=processes, **rest
        ), None
    first, path = processes.rank == 0, folder / "sign.json"
    verdict = processes.broadcast(_read(path) if first else None)
    if verdict is None:
        trials, to_the_end = {}, config.model_copy(update={"stop_when_hopeless": False})
        for side in SIDES:
            if first:
                (folder / side).mkdir(parents=True, exist_ok=True)
                say(f"learning the sign: {config.sign_images} images with what is out of focus {side} the subject")
            trials[side] = training.train(
                with_sign(to_the_end, side), photos, folder / side,
                until=config.sign_images, watch=watch_trial(side), say=say, processes=processes, **rest,
            )  # fmt: skip
        found = {side: edge_alignment(trial.generator) for side, trial in trials.items()}
        side = max(SIDES, key=lambda s: found[s].mean)
        other = next(s for s in SIDES if s != side)
        means = {name: evidence.mean for name, evidence in found.items()}
        errors = {f"{name}_se": evidence.error for name, evidence in found.items()}
        verdict = processes.broadcast(Verdict(side, **means, **errors, seconds=trials[other].seconds))
        if first:
            write_json(path, asdict(verdict))
            say(f"learning the sign: {verdict}")
    trained = training.train(
        with_sign(config, verdict.side), photos, folder / verdict.side,
        watch=watch, remember=remember, show=show, say=say, processes=processes, **rest,
    )  # fmt: skip
    return replace(trained, seconds=trained.seconds + verdict.seconds), verdict


def _read(path: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder to learn the sign again") from error
