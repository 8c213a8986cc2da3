"""Size and place of one label: volume, cross-sectional area, obliquity, centroids, truncation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

#: A muscle on fewer slices than this has no axis that exceeds its noise.
MIN_SLICES = 5
#: From this many slices on, the axis may bend twice.
_CUBIC_SLICES = 10


@dataclass(frozen=True)
class SliceStack:
    """Voxels in RAS+ order: the third axis runs from inferior to superior.

    Parameters
    ----------
    shape
        Voxels along each axis.
    affine
        (4, 4) voxel index to world RAS+ mm.
    covered
        (X, Y, Z) voxels that were imaged, where parts are joined; None for all.
    empty
        (Z,) bool, slices without signal; None for none.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    covered: np.ndarray | None = None
    empty: np.ndarray | None = None

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the slices; not along the third axis where the grid is sheared.

        It points up.
        """
        across = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        across = across / np.linalg.norm(across)
        return across if across @ self.affine[:3, 2] > 0 else -across

    @cached_property
    def pixel_mm2(self) -> float:
        """Area of a voxel within its slice."""
        return float(np.linalg.norm(np.cross(self.affine[:3, 0], self.affine[:3, 1])))

    @cached_property
    def spacing_mm(self) -> float:
        """Distance of slices along their normal; with `pixel_mm2` it gives |det|."""
        return float(self.normal @ self.affine[:3, 2])

    def cuts(self, voxels: np.ndarray) -> bool:
        """Return whether voxels (N, 3) reach the edge of what was imaged."""
        low, high = voxels.min(axis=0), voxels.max(axis=0)
        if (low == 0).any() or (high == np.array(self.shape) - 1).any():
            return True
        if self.covered is None:
            return False
        beside = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
        return any(not self.covered[tuple((voxels + step).T)].all() for step in beside)

    def cuts_slices(self, slices: np.ndarray) -> bool:
        """Return whether slices reach the edge of what was imaged, or a gap parts them."""
        low, high = int(slices.min()), int(slices.max())
        if low == 0 or high == self.shape[2] - 1:
            return True
        return (
            self.covered is not None
            and not self.covered[..., low - 1 : high + 2].any(axis=(0, 1)).all()
        )

    def n_empty(self, slices: np.ndarray) -> int:
        """Return how many slices without signal lie within ascending slices or next to them."""
        if self.empty is None:
            return 0
        around = np.arange(max(slices[0] - 1, 0), min(slices[-1] + 2, self.shape[2]))
        return int(np.count_nonzero(self.empty[np.setdiff1d(around, slices)]))

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Return the world coordinates (N, 3) of voxel coordinates (N, 3)."""
        return voxels @ self.affine[:3, :3].T + self.affine[:3, 3]


@dataclass(frozen=True)
class Size:
    """Size of one label, in all and on each of its S slices, from inferior to superior.

    Parameters
    ----------
    slices
        (S,) numbers of the slices that have the label.
    counts
        (S,) voxels.
    csa_mm2
        (S,) pixels times pixel area (Hess 2022).
    tilt
        (S,) angle in radians between the muscle's axis and the slice normal; NaN with fewer than
        ``MIN_SLICES`` slices.
    csa_corrected_mm2
        (S,) `csa_mm2` times the cosine of `tilt`: the area across the muscle.
    centroids_ras_mm
        (S, 3) mean of the voxel centres of a slice, world RAS+ mm.
    volume_ml
        Voxels times the volume of one, |det| of the affine (Weber 2021): the sum of the slices.
    length_mm
        Distance from the first to the last slice, both included, along the slice normal.
    centroid_ras_mm
        (3,) mean of all voxel centres.
    truncated
        Whether the label reaches the first or last slice, the edge of the plane or a slice
        without signal, so that part of the muscle may lie outside of the image.
    n_empty
        Slices without signal within the label or next to it.
    """

    slices: np.ndarray
    counts: np.ndarray
    csa_mm2: np.ndarray
    tilt: np.ndarray
    csa_corrected_mm2: np.ndarray
    centroids_ras_mm: np.ndarray
    volume_ml: float
    length_mm: float
    centroid_ras_mm: np.ndarray
    truncated: bool
    n_empty: int = 0


