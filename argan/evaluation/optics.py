"""Whether generated scenes obey the optics of a lens: blur, aperture, focus, parallax. docs/method.md, section Evaluation.

The scene's own renderer is asked, with the disparity that the scene states: whether that disparity is true, nothing here
can tell. Disparity is signed, 0 in the focal plane, larger = nearer, a fraction of image width (`argan.optics.rendering`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from argan import networks
from argan.color import luminance
from argan.evaluation.scenes import QUANTISATION, log_sharpness
from argan.metrics.depth import rank_correlation
from argan.training.health import FLAT

JUDGED = 32  # pixels across, to which photos are averaged first: the 21 views of a wide aperture leave finer ghosts
WINDOW = 5  # of those pixels, over which sharpness is local: 3 see single details, 9 mix a petal with what is behind it
TEXTURED = 16 * QUANTISATION  # energy of details four times as strong as those of rounding: there is something to lose
ENOUGH = 0.1  # of a scene's pixels are textured, else its sharpness is not judged: a tenth of them is then 10 pixels
END = 0.1  # share of the textured pixels that is the near part, and the far part
HIDDEN = 0.5  # pixels of parallax by which what hides another is before it: nearer together they are one surface
STILL = 2 / 255  # RMS difference of views in [-1, 1], one step of 8 bits: below it there is no parallax to speak of

# Bilinear look-ups blur the finest detail even where they lead to the right place: views are compared without it.
BINOMIAL = [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]]
AT_ONCE = 2**14  # pixels of the scenes whose light fields are held at a time: 16 scenes of 32 px, 1 from 128 px on


@dataclass
class OpticsScores:
    """Running scores of generated scenes, at most three numbers a scene."""

    blur_disparity: list[float] = field(default_factory=list)
    blur_aperture: list[bool] = field(default_factory=list)
    refocus: list[bool] = field(default_factory=list)
    led_back: float = 0.0  # sum of squared differences from the central view: of the views led back to it ...
    moved: float = 0.0  # ... and of the views as they are, over the same ...
    pixels: int = 0  # ... so many pixels

    @torch.inference_mode()
    def add(self, scene: networks.SceneGenerator, image: Tensor, disparity: Tensor) -> None:
        """image (N, 3, H, W) in [-1, 1], all in focus; disparity (N, 1, H, W); `scene` photographs both."""
        few = max(1, AT_ONCE // image[0, 0].numel())
        for part in zip(image.split(few), disparity.split(few), strict=True):
            self._parallax(scene, *part)
        judged = (_local(_energy(_reduced(image))) > TEXTURED).float().mean((1, 2, 3)) >= ENOUGH
        if judged.any():
            self._sharpness(scene, image[judged], disparity[judged])

    def _sharpness(self, scene: networks.SceneGenerator, image: Tensor, disparity: Tensor) -> None:
        full, least = torch.ones(len(image), device=image.device), FLAT * scene.disparity_max
        photos = [_reduced(scene.photograph(image, disparity, full * s)) for s in (0.25, 0.5, 1)]
        sharp, depth = _reduced(image), _reduced(disparity)
        detail = _local(_energy(sharp))
        textured = detail > TEXTURED

        lost = ((detail + QUANTISATION) / (_local(_energy(photos[-1])) + QUANTISATION)).log()
        defocus = _local(depth.abs() * _energy(sharp)) / detail.clamp(min=1e-9)  # of the details, wherever they are
        known = _numpy(defocus.masked_fill(~textured, math.nan)[:, 0])
        rho = rank_correlation(_numpy(lost[:, 0]), known)
        self.blur_disparity += rho[np.nanstd(known, (1, 2)) > least].tolist()

        levels = torch.stack([log_sharpness(photo, depth.abs()) for photo in (sharp, *photos)])
        falls = _numpy((levels.diff(dim=0) < 0).all(0))
        self.blur_aperture += falls[_numpy(depth.abs().mean((1, 2, 3))) > least].tolist()

        flat = depth.masked_fill(~textured, math.nan).flatten(1)
        far, near = (torch.nanquantile(flat, q, 1)[:, None, None, None] for q in (END, 1 - END))
        # Refocused disparity reaches twice as far as the renderer's layers. Halved, it is the photo at half the aperture.
        at_far, at_near = (_reduced(scene.photograph(image, (disparity - d) / 2, full)) for d in (far, near))
        ends = (textured & (depth >= near)).float(), (textured & (depth <= far)).float()
        gain = [log_sharpness(at_near, end) - log_sharpness(at_far, end) for end in ends]
        right = _numpy((gain[0] > 0) & (gain[1] < 0))
        self.refocus += right[_numpy((near - far).flatten()) > least].tolist()

    def _parallax(self, scene: networks.SceneGenerator, image: Tensor, disparity: Tensor) -> None:
        moving, full = scene.aperture.moving, torch.ones(len(image), device=image.device)
        views = luminance(scene.views(image, disparity, full)[:, moving])
        centre = luminance(image)[:, None]
        back, seen = _lead_back(views, disparity, scene.aperture.offsets[moving].to(disparity))
        share = seen / _filter(seen, BINOMIAL).clamp(min=1e-9)  # smoothing is to take nothing from what is not seen
        led_back, moved = (_filter((x - centre) * seen, BINOMIAL) * share for x in (back, views))
        self.led_back += float(led_back.double().square().sum())
        self.moved += float(moved.double().square().sum())
        self.pixels += int(seen.sum())

    def metrics(self) -> dict[str, float | None]:
        """None where no scene lets it be judged: none has detail to lose, or defocus, or a near and a far part."""
        still = self.moved <= STILL**2 * self.pixels
        return {
            "optics_blur_disparity": _mean(self.blur_disparity),
            "optics_blur_aperture": _mean(self.blur_aperture),
            "optics_refocus": _mean(self.refocus),
            "optics_epipolar": None if still else math.sqrt(self.led_back / self.moved),
        }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _numpy(maps: Tensor) -> NDArray[Any]:
    return maps.cpu().numpy()


def _reduced(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, max(1, maps.shape[3] // JUDGED))


def _filter(maps: Tensor, kernel: list[list[float]]) -> Tensor:
    """A 3 x 3 kernel over each of (N, V, H, W), the border replicated."""
    flat = F.pad(maps.flatten(0, 1)[:, None], [1] * 4, mode="replicate")
    return F.conv2d(flat, torch.tensor(kernel).to(maps)[None, None]).view_as(maps)


def _energy(images: Tensor) -> Tensor:
    """Squared Laplacian of luminance, (N, 3, H, W) -> (N, 1, H, W)."""
    return _filter(luminance(images)[:, None], [[0, 1, 0], [1, -4, 1], [0, 1, 0]]).square()


def _local(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def _lead_back(views: Tensor, disparity: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Every view (N, V, H, W) looked up where the centre's pixels went, p - u D(p), and whether they are seen there: 1 or 0.

    Not seen: what left the frame, and what the disparity says is hidden, something nearer having come to the same place.
    """
    h, w = views.shape[2:]
    x, y = (torch.arange(k, device=views.device, dtype=views.dtype) for k in (w, h))
    shift = disparity * w
    xs, ys = x - offsets[:, :1, None] * shift, y[:, None] - offsets[:, 1:, None] * shift  # N V H W
    place = (ys.round().clamp(0, h - 1) * w + xs.round().clamp(0, w - 1)).long().flatten(2)
    front = torch.full_like(views, -math.inf).flatten(2)
    front.scatter_reduce_(2, place, shift.expand_as(views).flatten(2), "amax")
    front = front.gather(2, place).view_as(views)
    inside = (xs >= 0) & (xs <= w - 1) & (ys >= 0) & (ys <= h - 1)
    grid = torch.stack([(xs * 2 + 1) / w - 1, (ys * 2 + 1) / h - 1], -1).flatten(0, 1)
    back = F.grid_sample(views.flatten(0, 1)[:, None], grid, padding_mode="border", align_corners=False)
    return back.view_as(views), (inside & (front - shift <= HIDDEN)).to(views)
