"""Artefacts of real scans, each a small function on the signal or the images of one scan.

A scan has an artefact with the share given by the user; where in the body and how strong is
drawn from the key of the scan. What was done is returned, and written into the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.person import generator
from bids_muscle.phantom.protocol import FAT_SHIFT_PPM, GAMMA_MHZ_PER_T, Sequence
from bids_muscle.phantom.render import ScanGrid

FloatImage = NDArray[np.float32]
AnyImage = NDArray[np.float32] | NDArray[np.complex64]
Key = tuple[int | str, ...]

#: Artefact -> share of scans that have it unless the user says otherwise. Fat-water swaps occur
#: in about one scan in ten (Weber 2021).
ARTEFACTS: Mapping[str, float] = {
    'swap': 0.1,
    'ghosting': 0.2,
    'metal': 0.05,
    'wrap': 0.1,
    'chemical-shift': 1.0,
    'slab': 0.2,
    'clipping': 0.05,
}


def drawn(artefacts: tuple[tuple[str, float], ...], key: Key) -> list[str]:
    """Return the artefacts that a scan has.

    Examples
    --------
    >>> drawn((('swap', 1.0), ('metal', 0.0)), (1, 'scan'))
    ['swap']
    """
    return [
        name
        for name, share in artefacts
        if generator(*_of_person(key, name), 'artefact', name).random() < share
    ]


def _of_person(key: Key, artefact: str) -> Key:
    """Metal stays in the body: it is drawn once per person and region, not per scan."""
    return key[:3] if artefact == 'metal' else key


def shift_fat(fat: FloatImage, sequence: Sequence, field_strength_t: float) -> FloatImage:
    """Displace fat along the readout (right-left, the first voxel axis).

    The displacement is the fat shift over the bandwidth per pixel, in pixels.
    """
    from scipy import ndimage

    pixels = abs(FAT_SHIFT_PPM) * GAMMA_MHZ_PER_T * field_strength_t / sequence.bandwidth_hz
    return np.asarray(
        ndimage.shift(fat, (pixels, 0, 0), order=1, mode='constant'), dtype=np.float32
    )


def metal_dropout(grid: ScanGrid, body: NDArray[np.bool_], key: Key) -> FloatImage:
    """Signal that metal leaves: none near the implant, with a bright rim where signal piles up.

    Parameters
    ----------
    body
        (X, Y, Z) where there is tissue; the metal lies in its middle third.

    Returns
    -------
    (X, Y, Z) factor between 0 and 1.6.
    """
    rng = generator(*_of_person(key, 'metal'), 'metal')
    distance = _place(grid, body, rng, (14.0, 26.0))
    void = 1 / (1 + np.exp(-(distance - 1) * 12))
    rim = 0.6 * np.exp(-(((distance - 1.12) / 0.08) ** 2))
    return np.asarray(np.where(distance < 2, void + rim * void, 1), np.float32)


def swap_region(grid: ScanGrid, body: NDArray[np.bool_], key: Key) -> NDArray[np.bool_]:
    """Region in which a scanner takes fat for water: a smooth blob of 25 to 60 mm radius.

    Parameters
    ----------
    body
        (X, Y, Z) where there is tissue.
    """
    rng = generator(*key, 'swap')
    return np.asarray(_place(grid, body, rng, (25.0, 60.0)) < 1)


def _place(
    grid: ScanGrid,
    body: NDArray[np.bool_],
    rng: np.random.Generator,
    radius_mm: tuple[float, float],
) -> FloatImage:
    """Draw a wobbly ball in the middle of the body; returns the distance over its radius."""
    inside = np.argwhere(body)
    low, high = (
        (inside.min(axis=0), inside.max(axis=0))
        if inside.size
        else (np.zeros(3), np.array(grid.shape) - 1.0)
    )
    centre = low + (high - low) * rng.uniform(0.3, 0.7, 3)
    size_mm = rng.uniform(*radius_mm) * rng.uniform(0.8, 1.25, 3)
    axes = [
        (np.arange(n, dtype=np.float32) - c) * step / size
        for n, c, step, size in zip(grid.shape, centre, grid.voxel_mm, size_mm, strict=True)
    ]
    x, y, z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    wobble = sum(
        rng.uniform(0.03, 0.12) * np.sin(order * np.arctan2(y, x) + rng.uniform(0, 6.3) + z)
        for order in (2, 3, 5)
    )
    return np.asarray(np.sqrt(x * x + y * y + z * z) * (1 + wobble), np.float32)


def ghost(image: AnyImage, key: Key) -> AnyImage:
    """Add motion ghosts along the phase-encoding (second) axis.

    A periodic motion modulates the phase of the k-space lines; the ghosts are copies displaced by
    a fraction of the field of view.

    Parameters
    ----------
    image
        (X, Y, Z) signal.

    Returns
    -------
    (X, Y, Z) complex signal.
    """
    rng = generator(*key, 'ghosting')
    strength, cycles = rng.uniform(0.25, 0.5), rng.uniform(0.12, 0.3)
    count = image.shape[1]
    line = np.fft.ifftshift(np.arange(count))
    turn = strength * np.sin(2 * math.pi * cycles * line + rng.uniform(0, 2 * math.pi))
    lines = np.fft.fft(image, axis=1) * np.exp(1j * turn)[None, :, None]
    return np.asarray(np.fft.ifft(lines, axis=1), dtype=np.complex64)


def wrap_around(image: AnyImage, body: NDArray[np.bool_], key: Key) -> AnyImage:
    """Fold what lies beyond a too small field of view back in, along the second axis.

    Parameters
    ----------
    image
        (X, Y, Z) signal.
    body
        (X, Y, Z) where there is tissue; 5 to 12 % of its depth is cut off at either end.

    Returns
    -------
    (X, Y, Z) signal, dark outside the smaller field of view.
    """
    rng = generator(*key, 'wrap')
    rows = np.nonzero(body.any(axis=(0, 2)))[0]
    if rows.size < 4:
        return image
    cut = max(int(rows.size * rng.uniform(0.05, 0.12)), 1)
    first, last = rows[0] + cut, rows[-1] + 1 - cut
    period = last - first
    folded = np.zeros_like(image)
    for shift in (-period, 0, period):
        start, stop = max(first + shift, 0), min(last + shift, image.shape[1])
        if start < stop:
            folded[:, start - shift : stop - shift] += image[:, start:stop]
    return folded


def slab_profile(n_slices: int, key: Key) -> FloatImage:
    """Return how bright the slices of a 3-D slab are: its ends fall off.

    Returns
    -------
    (Z,) factor: 1 in the middle, 0.08 to 0.2 on the outermost slices. The fall takes 15 to 30 % of
    the slices at either end.
    """
    rng = generator(*key, 'slab')
    least, width = rng.uniform(0.08, 0.2, 2), rng.uniform(0.15, 0.3, 2) * n_slices
    at = np.arange(n_slices)
    ends = np.stack([at, at[::-1]]) / width[:, None]
    rise = np.sin(np.pi / 2 * np.minimum(ends, 1)) ** 2
    return np.asarray((least[:, None] + (1 - least[:, None]) * rise).prod(axis=0), np.float32)


def clip(stored: NDArray[np.uint16], body: NDArray[np.bool_], key: Key) -> NDArray[np.uint16]:
    """Limit an image to a value that 2 to 10 % of the body exceed, as too high a gain does."""
    share = generator(*key, 'clipping').uniform(0.02, 0.1)
    return np.minimum(stored, np.uint16(np.quantile(stored[body], 1 - share)))
