"""How muscles share a load: static optimisation."""

from __future__ import annotations

import numpy as np

from bids_muscle.spinal_loads.base import Array


def share_load(
    capacity: Array, needed: Array, reserve: float = 1.0, least: float = 0.0
) -> tuple[Array, Array]:
    """Find the least activations that hold a load.

    Minimises the sum of cubed activations, each from `least` to 1 (Crowninshield & Brand 1981),
    plus that of the cubed reserves, under the equilibrium ``capacity @ a + r = needed``. The
    problem is convex; its dual has one unknown per equation and no constraint: where the
    multipliers are known, a = sqrt(capacity.T @ multipliers / 3), between `least` and 1.

    Parameters
    ----------
    capacity
        (m, n) moment of each muscle at full activation about each axis, N m.
    needed
        (m,) moment that is needed, N m.
    reserve
        A reserve of so many N m costs as much as a muscle at full activation.
    least
        Activation that no muscle falls below: co-contraction.

    Returns
    -------
    tuple
        (n,) activations, and (m,) reserves r, N m: what the muscles leave.

    Examples
    --------
    >>> activation, rest = share_load(np.array([[50.0, 50.0, -20.0]]), np.array([60.0]))
    >>> activation.round(3).tolist(), bool(abs(rest[0]) < 0.2)
    ([0.599, 0.599, 0.0], True)
    """
    from scipy.optimize import minimize

    def primal(multipliers: Array) -> tuple[Array, Array]:
        gain = capacity.T @ multipliers
        activation = np.clip(np.sqrt(np.maximum(gain, 0) / 3), least, 1)
        rest = np.sign(multipliers) * np.sqrt(np.abs(multipliers) * reserve**3 / 3)
        return activation, rest

    def dual(multipliers: Array) -> tuple[float, Array]:
        activation, rest = primal(multipliers)
        missing = needed - capacity @ activation - rest
        cost = np.sum(activation**3) + np.sum(np.abs(rest / reserve) ** 3)
        return -float(cost + multipliers @ missing), -missing

    start = np.zeros(len(needed))
    found = minimize(dual, start, jac=True, method='BFGS', options={'gtol': 1e-6, 'maxiter': 5000})
    activation, _ = primal(found.x)
    return activation, needed - capacity @ activation
