"""All measures of one scan of 320 x 320 x 40 voxels and 8 labels: time and peak memory.

``python benchmarks/measures.py`` makes a scan of its own and measures it in fresh processes: water
and fat, then the same as T2w by all thresholds. Nothing else should run meanwhile.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE, VOXEL_MM = (320, 320, 40), (0.8, 0.8, 4.0)
REPEATS = 3


def make_scan(folder: Path) -> None:
    """Write eight upright muscles of about 9 cm2 each, with streaks of fat."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    x, y = np.indices(SHAPE[:2])
    labels = np.zeros(SHAPE, np.uint8)
    for index in range(1, 9):
        centre = 40 + 34 * (index - 1), 160
        labels[np.hypot(x - centre[0], (y - centre[1]) / 2) < 13, 2:-2] = index
    water, fat = rng.normal(300, 20, SHAPE), rng.normal(40, 10, SHAPE)
    streak = rng.random(SHAPE) < 0.1
    water[streak], fat[streak] = fat[streak], water[streak]
    affine = np.diag([*VOXEL_MM, 1.0])
    for name, data in (
        ('labels', labels),
        ('water', np.rint(water).astype(np.int16)),
        ('fat', np.rint(fat).astype(np.int16)),
        ('T2w', (water / 4 + fat).astype(np.float32)),
    ):
        nib.save(nib.Nifti1Image(data, affine), folder / f'{name}.nii')


def measure(folder: Path, contrast: str) -> None:
    """Measure the scan in this process, and say what it took."""
    import nibabel as nib
    import numpy as np
    import pandas  # noqa: F401
    import scipy.ndimage
    import scipy.optimize  # noqa: F401

    from bids_muscle.anatomy.labels import load_label_table
    from bids_muscle.anatomy.levels import SliceLevels
    from bids_muscle.measurement.images import ScanImages
    from bids_muscle.measurement.table import measure_scan

    names = {'dixon': ('water', 'fat'), 'T2w': ('T2w',)}[contrast]
    body = np.zeros(SHAPE, bool)
    body[10:310, 60:260] = True
    levels = SliceLevels(tuple(f'L{5 - at // 8}' for at in range(40)), np.ones(40), 'atlas')
    start, used = time.perf_counter(), time.process_time()
    images = {
        'intensity' if name == 'T2w' else name: nib.load(folder / f'{name}.nii') for name in names
    }
    measures = measure_scan(
        nib.load(folder / 'labels.nii'),
        load_label_table('lumbar'),
        ScanImages(contrast=contrast, **images, body=body),
        levels=levels,
        height_m=1.7,
    )
    wall, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    voxels = measures.muscles['n_voxels'].sum()
    print(
        f'{contrast}: {wall:.2f} s once imported ({used:.2f} s of CPU), peak {peak:.0f} MB, '
        f'{voxels} voxels, torch {"" if "torch" in sys.modules else "not "}imported',
        end='',
    )


def busy() -> float:
    """Return the CPU time of the processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run each contrast in fresh processes."""
    if len(sys.argv) > 1:
        return measure(Path(sys.argv[1]), sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        make_scan(Path(folder))
        for contrast in ('dixon', 'T2w'):
            for _ in range(REPEATS):
                start, before = time.perf_counter(), busy()
                subprocess.run([sys.executable, __file__, folder, contrast], check=True)
                wall, after = time.perf_counter() - start, busy()
                print(
                    f', {wall:.2f} s as a whole process ({after - before:.2f} s of CPU)',
                    flush=True,
                )
    return None


if __name__ == '__main__':
    main()
