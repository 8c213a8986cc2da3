from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel import Nifti1Image

from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.dataset.writer import write_tsv
from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.imaging.levels import (
    Boundary,
    choose_levels,
    drawn_shares,
    likeliest,
    read_levels,
    slice_level_rows,
    slice_probabilities,
    vertebra_boundaries,
)
from bids_muscle.imaging.marks import levels_from_marks, mark_doubts, read_marks

BOUNDARIES = (
    Boundary('L3', 'L4', (0.0, 0.0, 20.0), 2.0),
    Boundary('L4', 'L5', (0.0, 0.0, -20.0), 2.0),
)


def test_slices_between_boundaries_are_sure_and_those_at_them_are_not() -> None:
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[2, 3] = -60
    shares = slice_probabilities(BOUNDARIES, affine, 25)
    assert list(shares) == ['L3', 'L4', 'L5']
    middle, border = 12, 16  # 0 and 20 mm
    assert shares['L4'][middle] > 0.99
    assert shares['L3'][border] == pytest.approx(shares['L4'][border], abs=1e-6)
    names = likeliest(shares, 25, 'atlas').names
    assert names[border] is None
    assert names[middle] == 'L4'
    assert names[0] is names[24] is None  # beyond the last known level
    assert set(names[1:4]) == {'L5'} | set(names[1:4]) - {'L4', 'L3'}


def test_doubt_about_the_place_lowers_the_confidence() -> None:
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    sure = slice_probabilities(BOUNDARIES, affine, 4)
    torn = slice_probabilities(BOUNDARIES, affine, 4, shifts=((-40.0, 0.5), (0.0, 0.5)))
    assert torn['L4'][0] == pytest.approx(sure['L4'][0] / 2, abs=0.01)
    assert torn['L3'][0] == pytest.approx(0.5, abs=0.01)


def test_discs_lie_between_vertebrae_however_the_image_is_stored() -> None:
    labels = np.zeros((20, 20, 60), np.uint8)
    labels[5:15, 5:15, 40:58] = 3
    labels[5:15, 5:15, 20:34] = 4
    labels[5:15, 5:15, :12] = 5
    labels[5:15, 5:15, 13:19] = 9
    names = {3: 'L3', 4: 'L4', 5: 'vertebra L5', 9: 'L4-L5'}
    affine = np.diag([2.0, 2.0, 1.0, 1.0])
    found = vertebra_boundaries(labels, affine, names)
    assert [(b.upper, b.lower) for b in found] == [('L3', 'L4'), ('L4', 'L5')]
    assert [b.ras_mm[2] for b in found] == pytest.approx([36.5, 15.5], abs=1.1)
    flipped = np.diag([2.0, 2.0, -1.0, 1.0])
    flipped[2, 3] = 59
    again = vertebra_boundaries(labels[:, :, ::-1], flipped, names)
    assert [b.ras_mm for b in again] == [pytest.approx(b.ras_mm) for b in found]


@pytest.mark.parametrize('sacrum', [True, False])
@pytest.mark.parametrize('stored_mm', [1.0, 4.0])
def test_the_level_beside_a_sixth_lumbar_vertebra_is_as_high_as_it_is(
    stored_mm: float, *, sacrum: bool
) -> None:
    labels = np.zeros((14, 20, 180), np.uint8)
    names = {22: 'L3', 23: 'L4', 24: 'L5', 25: 'L6', 26: 'S1'}
    edges = (176, 138, 100, 76, 38, 0)  # the level of L5 is 24 mm high, all others are 38 mm
    for top, bottom, number in zip(edges, edges[1:], names, strict=False):
        labels[2:12, 4:16, bottom + 4 : top - 4] = number
    if not sacrum:
        labels[labels == 26] = 0
    drawn = Nifti1Image(labels, np.diag([stored_mm, 1.0, 1.0, 1.0]))
    shares, _ = drawn_shares(drawn, names, np.diag([1.0, 1, 2, 1]), 88)
    found = likeliest(shares, 88, 'segmentation').names
    z = {name: 2 * np.flatnonzero([each == name for each in found]) for name in shares}
    assert set(z) == {'L3', 'L4', 'L5'}
    assert (z['L5'].min(), z['L5'].max()) == pytest.approx((76, 100), abs=2.5)
    assert (z['L4'].min(), z['L4'].max()) == pytest.approx((100, 138), abs=2.5)


