"""The table of measures of one scan: one row per muscle and side."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel import Nifti1Image
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from bids_muscle.anatomy.labels import Label, LabelTable
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.errors import BadDataError, GridMismatchError
from bids_muscle.imaging.dixon import fat_fraction as fat_fraction_of
from bids_muscle.measurement.fat import Fat, mean_fraction, measure_fat
from bids_muscle.measurement.size import measure_size
from bids_muscle.measurement.thresholds import Method, threshold_fat

if TYPE_CHECKING:
    import pandas as pd

#: Fewer voxels than this say nothing about a muscle.
MIN_VOXELS = 10
#: Above this share of voxels without signal, fat measures describe the rest, not the muscle.
MAX_EXCLUDED = 0.5

#: Thresholds whose share of fat stands in the table.
THRESHOLDS: tuple[Method, ...] = ('kmeans2', 'gmm2', 'gmm3')
#: Contrasts in which fat is brighter than muscle unless it is suppressed.
_BRIGHT_FAT = ('T1w', 'T2w', 'PDw')

_ABSENT = 'not found in the field of view'
_TRUNCATED = 'reaches the edge of the image, so volume and length may be of a part only'
_SWAPPED = 'fat and water are exchanged in {} of {} voxels, which are left out of MFI'
_BOUNDED = (
    'fat and water come from magnitude in- and opposed-phase images: no voxel can exceed 50 % fat'
)


@cache
def dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each column: LongName, Description, Units, Source."""
    path = resources.files('bids_muscle') / 'data/dictionaries/morph.json'
    definitions: dict[str, dict[str, str]] = json.loads(path.read_text(encoding='utf-8'))
    return definitions


def measure_scan(
    labels: Nifti1Image,
    table: LabelTable,
    *,
    water: Nifti1Image | None = None,
    fat: Nifti1Image | None = None,
    fat_fraction: Nifti1Image | None = None,
    intensity: Nifti1Image | None = None,
    bounded: bool = False,
    fat_suppressed: bool = False,
    swap: NDArray[np.bool_] | None = None,
    levels: SliceLevels | None = None,
    contrast: str,
) -> pd.DataFrame:
    """Measure all muscles of a scan.

    Parameters
    ----------
    labels
        (X, Y, Z) label map.
    table
        Its labels.
    water, fat
        Signals on the grid of `labels`, NaN where undefined, without bias correction: their ratio
        does not need it.
    fat_fraction
        Fat fraction 0 to 1 on the grid of `labels`, NaN where undefined; without it, that of
        `water` and `fat` wherever their sum is positive.
    intensity
        T1w, T2w or PDw image without bias field, on the grid of `labels`, for thresholds.
    bounded
        Whether fat and water come from in- and opposed-phase magnitudes.
    fat_suppressed
        Whether fat is dark in `intensity`.
    swap
        (X, Y, Z) mask, in the voxel order of `labels`, of where fat and water are exchanged; these
        voxels are left out of fat measures and counted.
    levels
        Vertebral level of each axial slice.
    contrast
        What the scan is, for the reason why there is no fat measure: ``'dixon'``, ``'T2w'`` ...

    Returns
    -------
    pandas.DataFrame
        One row per label of `table`, in its order, also for a muscle that is not there. Columns
        as in :func:`dictionary`; what cannot be trusted is missing, and ``reason`` says why.

    Raises
    ------
    GridMismatchError
        If an image, `swap` or `levels` is not on the grid of `labels`.
    BadDataError
        If the label map has numbers that are not in `table`.
    """
    import pandas as pd

    numbers = _checked_numbers(labels, table)
    signals = {
        name: _signal(image, labels, name)
        for name, image in (
            ('water', water),
            ('fat', fat),
            ('fat fraction', fat_fraction),
            ('intensity', intensity if contrast in _BRIGHT_FAT else None),
        )
    }
    if swap is not None:
        _check_grid(swap.shape, labels.affine, labels, 'fat-water swap mask')
        signals['swap'] = swap
    # Voxels in RAS+ order: slices run from inferior to superior, however the scan is stored.
    order = io_orientation(labels.affine)
    affine = labels.affine @ inv_ornt_aff(order, labels.shape)
    numbers = apply_orientation(numbers, order)
    for name, data in signals.items():
        signals[name] = None if data is None else apply_orientation(data, order)
    if levels is not None and len(levels.names) != numbers.shape[2]:
        raise GridMismatchError(
            f'There are levels of {len(levels.names)} slices for a scan of {numbers.shape[2]}.',
            'Give one level per axial slice.',
        )
    labels = Nifti1Image(numbers, affine)
    rows = [
        _row(labels, label, signals, levels, bounded, fat_suppressed, contrast) for label in table
    ]
    return pd.DataFrame(rows, columns=list(dictionary()))


