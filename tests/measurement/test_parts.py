"""Slices, levels, obliquity, asymmetry, standard errors and the map of fat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.measurement.fat import bootstrap_se
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.rows import morph_dictionary
from bids_muscle.measurement.table import Measures, measure_scan

TABLE = load_label_table('lumbar')
SHAPE = (40, 30, 12)
AFFINE = np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -20], [0, 0, 4, 100], [0, 0, 0, 1.0]])
RIGHT_PSOAS, LEFT_PSOAS = (
    next(each.index for each in TABLE if each.name == f'{side} psoas major')
    for side in ('right', 'left')
)
LEVELS = SliceLevels(
    (None, 'L5', 'L5', 'L5', 'L4', 'L4', 'L4', 'L4', 'L3', 'L3', 'L3', 'L2'),
    np.array([0.0, *[0.9] * 6, 0.5, *[0.8] * 4]),
    'atlas',
)


def image(data: np.ndarray, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(data, affine)


def labels() -> np.ndarray:
    """Psoas on both sides, the left one smaller and shorter."""
    numbers = np.zeros(SHAPE, np.uint8)
    numbers[25:35, 5:15, 1:11] = RIGHT_PSOAS
    numbers[5:13, 5:15, 1:6] = LEFT_PSOAS
    return numbers


def dixon(seed: int = 0) -> dict[str, nib.Nifti1Image]:
    water, fat = np.random.default_rng(seed).uniform(10, 100, (2, *SHAPE))
    return {'water': image(water), 'fat': image(fat)}


def t2w(seed: int = 0) -> nib.Nifti1Image:
    rng = np.random.default_rng(seed)
    bright = rng.random(SHAPE) < 0.2
    return image(np.rint(np.where(bright, rng.normal(500, 60, SHAPE), rng.normal(200, 25, SHAPE))))


def measured(
    numbers: np.ndarray | None = None,
    *,
    levels: SliceLevels | None = LEVELS,
    fat_method: str = 'auto',
    height_m: float | None = None,
    **images: Any,
) -> Measures:
    numbers = labels() if numbers is None else numbers
    given = ScanImages(**{'contrast': 'T2w', **images})
    options = {'levels': levels, 'fat_method': fat_method, 'height_m': height_m}
    return measure_scan(image(numbers), TABLE, given, **options)


def by_name(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index('name')


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_slices_add_up_to_the_muscle(seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 9, SHAPE).astype(np.uint8)
    made = measured(numbers, **dixon(seed), contrast='dixon')
    total, slices = made.muscles.set_index('index'), made.slices.groupby('index')
    levels = made.levels[made.levels['side'] != 'both'].groupby('index')
    assert (slices['n_voxels'].sum() == total['n_voxels']).all()
    np.testing.assert_allclose(slices['volume_ml'].sum(), total['volume_ml'], rtol=1e-12)
    assert (slices['csa_cm2'].max() == total['max_csa_cm2']).all()
    assert (slices['mfi_excluded_voxels'].sum() == total['mfi_excluded_voxels']).all()
    known = made.slices['n_voxels'] - made.slices['mfi_excluded_voxels'].astype(int)
    weighted = made.slices['mfi_mean_of_voxels_pct'] * known
    mean = weighted.groupby(made.slices['index']).sum() / known.groupby(made.slices['index']).sum()
    np.testing.assert_allclose(mean, total['mfi_mean_of_voxels_pct'].astype(float), rtol=1e-9)
    unnamed = made.slices[made.slices['level'].isna()].groupby('index')['n_voxels'].sum()
    assert (levels['n_voxels'].sum() + unnamed == total['n_voxels']).all()
    parts = made.slices.groupby(['index', 'level'])
    rows = made.levels[made.levels['side'] != 'both'].set_index(['index', 'level']).sort_index()
    np.testing.assert_allclose(rows['volume_ml'], parts['volume_ml'].sum(), rtol=1e-12)
    np.testing.assert_allclose(rows['max_csa_cm2'], parts['csa_cm2'].max(), rtol=1e-12)
    np.testing.assert_allclose(rows['mean_csa_cm2'], parts['csa_cm2'].mean(), rtol=1e-12)
    both = made.levels[made.levels['side'] == 'both'].set_index(['muscle', 'level']).sort_index()
    sides = made.levels[made.levels['side'] != 'both'].groupby(['muscle', 'level'])
    np.testing.assert_allclose(both['volume_ml'], sides['volume_ml'].sum(), rtol=1e-12)


def test_slices_of_thresholds_add_up() -> None:
    made = measured(intensity=t2w())
    row, slices = made.muscles.iloc[RIGHT_PSOAS - 1], by_name(made.slices).loc['right psoas major']
    share = np.average(slices['threshold_fat_pct'].astype(float), weights=slices['n_voxels'])
    assert share == pytest.approx(row['fat_kmeans2_pct'])
    # MuscleMap: 45.63 % of 87.77 ml stood beside 40.68 ml.
    assert row['threshold_fat_ml'] == pytest.approx(row['volume_ml'] * share / 100)
    assert row['threshold_fat_ml'] + row['threshold_lean_ml'] == pytest.approx(row['volume_ml'])
    assert pd.isna(row['mfi_fat_ml'])


@pytest.mark.parametrize('tilt', [(0.0, 0.0), (30.0, 0.0), (25.0, -25.0)])
def test_area_across_a_tilted_cylinder(tilt: tuple[float, float]) -> None:
    slope = np.tan(np.radians(tilt))
    shape, voxel = (120, 120, 20), np.array([0.8, 0.8, 3.0])
    x, y, z = (np.indices(shape).T * voxel).T - (voxel * shape / 2)[:, None, None, None]
    axis = np.array([*slope, 1]) / np.linalg.norm([*slope, 1])
    away = np.stack([x, y, z]) - np.tensordot(
        axis, axis @ np.stack([x, y, z]).reshape(3, -1), 0
    ).reshape(3, *shape)
    numbers = (np.linalg.norm(away, axis=0) < 12).astype(np.uint8)
    affine = np.diag([*voxel, 1])
    made = measure_scan(image(numbers, affine), TABLE, ScanImages(contrast='T2w'))
    row = made.muscles.iloc[0]
    assert row['mean_csa_corrected_cm2'] == pytest.approx(np.pi * 1.2**2, rel=0.01)
    angle = np.degrees(np.arccos(axis[2]))
    assert row['obliquity_deg'] == pytest.approx(angle, abs=0.5)
    assert row['mean_csa_cm2'] == pytest.approx(np.pi * 1.2**2 / axis[2], rel=0.01)


def test_few_slices_have_no_axis_and_no_standard_error() -> None:
    numbers = labels()
    numbers[..., 5:] = 0
    row = measured(numbers, **dixon(), contrast='dixon').muscles.iloc[RIGHT_PSOAS - 1]
    for name in ('obliquity_deg', 'mean_csa_corrected_cm2', 'mfi_ratio_of_means_se_pct'):
        assert np.isnan(row[name])
    assert 'fewer than 5 slices' in row['reason']
    assert row['mean_csa_cm2'] == pytest.approx(2.25)


def test_levels_of_a_muscle() -> None:
    made = measured(**dixon(), contrast='dixon', height_m=1.5)
    rows = made.levels.set_index(['level', 'name'])
    assert list(dict.fromkeys(made.levels['level'])) == ['L3', 'L4', 'L5']  # L2 has no muscle
    right = rows.loc[('L4', 'right psoas major')]
    assert right['csa_cm2'] == right['mean_csa_cm2'] == pytest.approx(2.25)
    assert (right['n_slices'], right['n_voxels']) == (4, 400)
    assert right['level_confidence'] == pytest.approx(0.8)
    assert right['mfi_lean_csa_cm2'] == pytest.approx(
        2.25 * (1 - right['mfi_mean_of_voxels_pct'] / 100)
    )
    # Total psoas area: 10 x 10 and 8 x 10 pixels of 2.25 mm2, over the height squared.
    both = rows.loc[('L4', 'psoas major')]
    assert both['side'] == 'both'
    assert both['csa_cm2'] == pytest.approx(4.05)
    assert both['muscle_index_cm2_m2'] == pytest.approx(4.05 / 1.5**2)
    assert np.isnan(right['muscle_index_cm2_m2'])
    assert ('L3', 'psoas major') not in rows.index  # only one side is there
    assert made.muscles.iloc[RIGHT_PSOAS - 1]['levels'] == 'L3 L4 L5'
    assert list(made.levels.columns) == list(morph_dictionary('morph_levels'))
    assert list(made.slices.columns) == list(morph_dictionary('morph_slices'))


def test_levels_that_cannot_be_trusted_say_why() -> None:
    numbers = labels()
    numbers[..., 0] = numbers[..., 1]
    names = SliceLevels(('L5',) * 2 + ('L4',) * 9 + ('L3',), np.ones(12), 'file')
    made = measured(numbers, levels=names)
    rows = made.levels.set_index(['level', 'name'])
    cut = rows.loc[('L5', 'psoas major')]
    assert np.isnan(cut['csa_cm2'])
    assert 'level is cut by the edge of the image' in cut['reason']
    assert 'no height' in cut['reason']
    assert cut['mean_csa_cm2'] == pytest.approx(4.05)
    left = rows.loc[('L4', 'left psoas major')]  # slices 2 to 5 of 2 to 10
    assert np.isnan(left['csa_cm2'])
    assert 'middle slice' in left['reason']
    assert 'middle slice' in rows.loc[('L4', 'psoas major'), 'reason']
    assert measured(levels=None).levels.empty


def test_asymmetry_is_the_same_on_both_rows() -> None:
    rows = by_name(measured(**dixon(), contrast='dixon').muscles)
    right, left = rows.loc['right psoas major'], rows.loc['left psoas major']
    assert right['volume_asymmetry_pct'] == left['volume_asymmetry_pct']
    assert right['volume_asymmetry_pct'] == pytest.approx(100 * (400 - 1000) / 700)
    assert left['mfi_asymmetry_points'] == pytest.approx(
        left['mfi_ratio_of_means_pct'] - right['mfi_ratio_of_means_pct']
    )
    assert np.isnan(rows.loc['left multifidus', 'volume_asymmetry_pct'])


def test_a_muscle_cut_on_one_side_has_no_asymmetry_of_volume() -> None:
    numbers = labels()
    numbers[..., 11] = numbers[..., 10]
    rows = by_name(measured(numbers).muscles)
    for side in ('right', 'left'):
        row = rows.loc[f'{side} psoas major']
        assert np.isnan(row['volume_asymmetry_pct'])
        assert 'only one side' in row['reason']


def test_the_standard_error_is_that_of_a_mean_of_independent_slices() -> None:
    rng = np.random.default_rng(1)
    wholes = np.full(40, 100.0)
    parts = rng.normal(30, 4, 40)
    theory = parts.std() / 100 / np.sqrt(40)
    assert bootstrap_se(parts, wholes) == pytest.approx(theory, rel=0.1)
    assert bootstrap_se(parts[::-1], wholes) == bootstrap_se(parts, wholes)
    assert np.isnan(bootstrap_se(parts[:4], wholes[:4]))
    assert np.isnan(bootstrap_se(np.zeros(9), np.zeros(9)))


def test_percentiles_and_lean_volume() -> None:
    row = measured(**dixon(), contrast='dixon').muscles.iloc[RIGHT_PSOAS - 1]
    images = dixon()
    water, fat = (images[name].get_fdata()[labels() == RIGHT_PSOAS] for name in images)
    fraction = 100 * fat / (fat + water)
    for q in (5, 25, 50, 75, 95):
        assert row[f'mfi_p{q:02}_pct'] == pytest.approx(np.percentile(fraction, q), rel=1e-5)
    assert row['mfi_fat_ml'] + row['mfi_lean_ml'] == pytest.approx(row['volume_ml'])
    assert row['mfi_fat_ml'] == pytest.approx(row['volume_ml'] * fraction.mean() / 100)
    assert 0 < row['mfi_mean_of_voxels_se_pct'] < 3


def test_the_map_shows_fat_within_muscles_in_the_order_of_the_labels() -> None:
    numbers, flip = labels(), np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    images = dixon()
    stored = {
        name: image(np.ascontiguousarray(img.get_fdata()[::-1]), AFFINE @ flip)
        for name, img in images.items()
    }
    made = measure_scan(
        image(numbers[::-1].copy(), AFFINE @ flip), TABLE, ScanImages(contrast='dixon', **stored)
    )
    found = np.asarray(made.fat_map.dataobj)[::-1]
    water, fat = (img.get_fdata() for img in images.values())
    inside = numbers > 0
    np.testing.assert_allclose(found[inside], (fat / (fat + water))[inside], rtol=1e-5)
    assert np.isnan(found[~inside]).all()
    assert found.dtype == np.float32


def test_the_map_of_thresholds_is_the_probability_of_fat() -> None:
    made = measured(intensity=t2w(), fat_method='gmm2')
    found = np.asarray(made.fat_map.dataobj)[labels() == RIGHT_PSOAS]
    row = made.muscles.iloc[RIGHT_PSOAS - 1]
    assert 100 * found.mean() == pytest.approx(row['fat_gmm2_weighted_pct'], abs=0.01)
    values = t2w().get_fdata()[labels() == RIGHT_PSOAS]
    assert ((found > 0.5) == (values > row['threshold_level'])).all()
    assert measured(contrast='dixon').fat_map is None


@pytest.mark.parametrize(
    ('method', 'kept', 'lost'),
    [
        ('ratio', 'mfi_ratio_of_means_pct', 'mfi_mean_of_voxels_pct'),
        ('mean', 'mfi_mean_of_voxels_pct', 'mfi_ratio_of_means_pct'),
        ('gmm3', 'mfi_ratio_of_means_pct', 'fat_gmm3_pct'),
    ],
)
def test_one_way_of_measuring_fat_and_fat_water(method: str, kept: str, lost: str) -> None:
    made = measured(**dixon(), contrast='dixon', fat_method=method)
    for table in (made.muscles, made.slices, made.levels):
        for name, there in ((kept, True), (lost, False)):
            if name in table:
                assert table[name].notna().any() == there


@pytest.mark.parametrize('method', ['kmeans2', 'ratio'])
def test_one_way_of_measuring_fat_by_thresholds(method: str) -> None:
    row = measured(intensity=t2w(), fat_method=method).muscles.iloc[RIGHT_PSOAS - 1]
    chosen = method == 'kmeans2'
    assert row['threshold_method'] == 'kmeans2'
    assert row['fat_kmeans2_pct'] == pytest.approx(20, abs=4)
    assert pd.isna(row['fat_gmm2_pct']) == chosen
    assert 0 < row['fat_kmeans2_se_pct'] < 5


# MuscleMap: one label that cannot be split costs the whole table.
@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        ('constant', 'too many for thresholds'),
        ('undefined', 'only 0 voxels'),
        ('half undefined', 'voxels have no value'),
        ('one voxel', 'too few to measure'),
        ('suppressed', 'fat-suppressed'),
    ],
)
def test_one_muscle_that_cannot_be_split_does_not_cost_the_others(fault: str, reason: str) -> None:
    numbers, intensity = labels(), t2w().get_fdata()
    here = numbers == LEFT_PSOAS
    if fault == 'constant':
        intensity[here] = 7
    elif fault == 'undefined':
        intensity[here] = np.nan
    elif fault == 'half undefined':
        intensity[5:10][here[5:10]] = np.nan
    elif fault == 'one voxel':
        numbers[here] = 0
        numbers[6, 6, 3] = LEFT_PSOAS
    suppressed = fault == 'suppressed'
    made = measured(numbers, intensity=image(intensity), fat_suppressed=suppressed)
    left, right = (made.muscles.iloc[index - 1] for index in (LEFT_PSOAS, RIGHT_PSOAS))
    assert reason in left['reason']
    fat = [name for name in left.index if name.startswith('fat_')]
    assert left[fat].isna().all()
    assert right[fat].isna().all() == suppressed
    assert made.slices.loc[made.slices['index'] == LEFT_PSOAS, 'reason'].notna().all()


def test_thresholds_do_not_see_the_unit_of_the_image() -> None:
    one = measured(intensity=t2w()).muscles
    other = measured(intensity=image(t2w().get_fdata() * 0.01)).muscles
    shares = [name for name in one if name.endswith(('_pct', '_ml'))]
    pd.testing.assert_frame_equal(one[shares], other[shares], rtol=1e-6)


def test_the_step_measures_the_corrected_image_where_the_raw_one_is_defined(
    tmp_path: Path,
) -> None:
    from bids_muscle.interfaces.measure import MeasureScan

    raw, corrected = t2w(1).get_fdata(), t2w().get_fdata()
    raw[26], corrected[26] = np.nan, 0
    body = np.ones(SHAPE, np.uint8)
    images = {'labels': labels(), 'raw': raw, 'corrected': corrected, 'body': body}
    for name, data in images.items():
        nib.save(image(data), tmp_path / f'{name}.nii')
    (tmp_path / 'levels.tsv').write_text('source\tlevel\tconfidence\n')
    expected = {'predicted_dice': {'right psoas major': 0.91, 'left psoas major': 0.5}}
    (tmp_path / 'quality.json').write_text(json.dumps(expected))
    step = MeasureScan(
        keep_fat_map=True,
        labels=str(tmp_path / 'labels.nii'),
        raw={'T2w': str(tmp_path / 'raw.nii')},
        corrected={'T2w': str(tmp_path / 'corrected.nii')},
        body_mask=str(tmp_path / 'body.nii'),
        levels=str(tmp_path / 'levels.tsv'),
        quality=str(tmp_path / 'quality.json'),
        swap_searched=False,
        fix_swaps=False,
        bounded=False,
        table=TABLE,
        contrast='T2w',
    )
    made = step.run(cwd=str(tmp_path)).outputs
    table = pd.read_csv(made.tables['morph'], sep='\t')
    assert table.set_index('name')['dice_predicted'].dropna().to_dict() == {
        'right psoas major': 0.91,
        'left psoas major': 0.5,
    }
    assert 'predicted Dice 0.50' in table.loc[LEFT_PSOAS - 1, 'reason']
    assert 'predicted Dice' not in table.loc[RIGHT_PSOAS - 1, 'reason']
    row = table.iloc[RIGHT_PSOAS - 1]
    assert row['threshold_excluded_voxels'] == 100
    assert row['fat_gmm2_pct'] == pytest.approx(20, abs=4)
    assert np.isnan(nib.load(made.fat_map).get_fdata()[26]).all()
    assert pd.read_csv(made.tables['morph_levels'], sep='\t').empty
    assert [text[:52] for text in made.warnings] == [
        'Psoas major is almost missing on one side in slices '
    ]
