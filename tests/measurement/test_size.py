"""What reaches the edge of what was imaged."""

from __future__ import annotations

import numpy as np
import pytest

from bids_muscle.measurement.size import SliceStack


@pytest.mark.parametrize(
    ('missing', 'cut'), [(2, False), (3, True), (5, True), (7, True), (8, False)]
)
def test_a_missing_slice_cuts_what_lies_beside_it(missing: int, cut: bool) -> None:
    covered = np.ones((4, 4, 12), bool)
    covered[..., missing] = False
    stack = SliceStack(covered.shape, np.eye(4), covered)
    assert stack.cuts_slices(np.arange(4, 7)) is cut


def test_the_first_and_the_last_slice_are_edges() -> None:
    stack = SliceStack((4, 4, 12), np.eye(4))
    cuts = [stack.cuts_slices(np.arange(low, low + 3)) for low in range(10)]
    assert cuts == [True, *[False] * 8, True]
