"""Whether the bright voxels of a muscle are fat: what thresholds cannot tell is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, isnan, nan

import numpy as np

from bids_muscle.measurement.methods import Threshold
from bids_muscle.measurement.thresholds import ThresholdedFat, threshold_fat

#: K-means may lie so many points outside of what mixtures of two and of three Gaussians give; two
#: put all voxels with some fat to fat, three only the fattest. Simulated muscles on which it lies
#: farther outside are wrong by up to 50 points.
MAX_DIFFERENCE = 15.0
_CHECKED: tuple[Threshold, ...] = ('kmeans2', 'gmm2', 'gmm3')
#: A larger share is that of uneven muscle more often than of fat.
MAX_PCT = 50.0
#: Least brightness of the fat under the skin over that of muscle: two in T1w spin echoes is rare
#: (three is common, ten in T2w); in gradient echoes it is 1.0 to 2.4.
MIN_CONTRAST = 2.0
#: How far the bright class lies from muscle towards the fat under the skin. Streaks fill voxels in
#: part, and deep muscles are darker.
NEAR = (0.05, 1.5)
#: Share of the body at the highest value from which an image is too clipped for thresholds.
MAX_CLIPPED = 0.01


def checked_fat(
    values: np.ndarray,
    methods: Sequence[Threshold],
    *,
    fat_suppressed: bool = False,
    skin: float = nan,
    clipped: float = 0.0,
) -> tuple[ThresholdedFat, ...]:
    """Split the voxels of one muscle into muscle and fat, and check that it is fat.

    Parameters
    ----------
    values
        (N,) intensities on slices of one brightness, where fat is bright.
    methods
        Those asked for.
    fat_suppressed
        As in :func:`~bids_muscle.measurement.thresholds.threshold_fat`.
    skin
        Brightness of the fat under the skin on the same slices; NaN where none is visible.
    clipped
        Share of the body that has the highest value of the image.

    Returns
    -------
    tuple of ThresholdedFat
        One for each of the methods; without values where there is doubt, with the reason.
    """
    found = {
        method: threshold_fat(values, method, fat_suppressed=fat_suppressed)
        for method in dict.fromkeys((*methods, *_CHECKED))
    }
    doubt = _doubt(found, skin, clipped)
    return tuple(_without(found[name], doubt) if doubt else found[name] for name in methods)


def _doubt(found: Mapping[Threshold, ThresholdedFat], skin: float, clipped: float) -> str | None:
    """Return why the bright voxels may not be fat, or nothing."""
    clusters, *mixtures = (found[method] for method in _CHECKED)
    if isnan(clusters.fat_pct):
        return None  # it has a reason of its own
    if clipped > MAX_CLIPPED:
        return f'{100 * clipped:.2g} % of the body has the highest value, so no thresholds'
    if isfinite(skin):
        if skin < MIN_CONTRAST * clusters.muscle_mean:
            times = skin / clusters.muscle_mean
            return (
                f'subcutaneous fat is only {times:.1f} times as bright as muscle, so no thresholds'
            )
        near = (clusters.fat_mean - clusters.muscle_mean) / (skin - clusters.muscle_mean)
        if not NEAR[0] <= near <= NEAR[1]:
            return (
                'the bright voxels are not as bright as subcutaneous fat, so they may not be fat'
            )
    shares = [each.fat_pct for each in mixtures if isfinite(each.fat_pct)]
    if not shares:
        return 'Gaussian mixtures find no fat class but k-means does, so neither is trusted'
    low, high = min(shares), max(shares)
    if not low - MAX_DIFFERENCE <= clusters.fat_pct <= high + MAX_DIFFERENCE:
        return (
            f'k-means classifies {clusters.fat_pct:.0f} % of the voxels as fat, Gaussian mixtures '
            f'{low:.0f} to {high:.0f} %, so neither is trusted'
        )
    if clusters.fat_pct > MAX_PCT:
        return f'more than {MAX_PCT:.0f} % of the voxels are bright, too many for thresholds'
    return None


def _without(found: ThresholdedFat, reason: str) -> ThresholdedFat:
    """Take the values away."""
    return ThresholdedFat(
        found.method,
        found.n_voxels,
        found.n_excluded,
        found.n_winsorised,
        gain=found.gain,
        reason=reason,
        probability=np.full(found.probability.shape, nan),
    )
