"""The spine of one person: where its levels, end plates and discs are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.person import Person, generator
from bids_muscle.phantom.shapes import ShapeAtlas

Array = NDArray[np.float64]

#: Extra disc height in the middle, from the concave end plates, on each side.
ENDPLATE_DEPTH_MM = 0.8


@dataclass(frozen=True)
class SpineAxis:
    """Vertebral levels along the body axis; z points up and is zero at the reference level.

    Parameters
    ----------
    level_names
        Names from top to bottom.
    centre_mm
        (n,) z of every vertebral centre.
    disc_centre_mm, disc_height_mm
        (n-1,) z of every disc below vertebra k, and its height in the middle, along its normal.
    shift_mm
        (n, 2) displacement of the vertebral centre to the right and forward.
    tilt_deg, rotation_deg
        (n,) forward tilt and axial rotation of every vertebra.
    fused_from
        Number of the first vertebra without a disc below it (the sacrum).
    """

    level_names: tuple[str, ...]
    first_level: int
    centre_mm: Array
    disc_centre_mm: Array
    disc_height_mm: Array
    shift_mm: Array
    tilt_deg: Array
    rotation_deg: Array
    fused_from: int

    @property
    def reach_mm(self) -> tuple[float, float]:
        """Lowest and highest z of the anatomy: three quarters of a level past the ends."""
        z = self.centre_mm
        return float(z[-1] - 0.75 * (z[-2] - z[-1])), float(z[0] + 0.75 * (z[0] - z[1]))

    def level_at(self, z_mm: float | Array) -> Array:
        """Return the vertebral coordinate at a height (extrapolated beyond the last centres)."""
        z, levels = self.centre_mm[::-1], np.arange(len(self.centre_mm))[::-1] + self.first_level
        value = np.interp(z_mm, z, levels)
        below = np.minimum(np.asarray(z_mm) - z[0], 0) / (z[1] - z[0])
        above = np.maximum(np.asarray(z_mm) - z[-1], 0) / (z[-1] - z[-2])
        return np.asarray(value - below - above)

    def at_level(self, values: Array, level: float | Array) -> Array:
        """Interpolate quantities per vertebra, (n,) or (n, m), at vertebral coordinates.

        Returns
        -------
        (m, ...) values, with m = 1 for a single quantity.
        """
        index = np.arange(len(self.centre_mm)) + self.first_level
        return np.array([np.interp(level, index, column) for column in np.atleast_2d(values.T)])


def make_spine(atlas: ShapeAtlas, person: Person) -> SpineAxis:
    """Draw the spine of a person.

    Vertebrae grow with body height; discs lose 0.25 % of their height per year after 30 and vary
    by 8 %; lordosis varies by 20 %; a mild scoliosis (standard deviation 3 mm) bends and turns
    the spine sideways.
    """
    rng = generator(person.shape_seed, atlas.region, 'spine')
    heights = (
        atlas.vertebra_height_mm * person.size * rng.normal(1, 0.02, atlas.vertebra_height_mm.size)
    )
    ageing = 1 - 0.0025 * max(person.age_years - 30, 0)
    discs = (
        atlas.disc_height_mm
        * person.size
        * ageing
        * np.clip(rng.normal(1, 0.08, atlas.disc_height_mm.size), 0.7, 1.3)
    )
    lordosis = float(np.clip(rng.normal(1, 0.2), 0.4, 1.6))
    tilt = atlas.tilt_deg * lordosis
    # Along the body axis a tilted disc is higher by 1 / cos(tilt).
    disc_tilt = np.deg2rad((tilt[:-1] + tilt[1:]) / 2)
    steps = (heights[:-1] + heights[1:]) / 2 + discs / np.cos(disc_tilt)
    centre = -np.concatenate([[0], np.cumsum(steps)])
    disc_centre = centre[:-1] - heights[:-1] / 2 - discs / np.cos(disc_tilt) / 2
    reference = centre[atlas.reference_level - atlas.first_level]
    count = heights.size
    bend = rng.normal(0, 3.0)
    phase = rng.uniform(0, 2 * np.pi)
    along = np.linspace(0, 1, count)
    wave = np.sin(np.pi * along * 1.2 + phase)
    shift = np.stack([bend * (wave - wave.mean()), atlas.shift_mm * lordosis], axis=1)
    return SpineAxis(
        level_names=atlas.level_names,
        first_level=atlas.first_level,
        centre_mm=centre - reference,
        disc_centre_mm=disc_centre - reference,
        disc_height_mm=discs,
        shift_mm=shift,
        tilt_deg=tilt,
        rotation_deg=0.6 * bend * (wave - wave.mean()),
        fused_from=atlas.fused_from - atlas.first_level,
    )
