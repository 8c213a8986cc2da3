"""Water and fat from the magnitudes of a multi-echo gradient echo.

Each voxel's magnitudes are fitted with S exp(-R2* t) |1 - f + f c(t)|, where f is the proton
density fat fraction, c(t) the signal of fat with its six peaks and R2* common to both
(Yu et al. 2011, doi:10.1002/mrm.22986; peaks of Hamilton et al. 2011, doi:10.1002/nbm.1622).
Since fat has several peaks, even magnitudes tell more than half fat from less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Fat peaks: shift from water in ppm and relative amplitude. The phantom has its own copy, so
#: that a slip in one of them shows.
_SHIFT_PPM = np.array([-3.80, -3.40, -2.60, -1.94, -0.39, 0.60])
_AMPLITUDE = np.array([0.087, 0.693, 0.128, 0.004, 0.039, 0.048])
_MHZ_PER_T = 42.577

#: Three unknowns per voxel, and one echo more to tell the two minima apart.
_MIN_ECHOES = 4
#: Fat must turn against water by this much of a full swing from in phase (1) to opposed (-1).
_MIN_SWING = 0.5
#: Starts of the fit: every fat fraction with every R2* (1/s), and the highest R2* allowed.
_FRACTIONS = np.linspace(0, 1, 21)
_R2STAR_PER_S = np.array([5.0, 20, 40, 70, 110, 160, 240, 350])
#: The two minima of a voxel lie on either side of this fat fraction: not 0.5, as fat's
#: peaks partly cancel. Without noise 0.55 to 0.60 found the right one everywhere.
_BETWEEN = 0.57
_MAX_R2STAR_PER_S = 1000.0
_ITERATIONS = 8
#: Each of the 8 neighbours in plane adds this share of its log likelihood ratio, cut to +-3, to
#: the choice between the minima: noise alone decides few voxels, clear ones decide themselves.
_NEIGHBOUR, _MOST = 0.3, 3.0

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class EchoTrain:
    """When and at which field echoes were taken.

    Parameters
    ----------
    times_s
        Echo times in seconds.
    field_t
        Field strength in tesla.
    """

    times_s: tuple[float, ...]
    field_t: float

    @property
    def refusal(self) -> str | None:
        """Why fat cannot be determined from these echoes, or None.

        Examples
        --------
        >>> EchoTrain((0.00115, 0.0023, 0.00345, 0.0046), 3.0).refusal is None
        True
        >>> EchoTrain((0.0023, 0.0046, 0.0069, 0.0092), 3.0).refusal
        'fat and water are in the same phase in all echoes'
        """
        n_echoes = len(set(self.times_s))
        if n_echoes < _MIN_ECHOES:
            return f'{n_echoes} echo times are fewer than the {_MIN_ECHOES} that a fit needs'
        if np.ptp(_fat_signal(self).real) < _MIN_SWING:
            return 'fat and water are in the same phase in all echoes'
        return None


def fit_water_fat(
    echoes: Sequence[np.ndarray], train: EchoTrain, where: np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """Separate water and fat by a least-squares fit of the magnitudes.

    The amplitude is linear and so projected out. Of a grid of fat fractions and R2* the best with
    less and the best with more than about half fat are refined (Levenberg-Marquardt), since
    magnitudes have a minimum on either side. The one kept is the likelier, neighbours considered.

    Parameters
    ----------
    echoes
        (X, Y, Z) magnitudes, one for each echo time; NaN where undefined.
    train
        Echo times and field strength, without a refusal.
    where
        (X, Y, Z) bool, the voxels to fit.

    Returns
    -------
    water, fat
        (X, Y, Z) float32 signals at echo time zero, of which fat / (water + fat) is the proton
        density fat fraction as far as the flip angle is small; 0 outside of `where`, NaN where an
        echo is undefined.
    """
    shape = where.shape
    water, fat = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for k in range(shape[2]):  # slice by slice, to hold little
        inside = where[:, :, k]
        if inside.any():
            signals = np.stack([echo[:, :, k][inside] for echo in echoes]).astype(np.float64)
            low, high = _fit(signals, train)
            much = _choose(low[1], high[1], len(set(train.times_s)) - _MIN_ECHOES + 1, inside)
            fraction, amplitude = np.where(much, high[0], low[0])
            fat[:, :, k][inside] = amplitude * fraction
            water[:, :, k][inside] = amplitude * (1 - fraction)
    return water, fat


def _choose(
    low: np.ndarray, high: np.ndarray, n_spare: int, inside: np.ndarray
) -> NDArray[np.bool_]:
    """Return where the fit with more than half fat is the likelier, from the residuals of both."""
    from scipy import ndimage

    variance = max(float(np.nanmedian(np.minimum(low, high))) / n_spare, 1e-12)
    own = np.nan_to_num(low - high) / (2 * variance)
    around = np.zeros(inside.shape)
    around[inside] = np.clip(own, -_MOST, _MOST)
    neighbours = 9 * ndimage.uniform_filter(around, 3, mode='constant') - around
    return np.asarray(own + _NEIGHBOUR * neighbours[inside] > 0)


def _fat_signal(train: EchoTrain) -> NDArray[np.complex128]:
    """Signal of pure fat without decay, relative to that at time zero."""
    cycles = np.outer(train.times_s, _SHIFT_PPM * _MHZ_PER_T * train.field_t)
    return np.asarray(np.exp(2j * np.pi * cycles) @ (_AMPLITUDE / _AMPLITUDE.sum()))


def _fit(
    signals: np.ndarray, train: EchoTrain
) -> list[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Fit (echoes, voxels) magnitudes with less, then with more than half fat.

    Each time fat fraction and amplitude, and the sum of squares left; (voxels,), NaN stays NaN.
    """
    fat = _fat_signal(train)
    times = np.asarray(train.times_s)
    grid = np.stack(np.meshgrid(_FRACTIONS, _R2STAR_PER_S, indexing='ij')).reshape(2, -1)
    shapes = _model(grid, fat, times)[0]
    # Of a projected fit the residual is |m|^2 - (m . g)^2 / |g|^2.
    explained = (shapes / np.linalg.norm(shapes, axis=0)).T @ signals
    fits = []
    for side in (grid[0] <= _BETWEEN, grid[0] > _BETWEEN):
        start = grid[:, side][:, explained[side].argmax(axis=0)]
        (fraction, _), amplitude, residual = _refine(signals, start, fat, times)
        fits.append(((fraction, amplitude), residual))
    return fits


