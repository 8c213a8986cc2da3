"""All columns of all tables of measures of one small scan, as they were when last looked at.

A change of any number shows here. If it is meant, write the tables anew with
``python tests/measurement/test_golden.py`` and look at the difference in Git.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.dataset.writer import read_tsv, write_tsv
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.table import Measures, measure_scan

GOLDEN = Path(__file__).with_name('golden')
SHAPE = (24, 20, 12)
#: Slices are turned and sheared, voxels differ along the axes, the first axis runs to the left.
AFFINE = np.array(
    [[-1.5, 0.05, 0.1, 30], [0.04, 1.2, 0.9, -20], [0.02, -0.3, 4, 100], [0, 0, 0, 1.0]]
)
LEVELS = SliceLevels(
    ('S1', 'L5', 'L5', 'L5', None, 'L3', 'L3', 'L3', 'L2', 'L1', 'T12', None),
    np.array([0.7, *[0.9] * 3, 0.0, *[0.8] * 3, 0.95, 0.85, 0.6, 0.0]),
    'atlas',
)


def scan(contrast: str) -> Measures:
    """Two psoas muscles, one cut by the edge, multifidus on few slices, one voxel of another."""
    i, j, k = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[np.hypot(i - 6 - 0.2 * k, j - 6) < 4.5] = 5
    labels[np.hypot(i - 18, j - 7 - 0.3 * k) < 3.6] = 6
    labels[..., 0][labels[..., 0] == 6] = labels[..., 11][labels[..., 11] == 6] = 0
    labels[3:8, 14:18, 4:8] = 1
    labels[20, 18, 5] = 8
    rng = np.random.default_rng(7)
    bright = rng.random(SHAPE) < 0.15
    images = {
        'water': np.where(bright, 20, 100) + rng.normal(0, 4, SHAPE),
        'fat': np.where(bright, 90, 8) + rng.normal(0, 4, SHAPE),
    }
    images['water'][6, 6, 3] = np.nan
    options = {'swap': np.hypot(i - 6, j - 6) < 1.5}
    if contrast == 'T2w':
        images = {'intensity': np.rint(np.where(bright, 500, 200) + rng.normal(0, 30, SHAPE))}
        images['intensity'][6, 6, 3] = np.nan
        options = {}
    return measure_scan(
        nib.Nifti1Image(labels, AFFINE),
        load_label_table('lumbar'),
        ScanImages(
            contrast=contrast,
            **{name: nib.Nifti1Image(data, AFFINE) for name, data in images.items()},
            **options,
        ),
        levels=LEVELS,
        height_m=1.7,
    )


@pytest.mark.parametrize('contrast', ['dixon', 'T2w'])
@pytest.mark.parametrize('name', ['muscles', 'slices', 'levels'])
def test_every_column_is_as_it_was(contrast: str, name: str, tmp_path: Path) -> None:
    write_tsv(getattr(scan(contrast), name), tmp_path / 'now.tsv')
    expected = read_tsv(GOLDEN / f'{contrast}_{name}.tsv')
    pd.testing.assert_frame_equal(read_tsv(tmp_path / 'now.tsv'), expected, rtol=1e-9, atol=0)


if __name__ == '__main__':
    for each in ('dixon', 'T2w'):
        for table in ('muscles', 'slices', 'levels'):
            write_tsv(getattr(scan(each), table), GOLDEN / f'{each}_{table}.tsv')
