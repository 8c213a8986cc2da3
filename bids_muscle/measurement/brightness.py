"""Slices brought to one brightness, and the fat under the skin, for thresholds of brightness.

At the ends of a slab, and where a coil ends, whole slices are darker: one threshold for all of
them would tell bright slices from dark ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image
from numpy.typing import NDArray

#: Fewer voxels than this say nothing about the brightness of a muscle on a slice.
_MIN_VOXELS = 30
#: Rounds of the median polish; it changes little after the third.
_ROUNDS = 10
#: Brightness of a muscle on a slice: this percentile lies within muscle, however much fat it has.
_MUSCLE_PCT = 25
#: A slice darker than this share of the median slice is left out: noise is part of its brightness.
DARK = 0.3
#: Fat under the skin is looked for between these depths (mm) and is the brightest tenth there.
_DEPTH_MM = (2.0, 25.0)
_SKIN_PCT = 90


def known_only(corrected: Nifti1Image, raw: Nifti1Image) -> Nifti1Image:
    """Return an image without bias field, NaN where the raw one is not finite.

    Parameters
    ----------
    corrected, raw
        (X, Y, Z) images on one grid.
    """
    known = np.isfinite(np.asanyarray(raw.dataobj))
    values = np.where(known, np.asanyarray(corrected.dataobj), np.float32(np.nan))
    return Nifti1Image(values, corrected.affine)


@dataclass(frozen=True)
class Brightness:
    """An image with slices of one brightness.

    Parameters
    ----------
    even
        (X, Y, Z) intensities on the scale of the slice of median brightness; NaN on slices that
        are left out.
    skin
        (Z,) brightness of the fat under the skin on this scale; NaN where none is visible.
    dark
        (Z,) bool, slices with muscle that are left out.
    """

    even: np.ndarray
    skin: np.ndarray
    dark: NDArray[np.bool_]


def even_slices(
    intensity: np.ndarray,
    labels: np.ndarray,
    body: NDArray[np.bool_] | None,
    spacing_mm: Sequence[float],
) -> Brightness:
    """Bring the slices of an image to one brightness of muscle.

    The brightness of a slice is that of all its muscles, each by its lower quartile and relative
    to its brightness on other slices (a median polish of muscles and slices): neither fat that
    one muscle has on some slices nor a muscle that is missing on a slice changes it much.

    Parameters
    ----------
    intensity
        (X, Y, Z) image without bias field, NaN where undefined.
    labels
        (X, Y, Z) numbers of the muscles.
    body
        (X, Y, Z) mask of the body, or None where it is not known.
    spacing_mm
        Voxel edges within a slice.
    """
    n_slices = labels.shape[2]
    most = int(labels.max())
    log_brightness = np.stack(
        [_of_slice(intensity[..., k], labels[..., k], most) for k in range(n_slices)]
    )
    with_muscle = np.flatnonzero(np.isfinite(log_brightness).any(axis=1))
    if not with_muscle.size:
        return Brightness(intensity, np.full(n_slices, np.nan), np.zeros(n_slices, bool))
    table = log_brightness[with_muscle][:, np.isfinite(log_brightness).any(axis=0)]
    profile = np.zeros(with_muscle.size)
    for _ in range(_ROUNDS):
        muscle = np.nanmedian(table - profile[:, None], axis=0)
        profile = np.nanmedian(table - muscle, axis=1)
    # A slice with little muscle is as bright as its neighbours.
    brightness = np.exp(np.interp(np.arange(n_slices), with_muscle, profile - np.median(profile)))
    dark = brightness < DARK
    factor = np.where(dark, np.nan, 1 / brightness)
    even = intensity * factor.astype(np.float32)
    skin = np.full(n_slices, np.nan)
    if body is not None:
        rim = _rim(body, spacing_mm) & np.isfinite(even)
        for k in range(n_slices):
            values = even[..., k][rim[..., k]]
            if values.size >= _MIN_VOXELS:
                skin[k] = np.percentile(values, _SKIN_PCT)
    return Brightness(even, skin, dark & labels.any(axis=(0, 1)))


def _of_slice(intensity: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """Return the logarithm of the brightness of each muscle on a slice, by number; NaN without."""
    found = np.full(most + 1, np.nan)
    inside = (labels > 0) & np.isfinite(intensity)
    numbers, values = labels[inside], intensity[inside]
    for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
        level = np.percentile(values[numbers == number], _MUSCLE_PCT)
        if count >= _MIN_VOXELS and level > 0:
            found[number] = np.log(level)
    return found


def _rim(body: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """Return what lies under the skin; the edge of the image is no skin."""
    from scipy.ndimage import minimum_filter1d

    outer, inner = body, body
    for axis in (0, 1):
        sizes = [2 * round(depth / spacing_mm[axis]) + 1 for depth in _DEPTH_MM]
        outer, inner = (
            minimum_filter1d(mask, size, axis=axis, mode='nearest')
            for mask, size in zip((outer, inner), sizes, strict=True)
        )
    return np.asarray(outer & ~inner, bool)
