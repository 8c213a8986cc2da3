"""The parametric atlas: closed splines per vertebral level, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from bids_muscle.anatomy.labels import REGIONS
from bids_muscle.errors import UsageError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClosedSurface:
    """A closed surface: one outline per level, blended between levels.

    Parameters
    ----------
    name, tissue
        What it is and which row of the tissue table it is made of.
    levels
        (n,) vertebral coordinate of each outline, increasing downwards.
    outlines
        (n, points, 2) control points x (right), y (anterior) in mm about the vertebral centre.
    muscle
        Name of the labelled muscle, or None.
    side
        ``'right'``, ``'left'`` or ``'middle'``.
    crust, crust_mm
        Tissue and thickness of the outer layer, if it has one.
    sheath
        Thickness of the sheath of a muscle relative to the usual one.
    column
        Whether it is the column of vertebral bodies and discs.
    envelope
        ``'skin'``, ``'trunk'`` or None: the two outlines between which the subcutaneous fat lies.
    """

    name: str
    tissue: str
    levels: Array
    outlines: Array
    muscle: str | None = None
    side: str = 'middle'
    crust: str | None = None
    crust_mm: float = 0.0
    sheath: float = 1.0
    column: bool = False
    envelope: str | None = None

    def outlines_at(self, level: Array) -> Array:
        """Return the control points at some levels.

        Parameters
        ----------
        level
            (n,) vertebral coordinates within the reach of the structure.

        Returns
        -------
        (n, points, 2) control points in mm, blended between the given levels.
        """
        k = np.clip(np.searchsorted(self.levels, level) - 1, 0, len(self.levels) - 2)
        t = (level - self.levels[k]) / (self.levels[k + 1] - self.levels[k])
        # Partly eased, so that a surface neither kinks nor stalls at a level.
        t = (0.65 * t + 0.35 * t * t * (3 - 2 * t))[:, None, None]
        return np.asarray((1 - t) * self.outlines[k] + t * self.outlines[k + 1])


@dataclass(frozen=True)
class ShapeAtlas:
    """Geometry of a body region: the vertebral levels and the structures, in painting order."""

    region: str
    body_part: str
    level_names: tuple[str, ...]
    first_level: int
    reference_level: int
    vertebra_height_mm: Array
    disc_height_mm: Array
    shift_mm: Array
    tilt_deg: Array
    fused_from: int
    half_width_mm: float
    front_mm: float
    back_mm: float
    structures: tuple[ClosedSurface, ...]


@lru_cache(maxsize=4)
def load_atlas(region: str) -> ShapeAtlas:
    """Read the atlas of a body region from the package.

    Raises
    ------
    UsageError
        If the region is unknown.

    Examples
    --------
    >>> load_atlas('lumbar').level_names[1]
    'L1'
    """
    if region not in REGIONS:
        raise UsageError(
            f'The phantom has no region {region!r}.', f'Use one or more of {", ".join(REGIONS)}.'
        )
    text = (resources.files('bids_muscle') / f'data/phantom/{region}.toml').read_text('utf-8')
    data = tomllib.loads(text)
    structures: list[ClosedSurface] = []
    for entry in data.pop('structure'):
        structures.extend(_expand(entry))
    arrays = ('vertebra_height_mm', 'disc_height_mm', 'shift_mm', 'tilt_deg')
    for name in arrays:
        data[name] = np.asarray(data[name], float)
    data['level_names'] = tuple(data['level_names'])
    return ShapeAtlas(structures=tuple(structures), **data)


def _expand(entry: dict) -> list[ClosedSurface]:
    """Turn one TOML table into structures: both sides, and every vertebra it is repeated at."""
    levels = np.array([outline['level'] for outline in entry['outlines']], float)
    points = np.array([outline['points'] for outline in entry['outlines']], float)
    if entry.get('symmetric'):
        # The right half lists front to back; the mirrored half closes the curve.
        left = points[:, ::-1] * (-1, 1)
        points = np.concatenate([points, left[:, 1:-1]], axis=1)
    envelope = (
        'skin' if entry.get('envelope') else 'trunk' if entry.get('inner_envelope') else None
    )
    base = {
        key: entry[key] for key in ('name', 'tissue', 'muscle', 'crust', 'column') if key in entry
    }
    base |= {
        'crust_mm': entry.get('crust_mm', 0.0),
        'sheath': entry.get('sheath', 1.0),
        'envelope': envelope,
    }
    sides = ('right', 'left') if entry.get('paired') else (entry.get('side', 'middle'),)
    # `scale` resizes a structure about its own centre, to match published sizes.
    centre = points.mean(axis=1, keepdims=True)
    points = centre + (points - centre) * entry.get('scale', 1.0)
    vertebrae = entry.get('repeat', [None])
    scales = entry.get('repeat_scale', [1.0] * len(vertebrae))
    structures = []
    for vertebra, scale in zip(vertebrae, scales, strict=True):
        for side in sides:
            mirrored = points * (-1, 1) if side == 'left' else points
            offset = 0 if vertebra is None else vertebra
            structures.append(
                ClosedSurface(levels=levels + offset, outlines=mirrored * scale, side=side, **base)
            )
    return structures


def closed_spline(points: Array, per_segment: int = 6) -> Array:
    """Return smooth closed polygons through control points (periodic Catmull-Rom splines).

    Parameters
    ----------
    points
        (..., n, 2) control points.
    per_segment
        Polygon corners per pair of control points.

    Returns
    -------
    (..., n * per_segment, 2) polygons.

    Examples
    --------
    >>> closed_spline(np.array([[0., 0.], [1., 0.], [1., 1.], [0., 1.]])).shape
    (24, 2)
    """
    p0, p1, p2, p3 = (np.roll(points, shift, axis=-2)[..., None, :] for shift in (1, 0, -1, -2))
    t = (np.arange(per_segment) / per_segment)[:, None]
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return np.asarray(curve.reshape(*points.shape[:-2], -1, 2))


def inset(polygon: Array, distance_mm: float) -> Array:
    """Move the corners of (..., n, 2) polygons inwards along their normals.

    Examples
    --------
    >>> square = np.array([[0., 0.], [4., 0.], [4., 4.], [0., 4.]])
    >>> inset(square, 2 ** 0.5).round(3).tolist()
    [[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]]
    """
    after, before = np.roll(polygon, -1, axis=-2), np.roll(polygon, 1, axis=-2)
    tangent = after - before
    normal = np.stack([-tangent[..., 1], tangent[..., 0]], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    area = np.sum(polygon[..., 0] * after[..., 1] - after[..., 0] * polygon[..., 1], axis=-1)
    return np.asarray(polygon + np.sign(area)[..., None, None] * distance_mm * normal)
