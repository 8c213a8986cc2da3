"""Time of the bias field estimate on a scan, beside N4 with ANTs' defaults.

python benchmarks/bias_field.py water.nii.gz fat.nii.gz [--ants]

Several images are added, as for a Dixon scan. The range is that of the field in the body from the
1st to the 99th percentile; the difference is the standard deviation of the log ratio of the two
fields. ANTs' defaults run on one thread here, as ours do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes

from bids_muscle.imaging.bias import estimate_bias_field
from bids_muscle.imaging.conform import load_image, make_image, to_canonical
from bids_muscle.imaging.mask import body_mask


def main() -> None:
    """Estimate, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', nargs='+', type=Path)
    parser.add_argument('--ants', action='store_true', help='also run ANTs with its defaults')
    args = parser.parse_args()

    images = [to_canonical(load_image(path)) for path in args.images]
    total = np.sum([np.asarray(image.dataobj) for image in images], axis=0)
    spacing = voxel_sizes(images[0].affine)
    mask = body_mask(total, spacing)
    print(f'{total.shape} voxels of {np.round(spacing, 2)} mm')

    import ants  # its import is not part of the estimate

    def timed(name: str, estimate: Callable[[], np.ndarray]) -> np.ndarray:
        wall, cpu = time.perf_counter(), time.process_time()
        field = estimate()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        low, high = np.percentile(field[mask] / np.exp(np.log(field[mask]).mean()), [1, 99])
        print(f'{name}: {wall:.1f} s wall, {cpu:.1f} s CPU, range {low:.2f} to {high:.2f}')
        return field

    ours = timed(
        'bids_muscle', lambda: estimate_bias_field(make_image(total, images[0].affine), mask)
    )
    if args.ants:
        image = ants.from_numpy(total, spacing=spacing.tolist())
        region = ants.from_numpy(mask.astype(np.float32), spacing=spacing.tolist())
        theirs = timed(
            'ANTs',
            lambda: ants.n4_bias_field_correction(
                image, mask=region, return_bias_field=True
            ).numpy(),
        )
        print(f'difference {np.log(ours / theirs)[mask].std():.3f}')


if __name__ == '__main__':
    main()
