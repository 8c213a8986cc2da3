"""Reading images and their grids, checking them, and one voxel order for all of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import Opener
from nibabel.orientations import (
    OrientationError,
    aff2axcodes,
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from bids_muscle.errors import (
    EmptyImageError,
    GridMismatchError,
    ImageShapeError,
    MissingInputError,
    UnreadableImageError,
)
from bids_muscle.files import RESTORE, how_to_fetch, leads_to
from bids_muscle.imaging.extensions import MAX_HEADER_BYTES, check_extensions

#: Images that claim more voxels than this (1 GB as float32) are refused before they are read.
MAX_VOXELS = 2**28

#: Voxels with a longer edge, mm, are given in micrometres; voxels with an edge below the first of
#: the others in a scan that is smaller than the second, in centimetres.
_LONGEST_MM, _SHORTEST_MM, _SMALLEST_SCAN_MM = 60.0, 0.3, 80.0

#: Two grids are one when no corner lies farther apart than this share of the smallest voxel edge.
CORNER_TOLERANCE_VOXELS = 0.1

#: Where a header was lost and written again, voxel sizes may differ by rounding up to this share.
ZOOM_TOLERANCE = 0.01

_FORMAT_ERRORS = (ImageFileError, HeaderDataError, WrapStructError, ValueError)
_READ_ERRORS = (OverflowError, *_FORMAT_ERRORS, OSError, EOFError, zlib.error)


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Where the voxels of an image lie.

    Parameters
    ----------
    shape
        Number of voxels along each of three axes.
    affine
        (4, 4) voxel index to RAS+ mm.
    zooms
        Voxel edges in mm, taken from the affine.
    located
        False where the header has neither sform nor qform, so that position and orientation are
        nibabel's default rather than knowledge.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    zooms: tuple[float, float, float]
    located: bool = True


def grid_of(img: Nifti1Image) -> VoxelGrid:
    """Return the grid of an image in memory."""
    located = bool(img.header['sform_code'] or img.header['qform_code'])
    affine = np.asarray(img.affine, dtype=float)
    nx, ny, nz = img.shape[:3]
    dx, dy, dz = voxel_sizes(affine).tolist()
    return VoxelGrid((nx, ny, nz), affine, (dx, dy, dz), located)


def read_grid(path: Path) -> VoxelGrid:
    """Read the grid of an image file from its header alone.

    Parameters
    ----------
    path
        A NIfTI file.

    Raises
    ------
    MissingInputError
        If the file is absent or may not be read.
    UnreadableImageError
        If it is not NIfTI, or holds colours or complex numbers.
    ImageShapeError
        If it is not three-dimensional (trailing axes of one element are dropped), has no voxel
        spacing or one that is not in mm, or claims more than `MAX_VOXELS` voxels.
    """
    return _grid_from_header(_open(path), path)


def load_image(path: Path, *, may_be_empty: bool = False) -> Nifti1Image:
    """Read a three-dimensional image, whole and checked.

    Intensities are scaled by the header's slope and intercept. Voxels that are not finite become
    NaN: undefined, and a sentence in ``img.extra['warnings']`` (a tuple) tells their number.

    Parameters
    ----------
    path
        A NIfTI file.
    may_be_empty
        Whether all voxels may be equal, as in a label map of a scan in which nothing was found.

    Returns
    -------
    Nifti1Image
        float32, (X, Y, Z), native voxel order; its file name is that of `path`.

    Raises
    ------
    MissingInputError, UnreadableImageError, ImageShapeError
        As :func:`read_grid`; also UnreadableImageError if the data end early or are corrupt.
    EmptyImageError
        If all finite voxels are equal or none is finite.
    """
    lazy = _open(path)
    grid = _grid_from_header(lazy, path)
    data = _read_data(lazy, path).reshape(grid.shape)
    finite = np.isfinite(data)
    warnings = _header_warnings(lazy, path)
    if not finite.all():
        n_bad = int(data.size - np.count_nonzero(finite))
        if n_bad == data.size:
            raise EmptyImageError(
                f'{path} has no finite voxel: all are NaN or infinite.', 'Convert the scan again.'
            )
        data[~finite] = np.nan
        warnings += (
            f'{path.name} has {n_bad} NaN or infinite voxels. Fat is not measured there, and the '
            'network reads them as 0.',
        )
    if not may_be_empty and np.nanmin(data) == np.nanmax(data):
        raise EmptyImageError(
            f'{path} is empty: every voxel is {np.nanmin(data):g}.',
            'Convert the scan again, or exclude it with --bids-filter-file.',
        )
    img = make_image(data, grid.affine, located=grid.located)
    img.set_filename(str(path))
    img.extra['warnings'] = warnings
    return img


def make_image(data: np.ndarray, affine: np.ndarray, *, located: bool = True) -> Nifti1Image:
    """Build an image whose sform and qform both say where it lies.

    Parameters
    ----------
    data
        (X, Y, Z) array; its type is kept.
    affine
        (4, 4) voxel index to RAS+ mm.
    located
        Whether the affine is known. If not, it must be the one that nibabel assumes for a header
        without any, and both form codes stay 0.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_zooms(voxel_sizes(affine))
    header.set_xyzt_units('mm', 'sec')
    if located:
        header.set_sform(affine, code='scanner')
        header.set_qform(affine, code='scanner')
    return Nifti1Image(data, affine, header)


