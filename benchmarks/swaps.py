"""Sensitivity and specificity of the search for fat-water swaps, on phantoms with planted swaps.

python benchmarks/swaps.py [--people 12] [--dixon water.nii.gz fat.nii.gz]

Each person is scanned in the neck and in the lumbar spine at changing noise, coil strength and
field strength, with ghosts, metal and wrap in some, once without and once with a regional swap.
A voxel counts where there is signal and its fat fraction differs from one half by 0.1. With
--dixon the same region is exchanged in a real scan, four times in other places.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes

from bids_muscle.imaging.bias import estimate_bias_field
from bids_muscle.imaging.conform import load_image, make_image, to_canonical
from bids_muscle.imaging.mask import body_mask
from bids_muscle.imaging.swap import exchange, find_swaps
from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.artefacts import swap_region
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import draw_person
from bids_muscle.phantom.render import Grid, plant_fat, sample_grid
from bids_muscle.phantom.simulate import simulate_scan

SHAPES = {'lumbar': (120, 120, 20), 'cervical': (128, 96, 20)}
OTHERS = (('ghosting', 0.2), ('metal', 0.1), ('wrap', 0.15), ('chemical-shift', 1.0))


def simulate(region: str, place: int) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Return water, fat and grid of one person."""
    effects = load_effects()
    person = draw_person(
        11,
        place,
        age_years=(50.0, 15.0),
        female_share=0.5,
        bmi=(26.0, 4.0),
        sites=tuple(effects.sites),
        digits=3,
    )
    options = Options(
        1,
        effects,
        regions=(region,),
        shape=SHAPES[region],
        snr=(40.0, 20.0, 60.0, 30.0)[place % 4],
        bias=(1.0, 0.5, 1.5, 0.0)[place % 4],
        field_strength_t=(1.5, 3.0, 3.0)[place % 3],
        artefacts=OTHERS,
    )
    grid = options.grid(region)
    in_plane_mm, slice_mm = grid.detail_mm
    anatomy = build_anatomy(region, person, in_plane_mm=in_plane_mm, slice_mm=slice_mm)
    samples = sample_grid(anatomy, make_pattern(anatomy, person), grid)
    planted = effects.planted_mfi(person, region, 11, 0)
    shares = plant_fat(anatomy, samples, planted, options.field_strength_t)
    scan = simulate_scan(anatomy, samples, shares, ('dixon',), options, (11, place, region))
    water, fat = (image.data.astype(np.float32) for image in scan.images)
    return water, fat, grid


def score(
    name: str, water: np.ndarray, fat: np.ndarray, affine: np.ndarray, swaps: list[np.ndarray]
) -> list[tuple[bool, bool, float, float]]:
    """Search the scan as it is and with each swap; print and return what was found."""
    total, spacing = water + fat, voxel_sizes(affine)
    mask = body_mask(total, spacing)
    field = estimate_bias_field(make_image(total, affine), mask)
    water, fat = water / field, fat / field
    clear = mask & (water + fat > 0.3 * np.median((water + fat)[mask]))
    clear &= np.abs(fat / np.maximum(water + fat, 1e-6) - 0.5) > 0.1
    rows = []
    for swap in [np.zeros_like(mask), *swaps]:
        found = find_swaps(*exchange(water, fat, swap), mask, spacing)
        marked = np.zeros_like(mask) if found is None else found.mask
        inside, outside = clear & swap, clear & ~swap
        sensitivity = marked[inside].mean() if inside.any() else np.nan
        rows.append(
            (bool(swap.any()), bool(marked.any()), sensitivity, 1 - marked[outside].mean())
        )
        print(name, *(f'{value:.4g}' for value in rows[-1]), flush=True)
    return rows


def main() -> None:
    """Simulate, search, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--people', type=int, default=12)
    parser.add_argument('--dixon', nargs=2, type=Path, metavar=('WATER', 'FAT'))
    args = parser.parse_args()
    if args.dixon:
        images = [load_image(path) for path in args.dixon]
        affine = images[1].affine  # that of dixon-lumbar's water is lost
        water, fat = (to_canonical(make_image(np.asarray(i.dataobj), affine)) for i in images)
        grid = Grid(water.shape, water.affine)
        data = [np.asarray(image.dataobj, np.float32) for image in (water, fat)]
        mask = body_mask(sum(data), voxel_sizes(grid.affine))
        swaps = [swap_region(grid, mask, (seed, 'real')) & mask for seed in range(4)]
        score('real', *data, grid.affine, swaps)
        return
    for region in SHAPES:
        rows = []
        for place in range(args.people):
            water, fat, grid = simulate(region, place)
            body = water + fat > 50
            swap = swap_region(grid, body, (11, place, region)) & body
            rows += score(f'{region} {place}', water, fat, grid.affine, [swap])
        with_swap = [row for row in rows if row[0]]
        without = [row for row in rows if not row[0]]
        print(
            f'{region}: found {sum(row[1] for row in with_swap)} of {len(with_swap)}, '
            f'falsely {sum(row[1] for row in without)} of {len(without)}; of the voxels '
            f'sensitivity {np.mean([row[2] for row in with_swap]):.3f}, specificity '
            f'{np.mean([row[3] for row in rows]):.4f}'
        )


if __name__ == '__main__':
    main()
