"""Muscles that hang together stay, what lies apart goes."""

from __future__ import annotations

import numpy as np
import pytest

from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.person import draw_person
from bids_muscle.segmentation.postprocess import LEAST_SHARE, keep_muscles, postprocess

ZOOMS = (1.0, 1.0, 4.0)


def muscles() -> np.ndarray:
    labels = np.zeros((120, 80, 6), dtype=np.uint8)
    labels[40:50, 20:40] = 1
    labels[54:64, 20:40] = 2
    labels[20:40, 20:40] = 3
    labels[64:84, 20:40] = 4
    return labels


def test_leaves_muscles_alone() -> None:
    labels = muscles()
    assert np.array_equal(keep_muscles(labels, ZOOMS), labels)


def test_a_large_false_patch_of_one_label_does_not_displace_the_muscle() -> None:
    labels = muscles()
    labels[104:119, 40:75] = 1  # larger than the true multifidus, but far from the muscles
    assert (labels == 1)[60:].sum() > (labels == 1)[:60].sum()
    assert np.array_equal(keep_muscles(labels, ZOOMS), muscles())


def test_a_muscle_shifted_between_thick_slices_keeps_all_its_slices() -> None:
    labels = muscles()
    truth = np.zeros_like(labels)
    for k in range(labels.shape[2]):
        truth[..., k] = np.roll(labels[..., k], 7 * k, axis=1)
    assert np.array_equal(keep_muscles(truth, ZOOMS), truth)


@pytest.mark.parametrize(('at', 'lost'), [(2, 1), (3, 1), (5, 4), (10, 1)])
def test_slices_that_the_scanner_lost_do_not_part_the_muscles(at: int, lost: int) -> None:
    labels = np.repeat(muscles(), 2, axis=2)
    labels[..., at : at + lost] = 0
    assert np.array_equal(keep_muscles(labels, ZOOMS), labels)


def test_what_lies_beyond_many_empty_slices_is_judged_apart() -> None:
    labels = np.repeat(muscles(), 2, axis=2)
    labels[..., 5:10] = 0
    assert not keep_muscles(labels, ZOOMS)[..., 10:].any()


def test_drops_specks_near_the_muscle() -> None:
    labels = muscles()
    labels[45:47, 44:46, 2] = 1
    assert np.array_equal(keep_muscles(labels, ZOOMS), muscles())


@pytest.mark.parametrize(('pixels', 'kept'), [(10, True), (9, False)])
def test_a_piece_of_a_tenth_of_the_muscle_is_no_speck(pixels: int, kept: bool) -> None:
    labels = np.zeros((60, 60, 1), np.uint8)
    labels[20:30, 20:30], labels[20:30, 31:41], labels[20 : 20 + pixels, 17] = 1, 2, 1
    assert (keep_muscles(labels, ZOOMS)[:, 17] == 1).any() == kept


def test_keeps_both_halves_of_a_muscle_split_by_a_fat_septum() -> None:
    labels = muscles()
    labels[28:30] = 0
    assert np.array_equal(keep_muscles(labels, ZOOMS), labels)


def test_empty_stays_empty() -> None:
    assert not keep_muscles(np.zeros((4, 4, 2), np.uint8), ZOOMS).any()


def test_keeps_both_sides_however_far_apart() -> None:
    labels = np.zeros((120, 30, 2), np.uint8)
    labels[5:15, 5:15], labels[95:103, 5:15], labels[60, 25] = 1, 2, 2
    cleaned = keep_muscles(labels, (1, 1, 4))
    assert (cleaned[5:15, 5:15] == 1).all()
    assert (cleaned[95:103, 5:15] == 2).all()
    assert not cleaned[60, 25].any()


def test_longus_colli_is_kept_though_the_vertebra_lies_between() -> None:
    labels = np.zeros((60, 80, 4), np.uint8)
    labels[10:50, 5:25], labels[16:24, 27:33], labels[26:34, 55:61] = 1, 3, 3
    assert not keep_muscles(labels, (1, 1, 4))[:, 55:].any()
    assert np.array_equal(postprocess(labels, (1, 1, 4), ['muscles'], bridge_mm=40.0), labels)


def test_distances_are_in_mm_not_in_pixels() -> None:
    labels = np.zeros((60, 20, 2), np.uint8)
    labels[5:15, 5:15], labels[27:30, 5:15] = 1, 1  # 12 pixels apart
    assert np.array_equal(keep_muscles(labels, (1, 1, 4)), labels)
    assert not keep_muscles(labels, (2, 2, 4))[27:].any()
    assert np.array_equal(keep_muscles(labels, (2, 2, 4), bridge_mm=26.0), labels)


def test_unequal_pixels_are_padded_each_by_its_own_width() -> None:
    labels = np.zeros((60, 12, 2), np.uint8)
    labels[5:15, 3:8], labels[26:29, 3:8] = 1, 1  # 11 pixels of 1 mm apart
    for zooms_mm in ((1.0, 4.0, 5.0), (4.0, 1.0, 5.0)):
        turned = labels if zooms_mm[0] == 1 else labels.swapaxes(0, 1)
        kept = keep_muscles(turned, zooms_mm, bridge_mm=14.0)
        assert np.array_equal(kept, turned)
        kept = keep_muscles(turned, zooms_mm, bridge_mm=6.0)
        assert np.count_nonzero(kept) == np.count_nonzero(labels[:20])


