"""How well a predicted disparity tells near from far, against the exact one. docs/method.md, section Evaluation.

Disparity is signed, 0 in the focal plane, larger = nearer, a fraction of image width (`argan.optics.rendering`).
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
    delta1 .. delta3   share of pixels whose depth, so mapped, is within a factor of 1.25, 1.25^2, 1.25^3 of the true one
    sign_agreement     share of photos whose rank correlation is positive; a constant prediction agrees with none

    Photos whose known truth does not vary have no correlation and are left out. Raises ValueError when none is left, or
    when shapes differ or the prediction is not finite.
    """
    per_photo = depth_scores_per_photo(prediction, truth)
    if not np.isfinite(per_photo["spearman"]).any():
        raise ValueError("no photo has a known disparity that varies: nothing to score against")
    return {name: float(np.nanmean(values)) for name, values in per_photo.items()}


def depth_scores_per_photo(prediction: ArrayLike, truth: ArrayLike) -> dict[str, Array]:
    """The scores of `depth_scores`, each (N,); NaN where the photo's known truth does not vary."""
    p, t, known = _checked(prediction, truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        varies = _variance(t, known) > 0
        spearman = _correlation(_ranks(p, known), _ranks(t, known), known)
        ratio = _log_ratio(p, t, known)
        scores = {
            "spearman": spearman,
            "spearman_aligned": np.abs(spearman),
            "side": np.sqrt(np.square(_centred(ratio, known)).sum(1) / known.sum(1)),
            "sign_agreement": (spearman > 0).astype(np.float64),
        }
        for power in (1, 2, 3):
            near = (np.abs(ratio) < power * np.log(1.25)) & known
            scores[f"delta{power}"] = near.sum(1) / known.sum(1)
    return {name: np.where(varies, values, np.nan) for name, values in scores.items()}


def mask_auc(prediction: ArrayLike, masks: ArrayLike) -> Array:
    """How surely the subject is the nearer: the area under the ROC curve of disparity telling subject from background, (N,).

    prediction (N, H, W), larger = nearer; masks uint8 (N, H, W), 255 = subject, 0 = background; what is between is the edge
    and does not count. 1 is every pixel of the subject before every one of the background, 0.5 chance, as for a constant; NaN
    where a mask is all subject or all background. Raises ValueError when shapes differ or the prediction is not finite.
    """
    p, m, _ = _checked(prediction, masks)
    inside, outside = m > 0.9 * 255, m < 0.1 * 255
    known = inside | outside
    count_in, count_out = inside.sum(1), outside.sum(1)
    ranks = np.where(inside, _ranks(p, known), 0).sum(1)  # Mann and Whitney's statistic; ties share their rank
    pairs = (count_in * count_out).astype(np.float64)
    return np.divide(ranks - count_in * (count_in + 1) / 2, pairs, out=np.full(len(p), np.nan), where=pairs > 0)


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


def _log_ratio(p: Array, t: Array, known: NDArray[np.bool_]) -> Array:
    """log z_prediction - log z_truth, (N, P): the scale-invariant error is its spread (Eigen et al., NIPS 2014).

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
    ratio: Array = np.log(_inverse_depth(np.where(known, t, 0))) - np.log(_inverse_depth(fitted))
    return ratio


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
