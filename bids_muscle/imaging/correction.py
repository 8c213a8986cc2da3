"""Label maps that a person drew or corrected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel import Nifti1Image

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.errors import BadDataError, EmptyImageError
from bids_muscle.imaging.conform import (
    grid_of,
    load_image,
    make_image,
    reconcile_grids,
    to_canonical,
)


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
        Of the type of the table, (X, Y, Z), canonical.

    Raises
    ------
    MissingInputError, UnreadableImageError, ImageShapeError
        If it cannot be read.
    GridMismatchError
        If it lies on another grid than the scan.
    BadDataError
        If it holds other numbers than those of the table, or none.
    """
    try:
        labels = to_canonical(load_image(path, may_be_empty=may_be_empty))
    except EmptyImageError as error:
        raise BadDataError(
            f'{path} is empty: all voxels have the same label.',
            'Correct it again, or remove it to use the labels of the network.',
        ) from error
    scan = to_canonical(native)
    reconcile_grids({path.name: grid_of(labels), 'the scan': grid_of(scan)})
    data = np.asarray(labels.dataobj)
    strange = [value for value in np.unique(data) if value not in {0, *table.by_index}]
    if strange:
        raise BadDataError(
            f'{path} has labels that are not in the {table.region} label table: '
            f'{", ".join(f"{value:g}" for value in strange[:5])}.',
            'Use the numbers of the label table (the .tsv beside the label map), 0 elsewhere.',
        )
    return make_image(data.astype(table.dtype), scan.affine)
