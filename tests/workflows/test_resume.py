"""A second run does what is left, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import Run, call

from bids_muscle.cli.main import main
from bids_muscle.dataset.records import read_records
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import ExitCode
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.settings import Settings
from bids_muscle.workflows import resume

RECORD = 'logs/sub-01/sub-01_acq-dixon.json'
MAP = 'sub-01/anat/sub-01_acq-dixon_seg-lumbarmuscles_dseg.nii.gz'


@pytest.fixture(scope='module')
def once(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One person's raw data and finished outputs, at another place than where they were made."""
    folder = tmp_path_factory.mktemp('resume')
    bids_dir, output_dir = folder / 'bids', folder / 'out'
    shutil.copytree(run.bids_dir / 'sub-01', bids_dir / 'sub-01')
    for name in ('dataset_description.json', 'participants.tsv'):
        shutil.copy(run.bids_dir / name, bids_dir)
    for name in ('sub-01', 'logs/sub-01'):
        shutil.copytree(run.output_dir / name, output_dir / name)
    shutil.copy(run.output_dir / 'sub-01.html', output_dir)
    return bids_dir, output_dir


@pytest.fixture
def again(once: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    for folder in once:
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path / 'bids', tmp_path / 'out'


def stamp(output_dir: Path) -> tuple[int, bytes, int]:
    """Tell whether a file was written anew, and its content."""
    return (
        (output_dir / MAP).stat().st_mtime_ns,
        (output_dir / MAP).read_bytes(),
        (output_dir / RECORD).stat().st_mtime_ns,
    )


def test_a_finished_scan_is_skipped_wherever_it_lies(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    before = stamp(output_dir)
    for path in bids_dir.rglob('*.nii.gz'):
        os.utime(path, (1, 1))  # a clock that jumped, a copy
    moved = bids_dir.rename(bids_dir.with_name('elsewhere'))
    words = ('--nprocs', 1, '--mem', '3G', '-v')  # how it runs is not what it computes
    result = call(moved, output_dir, 'participant', *words)
    assert result.returncode == ExitCode.OK, result.stderr
    assert 'segment' not in result.stderr
    assert result.stdout == f'{output_dir / "sub-01.html"}\n'
    assert stamp(output_dir) == before


def _touch_image(bids_dir: Path, output_dir: Path) -> None:
    path = bids_dir / 'sub-01/anat/sub-01_acq-dixonfat_T1w.nii.gz'
    image = nib.load(path)
    data = np.asarray(image.dataobj).copy()
    data[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(data, image.affine, image.header), path)


def _lose_output(bids_dir: Path, output_dir: Path) -> None:
    (output_dir / MAP).unlink()


def _fail(bids_dir: Path, output_dir: Path) -> None:
    path = output_dir / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {'status': 'failed'}))


def _half_record(bids_dir: Path, output_dir: Path) -> None:
    path = output_dir / RECORD
    path.write_bytes(path.read_bytes()[:100])


