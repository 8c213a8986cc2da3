"""``bids_muscle-slurm`` against a real Slurm, and what it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bids_muscle.cli.slurm import main
from bids_muscle.cli.slurm_job import unfinished
from bids_muscle.cli.status import main as status
from bids_muscle.config import build_settings, read_config
from bids_muscle.dataset.records import ScanRecord, SessionRecord, write_session_record
from bids_muscle.errors import ExitCode, Problem
from bids_muscle.imaging.atlas import CARD, find_atlas
from bids_muscle.segmentation.catalogue import packaged_models
from bids_muscle.settings import Settings
from bids_muscle.workflows.planning import find_models
from bids_muscle.workflows.resume import settings_digest

#: Stands for Apptainer: runs the command of the container here, if what it reads is mounted.
APPTAINER = """#!{python}
import os, sys, tomllib
from pathlib import Path
words = sys.argv[1:]
at = words.index({image!r})
mounts = [words[i + 1].split(':') for i in range(at) if words[i] == '-B']
assert words[0] == 'run' and '--cleanenv' in words[:at], words
assert all(source == target for source, target, *_ in mounts), mounts
settings = Path(words[words.index('--config-file') + 1])
tables = tomllib.loads(settings.read_text()).values()
named = [value for table in tables for value in table.values()]
for value in [words[at + 1:at + 3], str(settings), *named]:
    for path in value if isinstance(value, list) else [value]:
        if str(path).startswith('/'):
            assert any(Path(path).is_relative_to(source) for source, *_ in mounts), (path, mounts)
env = {{name: value for name, value in os.environ.items() if not name.startswith('SLURM')}}
os.execve({python!r}, [{python!r}, '-m', 'bids_muscle', *words[at + 1:]], env)
"""


@pytest.fixture(scope='module')
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people: a small phantom, a scan cut short, and one without any scan."""
    from bids_muscle.cli.phantom import main as simulate

    # A folder whose name must be quoted in a script.
    folder = tmp_path_factory.mktemp('cohort') / "a b%a's" / 'bids'
    shape = ['--shape', '96', '80', '6', '--voxel-size', '3', '3', '12']
    assert simulate([str(folder), '--participants', '1', '--nprocs', '1', *shape]) == 0
    shutil.rmtree(folder / 'derivatives')
    shutil.copytree(folder / 'sub-01', folder / 'sub-cut')
    for path in (folder / 'sub-cut/anat').iterdir():
        path = path.rename(path.with_name(path.name.replace('sub-01', 'sub-cut')))
        if path.suffix == '.gz':
            path.write_bytes(path.read_bytes()[:3000])
    (folder / 'sub-empty/anat').mkdir(parents=True)
    return folder


def wait_for_all(environment: dict[str, str]) -> None:
    for _ in range(1800):
        queue = subprocess.run(
            ['squeue', '--noheader'], env=environment, capture_output=True, text=True, check=True
        )
        if not queue.stdout.strip():
            return
        time.sleep(0.1)
    raise AssertionError(f'jobs do not end: {queue.stdout}')


