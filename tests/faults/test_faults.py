"""What kills a run must not hang it, leave half a file, or stop the others; a rerun mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bids_muscle.errors import ExitCode

INJECT = Path(__file__).parent / 'inject'
#: Runs a command in a namespace that has no network, not even the machine's own address.
WITHOUT_NETWORK = ('unshare', '--net') if os.getuid() == 0 and shutil.which('unshare') else ()
#: Runs the words after its own in a world that is read-only but for two folders.
READ_ONLY = """
for folder in "$1" "$2"; do mount --bind "$folder" "$folder" || exit; done
for place in / /tmp /var/tmp /home; do
    mountpoint -q $place && mount -o remount,bind,ro $place
done
! touch "$0" 2>/dev/null && shift 2 && exec "$@"
"""
#: What happens to the step of a person: each step is stopped in turn, and more.
FAULTS = {
    'p1.prepare': 'kill',
    'p2.segment': 'kill',
    'p3.measure': 'kill',
    'p4.figures': 'kill',
    'p5.publish': 'kill-late',
    'p6.quality': 'memory',
    'p7.align': 'stop',
    'p8.correct': 'kill',
    'p9.segment': 'gpu',
    'pa.prepare': 'change',
}
#: Seconds without any work after which a stopped step is given up.
PATIENCE_S = 20


def start(
    bids_dir: Path,
    output_dir: Path,
    *words: object,
    faults: object = None,
    prefix: Sequence[str] = WITHOUT_NETWORK,
    **environment: str,
) -> subprocess.Popen[str]:
    environment = {**os.environ, **environment}
    if faults or 'BIDS_MUSCLE_CLOCK' in environment:
        path = os.pathsep.join(filter(None, [str(INJECT), environment.get('PYTHONPATH')]))
        environment |= {'BIDS_MUSCLE_FAULTS': json.dumps(faults or {}), 'PYTHONPATH': path}
    return subprocess.Popen(
        [*prefix, sys.executable, '-m', 'bids_muscle', str(bids_dir), str(output_dir)]
        + ['participant', '--no-bias-correction']  # the slowest part, and no fault is in it
        + [str(word) for word in words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what was said; a hang is a failure."""
    try:
        said = process.communicate(timeout=900)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert 'Traceback' not in said
    return process.returncode, said


def run(bids_dir: Path, output_dir: Path, *words: object, **more: object) -> tuple[int, str]:
    return end(start(bids_dir, output_dir, *words, **more))  # type: ignore[arg-type]


