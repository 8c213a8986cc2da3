"""Muscles that hang together stay, what lies apart goes."""

from __future__ import annotations

import numpy as np

from bids_muscle.segmentation.postprocess import keep_muscles, postprocess

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


def test_drops_specks_near_the_muscle() -> None:
    labels = muscles()
    labels[45:47, 44:46, 2] = 1
    assert np.array_equal(keep_muscles(labels, ZOOMS), muscles())


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
    labels[10:50, 5:25], labels[26:34, 55:61] = 1, 3
    assert not (keep_muscles(labels, (1, 1, 4)) == 3).any()
    assert np.array_equal(postprocess(labels, (1, 1, 4), ['neck']), labels)
