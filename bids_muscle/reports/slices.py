"""Choose and cut the slices of a volume that a page shows.

Volumes are in RAS+ voxel order. Slices are shown as radiologists read them: the patient's right on
the left of axial and coronal pictures, anterior on the left of sagittal ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import nibabel as nib

Plane = Literal['axial', 'coronal', 'sagittal']

#: Voxel axis across each plane, in RAS+ order.
ACROSS = {'sagittal': 0, 'coronal': 1, 'axial': 2}
#: Letters at the left, right, top and bottom edge of each plane and each view in 3-D.
EDGES = {
    'axial': ('R', 'L', 'A', 'P'),
    'coronal': ('R', 'L', 'S', 'I'),
    'sagittal': ('A', 'P', 'S', 'I'),
    'from the front': ('R', 'L', 'S', 'I'),
    'from behind': ('L', 'R', 'S', 'I'),
    'from below': ('R', 'L', 'A', 'P'),
}
#: Space around the muscles that is shown, so that a missed part can be seen.
MARGIN_MM = 15.0
#: A muscle is shown large in a slice that holds this part of its largest area.
LARGE = 0.9
#: A slice with less than this part of the largest area of all muscles holds little of them.
LITTLE = 0.1
PANEL_WIDTH_PX = 440


@dataclass(frozen=True)
class View:
    """The part of a RAS+ volume that a figure shows.

    Parameters
    ----------
    slices
        Axial slice numbers, from superior to inferior.
    box
        First and last-plus-one voxel along each of the three axes.
    unsure
        The axial slice in which the labels are least sure, or None.
    levels
        Vertebral level by axial slice, where it is known.
    windows
        Grey levels by axial slice; an image of another kind has its own.
    """

    slices: tuple[int, ...]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    unsure: int | None = None
    levels: Mapping[int, str] = field(default_factory=dict)
    windows: Mapping[int, tuple[float, float]] = field(default_factory=dict)


def muscle_areas(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Count the voxels of each muscle in each slice across an axis.

    Parameters
    ----------
    numbers
        Label numbers of shape (X, Y, Z), 0 where there is no muscle.
    axis
        The axis across the slices.

    Returns
    -------
    np.ndarray
        Shape (muscles that are there, slices), in rising order of the label number.

    Examples
    --------
    >>> muscle_areas(np.array([[[0, 3, 3, 5]], [[0, 0, 3, 0]]]), 2)
    array([[0, 1, 2, 0],
           [0, 0, 0, 1]])
    """
    slices = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
    highest = int(numbers.max(initial=0)) + 1
    areas = np.array([np.bincount(each, minlength=highest) for each in slices]).T[1:]
    return areas[areas.any(axis=1)]


