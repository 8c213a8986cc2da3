"""An analytic abdomen: two tissues, air, a known bias field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPACING_MM = (4.0, 4.0, 8.0)
AFFINE = np.diag([*SPACING_MM, 1.0])


@dataclass(frozen=True)
class Abdomen:
    """Noise-free water and fat without bias, the body, and a field like a surface coil's."""

    water: np.ndarray
    fat: np.ndarray
    body: np.ndarray
    field: np.ndarray

    def air_noise(self, seed: int = 0) -> np.ndarray:
        """Return noise of about 1 % of the tissues."""
        return np.abs(np.random.default_rng(seed).normal(0, 1.5, self.body.shape))


def make_abdomen() -> Abdomen:
    """Draw the body, its muscles and the field."""
    shape = (80, 64, 10)
    x, y, z = (
        (np.indices(shape)[axis] - (n - 1) / 2) * mm
        for axis, (n, mm) in enumerate(zip(shape, SPACING_MM, strict=True))
    )
    body = (x / 140) ** 2 + (y / 100) ** 2 < 1
    inner = (x / 115) ** 2 + (y / 75) ** 2 < 1
    muscle = (abs(x) < 60) & (abs(x) > 8) & (y < -25) & (y > -60)
    water = np.where(inner, 60.0, 5.0) * body
    fat = np.where(inner, 30.0, 95.0) * body
    water[muscle], fat[muscle] = 85.0, 15.0
    field = np.exp(-((y + 100) ** 2) / (2 * 160**2) - (x - 40) ** 2 / (2 * 250**2) + z / 400)
    return Abdomen(water, fat, body, field / np.exp(np.log(field[body]).mean()))


ABDOMEN = make_abdomen()
