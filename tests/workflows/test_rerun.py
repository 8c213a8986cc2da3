"""A second run into the same output folder leaves nothing that is no longer true."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cohort import Run, call

from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.errors import ExitCode
from bids_muscle.interfaces.prepare import PrepareScan
from bids_muscle.settings import Settings
from bids_muscle.workflows.records import remove_stale


@pytest.fixture
def again(run: Run, tmp_path: Path) -> tuple[Path, Path]:
    """Copy one person's raw data and outputs, to be changed."""
    bids_dir, output_dir = tmp_path / 'bids', tmp_path / 'out'
    shutil.copytree(run.bids_dir / 'sub-01', bids_dir / 'sub-01')
    for name in ('dataset_description.json', 'participants.tsv'):
        shutil.copy(run.bids_dir / name, bids_dir)
    shutil.copytree(run.output_dir / 'sub-01', output_dir / 'sub-01')
    shutil.copytree(run.output_dir / 'logs/sub-01', output_dir / 'logs/sub-01')
    return bids_dir, output_dir


def records(output_dir: Path) -> dict[str, str]:
    return {record.scan: record.status for record in read_records(output_dir)}


def files(output_dir: Path) -> list[Path]:
    return [path for path in output_dir.glob('sub-01/**/*') if path.is_file()]


def test_the_outputs_of_a_scan_that_now_fails_are_removed(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    kept = output_dir / 'sub-01/anat/sub-01_notes.txt'
    kept.write_text('of the user')
    image = bids_dir / 'sub-01/anat/sub-01_acq-dixonfat_T1w.nii.gz'
    image.write_bytes(image.read_bytes()[:10_000])
    assert call(bids_dir, output_dir, 'participant').returncode == ExitCode.BAD_DATA
    assert records(output_dir) == {'sub-01_acq-dixon': 'failed'}
    assert files(output_dir) == [kept]


def test_a_record_that_cannot_be_removed_stops_its_participant_alone(
    again: tuple[Path, Path], tmp_path: Path
) -> None:
    bids_dir, output_dir = again
    record = output_dir / 'logs/sub-01/sub-01_acq-dixon.json'
    record.unlink()
    record.mkdir()
    # Unlike a folder without permission, this stops also root.
    (record.with_suffix('.earlier') / 'full').mkdir(parents=True)
    (bids_dir / 'sub-02').mkdir()
    before = files(output_dir)
    result = call(bids_dir, output_dir, 'participant')
    assert 'sub-01_acq-dixon.json of an earlier run cannot be removed' in result.stderr
    assert files(output_dir) == before
    assert records(output_dir)['sub-02'] == 'failed'  # it was looked at, and has no scans


def test_a_scan_that_is_gone_is_forgotten(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    for path in bids_dir.glob('sub-01/anat/*'):
        path.unlink()
    assert call(bids_dir, output_dir, 'participant').returncode == ExitCode.NOTHING_SELECTED
    assert records(output_dir) == {'sub-01': 'failed'}
    assert files(output_dir) == []


def test_a_narrowed_run_leaves_the_other_scans_alone(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    before = files(output_dir)
    result = call(bids_dir, output_dir, 'participant', '--session-label', 'other')
    assert result.returncode == ExitCode.NOTHING_SELECTED
    assert records(output_dir) == {'sub-01_acq-dixon': 'done'}
    assert files(output_dir) == before


def test_a_participant_who_is_not_there_sets_the_exit_code(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    result = call(bids_dir, output_dir, 'participant', '--participant-label', '01', 'nobody')
    assert records(output_dir) == {'sub-01_acq-dixon': 'done'}
    assert result.returncode == ExitCode.NOTHING_SELECTED
    assert 'sub-nobody' in result.stderr


def test_a_terminated_run_removes_its_temporary_files(
    again: tuple[Path, Path], tmp_path: Path
) -> None:
    bids_dir, output_dir = again
    temporary = tmp_path / 'tmp'
    temporary.mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'bids_muscle',
            str(bids_dir),
            str(output_dir),
            'participant',
            '--overwrite',
        ],
        env={**os.environ, 'TMPDIR': str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(temporary.glob('bids_muscle-*/bids_muscle_wf/*')):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.TEMPORARY, errors
    assert not list(temporary.glob('bids_muscle-*'))
    # The record went before the run: what is half done is not called done.
    assert records(output_dir) == {}


def test_a_kept_work_folder_does_not_answer_for_another_version(tmp_path: Path) -> None:
    image = tmp_path / 'image.nii'
    image.touch()
    hashes = {
        PrepareScan(images={'T2w': str(image)}, version=version).inputs.get_hashval()[1]
        for version in ('1.0', '1.0', '1.1')
    }
    assert len(hashes) == 2


@pytest.mark.parametrize('name', ['sub-01/anat/x.txt', '../elsewhere/x.txt', 'sub-02/x.txt'])
def test_nothing_is_removed_outside_the_folder_of_the_participant(
    tmp_path: Path, name: str
) -> None:
    output_dir, elsewhere = tmp_path / 'out', tmp_path / 'elsewhere'
    for folder in (elsewhere, elsewhere / 'anat', output_dir / 'sub-02'):
        folder.mkdir(parents=True)
        (folder / 'x.txt').touch()
    (output_dir / 'sub-01').symlink_to(elsewhere)
    record = ScanRecord(
        participant='01', session=None, scan='x', region=None, status='done', outputs=(name,)
    )
    settings = Settings(bids_dir=tmp_path, output_dir=output_dir, level='participant')
    remove_stale(settings, '01', [record], [])
    assert (output_dir / name).exists()
