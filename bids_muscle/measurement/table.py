"""All measures of one scan: a table of muscles, one of slices, one of levels, a map of fat."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from nibabel import Nifti1Image
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from bids_muscle.anatomy.labels import MUSCLE, Label, LabelTable
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.errors import BadDataError, GridMismatchError
from bids_muscle.imaging.dixon import fat_fraction as fat_fraction_of
from bids_muscle.measurement import rows
from bids_muscle.measurement.brightness import Brightness, even_slices
from bids_muscle.measurement.fat import Fat, measure_fat
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.methods import THRESHOLDS
from bids_muscle.measurement.muscle import MIN_VOXELS, SCAN, Muscle
from bids_muscle.measurement.rows import morph_dictionary
from bids_muscle.measurement.size import SliceStack, measure_size, part_of
from bids_muscle.measurement.threshold_checks import checked_fat
from bids_muscle.measurement.thresholds import ThresholdedFat

if TYPE_CHECKING:
    import pandas as pd

_SWAPPED = 'fat and water are swapped in {} of {} voxels, which are excluded from MFI'
_BOUNDED = (
    'fat and water come from magnitude in- and opposed-phase images: no voxel can exceed 50 % fat'
)


_NO_MUSCLE = 'not a known muscle, so no fat by thresholds'
_DARK = '{} slices are excluded from thresholds, because their signal is too low'


@dataclass(frozen=True)
class Measures:
    """All measures of one scan; what cannot be trusted is missing, and ``reason`` says why.

    Parameters
    ----------
    muscles
        One row per label, also for a muscle that is not there.
    slices
        One row per slice of each muscle; voxels and volumes add up to those of `muscles`.
    levels
        One row per vertebral level of each muscle, and one of both its sides together; empty
        where no levels are known.
    fat_map
        (X, Y, Z) float32 on the grid of the label map, NaN outside of the muscles: the fat
        fraction, or the probability of being fat where fat was found by thresholds. None where
        the scan tells neither.
    """

    muscles: pd.DataFrame
    slices: pd.DataFrame
    levels: pd.DataFrame
    fat_map: Nifti1Image | None


def measure_scan(
    labels: Nifti1Image,
    table: LabelTable,
    images: ScanImages,
    *,
    levels: SliceLevels | None = None,
    fat_method: str = 'auto',
    height_m: float | None = None,
    covered: NDArray[np.bool_] | None = None,
    unlabelled: Collection[int] = (),
) -> Measures:
    """Measure all muscles of a scan.

    Parameters
    ----------
    labels
        (X, Y, Z) label map.
    table
        Its labels.
    images
        Its images, on the grid of `labels`.
    levels
        Vertebral level of each axial slice.
    fat_method
        One of :data:`~bids_muscle.measurement.methods.FAT_METHODS`: measure fat in this way only;
        scans that do not allow it are measured as with ``'auto'``.
    height_m
        Height of the participant in metres, for the muscle index.
    covered
        (X, Y, Z) voxels that were imaged, in the voxel order of `labels`; None for all. A muscle
        that reaches the edge of them is cut.
    unlabelled
        Numbers of the muscles that whoever made the label map could not label.

    Raises
    ------
    GridMismatchError
        If an image, a mask or `levels` is not on the grid of `labels`.
    BadDataError
        If the label map has numbers that are not in `table`.
    """
    import pandas as pd

    # Voxels in RAS+ order: slices run from inferior to superior, however the scan is stored.
    order = io_orientation(labels.affine)
    numbers = apply_orientation(checked_numbers(labels, table), order)
    signals = images.signals(labels)
    grid = SliceStack(
        numbers.shape,
        labels.affine @ inv_ornt_aff(order, labels.shape),
        None if covered is None else apply_orientation(covered, order),
        _empty_slices(signals),
    )
    if levels is not None and len(levels.names) != grid.shape[2]:
        raise GridMismatchError(
            f'There are levels of {len(levels.names)} slices for a scan of {grid.shape[2]}.',
            'Give one level per axial slice.',
        )

    body, brightness = signals.pop('body', None), None
    if 'intensity' in signals:
        spacing_mm = np.linalg.norm(grid.affine[:3, :2], axis=0)
        muscle = [label.index for label in table if label.kind == MUSCLE]
        only = np.where(np.isin(numbers, muscle), numbers, 0)
        brightness = even_slices(signals['intensity'], only, body, spacing_mm)
        signals['intensity'] = brightness.even

    scan = _Scan(grid, levels, brightness, images, fat_method)
    muscles = [
        _measure_muscle(label, voxels, values, scan)
        for label, voxels, values in _split(numbers, table, signals)
    ]
    made = {
        'morph': rows.muscle_rows(table, muscles, levels, unlabelled),
        'morph_slices': rows.slice_rows(muscles, levels, grid),
        'morph_levels': rows.level_rows(muscles, levels, grid, height_m) if levels else [],
    }
    of_muscles, of_slices, of_levels = (
        pd.DataFrame(rows.chosen(each, fat_method), columns=list(morph_dictionary(name)))
        for name, each in made.items()
    )
    return Measures(of_muscles, of_slices, of_levels, _fat_map(muscles, labels, order))


def _empty_slices(signals: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return (Z,) which slices have no signal in one of the images; None where all have none."""
    names = {'water', 'fat', 'intensity'} & signals.keys() or {'fat fraction'} & signals.keys()
    each = [np.nan_to_num(signals[name]).any(axis=(0, 1)) for name in names]
    there: np.ndarray = np.all(each, axis=0)
    return ~there if each and there.any() else None


