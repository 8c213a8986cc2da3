"""How one person's outlines differ from the atlas: size, sex, weight, asymmetry, bending."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.person import Person, generator
from bids_muscle.phantom.shapes import ClosedSurface, ShapeAtlas
from bids_muscle.phantom.spine import SpineAxis

Array = NDArray[np.float64]

#: Linear size of muscle by sex relative to the atlas (areas differ by about a third).
MUSCLE_SCALE = {'M': 1.04, 'F': 0.955}

#: y in mm behind which the muscles of the back grow with muscle size, in the frame of the atlas.
BACK_MM = {'lumbar': -34.0, 'cervical': -22.0}


def _step(value: Array, low: float, high: float) -> Array:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


class BodyDeformation:
    """Displaces atlas outlines into the frame of one person.

    Parameters
    ----------
    atlas, person, spine
        Geometry of the region, who it is, and that person's spine.
    """

    def __init__(self, atlas: ShapeAtlas, person: Person, spine: SpineAxis) -> None:
        rng = generator(person.shape_seed, atlas.region, 'body')
        self.spine = spine
        self.frame = person.size**0.5
        ageing = 1 - 0.0015 * max(person.age_years - 45, 0)
        training = float(np.clip(rng.normal(1, 0.035), 0.9, 1.1))
        heaviness = 1 + 0.003 * (person.bmi - 25)
        self.muscle = MUSCLE_SCALE[person.sex] * ageing * training * heaviness
        self.back_mm = BACK_MM[atlas.region]
        self.fat = float(np.clip(1 + 0.09 * (person.bmi - 25), 0.22, 3.0))
        if person.sex == 'F':
            self.fat *= 1.12
        if atlas.region == 'cervical':
            self.fat **= 0.6  # the neck puts on less than the waist
        self.belly = 1 + 0.012 * (person.bmi - 25) * (1.2 if person.sex == 'M' else 1.0)
        self.waist = 1 + 0.006 * (person.bmi - 25)
        muscles = sorted({s.muscle for s in atlas.structures if s.muscle})
        common = {name: rng.normal(1, 0.03) for name in muscles}
        self.own = {
            (name, side): common[name] * rng.normal(1, 0.015)
            for name in muscles
            for side in ('right', 'left')
        }
        # A few long waves displace everything together, so that neighbours keep touching.
        self.waves = [
            (
                rng.normal(0, 1 / 150, 2),
                rng.normal(0, 0.7),
                rng.uniform(0, 2 * np.pi),
                rng.normal(0, 0.8, 2),
            )
            for _ in range(6)
        ]
        self.trunk_scale = 0.97 if person.sex == 'F' else 1.02

    def place(self, structure: ClosedSurface, points: Array, level: Array) -> Array:
        """Move the outlines of a structure into the person's frame.

        Parameters
        ----------
        structure
            What the outlines belong to.
        points
            (n, corners, 2) polygons in the frame of the atlas, mm.
        level
            (n,) vertebral coordinate of each.

        Returns
        -------
        (n, corners, 2) points x (right), y (anterior) in mm.
        """
        if structure.muscle:
            scale = self.own[structure.muscle, structure.side]
            centre = points.mean(axis=1, keepdims=True)
            apart = np.where(centre[..., 1:] > self.back_mm, self.muscle, 1.0)
            points = centre + (points - centre) * scale * apart
        level = level[:, None]
        x, y = points[..., 0], points[..., 1]
        # The muscles of the back grow away from the bone; skin and fascia are pushed outwards.
        behind = _step(-y, -self.back_mm - 10, -self.back_mm + 12)
        x = x * (1 + (self.muscle - 1) * behind)
        y = np.where(y < self.back_mm, self.back_mm + (y - self.back_mm) * self.muscle, y)
        lateral = _step(np.abs(x), 50, 110)
        x = x * (1 + (self.waist * self.trunk_scale - 1) * lateral)
        y = y * (1 + (self.belly - 1) * _step(y, 15, 70))
        for wave, along, phase, amplitude in self.waves:
            swing = np.sin(2 * np.pi * (wave[0] * x + wave[1] * y) + along * level + phase)
            x, y = x + amplitude[0] * swing, y + amplitude[1] * swing
        angle = np.deg2rad(self.spine.at_level(self.spine.rotation_deg, level)[0])
        x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
        right, forward = self.spine.at_level(self.spine.shift_mm, level)
        # The belly does not follow the lordosis.
        follow = 1 - _step(y, 10, 90)
        x, y = x * self.frame + right, y * self.frame + forward * follow
        return np.stack([x, y], axis=-1)
