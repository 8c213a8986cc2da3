"""Agreement of label maps against its definitions."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bids_muscle.errors import GridMismatchError
from bids_muscle.statistics.overlap import overlap

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
    assert isnan(missed.conformity)
    beside = overlap(1 - a, a, [1])[1]
    assert (beside.dice, beside.conformity) == (0, -inf)


def test_shapes_must_match() -> None:
    with pytest.raises(GridMismatchError):
        overlap(np.zeros((2, 3)), np.zeros((3, 2)), [1])
