"""The iris of a collection's lens, from the out-of-focus highlights of its photographs.

A small bright source out of focus is a picture of the aperture. Each highlight of a photo becomes an outline around its centroid;
the outlines of many photos, brought to one orientation, give the iris, or the reason why none can be told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from argan.color import srgb_to_linear
from argan.errors import UserError
from argan.files import write_json

Pixels = NDArray[np.uint8]
Float = NDArray[Any]
Complex = NDArray[np.complex128]

NAME = "iris.json"
LONGEST = 1600  # pixels of the longest side at most: highlights of interest are then SMALLEST..LARGEST wide, noise averaged out
RAYS = 64  # directions of an outline; the rim of the smallest highlight is about as many pixels long
SMALLEST = 16.0  # pixels across: in a smaller one the corners of blades are less than a pixel
LARGEST = 160.0  # a tenth of the frame: what is larger is a thing
CENTRAL = 0.6  # of the way to the corner: farther out the barrel cuts the disc to a cat's eye
LIT = 0.5  # linear light: where a component is cut out; half of white
BRIGHT = 0.7  # linear light of its plateau at least: 218 of 255
DARK = 0.35  # of the plateau, what is around at most: half of it must lie between the two with room
FLAT = 0.15  # of the plateau, its 10th to 90th percentile at most: things are shaded, clipped light is not
ROUND = 0.85  # shorter axis over the longer one at least
CONVEX = 0.97  # area over that of the convex hull at least; an iris of blades is convex
ROUGH = 0.02  # of the radius, what is left of an outline above the harmonics of BLADES
CORNERED = 0.015  # amplitude of the harmonics of a figure of three or four corners above which it is a thing: no iris has so few
MOST = 6  # highlights of a photo that count, the largest: a string of lights must not outvote the others
HIGHLIGHTS, PHOTOS = 12, 6  # at least, so that each half of the photos has a mean to compare
AGREE = 0.8  # correlation of the two halves' ripple; chance, over four turns, reaches 0.41 in one of 100
ALIKE = 0.7  # correlation with the mean, of four highlights of five: of one lens 0.8 to 1.0, of two 0.6 at most (composed photos)
RIPPLE = 0.006  # of the radius (rms): below, an iris is round; nine straight blades make 0.018, six 0.043
BLADES = range(3, 13)  # harmonics in which blades are told from each other
ALIGNED = np.arange(BLADES.start, 2 * BLADES.stop)  # and their overtones, in which outlines are aligned
ANGLES = 2 * np.pi * np.arange(RAYS) / RAYS


@dataclass(frozen=True)
class Iris:
    """What the photographs say of the lens.

    outline: (RAYS,) radii in the directions ANGLES, from +x towards +y (down), as behind the focal plane, of the unit disc's
    area; None where it is not known, and `reason` says why. highlights, photos: how many it was measured from; looked: photos
    looked at. blades: how many corners, None for a round one. agreement: correlation of the two halves' deviation from a disc.
    """

    outline: tuple[float, ...] | None
    highlights: int
    photos: int
    looked: int
    blades: int | None = None
    agreement: float | None = None
    reason: str = ""
    mark: str = ""  # of the photographs looked at

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.outline is None:
            return f"Aperture not known: {self.reason}."
        kind = f"{self.blades} blades" if self.blades else "round"
        return f"Aperture ({kind}) measured from {self.highlights} highlights in {self.photos} photos."

    def save(self, folder: Path) -> None:
        write_json(folder / NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Iris | None:
        """None where the folder has none. Raises UserError where it is damaged."""
        path = folder / NAME
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if (outline := told.pop("outline")) is not None:
                outline = tuple(float(radius) for radius in outline)
                if len(outline) != RAYS or not all(0 < radius < 4 for radius in outline):
                    raise ValueError(f"outline must be {RAYS} radii above 0")
            return cls(outline, **told)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged ({' '.join(str(error).split())}); delete it, or fetch the model again"
            ) from error


# ---- One photograph --------------------------------------------------------------------------------------------------

_LIGHT = srgb_to_linear(np.arange(256) / 255).astype(np.float32)  # of each value


def find_highlights(photo: Pixels) -> Float:
    """Outlines of a photo's out-of-focus highlights, at most MOST, the largest: photo uint8 (H, W, 3) -> (n, RAYS) float64.

    Upright, sRGB. Radii around the centroid, of the unit disc's area.
    """
    ratio = LONGEST / max(photo.shape[:2])
    if ratio < 1:
        photo = cv2.resize(photo, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    height, width = photo.shape[:2]
    if min(height, width) < 4 * SMALLEST:  # what is a quarter of the frame is no light
        return np.empty((0, RAYS))
    light = _LIGHT[photo.max(2)]  # the brightest colour: lights are coloured
    _, _, boxes, centres = cv2.connectedComponentsWithStats((light > LIT).astype(np.uint8), connectivity=4)
    found = []
    for (left, top, w, h, area), (x, y) in zip(boxes[1:].tolist(), centres[1:].tolist(), strict=True):
        across = 2 * math.sqrt(area / math.pi)
        off = math.hypot(x - width / 2, y - height / 2) / (math.hypot(width, height) / 2)
        if not (SMALLEST <= across <= LARGEST and min(w, h) > 0.75 * max(w, h) and off <= CENTRAL):
            continue
        if area < 0.6 * w * h or left < 1 or top < 1 or left + w >= width or top + h >= height:
            continue
        outline = _outline(light, x, y, across / 2)
        if outline is not None:
            found.append((across, outline))
    found.sort(key=lambda one: -one[0])
    return np.array([outline for _, outline in found[:MOST]]).reshape(-1, RAYS)


def _outline(light: Float, x: float, y: float, radius: float) -> Float | None:
    """Where light falls to half between a bright plateau and the dark around it, or None for what is no highlight."""
    radii: Float = np.full(RAYS, radius)
    for _ in range(2):  # the second time around the outline's own centroid
        steps = np.arange(0, 1.7 * radius, 0.25)
        rays = [np.outer(turn(ANGLES), steps) + at for turn, at in ((np.cos, x), (np.sin, y))]
        ways = [way.astype(np.float32) for way in rays]
        profile = cv2.remap(light, ways[0], ways[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = profile[:, steps < 0.7 * radius]
        low, plateau, high = np.percentile(inside, (10, 50, 90))
        around = np.median(profile[:, steps > 1.35 * radius], 1)
        if plateau < BRIGHT or high - low > FLAT * plateau or np.percentile(around, 95) > DARK * plateau:
            return None
        around = np.minimum(around, DARK * plateau)  # a neighbour on a few rays does not move the rim
        share = (profile - around[:, None]) / (plateau - around[:, None])  # 1 inside, 0 outside
        last = np.argmax(share < 0.5, 1)
        if (steps[last] < 0.5 * radius).any() or (steps[last] > 1.45 * radius).any():
            return None
        row = np.arange(RAYS)
        before, after = share[row, last - 1], share[row, last]
        radii = steps[last] - 0.25 * (0.5 - after) / (before - after)
        steep = (np.argmax(share < 0.2, 1) - np.argmax(share < 0.8, 1)) * 0.25
        if np.median(steep) > 1 + 0.12 * radius:  # a glow, or a thing that is out of focus itself
            return None
        points = np.stack([radii * np.cos(ANGLES), radii * np.sin(ANGLES)], 1).astype(np.float32)
        moments = cv2.moments(points)
        if moments["m00"] <= 0:
            return None
        x, y = x + moments["m10"] / moments["m00"], y + moments["m01"] / moments["m00"]
        radius = math.sqrt(moments["m00"] / math.pi)
    spread = np.linalg.eigvalsh([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
    if spread[0] < ROUND**2 * spread[1] or moments["m00"] < CONVEX * cv2.contourArea(cv2.convexHull(points)):
        return None
    outline = _to_unit_area(radii)
    waves = np.abs(np.fft.rfft(outline)) / RAYS
    rough = math.sqrt(2 * float((waves[2 * BLADES.stop :] ** 2).sum()))
    return None if rough > ROUGH or 2 * waves[3:5].max() > CORNERED else outline


def _to_unit_area(outline: Float) -> Float:
    """Of the unit disc's area: that of the triangles between the rays."""
    area = 0.5 * math.sin(2 * math.pi / RAYS) * float((outline * np.roll(outline, 1)).sum())
    return np.asarray(outline * math.sqrt(math.pi / area))


