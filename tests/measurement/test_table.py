"""Measures against truth known from boxes and cylinders, in every orientation."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.errors import BadDataError, GridMismatchError
from bids_muscle.imaging.dixon import fat_fraction
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.rows import morph_dictionary
from bids_muscle.measurement.table import measure_scan

TABLE = load_label_table('lumbar')
SHAPE = (40, 30, 12)
AFFINE = np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -20], [0, 0, 4, 100], [0, 0, 0, 1.0]])
TILT = np.eye(4)
TILT[:3, :3] = nib.eulerangles.euler2mat(0.25, -0.1, 0.15)

ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def image(data: np.ndarray, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(data, affine)


def phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, water and fat: a box right (20 % fat) and a smaller one left (40 %)."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[25:35, 5:15, 2:8] = 1
    labels[5:10, 5:15, 3:7] = 2
    water, fat = np.full(SHAPE, 50.0), np.full(SHAPE, 50.0)
    water[labels == 1], fat[labels == 1] = 80, 20
    water[labels == 2], fat[labels == 2] = 60, 40
    return labels, water, fat


def measured(
    labels: np.ndarray, water: np.ndarray, fat: np.ndarray, affine: np.ndarray = AFFINE
) -> pd.DataFrame:
    return measure_scan(
        image(labels, affine),
        TABLE,
        ScanImages(contrast='dixon', water=image(water, affine), fat=image(fat, affine)),
    ).muscles.set_index('index')


def test_a_box_has_its_measures() -> None:
    rows = measured(*phantom())
    right = rows.loc[1]
    assert right['name'] == 'right multifidus'
    assert right['n_voxels'] == 600
    assert right['volume_ml'] == pytest.approx(600 * 9 / 1000)
    assert right['mfi_ratio_of_means_pct'] == pytest.approx(20)
    assert right['mfi_mean_of_voxels_pct'] == pytest.approx(20)
    assert right['mfi_excluded_voxels'] == 0
    assert right['mean_csa_cm2'] == right['max_csa_cm2'] == pytest.approx(2.25)
    assert right['n_slices'] == 6
    assert right['length_mm'] == pytest.approx(24)
    centre = AFFINE @ (29.5, 9.5, 4.5, 1)
    assert right[['x_ras_mm', 'y_ras_mm', 'z_ras_mm']].tolist() == pytest.approx(centre[:3])
    assert not right['truncated']
    assert pd.isna(right['reason'])
    assert rows.loc[2, 'mfi_ratio_of_means_pct'] == pytest.approx(40)
    assert rows.loc[2, 'x_ras_mm'] < rows.loc[1, 'x_ras_mm']  # left stays left


@pytest.mark.parametrize('ornt', ORIENTATIONS, ids=str)
def test_orientation_of_storage_does_not_matter(ornt: np.ndarray) -> None:
    affine = TILT @ AFFINE
    labels, water, fat = phantom()
    expected = measured(labels, water, fat, affine)
    stored = [np.ascontiguousarray(apply_orientation(a, ornt)) for a in (labels, water, fat)]
    found = measured(*stored, affine @ inv_ornt_aff(ornt, SHAPE))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-9)


def test_a_sagittal_acquisition_is_measured_on_axial_slices() -> None:
    # Thick slices run left-right: 1x1 mm in the sagittal plane, 5 mm across.
    affine = np.diag([5.0, 1, 1, 1])
    labels = np.zeros((12, 40, 60), np.uint8)
    labels[3:7, 10:30, 5:50] = 3
    row = measured(labels, labels + 1.0, labels * 0.0, affine).loc[3]
    assert row['n_slices'] == 45
    assert row['max_csa_cm2'] == pytest.approx(4 * 5 * 20 / 100)
    assert row['length_mm'] == pytest.approx(45)


def test_a_sheared_grid_has_the_volume_of_its_determinant() -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 3.0  # slices shifted against each other
    row = measured(*phantom(), affine).loc[1]
    assert row['volume_ml'] == pytest.approx(600 * 9 / 1000)
    assert row['max_csa_cm2'] == pytest.approx(2.25)


def test_an_upright_cylinder() -> None:
    shape, affine = (90, 90, 20), np.diag([0.5, 0.5, 3, 1])
    x, y = np.indices(shape[:2]) * 0.5 - 22.3
    labels = np.repeat((np.hypot(x, y) < 18)[:, :, None] * 1, 20, axis=2).astype(np.uint8)
    labels[:, :, [0, -1]] = 0
    row = measured(labels, labels * 10.0, labels * 0.0, affine).loc[1]
    assert row['mean_csa_cm2'] == pytest.approx(np.pi * 1.8**2, rel=0.01)
    assert row['volume_ml'] == pytest.approx(np.pi * 1.8**2 * 5.4, rel=0.01)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_slices_scale_and_order_of_slices(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 9, (9, 8, 7)).astype(np.uint8)
    water, fat = rng.uniform(0, 100, (2, 9, 8, 7))
    rows = measured(labels, water, fat)
    assert rows['n_voxels'].sum() == np.count_nonzero(labels)
    summed = rows['mean_csa_cm2'] * rows['n_slices'] * 0.4  # cm2 x 4 mm = 0.4 ml
    assert np.allclose(summed, rows['volume_ml'])
    skipped = ('mfi_swapped_voxels', 'mfi_ratio_of_means_eroded', 'mfi_mean_of_voxels_eroded')
    fat_columns = [n for n in rows if n.startswith('mfi') and not n.startswith(skipped)]
    scaled = measured(labels, water * scale, fat * scale)
    assert np.allclose(scaled[fat_columns].astype(float), rows[fat_columns].astype(float))
    order = rng.permutation(7)
    shuffled = measured(labels[..., order], water[..., order], fat[..., order])
    same = [*fat_columns, 'volume_ml', 'max_csa_cm2', 'n_slices']
    assert np.allclose(shuffled[same].astype(float), rows[same].astype(float))


def test_ratio_of_means_weighs_by_signal_and_mean_of_voxels_does_not() -> None:
    labels, water, fat = phantom()
    water[25:30][labels[25:30] == 1], fat[25:30][labels[25:30] == 1] = 0, 300
    row = measured(labels, water, fat).loc[1]
    assert row['mfi_mean_of_voxels_pct'] == pytest.approx(60)
    assert row['mfi_ratio_of_means_pct'] == pytest.approx(100 * 320 / 400)


def test_empty_voxels_do_not_dilute_fat() -> None:
    """MuscleMap counts an empty voxel as 0 % fat: 24 % where the truth is 30 %."""
    labels, water, fat = phantom()
    inside = np.argwhere(labels == 1)
    water[labels == 1], fat[labels == 1] = 70, 30
    for i, j, k in inside[::5]:
        water[i, j, k] = fat[i, j, k] = 0
    row = measured(labels, water, fat).loc[1]
    assert row['mfi_mean_of_voxels_pct'] == pytest.approx(30)
    assert row['mfi_ratio_of_means_pct'] == pytest.approx(30)
    assert row['mfi_excluded_voxels'] == 120


def test_one_negative_voxel_does_not_explode() -> None:
    """MuscleMap: F = 30 and W = -29.9 in one voxel of 100 give 330 %."""
    labels, water, fat = phantom()
    labels[labels == 1] = 0
    labels[25:35, 5:15, 4] = 1
    water[labels == 1], fat[labels == 1] = 70, 30
    water[25, 5, 4] = -29.9
    row = measured(labels, water, fat).loc[1]
    assert 29 < row['mfi_mean_of_voxels_pct'] < 31
    assert row['mfi_ratio_of_means_pct'] == pytest.approx(30.3, abs=0.1)


def test_noise_below_zero_counts_as_it_is_in_the_ratio_and_is_limited_in_voxels() -> None:
    labels, water, fat = phantom()
    inside = tuple(np.argwhere(labels == 1)[:3].T)
    # Below zero in all; fat alone and water alone below zero.
    water[inside], fat[inside] = (-5, 60, -10), (2, -20, 30)
    row = measured(labels, water, fat).loc[1]
    sums = [image[labels == 1].sum() for image in (water, fat)]
    assert row['mfi_ratio_of_means_pct'] == pytest.approx(100 * sums[1] / sum(sums), rel=1e-12)
    assert row['mfi_excluded_voxels'] == 1
    mean = (597 * 0.2 + 0 + 1) / 599
    assert row['mfi_mean_of_voxels_pct'] == pytest.approx(100 * mean, rel=1e-6)


@pytest.mark.parametrize('hole', ['water', 'fat'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_undefined_voxels_count_in_neither_measure(hole: str, value: float) -> None:
    labels, water, fat = phantom()
    water[25:30][labels[25:30] == 1], fat[25:30][labels[25:30] == 1] = 0, 300
    (water if hole == 'water' else fat)[25:30] = value
    row = measured(labels, water, fat).loc[1]
    assert row['mfi_ratio_of_means_pct'] == pytest.approx(20)
    assert row['mfi_mean_of_voxels_pct'] == pytest.approx(20)
    assert row['mfi_excluded_voxels'] == 300
    assert row['n_voxels'] == 600


def test_voxels_below_the_noise_stay_in_the_ratio_of_means() -> None:
    labels, water, fat = phantom()
    water[25][labels[25] == 1], fat[25][labels[25] == 1] = 8, 2
    fraction = fat_fraction(water, fat, 20)
    rows = measure_scan(
        image(labels),
        TABLE,
        ScanImages(
            contrast='dixon', water=image(water), fat=image(fat), fat_fraction=image(fraction)
        ),
    ).muscles.set_index('index')
    assert rows.loc[1, 'mfi_excluded_voxels'] == 60
    assert rows.loc[1, 'mfi_ratio_of_means_pct'] == pytest.approx(20)
    water[25][labels[25] == 1] = 98
    rows = measure_scan(
        image(labels),
        TABLE,
        ScanImages(
            contrast='dixon', water=image(water), fat=image(fat), fat_fraction=image(fraction)
        ),
    ).muscles.set_index('index')
    assert rows.loc[1, 'mfi_ratio_of_means_pct'] == pytest.approx(100 * 182 / 1000)


def test_no_signal_at_all_is_missing_with_a_reason() -> None:
    labels, water, fat = phantom()
    water[labels == 1] = fat[labels == 1] = 0
    row = measured(labels, water, fat).loc[1]
    assert pd.isna(row['mfi_ratio_of_means_pct'])
    assert pd.isna(row['mfi_mean_of_voxels_pct'])
    assert 'no signal' in row['reason']
    assert row['volume_ml'] == pytest.approx(5.4)  # still true


def test_a_muscle_that_the_model_cannot_label_was_not_looked_for() -> None:
    labels, _, _ = phantom()
    found = measure_scan(image(labels), TABLE, ScanImages(contrast='T2w'), unlabelled=[7])
    row = found.muscles.set_index('index').loc[7]
    assert pd.isna(row['n_voxels'])
    assert row['reason'] == 'the model has no such muscle'


def test_negative_mean_fat_is_missing_with_a_reason() -> None:
    labels, water, fat = phantom()
    fat[labels == 1] = -5
    row = measured(labels, water, fat).loc[1]
    assert pd.isna(row['mfi_ratio_of_means_pct'])
    assert 'negative' in row['reason']


def test_absent_and_tiny_muscles_do_not_cost_the_others() -> None:
    labels, water, fat = phantom()
    labels[0, 0, 0] = 5
    rows = measured(labels, water, fat)
    assert list(rows.index) == [label.index for label in TABLE]
    assert rows.loc[7, 'n_voxels'] == 0
    assert rows.loc[7, 'reason'] == 'not found in the field of view'
    assert rows.loc[7].drop(['name', 'muscle', 'side', 'n_voxels', 'reason']).isna().all()
    assert rows.loc[5, 'n_voxels'] == 1
    assert 'too few' in rows.loc[5, 'reason']
    assert rows.loc[1, 'mfi_ratio_of_means_pct'] == pytest.approx(20)


@pytest.mark.parametrize('where', [(slice(25, 35), 0, 0), (0, slice(5, 25), 5)])
def test_muscle_at_the_edge_is_truncated(where: tuple) -> None:
    labels, water, fat = phantom()
    labels[where] = 1
    row = measured(labels, water, fat).loc[1]
    assert row['truncated']
    assert 'edge' in row['reason']


@pytest.mark.parametrize('value', [0.0, np.nan])
@pytest.mark.parametrize(
    ('lost', 'right', 'left'),
    [([5], 1, 1), ([4, 5], 2, 2), ([1], 1, 0), ([0], 0, 0), ([10], 0, 0)],
)
def test_a_volume_says_that_a_slice_is_lost(
    lost: list[int], right: int, left: int, value: float
) -> None:
    labels, water, fat = phantom()
    for data in (water, fat):
        data[..., lost] = value
    labels[..., lost] = 0
    rows = measured(labels, water, fat)
    for index, n_lost in ((1, right), (2, left)):
        row = rows.loc[index]
        assert bool(row['truncated']) == (n_lost > 0)
        said = f'no signal on {n_lost} of the slices within it or next to it, so volume may'
        assert (said in str(row['reason'])) == (n_lost > 0)
    # A person may outline a muscle where the slice is lost.
    whole = measured(phantom()[0], water, fat)
    assert (whole.loc[1, 'volume_ml'], whole.loc[2, 'volume_ml']) == (5.4, 1.8)
    assert ('volume may be incomplete' in str(whole.loc[1, 'reason'])) == (lost == [1])


def test_the_volume_of_a_level_says_that_a_slice_is_lost() -> None:
    labels, water, fat = phantom()
    water[..., 5] = fat[..., 5] = labels[..., 5] = 0
    names = ('L5',) * 4 + ('L4',) * 4 + ('L3',) * 4
    rows = measure_scan(
        image(labels),
        TABLE,
        ScanImages(contrast='dixon', water=image(water), fat=image(fat)),
        levels=SliceLevels(names, np.ones(12), 'atlas'),
        height_m=1.7,
    ).levels
    said = rows['reason'].str.contains('no signal on 1 of the slices of the level', na=False)
    assert set(rows['side']) == {'left', 'right', 'both'}
    assert (said == (rows['level'] == 'L4')).all()


def test_bounded_fat_says_so() -> None:
    labels, water, fat = phantom()
    rows = measure_scan(
        image(labels),
        TABLE,
        ScanImages(
            contrast='dixon',
            water=image(water),
            fat=image(fat),
            fat_fraction=image(fat_fraction(water, fat, 0)),
            bounded=True,
        ),
    ).muscles
    assert '50 %' in rows.loc[0, 'reason']


def test_t2w_has_size_but_no_fat() -> None:
    labels, _, _ = phantom()
    rows = measure_scan(image(labels), TABLE, ScanImages(contrast='T2w')).muscles.set_index(
        'index'
    )
    assert rows.loc[1, 'volume_ml'] == pytest.approx(5.4)
    assert rows[[name for name in rows if name.startswith('mfi')]].isna().all(axis=None)
    assert 'T2w' in rows.loc[1, 'reason']


def test_fat_fraction_alone_gives_the_mean_of_voxels_only() -> None:
    labels, water, fat = phantom()
    rows = measure_scan(
        image(labels),
        TABLE,
        ScanImages(contrast='dixon', fat_fraction=image(fat_fraction(water, fat, 0))),
    ).muscles
    assert rows.loc[0, 'mfi_mean_of_voxels_pct'] == pytest.approx(20)
    assert pd.isna(rows.loc[0, 'mfi_ratio_of_means_pct'])
    assert 'only a fat fraction image' in rows.loc[0, 'reason']


@pytest.mark.parametrize('contrast', ['dixon', 'T1w'])
def test_fat_that_cannot_be_trusted_is_missing_everywhere(contrast: str) -> None:
    labels, water, fat = phantom()
    given = {'water': image(water), 'fat': image(fat)} if contrast == 'dixon' else {}
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    found = measure_scan(
        image(labels),
        TABLE,
        ScanImages(
            contrast=contrast,
            **given,
            intensity=image(np.where(fat > 30, 300, 100) + noise),
            fat_doubt='one is a copy of the other',
        ),
    )
    for table in (found.muscles, found.slices):
        columns = [name for name in table if name.startswith(('mfi_', 'fat_', 'threshold_fat'))]
        values = table[[name for name in columns if not name.endswith('voxels')]]
        assert values.shape[1] >= 3
        assert values.isna().all(axis=None)
    assert (found.muscles.loc[[0, 1], 'volume_ml'] > 0).all()
    assert all('copy' in reason for reason in found.muscles.loc[[0, 1], 'reason'])


@pytest.mark.parametrize('fault', ['shape', 'affine'])
def test_another_grid_is_refused(fault: str) -> None:
    """MuscleMap compares shapes only."""
    labels, water, fat = phantom()
    moved = AFFINE.copy()
    moved[0, 3] += 1
    wrong = image(fat[:-1]) if fault == 'shape' else image(fat, moved)
    with pytest.raises(GridMismatchError, match='fat'):
        measure_scan(
            image(labels), TABLE, ScanImages(contrast='dixon', water=image(water), fat=wrong)
        )


@pytest.mark.parametrize(('value', 'message'), [(99, '99'), (1.5, 'whole')])
def test_wrong_labels_are_refused(value: float, message: str) -> None:
    labels = phantom()[0].astype(np.float32)
    labels[0, 0, 0] = value
    with pytest.raises(BadDataError, match=message):
        measure_scan(image(labels), TABLE, ScanImages(contrast='T2w'))


def test_every_column_is_defined() -> None:
    rows = measured(*phantom()).reset_index()
    assert list(rows.columns) == list(morph_dictionary())
    for definition in morph_dictionary().values():
        assert {'LongName', 'Description', 'Units', 'Source'} <= set(definition)
        assert definition['Description'].endswith('.')
    for name, definition in morph_dictionary().items():
        for ending, unit in (('_pct', '%'), ('_ml', 'ml'), ('_cm2', 'cm^2'), ('_mm', 'mm')):
            assert not name.endswith(ending) or definition['Units'] == unit


def test_voxels_with_fat_and_water_exchanged_are_left_out_and_counted() -> None:
    labels, water, fat = phantom()
    swap = np.zeros(SHAPE, bool)
    swap[25:27] = True
    water[swap], fat[swap] = fat[swap], water[swap]
    images = {'water': image(water), 'fat': image(fat)}
    rows = measure_scan(
        image(labels), TABLE, ScanImages(contrast='dixon', **images, swap=swap)
    ).muscles
    right, left = rows.iloc[0], rows.iloc[1]
    assert right['mfi_ratio_of_means_pct'] == pytest.approx(20)
    assert right['mfi_mean_of_voxels_pct'] == pytest.approx(20)
    assert right['mfi_swapped_voxels'] == right['mfi_excluded_voxels'] == 120
    assert '120 of 600' in right['reason']
    assert left['mfi_swapped_voxels'] == 0
    assert 'swapped' not in left['reason']
    with pytest.raises(GridMismatchError, match='swap'):
        measure_scan(image(labels), TABLE, ScanImages(contrast='dixon', **images, swap=swap[1:]))


def test_levels_are_listed_from_the_top_whatever_the_voxel_order() -> None:
    labels = phantom()[0]
    levels = SliceLevels((None, *['L5'] * 4, *['L4'] * 7), np.full(12, 0.9), 'atlas')
    flipped = AFFINE @ inv_ornt_aff([[0, 1], [1, 1], [2, -1]], SHAPE)
    for stored, affine in ((labels, AFFINE), (labels[..., ::-1], flipped)):
        rows = measure_scan(
            image(stored, affine), TABLE, ScanImages(contrast='T2w'), levels=levels
        ).muscles
        assert rows.loc[0, 'levels'] == 'L4 L5'
    short = SliceLevels(('L5',), np.ones(1), 'file')
    with pytest.raises(GridMismatchError, match='levels of 1 slices'):
        measure_scan(image(labels), TABLE, ScanImages(contrast='T2w'), levels=short)


def test_the_eroded_muscle_has_no_rim() -> None:
    labels, water, fat = phantom()
    fat[labels == 1], water[labels == 1] = 60, 40
    fat[26:34, 6:14, 2:8], water[26:34, 6:14, 2:8] = 30, 270
    labels[30, 10, 5] = 3  # a voxel of another muscle has a rim around it, too
    fat[29, 10, 5], water[29, 10, 5] = 300, 0
    rows = measured(labels, water, fat)
    assert rows.loc[1, 'mfi_ratio_of_means_eroded_pct'] == pytest.approx(10)
    assert rows.loc[1, 'mfi_mean_of_voxels_eroded_pct'] == pytest.approx(10)
    assert rows.loc[1, 'mfi_mean_of_voxels_pct'] > 25
    # A muscle two pixels wide has no core.
    labels[:] = 0
    labels[5:7, 5:15, 3:7] = 2
    row = measured(labels, water, fat).loc[2]
    assert pd.isna(row['mfi_ratio_of_means_eroded_pct'])
    assert 'left after erosion' in row['reason']
    assert row['mfi_ratio_of_means_pct'] == pytest.approx(40)
