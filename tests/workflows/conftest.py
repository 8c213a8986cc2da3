"""One small simulated cohort, with every kind of bad scan in it, run once through both levels."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import Run, call

#: Coarser than a real scan, so that it is quick; the muscles are still there.
SHAPE, VOXEL_MM = (200, 160, 12), (1.6, 1.6, 10.0)


@pytest.fixture(scope='session')
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated people with known truth."""
    from bids_muscle.cli.phantom import main

    folder = tmp_path_factory.mktemp('phantom') / 'bids'
    shape, voxel = (list(map(str, numbers)) for numbers in (SHAPE, VOXEL_MM))
    words = [str(folder), '--participants', '2', '--seed', '7', '--nprocs', '1']
    assert main([*words, '--shape', *shape, '--voxel-size', *voxel]) == 0
    return folder


@pytest.fixture(scope='session')
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both levels on the phantom and on people whose scans are broken."""
    bids_dir = tmp_path_factory.mktemp('run') / 'bids'
    shutil.copytree(phantom, bids_dir, ignore=shutil.ignore_patterns('derivatives'))
    _break_scans(bids_dir)
    output_dir = bids_dir.parent / 'out'
    return Run(
        bids_dir,
        output_dir,
        call(bids_dir, output_dir, 'participant', '--nprocs', 2),
        call(bids_dir, output_dir, 'group'),
    )


def _break_scans(bids_dir: Path) -> None:
    """Add one person for each way in which a scan can be bad."""
    for label in ('alone', 'cut', 'zero', 'nan', 'series', 'grids'):
        folder = bids_dir / f'sub-{label}'
        shutil.copytree(bids_dir / 'sub-01', folder)
        for path in folder.glob('anat/*'):
            path.rename(path.with_name(path.name.replace('sub-01', f'sub-{label}')))

    def fat(label: str) -> Path:
        return bids_dir / f'sub-{label}/anat/sub-{label}_acq-dixonfat_T1w.nii.gz'

    fat('alone').unlink()
    fat('cut').write_bytes(fat('cut').read_bytes()[:20_000])
    good = nib.load(fat('zero'))
    data, affine = good.get_fdata(dtype=np.float32), good.affine
    for label, broken in (
        ('zero', np.zeros_like(data)),
        ('nan', np.full_like(data, np.nan)),
        ('series', np.stack([data, data], axis=-1)),
        ('grids', data[:, :, 1:]),
    ):
        nib.save(nib.Nifti1Image(broken, affine), fat(label))
