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
SHAPE = (11, 80, 290)
#: Bodies from below: lowest row, 28 rows each, 10 apart.
ROWS = [70 + 38 * k for k in range(5)]


def spine(*, sacrum: bool = True) -> np.ndarray:
    """Draw five bodies with discs, and a sacrum below them."""
    classes = np.zeros(SHAPE, np.uint8)
    for row in ROWS:
        classes[2:9, 20:55, row : row + 28] = BODY
        classes[2:9, 20:55, row + 28 : row + 38] = DISC
    classes[2:9, 20:55, 60:70] = DISC
    classes[2:9, 20:55, 259:] = 0
    if sacrum:
        classes[2:9, 20:55, 0:60] = SACRUM
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
    assert set(np.unique(found.discs[2:9, 20:55, 60:70])) == {number['L5-S1']}
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
    classes[:, :, 170:] = 0
    clean = classes.copy()
    classes[5, 2:4, 130:140] = DISC  # a speck
    classes[0:2, 20:55, 80:88] = DISC  # beside the spine
    classes[3:8, 20:55, 120:124] = DISC  # between two discs
    classes[2:9, 30:60, 270:285] = DISC  # as large as a disc, far from the others
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
    classes[:, :, 136:146] = 0
    found = name_spine(classes, np.full(SHAPE, 80, np.uint8), SPACING, (0, DISC))
    assert len(found.names) == 5


def test_nothing_found_is_no_failure() -> None:
    found = named(np.zeros(SHAPE, np.uint8))
    assert found.names == {} and not found.vertebrae.any() and not found.discs.any()


def test_bodies_that_touch_are_told_apart() -> None:
    classes = spine()
    classes[4, 22:26, 98:108] = BODY  # a bridge of bone through the disc of L4-L5
    classes[2, 20:55, 98:108] = BODY  # and in the outermost slice all of it
    found = named(classes)
    number = {name: n for n, name in found.names.items()}
    assert {'L5', 'L4', 'L3', 'L2', 'L1'} <= number.keys()
    inner = (slice(3, 9), slice(20, 55))
    assert (found.vertebrae[(*inner, slice(70, 98))] == number['L5']).all()
    assert (found.vertebrae[(*inner, slice(108, 136))] == number['L4']).all()


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
    classes[:, :, 98:108][classes[:, :, 98:108] == DISC] = 0
    found = named(classes)
    number = {name: n for n, name in found.names.items()}
    assert any('no disc between L4 and L5' in reason for reason in found.reasons[number['L4']])


def test_a_low_lumbosacral_disc_casts_doubt_on_the_count() -> None:
    classes = spine()
    classes[:, :, 60:63] = np.where(classes[:, :, 60:63] == DISC, SACRUM, 0)
    classes[:, :, 66:70] = np.where(classes[:, :, 66:70] == DISC, BODY, 0)
    found = named(classes)
    number = {name: n for n, name in found.names.items()}
    assert any('transitional' in reason for reason in found.reasons[number['L5']])


def test_a_disc_within_the_sacrum_casts_doubt_on_the_count() -> None:
    classes = spine()
    classes[2:9, 20:55, 14:20] = DISC
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


#: Of a drawn person: from S3 upwards, the tilt of the lower and upper end plate (degrees, falling
#: forward), depth and height (mm), and the height of the disc above.
SACRAL, L5_AND_UP = 3, 4
PEOPLE = {
    'usual': [
        *((70, 62, 22, 20, 0), (60, 50, 27, 23, 0), (50, 38, 33, 28, 10)),
        *((27, 14, 34, 26, 11), (9, 2, 35, 28, 11), (-2, -5, 35, 28, 10)),
        *((-9, -10, 34, 28, 10), (-13, -14, 33, 27, 9), (-16, -17, 32, 26, 8)),
    ],
    'steep': [
        *((80, 72, 22, 20, 0), (70, 60, 27, 23, 0), (60, 48, 33, 28, 10)),
        *((38, 26, 33, 26, 10), (20, 13, 35, 28, 11), (4, -1, 35, 28, 10)),
        *((-5, -9, 34, 28, 10), (-11, -14, 33, 27, 9), (-16, -17, 32, 26, 8)),
    ],
    'flat': [
        *((45, 40, 22, 20, 0), (38, 30, 27, 23, 0), (30, 23, 33, 28, 9)),
        *((16, 6, 34, 26, 10), (4, -1, 35, 28, 10), (-3, -6, 35, 28, 10)),
        *((-7, -9, 34, 28, 10), (-11, -12, 33, 27, 9), (-13, -14, 32, 26, 8)),
    ],
}


