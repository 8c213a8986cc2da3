"""Discs of the spine in a stack of axial slices, seen in sagittal planes through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes
from numpy.polynomial import Polynomial

from bids_muscle.anatomy.labels import SPINE, LabelTable
from bids_muscle.errors import SegmentationError
from bids_muscle.segmentation.catalogue import find_model, packaged_models
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.vertebrae import DISC, name_spine

#: Planes beside each other, their distance, and the pixels in them, mm.
_PLANES, _APART_MM, _PIXEL_MM = 9, 4.0, 1.2
#: How many times vertebrae of a region are enlarged: the model knows the size of lumbar ones.
_ENLARGED = {'lumbar': 1.0, 'cervical': 1.7}
#: How far the planes reach behind the muscles and before them, mm as enlarged.
_BEHIND_MM, _BEFORE_MM = 10.0, 60.0
#: Share of the labelled voxels in front and behind that may be stray.
_STRAY = 0.02
#: Voxels farther away do not reach a point of a cubic spline, but for the rounding of its numbers.
_REACH = 32
#: Pixels cut off behind and below in each view. The model has seen no real neck: what it finds
#: there depends on where its strides of 16 pixels fall.
_VIEWS = {
    'lumbar': ((0, 0),),
    'cervical': ((0, 0), (2, 0), (4, 0), (6, 4), (8, 2), (10, 8), (12, 0), (14, 12)),
}
#: Discs of two views are the same up to this distance along the spine, mm as enlarged.
_SAME_MM = 4.0
#: Least share of the views that see a disc.
_LEAST_SUPPORT = 0.25
#: A stack lower than this, or planes less deep, mm as enlarged, show no two discs.
_LEAST_MM = 30.0


def find_discs(
    images: Mapping[str, Nifti1Image],
    labels: Nifti1Image,
    table: LabelTable,
    region: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the discs of the spine in an axial scan.

    Sagittal planes through the scan are interpolated about the middle between left and right
    muscles, which may curve, and segmented by the model of the package for them.

    Parameters
    ----------
    images
        By contrast, canonical.
    labels
        Label map of the muscles on their grid.
    table
        Of `labels`.
    region
        ``'lumbar'`` or ``'cervical'``.

    Returns
    -------
    discs_mm
        (N, 3) middle of each disc, RAS+ mm, from below; empty where none is seen.
    support
        (N,) share of the views that see it.
    """
    from scipy.ndimage import map_coordinates

    none = np.zeros((0, 3)), np.zeros(0)
    drawn, spacing = np.asarray(labels.dataobj), voxel_sizes(labels.affine)
    zoom = _ENLARGED[region]
    line = middle_line(drawn, table)
    if line is None or (drawn.shape[2] - 1) * spacing[2] * zoom < _LEAST_MM:
        return none
    rows = np.quantile(np.nonzero(drawn)[1], [_STRAY, 1 - _STRAY])
    step = np.array([_APART_MM, _PIXEL_MM, _PIXEL_MM]) / zoom / spacing
    low = max(rows[0] - _BEHIND_MM / zoom / spacing[1], 0)
    high = min(rows[-1] + _BEFORE_MM / zoom / spacing[1], drawn.shape[1] - 1)
    up = np.arange(0, drawn.shape[2] - 1 + 1e-6, step[2])
    sides, forward = (np.arange(_PLANES) - _PLANES // 2) * step[0], np.arange(low, high, step[1])
    if len(forward) * _PIXEL_MM < _LEAST_MM:
        return none
    x, y, z = np.broadcast_arrays(
        line(up)[None, None] + sides[:, None, None], forward[:, None], up[None, None]
    )
    near = [slice(max(int(at.min()) - _REACH, 0), int(at.max()) + _REACH + 1) for at in (x, y)]
    places = [x - near[0].start, y - near[1].start, z]
    planes = {
        name: map_coordinates(
            np.asarray(np.asanyarray(image.dataobj)[*near], np.float32), places, order=3
        ).clip(0)
        for name, image in images.items()
    }
    predictor = Predictor(find_model(str(packaged_models() / 'stacks'), SPINE))
    views = []
    for behind, below in _VIEWS[region]:
        cut = {name: plane[:, behind:, below:] for name, plane in planes.items()}
        views.append(np.add(_middles(predictor, cut), (0, behind, below)))
    middles, support = agreed(views)
    height = up[0] + middles[:, 2] * step[2]
    voxels = np.stack(
        [
            line(height) + (middles[:, 0] - _PLANES // 2) * step[0],
            low + middles[:, 1] * step[1],
            height,
        ],
        axis=1,
    )
    return apply_affine(labels.affine, voxels), support


def _middles(predictor: Predictor, planes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the middles of the discs in sagittal planes, (N, 3) voxel indices."""
    from scipy.ndimage import center_of_mass

    affine = np.diag([_APART_MM, _PIXEL_MM, _PIXEL_MM, 1])
    try:
        segmented = predictor.segment(
            {name: Nifti1Image(plane, affine) for name, plane in planes.items()}
        )
    except SegmentationError:  # no spine is seen
        return np.zeros((0, 3))
    discs = name_spine(
        np.asarray(segmented.labels.dataobj),
        np.asarray(segmented.confidence.dataobj),
        (_APART_MM, _PIXEL_MM, _PIXEL_MM),
        (DISC,),
    ).discs
    numbers = np.unique(discs[discs > 0])
    if not len(numbers):
        return np.zeros((0, 3))
    return np.array(center_of_mass(discs > 0, discs, numbers))


def agreed(views: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join the discs of several views of the same planes.

    Parameters
    ----------
    views
        (N, 3) voxel indices of the middles of the discs, of each view.

    Returns
    -------
    middles
        (M, 3) the median of each disc, from below.
    support
        (M,) share of the views that see it.
    """
    places = np.concatenate(views)
    which = np.repeat(np.arange(len(views)), [len(view) for view in views])
    order = np.argsort(places[:, 2])
    places, which = places[order], which[order]
    gaps = np.diff(places[:, 2]) > _SAME_MM / _PIXEL_MM
    found, support = [], []
    for own in np.split(np.arange(len(places)), np.flatnonzero(gaps) + 1):
        share = len(set(which[own])) / len(views)
        if share >= _LEAST_SUPPORT:
            found.append(np.median(places[own], axis=0))
            support.append(share)
    return np.array(found).reshape(-1, 3), np.array(support)


def middle_line(drawn: np.ndarray, table: LabelTable) -> Polynomial | None:
    """Return where the middle between left and right muscles lies, as a parabola over slices.

    Each pair of muscles counts in each slice as the root of the area of the smaller side: stray
    pieces lie anywhere.

    Parameters
    ----------
    drawn
        (X, Y, Z) label map, canonical.
    table
        Of its labels.

    Returns
    -------
    Polynomial or None
        First voxel index over the third; None where no muscle is on both sides of any slice.
    """
    columns = np.arange(drawn.shape[0])
    points: list[tuple[int, float, float]] = []
    for left, right in table.mirrored.items():
        if left >= right:
            continue
        sides = [(drawn == number).sum(axis=1) for number in (left, right)]
        areas = [side.sum(0) for side in sides]
        smaller = np.minimum(*areas)
        both = np.flatnonzero(smaller)
        means = [
            columns @ side[:, both] / area[both] for side, area in zip(sides, areas, strict=True)
        ]
        points += list(zip(both, (means[0] + means[1]) / 2, np.sqrt(smaller[both]), strict=True))
    if not points:
        return None
    slices, middles, weights = np.array(points, float).T
    degree = min(2, len(np.unique(slices)) - 1)
    domain = [0, max(drawn.shape[2] - 1, 1)]
    return Polynomial.fit(slices, middles, degree, domain=domain, w=weights)