def in_one_world(one: VoxelGrid, other: VoxelGrid) -> bool:
    """Return whether places on two grids can be compared: both are known, or it is one grid.

    Examples
    --------
    >>> known = VoxelGrid((9, 9, 9), np.eye(4), (1, 1, 1))
    >>> unknown = VoxelGrid((9, 9, 5), np.eye(4), (1, 1, 1), located=False)
    >>> in_one_world(known, unknown), in_one_world(unknown, unknown)
    (False, True)
    """
    return (one.located and other.located) or not grid_difference(one, other)


def reconcile_grids(grids: Mapping[str, VoxelGrid]) -> tuple[np.ndarray, list[str]]:
    """Find the one affine that images of one acquisition share.

    Converters sometimes lose the position of one image and not of its partner: its origin is then
    exactly zero, or the header has no affine at all. Such an image takes the affine of the
    partner, and a warning says so. Nothing is ever resampled.

    Parameters
    ----------
    grids
        Grid by name (of the file or of the contrast); the names appear in messages.

    Returns
    -------
    affine
        (4, 4) voxel index to RAS+ mm.
    warnings
        One sentence for each image whose affine was replaced.

    Raises
    ------
    GridMismatchError
        If shape, voxel size, orientation or position truly differ.

    Examples
    --------
    >>> import numpy as np
    >>> real = np.diag([2.0, 2, 2, 1]); real[:3, 3] = -90, -80, 10
    >>> grids = {'w.nii': VoxelGrid((9, 9, 9), np.diag([2.0, 2, 2, 1]), (2, 2, 2)),
    ...          'f.nii': VoxelGrid((9, 9, 9), real, (2, 2, 2))}
    >>> affine, warnings = reconcile_grids(grids)
    >>> affine[:3, 3].tolist()
    [-90.0, -80.0, 10.0]
    >>> warnings
    ['w.nii has lost its position (origin 0, 0, 0 mm). That of f.nii (-90, -80, 10 mm) is used.']
    """
    reference = max(grids, key=lambda name: _trust(grids[name]))  # the first of the best
    warnings = []
    if not grids[reference].located:
        warnings.append(
            f'The header of {reference} has neither sform nor qform, so its orientation is '
            'assumed. Check left and right.'
        )
    for name, grid in grids.items():
        difference = grid_difference(grid, grids[reference])
        if not difference:
            continue
        if not lost_position(grid, grids[reference]):
            raise GridMismatchError(
                f'{name} and {reference} do not share a grid: {difference}.',
                'Give images of one acquisition, or resample one of them onto the other.',
            )
        origin = ', '.join(f'{value:.4g}' for value in grids[reference].affine[:3, 3])
        lost = 'origin 0, 0, 0 mm' if grid.located else 'neither sform nor qform'
        warnings.append(
            f'{name} has lost its position ({lost}). That of {reference} ({origin} mm) is used.'
        )
    return grids[reference].affine, warnings


def grid_difference(
    a: VoxelGrid, b: VoxelGrid, *, tolerance_voxels: float = CORNER_TOLERANCE_VOXELS
) -> str:
    """Return how two grids differ, or return an empty string.

    Parameters
    ----------
    a, b
        The grids, compared voxel by voxel: another voxel order is a difference.
    tolerance_voxels
        How far apart corners of one grid may lie, in shares of the smallest voxel edge.
    """
    if a.shape != b.shape:
        return f'shape {_join(a.shape)} and {_join(b.shape)} voxels'
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(a.shape) - 1)
    shift_mm = apply_affine(a.affine, corners) - apply_affine(b.affine, corners)
    if np.linalg.norm(shift_mm, axis=1).max() <= tolerance_voxels * min(a.zooms + b.zooms):
        return ''
    if not np.allclose(a.zooms, b.zooms, rtol=ZOOM_TOLERANCE):
        return f'voxel size {_join(a.zooms)} and {_join(b.zooms)} mm'
    if not _same_direction(a, b):
        codes = ''.join(aff2axcodes(a.affine)), ''.join(aff2axcodes(b.affine))
        if codes[0] == codes[1]:
            degrees = _turn_deg(a.affine[:3, :3] / a.zooms, b.affine[:3, :3] / b.zooms)
            return f'orientation differs by {degrees:.2g} degrees'
        return f'orientation differs ({codes[0]} and {codes[1]})'
    return f'origin {_join(a.affine[:3, 3], ", ")} and {_join(b.affine[:3, 3], ", ")} mm'


