"""Vertebrae and discs told apart and named, on drawn spines."""

from __future__ import annotations

import numpy as np
import pytest

from bids_muscle.segmentation import vertebrae
from bids_muscle.segmentation.vertebrae import (
    BODY,
    DISC,
    NO_SACRUM,
    NOT_KNOWN,
    REMNANT,
    SACRUM,
    SMALL,
    UNNAMED,
    name_spine,
)

#: Slices 5 mm thick, pixels of 1 mm.
SPACING = (5.0, 1.0, 1.0)
SHAPE = (11, 80, 260)
#: Bodies from below: lowest row, 28 rows each, 10 apart.
ROWS = [40 + 38 * k for k in range(5)]


def spine(*, sacrum: bool = True) -> np.ndarray:
    """Draw five bodies with discs, and a sacrum below them."""
    classes = np.zeros(SHAPE, np.uint8)
    for row in ROWS:
        classes[2:9, 20:55, row : row + 28] = BODY
        classes[2:9, 20:55, row + 28 : row + 38] = DISC
    classes[2:9, 20:55, 30:40] = DISC
    classes[2:9, 20:55, 229:] = 0
    if sacrum:
        classes[2:9, 20:55, 0:30] = SACRUM
    return classes


def named(classes: np.ndarray, sure: int = 90):
    return name_spine(classes, np.full(classes.shape, sure, np.uint8), SPACING)


def test_vertebrae_and_discs_are_named_from_the_sacrum() -> None:
    classes = spine()
    found = named(classes)
    names = {found.names[n] for n in found.names}
    assert names == {
        *('S1', 'L5', 'L4', 'L3', 'L2', 'L1'),
        *('L5-S1', 'L4-L5', 'L3-L4', 'L2-L3', 'L1-L2'),
    }
    number = {name: n for n, name in found.names.items()}
    for k, level in enumerate(('L5', 'L4', 'L3', 'L2', 'L1')):
        truth = np.zeros(SHAPE, bool)
        truth[2:9, 20:55, ROWS[k] : ROWS[k] + 28] = True
        assert np.array_equal(found.vertebrae == number[level], truth)
    assert set(np.unique(found.discs[2:9, 20:55, 30:40])) == {number['L5-S1']}
    assert not found.reasons
    # Named vertebrae are as sure as the sacrum they are counted from.
    assert found.confidence[number['L3']] == pytest.approx(0.81)
    assert found.confidence[number['S1']] == pytest.approx(0.9)


def test_without_a_sacrum_nothing_has_a_name() -> None:
    found = named(spine(sacrum=False))
    assert set(np.unique(found.vertebrae)) == {0, *range(UNNAMED + 1, UNNAMED + 6)}
    assert all(NO_SACRUM in found.reasons[n] for n in found.names)
    assert not any(name[0] in 'LTS' and name[1:2].isdigit() for name in found.names.values())


def test_bodies_as_small_as_those_of_the_neck_are_not_counted_from_a_sacrum() -> None:
    classes = spine()
    found = name_spine(classes, np.full(SHAPE, 90, np.uint8), (3.0, 0.55, 0.55))
    assert found.names
    assert all(name.startswith(('vertebra', 'disc')) for name in found.names.values())
    assert all(SMALL in reasons for reasons in found.reasons.values())


def test_a_model_of_bodies_alone_numbers_them_without_a_word_about_discs() -> None:
    classes = np.where(spine() == BODY, BODY, 0).astype(np.uint8)
    found = name_spine(classes, np.full(SHAPE, 90, np.uint8), SPACING, (0, BODY))
    assert list(found.names.values()) == [f'vertebra {k}' for k in range(1, 6)]
    lowest = found.vertebrae[2:9, 20:55, ROWS[0] : ROWS[0] + 28]
    assert np.unique(lowest).tolist() == [UNNAMED + 1]
    assert set(found.reasons.values()) == {(NOT_KNOWN.format('sacrum', 'vertebrae'),)}


