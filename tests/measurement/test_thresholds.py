"""Thresholds against known mixtures, scikit-learn, and the faults seen in other programs."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.methods import THRESHOLDS, Threshold
from bids_muscle.measurement.table import measure_scan
from bids_muscle.measurement.thresholds import (
    fit_mixture,
    kmeans_cuts,
    threshold_fat,
)

GMM: tuple[Threshold, ...] = ('gmm2', 'gmm3')
N = 10_000


def muscle(fat_share: float = 0.098, n: int = N, seed: int = 0) -> np.ndarray:
    """Whole-number intensities of muscle (200) with streaks of fat (500)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(200, 25, n)
    n_fat = round(fat_share * n)
    values[:n_fat] = rng.normal(500, 60, n_fat)
    return np.rint(values)


@pytest.mark.parametrize('method', THRESHOLDS)
def test_the_share_of_fat_is_found(method: Threshold) -> None:
    found = threshold_fat(muscle(), method)
    assert found.fat_pct == pytest.approx(9.8, abs=0.2)
    assert found.reason is None
    assert 200 < found.fat_min < 400
    if method in GMM:
        assert found.fat_weighted_pct == pytest.approx(9.8, abs=0.1)
    else:
        assert np.isnan(found.fat_weighted_pct)


# MuscleMap: 0.2 % of dark voxels and three Gaussians gave 100 % fat, two gave 23.6 %.
@pytest.mark.parametrize('method', THRESHOLDS)
@pytest.mark.parametrize('share', [0.002, 0.004])
def test_dark_voxels_are_not_fat(method: Threshold, share: float) -> None:
    values = muscle()
    n_dark = round(share * N)
    values[-n_dark:] = np.random.default_rng(1).integers(0, 40, n_dark)
    found = threshold_fat(values, method)
    assert found.fat_pct == pytest.approx(9.8, abs=0.2)
    assert found.fat_min > 200
    if method in GMM:
        assert found.fat_weighted_pct == pytest.approx(9.8, abs=0.2)


# MuscleMap: 0.25 % of bright voxels and three clusters gave 0.2 % fat.
@pytest.mark.parametrize('method', THRESHOLDS)
def test_bright_outliers_are_not_a_class(method: Threshold) -> None:
    values = muscle(0.049)
    values[-25:] = np.random.default_rng(1).integers(900, 4000, 25)
    found = threshold_fat(values, method)
    assert found.fat_pct == pytest.approx(4.9 + 0.25, abs=0.1)
    assert found.n_winsorised <= 0.01 * N
    far = values.copy()
    far[-25:] = 1e6
    again = threshold_fat(far, method)
    assert (again.fat_pct, again.fat_min) == (found.fat_pct, found.fat_min)


# MuscleMap: the share of muscle and its volume in one row came from < and <=.
@pytest.mark.parametrize('method', THRESHOLDS)
def test_shares_are_those_of_the_boundaries_and_add_up(method: Threshold) -> None:
    values = muscle()
    found = threshold_fat(values, method)
    assert found.muscle_pct + found.undecided_pct + found.fat_pct == pytest.approx(100)
    assert found.muscle_pct == pytest.approx(100 * np.mean(values <= found.muscle_max))
    assert found.fat_pct == pytest.approx(100 * np.mean(values > found.fat_min))
    if method.endswith('2'):
        assert found.undecided_pct == 0
        assert found.muscle_max == found.fat_min
    else:
        assert found.muscle_max < found.fat_min


# MuscleMap: two runs of one command differed.
@pytest.mark.parametrize('method', THRESHOLDS)
def test_nothing_is_random(method: Threshold) -> None:
    values = muscle(0.3)
    found = threshold_fat(values, method)
    mixed = np.random.default_rng(3).permutation(values)
    assert threshold_fat(values, method) == found
    assert threshold_fat(mixed, method) == found


@pytest.mark.parametrize('method', THRESHOLDS)
@pytest.mark.parametrize(
    ('values', 'reason'),
    [
        (np.full(1000, 7.0), 'grey levels'),
        (np.array([]), 'only 0 voxels'),
        (np.array([5.0]), 'only 1 voxels'),
        (np.arange(49.0), 'only 49 voxels'),
        (np.repeat([1.0, 2.0, 3.0], 100), 'grey levels'),
        (np.full(1000, np.nan), 'only 0 voxels'),
        (muscle(0), 'not separable by brightness'),
    ],
)
def test_what_cannot_be_split_has_a_reason(
    method: Threshold, values: np.ndarray, reason: str
) -> None:
    found = threshold_fat(values, method)
    assert reason in str(found.reason)
    assert np.isnan([found.muscle_pct, found.undecided_pct, found.fat_pct, found.fat_min]).all()


