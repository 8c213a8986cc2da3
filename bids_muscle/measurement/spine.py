"""Vertebrae and discs from their label maps: heights, centroids, lordosis (Hess 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from bids_muscle.errors import BadDataError
from bids_muscle.measurement.rows import dictionary

if TYPE_CHECKING:
    import pandas as pd

#: Fewer voxels than this have no shape.
MIN_VOXELS = 10

#: The discs between which lordosis is measured.
_LORDOSIS = ('T12-L1', 'L5-S1')
_TOUCHES = 'reaches the edge of the image, so it may be a part only'


@dataclass(frozen=True)
class Rectangle:
    """The rectangle of least area around a shape.

    Parameters
    ----------
    short_mm, long_mm
        Its sides.
    angle_deg
        Angle of its long side to the first axis, -90 to 90.
    """

    short_mm: float
    long_mm: float
    angle_deg: float


def measure_spine(
    vertebrae: tuple[Nifti1Image, Mapping[int, str]] | None,
    discs: tuple[Nifti1Image, Mapping[int, str]] | None,
) -> pd.DataFrame:
    """Measure the vertebrae and discs of one scan.

    Parameters
    ----------
    vertebrae, discs
        (X, Y, Z) label map in any orientation and the names of its labels; None where there is
        no such map. A label without a name is called by its number.

    Returns
    -------
    pandas.DataFrame
        One row per vertebra and disc, each from superior to inferior, and one for the lordosis
        where both its discs are there. Columns as in ``dictionary('morph_spine')``.

    Raises
    ------
    BadDataError
        If a label map holds numbers that are not whole.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for kind, given in (('vertebra', vertebrae), ('disc', discs)):
        if given is not None:
            rows += _rows(kind, *given)
    by_name = {row['name']: row for row in rows if row['kind'] == 'disc'}
    if all(name in by_name for name in _LORDOSIS):
        upper, lower = (by_name[name].get('tilt_deg', np.nan) for name in _LORDOSIS)
        unknown = None if np.isfinite(upper - lower) else 'the tilt of a disc is not known'
        rows.append(
            {'kind': 'lordosis', 'name': 'L1-S1', 'tilt_deg': lower - upper, 'reason': unknown}
        )
    return pd.DataFrame(rows, columns=list(dictionary('morph_spine')))


def smallest_rectangle(pixels: np.ndarray, spacing_mm: tuple[float, float]) -> Rectangle:
    """Return the rectangle of least area around the corners of some pixels.

    One side of it lies along a side of the convex hull, so that these are all that is tried.

    Parameters
    ----------
    pixels
        (N, 2) indices, at least one.
    spacing_mm
        Size of a pixel along each axis.

    Examples
    --------
    >>> smallest_rectangle(np.argwhere(np.ones((10, 3))), (1.0, 2.0))
    Rectangle(short_mm=6.0, long_mm=10.0, angle_deg=0.0)
    """
    from scipy.spatial import ConvexHull

    corners = (pixels[:, None] + np.array([(a, b) for a in (0, 1) for b in (0, 1)])).reshape(-1, 2)
    points = np.unique(corners, axis=0) * np.asarray(spacing_mm)
    hull = points[ConvexHull(points).vertices]
    edges = np.roll(hull, -1, axis=0) - hull
    along = edges / np.linalg.norm(edges, axis=1)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    sides = np.stack([np.ptp(hull @ axes.T, axis=0) for axes in (along, across)], axis=1)
    # Of rectangles of one area, the one nearest to the axes, whatever the order of the corners.
    area = np.round(sides.prod(axis=1), 9)
    slant = np.round(np.abs(along).min(axis=1), 9)
    best = int(np.lexsort((slant, area))[0])
    long = int(np.argmax(sides[best]))
    direction = (along, across)[long][best]
    direction = direction if direction[0] > 0 else -direction
    angle = float(np.degrees(np.arctan2(direction[1], direction[0])))
    return Rectangle(float(sides[best].min()), float(sides[best].max()), round(angle, 9))


def _rows(kind: str, labels: Nifti1Image, names: Mapping[int, str]) -> list[dict[str, Any]]:
    data = np.asanyarray(labels.dataobj)
    numbers = np.rint(data).astype(np.int32)
    if not np.array_equal(numbers, data):
        raise BadDataError(
            f'The label map {labels.get_filename() or kind} holds numbers that are not whole.',
            'Resample label maps with nearest neighbour, and store them as integers.',
        )
    order = io_orientation(labels.affine)
    affine = labels.affine @ inv_ornt_aff(order, labels.shape)
    numbers = apply_orientation(numbers, order)
    rows = [
        _row(kind, int(index), names.get(int(index), f'label {index}'), numbers, affine)
        for index in np.unique(numbers[numbers > 0])
    ]
    return sorted(rows, key=lambda row: (-row.get('z_ras_mm', -np.inf), row['index']))


def _row(
    kind: str, index: int, name: str, numbers: np.ndarray, affine: np.ndarray
) -> dict[str, Any]:
    from scipy.ndimage import binary_fill_holes, label

    inside = numbers == index
    row: dict[str, Any] = {
        'kind': kind,
        'index': index,
        'name': name,
        'n_voxels': int(np.count_nonzero(inside)),
    }
    # The largest part, told by faces, edges and corners, as Hess 2022 leaves only one.
    parts, _ = label(inside, np.ones((3, 3, 3)))
    inside = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    voxels = np.argwhere(inside)
    if len(voxels) < MIN_VOXELS:
        return row | {'reason': f'only {len(voxels)} voxels in one piece, too few to measure'}
    middle = voxels.mean(axis=0)
    x, y, z = affine[:3, :3] @ middle + affine[:3, 3]
    row |= {
        'volume_ml': row['n_voxels'] * abs(float(np.linalg.det(affine[:3, :3]))) / 1000,
        'x_ras_mm': float(x),
        'y_ras_mm': float(y),
        'z_ras_mm': float(z),
        'x_lps_mm': float(-x),
        'y_lps_mm': float(-y),
        'z_lps_mm': float(z),
    }
    edge = (voxels.min(axis=0) == 0).any() or (
        voxels.max(axis=0) == np.subtract(inside.shape, 1)
    ).any()
    reasons = [_TOUCHES] if edge else []
    if kind == 'disc':
        plane = binary_fill_holes(inside[round(middle[0])])
        pixels = np.argwhere(plane)
        if len(pixels):
            spacing = voxel_sizes(affine)[1:]
            found = smallest_rectangle(pixels, (float(spacing[0]), float(spacing[1])))
            row |= {
                'height_mm': found.short_mm,
                'mean_height_mm': len(pixels) * float(spacing.prod()) / found.long_mm,
                'depth_mm': found.long_mm,
                'tilt_deg': _tilt(found, affine),
            }
        else:
            reasons.append('its centroid lies outside of it, so it has no central slice')
    return row | {'reason': '; '.join(reasons) or None}


def _tilt(found: Rectangle, affine: np.ndarray) -> float:
    """Return the angle of the long side against anterior, positive where it falls forward."""
    angle = np.radians(found.angle_deg)
    forward, up = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (1, 2))
    along = np.cos(angle) * forward + np.sin(angle) * up
    return float(np.degrees(np.arctan2(-along[2], along[1])))
