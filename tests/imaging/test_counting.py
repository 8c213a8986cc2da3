"""Discs that are seen in a scan, and their names, on people of boxes and rows of heights."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from boxes import align, body, box_atlas, levels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.imaging import counting
from bids_muscle.imaging.atlas import Atlas
from bids_muscle.imaging.counting import regular
from bids_muscle.imaging.registration import PointMatch, scan_points
from bids_muscle.segmentation.stack_discs import agreed, middle_line


@pytest.fixture(scope='module')
def atlas() -> Atlas:
    return box_atlas()


def discs(*heights_mm: float) -> np.ndarray:
    return np.array([(0.0, 0.0, height) for height in heights_mm])


def upright(heights_mm: np.ndarray) -> np.ndarray:
    return heights_mm[:, None] * [0.0, 0.0, 1.0]


def expected(heights_mm: dict[str, float], n_slices: int = 40) -> list[str]:
    """Return the name of each slice of :func:`body`, from the height of the disc below each."""
    z = -80 + 4.0 * np.arange(n_slices)
    names = ['L5'] * n_slices
    for name, height in sorted(heights_mm.items(), key=lambda item: item[1]):
        names = [name if at > height else old for at, old in zip(z, names, strict=True)]
    return names


@pytest.mark.parametrize('shift_mm', [-14.0, 13.0])
def test_levels_meet_at_the_discs_that_are_seen(atlas: Atlas, shift_mm: float) -> None:
    # The vertebrae of this person lie lower or higher than the muscles would have them.
    heights = {'L2': 40 + shift_mm, 'L3': shift_mm, 'L4': -40 + shift_mm}
    person = body()
    truth = expected(heights)
    without = levels_of(person, align(person, atlas), atlas)
    found = align(person, atlas, discs_mm=discs(*heights.values())[[1, 0, 2]])
    names = levels_of(person, found, atlas)
    assert found.trusted
    assert found.counts[0].probability > 0.6
    wrong = [k for k, name in enumerate(names) if name and name != truth[k]]
    assert not wrong
    assert sum(name is not None for name in names) > 25
    assert sum(name not in (None, truth[k]) for k, name in enumerate(without)) > 4


def test_a_disc_that_was_missed_lies_between_its_neighbours(atlas: Atlas) -> None:
    person = body()
    found = align(person, atlas, discs_mm=discs(45, -35))
    middle = next(each for each in found.counts[0].boundaries if each.upper == 'L3')
    assert middle.ras_mm[2] == pytest.approx(5, abs=0.1)
    assert middle.sd_mm > found.counts[0].boundaries[0].sd_mm


def test_names_go_on_above_the_atlas_as_far_as_discs_are_seen(atlas: Atlas) -> None:
    found = align(body(), atlas, discs_mm=discs(76, 40, 0, -40))
    assert [each.upper for each in found.counts[0].boundaries] == ['L1', 'L2', 'L3', 'L4']


def test_a_single_disc_says_nothing(atlas: Atlas) -> None:
    person = body()
    assert not align(person, atlas, discs_mm=discs(0)).counts
    found, without = align(person, atlas, discs_mm=discs(0)), align(person, atlas)
    assert np.array_equal(found.matrix, without.matrix)
    assert levels_of(person, found, atlas) == levels_of(person, without, atlas)


def test_discs_too_far_apart_give_no_levels_and_say_so(atlas: Atlas) -> None:
    person = body()
    found = align(person, atlas, discs_mm=discs(70, 0, -60))
    if not found.trusted:
        assert 'mm high' in found.reasons[0]
        assert not any(levels_of(person, found, atlas))
    else:  # then one is taken for none, and what is left is regular
        assert len(found.counts[0].discs_mm) < 3


rows = st.tuples(
    st.integers(5, 9),
    st.floats(26, 36),
    st.floats(-0.8, 0.8),
    st.integers(0, 10**6),
)


@given(rows, st.sampled_from(['whole', 'missed', 'none']))
@settings(max_examples=60, deadline=None)
def test_regular_rows_survive_a_missed_disc_and_one_that_is_none(
    row: tuple[int, float, float, int], fault: str
) -> None:
    count, level_mm, change_mm, seed = row
    rng = np.random.default_rng(seed)
    levels = level_mm + change_mm * np.arange(count - 1)
    heights = np.concatenate([[0], -np.cumsum(levels)]) + rng.uniform(-1, 1, count)
    truth = np.arange(count)
    given_heights, position = heights, int(rng.integers(1, count - 1))
    if fault == 'missed':
        given_heights, truth = np.delete(heights, position), np.delete(truth, position)
    if fault == 'none':
        between = heights[position] - 0.5 * levels[position]
        given_heights = np.insert(heights, position + 1, between)
    kept, places = regular(upright(given_heights), np.ones(len(given_heights)), 31.0)
    assert given_heights[kept] == pytest.approx(heights[truth])
    assert places.tolist() == (truth - truth[0]).tolist()


def test_of_two_rows_the_one_that_fits_the_discs_of_all_views_is_taken() -> None:
    # Some views see the middles of vertebrae as discs; the two lowest discs are seen by all.
    heights = np.array([100.0, 91, 82, 73, 62, 52, 43, 25, 6])
    support = np.array([0.5, 0.4, 0.5, 0.5, 0.5, 0.4, 0.5, 1, 1])
    kept, places = regular(upright(heights), support, 19.0)
    assert heights[kept].tolist() == [100, 82, 62, 43, 25, 6]
    assert places.tolist() == [0, 1, 2, 3, 4, 5]


def test_what_lies_off_the_spine_is_no_disc() -> None:
    places_mm = upright(np.array([49.0, 31, 11, -8, -24]))
    places_mm[:, 1] = (-29, 3, 4, -1, -6)
    kept, _ = regular(places_mm, np.array([0.5, 1, 1, 1, 1]), 19.0)
    assert kept.tolist() == [1, 2, 3, 4]


def test_a_double_curve_of_the_spine_keeps_its_discs() -> None:
    places_mm = upright(31.0 * np.arange(6, 0, -1))
    places_mm[:, 0] = (0, 12, 8, -8, -12, 0)
    kept, _ = regular(places_mm, np.ones(6), 31.0)
    assert kept.tolist() == [0, 1, 2, 3, 4, 5]


def test_names_that_leave_a_disc_in_view_unseen_are_less_probable(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two lower borders; by the names one level higher, all that would be in view are seen.
    seen = discs(0, -40)
    found = align(body(), atlas, discs_mm=seen).counts
    monkeypatch.setattr(counting, '_UNSEEN', 0.0)
    without = align(body(), atlas, discs_mm=seen).counts

    def share(counts: tuple[counting.Count, ...]) -> float:
        return sum(each.probability for each in counts if each.boundaries[0].upper == 'L2')

    assert share(found) < share(without)


@pytest.mark.parametrize(('height', 'shown'), [(0, True), (70, True), (77, False), (120, False)])
def test_a_place_is_shown_where_the_scan_reaches_farther(
    atlas: Atlas, height: float, shown: bool
) -> None:
    person = body()
    points = scan_points(person.images['water'], person.labels, person.mask)
    match = PointMatch(points, atlas.target('water'))
    assert match.shows(np.eye(4), np.array([0.0, 0.0, height]), 5.0) == shown


def test_discs_of_several_views_are_joined_where_they_are_near() -> None:
    views = [
        np.array([[4.0, 30, 10], [4, 31, 40]]),
        np.array([[4.0, 32, 11], [4, 31, 70]]),
        np.array([[4.0, 34, 12], [4, 31, 41]]),
        np.zeros((0, 3)),
    ]
    middles, support = agreed(views)
    assert middles.tolist() == [[4, 32, 11], [4, 31, 40.5], [4, 31, 70]]
    assert support.tolist() == [0.75, 0.5, 0.25]
    middles, support = agreed(views[-1:])
    assert middles.shape == (0, 3)
    assert len(support) == 0


def test_the_middle_follows_a_scoliosis_and_a_shifted_body() -> None:
    table = load_label_table('lumbar')
    drawn = np.zeros((80, 40, 12), np.uint8)
    middles = 38 + 0.12 * (np.arange(12) - 5.0) ** 2
    for k, middle in enumerate(np.round(middles).astype(int)):
        drawn[middle - 12 : middle - 3, 10:20, k] = table.find('left multifidus').index
        drawn[middle + 4 : middle + 13, 10:20, k] = table.find('right multifidus').index
    line = middle_line(drawn, table)
    assert line(np.arange(12)) == pytest.approx(middles, abs=0.6)
    drawn[:, :, 6:] = 0
    assert middle_line(drawn, table) is not None
    assert middle_line(np.where(drawn == 1, drawn, 0), table) is None


def test_boundaries_are_in_the_world_of_a_scan_that_lies_elsewhere(atlas: Atlas) -> None:
    person, shift = body(), np.eye(4)
    shift[:3, 3] = (30, -12, 200)
    elsewhere = replace(
        person,
        images={
            name: nib.Nifti1Image(np.asarray(image.dataobj), shift @ image.affine)
            for name, image in person.images.items()
        },
    )
    seen = apply_affine(shift, discs(40, 0, -40))
    found = align(elsewhere, atlas, discs_mm=seen)
    assert [each.ras_mm for each in found.counts[0].boundaries] == [
        pytest.approx(place) for place in seen
    ]
