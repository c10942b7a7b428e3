"""The sign of depth, learned from photographs alone: of both signs, that one is kept whose depth follows the scenes' edges.

No photograph states its sign, but the blur of a background ends at the subject's outline, and the blur of a foreground spills over
it. A generator trained with the wrong sign makes photographs as good all the same; it pays with its depth, which no longer follows
the picture (docs/method.md, "Learning the sign"). `edge_alignment` measures that without any true depth. Nothing here prefers a
sign: the two trainings differ in the prior's sign alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from argan import networks
from argan.config.schema import Training
from argan.errors import UserError
from argan.files import write_json
from argan.guided_filter import guided_filter
from argan.training import loop
from argan.training.job import Observer, TrainingJob, TrainingResult

SIDES = ("behind", "before")  # where most of what is out of focus lies, seen from the subject
SCENES = 512  # the mean of `edge_alignment` over them is known to 3 %
# Of the better to the other, at least: right answers were 1.6 to 9 times apart from one training to the next
RATIO = 1.5
# Standard errors of the difference, at least: chance among scenes alone passes it one time in 370
SIGMAS = 3.0


class Evidence(NamedTuple):
    """A mean over generated scenes and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Verdict:
    """The result of both trials: the better `side` of SIDES, and for each side the mean of `edge_alignment`, the higher the better,
    with its standard error over scenes; None in verdicts from before standard errors were stored."""

    side: str
    behind: float
    before: float
    seconds: float  # of the trial that is not continued
    behind_se: float | None = None
    before_se: float | None = None

    @property
    def clear(self) -> bool:
        """Whether one side is better by more than chance among scenes and among trainings: it is positive, RATIO times the other,
        and SIGMAS standard errors of the difference above it.

        Without standard errors nothing is clear. It is no proof: with an earlier recipe one clear answer for photographs
        mirrored on purpose was wrong (docs/tried.md).
        """
        if self.behind_se is None or self.before_se is None:
            return False
        worse, better = sorted((self.behind, self.before))
        error = math.hypot(self.behind_se, self.before_se)
        return better > 0 and better > RATIO * worse and better - worse > SIGMAS * error

    def __str__(self) -> str:
        caveat = "" if self.clear else "; the two are too near each other to trust it"
        behind, before = _with_error(self.behind, self.behind_se), _with_error(self.before, self.before_se)
        return (
            f"what is out of focus lies {self.side} the subject: the picture bears depth out by "
            f"{behind} for behind, by {before} for before{caveat}"
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
    batches = []
    for batch in latents.split(64):
        image, disparity = generator(batch)
        unexplained = (disparity - guided_filter(disparity, image)).square().mean((1, 2, 3))
        batches.append(disparity.var((1, 2, 3), correction=0) - 2 * unexplained)
    scores = torch.cat(batches).double() / generator.disparity_max**2
    return Evidence(float(scores.mean()), float(scores.std()) / math.sqrt(scenes))


def with_sign(config: Training, side: str) -> Training:
    """The same training with a prior that puts what is out of focus on that side of the subject."""
    return config if side == "behind" else config.model_copy(update={"prior_slope": -config.prior_slope})


def train(job: TrainingJob, folder: Path) -> tuple[TrainingResult, Verdict | None]:
    """`loop.train`; with `sign: photographs` both signs for `sign_images` each, then the better one to the end.

    Each has a folder of its own within `folder`, and the verdict, once known, is kept in `folder`/sign.json: training resumes
    anywhere. The better trial is the first part of the training: its rows go to `on_trial` as they come, and then to `on_resume`;
    those of the other to `on_trial` alone.
    """
    if job.config.sign == "prior":
        return loop.train(job, folder), None
    is_first, path = job.processes.rank == 0, folder / "sign.json"
    verdict = job.processes.broadcast(_read_verdict(path) if is_first else None)
    if verdict is None:
        verdict = job.processes.broadcast(_try_both(job, folder))
        if is_first:
            write_json(path, asdict(verdict))
            job.observer.say(f"learning the sign: {verdict}")
    result = loop.train(replace(job, config=with_sign(job.config, verdict.side)), folder / verdict.side)
    return replace(result, seconds=result.seconds + verdict.seconds), verdict


def _try_both(job: TrainingJob, folder: Path) -> Verdict:
    """Train with both signs for `sign_images`. No trial is stopped as stalled: one of them has the wrong prior, and should lose."""
    config, observer = job.config.model_copy(update={"stop_when_hopeless": False}), job.observer
    trials = {}
    for side in SIDES:
        if job.processes.rank == 0:
            (folder / side).mkdir(parents=True, exist_ok=True)
            observer.say(f"learning the sign: {config.sign_images} images with what is out of focus {side} the subject")
        quiet = Observer(on_row=observer.on_trial(side), say=observer.say)
        trial = replace(job, config=with_sign(config, side), observer=quiet)
        trials[side] = loop.train(trial, folder / side, stop_at=config.sign_images)
    evidence = {side: edge_alignment(trial.generator) for side, trial in trials.items()}
    side = max(SIDES, key=lambda s: evidence[s].mean)
    other = next(s for s in SIDES if s != side)
    behind, before = (evidence[s] for s in SIDES)
    return Verdict(side, behind.mean, before.mean, trials[other].seconds, behind.error, before.error)


def _read_verdict(path: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder to learn the sign again") from error