def finished(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return how many scans a dry run calls finished."""
    assert main([*map(str, words), '--dry-run']) == ExitCode.OK
    return capsys.readouterr().out.split(' of them finished before')[0].split()[-1]


@pytest.mark.parametrize('change', [_touch_image, _lose_output, _fail, _half_record])
def test_what_is_not_as_it_was_is_done_again(
    again: tuple[Path, Path],
    change: Callable[[Path, Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert finished(capsys, *again, 'participant') == '1'
    change(*again)
    assert finished(capsys, *again, 'participant') == '0'


@pytest.mark.parametrize('option', ['--no-bias-correction', '--overwrite'])
def test_another_setting_or_the_user_asks_for_the_scan_again(
    again: tuple[Path, Path], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished(capsys, *again, 'participant', option) == '0'


def test_muscles_wait_for_the_sagittal_scan_that_tells_their_levels(
    again: tuple[Path, Path],
) -> None:
    bids_dir, output_dir = again
    (record,) = read_records(output_dir, '01')
    axial = Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    sagittal = Scan((('sub', '01'), ('acq', 'sag')), 'T2w', 'spine', ())
    elsewhere = Scan((('sub', '01'), ('ses', '2'), ('acq', 'sag')), 'T2w', 'spine', ())
    prints = {axial.name: record.fingerprint, sagittal.name: 'a', elsewhere.name: 'b'}
    settings = Settings(bids_dir=bids_dir, output_dir=output_dir, level='participant')

    def finished(*scans: Scan) -> list[str]:
        return list(resume.finished_scans(settings, [record], scans, prints))

    assert finished(axial, elsewhere) == [axial.name]
    assert finished(axial, sagittal) == []
    del prints[sagittal.name]  # it has a problem of its own, and will never tell anything
    assert finished(axial, sagittal) == [axial.name]


def test_vertebrae_and_discs_that_a_person_drew_are_part_of_the_fingerprint(
    again: tuple[Path, Path],
) -> None:
    bids_dir, output_dir = again
    settings = Settings(bids_dir=bids_dir, output_dir=output_dir, level='participant')
    scan = Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    model = find_model(None, 'lumbar')
    anat = output_dir / 'sub-01/anat'

    def fingerprint() -> str:
        drawn = resume.drawn_maps(settings, scan.participant)
        return resume.fingerprint(settings, scan, model, drawn)

    seen = {fingerprint()}
    shutil.copy(output_dir / MAP, anat / 'sub-01_seg-vertebrae_dseg.nii.gz')
    assert fingerprint() in seen  # the program's own
    manual = anat / 'sub-01_seg-vertebrae_desc-manual_dseg.nii.gz'
    shutil.copy(output_dir / MAP, manual)
    seen.add(fingerprint())
    (anat / 'sub-01_seg-vertebrae_desc-manual_dseg.tsv').write_text('index\tname\n1\tL1\n')
    seen.add(fingerprint())
    shutil.copy(output_dir / MAP, anat / 'sub-01_seg-discs_desc-manual_dseg.nii.gz')
    seen.add(fingerprint())
    assert len(seen) == 4


def test_a_dry_run_reads_images_in_full_only_where_a_record_speaks_of_them(
    again: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read: list[Path] = []
    sha256 = resume.file_sha256
    monkeypatch.setattr(resume, 'file_sha256', lambda path: (read.append(path), sha256(path))[1])
    assert finished(capsys, *again, 'participant') == '1'
    assert {path for path in read if path.is_relative_to(again[0])}
    read.clear()
    (again[1] / RECORD).unlink()
    assert finished(capsys, *again, 'participant') == '0'
    assert read == []


def test_redone_scans_are_the_same_bytes(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    _, content, _ = stamp(output_dir)
    _lose_output(bids_dir, output_dir)
    (output_dir / 'sub-01.html').unlink()
    assert call(bids_dir, output_dir, 'participant').returncode == ExitCode.OK
    assert (output_dir / MAP).read_bytes() == content
    assert (output_dir / 'sub-01.html').is_file()


def test_files_of_a_fuller_level_are_made_and_then_kept(
    again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, output_dir = again
    anat = output_dir / 'sub-01/anat'
    in_atlas = anat / 'sub-01_acq-dixon_space-phantomlumbar_seg-lumbarmuscles_dseg.nii.gz'
    archive = output_dir / 'sub-01/figures/sub-01_acq-dixon_figures.zip'
    _, content, _ = stamp(output_dir)
    assert (in_atlas.exists(), archive.exists()) == (False, True)
    assert call(*again, 'participant', '--output-level', 'full').returncode == ExitCode.OK
    assert (in_atlas.exists(), archive.exists()) == (True, False)
    before = stamp(output_dir)
    assert before[1] == content
    assert finished(capsys, *again, 'participant', '--output-level', 'minimal') == '1'
    result = call(*again, 'participant')
    assert (result.returncode, stamp(output_dir)) == (ExitCode.OK, before)
    assert 'keep the files of a fuller --output-level: 1.' in result.stderr
    assert call(*again, 'participant', '--overwrite').returncode == ExitCode.OK
    assert (in_atlas.exists(), archive.exists()) == (False, True)
    assert stamp(output_dir)[1] == content


def test_a_page_that_a_killed_run_left_out_is_made(again: tuple[Path, Path]) -> None:
    bids_dir, output_dir = again
    before = stamp(output_dir)
    (output_dir / 'sub-01.html').unlink()
    assert call(bids_dir, output_dir, 'participant').returncode == ExitCode.OK
    assert (output_dir / 'sub-01.html').is_file()
    assert stamp(output_dir) == before


def test_a_changed_row_of_the_participant_reaches_the_group_level(
    again: tuple[Path, Path],
) -> None:
    bids_dir, output_dir = again
    (bids_dir / 'participants.tsv').write_text('participant_id\tage\nsub-01\t71\n')
    assert call(bids_dir, output_dir, 'participant').returncode == ExitCode.OK
    record = json.loads((output_dir / RECORD).read_text())
    assert record['participant_info'] == {'age': '71'}
    assert record['status'] == 'done'
