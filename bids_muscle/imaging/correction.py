"""Label maps that a person drew or corrected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from nibabel.orientations import aff2axcodes

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.errors import BadDataError, EmptyImageError, GridMismatchError
from bids_muscle.imaging.conform import (
    VoxelGrid,
    grid_difference,
    grid_of,
    load_image,
    lost_position,
    make_image,
    to_canonical,
)

#: How far a number that was saved with a scale may lie from a whole one.
MOST_FRACTION = 0.25


def read_correction(
    path: Path, native: Nifti1Image, table: LabelTable, *, may_be_empty: bool = False
) -> Nifti1Image:
    """Read a corrected label map.

    Parameters
    ----------
    path
        The file; any voxel order, as 3D Slicer may change it.
    native
        The grid of the scan, which the map must cover.
    table
        What the numbers mean; 0 is no muscle.
    may_be_empty
        Whether a map of zeros alone is meant.

    Returns
    -------
    Nifti1Image
        Of the type of the table, (X, Y, Z), canonical, on the grid of the scan. Sentences for the
        report are in ``img.extra['warnings']`` (a tuple).

    Raises
    ------
    MissingInputError, UnreadableImageError, ImageShapeError
        If it cannot be read.
    GridMismatchError
        If it lies on another grid than the scan, or has lost its position and lies in another
        voxel order, so that right and left cannot be told.
    BadDataError
        If it holds other numbers than those of the table, or none.
    """
    try:
        labels = load_image(path, may_be_empty=may_be_empty)
    except EmptyImageError as error:
        raise BadDataError(
            f'{path} is empty: all voxels have the same label.',
            'Correct it again, or remove it to use the labels of the network.',
        ) from error
    warnings = labels.extra['warnings']
    scan, ordered = to_canonical(native), to_canonical(labels)
    if difference := grid_difference(grid_of(ordered), grid_of(scan)):
        warnings += (_say_lost(path.name, grid_of(labels), grid_of(native), difference),)
        ordered = to_canonical(make_image(np.asarray(labels.dataobj), native.affine))
    data = np.asarray(ordered.dataobj)
    strange = [value for value in np.unique(data) if value not in {0, *table.by_index}]
    if strange:
        raise BadDataError(
            f'{path} has labels that are not in the {table.region} label table: '
            f'{", ".join(f"{value:g}" for value in strange[:5])}.',
            'Use the numbers of the label table (the .tsv beside the label map), 0 elsewhere.',
        )
    img = make_image(data.astype(table.dtype), scan.affine)
    img.extra['warnings'] = warnings
    return img


def whole_numbers(img: Nifti1Image, path: Path) -> np.ndarray:
    """Return the numbers of a label map; what is not finite is 0.

    Numbers that were saved with a scale are not whole to the last digit, and are rounded. Between
    the labels 0 and 2 interpolation finds 1, another muscle: such a map has no right numbers.

    Parameters
    ----------
    img
        The map, in any voxel order.
    path
        Its file.

    Returns
    -------
    numpy.ndarray
        int32, of the shape of `img`.

    Raises
    ------
    BadDataError
        If values lie between whole numbers.

    Examples
    --------
    >>> scaled = Nifti1Image(np.float32([[[0, 1.0002, 2.9999]]]), np.eye(4))
    >>> whole_numbers(scaled, Path('map.nii')).tolist()
    [[[0, 1, 3]]]
    """
    data = np.asarray(img.dataobj)
    if data.dtype.kind != 'f':
        return data.astype(np.int32)
    data = np.nan_to_num(data, posinf=0, neginf=0)
    numbers = np.rint(data)
    between = data[np.abs(data - numbers) > MOST_FRACTION]
    if between.size:
        raise BadDataError(
            f'The label map {path} is interpolated: {between.size} voxels have values between '
            f'whole numbers, such as {between[0]:.2f}.',
            'Resample the original map again with nearest-neighbour interpolation.',
        )
    return numbers.astype(np.int32)


def _say_lost(name: str, labels: VoxelGrid, scan: VoxelGrid, difference: str) -> str:
    """Return what is to be said where a label map or its scan has lost its position.

    Parameters
    ----------
    name
        The label map.
    labels, scan
        Both grids in native voxel order: without a position, this order alone tells right from
        left, so that it must be the same in both.
    difference
        How the two differ in canonical order.

    Raises
    ------
    GridMismatchError
        If no position is lost, or more than the position.
    """
    if labels.located and scan.located and lost_position(labels, scan):
        lost = 'The scan' if labels.affine[:3, 3].any() else name
        return (
            f'{lost} has lost its position (origin 0, 0, 0 mm). The label map is taken to lie on '
            'the scan, voxel by voxel. Check left and right.'
        )
    placed = [grid.located and grid.affine[:3, 3].any() for grid in (labels, scan)]
    orders = [''.join(aff2axcodes(grid.affine)) for grid in (labels, scan)]
    ambiguous = (
        f' One of them has lost its position, and their voxel orders ({orders[0]} and '
        f'{orders[1]}) differ or are not known, so left and right cannot be told.'
        if placed[0] != placed[1]
        else ''
    )
    raise GridMismatchError(
        f'{name} and the scan do not share a grid: {difference}.{ambiguous}',
        'Save it again with the header of the scan, or draw it on the images of the scan.',
    )