def muscle_share(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Return how much there is to see of the muscles in each slice across an axis.

    Every muscle counts alike, however large it is: the sum over muscles of their area in the
    slice over their largest area in any slice. Parameters as in :func:`muscle_areas`.

    Examples
    --------
    >>> muscle_share(np.array([[[0, 1, 1, 2]]]), 2)
    array([0., 1., 1., 1.])
    """
    areas = muscle_areas(numbers, axis)
    return (areas / areas.max(axis=1, keepdims=True)).sum(axis=0)


def least_sure_slice(numbers: np.ndarray, confidence: np.ndarray) -> int | None:
    """Return the axial slice in which the labels of the muscles are least sure, or None.

    Slices with little muscle are left out: at its ends every muscle is unsure.

    Parameters
    ----------
    numbers
        Label numbers of shape (X, Y, Z), 0 where there is no muscle.
    confidence
        Probability of the label of each voxel, in any unit; same shape.
    """
    muscle = numbers > 0
    area = muscle.sum(axis=(0, 1))
    if not area.any():
        return None
    mean = (confidence * muscle).sum(axis=(0, 1)) / np.maximum(area, 1)
    return int(np.argmin(np.where(area >= LITTLE * area.max(), mean, np.inf)))


def choose_slices(areas: np.ndarray, count: int, unsure: int | None = None) -> tuple[int, ...]:
    """Pick the slices that tell most.

    Both ends, where a segmentation goes wrong; the slice that shows most of all muscles; the one
    that is least sure; then slices in which muscles are about as large as they get, until each is
    shown so; the rest in equal steps of what is seen, that is close where there are many muscles.

    Parameters
    ----------
    areas
        Area of each muscle in each slice, from :func:`muscle_areas`; shape (muscles, Z).
    count
        How many slices to pick at most.
    unsure
        The slice in which the labels are least sure.

    Returns
    -------
    tuple of int
        Slice numbers in falling order, that is from superior to inferior.

    Examples
    --------
    >>> choose_slices(np.array([[0, 1, 2, 3, 9, 3, 2, 1]]), 3)
    (7, 4, 1)
    >>> choose_slices(np.array([[9, 9, 9, 9, 0, 0], [0, 0, 0, 1, 5, 1]]), 4)
    (5, 4, 3, 0)
    """
    if not areas.any():
        areas = np.ones((1, areas.shape[1]))
    share = areas / areas.max(axis=1, keepdims=True)
    large = share >= LARGE
    seen = np.cumsum(share.sum(axis=0))
    covered = np.flatnonzero(areas.any(axis=0))
    best = int(np.argmax(share.sum(axis=0)))
    first = [best] if count == 1 else [covered[0], covered[-1], best]
    if unsure is not None:
        first.append(unsure)
    chosen = list(dict.fromkeys(map(int, first)))[:count]
    while len(chosen) < min(count, covered.size):
        lacking = ~large[:, chosen].any(axis=1)
        gain = large[lacking].sum(axis=0)
        if not gain.any():
            gain = np.abs(seen[:, None] - seen[chosen]).min(axis=1)
            gain[areas.sum(axis=0) == 0] = 0
        chosen.append(int(np.argmax(gain)))
    return tuple(sorted(chosen, reverse=True))


def plan_view(
    numbers: np.ndarray,
    body: np.ndarray,
    spacing_mm: Sequence[float],
    count: int,
    unsure: int | None = None,
) -> View:
    """Choose slices and crop to the muscles, or to the body where there is no muscle.

    Parameters
    ----------
    numbers
        Label numbers of shape (X, Y, Z), RAS+, 0 where there is no muscle.
    body
        Where there is a body; same shape.
    spacing_mm
        Voxel size along the three axes.
    count
        How many slices to show at most.
    unsure
        The axial slice in which the labels are least sure, to be among them.
    """
    shown = numbers > 0 if numbers.any() else body
    if not shown.any():
        shown = np.ones(numbers.shape, bool)
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        where = np.flatnonzero(shown.any(axis=others))
        margin = round(MARGIN_MM / spacing_mm[axis])
        size = shown.shape[axis]
        box.append((max(int(where[0]) - margin, 0), min(int(where[-1]) + 1 + margin, size)))
    areas = muscle_areas(numbers if numbers.any() else shown.astype(np.uint8), 2)
    return View(choose_slices(areas, count, unsure), (box[0], box[1], box[2]), unsure)


def cut(data: np.ndarray, plane: Plane, index: int, view: View) -> np.ndarray:
    """Return one slice as rows and columns of a picture in radiological convention.

    Parameters
    ----------
    data
        Volume of shape (X, Y, Z), RAS+.
    plane
        ``'axial'``, ``'coronal'`` or ``'sagittal'``.
    index
        Voxel number along the axis across the plane.
    view
        What of the slice is shown.

    Examples
    --------
    >>> volume = np.zeros((2, 2, 1)); volume[1, 1, 0] = 7  # right, anterior
    >>> cut(volume, 'axial', 0, View((0,), ((0, 2), (0, 2), (0, 1))))[0, 0]
    np.float64(7.0)
    """
    across = ACROSS[plane]
    picture = np.moveaxis(data, across, 0)[index]
    (r0, r1), (c0, c1) = (view.box[axis] for axis in range(3) if axis != across)
    picture = picture[r0:r1, c0:c1].T[::-1]
    # Both run from high to low voxel numbers: rows from A or S, columns from R (sagittal: A).
    return picture[:, ::-1]


def panel_size(
    plane: Plane, view: View, spacing_mm: Sequence[float], width: int
) -> tuple[int, int]:
    """Return (width, height) in pixels of a panel so that a millimetre is square."""
    across = ACROSS[plane]
    extent = [
        (view.box[axis][1] - view.box[axis][0]) * spacing_mm[axis]
        for axis in range(3)
        if axis != across
    ]
    return width, max(round(width * extent[1] / extent[0]), 1)


def slice_title(
    image: nib.Nifti1Image, view: View, index: int, plane: Plane = 'axial', break_: str = ', '
) -> str:
    """Return where a slice lies: x or y of the scanner in mm at the middle of the view.

    An axial slice has the number and the z that it has in the tables, its vertebral level, and a
    word where its labels are least sure, after `break_`.
    """
    across = ACROSS[plane]
    # In a tilted slice z depends on the place: tables, and --levels, have that of its middle.
    ends = [(0, length) for length in image.shape] if plane == 'axial' else view.box
    centre = [(low + high - 1) / 2 for low, high in ends]
    centre[across] = index
    mm = image.affine[across] @ [*centre, 1]
    place = f'{"xyz"[across]} {round(float(mm)):+d} mm'
    if plane != 'axial':
        return place
    level = f', {view.levels[index]}' if index in view.levels else ''
    note = f'{break_}least sure' if index == view.unsure else ''
    return f'slice {index}, {place}{level}{note}'
