"""Sharing a load between muscles is a convex problem, so any good solver must agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bids_muscle.spinal_loads.sharing import share_load


@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.9))
@example(seed=4553, share=0.05)
@settings(max_examples=15, deadline=None)
def test_the_cost_is_the_least_that_a_general_solver_finds(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    capacity = rng.normal(0, 10, (5, 30))
    needed = capacity @ rng.uniform(0, share, 30)

    def cost(activation: np.ndarray) -> tuple[float, np.ndarray]:
        rest = needed - capacity @ activation
        gradient = 3 * activation**2 - 3 * capacity.T @ (rest * np.abs(rest))
        return float((activation**3).sum() + (np.abs(rest) ** 3).sum()), gradient

    activation, rest = share_load(capacity, needed)
    assert activation.min() >= 0
    assert activation.max() <= 1
    np.testing.assert_allclose(capacity @ activation + rest, needed, atol=1e-9)
    # The general solver may end too early, so it begins once more where ours ended.
    for start in (np.full(30, 0.5), activation):
        general = minimize(
            cost,
            start,
            jac=True,
            method='L-BFGS-B',
            bounds=[(0, 1)] * 30,
            options={'maxiter': 5000, 'maxfun': 20_000, 'ftol': 1e-15, 'gtol': 1e-10},
        )
        assert cost(activation)[0] <= general.fun * (1 + 1e-4) + 1e-6


def test_more_than_the_muscles_can_is_left_to_the_reserve() -> None:
    activation, rest = share_load(np.array([[20.0, 30.0]]), np.array([80.0]))
    assert activation.tolist() == [1, 1]
    assert rest == pytest.approx([30])


def test_co_contraction_is_the_least_that_each_muscle_does() -> None:
    # A flexor and an extensor with one lever: their co-contraction makes no moment.
    capacity = np.array([[50.0, -50.0]])
    activation, rest = share_load(capacity, np.array([0.0]), least=0.02)
    assert activation == pytest.approx([0.02, 0.02], abs=1e-6)
    activation, rest = share_load(capacity, np.array([10.0]), least=0.02)
    assert activation[1] == pytest.approx(0.02)
    assert float((capacity @ activation + rest)[0]) == pytest.approx(10)
    assert activation[0] == pytest.approx(0.22, abs=0.01)
