"""What can go wrong in training, and how it shows. Numbers that are none stop the step; all else is a warning with a name.

Every threshold is stated with what healthy and failed trainings have. Warnings are a function of the history alone, so a resumed
training warns as an undisturbed one.
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

# ---- Not a number: stop before the step --------------------------------------------------------------------------------


@dataclass
class FiniteCheck:
    """Looks at what a step is made of before the weights are changed, and never lets a bad one through.

    On a CPU it raises at once. On a GPU asking means waiting: there it tells the optimiser, on the device, to leave everything as
    it is, and `check`, called with every row of the history and before every checkpoint, raises.
    """

    deferred: bool
    way_out: str = "lower train.learning_rate or raise train.penalty"
    names: list[tuple[str, ...]] = field(default_factory=list)  # of the tensors of a turn: a penalty's has more
    first: Tensor | None = None  # images, number in `names`, number of the tensor; images -1: all was well so far

    def __call__(self, named: Mapping[str, Tensor], images: int) -> Tensor | None:
        """`named`: losses and gradients of the step that begins at `images`. Returns a 0-d float, 1 where one is not finite, for
        Adam's `found_inf`; None on a CPU. Raises UserError."""
        if (names := tuple(named)) not in self.names:
            self.names.append(names)
        bad = ~torch.stack(torch._foreach_norm([t.detach() for t in named.values()])).isfinite()
        found, which = bad.any(), bad.int().argmax()
        now = torch.stack([torch.where(found, images, -1), torch.full_like(which, self.names.index(names)), which])
        self.first = now if self.first is None else torch.where(self.first[0] >= 0, self.first, now)
        if self.deferred:
            return found.float()
        if found:
            self.check()
        return None

    def check(self) -> None:
        """Raises UserError, naming the first step and tensor that were not finite."""
        if self.first is None:
            return
        images, turn, which = (int(number) for number in self.first)
        if images >= 0:
            raise UserError(
                f"training diverged: {self.names[turn][which]} is not finite in the step at {images} images; it was not "
                f"taken, and what was saved before is good: {self.way_out}"
            )


def gradients(network: nn.Module, name: str) -> dict[str, Tensor]:
    """Those that there are, under the names by which `Alarm` tells of them."""
    return {f"the gradient of {name}.{n}": p.grad for n, p in network.named_parameters() if p.grad is not None}


# ---- Warnings ----------------------------------------------------------------------------------------------------------

WINDOW = 5  # rows a sign must show in, one after the other: a single bad row is noise

EXPLODED = 20.0  # a loss; chance is 0.69 (or 1.39), healthy trainings stay below 3, and 8 was the worst of those that came back
WON = 0.2  # discriminator's loss, of what guessing costs: healthy 0.4 to 0.9; 0.13 where the depth had settled the wrong way round
BLIND = 0.99  # the same: above it the discriminator guesses, and has nothing to teach
COLLAPSED = 0.3  # spread of generated pictures, of the photographs' own: healthy trainings have 0.8 to 1.1
SETTLED = 0.05  # of the training: before that everything is in motion
GIVE_UP = 0.1  # of the training: who has stood wrong for so long does not come back

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
    """The names of what is wrong by the last rows of the history: keys of MEANING. `photo_std`: spread of the photographs, as
    `image_std` is that of the pictures."""
    rows = history[-WINDOW:]
    if len(rows) < WINDOW or rows[0]["images"] < SETTLED * config.images:
        return []
    chance = math.log(2) * (1 if config.recipe == "modern" else 2)
    faded = rows[0]["images"] >= config.prior_fade  # before, depth is the prior's, and should be

    def all_rows(name: str, low: float = -math.inf, high: float = math.inf) -> bool:
        return all(low <= row.get(name, math.nan) <= high for row in rows)  # what is unknown is no sign

    flat = all_rows("disparity_std", high=FLAT)
    signs = {
        "diverged": all_rows("loss_d", low=EXPLODED) or all_rows("loss_g", low=EXPLODED),
        "discriminator_won": all_rows("loss_d", high=WON * chance),
        "discriminator_blind": all_rows("loss_d", BLIND * chance, chance / BLIND),
        "mode_collapse": all_rows("image_std", high=COLLAPSED * photo_std),
        "constant_depth": faded and flat,
        "prior_depth": faded and not flat and all_rows("depth_alike", low=ALIKE),
        "luminance_depth": faded and not flat and all_rows("luminance_correlation", low=COPIED),
    }
    return [name for name, shows in signs.items() if shows]


def stalled(history: Sequence[Row], config: Training, photo_std: float) -> str | None:
    """The name of a warning that has stood for GIVE_UP of the training without a break, if there is one."""
    names = warnings(history, config, photo_std)
    rows = max(WINDOW, math.ceil(GIVE_UP * config.images / config.log_every))
    for end in range(len(history) - 1, max(len(history) - rows, 0), -1):
        standing = warnings(history[:end], config, photo_std) if names else []
        names = [name for name in names if name in standing]
    return names[0] if names and len(history) >= rows else None