# ---- Many photographs ------------------------------------------------------------------------------------------------


def measure_iris(photos: Sequence[Float], mark: str = "") -> Iris:
    """The iris of the lens that took `photos`, what `find_highlights` returned in each; with a reason where there is none."""
    having = [found for found in photos if len(found)]
    outlines = np.concatenate(having) if having else np.empty((0, RAYS))
    count, of, looked = len(outlines), len(having), len(photos)

    def unknown(reason: str, agreement: float | None = None) -> Iris:
        return Iris(None, count, of, looked, None, agreement, reason, mark)

    if count < HIGHLIGHTS or of < PHOTOS:
        found = (
            f"{count} out-of-focus highlights in {of} of {looked} photos"
            if count
            else f"no out-of-focus highlights in {looked} photos"
        )
        return unknown(f"{found}, where at least {HIGHLIGHTS} in {PHOTOS} are needed")
    half = np.concatenate([np.full(len(found), i % 2) for i, found in enumerate(having)])
    halves = [_robust_mean(outlines[half == side]) for side in (0, 1)]
    ripples = [_harmonics(one) for one in halves]
    strength = [math.sqrt(2 * float((np.abs(one) ** 2).sum())) for one in ripples]  # rms, of the radius
    mean_outline = _robust_mean(outlines)
    if max(strength) < RIPPLE:
        return Iris(_rounded(np.ones(RAYS)), count, of, looked, None, None, "", mark)
    agreement = round(float(_correlation(ripples[0], ripples[1])), 3)
    if agreement < AGREE:
        return unknown(
            f"the highlights of two halves of the photos have different shapes (correlation {agreement:.2f} of at least {AGREE})",
            agreement,
        )
    alike = float(np.percentile(_correlation(_harmonics(outlines), _harmonics(mean_outline)), 20))
    if alike < ALIKE:
        return unknown(
            f"the highlights are of several shapes (a fifth correlate with the mean by {alike:.2f} or less, not {ALIKE})",
            agreement,
        )
    waves = np.abs(np.fft.rfft(mean_outline))[BLADES.start : BLADES.stop]
    return Iris(
        _rounded(_convex_hull(mean_outline)), count, of, looked, BLADES.start + int(waves.argmax()), agreement, "", mark
    )


