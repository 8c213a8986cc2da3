"""A sagittal scan through the participant level: maps, table, picture, page."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import call


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def test_vertebrae_of_a_phantom_are_named_and_measured(tmp_path: Path) -> None:
    from bids_muscle.cli.phantom import main

    bids_dir, out = tmp_path / 'bids', tmp_path / 'out'
    words = ['--participants', '1', '--seed', '5', '--nprocs', '1', '--contrasts', 't2w']
    shape = ['--plane', 'sagittal', '--shape', '9', '230', '180']
    assert main([str(bids_dir), *words, *shape]) == 0
    truth = rows(next(bids_dir.glob('derivatives/truth/sub-01/anat/*spine_morph.tsv')))
    result = call(bids_dir, out, 'participant', '--nprocs', 1)
    assert result.returncode == 0, result.stderr

    anat = out / 'sub-01/anat'
    found = {row['name']: row for row in rows(anat / 'sub-01_acq-T2w_desc-spine_morph.tsv')}
    assert {'L1', 'L2', 'L3', 'L4', 'L5', 'S1'} <= set(found)
    for disc in truth[1:5]:
        mine = found[disc['name']]
        # The phantom gives the height in the middle of the disc.
        assert float(mine['mean_height_mm']) == pytest.approx(float(disc['height_mm']), abs=2.5)
        assert float(mine['z_ras_mm']) == pytest.approx(float(disc['z_mm']), abs=3)
        assert 0.5 < float(mine['confidence']) <= 1
    native = nib.load(bids_dir / 'sub-01/anat/sub-01_T2w.nii.gz')
    labels = nib.load(anat / 'sub-01_acq-T2w_seg-vertebrae_dseg.nii.gz')
    assert labels.shape == native.shape
    assert np.allclose(labels.affine, native.affine)
    names = {int(r['index']): r['name'] for r in rows(anat / f'{labels_stem(labels)}.tsv')}
    assert {n for n in np.unique(np.asarray(labels.dataobj)) if n} == set(names)
    record = json.loads((out / 'logs/sub-01/sub-01_acq-T2w.json').read_text(encoding='utf-8'))
    assert (record['status'], record['region']) == ('done', 'spine')
    assert all((out / name).is_file() for name in record['outputs'])
    page = (out / 'sub-01.html').read_text(encoding='utf-8')
    assert 'heights of the discs' in page and 'L4-L5' in page
    # Nothing is looked for in it that is not of the spine, and nothing is done twice.
    assert not list(anat.glob('*muscles*'))
    before = (anat / 'sub-01_acq-T2w_desc-spine_morph.tsv').stat().st_mtime_ns
    assert call(bids_dir, out, 'participant', '--nprocs', 1).returncode == 0
    assert (anat / 'sub-01_acq-T2w_desc-spine_morph.tsv').stat().st_mtime_ns == before


def labels_stem(labels: nib.Nifti1Image) -> str:
    return Path(str(labels.get_filename())).name.split('.')[0]
