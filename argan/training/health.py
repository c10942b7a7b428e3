"""Failures of training and how they are detected. A number that is not finite stops the step; all else is a named warning.

Every threshold is given with the values of healthy and failed trainings. Warnings are a function of the history alone, so a
resumed training warns as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from argan.color import luminance
from argan.config.schema import Training
from argan.errors import UserError

Row = Mapping[str, float]

# ---- Not finite: stop before the step ----------------------------------------------------------------------------------


@dataclass
class FiniteCheck:
    """Checks losses and gradients before the weights are changed, so that no step with a NaN or infinity is ever taken.

    On a CPU it raises at once. On a GPU asking means waiting: there it tells the optimiser, on the device, to skip the step, and
    `raise_if_bad`, called with every row of the history and before every checkpoint, raises.
    """

    deferred: bool
    advice: str = "lower train.learning_rate or raise train.penalty"
    names: list[tuple[str, ...]] = field(default_factory=list)  # of the tensors of a turn: one with a penalty has more
    # The first failure: images, index in `names`, index of the tensor; images -1 where all were finite so far
    first: Tensor | None = None

    def __call__(self, tensors: Mapping[str, Tensor], images: int) -> Tensor | None:
        """`tensors`: losses and gradients of the step that begins at `images`. Returns a 0-d float, 1 where one is not finite, for
        Adam's `found_inf`; None on a CPU. Raises UserError."""
        if (names := tuple(tensors)) not in self.names:
            self.names.append(names)
        bad = ~torch.stack(torch._foreach_norm([t.detach() for t in tensors.values()])).isfinite()
        any_bad, which = bad.any(), bad.int().argmax()
        now = torch.stack([torch.where(any_bad, images, -1), torch.full_like(which, self.names.index(names)), which])
        self.first = now if self.first is None else torch.where(self.first[0] >= 0, self.first, now)
        if self.deferred:
            return any_bad.float()
        if any_bad:
            self.raise_if_bad()
        return None

    def raise_if_bad(self) -> None:
        """Raises UserError, naming the first step and tensor that were not finite."""
        if self.first is None:
            return
        images, turn, which = (int(number) for number in self.first)
        if images >= 0:
            raise UserError(
                f"training diverged: {self.names[turn][which]} is not finite in the step at {images} images; it was not "
                f"taken, and what was saved before is good: {self.advice}"
            )


def gradients(network: nn.Module, name: str) -> dict[str, Tensor]:
    """The gradients of a network, under the names that `FiniteCheck` reports."""
    return {f"the gradient of {name}.{n}": p.grad for n, p in network.named_parameters() if p.grad is not None}


# ---- Warnings ----------------------------------------------------------------------------------------------------------

WINDOW = 5  # consecutive rows a symptom must show in: a single bad row is noise

EXPLODED = 20.0  # a loss; chance is 0.69 (or 1.39), healthy trainings stay below 3, and 8 was the worst of those that came back
WON = 0.2  # discriminator's loss, of what guessing costs: healthy 0.4 to 0.9; 0.13 where the sign of depth was wrong
BLIND = 0.99  # the same: above it the discriminator guesses, and has nothing to teach
COLLAPSED = 0.3  # spread of generated pictures, of the photographs' own: healthy trainings have 0.8 to 1.1
SETTLED = 0.05  # of the training: before that everything is in motion
STALLED_AFTER = 0.1  # of the training: a warning that has stood for so long does not go away

# Degenerate depth, here and in evaluation (argan/evaluation/scenes.py); docs/method.md says what exact scenes have
FLAT = 0.05  # mean spread of disparity in a scene, of its range: a quarter of a pixel of blur at 32 px: invisible
ALIKE = 0.9  # mean correlation of two scenes' disparity: 1 is one map for all, as the prior alone would give
COPIED = 0.9  # mean |correlation| of disparity and brightness: 1 is a copy; light tells of depth, but not so much

MEANING = {
    "diverged": "the losses grow without bound; lower train.learning_rate or raise train.penalty",
    "discriminator_won": "it tells photographs from renderings with ease and no longer teaches; raise train.penalty",
    "discriminator_blind": "it cannot tell photographs from renderings and teaches nothing; lower train.penalty",
    "mode_collapse": "generated pictures are all alike; raise train.penalty, or train.batch",
    "constant_depth": "scenes are flat; lower train.smoothness",
    "prior_depth": "every scene has the same depth; lower train.prior or train.prior_fade",
    "luminance_depth": "depth is copied from brightness; another train.seed, or raise train.prior",
}


def depth_statistics(image: Tensor, disparity: Tensor) -> dict[str, Tensor]:
    """What `alike` needs, and the mean correlation of disparity and brightness, in size. Means over images, so that those of
    equal parts of a batch may be averaged.

    image (n, 3, R, R), disparity (n, 1, R, R).
    """
    image, disparity = image.detach(), disparity.detach()
    depth = _standard(disparity[:, 0])
    light = _standard(luminance(image))
    return {"depth_map": depth.mean(0), "luminance_correlation": (depth * light).mean((1, 2)).abs()}


def depth_similarity(depth_map: Tensor, batch: int) -> Tensor:
    """The mean correlation of two scenes' disparity, from the mean over the batch of standardised maps, `depth_map`."""
    return (batch * depth_map.square().mean() - 1) / (batch - 1)


def _standard(maps: Tensor) -> Tensor:
    centred = maps - maps.mean((1, 2), keepdim=True)
    return centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-8)


def warnings(history: Sequence[Row], config: Training, photo_std: float) -> list[str]:
    """The failures, keys of MEANING, that the last rows of the history show. `photo_std`: spread of the photographs, as `image_std`
    is that of the generated ones."""
    rows = history[-WINDOW:]
    if len(rows) < WINDOW or rows[0]["images"] < SETTLED * config.images:
        return []
    chance = math.log(2) * (1 if config.recipe == "modern" else 2)
    faded = rows[0]["images"] >= config.prior_fade  # before, depth is the prior's, and should be

    def all_rows(name: str, low: float = -math.inf, high: float = math.inf) -> bool:
        return all(low <= row.get(name, math.nan) <= high for row in rows)  # a missing value is no symptom

    flat = all_rows("disparity_std", high=FLAT)
    symptoms = {
        "diverged": all_rows("loss_d", low=EXPLODED) or all_rows("loss_g", low=EXPLODED),
        "discriminator_won": all_rows("loss_d", high=WON * chance),
        "discriminator_blind": all_rows("loss_d", BLIND * chance, chance / BLIND),
        "mode_collapse": all_rows("image_std", high=COLLAPSED * photo_std),
        "constant_depth": faded and flat,
        "prior_depth": faded and not flat and all_rows("depth_alike", low=ALIKE),
        "luminance_depth": faded and not flat and all_rows("luminance_correlation", low=COPIED),
    }
    return [name for name, shows in symptoms.items() if shows]


def stalled(history: Sequence[Row], config: Training, photo_std: float) -> str | None:
    """The name of a warning that has stood for STALLED_AFTER of the training without interruption, if there is one."""
    names = warnings(history, config, photo_std)
    rows = max(WINDOW, math.ceil(STALLED_AFTER * config.images / config.log_every))
    for end in range(len(history) - 1, max(len(history) - rows, 0), -1):
        standing = warnings(history[:end], config, photo_std) if names else []
        names = [name for name in names if name in standing]
    return names[0] if names and len(history) >= rows else None