def measure_size(voxels: np.ndarray, grid: SliceStack) -> Size:
    """Measure one label.

    Parameters
    ----------
    voxels
        (N, 3) indices of its voxels, at least one.
    grid
        What they are indices of.
    """
    slices, place = np.unique(voxels[:, 2], return_inverse=True)
    counts = np.bincount(place)
    sums = np.stack([np.bincount(place, voxels[:, axis]) for axis in range(3)], axis=1)
    centroids = grid.to_world(sums / counts[:, None])
    tilt = axis_tilt(slices, centroids, counts, grid.normal)
    return Size(
        slices=slices,
        counts=counts,
        csa_mm2=counts * grid.pixel_mm2,
        tilt=tilt,
        csa_corrected_mm2=counts * grid.pixel_mm2 * np.cos(tilt),
        centroids_ras_mm=centroids,
        **_whole(voxels, slices, grid),
    )


def part_of(size: Size, kept: np.ndarray, voxels: np.ndarray, grid: SliceStack) -> Size:
    """Return the size of some slices of a label; the axis stays that of all of it.

    Parameters
    ----------
    size
        Of the label.
    kept
        (S,) bool, which of its slices, at least one.
    voxels
        (N, 3) indices of the voxels on these slices.
    grid
        What they are indices of.
    """
    by_slice = ('slices', 'counts', 'csa_mm2', 'tilt', 'csa_corrected_mm2', 'centroids_ras_mm')
    parts = {name: getattr(size, name)[kept] for name in by_slice}
    return replace(size, **parts, **_whole(voxels, parts['slices'], grid))


def _whole(voxels: np.ndarray, slices: np.ndarray, grid: SliceStack) -> dict[str, Any]:
    """Return the fields of a size that are about all its slices together."""
    n_empty = grid.n_empty(slices)
    return {
        'volume_ml': len(voxels) * grid.pixel_mm2 * grid.spacing_mm / 1000,
        'length_mm': float(slices[-1] - slices[0] + 1) * grid.spacing_mm,
        'centroid_ras_mm': grid.to_world(voxels.mean(axis=0)[None])[0],
        'truncated': n_empty > 0 or grid.cuts(voxels),
        'n_empty': n_empty,
    }


def axis_tilt(
    slices: np.ndarray, centroids: np.ndarray, weights: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """Return the angle between a muscle's axis and the slice normal, on each slice.

    The axis is a polynomial of second (from ten slices on third) degree through the centroids.
    Area times the cosine of this angle is the area across the axis, exactly so for a cylinder,
    however it is tilted. (The product of two cosines, one per direction, is not exact where it is
    tilted in both.)

    Parameters
    ----------
    slices
        (S,) ascending numbers of slices.
    centroids
        (S, 3) world mm.
    weights
        (S,) voxels of each slice: the centroid of a small area is uncertain.
    normal
        (3,) unit vector.

    Returns
    -------
    (S,) radians, 0 to pi/2; NaN with fewer than ``MIN_SLICES`` slices.
    """
    if len(slices) < MIN_SLICES:
        return np.full(len(slices), np.nan)
    degree = 2 if len(slices) < _CUBIC_SLICES else 3
    # Around 0, so that powers of slice numbers do not lose digits.
    at = (slices - slices.mean()) / (slices[-1] - slices[0])
    powers = np.vander(at, degree + 1)
    root = np.sqrt(weights)[:, None]
    coefficients = np.linalg.lstsq(powers * root, centroids * root, rcond=None)[0]
    slope = powers[:, 1:] @ (coefficients[:-1] * np.arange(degree, 0, -1)[:, None])
    return np.arctan2(np.linalg.norm(np.cross(slope, normal), axis=1), np.abs(slope @ normal))
