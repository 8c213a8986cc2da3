"""Time and memory of conforming, N4 and the affine alignment of one scan.

python benchmarks/preparation.py DATASET [--region lumbar]

DATASET is a BIDS dataset; its first scan is prepared and aligned with the packaged atlas, led by
its label map in the derivatives.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from nibabel import Nifti1Image

from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.label_maps import candidate_scans, find_label_maps
from bids_muscle.imaging.alignment import align_scan
from bids_muscle.imaging.atlas import find_atlas, read_atlas
from bids_muscle.imaging.conform import load_image, to_canonical
from bids_muscle.imaging.prepare import prepare_scan

T = TypeVar('T')


def timed(name: str, step: Callable[[], T]) -> T:
    """Do a step, and print its wall and CPU time and the highest memory so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f'{name}: {wall:.1f} s, {cpu:.1f} s CPU, peak {peak_gb:.2f} GB', flush=True)
    return result


def main() -> None:
    """Prepare, align, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('dataset', type=Path)
    parser.add_argument('--region', default='lumbar')
    args = parser.parse_args()
    label = list_participants(args.dataset)[0]
    scan = find_scans(args.dataset, label, region=args.region)[0]
    atlas = read_atlas(find_atlas(None, args.region))
    label_map, codes = next(
        (each, codes)
        for folder in sorted(args.dataset.glob('derivatives/*'))
        for each in find_label_maps(folder)
        if scan in candidate_scans(each, [scan]) and (codes := each.codes(atlas.table))
    )
    drawn = to_canonical(load_image(label_map.path))
    numbers = np.zeros(drawn.shape, np.uint8)
    for code, index in codes.items():
        numbers[np.asarray(drawn.dataobj) == code] = index
    print(scan.name, 'x'.join(map(str, drawn.shape)))
    images = {str(key): load_image(path) for key, path in scan.paths.items()}
    made = timed('conform, N4, fat fraction, swaps', lambda: prepare_scan(images))
    timed(
        'affine',
        lambda: align_scan(
            made.corrected, Nifti1Image(numbers, drawn.affine), made.body_mask, atlas
        ),
    )


if __name__ == '__main__':
    main()
