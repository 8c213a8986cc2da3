"""Real scans from raw BIDS to derivatives, page and cohort table."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.errors import ExitCode
from bids_muscle.statistics.overlap import overlap

MANIFEST = Path(__file__).parent / 'manifest_dixon_lumbar.txt'
#: Number in the expert's map of dixon-lumbar to ours.
EXPERT = {1: 3, 2: 1, 3: 2, 4: 4}


def run(bids_dir: Path, output_dir: Path, level: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, '-m', 'bids_muscle', str(bids_dir), str(output_dir), level]
    return subprocess.run(words, capture_output=True, text=True, timeout=900)


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


@pytest.fixture(scope='module')
def dixon(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp('dixon')
    for level in ('participant', 'group'):
        result = run(real_data / 'dixon-lumbar', output_dir, level)
        assert result.returncode == ExitCode.OK, result.stderr
    return output_dir


@pytest.fixture(scope='module')
def inout(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp('inout')
    result = run(real_data / 'inout-abdomen', output_dir, 'participant')
    # One participant has an opposed-phase image without its partner; all else is done.
    assert result.returncode == ExitCode.BAD_DATA, result.stderr
    assert 'sub-10_acq-dixonout_T1w.nii.gz' in result.stderr
    return output_dir


def test_outputs_are_those_of_the_manifest(dixon: Path) -> None:
    names = (str(path.relative_to(dixon)) for path in dixon.rglob('*') if path.is_file())
    found = sorted(re.sub(r'run-\d{8}T\d{6}', 'run-TIME', name) for name in names)
    assert found == MANIFEST.read_text().splitlines()


def test_muscles_are_where_the_expert_sees_them(dixon: Path, real_data: Path) -> None:
    name = 'sub-TUM01/anat/sub-TUM01_acq-dixon{}_seg-{}_dseg.nii.gz'
    found = nib.load(dixon / name.format('', 'lumbarmuscles'))
    manual = real_data / 'dixon-lumbar/derivatives/manual' / name.format('water', 'paraspinal')
    expert = np.asarray(nib.load(manual).dataobj)
    expert = np.select([expert == code for code in EXPERT], list(EXPERT.values()), 0)
    counts = overlap(np.asarray(found.dataobj), expert, list(EXPERT.values()))
    # This person is in the training data of the shipped model: a check of the pipeline, not of
    # the model, whose accuracy on people it has not seen stands in docs/models.md.
    assert np.mean([count.dice for count in counts.values()]) > 0.75


def test_the_lost_position_is_taken_from_the_partner_and_reported(dixon: Path) -> None:
    record = json.loads((dixon / 'logs/sub-TUM01/sub-TUM01_acq-dixon.json').read_text())
    assert any('lost its position' in warning for warning in record['warnings'])
    image = nib.load(dixon / 'sub-TUM01/anat/sub-TUM01_acq-dixon_desc-body_mask.nii.gz')
    assert image.affine[:3, 3] == pytest.approx([204.5, 147.9, 192.8], abs=0.1)


def test_group_table_holds_the_scan(dixon: Path) -> None:
    rows = read_tsv(dixon / 'group_muscles.tsv')
    assert [row['participant_id'] for row in rows] == ['sub-TUM01'] * 8
    paraspinal = [row for row in rows if row['muscle'] in ('multifidus', 'erector spinae')]
    # A healthy volunteer of MyoSegmenTUM: little fat in every muscle of the back.
    assert all(2 < float(row['mfi_ratio_of_means_pct']) < 30 for row in paraspinal)


def test_in_and_opposed_phase_give_a_bounded_mfi_that_says_so(inout: Path) -> None:
    name = 'sub-11/anat/sub-11_acq-dixon_seg-lumbarmuscles_morph.tsv'
    measured = [row for row in read_tsv(inout / name) if row['volume_ml'] != 'n/a']
    assert measured
    for row in measured:
        assert 0 <= float(row['mfi_ratio_of_means_pct']) <= 50
        assert '50 %' in row['reason']


def test_a_fat_suppressed_scan_has_volumes_and_no_mfi(inout: Path) -> None:
    name = 'sub-10/anat/sub-10_acq-spirT2w_seg-lumbarmuscles_morph.tsv'
    rows = read_tsv(inout / name)
    assert {row['mfi_ratio_of_means_pct'] for row in rows} == {'n/a'}
    assert all(row['reason'] != 'n/a' for row in rows)
