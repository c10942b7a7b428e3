"""How well a predicted disparity tells near from far, against the exact one. docs/method.md, section Evaluation.

Disparity is signed, 0 in the focal plane, larger = nearer, a fraction of image width (`argan.optics`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

# Inverse depth is disparity plus that of a point in the focal plane, 1/z = d + FOCAL: the disparity of infinity is -FOCAL.
# 1/4 is the widest disparity range the generator may be given (`Training.disparity_max`), so that all it can say is in
# front of infinity; FARTHEST keeps the logarithm finite there: nothing counts as farther than five times the focal plane.
FOCAL = 0.25
FARTHEST = 0.05


def depth_scores(prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Scores averaged over photos. prediction, truth (H, W) or (N, H, W); what is not finite in truth is unknown.

    spearman           rank correlation, in [-1, 1]: +1 right, -1 inverted, 0 for a constant prediction, which says nothing
    spearman_aligned   the same whatever its sign: how good the shape is if someone else says which end is near
    side               scale-invariant depth error after the best affine map with slope >= 0; 0 is perfect
    sign_agreement     share of photos whose rank correlation is positive; a constant prediction agrees with none

    Photos whose known truth does not vary have no correlation and are left out. Raises ValueError when none is left, or
    when shapes differ or the prediction is not finite.
    """
    per_photo = depth_scores_per_photo(prediction, truth)
    spearman, side = per_photo["spearman"], per_photo["side"]
    usable = np.isfinite(spearman)
    if not usable.any():
        raise ValueError("no photo has a known disparity that varies: nothing to score against")
    return {
        "spearman": float(spearman[usable].mean()),
        "spearman_aligned": float(np.abs(spearman[usable]).mean()),
        "side": float(side[usable].mean()),
        "sign_agreement": float((spearman[usable] > 0).mean()),
    }


def depth_scores_per_photo(prediction: ArrayLike, truth: ArrayLike) -> dict[str, Array]:
    """{"spearman": (N,), "side": (N,)}; NaN where the photo's known truth does not vary. See `depth_scores`."""
    p, t, known = _checked(prediction, truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        varies = _variance(t, known) > 0
        spearman = np.where(varies, _correlation(_ranks(p, known), _ranks(t, known), known), np.nan)
        side = np.where(varies, _side(p, t, known), np.nan)
    return {"spearman": spearman, "side": side}


def rank_correlation(a: ArrayLike, b: ArrayLike) -> Array:
    """Spearman's rho of each image of a (N, H, W) with that of b (N, H, W), ties sharing their mean rank; 0 if one is flat."""
    a, b, known = _checked(a, b)
    return _correlation(_ranks(a, known), _ranks(b, known), known)


def correlation(a: ArrayLike, b: ArrayLike) -> Array:
    """Pearson's r of each image of a (N, H, W) with that of b (N, H, W); 0 if one is flat."""
    return _correlation(*_checked(a, b))


def _ranks(x: Array, known: NDArray[np.bool_]) -> Array:
    """Ranks along each row, ties averaged. The unknown go to the end, where they change no rank before them."""
    ranks: Array = rankdata(np.where(known, x, np.inf), axis=1)
    return ranks


def _mean(x: Array, known: NDArray[np.bool_]) -> Array:
    """(N, P) -> (N, 1), over the known."""
    mean: Array = np.where(known, x, 0).sum(1, keepdims=True) / known.sum(1, keepdims=True)
    return mean


def _centred(x: Array, known: NDArray[np.bool_]) -> Array:
    """x less its mean over the known; 0 where unknown, and exactly 0 throughout if the known are all equal."""
    flat = np.where(known, x, -np.inf).max(1, keepdims=True) == np.where(known, x, np.inf).min(1, keepdims=True)
    return np.where(known & ~flat, x - _mean(x, known), 0)


def _variance(x: Array, known: NDArray[np.bool_]) -> Array:
    return np.square(_centred(x, known)).sum(1)


def _correlation(a: Array, b: Array, known: NDArray[np.bool_]) -> Array:
    a, b = _centred(a, known), _centred(b, known)
    scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.zeros(len(a)), where=scale > 0)


def _side(p: Array, t: Array, known: NDArray[np.bool_]) -> Array:
    """sqrt(mean e^2 - (mean e)^2), e = log z_prediction - log z_truth (Eigen et al., NIPS 2014), per photo.

    The prediction is first given the truth's scale and offset by least squares in disparity (Ranftl et al., TPAMI 2022):
    blur tells disparity up to the unknown aperture. The slope stays >= 0, so that an inverted prediction scores no better
    than a constant one.
    """
    centred = _centred(p, known)
    variance = np.square(centred).sum(1, keepdims=True)
    slope = np.divide(
        (centred * _centred(t, known)).sum(1, keepdims=True), variance, out=np.zeros_like(variance), where=variance > 0
    )
    fitted = np.maximum(slope, 0) * centred + _mean(t, known)
    error = np.log(_inverse_depth(np.where(known, t, 0))) - np.log(_inverse_depth(fitted))
    return np.sqrt(np.square(_centred(error, known)).sum(1) / known.sum(1))


def _inverse_depth(disparity: Array) -> Array:
    """1/z of a disparity, in units in which the focal plane is at z = 1 / FOCAL."""
    return np.maximum(disparity + FOCAL, FARTHEST)


def _checked(prediction: ArrayLike, truth: ArrayLike) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Both as float64 (N, H*W), and where the truth is known; or ValueError."""
    p, t = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if p.shape != t.shape or p.ndim not in (2, 3) or p.size == 0:
        raise ValueError(f"prediction and truth must both be (H, W) or (N, H, W), got {p.shape} and {t.shape}")
    if not np.isfinite(p).all():
        raise ValueError("the prediction holds values that are not finite")
    photos = len(p) if p.ndim == 3 else 1
    p, t = p.reshape(photos, -1), t.reshape(photos, -1)
    return p, t, np.isfinite(t)
