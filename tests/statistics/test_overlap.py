"""Agreement of label maps against its definitions."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bids_muscle.errors import GridMismatchError
from bids_muscle.statistics.overlap import boundary_distance, overlap

MAPS = hnp.arrays(np.uint8, (4, 5, 3), elements=st.integers(0, 2))


@given(MAPS, MAPS)
def test_definitions(test: np.ndarray, reference: np.ndarray) -> None:
    for label, found in overlap(test, reference, [1, 2]).items():
        mine, truth = test == label, reference == label
        counts = (mine & truth, mine & ~truth, ~mine & truth, ~mine & ~truth)
        tp, fp, fn, tn = (int(count.sum()) for count in counts)
        assert (found.true_positive, found.false_positive) == (tp, fp)
        assert (found.false_negative, found.true_negative) == (fn, tn)
        if tp:
            assert found.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
            assert found.jaccard == pytest.approx(found.dice / (2 - found.dice))
            assert found.conformity == pytest.approx((3 * found.dice - 2) / found.dice)
            assert found.sensitivity == pytest.approx(tp / truth.sum())
            assert found.precision == pytest.approx(tp / mine.sum())
            assert found.volume_ratio == pytest.approx(mine.sum() / truth.sum())
        if tn:
            assert found.specificity == pytest.approx(tn / (tn + fp))


def test_perfect_none_and_missing() -> None:
    a = np.array([1, 1, 0, 0])
    same = overlap(a, a, [1, 2])
    assert (same[1].dice, same[1].conformity, same[1].volume_ratio) == (1, 1, 1)
    assert isnan(same[2].dice)  # in neither map
    missed = overlap(0 * a, a, [1])[1]
    assert missed.dice == missed.volume_ratio == 0
    assert missed.conformity == -inf  # a failure, as where nothing overlaps
    beside = overlap(1 - a, a, [1])[1]
    assert (beside.dice, beside.conformity) == (0, -inf)


def test_shapes_must_match() -> None:
    with pytest.raises(GridMismatchError):
        overlap(np.zeros((2, 3)), np.zeros((3, 2)), [1])


BLOBS = hnp.arrays(bool, (7, 6, 5))


@given(BLOBS, BLOBS)
def test_boundary_distances_are_those_of_monai(test: np.ndarray, reference: np.ndarray) -> None:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    # MONAI takes the edge of the field of view for a border, so keep away from it.
    test, reference = np.pad(test, 2), np.pad(reference, 2)
    spacing = (0.7, 0.8, 3.0)
    found = boundary_distance(test, reference, spacing)
    if not (test.any() and reference.any()):
        assert isnan(found.mean_mm)
        assert isnan(found.hd95_mm)
        return
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (test, reference))
    hd95 = compute_hausdorff_distance(one, other, True, percentile=95, spacing=spacing)
    means = [
        float(compute_average_surface_distance(a, b, True, spacing=spacing))
        for a, b in ((one, other), (other, one))
    ]
    # MONAI interpolates the percentile in single precision.
    assert found.hd95_mm == pytest.approx(float(hd95), rel=1e-3, abs=1e-4)
    assert found.mean_mm == pytest.approx(sum(means) / 2, rel=1e-4, abs=1e-5)


def test_the_edge_of_the_field_of_view_is_no_border() -> None:
    mask = np.zeros((9, 9, 1), bool)
    mask[2:6, 2:6] = True
    # A shift of one pixel in a single slice: distances are in the plane.
    found = boundary_distance(np.roll(mask, 1, axis=0), mask, (2.0, 2.0, 5.0))
    assert 0 < found.mean_mm < 2
    assert found.hd95_mm == 2
    assert isnan(boundary_distance(np.ones_like(mask), mask, (1.0, 1.0, 1.0)).mean_mm)
