"""Discs and vertebrae of known height, place and tilt."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff

from bids_muscle.errors import BadDataError
from bids_muscle.measurement.rows import morph_dictionary
from bids_muscle.measurement.spine import CUT, join_levels, measure_spine, smallest_rectangle

#: Sagittal slices 4 mm thick, 0.5 x 0.8 mm in the plane.
AFFINE = np.array([[4.0, 0, 0, -20], [0, 0.5, 0, -30], [0, 0, 0.8, 50], [0, 0, 0, 1]])
SHAPE = (11, 160, 150)
NAMES = {101: 'T12-L1', 105: 'L5-S1'}


def disc(centre: tuple[float, float, float], height: float, depth: float, tilt: float):
    """Draw a slab in world mm, its front lower by `tilt` degrees."""
    i, j, k = np.indices(SHAPE)
    x, y, z = (AFFINE[a, a] * n + AFFINE[a, 3] for a, n in enumerate((i, j, k)))
    angle = np.radians(tilt)
    y, z = y - centre[1], z - centre[2]
    along, up = y * np.cos(angle) - z * np.sin(angle), y * np.sin(angle) + z * np.cos(angle)
    return (abs(x - centre[0]) < 12) & (abs(along) < depth / 2) & (abs(up) < height / 2)


def image(data: np.ndarray, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(data, affine)


def two_discs() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[disc((0, 10, 150), 8, 36, 5)] = 101
    labels[disc((4, 5, 80), 12, 36, 30)] = 105
    return labels


def test_height_depth_tilt_and_place_of_a_disc() -> None:
    rows = measure_spine(None, (image(two_discs()), NAMES)).set_index('name')
    assert list(rows.index) == ['T12-L1', 'L5-S1', 'L1-S1']
    for name, height, tilt in (('T12-L1', 8, 5), ('L5-S1', 12, 30)):
        row = rows.loc[name]
        # The corners of the pixels at the rim lie up to a pixel outside.
        assert height <= row['height_mm'] < height + 1.2
        assert row['mean_height_mm'] == pytest.approx(height, abs=0.4)
        assert 36 <= row['depth_mm'] < 37.2
        assert row['tilt_deg'] == pytest.approx(tilt, abs=1)
    assert rows.loc['L5-S1', ['x_ras_mm', 'y_ras_mm', 'z_ras_mm']].tolist() == pytest.approx(
        [4, 5, 80], abs=0.1
    )
    lps = rows.loc['L5-S1', ['x_lps_mm', 'y_lps_mm', 'z_lps_mm']].tolist()
    assert lps == pytest.approx([-4, -5, 80], abs=0.1)
    assert rows.loc['L1-S1', 'kind'] == 'lordosis'
    assert rows.loc['L1-S1', 'tilt_deg'] == pytest.approx(25, abs=1.5)
    assert rows['reason'].isna().all()


def test_pixel_corners_count_in_mm() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 40:100, 60:70] = 7
    row = measure_spine(None, (image(labels), {})).iloc[0]
    assert row['height_mm'] == row['mean_height_mm'] == pytest.approx(8)
    assert row['depth_mm'] == pytest.approx(30)
    assert row['name'] == 'label 7'
    assert row['volume_ml'] == pytest.approx(5 * 30 * 8 * 4 / 1000)


@settings(max_examples=15)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((1, -1))] * 3),
)
def test_voxel_order_does_not_matter(order: list[int], flips: tuple[int, ...]) -> None:
    ornt = np.column_stack([order, flips])
    stored = np.ascontiguousarray(apply_orientation(two_discs(), ornt))
    found = measure_spine(None, (image(stored, AFFINE @ inv_ornt_aff(ornt, SHAPE)), NAMES))
    expected = measure_spine(None, (image(two_discs()), NAMES))
    assert found['name'].tolist() == expected['name'].tolist()
    for column in ('height_mm', 'tilt_deg', 'x_ras_mm', 'y_lps_mm'):
        np.testing.assert_allclose(
            found[column].astype(float), expected[column].astype(float), atol=1e-6
        )


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40),
    st.floats(0.3, 3),
    st.floats(0.3, 3),
)
def test_no_turned_rectangle_is_smaller(
    pixels: list[tuple[int, int]], first: float, second: float
) -> None:
    found = smallest_rectangle(np.array(pixels), (first, second))
    corners = np.array([(i + a, j + b) for i, j in pixels for a in (0, 1) for b in (0, 1)])
    points = corners * (first, second)
    for angle in np.radians(np.arange(0, 90, 0.5)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert found.short_mm * found.long_mm <= np.ptp(points @ turn, axis=0).prod() + 1e-6


def test_stray_voxels_and_holes_do_not_count() -> None:
    labels = two_discs()
    labels[5, 2, 140:148] = 101
    clean = measure_spine(None, (image(two_discs()), NAMES)).iloc[0]
    labels[5, 80, 124] = 0
    row = measure_spine(None, (image(labels), NAMES)).iloc[0]
    assert row['height_mm'] == clean['height_mm']
    assert row['mean_height_mm'] == clean['mean_height_mm']


def test_what_cannot_be_measured_says_why() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[5, 5, 5] = 101
    labels[0:4, 40:90, 60:70] = 103
    rows = measure_spine((image(labels), {}), (image(labels), NAMES))
    assert rows['kind'].tolist() == ['vertebra'] * 2 + ['disc'] * 2
    by_name = rows[rows['kind'] == 'disc'].set_index('name')
    assert 'too few' in by_name.loc['T12-L1', 'reason']
    assert np.isnan(by_name.loc['T12-L1', 'height_mm'])
    assert 'edge of the image' in by_name.loc['label 103', 'reason']
    assert rows[rows['kind'] == 'vertebra']['height_mm'].isna().all()
    with pytest.raises(BadDataError, match='whole'):
        measure_spine((image(labels + 0.5), {}), None)
    assert measure_spine((image(labels * 0), {}), None).empty


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('far', [False, True])
def test_a_disc_cut_by_any_edge_of_the_image_says_so(axis: int, far: bool) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 40:90, 60:70] = 103

    def touches(moved: np.ndarray) -> bool:
        reason = str(measure_spine(None, (image(moved), NAMES)).iloc[0]['reason'])
        # Only what is cut above or below has its height wrong.
        assert (CUT in reason) == (axis == 2 and 'edge of the image' in reason)
        return 'edge of the image' in reason

    places = np.nonzero(labels.any(axis=tuple({0, 1, 2} - {axis})))[0]
    shift = SHAPE[axis] - 1 - places[-1] if far else -places[0]
    assert touches(np.roll(labels, shift, axis))
    assert not touches(np.roll(labels, shift + (-1 if far else 1), axis))


def test_every_column_of_the_spine_is_defined() -> None:
    rows = measure_spine(None, (image(two_discs()), NAMES))
    assert list(rows.columns) == list(morph_dictionary('morph_spine'))


def test_cobb_is_the_angle_between_the_end_plates() -> None:
    discs = two_discs()
    bones = np.zeros(SHAPE, np.uint8)
    bones[disc((0, 9, 131), 26, 36, 5)] = 20
    bones[disc((4, -5, 62), 26, 36, 30)] = 26
    bones[discs > 0] = 0
    table = measure_spine(
        (image(bones), {20: 'L1', 26: 'S1'}),
        (image(discs), NAMES),
        confidence={20: 0.9},
        reasons={20: ('look at it',)},
    ).set_index('kind')
    assert table.loc['cobb', 'tilt_deg'] == pytest.approx(25, abs=3)
    first = table.loc['vertebra'].iloc[0]
    assert (first['name'], first['confidence']) == ('L1', 0.9)
    assert first['reason'].startswith('look at it')


def test_vertebrae_and_muscles_are_joined_by_level() -> None:
    spine = measure_spine(
        (image(np.where(two_discs() == 105, 24, 0).astype(np.uint8)), {24: 'L5'}), None
    )
    place = spine.iloc[0]
    muscle = {
        'index': 1,
        'name': 'right multifidus',
        'muscle': 'multifidus',
        'side': 'right',
        'level': 'L5',
        'csa_cm2': 5.0,
        'x_ras_mm': place['x_ras_mm'] + 10,
        'y_ras_mm': place['y_ras_mm'] - 40,
        'z_ras_mm': place['z_ras_mm'],
        'reason': None,
    }
    rows = pd.DataFrame(
        [
            muscle,
            {**muscle, 'side': 'left', 'y_ras_mm': place['y_ras_mm'] - 400},
            {**muscle, 'level': 'L4'},
            {**muscle, 'side': 'both'},
        ]
    )
    joined = join_levels({'sag': spine}, {'ax': rows}, {})
    assert list(joined.columns) == list(morph_dictionary('morph_joined'))
    assert list(joined['side']) == ['right', 'left']
    assert set(joined['level']) == {'L5'}
    near, far = joined.to_dict('records')
    assert near['vertebra_z_ras_mm'] == place['z_ras_mm'] and near['csa_cm2'] == 5
    assert pd.isna(near['reason'])
    assert 'different frames of reference' in far['reason']
    assert join_levels({'sag': spine}, {}, {}).empty


@pytest.mark.parametrize(('shift', 'said'), [(0, None), (14, '14 mm to the right')])
def test_muscles_beside_the_vertebrae_are_said(shift: float, said: str | None) -> None:
    spine = measure_spine(
        (image(np.where(two_discs() == 105, 24, 0).astype(np.uint8)), {24: 'L5'}), None
    )
    x, y, z = (spine.iloc[0][f'{axis}_ras_mm'] for axis in 'xyz')
    rows = [
        {'muscle': 'multifidus', 'side': side, 'level': 'L5', 'reason': None}
        | {'x_ras_mm': x + sign * 12 + shift, 'y_ras_mm': y - 40, 'z_ras_mm': z}
        for side, sign in (('right', 1), ('left', -1))
    ]
    joined = join_levels({'sag': spine}, {'ax': pd.DataFrame(rows)}, {})
    reasons = joined['reason'].fillna('').tolist()
    assert all((said or '') in reason and bool(said) == bool(reason) for reason in reasons)


@pytest.mark.parametrize('shift_mm', [None, (0.0, 9.0, 0.0)])
def test_what_the_images_tell_of_movement_comes_first(
    shift_mm: tuple[float, float, float] | None,
) -> None:
    spine = measure_spine(
        (image(np.where(two_discs() == 105, 24, 0).astype(np.uint8)), {24: 'L5'}), None
    )
    x, y, z = (spine.iloc[0][f'{axis}_ras_mm'] for axis in 'xyz')
    rows = [
        {'muscle': 'multifidus', 'side': side, 'level': 'L5', 'reason': None}
        | {'x_ras_mm': x + out + 14, 'y_ras_mm': y - 40, 'z_ras_mm': z}
        for side, out in (('right', 12), ('left', -12))
    ]
    movement = {'MovementMm': shift_mm, 'MovementRemarks': ['look at the images']}
    movement['MovementSpine'] = 'sag'
    # Another sagittal scan, of which nobody knows how far it lies from the axial one.
    spines = {'other': spine, 'sag': spine}
    joined = join_levels(spines, {'ax': pd.DataFrame(rows)}, {'ax': movement})
    assert set(joined['spine_scan']) == {'sag'}
    alone = join_levels({'other': spine}, {'ax': pd.DataFrame(rows)}, {'ax': movement})
    assert alone['moved_y_ras_mm'].isna().all()
    assert alone['reason'].str.contains('14 mm to the right').all()
    assert not alone['reason'].str.contains('look at the images').any()
    told = [row for row in joined['reason'] if 'look at the images' in row]
    beside = [row for row in joined['reason'] if '14 mm to the right' in row]
    assert len(told) == 2
    # That muscles lie to a side counts only where the images do not tell.
    assert len(beside) == (0 if shift_mm else 2)
    assert joined['moved_y_ras_mm'].tolist() == pytest.approx(
        [9, 9] if shift_mm else [np.nan] * 2, nan_ok=True
    )


def test_a_vertebra_without_a_place_hides_no_movement() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[disc((0, 10, 150), 8, 36, 0)] = 20
    labels[disc((0, 10, 80), 8, 36, 0)] = 24
    labels[5, 80, 80] = 22
    spine = measure_spine((image(labels), {20: 'L1', 22: 'L3', 24: 'L5'}), None)
    rows = [
        {'muscle': 'multifidus', 'side': side, 'level': level, 'reason': None}
        | {'x_ras_mm': sign * 12 + 14, 'y_ras_mm': -30, 'z_ras_mm': 100}
        for level in ('L5', 'L3', 'L1')
        for side, sign in (('right', 1), ('left', -1))
    ]
    joined = join_levels({'sag': spine}, {'ax': pd.DataFrame(rows)}, {})
    assert joined['level'].tolist() == ['L1', 'L1', 'L5', 'L5', 'L3', 'L3']
    assert joined['reason'].str.contains('14 mm to the right').all()


def test_numbers_that_are_not_whole_are_refused_by_name() -> None:
    blurred = image(two_discs() + np.float32(0.5))
    with pytest.raises(
        BadDataError, match=r'The label map (?!None)[\w ]+ has numbers that are not'
    ):
        measure_spine(None, (blurred, NAMES))
