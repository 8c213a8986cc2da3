"""A small simulated Dixon scan in memory, with the region in which water and fat are exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.artefacts import swap_region
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import draw_person
from bids_muscle.phantom.render import plant_fat, sample_grid
from bids_muscle.phantom.simulate import simulate_scan


@dataclass(frozen=True)
class DixonPhantom:
    """Water and fat as they are, what a swap exchanges, and the muscles."""

    water: np.ndarray
    fat: np.ndarray
    swap: NDArray[np.bool_]
    labels: np.ndarray
    affine: np.ndarray


def make_dixon(
    region: str, shape: tuple[int, int, int], *, seed: int = 0, bias: float = 0.5
) -> DixonPhantom:
    """Simulate one person, canonical voxel order."""
    effects = load_effects()
    person = draw_person(
        seed,
        1,
        age_years=(45.0, 10.0),
        female_share=0.5,
        bmi=(26.0, 3.0),
        sites=tuple(effects.sites),
        digits=2,
    )
    options = Options(1, effects, regions=(region,), shape=shape, bias=bias)
    grid = options.grid(region)
    in_plane_mm, slice_mm = grid.detail_mm
    anatomy = build_anatomy(region, person, in_plane_mm=in_plane_mm, slice_mm=slice_mm)
    samples = sample_grid(anatomy, make_pattern(anatomy, person), grid)
    planted = effects.planted_mfi(person, region, seed, 0)
    shares = plant_fat(anatomy, samples, planted, 3.0)
    scan = simulate_scan(anatomy, samples, shares, ('dixon',), options, (seed, 1, region))
    # Rows run from right to left in the phantom.
    water, fat = (image.data[::-1].astype(np.float32) for image in scan.images)
    body = water + fat > 50
    affine = grid.affine @ np.diag([-1, 1, 1, 1])
    affine[0, 3] = -grid.affine[0, 3]
    swap = swap_region(grid, body[::-1], (seed, region))[::-1] & body
    return DixonPhantom(water, fat, swap, samples.labels[::-1], affine)