def _rounded(outline: Float) -> tuple[float, ...]:
    return tuple(round(float(radius), 4) for radius in outline)


def _harmonics(outline: Float) -> Complex:
    """Its deviation from a disc, as far as it tells of blades: the Fourier series over ALIGNED, of the radius."""
    return np.asarray(np.fft.rfft(outline)[..., ALIGNED] / RAYS)


def _quarter_turns(ripple: Complex) -> Complex:
    """By 0, 1, 2, 3 quarters: (..., 4, harmonics)."""
    return np.asarray(ripple[..., None, :] * np.exp(-0.5j * np.pi * np.arange(4)[:, None] * ALIGNED))


def _correlation(ripples: Complex, other: Complex) -> Float:
    """Of ripples (..., harmonics) with another, each at its best quarter."""
    lengths = np.linalg.norm(ripples, axis=-1) * np.linalg.norm(other)
    return np.asarray((_quarter_turns(ripples) @ other.conj()).real.max(-1) / np.maximum(lengths, 1e-12))


def _robust_mean(outlines: Float) -> Float:
    """The robust mean (RAYS,) of outlines (n, RAYS), each turned by the quarters at which it agrees with the others.

    A near blur is upside down against a far one, and a camera held upright turns its iris by a quarter. Of several outlines to
    begin with, the one that brings most agreement is taken; what most highlights have is left as it is.
    """
    turned = _quarter_turns(_harmonics(outlines))  # (n, 4, harmonics)
    best, turns = -math.inf, np.zeros(len(outlines), int)
    for first in np.unique(np.linspace(0, len(outlines) - 1, 16).astype(int)):  # one of them will be a good one
        centre = turned[first, 0]
        for _ in range(8):  # settles after two or three
            fit = (turned @ centre.conj()).real
            chosen = fit.argmax(1)
            centre = np.take_along_axis(turned, chosen[:, None, None], 1)[:, 0].mean(0)
        score = float(np.linalg.norm(centre))
        if score > best:
            best, turns = score, chosen
    turns = (turns - np.bincount(turns, minlength=4).argmax()) % 4
    quarter = RAYS // 4
    aligned = np.stack([np.roll(one, quarter * turn) for one, turn in zip(outlines, turns, strict=True)])
    cut = len(aligned) // 5  # a fifth at either end is left out: things that passed for highlights
    return _to_unit_area(np.sort(aligned, 0)[cut : len(aligned) - cut].mean(0))


def _convex_hull(outline: Float) -> Float:
    """The convex hull of an outline, as one, around its own centroid."""
    points = np.stack([outline * np.cos(ANGLES), outline * np.sin(ANGLES)], 1).astype(np.float32)
    hull = cv2.convexHull(points)[:, 0].astype(np.float64)
    moments = cv2.moments(hull.astype(np.float32))
    hull -= np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    start, along = hull, np.roll(hull, -1, 0) - hull
    rays = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)

    def cross(a: Float, b: Float) -> Float:
        return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])

    # A convex outline is the least of its sides' distances along each ray
    outwards = cross(rays[:, None], along[None])
    distance = cross(start, along)[None] / np.where(outwards == 0, 1e-12, outwards)
    return _to_unit_area(np.where(distance > 0, distance, np.inf).min(1))
