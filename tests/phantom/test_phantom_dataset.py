"""The dataset on disk: valid BIDS, the same bytes every time, whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from bids_muscle.cli.phantom import main
from bids_muscle.errors import ExitCode, OutputError, UsageError, WorkerDiedError
from bids_muscle.phantom import dataset as dataset_module
from bids_muscle.phantom.dataset import write_dataset

from phantom_files import TINY, read_tsv  # isort: skip


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person, both regions, two sessions and runs, every contrast."""
    return write_dataset(
        tmp_path_factory.mktemp('rich') / 'bids',
        participants=1,
        regions=('cervical', 'lumbar'),
        contrasts=('dixon', 'inout', 'megre', 't1w', 't2w'),
        sessions=2,
        runs=2,
        seed=3,
        shape=(24, 24, 6),
        artefacts=(('ghosting', 0.5), ('metal', 0.5), ('wrap', 0.5), ('chemical-shift', 1.0)),
    )


@pytest.mark.parametrize('folder', ['.', 'derivatives/truth'])
def test_validator_finds_no_error(rich: Path, folder: str) -> None:
    command = shutil.which('bids-validator-deno', path=Path(sys.executable).parent)
    if command is None:
        pytest.skip('bids-validator-deno is not installed')
    done = subprocess.run(
        [command, '--json', str(rich / folder)], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)['issues']['issues']
    errors = [(i['code'], i.get('location')) for i in issues if i['severity'] == 'error']
    assert not errors
    assert done.returncode == 0


def test_files_and_sidecars(rich: Path) -> None:
    anat = rich / 'sub-01/ses-2/anat'
    stem = 'sub-01_ses-2_acq-dixonwater_run-1_chunk-2_T1w'
    content = json.loads((anat / f'{stem}.json').read_text())
    assert content['BodyPart'] == 'LSPINE'
    assert content['MagneticFieldStrength'] == 3.0
    assert content['EchoTime'] == pytest.approx(0.00246)
    echoes = sorted(anat.glob('*_run-1_echo-*_chunk-1_MEGRE.json'))
    times = [json.loads(path.read_text())['EchoTime'] for path in echoes]
    assert len(times) == 6
    assert times == sorted(times)
    assert json.loads(echoes[0].read_text())['BodyPart'] == 'CSPINE'
    assert {path.name for path in anat.glob('*_run-1_chunk-1_T[12]w.nii.gz')} >= {
        'sub-01_ses-2_run-1_chunk-1_T1w.nii.gz',
        'sub-01_ses-2_run-1_chunk-1_T2w.nii.gz',
    }
    image = nib.load(anat / f'{stem}.nii.gz')
    assert image.shape == (24, 24, 6)
    assert image.get_data_dtype() == 'uint16'
    people = read_tsv(rich / 'participants.tsv')
    assert list(people[0]) == ['participant_id', 'age', 'sex', 'height', 'weight', 'bmi', 'site']
    assert float(people[0]['bmi']) == pytest.approx(
        float(people[0]['weight']) / (float(people[0]['height']) / 100) ** 2, abs=0.1
    )
    rows = read_tsv(rich / 'derivatives/truth/group_muscles.tsv')
    scans = 2 * 2 * 4  # sessions, runs, acquisitions
    assert len(rows) == scans * (14 + 8)


def test_sessions_change_and_runs_only_in_noise(rich: Path) -> None:
    rows = read_tsv(rich / 'derivatives/truth/group_muscles.tsv')
    mine = [
        row
        for row in rows
        if row['participant_id'] == 'sub-01'
        and row['name'] == 'left multifidus'
        and 'acq-dixon' in row['scan']
    ]
    by_session = {row['session_id']: row for row in mine}
    assert len(mine) == 4
    assert by_session['ses-1']['planted_mfi_pct'] != by_session['ses-2']['planted_mfi_pct']
    assert by_session['ses-1']['volume_ml'] == by_session['ses-2']['volume_ml']
    anat = rich / 'sub-01/ses-1/anat'
    runs = [
        (anat / f'sub-01_ses-1_acq-dixonwater_run-{run}_chunk-2_T1w.nii.gz').read_bytes()
        for run in (1, 2)
    ]
    assert runs[0] != runs[1]


def test_same_bytes_for_any_number_of_processes(tmp_path: Path) -> None:
    settings = {'participants': 2, 'seed': 9, 'artefacts': (('swap', 0.5),), 'shape': (24, 24, 6)}
    alone = write_dataset(tmp_path / 'alone', n_procs=1, **settings)
    together = write_dataset(tmp_path / 'together', n_procs=2, **settings)
    assert digest(alone) == digest(together)
    other = write_dataset(tmp_path / 'other', n_procs=1, **{**settings, 'seed': 10})
    name = 'sub-01/anat/sub-01_acq-dixonfat_T1w.nii.gz'
    assert digest(alone)[name] != digest(other)[name]


