"""From DICOM series to true measures, as docs/from-dicom.md says.

Siemens: test_tutorial.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cohort import call, muscles_are_true, rows

#: Participant, who is named after the vendor -> what is scanned.
SCANS = {
    'philips': {'shape': (180, 144, 8), 'voxel_mm': (1.8, 1.8, 16.0), 'oblique_deg': 10.0},
    'ge': {'shape': (9, 230, 180), 'plane': 'sagittal', 'contrasts': ('t2w',)},
}

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Chain:
    """Outputs of the participant level, and the phantoms from which they came."""

    phantoms: dict[str, Path]
    output_dir: Path


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
        shutil.copy(phantoms['philips'] / name, bids_dir)
    result = call(bids_dir, out, 'participant', '--nprocs', 2)
    assert result.returncode == 0, result.stderr
    return Chain(phantoms, out)


def test_muscles_are_those_of_the_truth(chain: Chain) -> None:
    vendor = 'philips'
    name = 'acq-dixon_seg-lumbarmuscles'
    stems = (
        chain.output_dir / f'sub-{vendor}/anat/sub-{vendor}_{name}',
        chain.phantoms[vendor] / f'derivatives/truth/sub-01/anat/sub-01_{name}',
    )
    muscles_are_true(*map(str, stems))


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
