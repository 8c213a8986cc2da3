"""The muscles in 3-D: still views of a label map, in the manner of Weber 2021, Figure 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.reports import panels
from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    import nibabel as nib

    from bids_muscle.anatomy.labels import LabelTable

#: Position of the viewer: turned about the body axis from the front towards the patient's right,
#: raised above the horizontal; degrees.
VIEWS = {
    'from the front': (0, 0),
    'from behind': (180, 0),
    'from below': (0, -90),
    'angled': (35, 25),
}
#: The picture is drawn at double size and then made smaller, so that edges are smooth.
OVERSAMPLING = 2
#: More pixels than this for the smallest side of a voxel show nothing more.
PIXELS_PER_VOXEL = 4
#: Points of the grid on which the surfaces are sought; more would not be seen.
GRID_POINTS = 2_000_000
#: Distances from a surface are known up to here, mm; no ray takes longer steps.
REACH_MM = 8.0
#: Steps of a ray, and how near to a surface it has arrived, mm.
MAX_STEPS = 120
NEAR_MM = 0.15
#: A jump in depth that is drawn as an edge, mm.
EDGE_MM = 4.0
#: Light from above the viewer's left shoulder (right, up, towards the viewer), and the share that
#: reaches every face.
LIGHT = np.array((-0.45, 0.45, 0.77))
AMBIENT = 0.4


@dataclass(frozen=True)
class _Field:
    """Distance to the nearest surface and its label, on a grid of cubes.

    Parameters
    ----------
    distance_mm
        Shape (X, Y, Z), positive inside a muscle, clipped to ``REACH_MM``.
    labels
        Same shape: the label of the nearest muscle.
    step_mm
        Side of a cube.
    """

    distance_mm: np.ndarray
    labels: np.ndarray
    step_mm: float


def draw_surfaces(labels: nib.Nifti1Image, table: LabelTable) -> bytes:
    """Draw the muscles from four sides, without perspective, to one scale.

    Parameters
    ----------
    labels
        Label numbers of shape (X, Y, Z), RAS+.
    table
        Labels and their colours.

    Returns
    -------
    WebP.
    """
    numbers = np.asarray(labels.dataobj).astype(np.int16)
    spacing = np.array(labels.header.get_zooms()[:3], float)
    if not numbers.any():
        empty = np.zeros((cuts.PANEL_WIDTH_PX // 2, cuts.PANEL_WIDTH_PX, 3), np.uint8)
        return panels.to_webp(panels.annotate(empty, 'angled', 'no muscle'))
    field = _distances(numbers, spacing)
    size_mm = np.array(field.distance_mm.shape) * field.step_mm
    cameras = {name: _axes(*where) for name, where in VIEWS.items()}
    extent = np.max([np.abs(axes) @ size_mm for axes in cameras.values()], axis=0)
    width = min(cuts.PANEL_WIDTH_PX, int(np.ceil(PIXELS_PER_VOXEL * extent[0] / spacing.min())))
    pixel_mm = extent[0] / width / OVERSAMPLING
    shape = round(extent[1] / pixel_mm), width * OVERSAMPLING
    colours = np.zeros((int(numbers.max()) + 1, 3), np.float32)
    for label in table:
        if label.index < len(colours):
            colours[label.index] = label.rgb
    views = [
        panels.annotate(_render(field, axes, shape, pixel_mm, colours), name, name)
        for name, axes in cameras.items()
    ]
    return panels.to_webp(panels.montage(views, 2))


def _axes(turn_deg: float, rise_deg: float) -> np.ndarray:
    """Return the directions right, up and towards the viewer in RAS+, as rows.

    Examples
    --------
    >>> _axes(0, 0).round().tolist()  # from the front: the patient's right on the left
    [[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    turn, rise = np.radians([turn_deg, rise_deg])
    level = np.array((np.sin(turn), np.cos(turn), 0.0))
    towards = np.cos(rise) * level + np.sin(rise) * np.array((0.0, 0.0, 1.0))
    up = np.cos(rise) * np.array((0.0, 0.0, 1.0)) - np.sin(rise) * level
    return np.array((np.cross(up, towards), up, towards)) + 0.0


def _distances(numbers: np.ndarray, spacing: np.ndarray) -> _Field:
    """Interpolate the shapes of the muscles between slices by their distances (Raya 1990)."""
    from scipy.ndimage import distance_transform_edt, find_objects, map_coordinates

    where = [np.flatnonzero((numbers > 0).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    low = np.array([each[0] for each in where]) * spacing - REACH_MM
    high = np.array([each[-1] for each in where]) * spacing + REACH_MM
    step = max(float(np.cbrt(np.prod(high - low) / GRID_POINTS)), float(spacing.min()))
    shape = np.ceil((high - low) / step).astype(int) + 1
    distance = np.full(shape, -REACH_MM, np.float32)
    nearest = np.zeros(shape, numbers.dtype)
    pad = np.ceil(REACH_MM / spacing).astype(int) + 1
    for label, box in enumerate(find_objects(numbers), start=1):
        if box is None:
            continue
        mask = np.pad(numbers[box] == label, [(n, n) for n in pad])
        own = distance_transform_edt(mask, spacing) - distance_transform_edt(~mask, spacing)
        own = np.clip(own, -REACH_MM, REACH_MM).astype(np.float32)
        origin = (np.array([part.start for part in box]) - pad) * spacing
        first = np.maximum(np.ceil((origin - low) / step).astype(int), 0)
        last = np.floor((origin + (np.array(own.shape) - 1) * spacing - low) / step).astype(int)
        target = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
        lines = [
            ((np.arange(n)[part] * step + corner) - start) / mm
            for n, part, corner, start, mm in zip(shape, target, low, origin, spacing, strict=True)
        ]
        points = np.meshgrid(*lines, indexing='ij')
        own = map_coordinates(own, points, order=1, mode='nearest')
        closer = own > distance[target]
        distance[target][closer] = own[closer]
        nearest[target][closer] = label
    return _Field(distance, nearest, step)


def _render(
    field: _Field,
    axes: np.ndarray,
    shape: tuple[int, int],
    pixel_mm: float,
    colours: np.ndarray,
) -> np.ndarray:
    """Follow a ray through each pixel to the first surface and shade it; RGB, uint8."""
    from PIL import Image
    from scipy.ndimage import map_coordinates

    rows, columns = (n.ravel() for n in np.indices(shape))
    right, up, towards = (axes / field.step_mm).astype(np.float32)
    depth = _start_mm(field, axes, shape, pixel_mm).ravel()
    rays = np.flatnonzero(np.isfinite(depth))
    middle = (np.array(field.distance_mm.shape) - 1) / 2
    # Where each ray is now, in voxels.
    points = (
        np.multiply.outer(right, (columns[rays] - (shape[1] - 1) / 2) * pixel_mm)
        + np.multiply.outer(up, ((shape[0] - 1) / 2 - rows[rays]) * pixel_mm)
        + np.multiply.outer(towards, depth[rays])
        + middle[:, None]
    ).astype(np.float32)
    end = -float(np.abs(axes[2]) @ field.distance_mm.shape * field.step_mm / 2)
    arrived: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(MAX_STEPS):
        away = -_sample(field.distance_mm, points)
        hit = away < NEAR_MM
        arrived.append((rays[hit], points[:, hit]))
        left = ~hit & (depth[rays] > end)
        rays, away = rays[left], away[left]
        depth[rays] -= away
        points = points[:, left] - towards[:, None] * away
        if not rays.size:
            break
    rays = np.concatenate([each for each, _ in arrived])
    points = np.concatenate([each for _, each in arrived], axis=1)
    outwards = np.array(
        [
            _sample(field.distance_mm, points - shift) - _sample(field.distance_mm, points + shift)
            for shift in np.eye(3, dtype=np.float32)[:, :, None]
        ]
    )
    outwards /= np.maximum(np.linalg.norm(outwards, axis=0), 1e-6)
    shade = AMBIENT + (1 - AMBIENT) * np.clip((LIGHT @ axes) @ outwards, 0, 1)
    label = np.zeros(rows.size, np.intp)
    label[rays] = map_coordinates(field.labels, points, order=0)
    picture = np.zeros((rows.size, 3), np.float32)
    picture[rays] = colours[label[rays]] * shade[:, None]
    depth[label == 0] = end
    picture[_edges(label.reshape(shape), depth.reshape(shape)).ravel()] *= 0.25
    rgb = Image.fromarray(picture.reshape(*shape, 3).round().astype(np.uint8))
    return np.asarray(rgb.reduce(OVERSAMPLING))


def _start_mm(
    field: _Field, axes: np.ndarray, shape: tuple[int, int], pixel_mm: float
) -> np.ndarray:
    """Return how near to the viewer each ray may begin, mm from the middle; -inf: it hits nothing.

    The nearest muscle in each block of pixels, and in the blocks around it.
    """
    from scipy.ndimage import maximum_filter

    block = int(np.ceil(2 * field.step_mm / pixel_mm))
    # The skin of a muscle is enough.
    skin = np.abs(field.distance_mm - field.step_mm / 2) < 1.5 * field.step_mm
    inside = np.argwhere(skin)
    seen = ((inside - (np.array(field.distance_mm.shape) - 1) / 2) * field.step_mm) @ axes.T
    nearest = np.full([-(-n // block) for n in shape], -np.inf)
    row = ((shape[0] - 1) / 2 - seen[:, 1] / pixel_mm) // block
    column = ((shape[1] - 1) / 2 + seen[:, 0] / pixel_mm) // block
    where = [
        np.clip(each, 0, n - 1).astype(int)
        for each, n in zip((row, column), nearest.shape, strict=True)
    ]
    np.maximum.at(nearest, tuple(where), seen[:, 2] + field.step_mm)
    blocks = maximum_filter(nearest, 3)
    return blocks.repeat(block, axis=0).repeat(block, axis=1)[: shape[0], : shape[1]]


def _sample(distance_mm: np.ndarray, points: np.ndarray) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    return map_coordinates(distance_mm, points, order=1, cval=-REACH_MM, output=np.float32)


def _edges(labels: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    """Mark pixels where one muscle ends before another, or before itself."""
    edges = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        jump = np.diff(labels, axis=axis) != 0
        jump |= np.abs(np.diff(depth_mm, axis=axis)) > EDGE_MM
        edges |= np.insert(jump, 0, False, axis=axis)
    return edges