def test_a_person_does_not_depend_on_the_size_of_the_cohort(tmp_path: Path) -> None:
    few = write_dataset(tmp_path / 'few', participants=1, seed=9, shape=(24, 24, 6))
    more = write_dataset(tmp_path / 'more', participants=2, seed=9, shape=(24, 24, 6))
    name = 'sub-01/anat/sub-01_acq-dixonfat_T1w.nii.gz'
    assert digest(few)[name] == digest(more)[name]


def test_musclemap_names(tmp_path: Path) -> None:
    root = write_dataset(
        tmp_path / 'bids', participants=1, contrasts=('dixon', 'inout'), naming='musclemap', **TINY
    )
    found = {path.name for path in (root / 'sub-01/anat').glob('*.nii.gz')}
    assert found == {
        f'sub-01_{suffix}.nii.gz' for suffix in ('water', 'fat', 'inphase', 'outphase')
    }
    assert '*_water.*' in (root / '.bidsignore').read_text()


def test_oblique_slices_show_the_same_muscles(tmp_path: Path) -> None:
    common = {'participants': 1, 'seed': 3, 'snr': None, 'bias': 0.0, 'shape': (72, 72, 14)}
    straight = write_dataset(tmp_path / 'straight', **common)
    tilted = write_dataset(tmp_path / 'tilted', oblique_deg=20.0, **common)
    image = nib.load(tilted / 'sub-01/anat/sub-01_acq-dixonfat_T1w.nii.gz')
    assert nib.affines.obliquity(image.affine).max() == pytest.approx(0.349, abs=0.01)
    rows = [read_tsv(root / 'derivatives/truth/group_muscles.tsv') for root in (straight, tilted)]
    for row, other in zip(*rows, strict=True):
        if row['muscle'] == 'quadratus lumborum':  # wholly in view either way
            assert float(other['volume_ml']) == pytest.approx(float(row['volume_ml']), rel=0.05)


@pytest.mark.parametrize(
    ('settings', 'problem'),
    [
        ({'regions': ('thoracic',)}, 'thoracic'),
        ({'contrasts': ('flair',)}, 'flair'),
        ({'contrasts': ('dixon', 'dixon')}, 'twice'),
        ({'artefacts': (('zipper', 1.0),)}, 'zipper'),
        ({'artefacts': (('swap', 2.0),)}, 'swap'),
        ({'participants': 0}, 'participants'),
        ({'seed': -1}, 'seed'),
        ({'snr': -3.0}, 'signal-to-noise'),
        ({'bias': 9.0}, 'bias'),
        ({'field_strength_t': 7.0}, '7 T'),
        ({'naming': 'xnat'}, 'xnat'),
        ({'shape': (2, 64, 8)}, 'too small'),
        ({'shape': (64, 64, 60), 'voxel_mm': (4.0, 4.0, 6.0)}, 'mm high'),
        ({'voxel_mm': (0.01, 1.0, 4.0)}, 'impossible'),
        ({'shape': (10, 10, 8), 'voxel_mm': (1.0, 1.0, 4.0)}, 'mm wide'),
        ({'shape': (9000, 9000, 40)}, 'too large'),
        ({'oblique_deg': 80.0}, '80'),
    ],
)
def test_impossible_settings_write_nothing(
    tmp_path: Path, settings: dict[str, object], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        write_dataset(tmp_path / 'bids', **{'participants': 1, **settings})
    assert not any(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(dataset_module, 'write_participant', fail)
    with pytest.raises(OutputError, match='No space left'):
        write_dataset(tmp_path / 'bids', participants=1, **TINY)
    assert not any(tmp_path.iterdir())


def test_existing_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / 'bids'
    command = [str(target), '--participants', '1', '--shape', '24', '24', '6', '--nprocs', '1']
    target.mkdir()
    assert main(command) == 0
    before = digest(target)
    assert main(command) == 73
    assert '--overwrite' in capsys.readouterr().err
    assert main([*command, '--overwrite', '--seed', '5']) == 0
    assert digest(target) != before
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'thesis.txt').write_text('years of work')
    assert main([str(foreign), *command[1:], '--overwrite']) == 73
    assert (foreign / 'thesis.txt').read_text() == 'years of work'
    assert 'thesis' not in capsys.readouterr().out
    (tmp_path / 'file').write_text('')
    assert main([str(tmp_path / 'file'), *command[1:]]) == 73
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bids', 'file', 'foreign']


@pytest.mark.parametrize(
    ('words', 'code'),
    [
        ([], 64),
        (['--participants', 'many'], 64),
        (['--participants', '1', '--region', 'thoracic'], 64),
        (['--participants', '1', '--artefacts', 'swap=often'], 64),
        (['--participants', '1', '--effects', 'none.toml'], 66),
    ],
)
def test_exit_codes(
    tmp_path: Path, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / 'bids'), *words]) == code
    assert capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_help_imports_nothing_heavy() -> None:
    code = (
        'import sys; from bids_muscle.cli.phantom import main; main(["--help"]); '
        'print(sorted({"numpy", "nibabel", "scipy", "PIL"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == '[]'


def die(*_: object) -> None:
    os._exit(9)


def test_a_killed_worker_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, '_run_job', die)
    with pytest.raises(WorkerDiedError, match='killed'):
        write_dataset(tmp_path / 'bids', participants=2, n_procs=2, **TINY)
    assert not any(tmp_path.iterdir())


