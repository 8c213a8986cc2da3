"""N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908) on a regular grid.

What ITK computes, but for its single precision, in a hundredth of its time: on a regular grid the
B-splines of a voxel are products of those along each axis, so that a fit is one small matrix for
each axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Bins of the histogram that is sharpened; full width at half maximum of the field's logarithm;
#: noise of the Wiener filter: the defaults of N4.
_BINS, _FWHM, _NOISE = 200, 0.15, 0.01
_DEGREE = 3


def n4_log_field(
    values: np.ndarray,
    mask: np.ndarray,
    spacing_mm: np.ndarray,
    *,
    knot_mm: float,
    iterations: Sequence[int],
    tolerance: float,
) -> np.ndarray:
    """Estimate the logarithm of a smooth multiplicative field.

    Parameters
    ----------
    values
        Magnitudes on a grid of any number of axes, each of at least two samples.
    mask
        Samples that count, bool; they are positive.
    spacing_mm
        Distance of samples along each axis.
    knot_mm
        Distance of the B-spline's knots at the first level; it is halved at each further level.
    iterations
        Most iterations at each level.
    tolerance
        A level ends when the coefficient of variation of the change of the field is below this.

    Returns
    -------
    numpy.ndarray
        float64, of the shape of `values`.
    """
    shape = np.array(values.shape)
    spans, start_mm, length_mm = _knots(shape, spacing_mm, knot_mm)
    log = np.log(values[mask].astype(float))
    field = np.zeros(values.shape)
    lattice = np.zeros(spans + _DEGREE)
    for level, most in enumerate(iterations):
        if level:
            lattice, spans = _refine(lattice), 2 * spans
        splines = [
            _splines((np.arange(n) * step + start) / length * count, count)
            for n, step, start, length, count in zip(
                shape, spacing_mm, start_mm, length_mm, spans, strict=True
            )
        ]
        # Lee et al. 1997, doi:10.1109/2945.620490: each sample asks for control points of its
        # own; they are averaged with the squares of the B-splines as weights.
        share = mask.astype(float)
        for axis, spline in enumerate(splines):
            squares = (spline**2).sum(axis=1)
            share /= squares.reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        cubes = [(spline**3).T for spline in splines]
        weight = _along(mask.astype(float), [(spline**2).T for spline in splines])
        for _ in range(most):
            corrected = log - field[mask]
            residual = np.zeros(values.shape)
            residual[mask] = corrected - _sharpen(corrected)
            asked = _along(residual * share, cubes)
            lattice += np.divide(asked, weight, out=np.zeros_like(asked), where=weight > 0)
            before, field = field, _along(lattice, splines)
            change = np.exp((before - field)[mask])
            if change.std(ddof=1) <= tolerance * change.mean():
                break
    return field


def _knots(
    shape: np.ndarray, spacing_mm: np.ndarray, knot_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spans of each axis, where its first sample lies, and its length (mm), as ANTs.

    The domain is widened by whole samples to a multiple of the knots' distance.
    """
    extent_mm = (shape - 1) * spacing_mm
    spans = np.maximum(np.ceil(extent_mm / knot_mm).astype(int), 1)
    added = ((spans * knot_mm - extent_mm) / spacing_mm + 0.5).astype(int)
    return spans, added // 2 * spacing_mm, (shape + added - 1) * spacing_mm


def _splines(places: np.ndarray, spans: int) -> np.ndarray:
    """Return the cubic B-splines at places in [0, spans]; shape (places, spans + 3).

    Examples
    --------
    >>> _splines(np.array([0.0, 1.0]), 1).round(3).tolist()
    [[0.167, 0.667, 0.167, 0.0], [0.0, 0.167, 0.667, 0.167]]
    """
    from scipy.interpolate import BSpline

    knots = np.arange(-_DEGREE, spans + _DEGREE + 1, dtype=float)
    return BSpline.design_matrix(places, knots, _DEGREE).toarray()


def _along(array: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Apply a matrix (new, old) to each axis."""
    for axis, matrix in enumerate(matrices):
        array = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    return array


def _refine(lattice: np.ndarray) -> np.ndarray:
    """Return the control points of the same splines on knots half as far apart."""
    for axis in range(lattice.ndim):
        coarse = np.moveaxis(lattice, axis, 0)
        fine = np.empty((2 * len(coarse) - _DEGREE, *coarse.shape[1:]))
        fine[0::2] = (coarse[:-1] + coarse[1:]) / 2
        fine[1::2] = (coarse[:-2] + 6 * coarse[1:-1] + coarse[2:]) / 8
        lattice = np.moveaxis(fine, 0, axis)
    return lattice


def _sharpen(values: np.ndarray) -> np.ndarray:
    """Return the values that are expected without a field.

    The histogram is deconvolved by the Gaussian that a field would blur it with (Sled et al. 1998,
    doi:10.1109/42.668698).
    """
    low, high = values.min(), values.max()
    if low == high:
        return values
    step = (high - low) / (_BINS - 1)
    place = (values - low) / step
    lower = np.minimum(place.astype(int), _BINS - 2)
    share = place - lower
    size = 2 ** (int(np.ceil(np.log2(_BINS))) + 1)
    first = (size - _BINS) // 2
    histogram = np.zeros(size)
    histogram[first : first + _BINS] = np.bincount(lower, 1 - share, _BINS)
    histogram[first : first + _BINS] += np.bincount(lower + 1, share, _BINS)
    width = _FWHM / step
    distance = np.minimum(np.arange(size), size - np.arange(size))
    bell = np.exp(-4 * np.log(2) * (distance / width) ** 2)
    # The Gaussian is even, so its transform is real.
    blur = np.fft.rfft(2 * np.sqrt(np.log(2) / np.pi) / width * bell).real
    sharp = np.fft.irfft(np.fft.rfft(histogram) * blur / (blur**2 + _NOISE), size)
    sharp = np.maximum(sharp, 0)
    centres = low + (np.arange(size) - first) * step
    amount, count = (
        np.fft.irfft(np.fft.rfft(each) * blur, size) for each in (centres * sharp, sharp)
    )
    expected = np.divide(amount, count, out=np.zeros(size), where=count != 0)
    expected = expected[first : first + _BINS]
    return expected[lower] + share * (expected[lower + 1] - expected[lower])
