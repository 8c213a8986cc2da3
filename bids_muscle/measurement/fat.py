"""Muscle fat infiltration (MFI) from fat and water, or from a fat fraction image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bids_muscle.measurement.size import MIN_SLICES

#: Percentiles of the fat fraction of the voxels.
PERCENTILES = (5, 25, 50, 75, 95)
#: Above this share of voxels without signal, fat measures describe the rest, not the muscle.
MAX_EXCLUDED = 0.5
#: Resamples of a bootstrap, and where their random numbers start.
_RESAMPLES, _SEED = 1000, 0


@dataclass(frozen=True)
class Fat:
    """Fat of one label, or of one slice of it.

    Parameters
    ----------
    n_voxels, n_excluded
        All voxels; those without a fat fraction: no signal above the noise, or not finite.
    ratio_of_means_pct
        100 x mean fat / (mean fat + mean water) of the voxels where both are finite (Weber 2021);
        NaN from a fat fraction alone, or where a mean is negative.
    mean_of_voxels_pct
        100 x mean of the fat fraction of the voxels above the noise.
    ratio_of_means_se_pct, mean_of_voxels_se_pct
        Their standard errors, see :func:`bootstrap_se`.
    percentiles_pct
        Those in ``PERCENTILES`` of the fat fraction.
    slices
        The same for each slice, without standard errors and percentiles.
    """

    n_voxels: int
    n_excluded: int
    ratio_of_means_pct: float = np.nan
    mean_of_voxels_pct: float = np.nan
    ratio_of_means_se_pct: float = np.nan
    mean_of_voxels_se_pct: float = np.nan
    percentiles_pct: tuple[float, ...] = (np.nan,) * len(PERCENTILES)
    slices: tuple[Fat, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether enough voxels have a fat fraction."""
        return self.n_excluded <= MAX_EXCLUDED * self.n_voxels


def measure_fat(
    water: np.ndarray | None,
    fat: np.ndarray | None,
    fraction: np.ndarray,
    slice_index: np.ndarray,
    counted: np.ndarray | None = None,
) -> Fat:
    """Measure the fat of the voxels of one label.

    Parameters
    ----------
    water, fat
        (N,) signals, same scale, NaN where undefined; negative values are noise around zero and
        count as they are. None where there is only a fat fraction.
    fraction
        (N,) fat fraction, 0 to 1, NaN where it is undefined.
    slice_index
        (N,) slice of each voxel, counted from 0 without gaps.
    counted
        (S,) bool, which of the S slices the result is of; by default all. Its `slices` are all.

    Returns
    -------
    Fat
        What more than half of the voxels say nothing about is NaN.
    """
    if water is None or fat is None:
        water = fat = np.full(fraction.shape, np.nan)
    # Sums in double precision do not depend on how the voxels are ordered in memory.
    both = np.isfinite(water) & np.isfinite(fat)
    finite = np.isfinite(fraction)
    voxels = np.bincount(slice_index)
    n = len(voxels)
    n_known = np.bincount(slice_index[finite], minlength=n)
    shares = fraction[finite].astype(np.float64)
    sum_fraction = np.bincount(slice_index[finite], shares, n)
    sum_fat = np.bincount(slice_index[both], fat[both], n)
    sum_all = sum_fat + np.bincount(slice_index[both], water[both], n)

    def summed(of: np.ndarray) -> Fat:
        whole = int(voxels[of].sum())
        measured = Fat(whole, whole - int(n_known[of].sum()))
        if not measured.trusted:
            return measured
        return replace(
            measured,
            ratio_of_means_pct=_percentage(float(sum_fat[of].sum()), float(sum_all[of].sum())),
            mean_of_voxels_pct=_percentage(
                float(sum_fraction[of].sum()), float(n_known[of].sum())
            ),
        )

    slices = tuple(summed(np.array([at])) for at in range(n))
    if counted is None:
        counted = np.ones(n, bool)
    total = replace(summed(np.flatnonzero(counted)), slices=slices)
    shares = shares[counted[slice_index[finite]]]
    if not (total.trusted and shares.size):
        return total
    return replace(
        total,
        ratio_of_means_se_pct=100 * bootstrap_se(sum_fat[counted], sum_all[counted]),
        mean_of_voxels_se_pct=100 * bootstrap_se(sum_fraction[counted], n_known[counted]),
        percentiles_pct=tuple(100 * np.percentile(shares, PERCENTILES)),
    )


def bootstrap_se(parts: np.ndarray, wholes: np.ndarray) -> float:
    """Return the standard error of sum(parts) / sum(wholes) over slices.

    Slices are drawn with replacement, whole slices because voxels side by side are alike. It says
    how much the value depends on which slices were imaged, not the segmentation error.

    Parameters
    ----------
    parts, wholes
        (S,) sums of each slice.

    Returns
    -------
    float
        Standard deviation of 1000 resamples, the same at each call, whatever the order of the
        slices; NaN with fewer than ``MIN_SLICES`` slices, or without a positive whole.

    Notes
    -----
    Efron B, Tibshirani R. Stat Sci 1986;1:54-75.

    Examples
    --------
    >>> round(bootstrap_se(np.full(8, 2.0), np.full(8, 10.0)), 9)
    0.0
    """
    if len(parts) < MIN_SLICES:
        return np.nan
    order = np.lexsort((parts, wholes))
    draws = np.random.default_rng(_SEED).integers(len(parts), size=(_RESAMPLES, len(parts)))
    below = wholes[order][draws].sum(axis=1)
    above = parts[order][draws].sum(axis=1)
    if not (below > 0).all():
        return np.nan
    return float(np.std(above / below, ddof=1))


def _percentage(part: float, whole: float) -> float:
    value = 100 * part / whole if whole > 0 else np.nan
    return value if 0 <= value <= 100 else np.nan