@pytest.fixture(scope='module')
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small simulated person."""
    from bids_muscle.cli.phantom import main

    folder = tmp_path_factory.mktemp('faults') / 'bids'
    shape = ['--shape', '96', '80', '6', '--voxel-size', '3', '3', '12']
    assert main([str(folder), '--participants', '1', '--nprocs', '1', *shape]) == 0
    return folder


def people(one: Path, folder: Path, labels: Sequence[str]) -> Path:
    """Copy the person under other labels."""
    folder.mkdir()
    shutil.copy(one / 'dataset_description.json', folder)
    for label in labels:
        (folder / f'sub-{label}/anat').mkdir(parents=True)
        for path in one.glob('sub-01/anat/*'):
            name = path.name.replace('sub-01', f'sub-{label}')
            shutil.copy(path, folder / f'sub-{label}/anat' / name)
    return folder


def correction(one: Path, folder: Path, label: str) -> Path:
    """Write the true labels of the simulated person as those that somebody drew."""
    name = 'anat/sub-{}_acq-dixon_seg-lumbarmuscles_{}dseg.nii.gz'
    (folder / f'sub-{label}/anat').mkdir(parents=True)
    shutil.copy(
        one / 'derivatives/truth/sub-01' / name.format('01', ''),
        folder / f'sub-{label}' / name.format(label, 'desc-manual_'),
    )
    return folder


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path | None]:
    """Give a control group in which the kernel kills who uses more; None where none can be."""
    for top, limit in (('memory/', 'memory.limit_in_bytes'), ('', 'memory.max')):
        folder = Path(f'/sys/fs/cgroup/{top}bids_muscle-test-{os.getpid()}')
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                (folder / limit).write_text(str(limit_bytes))
                yield folder
                return
        finally:
            folder.rmdir()
    yield None


def outputs(output_dir: Path, label: str) -> dict[str, bytes]:
    """Return the content of each file of a person, freed of the label."""
    files = [path for path in (output_dir / f'sub-{label}').rglob('*') if path.is_file()]
    contents = {path.name.replace(f'sub-{label}', '..'): path.read_bytes() for path in files}
    return {
        name: content.replace(f'sub-{label}'.encode(), b'..')
        if name.endswith('.json')
        else content
        for name, content in contents.items()
    }


def records(output_dir: Path) -> dict[str, dict[str, object]]:
    return {
        path.parent.name.removeprefix('sub-'): json.loads(path.read_text())
        for path in output_dir.glob('logs/sub-*/*.json')
    }


def test_every_fault_is_the_failure_of_one_person_and_a_rerun_mends_it(
    one: Path, tmp_path: Path
) -> None:
    labels = ['p0', *(name[:2] for name in FAULTS)]
    bids_dir, out = people(one, tmp_path / 'bids', labels), tmp_path / 'out'
    faults = {f'{name[:2]}_acq_dixon{name[2:]}': fault for name, fault in FAULTS.items()}
    more = {'BIDS_MUSCLE_CLOCK': '1', 'BIDS_MUSCLE_PATIENCE': str(PATIENCE_S)}
    words = ('--nprocs', 2, '--derivatives', correction(one, tmp_path / 'manual', 'p8'))
    with memory_group(400_000_000) as group:
        code, said = run(
            bids_dir, out, *words, faults=faults, BIDS_MUSCLE_CGROUP=str(group or ''), **more
        )
    assert code == ExitCode.TEMPORARY, said
    ended = records(out)
    assert {label: record['status'] for label, record in ended.items()} == {
        label: 'done' if label == 'p0' else 'failed' for label in labels
    }, said
    assert {record['problem']['exit_code'] for record in ended.values() if record['problem']} == {
        ExitCode.TEMPORARY
    }
    for name, fault in FAULTS.items():
        message = str(ended[name[:2]]['problem'])
        signs = {'gpu': 'GPU', 'change': 'changed while', 'stop': 'no CPU time'}
        signs |= {} if group else {'memory': 'memory'}  # else the kernel has killed it
        assert signs.get(fault, 'SIGKILL') in message
        assert outputs(out, name[:2]) == {}
    undisturbed = outputs(out, 'p0')
    assert len(undisturbed) > 15
    page = (out / 'sub-p0.html').read_bytes()

    code, said = run(bids_dir, out, '--nprocs', 1, '--omp-nthreads', 1, *words[2:])
    assert code == ExitCode.OK, said
    others = {'p8', 'pa'}  # labels of a person, and images that are others now
    for label in labels:
        if label not in others:
            assert outputs(out, label) == undisturbed, label
    assert (out / 'sub-p0.html').read_bytes() == page
    assert not list(out.rglob('.*.tmp'))


def test_a_killed_run_leaves_nothing_running_and_nothing_half_done(
    one: Path, tmp_path: Path
) -> None:
    bids_dir, out = people(one, tmp_path / 'bids', ['q0', 'q1']), tmp_path / 'out'
    work = tmp_path / 'work'
    faults = {'q1_acq_dixon.publish': 'kill-parent'}
    code, said = run(bids_dir, out, '--nprocs', 1, '-w', work, faults=faults)
    assert code == -9, said
    for _ in range(100):
        if not list(_at_work_in(work)):
            break
        time.sleep(0.1)
    assert not list(_at_work_in(work))
    assert 'q1' not in records(out)
    shutil.rmtree(work)  # it may vanish
    # Two jobs at once do what is left, on the same person and the same folder.
    with ThreadPoolExecutor(2) as jobs:
        ends = list(jobs.map(lambda _: run(bids_dir, out, '--nprocs', 1), range(2)))
    assert [code for code, _ in ends] == [ExitCode.OK, ExitCode.OK], ends
    assert outputs(out, 'q1') == outputs(out, 'q0')
    assert {record['status'] for record in records(out).values()} == {'done'}
    assert not list(out.rglob('.*.tmp'))


def test_neither_workers_nor_order_change_a_byte_and_nothing_is_written_elsewhere(
    one: Path, tmp_path: Path
) -> None:
    from bids_muscle.cli.main import main
    from bids_muscle.workflows.participant import _MEMORY

    bids_dir = people(one, tmp_path / 'bids', ['a', 'b'])
    together, apart = tmp_path / 'together', tmp_path / 'apart'
    code, said = run(bids_dir, together, '--nprocs', 4)
    assert code == ExitCode.OK, said
    apart.mkdir()
    may_mount = not subprocess.run(['unshare', '--mount', 'true'], capture_output=True).returncode
    # Sockets need a short path.
    with tempfile.TemporaryDirectory() as temporary:
        shell = ['sh', '-c', READ_ONLY, tmp_path / 'forbidden', apart, temporary]
        prefix = ['unshare', '--mount', '--net', *map(str, shell)] if may_mount else []
        for label in 'ba':
            words = ('--participant-label', label, '--nprocs', 1, '--omp-nthreads', 1)
            code, said = run(
                bids_dir, apart, *words, prefix=prefix, TMPDIR=temporary, HOME='/nonexistent'
            )
            assert code == ExitCode.OK, said
        assert not list(Path(temporary).iterdir())
    for out in (together, apart):
        assert main([str(bids_dir), str(out), 'group']) == ExitCode.OK
    contents = [
        {
            path.relative_to(out): path.read_bytes()
            for path in out.rglob('*')
            # Times and memory stand in these only.
            if path.is_file()
            and path.suffix not in ('.html', '.log')
            and 'logs' not in path.relative_to(out).parts
        }
        for out in (together, apart)
    ]
    assert len(contents[0]) > 50
    assert contents[0].keys() == contents[1].keys()
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == []
    # No step needs more memory than it is counted with.
    for step in records(apart)['a']['steps']:  # type: ignore[attr-defined]
        base_gb, voxel_bytes = _MEMORY[step['name']]
        estimate_mb = 1000 * base_gb + voxel_bytes * 2 * 96 * 80 * 6 / 1e6
        assert step['peak_mb'] < estimate_mb, step


def _at_work_in(folder: Path) -> Iterator[Path]:
    for path in Path('/proc').glob('[0-9]*/cwd'):
        try:
            if path.readlink().is_relative_to(folder):
                yield path
        except OSError:
            continue


def test_a_scan_that_needs_more_memory_than_it_may_use_is_not_begun(
    one: Path, tmp_path: Path
) -> None:
    code, said = run(one, tmp_path / 'out', '--nprocs', 1, '--mem', '500M', '-v')
    assert code == ExitCode.TEMPORARY, said
    assert '--mem 0.9G' in said
    assert ' done in ' not in said


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of its own that can be made small or read-only."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=40k', 'tmpfs', str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('only root may mount')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(['mount', '-o', f'remount,{options}', str(folder)], check=True)


@pytest.mark.parametrize('full', ['output', 'work'])
def test_a_full_disk_is_named_and_mended_by_space(
    one: Path, tmp_path: Path, disk: Path, full: str
) -> None:
    out, work = (disk if full == kind else tmp_path / kind for kind in ('output', 'work'))
    code, said = run(one, out, '-w', work, '--nprocs', 1)
    assert code == ExitCode.IO_ERROR, said
    assert 'pace' in said
    assert not list(out.glob('sub-01/**/*.*'))
    assert not list(out.rglob('.*.tmp'))
    remount(disk, 'size=90m')
    code, said = run(one, out, '-w', work, '--nprocs', 1)
    assert code == ExitCode.OK, said
    assert len(outputs(out, '01')) > 15


def test_a_read_only_output_is_refused(one: Path, disk: Path) -> None:
    remount(disk, 'ro')
    code, said = run(one, disk / 'out', '--nprocs', 1)
    assert code == ExitCode.CANNOT_CREATE
    assert 'Read-only file system' in said