@pytest.mark.parametrize('names_l6', [True, False])
@pytest.mark.parametrize('stored_mm', [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0)])
def test_a_sixth_lumbar_vertebra_is_not_shared_out_to_its_neighbours(
    names_l6: bool, stored_mm: tuple[float, float, float]
) -> None:
    labels = np.zeros((14, 20, 200), np.uint8)
    names = {22: 'L3', 23: 'L4', 24: 'L5', 25: 'L6', 26: 'S1'}
    for top, number in zip(range(190, 10, -36), names, strict=True):
        labels[2:12, 4:16, top - 27 : top] = number
    if not names_l6:
        names.pop(25)
    drawn = Nifti1Image(labels, np.diag([*stored_mm, 1.0]))
    shares, doubts = drawn_shares(drawn, names, np.diag([1.0, 1, 4, 1]), 50)
    found = likeliest(shares, 50, 'segmentation').names
    assert [(b.upper, b.lower) for b in vertebra_boundaries(labels, drawn.affine, names)] == [
        ('L3', 'L4'),
        ('L4', 'L5'),
    ]
    assert set(found[13:16]) == {None}
    assert set(found[25:29]) == {'L5'}
    assert set(found[33:38]) == {'L4'}
    assert len(doubts) == 1
    assert ('L6 lies' if names_l6 else ' mm lie') in doubts[0]
    # Without S1 nothing lies between.
    labels[labels == 26] = 0
    assert drawn_shares(drawn, names, np.diag([1.0, 1, 4, 1]), 50)[1] == []


def test_marks_of_a_person(tmp_path: Path) -> None:
    path = tmp_path / 'levels.tsv'
    path.write_text(
        'participant_id\tsession_id\tslice\tz_mm\tlevel\n'
        'sub-01\tn/a\t2\tn/a\tL5\nsub-01\tn/a\tn/a\t30\tL4\nsub-02\tses-b\t1\tn/a\tL1\n'
    )
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    levels = levels_from_marks(read_marks(path, '01', None), affine, 9)
    assert levels.names == (None, None, 'L5', 'L5', 'L5', 'L4', 'L4', None, None)
    assert levels.confidence.tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert read_marks(path, '02', 'a') == []
    assert len(read_marks(path, '02', 'b')) == 1


