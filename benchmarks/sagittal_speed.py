"""Time and memory of the spine of one sagittal scan of 20 slices of 512x512 pixels.

OMP_NUM_THREADS=2 python benchmarks/sagittal_speed.py
"""

from __future__ import annotations

import resource
import time

import numpy as np
import torch
from scipy.ndimage import zoom

from bids_muscle.imaging.conform import make_image
from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.person import Person
from bids_muscle.phantom.protocol import sequence_for
from bids_muscle.phantom.render import ScanGrid, make_component, render, sample_grid
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.vertebrae import name_spine

#: Slices, and pixels of a slice; mm.
SHAPE, SPACING = (20, 512, 512), (4.0, 0.55, 0.55)


def main() -> None:
    """Make a phantom, segment it, print times."""
    person = Person('', 40.0, 'F', 170.0, 24.0, '', 3)
    anatomy = build_anatomy('lumbar', person, in_plane_mm=1.1, slice_mm=2.0)
    affine = np.diag([4.0, 1.1, 1.1, 1.0])
    affine[:3, 3] = (-38, -135, -140)
    samples = sample_grid(anatomy, make_pattern(anatomy, person), ScanGrid((20, 256, 256), affine))
    fat = {label.index: np.full(256, 0.1) for label in anatomy.table}
    water, lipid = render(samples, make_component(anatomy, fat, sequence_for('t2w', 3.0), 3.0))
    data = zoom(water + lipid, (1, 2, 2), order=1).astype(np.float32)
    image = make_image(data, np.diag([*SPACING, 1.0]))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        began, cpu = time.perf_counter(), time.process_time()
        found = Predictor(find_model(None, 'spine')).segment({'T2w': image})
        middle = time.perf_counter()
        spine = name_spine(
            np.asarray(found.labels.dataobj), np.asarray(found.confidence.dataobj), SPACING
        )
        ended = time.perf_counter()
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f'{threads} threads, {"x".join(map(str, data.shape))}: '
            f'network {middle - began:.1f} s, '
            f'names {ended - middle:.1f} s, CPU {time.process_time() - cpu:.1f} s, '
            f'peak {peak_gb:.2f} GB; {len(spine.names)} structures'
        )


if __name__ == '__main__':
    main()
