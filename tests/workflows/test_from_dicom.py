"""From DICOM series of three vendors, as docs/from-dicom.md says, to true measures."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import call

from bids_muscle.statistics.overlap import overlap

MUSCLES = {'shape': (200, 160, 12), 'voxel_mm': (1.6, 1.6, 10.0)}
#: Participant, who is named after the vendor -> what is scanned.
SCANS = {
    'siemens': MUSCLES,
    'philips': {**MUSCLES, 'oblique_deg': 10.0},
    'ge': {'shape': (9, 230, 180), 'plane': 'sagittal', 'contrasts': ('t2w',)},
}


@dataclass(frozen=True)
class Chain:
    """Outputs of the participant level, and the phantoms from which they came."""

    phantoms: dict[str, Path]
    output_dir: Path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


@pytest.fixture(scope='module')
def chain(tmp_path_factory: pytest.TempPathFactory, dicom_to_bids: Callable[..., None]) -> Chain:
    from bids_muscle.phantom.dataset import write_dataset

    folder = tmp_path_factory.mktemp('dicom')
    bids_dir, out = folder / 'bids', folder / 'out'
    bids_dir.mkdir()
    phantoms = {}
    for vendor, scan in SCANS.items():
        phantoms[vendor] = write_dataset(
            folder / vendor, participants=1, seed=7, dicom=vendor, **scan
        )
        dicom_to_bids(phantoms[vendor], vendor, bids_dir, label=vendor)
    for name in ('dataset_description.json', '.bidsignore'):
        shutil.copy(phantoms['siemens'] / name, bids_dir)
    result = call(bids_dir, out, 'participant', '--nprocs', 2)
    assert result.returncode == 0, result.stderr
    return Chain(phantoms, out)


@pytest.mark.parametrize('vendor', ['siemens', 'philips'])
def test_muscles_are_those_of_the_truth(chain: Chain, vendor: str) -> None:
    name = 'acq-dixon_seg-lumbarmuscles'
    outputs = chain.output_dir / f'sub-{vendor}/anat/sub-{vendor}_{name}'
    truth = chain.phantoms[vendor] / f'derivatives/truth/sub-01/anat/sub-01_{name}'
    made, true = (
        nib.as_closest_canonical(nib.load(f'{stem}_dseg.nii.gz')) for stem in (outputs, truth)
    )
    np.testing.assert_allclose(made.affine, true.affine, atol=1e-3)
    counts = overlap(np.asarray(made.dataobj), np.asarray(true.dataobj), range(1, 9))
    dice = {index: count.dice for index, count in counts.items()}
    # Left and right exchanged would give 0.
    assert min(dice.values()) > 0.5, dice
    assert np.mean(list(dice.values())) > 0.8, dice
    measures, truths = (
        {row['index']: row for row in rows(Path(f'{stem}_morph.tsv'))} for stem in (outputs, truth)
    )
    for index in '1234':  # multifidus and erector spinae, whose outlines are the surest
        found, wanted = measures[index], truths[index]
        assert found['name'] == wanted['name']
        mfi = float(found['mfi_ratio_of_means_pct'])
        assert mfi == pytest.approx(float(wanted['mfi_pct']), abs=5), found['name']
        volume = float(found['volume_ml'])
        assert volume == pytest.approx(float(wanted['label_volume_ml']), rel=0.35), found['name']


def test_discs_are_those_of_the_truth(chain: Chain) -> None:
    truth = rows(
        chain.phantoms['ge'] / 'derivatives/truth/sub-01/anat/'
        'sub-01_acq-T2w_seg-lumbarspine_morph.tsv'
    )
    anat = chain.output_dir / 'sub-ge/anat'
    found = {row['name']: row for row in rows(anat / 'sub-ge_acq-sagT2w_desc-spine_morph.tsv')}
    for disc in truth[1:5]:
        height = float(found[disc['name']]['mean_height_mm'])
        assert height == pytest.approx(float(disc['height_mm']), abs=2.5)
        assert float(found[disc['name']]['z_ras_mm']) == pytest.approx(float(disc['z_mm']), abs=3)