@pytest.mark.parametrize('method', ['kmeans2', 'kmeans3'])
def test_two_grey_levels_for_each_class_are_enough(method: Threshold) -> None:
    few = np.array([100.0, 101, 150, 151, 200, 201])[: 2 * int(method[-1])]
    found = threshold_fat(np.repeat(few, 100), method)
    assert found.fat_pct == pytest.approx(100 / int(method[-1]))
    fewer = threshold_fat(np.repeat(few[:-1], 100), method)
    assert f'only {few.size - 1} grey levels' in str(fewer.reason)


@pytest.mark.parametrize('method', THRESHOLDS)
def test_noise_is_not_fat(method: Threshold) -> None:
    # Magnitude images without signal have Rayleigh noise, with a tail to bright values.
    rng = np.random.default_rng(0)
    noise = np.rint(np.hypot(*rng.normal(0, 25, (2, N))))
    assert threshold_fat(noise, method).reason == 'fat and muscle are not separable by brightness'


@pytest.mark.parametrize('method', THRESHOLDS)
def test_fat_suppressed_images_are_refused(method: Threshold) -> None:
    found = threshold_fat(muscle(), method, fat_suppressed=True)
    assert np.isnan(found.fat_pct)
    assert 'fat-suppressed' in str(found.reason)


def test_voxels_without_a_number_are_left_out_and_counted() -> None:
    values = muscle()
    broken = np.concatenate([values, [np.nan] * 5, [np.inf] * 2])
    assert threshold_fat(broken) == replace(threshold_fat(values), n_excluded=7)


@settings(max_examples=20)
@given(
    st.sampled_from(THRESHOLDS),
    st.floats(1e-3, 1e3),
    st.floats(-1e3, 1e4),
    st.floats(0.03, 0.6),
)
def test_neither_unit_nor_offset_matters(
    method: Threshold, factor: float, offset: float, share: float
) -> None:
    values = muscle(share, n=2000)
    one, other = (threshold_fat(v, method) for v in (values, values * factor + offset))
    assert other.fat_pct == pytest.approx(one.fat_pct, abs=0.051, nan_ok=True)
    assert other.fat_weighted_pct == pytest.approx(one.fat_weighted_pct, abs=0.05, nan_ok=True)
    assert (other.fat_min - offset) / factor == pytest.approx(one.fat_min, abs=2, nan_ok=True)


def test_sixteen_bit_images_agree_with_their_eight_bit_version() -> None:
    values = muscle()
    fine = values * 100 + np.random.default_rng(0).integers(-20, 20, N)
    for method in THRESHOLDS:
        assert threshold_fat(fine, method).fat_pct == pytest.approx(
            threshold_fat(values, method).fat_pct, abs=0.1
        )


@pytest.mark.parametrize('share', [0.05, 0.3])
@pytest.mark.parametrize('k', [2, 3])
def test_kmeans_is_at_least_as_good_as_scikit_learn(share: float, k: int) -> None:
    cluster = pytest.importorskip('sklearn.cluster')
    values = muscle(share, n=3000)
    levels, counts = np.unique(values, return_counts=True)
    cuts = kmeans_cuts(levels, counts, k)
    label = np.searchsorted(cuts, values)
    within = sum(np.var(values[label == i]) * np.sum(label == i) for i in range(k))
    reference = cluster.KMeans(k, n_init=10, random_state=0).fit(values[:, None])
    assert within <= reference.inertia_ * (1 + 1e-9)
    np.testing.assert_allclose(
        [values[label == i].mean() for i in range(k)],
        np.sort(reference.cluster_centers_[:, 0]),
        rtol=0.01,
    )


