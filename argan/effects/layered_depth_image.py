"""A photograph and its disparity as two layers: what the camera saw, and what its nearer objects hide.

Seen from anywhere but where it was taken, a photograph has holes: what was behind an edge comes into view. Here the disparity
gets the edges of objects as steps instead of ramps (between the two sides of an edge there is no surface), and behind every step
the background is continued, disparity and colour, as far as a camera inside the aperture can look. `lightfield` and `mesh`
show these two layers. After the layered depth images of Shade et al. (1998) and Shih et al. (2020), with a plain
continuation of the background in place of their networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.effects.background import extend
from argan.errors import UserError

Pixels = NDArray[np.uint8]
Float = NDArray[Any]  # float32 throughout

STEEP = 0.3  # pixels of disparity a pixel: a surface stretched by a third is an edge that was blurred
CUT = 0.75  # pixels of disparity between neighbours that no surface connects
FRINGE = 2  # pixels at an object's edge whose colour is part background: they go with the object
COARSE = 256  # longest side, in pixels, at which edges are looked for: what is finer is the photo's texture
EDGE = 0.3  # of the range of disparity: what differs by less is one surface, bent
SOFT = 96  # the longest side over this is how far, in pixels, colours mix in what is hidden
RAMP = 4  # half of how wide an edge's ramp may be, in those pixels


@dataclass(frozen=True)
class LayeredDepthImage:
    """What the camera saw and what lies behind it. Disparity is in pixels of this picture.

    Where nothing is hidden, `background` is the photo and `background_disparity` the disparity.
    """

    photo: Pixels  # (H, W, 3)
    disparity: Float  # (H, W), edges as steps
    background: Pixels  # (H, W, 3), the background, continued behind what hides it
    background_disparity: Float  # (H, W), its disparity
    hidden: NDArray[np.bool_]  # (H, W), where there is something behind


def layered_depth_image(
    photo: Pixels, disparity: Float, strength: float = 1.0, cut: float = CUT, reach: float = 1.5
) -> LayeredDepthImage:
    """photo uint8 (H, W, 3) and its disparity (H, W), fraction of width, larger = nearer; `strength` multiplies it.

    Neighbours more than `cut` pixels apart are not connected; the background is continued as far behind an edge as `reach`
    times the step (from a corner of the aperture, 1.42 can be seen). Raises UserError for shapes that do not go together and
    disparity that is not finite.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise UserError(f"a photo must be uint8 (H, W, 3), got {photo.dtype} {photo.shape}")
    if disparity.shape != photo.shape[:2]:
        raise UserError(f"the disparity is {disparity.shape}, the photo {photo.shape[:2]}: they must be of one size")
    if not (np.isfinite(disparity).all() and np.isfinite(strength)):
        raise UserError("the disparity has values that are no numbers; fill them first")
    photo = np.ascontiguousarray(photo)
    steps = sharpen_edges(np.asarray(disparity, np.float32) * np.float32(photo.shape[1] * strength))
    return LayeredDepthImage(photo, steps, *_extend_background(photo, steps, cut, reach))


def limit_size(photo: Pixels, disparity: Float, longest: int) -> tuple[Pixels, Float]:
    """Both with the longest side no longer than this. Disparity is a fraction of width and keeps its values."""
    h, w = photo.shape[:2]
    ratio = longest / max(h, w)
    if ratio >= 1:
        return photo, disparity
    size = (max(1, round(w * ratio)), max(1, round(h * ratio)))
    return tuple(cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (photo, disparity))  # type: ignore[return-value]


def sharpen_edges(disparity: Float) -> Float:
    """Disparity (H, W) in pixels, smooth on surfaces, with the ramps across objects' edges made steps in their middle.

    An estimate copies some of the photo's texture, and torn surfaces look far worse than surfaces a little bent: so, at a longest
    side of COARSE, specks go (a median) and all smaller than an edge is smoothed (a bilateral filter: Tomasi and Manduchi, 1998).
    Then every pixel on a ramp goes to the nearer of its two ends, a few pixels at a time (a shock filter: Osher and Rudin, 1990),
    there and at full size; and near objects grow by FRINGE pixels.
    """
    small, large = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (n, n)) for n in (3, 5))
    h, w = disparity.shape
    ratio = max(1.0, max(h, w) / COARSE)
    d: Any = cv2.resize(disparity, (max(1, round(w / ratio)), max(1, round(h / ratio))), interpolation=cv2.INTER_AREA)
    edge = max(EDGE * float(np.ptp(d)), 4 * STEEP * ratio)
    d = cv2.medianBlur(d, 5)
    for _ in range(2):
        d = cv2.bilateralFilter(d, -1, edge / 2, 5)
    spread: Any = cv2.dilate(d, large, iterations=2) - cv2.erode(d, large, iterations=2)
    d = cv2.medianBlur(_shock_filter(d, spread > edge, 4 * STEEP * ratio, RAMP), 3)
    if ratio > 1:
        d, spread = (cv2.resize(x, (w, h), interpolation=cv2.INTER_LINEAR) for x in (d, spread))
        d = cv2.medianBlur(_shock_filter(d, spread > edge, 4 * STEEP, math.ceil(ratio) + 1), 5)
    for _ in range(FRINGE):
        low, high = cv2.erode(d, small), cv2.dilate(d, small)
        d = np.where(high - low > 2 * CUT, high, d)
    return d.astype(np.float32)  # type: ignore[no-any-return]


def _shock_filter(disparity: Any, edges: NDArray[np.bool_], steep: float, times: int) -> Float:
    """Where `edges`, what differs by more than `steep` within two pixels goes to the nearer of the two ends."""
    large = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    for _ in range(times):
        low, high = cv2.erode(disparity, large), cv2.dilate(disparity, large)
        end = np.where(high - disparity <= disparity - low, high, low)
        disparity = np.where(edges & (high - low > steep), end, disparity).astype(np.float32)
    return disparity


def _extend_background(
    photo: Pixels, disparity: Float, cut: float, reach: float
) -> tuple[Pixels, Float, NDArray[np.bool_]]:
    """The background, its disparity, and where it is hidden, continued behind what hides it.

    Colour is the mean around at the edge, which keeps continuity, and further in mostly the background mirrored at the edge,
    which keeps its texture; the mean alone where the mirror would show another surface.
    """
    background, behind = photo.astype(np.float32), disparity.copy()
    hidden = np.zeros(disparity.shape, np.bool_)
    extend(background, disparity, behind, hidden, np.float32(cut), np.float32(reach))
    if hidden.any():  # rays from different places on the edge brought different colours: their seams are softened
        sigma = max(photo.shape) / SOFT
        share = cv2.GaussianBlur(hidden.astype(np.float32), (0, 0), sigma)[..., None]
        mean = cv2.GaussianBlur(background * hidden[..., None], (0, 0), sigma) / np.maximum(share, 1e-6)
        background[hidden] += 0.75 * (mean - background)[hidden]
    return background.clip(0, 255).round().astype(np.uint8), behind, hidden