def lost_position(grid: VoxelGrid, reference: VoxelGrid) -> bool:
    """Whether two grids, voxel by voxel, differ only because one of them lost its position.

    Parameters
    ----------
    grid, reference
        The first may have neither sform nor qform; where it has, both lie in the same directions.
    """
    if grid.shape != reference.shape or _trust(grid) == _trust(reference):
        return False
    same_size = np.allclose(grid.zooms, reference.zooms, rtol=ZOOM_TOLERANCE)
    return same_size and (not grid.located or _same_direction(grid, reference))


def to_canonical(img: Nifti1Image) -> Nifti1Image:
    """Reorder voxels to the order closest to RAS+, without resampling.

    Parameters
    ----------
    img
        (X, Y, Z) image in any voxel order.

    Returns
    -------
    Nifti1Image
        The same voxels; axis 0 runs to the right, 1 to the front, 2 upwards, as near as the
        oblique acquisition allows.
    """
    ornt = io_orientation(img.affine)
    data = np.ascontiguousarray(apply_orientation(np.asanyarray(img.dataobj), ornt))
    affine = img.affine @ inv_ornt_aff(ornt, img.shape)
    return make_image(data, affine)


def to_native(img: Nifti1Image, like: Nifti1Image) -> Nifti1Image:
    """Undo :func:`to_canonical`: put voxels back in the order of the native image.

    Parameters
    ----------
    img
        Canonical image; its type is kept.
    like
        Native image whose voxel order, affine and form codes the result gets.

    Raises
    ------
    GridMismatchError
        If `img` is not on the canonical grid of `like`.
    """
    ornt = io_orientation(like.affine)
    expected = like.affine @ inv_ornt_aff(ornt, like.shape)
    back = ornt_transform(io_orientation(expected), ornt)
    data = apply_orientation(np.asanyarray(img.dataobj), back)
    if data.shape != like.shape or not np.allclose(img.affine, expected, atol=1e-3):
        raise GridMismatchError(
            f'A result of shape {img.shape} does not fit the scan it was made from {like.shape}.',
            'Report this as a fault of bids_muscle.',
        )
    return make_image(np.ascontiguousarray(data), like.affine, located=grid_of(like).located)


