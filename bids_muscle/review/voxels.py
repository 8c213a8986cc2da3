"""Voxels on their way to the browser and back.

The browser gets every image of a scan in one order, from left to right, posterior to anterior and
inferior to superior, with an affine that is diagonal, so that no program there turns it. What
comes back is put into the voxel order of the scan here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import inv_ornt_aff, io_orientation

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.errors import BadDataError
from bids_muscle.imaging.conform import (
    grid_of,
    load_image,
    make_image,
    to_canonical,
    to_native,
)

#: Rounding images with a maximum in this range changes no grey level of a screen.
_ROUNDED = (255, 65535)


def canonical_affine(
    affine: np.ndarray, shape: tuple[int, int, int]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return affine and shape of an image once it is in canonical order.

    Examples
    --------
    >>> import numpy as np
    >>> affine, shape = canonical_affine(np.diag([-2.0, 3, 4, 1])[[1, 0, 2, 3]], (5, 6, 7))
    >>> affine[:3, 3].tolist(), shape
    ([0.0, -8.0, 0.0], (6, 5, 7))
    """
    ornt = io_orientation(affine)
    turned = [0, 0, 0]
    for axis, (place, _) in enumerate(ornt):
        turned[int(place)] = shape[axis]
    nx, ny, nz = turned
    return affine @ inv_ornt_aff(ornt, shape), (nx, ny, nz)


def display_volume(path: Path) -> bytes:
    """Return an image as NIfTI for the browser: canonical, with a diagonal affine.

    No value is scaled, since tools of the browser compare stored values. Those of a raw scan are
    rounded to 16 bits, half the size; fractions, and images with undefined voxels, are float32.

    Raises
    ------
    MissingInputError, UnreadableImageError, ImageShapeError, EmptyImageError
        If it cannot be read.
    """
    image = to_canonical(load_image(path))
    data = np.asarray(image.dataobj, dtype=np.float32)
    if np.isfinite(data).all() and data.min() >= 0 and _ROUNDED[0] <= data.max() <= _ROUNDED[1]:
        data = np.rint(data).astype(np.uint16)
    return nib.Nifti1Image(data, np.diag([*voxel_sizes(image.affine), 1.0])).to_bytes()


def label_positions(paths: Iterable[Path], table: LabelTable) -> np.ndarray:
    """Read the label maps of a scan for the browser, as one.

    Parameters
    ----------
    paths
        Its label maps; where two have a label, the later one counts.
    table
        What their numbers mean.

    Returns
    -------
    ndarray
        uint8, (X, Y, Z), canonical: 0 for no label, n for the n-th label of the table.

    Raises
    ------
    MissingInputError, UnreadableImageError, ImageShapeError
        If one cannot be read.
    BadDataError
        If it has a number that is not in the table.
    """
    numbers = np.array([0, *(label.index for label in table)])
    order = np.argsort(numbers)
    merged: np.ndarray | None = None
    for path in paths:
        data = np.asarray(to_canonical(load_image(path, may_be_empty=True)).dataobj)
        places = np.minimum(np.searchsorted(numbers, data, sorter=order), len(numbers) - 1)
        positions = order[places].astype(np.uint8)
        if not np.array_equal(numbers[positions], data):
            raise BadDataError(
                f'{path} has numbers that are not in the label table.',
                'Run the participant level.',
            )
        merged = positions if merged is None else np.where(positions > 0, positions, merged)
    assert merged is not None  # noqa: S101 - every scan has a map
    return merged


def native_labels(
    drawn: bytes, like: Path, tables: Mapping[str, LabelTable]
) -> dict[str, nib.Nifti1Image]:
    """Return what the browser sent as label maps in the voxel order of the scan.

    Parameters
    ----------
    drawn
        One byte for each voxel, as :func:`label_positions`, the first axis fastest.
    like
        A published label map, whose grid, affine and form codes the result gets.
    tables
        What the numbers of each map mean; the positions count through all of them.

    Returns
    -------
    dict
        A map for each table.

    Raises
    ------
    BadDataError
        If size or values do not fit the scan.
    """
    native = load_image(like, may_be_empty=True)
    affine, shape = canonical_affine(native.affine, grid_of(native).shape)
    if len(drawn) != int(np.prod(shape)):
        raise BadDataError(
            f'{len(drawn)} voxels came from the browser, but {like.name} has {np.prod(shape)}.',
            'Reload the page.',
        )
    positions = np.frombuffer(drawn, np.uint8).reshape(shape, order='F')
    count = sum(map(len, tables.values()))
    if positions.max() > count:
        raise BadDataError(
            f'The browser sent the label {positions.max()}, but there are {count}.',
            'Reload the page.',
        )
    maps = {}
    for key, table in tables.items():
        numbers = [label.index if own is table else 0 for own in tables.values() for label in own]
        data = np.array([0, *numbers], table.dtype)[positions]
        maps[key] = to_native(make_image(data, affine), native)
    return maps