@dataclass(frozen=True)
class _Scan:
    """What the measures of each muscle need to know of its scan; see :func:`measure_scan`."""

    grid: SliceStack
    levels: SliceLevels | None
    brightness: Brightness | None
    images: ScanImages
    fat_method: str


def _split(
    numbers: np.ndarray, table: LabelTable, signals: Mapping[str, np.ndarray]
) -> Iterator[tuple[Label, np.ndarray, dict[str, np.ndarray]]]:
    """Give each label that is there, the indices (N, 3) of its voxels, and their signals (N,).

    One of them, ``core``, is whether the voxel is left after erosion by one pixel in its slice.
    """
    from scipy.ndimage import binary_erosion, find_objects, generate_binary_structure

    in_plane = generate_binary_structure(2, 1)[..., None]
    boxes = find_objects(numbers, max(table.by_index))
    for label in table:
        box = boxes[label.index - 1]
        if box is not None:
            inside = numbers[box] == label.index
            voxels = np.argwhere(inside) + [each.start for each in box]
            values = {name: data[box][inside] for name, data in signals.items()}
            yield label, voxels, values | {'core': binary_erosion(inside, in_plane)[inside]}


def _measure_muscle(
    label: Label, voxels: np.ndarray, values: dict[str, np.ndarray], scan: _Scan
) -> Muscle:
    """Measure one muscle; signals that cannot be trusted become NaN in `values`."""
    muscle = _locate(label, voxels, values, scan)
    slice_index = np.searchsorted(muscle.size.slices, voxels[:, 2])
    inside = muscle.beside == 0
    within = inside[slice_index]
    n_voxels = int(np.count_nonzero(within))
    reasons = []
    if n_voxels < MIN_VOXELS:
        where = '' if muscle.extent == SCAN else f' within {muscle.extent}'
        reasons.append(f'only {n_voxels} voxels{where}, too few to measure')
        if len(voxels) < MIN_VOXELS:
            return replace(muscle, reasons=tuple(reasons))
    core = values.pop('core')
    swapped = values.pop('swap', None)
    n_swapped = None if swapped is None else int(np.count_nonzero(swapped & within))
    if n_swapped:
        reasons.append(_SWAPPED.format(n_swapped, n_voxels))
    _mask_signals(values, swapped, scan.images.fat_doubt)
    fat: Fat | None = None
    eroded: Fat | None = None
    thresholded: tuple[ThresholdedFat, ...] = ()
    if 'fat fraction' in values:
        fat = measure_fat(
            values.get('water'), values.get('fat'), values['fat fraction'], slice_index, inside
        )
        reasons += rows.missing_fat(fat, both={'water', 'fat'} <= set(values))
        if np.count_nonzero(core & within) >= MIN_VOXELS:
            eroded = rows.fat_of_part(values, core & within)
        else:
            reasons.append(rows.NO_CORE)
        reasons += [_BOUNDED] if scan.images.bounded else []
    elif scan.brightness is not None and label.kind != MUSCLE:
        reasons.append(_NO_MUSCLE)
    elif scan.brightness is not None and n_voxels >= MIN_VOXELS:
        skin = scan.brightness.skin[voxels[within, 2]]
        thresholded = _threshold_muscle(values['intensity'][within], skin, scan)
        n_dark = int(np.count_nonzero(scan.brightness.dark[muscle.size.slices[inside]]))
        reasons += [_DARK.format(n_dark)] if n_dark else []
        reasons += list(dict.fromkeys(each.reason for each in thresholded if each.reason))
    if fat is None:
        reasons.insert(0, f'a {scan.images.contrast} scan has no fat and water images, so no MFI')
    return replace(
        muscle,
        fat=fat,
        eroded=eroded,
        n_swapped=n_swapped,
        thresholded=thresholded,
        reasons=(scan.images.fat_doubt,) if scan.images.fat_doubt else tuple(reasons),
    )