def test_a_cohort_runs_fails_in_part_and_goes_on(
    slurm: dict[str, str],
    cohort: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('SLURM_CONF', slurm['SLURM_CONF'])
    out = cohort.parent / 'out'
    words = [str(cohort), str(out), '--native', '--partition', 'main', '--cpus', '1']
    words += ['--mem', '1400M', '--max-jobs', '2', '--submit']
    assert main(words) == ExitCode.OK
    assert '3 participants to run, 0 finished' in capsys.readouterr().out
    assert status([str(out)]) == ExitCode.TEMPORARY
    assert '3 to come' in capsys.readouterr().out
    wait_for_all(slurm)

    jobs = out / 'logs/slurm/0001'
    codes = {path.name: path.read_text().strip() for path in jobs.glob('*.exit')}
    logs = {path.name: path.read_text() for path in jobs.glob('*.log')}
    assert codes == {'task-0.exit': '0', 'task-1.exit': '65', 'task-2.exit': '18'}, logs
    assert (out / 'group.html').is_file(), logs
    assert 'sub-cut' in logs['task-1.log']

    assert status([str(out)]) == ExitCode.FAILURE
    said = capsys.readouterr().out
    assert 'participants: 3 listed, 1 done, 2 failed, 0 to come' in said
    assert f'task 1: exit code 65; {jobs / "task-1.log"}' in said
    assert 'task 0' not in said
    assert 'sub-cut_acq-dixon' in said

    # The data are repaired, and levels are marked by hand: all run, in a container, two a task.
    shutil.rmtree(cohort / 'sub-empty')
    for path in (cohort / 'sub-01/anat').iterdir():
        shutil.copy(path, cohort / f'sub-cut/anat/{path.name.replace("sub-01", "sub-cut")}')
    tools, image = cohort.parent / 'tools', cohort.parent / 'app.sif'
    tools.mkdir()
    image.touch()
    apptainer = tools / 'apptainer'
    apptainer.write_text(APPTAINER.format(python=sys.executable, image=str(image)))
    apptainer.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
    words = [str(cohort), str(out), '--container', str(image), '--chunk', '2', '--cpus', '1']
    options = ['--region', 'lumbar', *everything_that_can_be_named(cohort.parent / 'more')]
    assert main([*words, '--mem', '1400M', '--submit', '--', *options]) == ExitCode.OK
    assert '2 participants to run, 0 finished' in capsys.readouterr().out
    wait_for_all(slurm)
    log = (out / 'logs/slurm/0002/task-0.log').read_text()
    assert (out / 'logs/slurm/0002/task-0.exit').read_text() == '0\n', log
    group_log = (out / 'logs/slurm/0002/group.log').read_text()
    assert 'group.html' in group_log and 'Error' not in group_log, group_log
    assert main([*words, '--', *options]) == ExitCode.OK
    assert '0 participants to run, 2 finished' in capsys.readouterr().out
    native, contained = (
        (out / f'sub-{label}/anat/sub-{label}_acq-dixon_seg-lumbarmuscles_dseg.nii.gz')
        for label in ('01', 'cut')
    )
    assert native.read_bytes() == contained.read_bytes()


def test_nipype_s_own_plugin_gives_the_same_bytes(
    slurm: dict[str, str], cohort: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / 'plugin.yml'
    args = 'sbatch_args: --mem=1400M --cpus-per-task=1'
    plugin.write_text(f'plugin: SLURM\nplugin_args: {{{args}}}\n')
    words = [str(cohort), str(tmp_path / 'out'), 'participant', '--participant-label', '01']
    words += ['--use-plugin', str(plugin), '--work-dir', str(tmp_path / 'work')]
    command = [sys.executable, '-m', 'bids_muscle', *words]
    ran = subprocess.run(command, env=slurm, capture_output=True, text=True)
    assert ran.returncode == ExitCode.OK, ran.stderr
    name = 'sub-01/anat/sub-01_acq-dixon_seg-lumbarmuscles_dseg.nii.gz'
    assert list((tmp_path / 'work').rglob('slurm-*.out'))
    native = cohort.parent / 'out' / name
    assert (tmp_path / 'out' / name).read_bytes() == native.read_bytes()


def everything_that_can_be_named(folder: Path) -> list[str]:
    """Give options for each file and folder that a run may read beside the dataset."""
    contents = {
        'contrast-rules': (packaged_models().parent / 'contrasts.tsv').read_text(),
        'bids-filter-file': '{}',
        'levels': 'participant_id\tslice\tlevel\nsub-none\t1\tL4\n',
        'exclude': 'participant_id\treason\nsub-none\tmoved\n',
    }
    words = []
    folder.mkdir()
    for option, content in contents.items():
        (folder / option).write_text(content)
        words += [f'--{option}', str(folder / option)]
    shutil.copytree(packaged_models() / 'lumbar', folder / 'model')
    shutil.copytree(find_atlas(None, 'lumbar'), folder / 'atlas')
    (folder / 'derivatives').mkdir()
    for option in ('model', 'atlas', 'derivatives'):
        words += [f'--{option}', str(folder / option)]
    return words


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / 'bids'
    for number in range(2500):
        (folder / f'sub-{number:04d}').mkdir(parents=True)
    (folder / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return folder


def test_every_participant_is_in_one_task(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert main([str(dataset), str(out)]) == ExitCode.OK
    jobs = out / 'logs/slurm/0001'
    # An array may have 1000 tasks: three people each.
    assert '#SBATCH --array=0-833\n' in (jobs / 'array.sh').read_text()
    script = (jobs / 'array.sh').read_text().replace('-m bids_muscle', '-c "" ')
    script = script.replace('\ncode=', '\nprintf "%s\\n" "${labels[@]}" >> seen\ncode=')
    assert 'seen' in script
    for task in (0, 1, 833):
        subprocess.run(
            ['bash', '-c', script], env={'SLURM_ARRAY_TASK_ID': str(task), 'PATH': '/bin'}
        )
    assert (jobs / 'seen').read_text().split() == [
        *(f'{number:04d}' for number in range(6)),
        '2499',
    ]


def test_docker_reads_what_is_mounted_and_nothing_else(dataset: Path, tmp_path: Path) -> None:
    rules = tmp_path / 'rules.tsv'
    rules.touch()
    words = [str(dataset), str(tmp_path / 'out'), '--container', 'bids_muscle:1', '--gpus', '1']
    assert main([*words, '--', '--contrast-rules', str(rules)]) == ExitCode.OK
    script = (tmp_path / 'out/logs/slurm/0001/array.sh').read_text()
    assert '#SBATCH --gpus=1\n' in script
    (line,) = [line for line in script.splitlines() if line.startswith('docker')]
    assert f'-v {dataset}:{dataset}:ro -v {tmp_path}/out:{tmp_path}/out ' in line
    assert f'-v {rules}:{rules}:ro' in line
    assert '--network none' in line
    assert '--gpus all' in line
    assert ' bids_muscle:1 ' in line
    assert line.split(' --participant-label')[0].endswith(' --device cuda')
    # The group level reads tables.
    assert 'gpu' not in (tmp_path / 'out/logs/slurm/0001/group.sh').read_text()


@pytest.mark.parametrize('name', ['a,b', 'a:b'])
def test_a_name_that_containers_split_is_refused(
    dataset: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(dataset), str(tmp_path / name)]
    assert main([*words, '--container', 'bids_muscle:1']) == ExitCode.USAGE
    assert 'a comma or a colon' in capsys.readouterr().err
    assert main(words) == ExitCode.OK


def test_a_container_sees_the_models_of_a_site(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their paths: a container does not know the environment of the user."""
    monkeypatch.setenv('BIDS_MUSCLE_MODELS', str(tmp_path / 'models'))
    path = tmp_path / 'models/mine'
    shutil.copytree(packaged_models() / 'lumbar', path)
    card = json.loads((path / 'model.json').read_text())
    (path / 'model.json').write_text(json.dumps({**card, 'name': 'mine'}))
    site = tmp_path / 'site.toml'
    site.write_text('[models]\nlumbar = "mine"\nneck = "musclemap-wholebody"\n')
    words = [str(dataset), str(tmp_path / 'out'), '--container', 'bids_muscle:1']
    assert main([*words, '--', '--config-file', str(site)]) == ExitCode.OK
    folder = tmp_path / 'out/logs/slurm/0001'
    assert f'-v {path}:{path}:ro' in (folder / 'array.sh').read_text()
    monkeypatch.delenv('BIDS_MUSCLE_MODELS')
    written = build_settings({}, read_config(folder / 'settings.toml'))
    models, refusals = find_models(written)
    assert models['lumbar'].name == 'mine'
    assert 'fetch musclemap-wholebody' in refusals['cervical'].remedy


@pytest.mark.parametrize('visible', [None, '0,1', 'MIG-1-2', ''])
def test_apptainer_is_told_the_gpus_that_slurm_names(
    dataset: Path, tmp_path: Path, visible: str | None
) -> None:
    image, tool = tmp_path / 'app.sif', tmp_path / 'bin/apptainer'
    image.touch()
    tool.parent.mkdir()
    tool.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$HOME/words"\n')
    tool.chmod(0o755)
    words = [str(dataset), str(tmp_path / 'out'), '--container', str(image), '--gpus', '1']
    assert main([*words, '--', '--device', 'cpu']) == ExitCode.OK
    environment = {
        'PATH': f'{tool.parent}:/bin',
        'HOME': str(tmp_path),
        'SLURM_ARRAY_TASK_ID': '0',
    }
    if visible is not None:
        environment['CUDA_VISIBLE_DEVICES'] = visible
    subprocess.run(['bash', str(tmp_path / 'out/logs/slurm/0001/array.sh')], env=environment)
    told = (tmp_path / 'words').read_text().splitlines()
    assert '--nv' in told[: told.index(str(image))]
    # An empty value hides all GPUs, so where Slurm names none nothing is said.
    named = [told[at + 1] for at, word in enumerate(told) if word == '--env']
    assert named == ([] if visible is None else [f'CUDA_VISIBLE_DEVICES={visible}'])
    assert 'cuda' not in told[told.index(str(image)) :]


def settings(bids_dir: Path, output_dir: Path, **more: object) -> Settings:
    return Settings(bids_dir=bids_dir, output_dir=output_dir, level='participant', **more)  # type: ignore[arg-type]


def test_finished_means_all_scans_with_these_settings_and_this_version(
    dataset: Path, tmp_path: Path
) -> None:
    from bids_muscle import __version__

    out, labels = tmp_path / 'out', ('0001', '0002', '0003', '0004', '0005')
    now = settings(dataset, out, participants=labels)
    good = {
        'status': 'done',
        'output_level': 'standard',
        'settings_digest': settings_digest(now),
        'versions': {'bids_muscle': __version__},
    }
    for label, changes in (
        ('0001', [{}, {'output_level': 'full'}]),
        ('0002', [{}, {'status': 'failed'}]),
        ('0003', [{'settings_digest': 'x'}]),
        ('0004', [{'versions': {'bids_muscle': '0'}}]),
    ):
        for number, change in enumerate(changes):
            name = f'sub-{label}_acq-{number}'
            content = {'participant': label, 'session': None, 'scan': name, 'region': 'lumbar'}
            record = ScanRecord(**{**content, **good, **change})
            path = out / f'logs/sub-{label}/{name}.json'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record.as_dict()))
        (out / f'sub-{label}.html').touch()
    (out / 'sub-0005.html').touch()
    assert unfinished(now) == (['0002', '0003', '0004', '0005'], 1)
    everybody = settings(dataset, out, participants=labels, overwrite=True)
    assert unfinished(everybody) == unfinished(now, everybody=True) == (list(labels), 0)


def test_another_model_levels_or_maps_leave_nobody_finished(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bids_muscle import __version__

    out = tmp_path / 'out'
    now = settings(dataset, out, participants=('0001',))
    name = 'sub-0001_acq-dixon'
    record = ScanRecord(
        participant='0001',
        session=None,
        scan=name,
        region='lumbar',
        status='done',
        model={'sha256': find_models(now)[0]['lumbar'].sha256},
        output_level=now.output_level,
        settings_digest=settings_digest(now),
        versions={'bids_muscle': __version__},
    )
    path = out / f'logs/sub-0001/{name}.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record.as_dict()))
    assert unfinished(now) == (['0001'], 0)  # a run was killed before it wrote the page
    (out / 'sub-0001.html').touch()
    assert unfinished(now) == ([], 1)
    problem = Problem('WorkerDiedError', 'The step loads was killed.', 'Run again.', 75)
    write_session_record(SessionRecord(name='loads', problem=problem), '0001', out)
    assert unfinished(now) == (['0001'], 0)
    write_session_record(SessionRecord(name='loads'), '0001', out)
    assert unfinished(now) == ([], 1)

    other = tmp_path / 'other'
    shutil.copytree(packaged_models() / 'lumbar', other)
    card = json.loads((other / 'model.json').read_text())
    (other / 'model.json').write_text(json.dumps({**card, 'sha256': '0' * 64}))
    levels = tmp_path / 'levels.tsv'
    levels.write_text('slice\tlevel\n0\tL5\n')
    atlas = tmp_path / 'atlas'
    shutil.copytree(find_atlas(None, 'lumbar'), atlas)
    with (atlas / CARD).open('a') as stream:
        stream.write('\n')
    maps = tmp_path / 'maps'
    drawn = maps / 'sub-0001/anat/sub-0001_seg-vertebrae_dseg.nii.gz'
    drawn.parent.mkdir(parents=True)
    drawn.touch()
    for change in (
        {'model': str(other)},
        {'levels': levels},
        {'atlas': atlas},
        {'loading': True},
        {'fat_method': 'kmeans2'},
        {'output_level': 'full'},
        {'derivatives': (maps,)},
    ):
        assert unfinished(replace(now, **change)) == (['0001'], 0), change


@pytest.mark.parametrize(('digest', 'said'), [(None, '1 done'), ('x', '1 to come')])
def test_a_record_of_other_settings_is_not_the_end_of_a_job(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], digest: str, said: str
) -> None:
    from bids_muscle import __version__

    out = tmp_path / 'out'
    words = [str(dataset), str(out), '--', '--participant-label', '0001', '--fat-method', 'mean']
    assert main(words) == ExitCode.OK
    now = replace(settings(dataset, out), fat_method='mean')
    record = ScanRecord(
        participant='0001',
        session=None,
        scan='sub-0001_acq-dixon',
        region='lumbar',
        status='done',
        output_level=now.output_level,
        settings_digest=digest or settings_digest(now),
        versions={'bids_muscle': __version__},
    )
    path = out / 'logs/sub-0001/sub-0001_acq-dixon.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record.as_dict()))
    status([str(out)])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        (['--chunk', '0'], ExitCode.USAGE, '--chunk is 0'),
        (['--partition', 'a\n#SBATCH b'], ExitCode.USAGE, 'Slurm script'),
        (['--mem', '8'], ExitCode.USAGE, 'with a unit'),
        (['--', '--frobnicate'], ExitCode.USAGE, '--frobnicate'),
        (['--', '--participant-label', 'nobody'], ExitCode.NOTHING_SELECTED, 'No scan of'),
    ],
)
def test_mistakes_are_told(
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    assert main([str(dataset), str(tmp_path / 'out'), *words]) == code
    assert said in capsys.readouterr().err


def test_without_slurm_the_scripts_are_named(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    out = tmp_path / 'out'
    assert main([str(dataset), str(out), '--submit']) == ExitCode.FAILURE
    assert str(out / 'logs/slurm/0001/array.sh') in capsys.readouterr().err
    assert status([str(tmp_path / 'other')]) == ExitCode.NO_INPUT