def test_failed_replacement_keeps_the_old_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_dataset(tmp_path / 'bids', participants=1, shape=(24, 24, 6))
    before = digest(target)

    def fail(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(dataset_module, 'write_participant', fail)
    with pytest.raises(OutputError):
        write_dataset(target, participants=1, overwrite=True, shape=(24, 24, 6))
    assert digest(target) == before
    assert list(tmp_path.iterdir()) == [target]


def _meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen while a phantom is being written."""
    fill = dataset_module._fill

    def fill_and_act(*args: Any) -> None:
        fill(*args)
        monkeypatch.setattr(dataset_module, '_fill', fill)
        act()

    monkeypatch.setattr(dataset_module, '_fill', fill_and_act)


@pytest.mark.parametrize('kind', ['absent', 'empty', 'phantom'])
def test_what_appeared_in_the_target_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    target = tmp_path / 'bids'
    if kind == 'empty':
        target.mkdir()
    if kind == 'phantom':
        write_dataset(target, participants=1, **TINY)
    thesis = target / 'thesis.txt'

    def write() -> None:
        target.mkdir(exist_ok=True)
        thesis.write_text('years of work')

    _meanwhile(monkeypatch, write)
    with pytest.raises(OutputError, match='changed since the start'):
        write_dataset(target, participants=1, overwrite=True, **TINY)
    assert thesis.read_text() == 'years of work'
    assert list(tmp_path.iterdir()) == [target]


def test_of_two_phantoms_on_one_target_one_loses_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / 'bids'
    _meanwhile(monkeypatch, lambda: write_dataset(target, participants=1, seed=1, **TINY))
    with pytest.raises(OutputError, match='changed since the start'):
        write_dataset(target, participants=1, seed=2, **TINY)
    won = digest(target)
    assert list(tmp_path.iterdir()) == [target]
    shutil.rmtree(target)
    assert digest(write_dataset(target, participants=1, seed=1, **TINY)) == won


def test_what_killed_runs_left_is_swept_and_an_older_dataset_comes_back(tmp_path: Path) -> None:
    target = write_dataset(tmp_path / 'bids', participants=1, **TINY)
    target.rename(tmp_path / '.bids.phantom-abc.old')
    (tmp_path / '.bids.phantom-abc').mkdir()
    (tmp_path / '.bids.backup').mkdir()
    with pytest.raises(OutputError, match='not empty'):
        write_dataset(target, participants=1, **TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.bids.backup', 'bids']


@pytest.mark.parametrize('name', ['SIGHUP', 'SIGKILL'])
def test_a_stopped_run_leaves_no_process(tmp_path: Path, name: str) -> None:
    words = [str(tmp_path / 'bids'), '--participants', '400', '--nprocs', '2']
    words += ['--shape', '64', '48', '8', '--voxel-size', '6', '6', '25']
    command = [sys.executable, '-m', 'bids_muscle.cli.phantom', *words]

    def listen() -> None:  # where the tests run under nohup, the signal is ignored
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listen
    )

    def members() -> list[str]:
        listed = ['ps', '-o', 'pid=', '--sid', str(process.pid)]
        return subprocess.run(listed, capture_output=True, text=True).stdout.split()

    def wait_until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not done() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert done()

    wait_until(lambda: len(list(tmp_path.glob('.bids.*/sub-*'))) >= 1)
    process.send_signal(getattr(signal, name))
    process.wait(60)
    wait_until(lambda: not members())
    if name == 'SIGHUP':  # handled as SIGTERM is
        assert process.returncode == 75
        assert not any(tmp_path.iterdir())
    process.stderr.close()


def test_the_sample_takes_no_other_settings(tmp_path: Path) -> None:
    """What is in it: workflows/test_tutorial.py."""
    folder = str(tmp_path / 'sample')
    assert main([folder, '--sample', '--seed', '3']) == ExitCode.USAGE
    assert main([folder]) == ExitCode.USAGE
    assert not (tmp_path / 'sample').exists()
