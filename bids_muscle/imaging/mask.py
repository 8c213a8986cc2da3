"""Mask of the body without the surrounding air."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: In-plane voxel edge at which the outline is found, mm.
_GRID_MM = 3.0

#: Signal below this share of the bright tissue counts as this share: air, noise and zeros alike.
_FLOOR = 0.005

#: Where the threshold may be lowered for tissue far from the coil: to this many times the darkest
#: signal, but not below this share of the bright tissue.
_ABOVE_AIR = 5.0
_AIR = 0.04


#: Ghosts end at the skin: there the signal changes at least by this factor. They are looked for
#: where at least this share of what passes for body could be ghosts.
_SKIN_STEP, _GHOSTS = 1.6, 0.2


def body_mask(
    data: np.ndarray, spacing_mm: Sequence[float], *, bright_skin: bool = False
) -> np.ndarray:
    """Find the body in a magnitude image of any contrast.

    Otsu's threshold is taken on the logarithm of the smoothed signal, so that strong coil fall-off
    counts no more than it should; then gaps are closed, the largest connected body is kept and
    its holes (vessels, bowel gas, in a fat image the muscles) are filled in each axial slice.

    Parameters
    ----------
    data
        (X, Y, Z) magnitudes in canonical voxel order; any scale.
    spacing_mm
        Voxel edges in mm.
    bright_skin
        The fat under the skin is as bright as any tissue (in-phase, water + fat): motion ghosts so
        strong that they pass for body are detected by the step at the skin, and excluded.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) bool, False on slices without signal. All True where air cannot be distinguished
        from body.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    there = (data > 0).any(axis=(0, 1))
    if there.any() and not there.all():
        # A slice that the scanner lost does not part the body.
        found = np.zeros(data.shape, bool)
        found[..., there] = body_mask(data[..., there], spacing_mm, bright_skin=bright_skin)
        return found
    spacing = np.asarray(spacing_mm, dtype=float)
    shrink = np.maximum(1, np.round(_GRID_MM / spacing)).astype(int)
    coarse = block_mean(np.maximum(data, 0), shrink)
    coarse = ndimage.gaussian_filter(coarse, np.minimum(3.0 / (spacing * shrink), 1.0))
    if not coarse.any():
        return np.ones(data.shape, bool)
    bright = np.percentile(coarse[coarse > 0], 95)
    log_signal = np.log(np.maximum(coarse, _FLOOR * bright))
    air = max(np.percentile(coarse, 5), _AIR / _ABOVE_AIR * bright)
    mask = coarse > min(np.exp(threshold_otsu(log_signal.ravel())), _ABOVE_AIR * air)

    mask = _outline(mask)
    if bright_skin:
        mask = _without_ghosts(mask, log_signal)
    return enlarge(mask, shrink, data.shape)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Close gaps, keep the largest connected body, fill its holes in each slice."""
    from scipy import ndimage

    mask = ndimage.binary_opening(mask, _in_plane())
    mask = _largest(mask)
    padded = np.pad(mask, ((4, 4), (4, 4), (0, 0)), mode='edge')
    mask = ndimage.binary_closing(padded, _in_plane(), iterations=3)[4:-4, 4:-4]
    for k in range(mask.shape[2]):
        mask[:, :, k] = ndimage.binary_fill_holes(mask[:, :, k])
    return mask


def _without_ghosts(mask: np.ndarray, log_signal: np.ndarray) -> np.ndarray:
    """Leave out what a step all around parts from the body; a coil's fall-off has none."""
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    bright = _outline(mask & (log_signal > threshold_otsu(log_signal[mask])))
    if np.count_nonzero(mask & ~bright) < _GHOSTS * np.count_nonzero(mask):
        return mask
    beside = ndimage.binary_dilation(bright, _in_plane(), iterations=3) & mask
    beside &= ~ndimage.binary_dilation(bright, _in_plane())
    core = ndimage.binary_erosion(bright, _in_plane(), border_value=1)
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    steps = (log_signal[tuple(nearest)] - log_signal)[beside]
    return bright if steps.size and np.percentile(steps, 10) > np.log(_SKIN_STEP) else mask


def _in_plane() -> np.ndarray:
    cross = np.zeros((3, 3, 3), bool)
    cross[:, :, 1] = [[False, True, False], [True, True, True], [False, True, False]]
    return cross


def block_mean(data: np.ndarray, shrink: np.ndarray) -> np.ndarray:
    """Average blocks of voxels; the last block of an axis repeats the edge."""
    pad = [(0, -n % s) for n, s in zip(data.shape, shrink, strict=True)]
    padded = np.pad(data, pad, mode='edge')
    split: list[int] = []
    for n, s in zip(padded.shape, shrink, strict=True):
        split += [n // s, s]
    return padded.reshape(split).mean(axis=(1, 3, 5), dtype=np.float64)


def enlarge(mask: np.ndarray, shrink: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo :func:`block_mean`'s blocks: every voxel takes the value of its block."""
    for axis, factor in enumerate(shrink):
        mask = np.repeat(mask, factor, axis=axis)
    return mask[: shape[0], : shape[1], : shape[2]]


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    parts, n_parts = ndimage.label(mask)
    if n_parts == 0:
        return np.ones_like(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
