"""Error and CPU time of the bias field on phantoms with a known field, beside ANTs' defaults.

python benchmarks/bias_phantom.py

The error is the standard deviation of the logarithm of found over true field in the body. Both
run on one thread and with the same mask.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

# ITK reads this once, when it first computes.
os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
import ants

from bids_muscle.imaging.bias import estimate_bias_field
from bids_muscle.imaging.conform import make_image, to_canonical
from bids_muscle.imaging.mask import body_mask
from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import draw_person
from bids_muscle.phantom.render import plant_fat, sample_grid
from bids_muscle.phantom.scanner import coil_sensitivity
from bids_muscle.phantom.simulate import simulate_scan

SHAPES = {'lumbar': (320, 320, 40), 'cervical': (320, 240, 40)}


def main() -> None:
    """Simulate, estimate, print."""
    effects = load_effects()
    for place, (region, contrast) in enumerate(
        (('lumbar', 'dixon'), ('cervical', 't1w'), ('lumbar', 't2w')), start=1
    ):
        options = Options(
            1, effects, regions=(region,), contrasts=(contrast,), shape=SHAPES[region]
        )
        cohort = effects.cohort
        person = draw_person(
            7,
            place,
            age_years=(cohort['age_mean_years'], cohort['age_sd_years']),
            female_share=0.5,
            bmi=(cohort['bmi_mean'], cohort['bmi_sd']),
            sites=tuple(effects.sites),
            digits=3,
        )
        grid = options.grid(region)
        in_plane_mm, slice_mm = grid.detail_mm
        anatomy = build_anatomy(region, person, in_plane_mm=in_plane_mm, slice_mm=slice_mm)
        samples = sample_grid(anatomy, make_pattern(anatomy, person), grid)
        shares = plant_fat(anatomy, samples, effects.planted_mfi(person, region, 7, 0), 3.0)
        key = (7, person.shape_seed, region, 0, 1, contrast)
        scan = simulate_scan(anatomy, samples, shares, (contrast,), options, key)
        total = np.sum([np.asarray(image.data, np.float32) for image in scan.images], axis=0)
        field = coil_sensitivity(grid, region, 1.0, key)
        image, true = (to_canonical(make_image(data, grid.affine)) for data in (total, field))
        compare(f'{region} {contrast}', image, np.asarray(true.dataobj))


def compare(name: str, image, true: np.ndarray) -> None:
    """Print error and time of ours and of ANTs."""
    data = np.asarray(image.dataobj)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    mask = body_mask(data, spacing)

    def theirs() -> np.ndarray:
        volume, region = (
            ants.from_numpy(array.astype(np.float32), spacing=spacing.tolist())
            for array in (data, mask)
        )
        return ants.n4_bias_field_correction(volume, mask=region, return_bias_field=True).numpy()

    def timed(who: str, estimate: Callable[[], np.ndarray]) -> None:
        start = time.process_time()
        found = estimate()
        spent = time.process_time() - start
        print(f'{name}, {who}: error {np.log(found / true)[mask].std():.4f}, {spent:.1f} s CPU')

    timed('ANTs', theirs)
    timed('bids_muscle', lambda: estimate_bias_field(image, mask))


if __name__ == '__main__':
    main()