LEVELS = ('T12', 'L1', 'L2', 'L3', 'L4', 'L5', 'S1')
ANATOMY_MM = (1.5, 1.5, 4.0)


@pytest.fixture(scope='module')
def person() -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Muscles and body of a simulated person, (right, front, up), and the slice of each level."""
    drawn = draw_person(
        3,
        1,
        age_years=(45.0, 10.0),
        female_share=0.5,
        bmi=(26.0, 3.0),
        sites=tuple(load_effects().sites),
        digits=2,
    )
    anatomy = build_anatomy('lumbar', drawn, in_plane_mm=ANATOMY_MM[0], slice_mm=ANATOMY_MM[2])
    labels = anatomy.muscle_index[anatomy.classes].transpose(1, 2, 0)
    where = {
        level: int(np.clip((z - anatomy.origin_mm[0]) // ANATOMY_MM[2], 1, len(labels.T) - 2))
        for level, z in zip(anatomy.spine.level_names, anatomy.spine.centre_mm, strict=True)
    }
    return labels, anatomy.classes.transpose(1, 2, 0) > 0, where


def with_arms(labels: np.ndarray, body: np.ndarray, numbers: tuple[int, int]) -> np.ndarray:
    """Draw muscles onto arms that lie along the body, one label on either side."""
    wide = np.pad(labels, ((80, 80), (0, 0), (0, 0)))
    sides = np.nonzero(body.any((1, 2)))[0] + 80
    x, y = np.mgrid[: wide.shape[0], : wide.shape[1]]
    level = np.nonzero(labels)[1].mean()
    for edge, number, out in ((sides.max(), numbers[0], 1), (sides.min(), numbers[1], -1)):
        arm = (x - edge - out * 30) ** 2 + (y - level - 15) ** 2 < 24**2
        wide[arm] = number
    return wide


@pytest.mark.parametrize('depth', [1, 3])
@pytest.mark.parametrize('level', LEVELS)
def test_what_the_network_finds_of_a_person_is_kept_and_arms_are_not(
    person: tuple[np.ndarray, np.ndarray, dict[str, int]], level: str, depth: int
) -> None:
    labels, body, where = person
    chosen = slice(where[level] - depth // 2, where[level] + depth // 2 + 1)
    truth = labels[..., chosen]
    cleaned = keep_muscles(truth, ANATOMY_MM)
    for number in np.unique(truth[truth > 0]):
        found, known = (cleaned == number).sum(), (truth == number).sum()
        assert found > (1 - LEAST_SHARE) * known, number
    for numbers in ((5, 6), (6, 5), (7, 8), (3, 4), (1, 2)):
        armed = with_arms(truth, body[..., chosen], numbers)
        assert np.array_equal(keep_muscles(armed, ANATOMY_MM)[80:-80], cleaned), numbers
        assert not keep_muscles(armed, ANATOMY_MM)[:80].any(), numbers


def test_both_psoas_are_kept_in_front_of_the_sacrum() -> None:
    labels = np.zeros((200, 140, 1), np.uint8)
    labels[60:140, 20:60] = 3
    labels[45:70, 100:125], labels[130:155, 100:125] = 5, 6  # 40 mm in front
    labels[64, 70] = 5  # a speck of the same muscle among the back muscles
    cleaned = keep_muscles(labels, (1, 1, 4))
    labels[64, 70] = 0
    assert np.array_equal(cleaned, labels)


@pytest.mark.parametrize(('away_mm', 'kept'), [(69, True), (71, False)])
@pytest.mark.parametrize('front', [False, True])
def test_a_muscle_far_in_front_of_the_back_or_behind_it_goes(
    away_mm: int, kept: bool, front: bool
) -> None:
    labels = np.zeros((100, 300, 1), np.uint8)
    labels[30:50, 120:161], labels[50:70, 120:161] = 3, 4
    middle = 160 + away_mm if front else 120 - away_mm
    labels[45:56, middle - 5 : middle + 6] = 5
    assert (keep_muscles(labels, ZOOMS) == 5).any() == kept


def test_a_speck_that_touches_another_muscle_is_no_part_of_it() -> None:
    labels = muscles()
    labels[84:86, 25:27] = 1  # on the far side of label 4, away from its own muscle
    assert np.array_equal(keep_muscles(labels, ZOOMS), muscles())


def test_several_small_muscles_do_not_outweigh_a_large_one() -> None:
    labels = np.zeros((200, 60, 1), np.uint8)
    labels[10:40, 10:50] = 1  # 1200 voxels of one label
    for number in (2, 3, 4):
        labels[100 + 8 * number : 105 + 8 * number, 20:30] = number  # 50 each
    assert (keep_muscles(labels, ZOOMS) == 1).sum() == 1200
