"""Muscle fat infiltration (MFI) from fat and water, or from a fat fraction image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fat:
    """Fat of one label.

    Parameters
    ----------
    ratio_of_means_pct
        100 x mean fat / (mean fat + mean water) of the voxels where both are finite (Weber 2021);
        NaN from a fat fraction alone.
    mean_of_voxels_pct
        100 x mean of the fat fraction of the voxels above the noise, each between 0 and 1.
    n_excluded
        Voxels without a fat fraction: no signal above the noise, or not finite.
    """

    ratio_of_means_pct: float
    mean_of_voxels_pct: float
    n_excluded: int


def measure_fat(water: np.ndarray, fat: np.ndarray, fat_fraction: np.ndarray) -> Fat:
    """Measure the fat of the voxels of one label.

    Parameters
    ----------
    water, fat
        (N,) signals, same scale, NaN where undefined; negative values are noise around zero and
        count as they are.
    fat_fraction
        (N,) fat fraction, NaN where it is undefined.
    """
    # Sums in double precision do not depend on how the voxels are ordered in memory.
    known = np.isfinite(water) & np.isfinite(fat)
    total_fat = float(np.sum(fat, where=known, dtype=np.float64))
    total = total_fat + float(np.sum(water, where=known, dtype=np.float64))
    mean, excluded = mean_fraction(fat_fraction)
    ratio = 100 * total_fat / total if total > 0 else np.nan
    return Fat(ratio if 0 <= ratio <= 100 else np.nan, mean, excluded)


def mean_fraction(fat_fraction: np.ndarray) -> tuple[float, int]:
    """Return the mean fat fraction in percent (NaN of nothing) and the voxels without one."""
    known = fat_fraction[np.isfinite(fat_fraction)]
    excluded = fat_fraction.size - known.size
    if known.size == 0:
        return np.nan, excluded
    return 100 * float(np.clip(known, 0, 1).mean(dtype=np.float64)), excluded