def _locate(
    label: Label, voxels: np.ndarray, values: dict[str, np.ndarray], scan: _Scan
) -> Muscle:
    """Return the size of a muscle, and of its part within the levels of its table."""
    size = measure_size(voxels, scan.grid)
    limits = scan.levels.beside(*label.levels) if scan.levels and label.levels else None
    extent = SCAN if limits is None else label.extent
    beside = np.zeros(len(size.slices), int) if limits is None else limits[size.slices]
    inside = beside == 0
    kept = voxels[inside[np.searchsorted(size.slices, voxels[:, 2])]]
    part = part_of(size, inside, kept, scan.grid) if len(kept) else None
    return Muscle(label, voxels, size, values, beside, part, extent)


def _mask_signals(
    values: dict[str, np.ndarray], swapped: np.ndarray | None, fat_doubt: str
) -> None:
    """Add the fat fraction, and set to NaN what is swapped or cannot be trusted at all."""
    if swapped is not None:
        for name in {'water', 'fat', 'fat fraction'} & set(values):
            values[name] = np.where(swapped, np.nan, values[name])
    if 'fat fraction' not in values and {'water', 'fat'} <= set(values):
        values['fat fraction'] = fat_fraction_of(values['water'], values['fat'], noise_floor=0)
    if fat_doubt:
        values |= {name: np.full(len(data), np.nan) for name, data in values.items()}


def _threshold_muscle(
    intensity: np.ndarray, skin: np.ndarray, scan: _Scan
) -> tuple[ThresholdedFat, ...]:
    """Find the fat of a muscle by thresholds; `skin` is the fat under the skin, by voxel."""
    return checked_fat(
        intensity,
        [method for method in THRESHOLDS if method == scan.fat_method] or THRESHOLDS,
        fat_suppressed=scan.images.fat_suppressed,
        skin=float(np.nanmedian(skin)) if np.isfinite(skin).any() else np.nan,
        clipped=scan.images.clipped,
    )


def _fat_map(
    muscles: Sequence[Muscle], labels: Nifti1Image, order: np.ndarray
) -> Nifti1Image | None:
    if all(muscle.fat_content is None for muscle in muscles):
        return None
    found = np.full(labels.shape, np.nan, np.float32)
    ordered = apply_orientation(found, order)  # a view: what is set in it is set in the map
    for muscle in muscles:
        if muscle.fat_content is not None:
            ordered[tuple(muscle.voxels.T)] = muscle.fat_content
    return Nifti1Image(found, labels.affine)


def checked_numbers(labels: Nifti1Image, table: LabelTable) -> np.ndarray:
    """Return the label map as int32.

    Raises
    ------
    BadDataError
        If it has numbers that are not whole, or not in the table.
    """
    data = np.asanyarray(labels.dataobj)
    numbers = np.rint(data).astype(np.int32)
    if not np.array_equal(numbers, data):
        raise BadDataError(
            'The label map has numbers that are not whole.',
            'Resample label maps with nearest neighbour, and store them as integers.',
        )
    unknown = sorted(set(np.unique(numbers).tolist()) - {0, *table.by_index})
    if unknown:
        raise BadDataError(
            f'The label map has labels that are not in the {table.region} label table: '
            f'{", ".join(map(str, unknown))}.',
            f'Use the numbers {", ".join(map(str, table.by_index))}.',
        )
    return numbers