def drawn_person(pieces: list[tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Draw S3 to L1 and T12: classes, and numbers from 1 (S3), on pixels of 2 mm."""
    from skimage.draw import polygon

    classes, truth = np.zeros((2, 9, 100, 160), np.uint8)
    at, last = np.array([40.0, 12.0]), None
    for number, (low, high, depth, height, disc) in enumerate(pieces, start=1):
        corners = []
        for tilt, ahead in ((low, -1), (low, 1), (high, 1), (high, -1)):
            along = np.array([np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))])
            base = at if tilt == low else at + height * _axis((low + high) / 2)
            corners.append(base + ahead * along * depth / 2)
        label = BODY if number > SACRAL else SACRUM
        rows, columns = polygon(*np.transpose(corners) / 2, shape=classes.shape[1:])
        classes[1:8, rows, columns], truth[1:8, rows, columns] = label, number
        if last is not None:
            rows, columns = polygon(
                *np.transpose([*last, *corners[:2]]) / 2, shape=classes.shape[1:]
            )
            gap = classes[4, rows, columns] == 0
            classes[1:8, rows[gap], columns[gap]] = DISC
        last = corners[2:] if disc else None
        at = at + height * _axis((low + high) / 2) + disc * _axis(high)
    return classes, truth


def name_drawn(classes: np.ndarray):
    return name_spine(classes, np.full(classes.shape, 90, np.uint8), (5.0, 2.0, 2.0))


def _axis(tilt: float) -> np.ndarray:
    return np.array([np.sin(np.radians(tilt)), np.cos(np.radians(tilt))])


def _none(classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return classes


def _as_sacrum(classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Take the lowest body for the sacrum, where it touches the edge of the image."""
    lowest = truth[:, :, 0].max()
    return np.where(truth == lowest, SACRUM, classes) if lowest > SACRAL else classes


def _half_as_body(classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Take the upper half of S1 for a body, as where the image ends in the sacrum."""
    mask = truth == SACRAL
    if not mask.any():
        return classes
    rows = np.nonzero(mask)[2]
    upper = mask & (np.arange(mask.shape[2]) > np.quantile(rows, 0.6))
    return np.where(upper, BODY, classes)


@pytest.mark.parametrize(
    ('person', 'mistake'),
    [
        *((person, mistake) for person in PEOPLE for mistake in (_none, _as_sacrum)),
        ('usual', _half_as_body),
    ],
)
def test_a_spine_cut_at_any_height_is_named_right_or_not_at_all(person: str, mistake) -> None:
    whole, truth = drawn_person(PEOPLE[person])
    levels = {4: 'L5', 5: 'L4', 6: 'L3', 7: 'L2', 8: 'L1', 9: 'T12'}
    named_at = []
    for cut in range(0, int(np.nonzero(truth == L5_AND_UP)[2].max()) + 1, 4):
        part, own = whole[:, :, cut:], truth[:, :, cut:]
        found = name_drawn(mistake(part, own))
        counted = {n: name for n, name in found.names.items() if name in levels.values()}
        for number, name in counted.items():
            under = own[found.vertebrae == number]
            assert levels.get(int(np.bincount(under).argmax())) == name, (cut, name)
        if counted:
            named_at.append(cut)
        else:
            assert found.names, cut
            assert all(found.reasons[n] for n in found.names)
    if mistake is not _half_as_body:
        # With two segments of the sacrum in view there is no doubt.
        assert named_at and named_at[0] == 0


def test_little_of_a_sacrum_makes_all_names_less_certain() -> None:
    whole, truth = drawn_person(PEOPLE['usual'])
    s1 = np.nonzero(truth == SACRAL)[2]
    sure, unsure = (name_drawn(whole[:, :, cut:]) for cut in (0, int(s1.mean())))
    number = {name: n for n, name in sure.names.items()}
    assert unsure.confidence[number['L4']] == pytest.approx(0.8 * sure.confidence[number['L4']])
    assert vertebrae.CUT in unsure.reasons[vertebrae.S1]
    assert vertebrae.S1 not in sure.reasons
