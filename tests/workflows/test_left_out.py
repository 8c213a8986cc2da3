"""Folders that are no participants and people without a row are said wherever people look."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from bids_muscle.cli.main import main
from bids_muscle.cli.slurm import main as slurm
from bids_muscle.errors import ExitCode
from bids_muscle.workflows.planning import folder_remarks

NAMES = ('sub-C_02', 'sub-P 04', 'Sub-05', 'sub-06.bak')


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / 'bids'
    for name in ('sub-01', 'sub-02', *NAMES):
        (root / name / 'anat').mkdir(parents=True)
        (root / f'{name}/anat/{name}_T2w.nii.gz').write_bytes(b'junk' * 200)
    (root / 'dataset_description.json').write_text('{"Name": "", "BIDSVersion": "1.10.0"}')
    (root / 'participants.tsv').write_text('participant_id;age\nSUB-01;"34,5"\nsub-09;40\n')
    return root


def _said(capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    out, err = capsys.readouterr()
    return out, [line.removeprefix('bids_muscle: ') for line in err.splitlines()]


def test_run_dry_run_slurm_and_group_say_the_same(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    words = [str(dataset), str(out), 'participant', '--region', 'lumbar', '--nprocs', '1']

    assert main([*words, '--dry-run']) == ExitCode.OK
    plan, expected = _said(capsys)
    assert '4 folders are skipped' in plan
    assert expected[0].startswith('4 folders are not BIDS participants and are skipped: ')
    assert all(name in expected[0] for name in NAMES)
    assert len(expected) == 5
    assert '1 row of participants.tsv fits no participant of the dataset: sub-09.' in expected
    assert '1 participant has no row in participants.tsv: sub-02.' in expected

    assert slurm([str(dataset), str(out)]) == ExitCode.OK
    plan, said = _said(capsys)
    assert said == expected
    assert plan.startswith('4 folders are skipped; 2 participants to run, 0 finished')

    assert main(words) == ExitCode.BAD_DATA
    assert _said(capsys)[1][:5] == expected
    record = json.loads((out / 'logs/sub-01/sub-01_acq-T2w.json').read_text())
    assert record['participant_info'] == {'age': '34.5'}

    assert main([str(dataset), str(out), 'group']) == ExitCode.OK
    assert _said(capsys)[1] == expected
    page = (out / 'group.html').read_text()
    assert 'their names are not BIDS labels: Sub-05, sub-06.bak, sub-C_02, sub-P 04.' in page
    assert '<dt>folders that are no BIDS participants</dt><dd>4</dd>' in page
    assert 'fits no participant of the dataset: sub-09.' in page
    with (out / 'group_completeness.tsv').open() as stream:
        rows = {row['participant_id']: row for row in csv.DictReader(stream, delimiter='\t')}
    assert list(rows) == ['sub-01', 'sub-02', 'sub-09', 'Sub-05', *sorted(NAMES)[1:]]
    assert rows['sub-P 04']['status'] == 'missing'
    assert 'no BIDS label' in rows['sub-P 04']['reason']


def test_only_folders_that_are_no_participants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'bids'
    (root / 'Sub-05/anat').mkdir(parents=True)
    words = [str(root), str(tmp_path / 'out'), 'participant', '--skip-bids-validation']
    for more in ([], ['--dry-run']):
        assert main([*words, *more]) == ExitCode.NOTHING_SELECTED
        assert '1 folder is not a BIDS participant and is skipped: Sub-05.' in _said(capsys)[1][0]


def test_an_exclusion_that_fits_nobody_is_said(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, exclude = tmp_path / 'out', tmp_path / 'exclude.csv'
    words = [str(dataset), str(out), 'participant', '--region', 'lumbar', '--nprocs', '1']
    assert main(words) == ExitCode.BAD_DATA
    exclude.write_bytes('participant_id;reason\n1;Übelkeit\nsub-77;moved\n'.encode('latin-1'))
    capsys.readouterr()
    assert main([*words[:2], 'group', '--exclude', str(exclude)]) == ExitCode.OK
    said = '\n'.join(_said(capsys)[1])
    assert 'row 1: 1 is read as sub-01.' in said
    assert 'row 2 excludes sub-77, of whom there is no such scan.' in said
    assert 'row 1 excludes' not in said
    exclude.write_text('participant_id,scan,reason\n1,,too fat, too tired\n')
    assert main([*words[:2], 'group', '--exclude', str(exclude)]) == ExitCode.BAD_DATA


def test_an_old_record_never_fills_a_gap_of_today(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    words = [str(dataset), str(out)]
    table = dataset / 'participants.tsv'
    table.write_text('participant_id\tage\tsex\nsub-01\t30\tF\nsub-02\t31\tM\n')
    assert main([*words, 'participant', '--region', 'lumbar', '--nprocs', '1']) == 65

    def people() -> dict[str, tuple[str | None, ...]]:
        assert main([*words, 'group']) == ExitCode.OK
        with (out / 'group_wide.tsv').open() as stream:
            rows = list(csv.DictReader(stream, delimiter='\t'))
        return {row['participant_id']: (row.get('age'), row.get('sex')) for row in rows}

    assert people() == {'sub-01': ('30', 'F'), 'sub-02': ('31', 'M')}
    table.write_text('participant_id\tage\nsub-01\t35\n')
    assert people() == {'sub-01': ('35', None), 'sub-02': ('n/a', None)}
    table.unlink()
    assert people() == {'sub-01': (None, None), 'sub-02': (None, None)}
    dataset.rename(tmp_path / 'elsewhere')
    capsys.readouterr()
    assert people() == {'sub-01': ('30', 'F'), 'sub-02': ('31', 'M')}
    assert 'The data that the participant level recorded' in _said(capsys)[1][0]


def test_people_who_are_no_longer_in_the_dataset_are_named(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(dataset), str(tmp_path / 'out')]
    assert main([*words, 'participant', '--region', 'lumbar', '--nprocs', '1']) == 65
    shutil.rmtree(dataset / 'sub-02')
    capsys.readouterr()
    assert main([*words, 'group']) == ExitCode.OK
    (said,) = (line for line in _said(capsys)[1] if 'no folder' in line)
    assert said.startswith('1 participant has results')
    assert 'sub-02. They count' in said
    assert 'no folder' in (tmp_path / 'out/group.html').read_text()
    shutil.rmtree(dataset)  # what is not here tells nothing
    assert main([*words, 'group']) == ExitCode.OK
    assert 'no folder' not in capsys.readouterr().err


def test_participants_of_an_archive_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / 'C1/anat').mkdir(parents=True)
    (tmp_path / 'sub-01').symlink_to('/archive/2026/sub-01')
    linked, misnamed = folder_remarks(tmp_path)
    assert linked.startswith('1 folder is a link to what is not there, and skipped: sub-01. ')
    assert 'mount that folder' in linked
    assert misnamed.startswith('1 folder is not a BIDS participant and is skipped: C1. Rename')