def _model(
    point: np.ndarray, fat: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Magnitudes at amplitude 1, and their slopes by fat fraction and R2*: (echoes, points)."""
    fraction, rate = point
    decay = np.exp(-np.outer(times, rate))
    real = 1 + np.outer(fat.real - 1, fraction)
    imag = np.outer(fat.imag, fraction)
    size = np.maximum(np.hypot(real, imag), 1e-6)
    value = decay * size
    slope = decay * (real * (fat.real - 1)[:, None] + imag * fat.imag[:, None]) / size
    return value, slope, -times[:, None] * value


def _refine(
    signals: np.ndarray, point: np.ndarray, fat: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on fat fraction and R2*; return these, amplitude and residual."""
    limits = np.array([[1.0], [_MAX_R2STAR_PER_S]])
    scale = np.array([[1.0], [100.0]])  # so that one damping fits both

    def project(at: np.ndarray) -> tuple[np.ndarray, ...]:
        value, *slopes = _model(at, fat, times)
        norm = (value**2).sum(0)
        amplitude = np.maximum((signals * value).sum(0) / norm, 0)
        difference = signals - amplitude * value
        # What the amplitude cannot follow of a change (Kaufman's approximation).
        free = [
            amplitude * size * (slope - value * ((slope * value).sum(0) / norm))
            for slope, size in zip(slopes, scale[:, 0], strict=True)
        ]
        return amplitude, difference, (difference**2).sum(0), *free

    damping = np.full(signals.shape[1], 1e-3)
    amplitude, difference, residual, by_fraction, by_rate = project(point)
    for _ in range(_ITERATIONS):
        a, b, c = (
            (one * other).sum(0)
            for one, other in (
                (by_fraction, by_fraction),
                (by_fraction, by_rate),
                (by_rate, by_rate),
            )
        )
        a, c = a * (1 + damping) + 1e-12, c * (1 + damping) + 1e-12
        u, v = (by_fraction * difference).sum(0), (by_rate * difference).sum(0)
        determinant = a * c - b * b
        step = np.stack([c * u - b * v, a * v - b * u]) / np.maximum(determinant, 1e-24)
        trial = np.clip(point + scale * step, 0, limits)
        new = project(trial)
        better = new[2] < residual
        damping = np.where(better, damping / 5, damping * 10)
        point = np.where(better, trial, point)
        amplitude, difference, residual, by_fraction, by_rate = (
            np.where(better, now, before)
            for now, before in zip(
                new, (amplitude, difference, residual, by_fraction, by_rate), strict=True
            )
        )
    return point, amplitude, residual