@pytest.mark.parametrize('share', [0.05, 0.3])
def test_mixture_agrees_with_scikit_learn(share: float) -> None:
    mixtures = pytest.importorskip('sklearn.mixture')
    values = muscle(share, n=3000)
    levels, counts = np.unique(values, return_counts=True)
    centre, spread = values.mean(), values.std()
    standard = (levels - centre) / spread
    found = fit_mixture(standard, counts, kmeans_cuts(standard, counts, 2))
    reference = mixtures.GaussianMixture(2, tol=1e-8, max_iter=1000, random_state=0)
    reference.fit((values[:, None] - centre) / spread)
    order = np.argsort(reference.means_[:, 0])
    np.testing.assert_allclose(found.weights, reference.weights_[order], rtol=1e-4)
    np.testing.assert_allclose(found.means, reference.means_[order, 0], rtol=1e-4)
    np.testing.assert_allclose(found.sds, np.sqrt(reference.covariances_[order, 0, 0]), rtol=1e-4)
    assert found.log_likelihood == pytest.approx(reference.lower_bound_, abs=1e-5)


def test_the_histogram_is_as_exact_as_the_voxels() -> None:
    values = muscle(0.2, n=2000) / 100
    levels, counts = np.unique(values, return_counts=True)
    cuts = kmeans_cuts(levels, counts, 2)
    binned = fit_mixture(levels, counts, cuts)
    single = fit_mixture(np.sort(values), np.ones(values.size), cuts)
    np.testing.assert_allclose(binned.means, single.means, rtol=1e-9)
    np.testing.assert_allclose(binned.weights, single.weights, rtol=1e-9)


def test_boundary_is_where_both_classes_are_equally_likely() -> None:
    values = muscle(0.3)
    levels, counts = np.unique((values - 300) / 100, return_counts=True)
    mixture = fit_mixture(levels, counts, kmeans_cuts(levels, counts, 2))
    at = mixture.boundary(0)
    assert mixture.means[0] < at < mixture.means[1]
    low, high = mixture.log_joint(np.array([at]))[:, 0]
    assert low == pytest.approx(high, abs=1e-6)


def test_more_fat_gives_more_fat() -> None:
    shares = [0.02, 0.05, 0.1, 0.2, 0.4]
    for method in THRESHOLDS[::2]:
        found = [threshold_fat(muscle(share), method).fat_pct for share in shares]
        np.testing.assert_allclose(found, np.multiply(shares, 100), atol=0.6)


def test_results_are_plain_numbers() -> None:
    found = vars(threshold_fat(muscle()))
    assert {type(value) for name, value in found.items() if name != 'probability'} <= {
        str,
        int,
        float,
        type(None),
    }


def test_wide_fat_does_not_claim_what_is_darker_than_muscle() -> None:
    rng = np.random.default_rng(0)
    fat, dark = rng.normal(400, 90, 2000), rng.uniform(0, 120, 200)
    values = np.rint(np.concatenate([rng.normal(200, 10, N - 2200), fat, dark]))
    found = threshold_fat(values, 'gmm2')
    assert found.fat_weighted_pct == pytest.approx(20, abs=0.8)  # 22 if it claimed them
    assert found.fat_min > 200


@pytest.mark.parametrize(
    ('contrast', 'fat_suppressed', 'reason'),
    [('T2w', False, None), ('T2w', True, 'fat-suppressed'), ('dixon', False, 'no fat and water')],
)
def test_shares_stand_in_columns_of_their_own(
    contrast: str, fat_suppressed: bool, reason: str | None
) -> None:
    labels = np.zeros((30, 30, 10), np.uint8)
    labels[2:27, 5:25, :] = 1
    intensity = np.zeros(labels.shape)
    intensity[labels == 1] = muscle(n=5000)
    table = measure_scan(
        nib.Nifti1Image(labels, np.eye(4)),
        load_label_table('lumbar'),
        ScanImages(
            contrast=contrast,
            intensity=nib.Nifti1Image(intensity, np.eye(4)),
            fat_suppressed=fat_suppressed,
        ),
    ).muscles
    row = table.iloc[0]
    named = [name for name in row.index if name.startswith('fat_') and '_se_' not in name]
    shares = row[named].astype(float)
    assert len(shares) == 6
    if reason is None:
        np.testing.assert_allclose(shares, 9.8, atol=0.2)
    else:
        assert shares.isna().all()
        assert reason in row['reason']
    assert np.isnan(row['mfi_ratio_of_means_pct'])
    assert np.isnan(table.iloc[1]['fat_gmm2_pct'])
