"""Error of the fat fraction fitted to echo magnitudes, on phantoms; see docs/benchmarks.md.

python benchmarks/multi_echo.py [--people 2]

The truth is the fat fraction of the noiseless signal at echo time zero, with the same weighting:
what is left is the error of the fit, of noise, and of a voxel's fat taken for water.
"""

from __future__ import annotations

import argparse

import numpy as np
from swaps import draw

from bids_muscle.imaging.multi_echo import EchoTrain, fit_water_fat
from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.protocol import sequence_for
from bids_muscle.phantom.render import make_component, plant_fat, render, sample_grid
from bids_muscle.phantom.simulate import simulate_scan

SHAPES = {'lumbar': (120, 120, 6), 'cervical': (128, 96, 6)}


def main() -> None:
    """Simulate, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--people', type=int, default=2)
    args = parser.parse_args()
    effects = load_effects()
    print('| region | T | SNR | MFI error, mean (most) | voxel error | taken wrongly |')
    print('|---|---|---|---|---|---|')
    for place in range(args.people):
        person = draw(41, place)
        for region, shape in SHAPES.items():
            for field_t, snr in ((3.0, 40.0), (1.5, 20.0)):
                options = Options(
                    1,
                    effects,
                    regions=(region,),
                    shape=shape,
                    snr=snr,
                    bias=0.0,
                    field_strength_t=field_t,
                )
                grid = options.grid(region)
                in_plane_mm, slice_mm = grid.detail_mm
                anatomy = build_anatomy(region, person, in_plane_mm=in_plane_mm, slice_mm=slice_mm)
                samples = sample_grid(anatomy, make_pattern(anatomy, person), grid)
                planted = effects.planted_mfi(person, region, 41, 0)
                shares = plant_fat(anatomy, samples, planted, field_t)
                scan = simulate_scan(
                    anatomy, samples, shares, ('megre',), options, (41, place, region)
                )
                sequence = sequence_for('megre', field_t)
                true_water, true_fat = render(
                    samples, make_component(anatomy, shares, sequence, field_t)
                )
                train = EchoTrain(
                    tuple(image.echo_time_ms / 1000 for image in scan.images), field_t
                )
                muscle = samples.labels > 0
                water, fat = fit_water_fat(
                    [image.data.astype(np.float32) for image in scan.images], train, muscle
                )
                error = [
                    100 * fat[own].sum() / (water[own] + fat[own]).sum()
                    - 100 * true_fat[own].sum() / (true_water[own] + true_fat[own]).sum()
                    for label in np.unique(samples.labels[muscle])
                    if (own := samples.labels == label).sum() > 50
                ]
                found, true = (
                    100 * f[muscle] / np.maximum(w[muscle] + f[muscle], 1e-6)
                    for w, f in ((water, fat), (true_water, true_fat))
                )
                off = np.abs(found - true)
                most = max(error, key=abs)
                print(
                    f'| {region} | {field_t:g} | {snr:g} | {np.mean(error):+.2f} ({most:+.2f}) | '
                    f'{np.median(off):.2f} | {100 * (off > 40).mean():.2f} % |',
                    flush=True,
                )


if __name__ == '__main__':
    main()
