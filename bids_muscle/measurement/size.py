"""Size and place of each label: volume, cross-sectional area, length, centroid, truncation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image


@dataclass(frozen=True)
class Size:
    """Size of one label.

    Parameters
    ----------
    n_voxels
        Voxels of the label.
    volume_ml
        Voxels times the volume of one, |det| of the affine (Weber 2021).
    csa_mm2
        Area on each slice from the first to the last that has the label, in the order of the
        slices from inferior to superior; 0 on a slice between that has none.
    n_slices
        Slices that have the label.
    length_mm
        Distance from the first to the last slice, both included, along the slice normal.
    centroid_ras_mm
        Mean of the voxel centres, world RAS+ mm.
    truncated
        Whether the label reaches the first or last slice or the edge of the plane, so that part
        of the muscle may lie outside of the image.
    """

    n_voxels: int
    volume_ml: float
    csa_mm2: np.ndarray
    n_slices: int
    length_mm: float
    centroid_ras_mm: tuple[float, float, float]
    truncated: bool


def measure_size(labels: Nifti1Image, index: int) -> Size | None:
    """Measure one label; None where the map does not have it.

    The slice axis is the voxel axis closest to inferior-superior, whatever the acquisition plane.

    Parameters
    ----------
    labels
        (X, Y, Z) label map in any orientation.
    index
        Number of the label.
    """
    found = np.argwhere(np.asanyarray(labels.dataobj) == index)
    if found.size == 0:
        return None
    axes = np.asarray(labels.affine[:3, :3], dtype=float)
    slice_axis = axial_axis(labels.affine)
    first, second = (axes[:, axis] for axis in range(3) if axis != slice_axis)
    normal = np.cross(first, second)
    pixel_mm2 = float(np.linalg.norm(normal))
    # The distance of slices along their normal; with pixel_mm2 it gives |det|.
    spacing_mm = abs(float(normal @ axes[:, slice_axis])) / pixel_mm2
    position = found[:, slice_axis]
    counts = np.bincount(position - position.min())
    if axes[2, slice_axis] < 0:
        counts = counts[::-1]
    low, high = found.min(axis=0), found.max(axis=0)
    centroid = axes @ found.mean(axis=0) + labels.affine[:3, 3]
    return Size(
        n_voxels=len(found),
        volume_ml=len(found) * pixel_mm2 * spacing_mm / 1000,
        csa_mm2=counts * pixel_mm2,
        n_slices=int(np.count_nonzero(counts)),
        length_mm=len(counts) * spacing_mm,
        centroid_ras_mm=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
        truncated=bool((low == 0).any() or (high == np.array(labels.shape) - 1).any()),
    )


def axial_axis(affine: np.ndarray) -> int:
    """Return the voxel axis closest to inferior-superior.

    Examples
    --------
    >>> axial_axis(np.diag([1.0, 1.0, 4.0, 1.0]))
    2
    """
    axes = np.asarray(affine)[:3, :3]
    # Of a grid turned by 45 degrees two axes are as close; the later one is taken.
    slope = np.round(np.abs(axes[2]) / np.linalg.norm(axes, axis=0), 6)
    return int(2 - np.argmax(slope[::-1]))