def _row(
    labels: Nifti1Image,
    label: Label,
    signals: dict[str, np.ndarray | None],
    levels: SliceLevels | None,
    bounded: bool,
    fat_suppressed: bool,
    contrast: str,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        'index': label.index,
        'name': label.name,
        'muscle': label.muscle,
        'side': label.side,
        'n_voxels': 0,
    }
    size = measure_size(labels, label.index)
    if size is None:
        return row | {'reason': _ABSENT}
    row['n_voxels'] = size.n_voxels
    if size.n_voxels < MIN_VOXELS:
        return row | {'reason': f'only {size.n_voxels} voxels, too few to measure'}
    x, y, z = size.centroid_ras_mm
    row |= {
        'volume_ml': size.volume_ml,
        'mean_csa_cm2': float(size.csa_mm2[size.csa_mm2 > 0].mean()) / 100,
        'max_csa_cm2': float(size.csa_mm2.max()) / 100,
        'n_slices': size.n_slices,
        'length_mm': size.length_mm,
        'x_ras_mm': x,
        'y_ras_mm': y,
        'z_ras_mm': z,
        'truncated': size.truncated,
    }
    inside = np.asanyarray(labels.dataobj) == label.index
    if levels is not None:
        covered = np.flatnonzero(inside.any(axis=(0, 1)))[::-1]
        names = (levels.names[place] for place in covered)
        row['levels'] = ' '.join(dict.fromkeys(name for name in names if name)) or None
    values = {name: None if data is None else data[inside] for name, data in signals.items()}
    swapped = values.pop('swap', None)
    if swapped is not None:
        row['mfi_swapped_voxels'] = int(np.count_nonzero(swapped))
        for name in ('water', 'fat', 'fat fraction'):
            data = values[name]
            values[name] = None if data is None else np.where(swapped, np.nan, data)
    fat, reasons = _fat(values, contrast)
    if row.get('mfi_swapped_voxels'):
        reasons.append(_SWAPPED.format(row['mfi_swapped_voxels'], size.n_voxels))
    if fat is not None:
        row |= {
            'mfi_ratio_of_means_pct': fat.ratio_of_means_pct,
            'mfi_mean_of_voxels_pct': fat.mean_of_voxels_pct,
            'mfi_excluded_voxels': fat.n_excluded,
        }
        reasons += [_BOUNDED] if bounded else []
    if values['intensity'] is not None:
        shares, why = _thresholds(values['intensity'], fat_suppressed)
        row, reasons = row | shares, reasons + why
    reasons += [_TRUNCATED] if size.truncated else []
    return row | {'reason': '; '.join(reasons) or None}


def _fat(signals: dict[str, np.ndarray | None], contrast: str) -> tuple[Fat | None, list[str]]:
    """Measure fat with what there is; return the reasons why a value is missing."""
    water, fat, fraction = (signals[name] for name in ('water', 'fat', 'fat fraction'))
    if fraction is None and water is not None and fat is not None:
        fraction = fat_fraction_of(water, fat, noise_floor=0)
    if fraction is None:
        return None, [f'a {contrast} scan has no fat and water images, so no MFI']
    if water is None or fat is None:
        mean, excluded = mean_fraction(fraction)
        measured = Fat(np.nan, mean, excluded)
        reasons = ['fat is known as a fat fraction only, so no ratio of means']
    else:
        measured, reasons = measure_fat(water, fat, fraction), []
    if measured.n_excluded > MAX_EXCLUDED * fraction.size:
        lost = (
            f'{measured.n_excluded} of {fraction.size} voxels have no signal above the noise or '
            'are not finite'
        )
        return Fat(np.nan, np.nan, measured.n_excluded), [f'{lost}, so no MFI']
    if not reasons and np.isnan(measured.ratio_of_means_pct):
        reasons.append('mean fat or mean water is negative or both are 0, so no ratio of means')
    return measured, reasons


def _thresholds(values: np.ndarray, fat_suppressed: bool) -> tuple[dict[str, float], list[str]]:
    """Measure fat by thresholds; return the columns, and the reasons why one is missing."""
    found = [threshold_fat(values, name, fat_suppressed=fat_suppressed) for name in THRESHOLDS]
    row = {f'fat_{each.method}_pct': each.fat_pct for each in found}
    row |= {
        f'fat_{each.method}_weighted_pct': each.fat_weighted_pct
        for each in found
        if each.method.startswith('gmm')
    }
    return row, list(dict.fromkeys(each.reason for each in found if each.reason))


def _checked_numbers(labels: Nifti1Image, table: LabelTable) -> np.ndarray:
    data = np.asanyarray(labels.dataobj)
    numbers = np.rint(data).astype(np.int32)
    if not np.array_equal(numbers, data):
        raise BadDataError(
            'The label map holds numbers that are not whole.',
            'Resample label maps with nearest neighbour, and store them as integers.',
        )
    unknown = sorted(set(np.unique(numbers).tolist()) - {0, *table.by_index})
    if unknown:
        raise BadDataError(
            f'The label map holds {", ".join(map(str, unknown))}, unknown in the {table.region} '
            'table.',
            f'Use the numbers {", ".join(map(str, table.by_index))}.',
        )
    return numbers


def _signal(image: Nifti1Image | None, labels: Nifti1Image, name: str) -> np.ndarray | None:
    if image is None:
        return None
    _check_grid(image.shape, image.affine, labels, f'{name} image')
    return np.asanyarray(image.dataobj)


def _check_grid(
    shape: tuple[int, ...], affine: np.ndarray, labels: Nifti1Image, what: str
) -> None:
    if shape != labels.shape or not np.allclose(affine, labels.affine, atol=1e-3):
        raise GridMismatchError(
            f'The {what} is not on the grid of the label map: {shape} against '
            f'{labels.shape} voxels, or another affine.',
            'Resample the label map to the grid of the scan, with nearest neighbour.',
        )
