"""Standard streams that fail, and a user without a name, fail no command."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bids_muscle.cli.main import main
from bids_muscle.cli.process import own_process
from bids_muscle.errors import ExitCode

COMMAND = f'{sys.executable} -m bids_muscle'


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / 'bids'
    for number in range(40):
        folder = root / f'sub-{number:02d}/anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{number:02d}_T2w.nii.gz').write_bytes(b'junk' * 100)
    (root / 'dataset_description.json').write_text('{"Name": "", "BIDSVersion": "1.10.0"}')
    return root


def _shell(line: str) -> tuple[int, str]:
    ended = subprocess.run(['bash', '-c', line], capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in ended.stderr
    assert 'Exception ignored' not in ended.stderr
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ('rest', 'code'),
    [
        ('| head -1; exit ${PIPESTATUS[0]}', 0),
        ('| true; exit ${PIPESTATUS[0]}', 0),
        ('> /dev/full', 74),
        ('>&-', 0),
        ('2>&-', 0),
        ('2> /dev/full', 0),
        ('<&- >&- 2>&-', 0),
    ],
)
def test_a_plan_that_nobody_reads(dataset: Path, tmp_path: Path, rest: str, code: int) -> None:
    words = f'{COMMAND} {dataset} {tmp_path}/out participant --dry-run --region lumbar'
    assert _shell(f'{words} {rest}')[0] == code


@pytest.mark.parametrize('rest', ['2>&1 | true; exit ${PIPESTATUS[0]}', '<&- >&- 2>&-'])
def test_a_run_does_its_work_whoever_listens(dataset: Path, tmp_path: Path, rest: str) -> None:
    words = f'{COMMAND} {dataset} {tmp_path}/out participant --region lumbar --nprocs 1'
    assert _shell(f'{words} --participant-label 01 02 {rest}')[0] == ExitCode.BAD_DATA
    assert (tmp_path / 'out/sub-02.html').is_file()
    assert len(list((tmp_path / 'out/logs').glob('sub-*/sub-*_acq-T2w.json'))) == 2


def test_an_output_folder_that_is_removed_during_the_run(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / 'out'

    def remove(*_: object) -> list[object]:
        shutil.rmtree(out)
        return []

    monkeypatch.setattr('bids_muscle.workflows.run.join_scans', remove)
    words = [str(dataset), str(out), 'participant', '--region', 'lumbar']
    assert main([*words, '--participant-label', '01']) == ExitCode.IO_ERROR
    assert 'was removed during the run' in capsys.readouterr().err


def test_a_run_sweeps_torn_files_of_the_top_folder(dataset: Path, tmp_path: Path) -> None:
    torn = tmp_path / 'out/.sub-01.html.1-abc.tmp'
    torn.parent.mkdir()
    torn.write_text('of a writer that was killed')
    words = [str(dataset), str(tmp_path / 'out'), 'participant', '--region', 'lumbar']
    assert main([*words, '--participant-label', '01']) == ExitCode.BAD_DATA
    assert not torn.exists()


@pytest.mark.parametrize(
    ('rest', 'code'), [('| head -1; exit ${PIPESTATUS[0]}', 0), ('> /dev/full', 74)]
)
def test_a_descriptor_that_is_lost_is_an_error(rest: str, code: int) -> None:
    command = f'{sys.executable} -m bids_muscle.cli.slurm boutiques'
    assert _shell(f'{command} {rest}')[0] == code


def test_help_for_the_first_lines() -> None:
    assert _shell(f'{COMMAND} --help | head -1; exit ${{PIPESTATUS[0]}}')[0] == 0
    assert _shell(f'{COMMAND}.cli.slurm boutiques | head -1; exit ${{PIPESTATUS[0]}}')[0] == 0


def test_a_user_number_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(f'getpwuid(): uid not found: {number}')

    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    for name in ('LOGNAME', 'USER', 'LNAME', 'USERNAME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('LOGNAME', '')  # to be restored
    monkeypatch.delenv('LOGNAME')
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    with own_process():
        assert getpass.getuser() == f'user{os.getuid()}'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'latin-1', 'utf-16'])
def test_a_description_in_any_encoding(dataset: Path, tmp_path: Path, encoding: str) -> None:
    text = '{"Name": "Müller", "BIDSVersion": "1.10.0", "DatasetType": "raw"}'
    (dataset / 'dataset_description.json').write_bytes(text.encode(encoding))
    words = [str(dataset), str(tmp_path / 'out'), 'participant', '--dry-run']
    assert main([*words, '--participant-label', '01']) == ExitCode.OK


@pytest.mark.parametrize(
    ('content', 'code'),
    [
        ({'Name': 'x', 'GeneratedBy': [{'Name': 'fMRIPrep'}]}, ExitCode.CANNOT_CREATE),
        ({'Name': 'A raw dataset', 'BIDSVersion': '1.0'}, ExitCode.CANNOT_CREATE),
        ({'Name': 'x', 'GeneratedBy': 'me'}, ExitCode.CANNOT_CREATE),
        ({'GeneratedBy': [{'Name': 'x'}, {'Name': 'bids_muscle', 'Version': '0'}]}, ExitCode.OK),
        ('no object', ExitCode.OK),
    ],
)
def test_the_dataset_of_another_program_is_left_alone(
    dataset: Path, tmp_path: Path, content: object, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    path = out / 'dataset_description.json'
    path.write_text(json.dumps(content))
    words = [str(dataset), str(out), 'participant', '--dry-run', '--participant-label', '01']
    assert main(words) == code
    if code:
        assert main(words[:3]) == code
        assert 'Give a folder of its own' in capsys.readouterr().err
        assert json.loads(path.read_text()) == content
        assert list(out.iterdir()) == [path]
