"""The command ends with the exit codes of the BIDS execution specification."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bids_muscle.workflows
from bids_muscle import __version__
from bids_muscle.cli.main import main
from bids_muscle.errors import ExitCode, NothingSelectedError, UnreadableImageError

Runs = list[tuple[str, Any]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Stand in for the workflows and note what they are asked to run."""
    noted: Runs = []
    fake = types.ModuleType('bids_muscle.workflows.run')

    def record(name: str, result: ExitCode | None) -> Callable[[Any], ExitCode | None]:
        def call(settings: Any) -> ExitCode | None:
            noted.append((name, settings))
            return result

        return call

    fake.run_participants = record('participant', ExitCode.OK)  # type: ignore[attr-defined]
    fake.run_group = record('group', ExitCode.FAILURE)  # type: ignore[attr-defined]
    fake.print_plan = record('plan', None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(bids_muscle.workflows, 'run', fake, raising=False)
    return noted


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    folder = tmp_path / 'bids'
    folder.mkdir()
    (folder / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was written to standard error, which holds no traceback."""
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'Traceback' not in captured.err
    message, remedy = captured.err.splitlines()
    assert message.startswith('bids_muscle: ')
    assert message.endswith(('.', '?'))
    assert remedy.endswith(('.', '?'))
    return captured.err


@pytest.mark.parametrize(
    ('words', 'ran', 'code'),
    [
        (['participant'], 'participant', 0),
        (['group'], 'group', 1),
        (['participant', '--dry-run'], 'plan', 0),
    ],
)
def test_each_level_runs_its_workflow(
    bids: Path, tmp_path: Path, runs: Runs, words: list[str], ran: str, code: int
) -> None:
    assert main([str(bids), str(tmp_path / 'a' / 'out'), *words]) == code
    ((name, settings),) = runs
    assert name == ran
    assert settings.bids_dir == bids
    assert settings.output_dir.exists() == (ran != 'plan')


def test_wrong_usage_is_64(bids: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bids), '/out', 'participant', '--no-such-option']) == 64
    assert '--no-such-option' in said(capsys)
    assert main([]) == 64
    assert 'bids_dir' in said(capsys)
    assert main([str(bids), '/out', 'group', '--dry-run']) == 64
    said(capsys)
    assert main([str(bids), '/out', 'participant', '--qc-ratings', 'r.tsv']) == 64
    said(capsys)
    assert runs == []


@pytest.mark.parametrize('place', ['file', 'file/out', 'bids/out'])
def test_a_dry_run_checks_the_output_folder(
    bids: Path, tmp_path: Path, runs: Runs, capsys: Any, place: str
) -> None:
    (tmp_path / 'file').touch()
    assert main([str(bids), str(tmp_path / place), 'participant', '--dry-run']) == 73
    assert '<output_dir>' in said(capsys)
    assert runs == []


def test_an_unknown_level_is_17(bids: Path, runs: Runs, capsys: Any) -> None:
    assert main([str(bids), '/out', 'session']) == 17
    assert "'session'" in said(capsys)


def test_a_missing_dataset_is_66(tmp_path: Path, runs: Runs, capsys: Any) -> None:
    assert main([str(tmp_path / 'none'), str(tmp_path / 'out'), 'participant']) == 66
    assert str(tmp_path / 'none') in said(capsys)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'option',
    [
        '--contrast-rules',
        '--bids-filter-file',
        '--config-file',
        '--levels',
        '--atlas',
        '--derivatives',
    ],
)
def test_a_missing_file_is_66(
    bids: Path, tmp_path: Path, runs: Runs, capsys: Any, option: str
) -> None:
    words = [str(bids), str(tmp_path / 'out'), 'participant', option, str(tmp_path / 'none')]
    assert main(words) == 66
    text = said(capsys)
    assert option in text
    assert str(tmp_path / 'none') in text


@pytest.mark.parametrize('content', [None, '{', '[]', '{"DatasetType": "derivative"}'])
def test_a_folder_that_is_not_bids_is_16(
    bids: Path, tmp_path: Path, runs: Runs, capsys: Any, content: str | None
) -> None:
    description = bids / 'dataset_description.json'
    description.unlink()
    if content is not None:
        description.write_text(content)
    words = [str(bids), str(tmp_path / 'out'), 'participant']
    assert main(words) == 16
    assert 'dataset_description.json' in said(capsys)
    assert runs == []
    assert main([*words, '--skip-bids-validation']) == 0


@pytest.mark.parametrize('place', ['.', 'sub-01', 'derivativesx', 'sub-01/derivatives'])
@pytest.mark.parametrize('option', ['output', '--work-dir'])
def test_an_output_inside_the_raw_data_is_73(
    bids: Path, tmp_path: Path, runs: Runs, capsys: Any, place: str, option: str
) -> None:
    link = tmp_path / 'link'
    link.symlink_to(bids)
    for raw in (bids, link):
        inside, words = str(raw / place), [str(tmp_path / 'out'), 'participant']
        words = [inside, 'participant'] if option == 'output' else [*words, option, inside]
        assert main([str(bids), *words]) == 73
        assert 'inside the raw data' in said(capsys)
    assert [path.name for path in bids.iterdir()] == ['dataset_description.json']
    assert runs == []


def test_the_derivatives_folder_of_the_dataset_is_fine(bids: Path, runs: Runs) -> None:
    assert main([str(bids), str(bids / 'derivatives' / 'bids_muscle'), 'participant']) == 0


def test_an_output_that_is_no_folder_is_73(
    bids: Path, tmp_path: Path, runs: Runs, capsys: Any
) -> None:
    file = tmp_path / 'file'
    file.touch()
    (tmp_path / 'pipe').symlink_to('/dev/null')
    loop = tmp_path / 'loop'
    loop.symlink_to(loop)
    for place in (file, file / 'below', tmp_path / 'pipe', loop, loop / 'below'):
        assert main([str(bids), str(place), 'participant']) == 73
        assert str(place) in said(capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_an_output_without_permission_is_73(
    bids: Path, tmp_path: Path, runs: Runs, capsys: Any
) -> None:
    locked = tmp_path / 'locked'
    locked.mkdir(mode=0o500)
    assert main([str(bids), str(locked), 'participant']) == 73
    assert 'Permission denied' in said(capsys)


def test_an_output_on_a_read_only_file_system_is_73(bids: Path, runs: Runs, capsys: Any) -> None:
    assert main([str(bids), '/proc/bids_muscle', 'participant']) == 73
    assert '/proc/bids_muscle' in said(capsys)


@pytest.mark.parametrize(
    ('error', 'code', 'words'),
    [
        (NothingSelectedError('No such participant.', 'Check labels.'), 18, 'Check labels.'),
        (UnreadableImageError('x.nii ends early.', 'Copy it again.'), 65, 'x.nii ends early.'),
        (ZeroDivisionError('by zero'), 1, 'ZeroDivisionError: by zero'),
        (OSError(5, 'Input/output error'), 74, 'Input/output error'),
        (KeyboardInterrupt(), 75, 'Interrupted.'),
    ],
)
def test_an_error_of_the_run_is_said_in_two_sentences(
    bids: Path,
    tmp_path: Path,
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(settings: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules['bids_muscle.workflows.run'], 'run_participants', fail)
    words_given = [str(bids), str(tmp_path / 'out'), 'participant']
    assert main(words_given) == code
    assert words in said(capsys)
    assert main([*words_given, '-vv']) == code
    assert 'Traceback' in capsys.readouterr().err


def test_the_installed_command_says_its_version_and_exit_code() -> None:
    command = [sys.executable, '-m', 'bids_muscle']
    version = subprocess.run([*command, '--version'], capture_output=True, text=True, check=True)
    assert version.stdout == f'bids_muscle {__version__}\n'
    failed = subprocess.run([*command, '/none', '/out', 'participant'], capture_output=True)
    assert failed.returncode == 66


def test_help_imports_nothing_heavy() -> None:
    code = (
        'import sys\nfrom bids_muscle.cli.main import main\n'
        'try:\n    main(["--help"])\n'
        'except SystemExit:\n    pass\n'
        'print("MODULES", *sys.modules)\n'
    )
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    text, _, modules = ran.stdout.partition('MODULES')
    assert 'exit codes' in text
    heavy = {'numpy', 'nibabel', 'pandas', 'torch', 'nipype', 'bids', 'ants', 'matplotlib'}
    assert not heavy & set(modules.split())
