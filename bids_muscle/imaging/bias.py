"""Bias field of a scan by N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908)."""

from __future__ import annotations

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes

from bids_muscle.imaging.n4 import n4_log_field

#: Samples that the field is estimated from, at most; the time does not grow with the scan. With
#: half as many the noise of the histogram that N4 sharpens hides the field now and then.
_MAX_SAMPLES = 15_000

#: Least distance between samples, mm.
_SAMPLE_MM = 2.5

#: An axis whose voxel edge is this many times the least one is not thinned out: thick slices are
#: all used.
_THICK = 1.5

#: Signal below this share of its neighbourhood (gas, cortical bone, vessels, tendon) tells nothing
#: about the field, and stretches the histogram that N4 sharpens.
_LOCALLY_DARK = 0.3
_NEIGHBOURHOOD_MM = 30.0


def estimate_bias_field(
    img: Nifti1Image,
    mask: np.ndarray,
    *,
    knot_mm: float = 150.0,
    iterations: tuple[int, ...] = (80, 50, 50),
    tolerance: float = 1e-3,
) -> np.ndarray:
    """Estimate the smooth multiplicative field in an image.

    N4 sees every n-th voxel in plane and every thick slice. Its log field is smooth by
    construction (cubic B-spline), so that it is brought back to all voxels by cubic interpolation.

    Parameters
    ----------
    img
        (X, Y, Z) magnitudes, any scale.
    mask
        (X, Y, Z) bool, the body.
    knot_mm
        Distance of the B-spline's knots at the first level; it is halved at each further level.
    iterations
        Most iterations at each level.
    tolerance
        A level ends when the coefficient of variation of the change of the field is below this.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) float32, positive, with a geometric mean of 1 over `mask`. Divide by it. All 1
        where the mask holds too few voxels for an estimate.
    """
    from scipy import ndimage

    data = np.asanyarray(img.dataobj)
    box = ndimage.find_objects(mask.astype(np.uint8))[0] if mask.any() else None
    if box is None:
        return np.ones(data.shape, np.float32)
    spacing = voxel_sizes(img.affine)
    steps = _sampling_steps(mask[box].shape, spacing)
    sampled = tuple(
        slice(extent.start + (min(step, extent.stop - extent.start) - 1) // 2, extent.stop, step)
        for extent, step in zip(box, steps, strict=True)
    )
    values = np.maximum(data[sampled], 0).astype(np.float32)
    tissue = _without_locally_dark(values, mask[sampled], spacing * steps)
    if np.count_nonzero(tissue) < 100:
        return np.ones(data.shape, np.float32)
    axes = [axis for axis, n in enumerate(values.shape) if n > 1]  # a single slice is 2-D for N4
    log_field = n4_log_field(
        np.squeeze(values),
        np.squeeze(tissue),
        (spacing * steps)[axes],
        knot_mm=knot_mm,
        iterations=iterations,
        tolerance=tolerance,
    ).reshape(values.shape)
    log_field = _interpolate(log_field, sampled, data.shape)
    log_field -= log_field[mask].mean(dtype=np.float64)
    return np.exp(log_field).astype(np.float32)


def _sampling_steps(shape: tuple[int, ...], spacing_mm: np.ndarray) -> np.ndarray:
    """Voxels from one sample to the next along each axis."""
    thick = spacing_mm > max(_THICK * spacing_mm.min(), _SAMPLE_MM)
    distance_mm = _SAMPLE_MM
    while True:
        steps = np.maximum(1, np.round(distance_mm / spacing_mm)).astype(int)
        steps[thick] = 1
        if np.prod(np.ceil(shape / steps)) <= _MAX_SAMPLES or np.all(steps >= shape):
            return steps
        distance_mm *= 1.05


def _without_locally_dark(
    values: np.ndarray, mask: np.ndarray, spacing_mm: np.ndarray
) -> np.ndarray:
    from scipy import ndimage

    sigma = _NEIGHBOURHOOD_MM / spacing_mm
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    around = ndimage.gaussian_filter(np.where(mask, values, 0), sigma)
    return mask & (values * weight > _LOCALLY_DARK * around)


def _interpolate(
    samples: np.ndarray, sampled: tuple[slice, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Bring samples back to every voxel; beyond the outermost ones their value goes on."""
    from scipy.interpolate import make_interp_spline

    for axis, (where, size) in enumerate(zip(sampled, shape, strict=True)):
        positions = np.arange(where.start, where.stop, where.step)
        wanted = np.clip(np.arange(size), positions[0], positions[-1])
        if len(positions) > 1:
            # The splines of one sample each make a matrix, which takes a tenth of the time of a
            # spline for each line of the image.
            ones = np.eye(len(positions))
            splines = make_interp_spline(positions, ones, k=min(3, len(positions) - 1))
            samples = np.moveaxis(np.tensordot(splines(wanted), samples, (1, axis)), 0, axis)
        else:
            samples = np.repeat(samples, size, axis=axis)
    return samples
