"""Sizes and places of vertebral bodies, discs and sacra as masks, (X, Y, Z) in RAS+ order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask.

    Examples
    --------
    >>> largest(np.array([True, False, True, True])).tolist()
    [False, False, True, True]
    """
    from scipy.ndimage import label

    parts, count = label(mask)
    return mask if count < 2 else parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())


def middle_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the centroid of a mask, mm from the corner of the image."""
    return np.asarray(np.argwhere(mask).mean(0) * np.asarray(spacing_mm))


def height_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the extent of a body along its axis, from its volume and cross-section."""
    rows = np.count_nonzero(mask, axis=2)
    return float(np.median(rows[rows > 0.5 * rows.max()]) * spacing_mm[2])


def area_mm2(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the area of a body in its largest slice."""
    return float(np.count_nonzero(mask, axis=(1, 2)).max() * spacing_mm[1] * spacing_mm[2])


def distance_mm(one: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the least distance between two masks."""
    from scipy.spatial import cKDTree

    first, second = (surface(mask) * np.asarray(spacing_mm) for mask in (one, other))
    return float(cKDTree(first).query(second)[0].min())


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask that have a neighbour outside of it, (N, 3)."""
    from scipy.ndimage import binary_erosion, find_objects

    box = find_objects(mask.astype(np.uint8))[0]
    inner = mask[box]
    return np.argwhere(inner & ~binary_erosion(inner)) + [each.start for each in box]


def downwards(body: np.ndarray, sacrum: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the direction from a body to the sacrum in the sagittal plane, (3,)."""
    way = middle_mm(sacrum, spacing_mm) - middle_mm(body, spacing_mm)
    way[0] = 0
    return np.asarray(way / np.linalg.norm(way))


def tilt_deg(mask: np.ndarray, place_mm: float, spacing_mm: Sequence[float]) -> float:
    """Return how steeply the long axis of a disc falls forward, near a sagittal plane.

    Parameters
    ----------
    mask
        The disc.
    place_mm
        Of the plane, from the side of the image.
    spacing_mm
        Voxel size.

    Returns
    -------
    float
        NaN where the disc is not near the plane.
    """
    points = np.argwhere(mask) * np.asarray(spacing_mm)
    points = points[np.abs(points[:, 0] - place_mm) <= max(4.0, spacing_mm[0] / 2)][:, 1:]
    if len(points) < 8:
        return np.nan
    _, _, axes = np.linalg.svd(points - points.mean(0), full_matrices=False)
    along = axes[0] if axes[0][0] > 0 else -axes[0]
    return float(np.degrees(np.arctan2(-along[1], along[0])))


def wedge_deg(body: np.ndarray, above: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the angle between the end plates of a body, positive where it is higher in front.

    Parameters
    ----------
    body
        Of one vertebra.
    above
        The next body upwards, which says where up is.
    spacing_mm
        Voxel size.
    """
    here = middle_mm(body, spacing_mm)
    up = -downwards(above, body, spacing_mm)
    ahead = np.array([0.0, up[2], -up[1]])
    points = np.argwhere(body) * np.asarray(spacing_mm) - here
    # Beside the middle the corners of a body are round.
    points = points[np.abs(points[:, 0]) <= 8.0]
    along, height = points @ ahead, points @ up
    edges = np.linspace(np.quantile(along, 0.1), np.quantile(along, 0.9), 9)
    part = np.digitize(along, edges)
    plates = []
    for share in (0.95, 0.05):
        ends = [np.quantile(height[part == k], share) for k in range(1, 9)]
        plates.append(np.arctan(np.polyfit((edges[1:] + edges[:-1]) / 2, ends, 1)[0]))
    return float(np.degrees(plates[0] - plates[1]))