@pytest.mark.parametrize(
    'text', ['', 'participant_id\tlevel\n01\tL4\n', 'participant_id\tslice\tlevel\n01\tx\tL4\n',
             'participant_id\tslice\tlevel\n01\t3\tZ9\n', 'participant_id\tslice\tlevel\n01\t3\n']
)  # fmt: skip
def test_marks_that_cannot_be_understood(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'levels.tsv'
    path.write_text(text)
    with pytest.raises(BadDataError, match=r'levels\.tsv'):
        read_marks(path, '01', None)
    with pytest.raises(MissingInputError):
        read_marks(tmp_path / 'absent.tsv', '01', None)


def test_the_table_of_levels_is_read_back(tmp_path: Path) -> None:
    levels = SliceLevels(('L5', None, 'L4'), np.array([0.75, 0.0, 1.0]), 'atlas')
    rows = slice_level_rows(levels, {'L5': np.array([0.75, 0.4, 0.0])}, np.diag([1.0, 1, 4, 1]))
    assert [row['z_mm'] for row in rows] == [0, 4, 8]
    write_tsv(rows, tmp_path / 'levels.tsv')
    again = read_levels(tmp_path / 'levels.tsv')
    assert again is not None
    assert (again.names, again.source) == (levels.names, 'atlas')
    assert np.array_equal(again.confidence, levels.confidence)
    unknown = SliceLevels((None, None), np.zeros(2), 'atlas')
    write_tsv(slice_level_rows(unknown, {}, np.eye(4)), tmp_path / 'none.tsv')
    assert read_levels(tmp_path / 'none.tsv') is None


def _marks(place: str, **places_by_level: float) -> list[dict[str, str]]:
    return [{place: f'{at:g}', 'level': level} for level, at in places_by_level.items()]


@pytest.mark.parametrize(
    'marks', [_marks('slice', L3=1, L4=4, L5=7), _marks('z_mm', L5=10, L3=10),
              _marks('slice', L5=3) + _marks('z_mm', L4=5)]
)  # fmt: skip
def test_marks_that_do_not_go_up_the_spine_are_refused(marks: list[dict[str, str]]) -> None:
    with pytest.raises(BadDataError, match=r'marks\.tsv for sub-01 .* from 0 at the inferior'):
        levels_from_marks(marks, np.diag([1.0, 1, 5, 1]), 9, 'marks.tsv for sub-01')


def test_nobody_knows_where_a_level_ends_whose_neighbour_is_not_marked() -> None:
    marks = _marks('slice', L5=1, L3=6)
    levels = levels_from_marks(marks, np.eye(4), 9)
    assert levels.names == (None, 'L5', *(None,) * 4, 'L3', None, None)
    assert mark_doubts(marks, levels)[0].startswith('No slice is marked as L4')
    # Both ends of a level are known, or the muscle is not measured within it.
    assert levels.beside('L4', 'L4') is levels.beside('L4', 'L5') is None
    whole = levels_from_marks(_marks('slice', S1=0, L5=2, L3=6, L2=8), np.eye(4), 9)
    beside = whole.beside('L3', 'L5')
    assert beside is not None
    assert beside.tolist() == [-1, -1, *(0,) * 6, 1]


def test_marks_of_the_back_are_not_of_the_neck(tmp_path: Path) -> None:
    path = tmp_path / 'levels.tsv'
    rows = ['participant_id\tslice\tz_mm\tlevel', '01\t1\tn/a\tL5', '01\t8\tn/a\tL4']
    path.write_text('\n'.join([*rows, '01\tn/a\t-60\tC5', '']))
    assert [row['level'] for row in read_marks(path, '01', None, 'lumbar')] == ['L5', 'L4']
    assert len(read_marks(path, '01', None, 'body')) == 3
    neck = np.diag([1.0, 1, 4, 1])
    neck[2, 3] = 500
    marks = read_marks(path, '01', None, 'cervical')
    levels = levels_from_marks(marks, neck, 10)
    assert mark_doubts(marks, levels) == ['No mark in --levels lies within this scan.']
    assert mark_doubts([], levels_from_marks([], neck, 10)) == []
    chosen = choose_levels({'C4': np.ones(10)}, [], levels, 10).levels
    assert (chosen.source, chosen.names) == ('atlas', ('C4',) * 10)


def test_marks_of_another_scan_do_not_count() -> None:
    marks = [{'z_mm': '10', 'level': 'L4'}, {'z_mm': '500', 'level': 'C5'}]
    names = levels_from_marks(marks, np.diag([1.0, 1, 5, 1]), 6).names
    assert names == (None, None, 'L4', None, None, None)


def test_a_person_wins_over_a_map_and_a_map_over_the_atlas() -> None:
    atlas, here = ({level: np.array([0.9, 0.9])} for level in ('L4', 'L3'))
    elsewhere = {'C4': np.array([0.0, 0.1])}
    asked = []

    def maps():
        for each in (elsewhere, here, {'L1': np.ones(2)}):
            asked.append(each)
            yield each

    chosen = choose_levels(atlas, maps(), None, 2)
    assert (chosen.levels.source, chosen.from_map) == ('segmentation', 1)
    assert chosen.levels.names == ('L3', 'L3')
    assert chosen.shares is here
    assert len(asked) == 2  # the third is not even read
    chosen = choose_levels(atlas, [elsewhere], None, 2)
    assert (chosen.levels.source, chosen.from_map) == ('atlas', None)
    assert chosen.levels.names == ('L4', 'L4')
    marked = SliceLevels((None, 'S1'), np.array([0.0, 1.0]), 'file')
    chosen = choose_levels(atlas, [here], marked, 2)
    assert chosen.levels is marked
    # How the patient moved against the map is still of interest.
    assert chosen.from_map == 0
    assert choose_levels({}, [], None, 2).levels.names == (None, None)