def _open(path: Path) -> Nifti1Image:
    """Read the header of a NIfTI file."""
    path = Path(path)
    if fetch := how_to_fetch(path):
        raise MissingInputError(f'{path} is a placeholder of git-annex or Git LFS.', fetch)
    if target := leads_to(path):
        raise MissingInputError(f'{path} is a link to {target}, which is not there.', RESTORE)
    try:
        # Opening a pipe would wait for ever.
        if not path.is_file() and path.exists() and not path.is_dir():
            raise UnreadableImageError(f'{path} is not a regular file.', 'Copy the scan again.')
        with path.open('rb') as stream:
            empty = not stream.read(1)
        if empty:
            raise UnreadableImageError(f'{path} is an empty file.', 'Copy it again.')
        check_extensions(path)
        img = nib.load(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise MissingInputError(
            f'{path} cannot be read: {error.strerror}.', 'Check the path and its permissions.'
        ) from error
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    if not isinstance(img, Nifti1Image):
        raise UnreadableImageError(
            f'{path} is {type(img).__name__}, not NIfTI.', 'Convert it to .nii.gz.'
        )
    kind = img.get_data_dtype()
    if kind.fields is not None or kind.kind not in 'iuf':
        raise UnreadableImageError(
            f'{path} has {kind} values, not magnitudes.', 'Give a grey-scale magnitude image.'
        )
    return img


def _grid_from_header(img: Nifti1Image, path: Path) -> VoxelGrid:
    shape = img.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        size = ' x '.join(str(n) for n in shape)
        raise ImageShapeError(
            f'{path} is {len(shape)}-dimensional ({size}), not three-dimensional.',
            'Split it into one volume per file, each named by what it shows, such as '
            'acq-water_T1w and acq-fat_T1w.',
        )
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise ImageShapeError(
            f'{path} claims {" x ".join(str(n) for n in shape)} voxels, more than any MRI scan.',
            'Check the header, or crop the image.',
        )
    grid = grid_of(img)
    volume_mm3 = abs(np.linalg.det(grid.affine[:3, :3]))
    if not np.isfinite(grid.affine).all() or volume_mm3 < 1e-6 or _lacks_spacing(img, path):
        raise ImageShapeError(
            f'The header of {path} has no usable voxel spacing.',
            'Convert the scan again from DICOM.',
        )
    extent_mm = max(n * zoom for n, zoom in zip(grid.shape, grid.zooms, strict=True))
    if max(grid.zooms) > _LONGEST_MM or (
        min(grid.zooms) < _SHORTEST_MM and extent_mm < _SMALLEST_SCAN_MM
    ):
        raise ImageShapeError(
            f'The header of {path} gives voxels of {_join(grid.zooms)}, which cannot be mm.',
            'Convert the scan again from DICOM, with its voxel size in mm.',
        )
    return grid


def _header_warnings(img: Nifti1Image, path: Path) -> tuple[str, ...]:
    """Return where the parts of a header contradict each other; nibabel takes the sform."""
    header = img.header
    stored = _stored_spacing(img, path)
    if not header['sform_code']:
        if (stored >= 0).all():
            return ()
        return (f'The header of {path.name} has a negative voxel spacing. Its sign is ignored.',)
    affine = header.get_sform()
    zooms = tuple(voxel_sizes(affine).tolist())
    said = []
    if not np.allclose(stored, zooms, rtol=ZOOM_TOLERANCE):
        sizes = f'{_join(stored)} and {_join(zooms)} mm'
        said.append(
            f'The voxel spacing and the sform of {path.name} disagree ({sizes}). The sform is '
            'used.'
        )
    if not header['qform_code']:
        return tuple(said)
    try:
        qform = header.get_qform()
        if not np.isfinite(qform).all():
            raise ValueError('a direction is not a number')
        aff2axcodes(qform)
    except (HeaderDataError, OrientationError, ValueError, np.linalg.LinAlgError):
        return (*said, f'The qform of {path.name} is not a rotation. The sform is used.')
    mirrored = np.linalg.det(qform[:3, :3]) * np.linalg.det(affine[:3, :3]) < 0
    if said and not mirrored:  # with another spacing they disagree anyway
        return tuple(said)
    nx, ny, nz = (*img.shape, 1, 1)[:3]
    forms = (VoxelGrid((nx, ny, nz), each, zooms) for each in (qform, affine))
    # The sform is used in any case: less than a voxel is no news.
    difference = grid_difference(*forms, tolerance_voxels=1.0)
    if not difference:
        return tuple(said)
    mirror = ' One mirrors the other: check left and right.' if mirrored else ''
    return (
        *said,
        f'The qform and the sform of {path.name} disagree ({difference}). The sform is used.'
        f'{mirror}',
    )


def _lacks_spacing(img: Nifti1Image, path: Path) -> bool:
    """Whether the affine rests on a voxel edge of 0, which nibabel would replace by 1 mm."""
    stored = _stored_spacing(img, path)
    return not img.header['sform_code'] and not (np.isfinite(stored) & (stored != 0)).all()


def _stored_spacing(img: Nifti1Image, path: Path) -> np.ndarray:
    """Return the three voxel edges as stored, before nibabel mends them."""
    with Opener(str(path)) as stream:
        raw = type(img.header).from_fileobj(stream, check=False)
    return np.asarray(raw['pixdim'][1:4], float)


def _read_data(img: Nifti1Image, path: Path) -> np.ndarray:
    """Read all voxels as float32; a gzip file is read to its checksum."""
    try:
        proxy = cast('ArrayProxy', img.dataobj)
        if proxy.offset > MAX_HEADER_BYTES:
            raise ValueError(f'its data would begin after {proxy.offset} bytes')
        if path.suffix != '.gz':
            return np.array(img.get_fdata(dtype=np.float32))
        n_bytes = proxy.offset + int(np.prod(img.shape)) * proxy.dtype.itemsize
        with gzip.open(path) as stream:
            content = stream.read(n_bytes)
            stream.read(1)  # at the end of the stream gzip compares the checksum
        return np.array(type(img).from_bytes(content).get_fdata(dtype=np.float32))
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableImageError:
    reason = str(error).splitlines()[0].rstrip('.') if str(error) else type(error).__name__
    return UnreadableImageError(
        f'{path} is truncated, corrupt or not NIfTI ({reason}).', 'Copy or convert it again.'
    )


def _trust(grid: VoxelGrid) -> int:
    """How much the position of a grid says: none, zero origin, or a real one."""
    return int(grid.located) + int(grid.located and bool(grid.affine[:3, 3].any()))


def _same_direction(a: VoxelGrid, b: VoxelGrid) -> bool:
    return np.allclose(a.affine[:3, :3] / a.zooms, b.affine[:3, :3] / b.zooms, atol=1e-3)


def _join(values: Iterable[float], separator: str = ' x ') -> str:
    return separator.join(f'{value:.5g}' for value in values)


def _turn_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two directions, degrees."""
    cosine = (np.trace(a @ np.linalg.inv(b)) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
