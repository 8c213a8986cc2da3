"""What the scanner makes of the noise-free signal: coil, noise, echoes and stored numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.person import generator
from bids_muscle.phantom.render import ScanGrid

Array = NDArray[np.float64]
FloatImage = NDArray[np.float32]


def coil_sensitivity(
    grid: ScanGrid, region: str, strength: float, seed: tuple[int | str, ...]
) -> FloatImage:
    """Receive sensitivity of a spine or neck coil: bright near the back, smooth, never zero.

    Parameters
    ----------
    strength
        0 for none; 1 for a coil whose sensitivity halves over about 10 cm.
    seed
        Key of the random part.

    Returns
    -------
    (X, Y, Z) sensitivity with mean 1.
    """
    rng = generator(*seed, 'coil')
    i, j, k = (np.arange(n, dtype=np.float32) for n in grid.shape)
    a = grid.affine.astype(np.float32)

    def world(axis: int) -> FloatImage:
        return np.asarray(
            a[axis, 0] * i[:, None, None]
            + a[axis, 1] * j[None, :, None]
            + a[axis, 2] * k[None, None, :]
            + a[axis, 3]
        )

    x, y, z = world(0), world(1), world(2)
    reach = 150.0 if region == 'lumbar' else 220.0
    tilt = rng.normal(0, 0.12, 2)
    log = -strength * math.log(2) * (y / reach * 1.5 + tilt[0] * x / 100 + tilt[1] * z / 100)
    for _ in range(3):
        wave, phase = rng.normal(0, 1 / 350, 3), rng.uniform(0, 2 * math.pi)
        log += (
            strength
            * 0.07
            * np.sin(
                2 * math.pi * (wave[0] * x + wave[1] * y + wave[2] * z) + phase, dtype=np.float32
            )
        )
    field = np.exp(log)
    return np.asarray(field / field.mean(), np.float32)


def complex_noise(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Gaussian noise of standard deviation sigma in the real and in the imaginary part.

    The magnitude of a signal with this noise is Rician (Gudbjartsson 1995).
    """
    noise = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(sigma)
    return np.asarray(noise.view(np.complex64)[..., 0])


def to_stored(image: FloatImage, scale: float) -> NDArray[np.uint16]:
    """Round to the integers that scanners store."""
    return np.clip(np.rint(image * scale), 0, 65535).astype(np.uint16)
