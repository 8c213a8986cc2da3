"""Muscles are measured within the levels of their table; the rest has columns of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nibabel import Nifti1Image

from bids_muscle.anatomy.labels import REGIONS, load_label_table
from bids_muscle.anatomy.levels import VERTEBRAE, SliceLevels
from bids_muscle.measurement.extent import implausible_extents
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.table import Measures, measure_scan

SHAPE = (24, 20, 16)
AFFINE = np.array([[-1.5, 0, 0, 30], [0, 1.2, 0.4, -20], [0, 0, 4, 100], [0, 0, 0, 1.0]])
#: Three slices below S1 and above T12.
NAMES = (*[None] * 2, *['S1'] * 2, 'L5', 'L5', 'L4', 'L3', 'L3', 'L2', 'L1', 'T12', 'T12')
LEVELS = SliceLevels((*NAMES, *[None] * 3), np.ones(16), 'atlas')
#: Columns that say where the outline lies, or come from the axis of all of it.
OF_THE_WHOLE = ('extent', 'outside_', 'obliquity', 'max_csa_corrected', 'mean_csa_corrected')


def labels() -> np.ndarray:
    """Return an oblique muscle on all slices, and one within the levels."""
    i, j, k = np.indices(SHAPE)
    numbers = np.zeros(SHAPE, np.uint8)
    numbers[np.hypot(i - 6 - 0.2 * k, j - 6 - 0.3 * k) < 5 - 0.1 * k] = 5
    numbers[14:20, 5:12, 4:9] = 6
    return numbers


def images(contrast: str) -> dict[str, Nifti1Image]:
    rng = np.random.default_rng(2)
    bright = rng.random(SHAPE) < np.linspace(0.1, 0.3, SHAPE[2])
    if contrast == 'T2w':
        data = {'intensity': np.where(bright, 500, 200) + rng.normal(0, 20, SHAPE)}
    else:
        data = {'water': np.where(bright, 20, 100.0), 'fat': np.where(bright, 90, 8.0)}
    return {name: Nifti1Image(values, AFFINE) for name, values in data.items()}


def measured(numbers: np.ndarray, contrast: str, levels: SliceLevels | None) -> Measures:
    return measure_scan(
        Nifti1Image(numbers, AFFINE),
        load_label_table('lumbar'),
        ScanImages(contrast=contrast, **images(contrast)),
        levels=levels,
    )


def rows(made: Measures) -> pd.DataFrame:
    return made.muscles.set_index('index').loc[[5, 6]]


def test_a_muscle_has_the_measures_of_the_part_within_its_levels() -> None:
    made = measured(labels(), 'dixon', LEVELS)
    found = rows(made)
    cut = labels()
    cut[..., :2] = cut[..., 13:] = 0
    expected = rows(measured(cut, 'dixon', None))
    assert found['extent'].tolist() == ['T12-S1'] * 2
    assert expected['extent'].tolist() == ['scan'] * 2
    compared = [name for name in found if not name.startswith((*OF_THE_WHOLE, 'levels'))]
    pd.testing.assert_frame_equal(found[compared], expected[compared])
    whole = rows(measured(labels(), 'dixon', None))
    assert whole.loc[5, 'truncated']
    assert not found.loc[5, 'truncated']
    # The part outside, and what is lost nowhere.
    ml = 1.5 * 1.2 * 4 / 1000
    for name, part in (('above', labels()[..., 13:]), ('below', labels()[..., :2])):
        lost = found.loc[5, f'outside_{name}_ml']
        assert lost == pytest.approx(np.count_nonzero(part == 5) * ml)
        assert lost > 0
        assert found.loc[6, f'outside_{name}_ml'] == 0
    parts = found[['volume_ml', 'outside_above_ml', 'outside_below_ml']].sum(axis=1)
    pd.testing.assert_series_equal(parts, whole['volume_ml'], check_names=False)
    # The axis is that of all slices, so that few levels have one, too.
    assert found.loc[5, 'obliquity_deg'] == pytest.approx(whole.loc[5, 'obliquity_deg'], abs=1)


def test_slices_outside_are_listed_and_say_so() -> None:
    made = measured(labels(), 'dixon', LEVELS)
    slices = made.slices[made.slices['index'] == 5].set_index('slice')
    assert slices.index[~slices['within_extent']].tolist() == [0, 1, 13, 14, 15]
    inside = slices[slices['within_extent']]
    row = rows(made).loc[5]
    assert inside['volume_ml'].sum() == pytest.approx(row['volume_ml'])
    assert inside['n_voxels'].sum() == row['n_voxels']
    assert inside['csa_cm2'].max() == row['max_csa_cm2']
    assert row['levels'] == 'T12 L1 L2 L3 L4 L5 S1'


def test_thresholds_count_what_lies_within() -> None:
    made = measured(labels(), 'T2w', LEVELS)
    row = rows(made).loc[5]
    slices = made.slices[(made.slices['index'] == 5) & made.slices['within_extent']]
    share = np.average(slices['threshold_fat_pct'].astype(float), weights=slices['n_voxels'])
    assert row['fat_kmeans2_pct'] == pytest.approx(share)
    assert row['threshold_fat_ml'] == pytest.approx(row['volume_ml'] * share / 100)


@pytest.mark.parametrize(
    ('names', 'source', 'extent'),
    [
        (NAMES[2:], 'atlas', 'T12-S1'),
        # Above L1 the scan goes on: where T12 ends is not known.
        ((*NAMES[:11], None, None), 'atlas', 'scan'),
        # The scan ends there.
        (NAMES[:11], 'atlas', 'T12-S1'),
        # A person marked T12, not where it ends; then T11, too.
        (NAMES[2:], 'file', 'T12-S1'),
        ((*NAMES[2:], None), 'file', 'scan'),
        ((*NAMES[2:], 'T11', None), 'file', 'T12-S1'),
        ((None,) * 12, 'atlas', 'scan'),
    ],
)
def test_the_extent_is_that_of_the_scan_where_the_levels_do_not_end(
    names: tuple[str | None, ...], source: str, extent: str
) -> None:
    numbers = labels()[..., : len(names)]
    made = measure_scan(
        Nifti1Image(numbers, AFFINE),
        load_label_table('lumbar'),
        ScanImages(contrast='T2w'),
        levels=SliceLevels(names, np.ones(len(names)), source),
    )
    row = rows(made).loc[5]
    assert row['extent'] == extent
    assert pd.isna(row['outside_above_ml']) == (extent == 'scan')
    if extent == 'scan':
        assert row['n_voxels'] == np.count_nonzero(numbers == 5)
        assert made.slices['within_extent'].all()


def test_a_muscle_wholly_outside_has_no_measures_and_says_why() -> None:
    numbers = labels()
    numbers[..., :14][numbers[..., :14] == 5] = 0
    made = measured(numbers, 'dixon', LEVELS)
    row = rows(made).loc[5]
    assert row['n_voxels'] == 0
    assert row['reason'].startswith('only 0 voxels within T12-S1')
    assert row['outside_above_ml'] > 0
    assert pd.isna([row['volume_ml'], row['mfi_ratio_of_means_pct']]).all()
    slices = made.slices[made.slices['index'] == 5]
    assert slices['mfi_ratio_of_means_pct'].notna().all()


def test_an_unsure_slice_lies_where_most_of_its_probability_does() -> None:
    # Of the third slice T12 has less than any level needs for a name, and L1 makes it within.
    shares = {'T11': [0.0, 0, 0.4, 0.9], 'T12': [0.1, 0.5, 0.35, 0.1], 'L1': [0.9, 0.5, 0.25, 0]}
    levels = SliceLevels(
        ('L1', None, None, 'T11'),
        np.array([0.9, 0, 0, 0.9]),
        'atlas',
        {name: np.array(values) for name, values in shares.items()},
    )
    assert levels.beside('T12', 'L1').tolist() == [0, 0, 0, 1]
    assert levels.beside('T10', 'T11').tolist() == [-1, -1, -1, 0]
    # Most of the third slice lies above L1, though no level has half of it.
    assert levels.beside('L1', 'L1').tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize('region', REGIONS)
def test_every_muscle_has_levels_from_top_to_bottom_alike_on_both_sides(region: str) -> None:
    by_muscle: dict[str, set[tuple[str, str] | None]] = {}
    for label in load_label_table(region):
        assert label.levels is not None
        upper, lower = (VERTEBRAE.index(name) for name in label.levels)
        assert upper <= lower
        by_muscle.setdefault(label.muscle, set()).add(label.levels)
    assert all(len(levels) == 1 for levels in by_muscle.values())


def test_the_levels_of_the_neck_are_those_of_weber_2021() -> None:
    found = {label.abbreviation: label.extent for label in load_label_table('cervical')}
    assert found == {
        'MFSS': 'C4-C6',
        'LC': 'C3-C6',
        'SPCap': 'C3-C5',
        'SSCap': 'C3-C5',
        'SCM': 'C4-C6',
        'TR': 'C6',
        'LS': 'C5-C6',
    }


def table_row(name: str, extent: str, **values: float) -> dict[str, object]:
    columns = ('volume_ml', 'length_mm', 'outside_above_ml', 'outside_below_ml')
    muscle = name.partition(' ')[2]
    return {'name': name, 'muscle': muscle, 'extent': extent, **dict.fromkeys(columns), **values}


def test_outlines_where_a_muscle_cannot_lie_are_named() -> None:
    outside = {'volume_ml': 34.0, 'outside_above_ml': 6.0, 'outside_below_ml': 0.0}
    rows = [
        table_row('left quadratus lumborum', 'T12-S1', **outside),
        # Multifidus goes on above T12.
        table_row('left multifidus', 'T12-S1', **outside),
        table_row('right psoas major', 'T12-S1', **{**outside, 'outside_above_ml': 0.9}),
        table_row('right quadratus lumborum', 'scan', volume_ml=30.0, length_mm=234.0),
        table_row('left quadratus lumborum', 'scan', volume_ml=30.0, length_mm=150.0),
        table_row('right erector spinae', 'scan'),
    ]
    assert implausible_extents(pd.DataFrame(rows)) == [
        '15 % of the outline of left quadratus lumborum lies above T12, where this muscle ends. '
        'This part is not measured.',
        'The outline of right quadratus lumborum is 234 mm long; the maximum for this '
        'muscle is 170 mm. Check its upper and lower end.',
    ]