def test_a_model_of_discs_alone_tells_them_apart() -> None:
    classes = np.where(spine() == DISC, DISC, 0).astype(np.uint8)
    classes[:, :, 140:] = 0
    clean = classes.copy()
    classes[5, 2:4, 100:110] = DISC  # a speck
    classes[0:2, 20:55, 50:58] = DISC  # beside the spine
    classes[3:8, 20:55, 90:94] = DISC  # between two discs
    classes[2:9, 30:60, 240:255] = DISC  # as large as a disc, far from the others
    found = name_spine(classes, np.full(SHAPE, 80, np.uint8), SPACING, (0, DISC))
    assert list(found.names.values()) == [f'disc {k}' for k in range(1, 4)]
    assert np.array_equal(found.discs > 0, clean > 0)
    heights = [float(np.nonzero(found.discs == number)[2].mean()) for number in found.names]
    assert heights == sorted(heights)
    assert not found.vertebrae.any()
    assert list(found.confidence.values()) == pytest.approx([0.8] * 3)
    nothing = name_spine(classes * 0, classes, SPACING, (0, DISC))
    assert nothing.names == {}


def test_a_missed_disc_does_not_part_a_spine() -> None:
    classes = np.where(spine() == DISC, DISC, 0).astype(np.uint8)
    classes[:, :, 106:116] = 0
    found = name_spine(classes, np.full(SHAPE, 80, np.uint8), SPACING, (0, DISC))
    assert len(found.names) == 5


def test_nothing_found_is_no_failure() -> None:
    found = named(np.zeros(SHAPE, np.uint8))
    assert found.names == {} and not found.vertebrae.any() and not found.discs.any()


def test_bodies_that_touch_are_told_apart() -> None:
    classes = spine()
    classes[4, 22:26, 68:78] = BODY  # a bridge of bone through the disc of L4-L5
    classes[2, 20:55, 68:78] = BODY  # and in the outermost slice all of it
    found = named(classes)
    number = {name: n for n, name in found.names.items()}
    assert {'L5', 'L4', 'L3', 'L2', 'L1'} <= number.keys()
    inner = (slice(3, 9), slice(20, 55))
    assert (found.vertebrae[(*inner, slice(40, 68))] == number['L5']).all()
    assert (found.vertebrae[(*inner, slice(78, 106))] == number['L4']).all()


def test_a_piece_beside_the_uppermost_body_is_no_vertebra() -> None:
    top, piece, nothing = np.zeros((3, *SHAPE), bool)
    top[2:9, 20:55, 192:220] = True
    piece[2:6, 58:80, 200:236] = True
    assert vertebrae._chain([top, piece], nothing, SPACING) == [0]
    assert vertebrae._others([top, piece], [0], SPACING) == []


def test_a_gap_ends_the_names() -> None:
    classes = spine()
    classes[:, :, ROWS[2] : ROWS[2] + 28] = 0  # L3 was not found: the count cannot go on
    names = set(named(classes).names.values())
    assert {'L5', 'L4'} <= names
    assert not {'L3', 'L2', 'L1'} & names


def test_two_vertebrae_without_a_disc_are_said() -> None:
    classes = spine()
    classes[:, :, 68:78][classes[:, :, 68:78] == DISC] = 0
    found = named(classes)
    number = {name: n for n, name in found.names.items()}
    assert any('no disc between L4 and L5' in reason for reason in found.reasons[number['L4']])


def test_a_low_lumbosacral_disc_casts_doubt_on_the_count() -> None:
    classes = spine()
    classes[:, :, 30:33] = np.where(classes[:, :, 30:33] == DISC, SACRUM, 0)
    classes[:, :, 36:40] = np.where(classes[:, :, 36:40] == DISC, BODY, 0)
    found = named(classes)
    number = {name: n for n, name in found.names.items()}
    assert any('transitional' in reason for reason in found.reasons[number['L5']])


def test_a_disc_within_the_sacrum_casts_doubt_on_the_count() -> None:
    classes = spine()
    classes[2:9, 20:55, 8:14] = DISC
    found = named(classes)
    assert any(REMNANT in reasons for reasons in found.reasons.values())


def test_a_curve_out_of_the_plane_is_said() -> None:
    classes = np.zeros(SHAPE, np.uint8)
    straight = spine()
    for z in range(SHAPE[2]):
        shift = round(-3.4 + 6.8 * z / SHAPE[2])
        classes[:, :, z] = np.roll(straight[:, :, z], shift, axis=0)
    found = named(classes)
    assert any(
        'leaves the sagittal plane' in r for reasons in found.reasons.values() for r in reasons
    )
