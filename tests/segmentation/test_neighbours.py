"""What neighbouring slices say of a slice."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bids_muscle.segmentation.grid import with_neighbours


def planes(seed: int, n: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn((n, 3, 4, 5), generator=generator).mul(2).softmax(1))


@given(
    seed=st.integers(0, 99),
    n=st.integers(1, 9),
    apart_mm=st.floats(0.5, 20),
    reach_mm=st.floats(0.5, 8),
)
def test_probabilities_stay_probabilities_in_any_stack(
    seed: int, n: int, apart_mm: float, reach_mm: float
) -> None:
    found = list(with_neighbours(iter(planes(seed, n)), apart_mm, reach_mm))
    assert len(found) == n
    for plane in found:
        assert torch.allclose(plane.sum(0), torch.ones(4, 5), atol=1e-5)


@given(seed=st.integers(0, 99), n=st.integers(2, 9), apart_mm=st.floats(2, 6))
def test_up_and_down_do_not_matter(seed: int, n: int, apart_mm: float) -> None:
    each = planes(seed, n)
    up = list(with_neighbours(iter(each), apart_mm, 4.0))
    down = list(with_neighbours(iter(each[::-1]), apart_mm, 4.0))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(up, down[::-1], strict=True))


def test_slices_far_apart_do_not_change() -> None:
    each = planes(1, 4)
    assert all(
        torch.equal(a, b) for a, b in zip(each, with_neighbours(iter(each), 7.5, 4.0), strict=True)
    )


def test_neighbours_decide_where_a_slice_is_unsure_and_only_there() -> None:
    sure, other, unsure = (torch.tensor([[[1 - p]], [[p]]]) for p in (0.95, 0.05, 0.45))
    stack = [sure, sure, unsure, sure, sure, other, sure, sure]
    found = [float(p[1]) for p in with_neighbours(iter(stack), 2.0, 4.0)]
    assert np.array(found).round().tolist() == [1, 1, 1, 1, 1, 0, 1, 1]
