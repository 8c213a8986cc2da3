"""Rows of the tables of measures: muscles, their slices, their vertebral levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bids_muscle.anatomy.labels import Label, LabelTable
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.measurement.fat import PERCENTILES, Fat, bootstrap_se, measure_fat
from bids_muscle.measurement.muscle import MIN_VOXELS, SCAN, Muscle
from bids_muscle.measurement.size import MIN_SLICES, Size, SliceStack

_ABSENT = 'not found in the field of view'
NO_CLASS = 'the model has no such muscle'
_TRUNCATED = 'reaches the edge of the image, so volume and length may be incomplete'
_LOST = 'no signal on {} of the slices within it or next to it, so volume may be incomplete'
_LOST_OF_LEVEL = 'no signal on {} of the slices of the level, so volume may be incomplete'
_ONE_SIDE_CUT = 'only one side reaches the edge of the image, so no asymmetry of volume'
_FEW_SLICES = (
    f'on fewer than {MIN_SLICES} slices, so no standard errors and no correction for obliquity'
)
_CUT_LEVEL = 'the level is cut by the edge of the image, so its middle slice is not known'
_NOT_IN_MIDDLE = 'not on the middle slice of the level'
_NO_HEIGHT = 'no height in participants.tsv, so no muscle index'
_NO_SIGNAL = 'the signal of this slice is too low or undefined, so no thresholds'
_FEW_VOXELS = 'too few voxels to measure fat'
NO_CORE = f'fewer than {MIN_VOXELS} voxels are left after erosion, so no MFI of the eroded muscle'

#: Beginnings of the columns that one way of measuring Dixon fat does not fill.
_OTHER_COLUMNS = {
    'ratio': ('mfi_mean', 'mfi_p', 'mfi_fat_ml', 'mfi_lean'),
    # The asymmetry is that of the ratio.
    'mean': ('mfi_ratio', 'mfi_asymmetry'),
}

#: Columns of both sides of a muscle together.
_ADDED_UP = (
    'n_voxels',
    'volume_ml',
    'csa_cm2',
    'csa_corrected_cm2',
    'mean_csa_cm2',
    'mean_csa_corrected_cm2',
)

Row = dict[str, Any]


def morph_dictionary(name: str = 'morph') -> dict[str, dict[str, str]]:
    """Return the definition of each column: LongName, Description, Units, Source.

    Parameters
    ----------
    name
        ``'morph'`` for muscles, ``'morph_slices'`` or ``'morph_levels'``.
    """
    return read_dictionary(name)


def muscle_rows(
    table: LabelTable,
    muscles: Sequence[Muscle],
    levels: SliceLevels | None,
    unlabelled: Collection[int] = (),
) -> list[Row]:
    """Return one row per label, in the order of the table, also for a muscle that is not there.

    A structure that is not expected in the region has a row only where it is there.
    `unlabelled` are the labels that could not be found, as the model has no class for them.
    """
    found = {muscle.label.index: muscle for muscle in muscles}
    rows = [
        _muscle_row(found[label.index], levels)
        if label.index in found
        else _identity(label) | _no_voxels(label.index in unlabelled)
        for label in table
        if label.index in found or label.expected
    ]
    _add_asymmetry(rows)
    return rows


def slice_rows(
    muscles: Sequence[Muscle], levels: SliceLevels | None, grid: SliceStack
) -> list[Row]:
    """Return one row per muscle and slice, slices from inferior to superior."""
    return [
        _slice_row(muscle, place, levels, grid)
        for muscle in muscles
        for place in range(len(muscle.size.slices))
    ]


def level_rows(
    muscles: Sequence[Muscle], levels: SliceLevels, grid: SliceStack, height_m: float | None
) -> list[Row]:
    """Return one row per level, from superior to inferior, and muscle, and one of both its sides.

    Parameters
    ----------
    muscles, levels, grid
        What was found, where.
    height_m
        Height of the participant, or None.
    """
    rows = []
    for level in dict.fromkeys(name for name in levels.names[::-1] if name):
        slices = np.array([at for at, name in enumerate(levels.names) if name == level])
        sides = [
            _level_row(muscle, level, slices, levels, grid)
            for muscle in muscles
            if np.isin(muscle.size.slices, slices).any()
        ]
        rows += sides
        for name in dict.fromkeys(row['muscle'] for row in sides):
            pair = [row for row in sides if row['muscle'] == name]
            if {row['side'] for row in pair} == {'left', 'right'}:
                rows.append(_pair_row(pair, height_m))
    return rows


def chosen(rows: Sequence[Row], fat_method: str) -> list[Row]:
    """Leave out the columns that the chosen way of measuring fat does not fill."""
    others = _OTHER_COLUMNS.get(fat_method)
    if others is None:
        return list(rows)
    return [{key: row[key] for key in row if not key.startswith(others)} for row in rows]


def fat_of_part(values: Mapping[str, np.ndarray], part: np.ndarray) -> Fat:
    """Measure the fat of some voxels as one; `part` is (N,) which of those behind `values`."""
    chosen = {name: data[part] for name, data in values.items()}
    as_one = np.zeros(np.count_nonzero(part), dtype=int)
    return measure_fat(chosen.get('water'), chosen.get('fat'), chosen['fat fraction'], as_one)


def missing_fat(fat: Fat, *, both: bool) -> list[str]:
    """Return why measures of fat are missing; `both` is whether there are fat and water images."""
    if not fat.trusted:
        return [
            f'{fat.n_excluded} of {fat.n_voxels} voxels have no signal above the noise or are not '
            'finite, so no MFI'
        ]
    if not both:
        return ['there is only a fat fraction image, so no ratio of means']
    if np.isnan(fat.ratio_of_means_pct):
        return ['mean fat or mean water is negative or both are 0, so no ratio of means']
    return []


def _identity(label: Label) -> Row:
    return {
        'index': label.index,
        'name': label.name,
        'muscle': label.muscle,
        'side': label.side,
    }


def _no_voxels(unlabelled: bool) -> Row:
    # No voxel of a muscle that nobody looked for is no count.
    return {'reason': NO_CLASS} if unlabelled else {'n_voxels': 0, 'reason': _ABSENT}


def _muscle_row(muscle: Muscle, levels: SliceLevels | None) -> Row:
    size, counts = muscle.part, muscle.size.counts
    row = _identity(muscle.label) | {'extent': muscle.extent}
    row['n_voxels'] = int(counts[muscle.beside == 0].sum())
    if muscle.extent != SCAN:
        ml = muscle.size.volume_ml / counts.sum()
        for name, side in (('above', 1), ('below', -1)):
            row[f'outside_{name}_ml'] = ml * int(counts[muscle.beside == side].sum())
    if size is None or row['n_voxels'] < MIN_VOXELS:
        return row | {'reason': '; '.join(muscle.reasons)}
    row |= {
        'volume_ml': size.volume_ml,
        'mean_csa_cm2': float(size.csa_mm2.mean()) / 100,
        'max_csa_cm2': float(size.csa_mm2.max()) / 100,
        'mean_csa_corrected_cm2': float(size.csa_corrected_mm2.mean()) / 100,
        'max_csa_corrected_cm2': float(size.csa_corrected_mm2.max()) / 100,
        'obliquity_deg': float(np.degrees(np.average(size.tilt, weights=size.counts))),
        'n_slices': len(size.slices),
        'length_mm': size.length_mm,
        **_place(size.centroid_ras_mm),
        'truncated': size.truncated,
        'mfi_swapped_voxels': muscle.n_swapped,
    }
    if levels is not None:
        names = (levels.names[at] for at in size.slices[::-1])
        row['levels'] = ' '.join(dict.fromkeys(name for name in names if name)) or None
    if muscle.fat is not None:
        row |= _dixon_columns(muscle.fat, size.volume_ml)
    if muscle.eroded is not None:
        row |= {
            'mfi_ratio_of_means_eroded_pct': muscle.eroded.ratio_of_means_pct,
            'mfi_mean_of_voxels_eroded_pct': muscle.eroded.mean_of_voxels_pct,
        }
    if muscle.main is not None:
        row |= _threshold_columns(muscle, size)
    reasons = list(muscle.reasons)
    reasons += [_FEW_SLICES] if len(size.slices) < MIN_SLICES else []
    if size.n_empty:
        reasons.append(_LOST.format(size.n_empty))
    elif size.truncated:
        reasons.append(_TRUNCATED)
    return row | {'reason': '; '.join(reasons) or None}


def _dixon_columns(fat: Fat, volume_ml: float) -> Row:
    share = fat.mean_of_voxels_pct / 100
    return {
        'mfi_ratio_of_means_pct': fat.ratio_of_means_pct,
        'mfi_ratio_of_means_se_pct': fat.ratio_of_means_se_pct,
        'mfi_mean_of_voxels_pct': fat.mean_of_voxels_pct,
        'mfi_mean_of_voxels_se_pct': fat.mean_of_voxels_se_pct,
        **{
            f'mfi_p{name:02}_pct': value
            for name, value in zip(PERCENTILES, fat.percentiles_pct, strict=True)
        },
        'mfi_fat_ml': volume_ml * share,
        'mfi_lean_ml': volume_ml * (1 - share),
        'mfi_excluded_voxels': fat.n_excluded,
    }


def _threshold_columns(muscle: Muscle, size: Size) -> Row:
    main, within = muscle.main, muscle.within
    assert main is not None  # noqa: S101 - the caller knows
    slice_index = np.searchsorted(size.slices, muscle.voxels[within, 2])
    values = muscle.values['intensity'][within]
    n_finite = np.bincount(slice_index, np.isfinite(values))
    row: Row = {}
    for split in muscle.thresholded:
        row[f'fat_{split.method}_pct'] = split.fat_pct
        if np.isfinite(split.fat_min):
            fat = np.bincount(slice_index, values > split.fat_min)
            row[f'fat_{split.method}_se_pct'] = 100 * bootstrap_se(fat, n_finite)
        if split.method.startswith('gmm'):
            row[f'fat_{split.method}_weighted_pct'] = split.fat_weighted_pct
    share = main.fat_pct / 100
    return row | {
        'threshold_method': main.method,
        'threshold_level': main.fat_min,
        'threshold_fat_ml': size.volume_ml * share,
        'threshold_lean_ml': size.volume_ml * (1 - share),
        'threshold_excluded_voxels': main.n_excluded,
        'threshold_limited_voxels': main.n_winsorised,
    }


def _add_asymmetry(rows: Sequence[Row]) -> None:
    """Compare left and right of each muscle; both rows get the same value."""
    pairs: dict[str, dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault(row['muscle'], {})[row['side']] = row
    for pair in pairs.values():
        if set(pair) != {'left', 'right'} or any('volume_ml' not in row for row in pair.values()):
            continue
        left, right = pair['left'], pair['right']
        if left['truncated'] == right['truncated']:
            volumes = left['volume_ml'], right['volume_ml']
            asymmetry = 200 * (volumes[0] - volumes[1]) / sum(volumes)
            left['volume_asymmetry_pct'] = right['volume_asymmetry_pct'] = asymmetry
        else:
            for row in pair.values():
                row['reason'] = '; '.join(filter(None, (row['reason'], _ONE_SIDE_CUT)))
        # Differences of percentages, in points; each kind of fat by itself.
        for name, value in (
            ('mfi_asymmetry_points', 'mfi_ratio_of_means_pct'),
            ('threshold_asymmetry_points', f'fat_{left.get("threshold_method")}_pct'),
        ):
            if value in left and value in right:
                left[name] = right[name] = left[value] - right[value]


def _slice_row(muscle: Muscle, position: int, levels: SliceLevels | None, grid: SliceStack) -> Row:
    size, at = muscle.size, int(muscle.size.slices[position])
    area_cm2 = float(size.csa_mm2[position]) / 100
    row = _identity(muscle.label) | {
        'slice': at,
        'level': levels.names[at] if levels else None,
        'level_confidence': float(levels.confidence[at]) if levels else None,
        'within_extent': bool(muscle.beside[position] == 0),
        'n_voxels': int(size.counts[position]),
        'volume_ml': area_cm2 * grid.spacing_mm / 10,
        'csa_cm2': area_cm2,
        'csa_corrected_cm2': float(size.csa_corrected_mm2[position]) / 100,
        **_place(size.centroids_ras_mm[position]),
    }
    here = muscle.voxels[:, 2] == at
    return row | _fat_columns(muscle, here, muscle.fat.slices[position] if muscle.fat else None)


def _level_row(
    muscle: Muscle, level: str, slices: np.ndarray, levels: SliceLevels, grid: SliceStack
) -> Row:
    size = muscle.size
    inside = np.isin(size.slices, slices)
    here = np.isin(muscle.voxels[:, 2], slices)
    areas = size.csa_mm2[inside] / 100
    row = _identity(muscle.label) | {
        'level': level,
        'level_confidence': float(np.mean(levels.confidence[slices])),
        'n_slices': int(inside.sum()),
        'n_voxels': int(size.counts[inside].sum()),
        'volume_ml': float(areas.sum()) * grid.spacing_mm / 10,
        'mean_csa_cm2': float(areas.mean()),
        'mean_csa_corrected_cm2': float(size.csa_corrected_mm2[inside].mean()) / 100,
        'max_csa_cm2': float(areas.max()),
        **_place(grid.to_world(muscle.voxels[here].mean(axis=0)[None])[0]),
    }
    reasons = []
    middle = slices[(len(slices) - 1) // 2]
    if grid.cuts_slices(slices):
        reasons.append(_CUT_LEVEL)
    elif middle not in size.slices:
        reasons.append(_NOT_IN_MIDDLE)
    else:
        at = int(np.searchsorted(size.slices, middle))
        row['csa_cm2'] = float(size.csa_mm2[at]) / 100
        row['csa_corrected_cm2'] = float(size.csa_corrected_mm2[at]) / 100
    if grid.empty is not None:
        n_empty = np.count_nonzero(grid.empty[np.setdiff1d(slices, size.slices)])
        reasons += [_LOST_OF_LEVEL.format(n_empty)] if n_empty else []
    fat = fat_of_part(muscle.values, here) if muscle.fat is not None else None
    row |= _fat_columns(muscle, here, fat)
    for kind, share in (('mfi', 'mfi_mean_of_voxels_pct'), ('threshold', 'threshold_fat_pct')):
        if share in row:
            row[f'{kind}_lean_csa_cm2'] = row['mean_csa_cm2'] * (1 - row[share] / 100)
    reasons += [row['reason']] if row['reason'] else []
    return row | {'reason': '; '.join(reasons) or None}


def _fat_columns(muscle: Muscle, here: np.ndarray, fat: Fat | None) -> Row:
    """Return the columns of fat of a part of a muscle, the voxels in `here`."""
    if np.count_nonzero(here) < MIN_VOXELS:
        return {'reason': _FEW_VOXELS}
    row: Row = {}
    reasons: list[str] = []
    if fat is not None:
        row |= {
            'mfi_ratio_of_means_pct': fat.ratio_of_means_pct,
            'mfi_mean_of_voxels_pct': fat.mean_of_voxels_pct,
            'mfi_excluded_voxels': fat.n_excluded,
        }
        reasons += missing_fat(fat, both={'water', 'fat'} <= set(muscle.values))
    if muscle.main is not None and np.isfinite(muscle.main.fat_min):
        values = muscle.values['intensity'][here]
        n_finite = np.count_nonzero(np.isfinite(values))
        if n_finite >= MIN_VOXELS:
            above = np.count_nonzero(values > muscle.main.fat_min)
            row['threshold_fat_pct'] = 100 * above / n_finite
        else:
            reasons.append(_FEW_VOXELS if n_finite else _NO_SIGNAL)
    elif muscle.main is not None:
        reasons.append(str(muscle.main.reason))
    return row | {'reason': '; '.join(reasons) or None}


def _pair_row(pair: Sequence[Row], height_m: float | None) -> Row:
    """Return the row of both sides of a muscle at a level: areas and volumes are added up."""
    first = pair[0]
    row: Row = {
        'name': first['muscle'],
        'muscle': first['muscle'],
        'side': 'both',
        'level': first['level'],
        'level_confidence': first['level_confidence'],
    }
    for name in _ADDED_UP:
        if all(name in side for side in pair):
            row[name] = sum(side[name] for side in pair)
    reasons = []
    if 'csa_cm2' not in row:
        cut = any(_CUT_LEVEL in str(side['reason']) for side in pair)
        reasons.append(_CUT_LEVEL if cut else _NOT_IN_MIDDLE)
    said = (text for side in pair for text in str(side['reason']).split('; '))
    reasons += [text for text in said if text.startswith('no signal on')][:1]
    if height_m is None:
        reasons.append(_NO_HEIGHT)
    elif 'csa_cm2' in row:
        row['muscle_index_cm2_m2'] = row['csa_cm2'] / height_m**2
    return row | {'reason': '; '.join(reasons) or None}


def _place(centroid: np.ndarray) -> Row:
    return {f'{axis}_ras_mm': float(value) for axis, value in zip('xyz', centroid, strict=True)}
