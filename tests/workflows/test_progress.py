"""What a run says about itself while it runs and at its end, wherever it says it."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cohort import Run, call

from bids_muscle.cli.status import main as status
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.scan import Scan
from bids_muscle.engine.outcome import Key, NodeOutcome, Status
from bids_muscle.errors import ExitCode, IncompleteScanError, NothingSelectedError
from bids_muscle.settings import Settings
from bids_muscle.workflows.progress import STEP_NAMES, Progress, Tally
from bids_muscle.workflows.run_log import RunLog, read_logs
from bids_muscle.workflows.summary import summary

PROBLEM = IncompleteScanError('Water has no fat.', 'Add it.').problem


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time (s)."""
        return self.now_s


def test_the_time_left_follows_the_scans_that_were_computed() -> None:
    clock = Clock()
    tally = Tally(4, 3, clock)
    assert str(tally) == '4 participants'
    tally.add(2)
    tally.add(2, finished=2, new=False)
    assert (str(tally), tally.left_s()) == ('2/~8 scans', None)
    clock.now_s = 100
    tally.end(failed=False)
    # One scan of those known and two each of two new people, at 100 s a scan.
    assert tally.left_s() == 500
    clock.now_s = 130
    assert str(tally) == '3/~8 scans, 8 min left'
    tally.add(2)
    tally.add(2, failed=1)
    clock.now_s = 200
    tally.end(failed=True)
    assert str(tally) == '3/8 scans, 2 failed, 5 min left'
    clock.now_s = 900
    assert tally.left_s() == 0


def test_who_has_records_is_taken_to_be_finished() -> None:
    clock = Clock()
    tally = Tally(1000, 1, clock)
    tally.add(1)
    clock.now_s = 10
    tally.end(failed=False)
    assert tally.left_s() == 0


def settings(output_dir: Path, **more: Any) -> Settings:
    return Settings(bids_dir=output_dir.parent, output_dir=output_dir, level='participant', **more)


def scan(label: str) -> Scan:
    return Scan((('sub', label), ('acq', 'dixon')), 'T1w', 'lumbar', ())


def outcome(label: str, step: str, state: Status = Status.DONE) -> NodeOutcome:
    name = f'bids_muscle_wf.sub_{label}.sub_{label}_acq_dixon.{step}'
    problem = PROBLEM if state == 'failed' else None
    key = Key(f'sub-{label}_acq-dixon', step)
    return NodeOutcome(name=step, fullname=name, key=key, status=state, wall_s=2, problem=problem)


def run_three(progress: Progress) -> None:
    """Tell a run of three scans: one with a problem, one that fails, one that is done."""
    with progress:
        progress.begin(['1', '2', '3'])
        for label in '12':
            progress.plan(label, [scan(label)], ())
        progress.plan('3', [replace(scan('3'), problem=PROBLEM)], ())
        progress.begin_step(outcome('1', 'prepare').key)
        progress.end_step(outcome('1', 'prepare', Status.FAILED))
        progress.end_step(outcome('1', 'segment', Status.SKIPPED))
        progress.end_step(outcome('1', 'publish', Status.SKIPPED))
        progress.begin_step(outcome('2', 'publish').key)
        progress.end_step(outcome('2', 'publish'))
        progress.end([])


def test_plain_lines_have_counts_and_the_log_every_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_three(Progress(settings(tmp_path)))
    out, err = capsys.readouterr()
    assert out == ''
    lines = err.splitlines()
    assert all(re.match(r'\d\d:\d\d:\d\d ', line) for line in lines[:3])
    said = [line[9:] for line in lines[:3]]
    assert said[0].startswith('3 participants: log: ')
    assert said[1].startswith('0/3 scans, 2 failed, ')
    assert said[1].endswith(
        'sub-1_acq-dixon preparation failed in 2.0 s: Water has no fat. Add it.'
    )
    assert said[2] == '1/3 scans, 2 failed: sub-2_acq-dixon outputs done in 2.0 s'
    (log,) = tmp_path.glob('logs/run-*.log')
    text = log.read_text()
    for words in (
        'preparation began',
        'segmentation skipped\n',
        'outputs began',
        '1/3 scans, 2 failed',
    ):
        assert words in text
    assert text.endswith('ended\n')
    assert f'Log: {log}' in err


@pytest.mark.parametrize(('verbosity', 'count'), [(0, 0), (1, 6)])
def test_a_quiet_run_says_nothing_and_a_talkative_one_every_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verbosity: int, count: int
) -> None:
    quiet = not verbosity
    run_three(Progress(settings(tmp_path, quiet=quiet, verbosity=verbosity)))
    err = capsys.readouterr().err
    assert err.count('acq-dixon') == count
    assert (err == '') == quiet
    assert list(tmp_path.glob('logs/run-*.log'))


def test_without_a_log_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'logs').touch()
    run_three(Progress(settings(tmp_path)))
    err = capsys.readouterr().err
    assert err.count('The log of the run cannot be written: File exists') == 1
    assert '1/3 scans, 2 failed' in err


def test_a_disk_that_fills_up_ends_the_log_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path)
    log._stream = Path('/dev/full').open('w')  # noqa: SIM115 - the log closes it
    for _ in range(2):
        log.write('x')
    log.close()
    assert capsys.readouterr().err.count(os.strerror(errno.ENOSPC)) == 1


def test_logs_of_one_second_are_apart_and_tell_what_runs(tmp_path: Path) -> None:
    logs = [RunLog(tmp_path) for _ in range(3)]
    logs[0].write('ended')
    logs[0].close()
    logs[1].write('half way\nthrough')
    logs[1].close()
    states = {each.path: (each.state, each.last_line[20:]) for each in read_logs(tmp_path)}
    assert states[logs[0].path] == ('ended', 'ended')
    assert states[logs[1].path] == ('stopped early', 'half way through')
    assert states[logs[2].path][0] == 'running'
    logs[2].close()


def test_an_interrupted_run_says_so_in_its_log(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(settings(tmp_path)) as progress:
        progress.begin(['1'])
        raise KeyboardInterrupt
    (log,) = read_logs(tmp_path)
    assert (log.state, log.last_line[20:]) == ('stopped early', '1 participant: interrupted')


def test_every_step_has_a_name_in_words() -> None:
    from bids_muscle.workflows.participant import _MEMORY

    variants = {'segment_spine', 'segment_in_atlas'}
    assert set(STEP_NAMES) == set(_MEMORY) - variants
    assert not any('_' in name for name in STEP_NAMES.values())


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_progress import *
from rich.live import Live
refreshed = Live.refresh
progress = Progress(settings(Path({folder!r})))
end_step = progress.end_step
def shown(outcome):
    if progress._live:
        progress._live.refresh()
    print('/a/path/' + 30 * 'x' + '.html')
    end_step(outcome)
progress.end_step = shown
run_three(progress)
"""


INTERRUPTED = """
import sys
sys.path.insert(0, {here!r})
from test_progress import *
try:
    with Progress(settings(Path({folder!r}))) as progress:
        progress.begin(['1'])
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print('over')
"""


def on_terminal(columns: int, folder: Path, *, script: str = SCRIPT, **environment: str) -> str:
    """Return what a run writes on a terminal of a width."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    words = {'here': str(Path(__file__).parent), 'folder': str(folder)}
    process = subprocess.Popen(
        [sys.executable, '-c', script.format(**words)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={key: value for key, value in os.environ.items() if key != 'COLUMNS'} | environment,
    )
    os.close(terminal)
    pieces = []
    with os.fdopen(controller, 'rb', buffering=0) as stream:
        while True:
            try:
                piece = stream.read(4096)
            except OSError:  # all ends are closed
                break
            if not piece:
                break
            pieces.append(piece)
    said = b''.join(pieces).decode()
    assert process.wait(60) == 0, said
    return said


@pytest.mark.parametrize('columns', [40, 200])
def test_a_terminal_shows_one_line_that_fits_and_paths_stay_whole(
    tmp_path: Path, columns: int
) -> None:
    said = on_terminal(columns, tmp_path, TERM='xterm', PYTHONIOENCODING='ascii')
    assert '/a/path/' + 30 * 'x' + '.html' in said
    shown = [re.sub('\x1b.*?[a-zA-Z]', '', part) for part in re.split('\r|\n', said)]
    lines = [part for part in shown if 'scans' in part and 'prepara' in part]
    assert lines
    assert max(map(len, lines)) < columns
    assert re.match(r'0/3 scans, 1 failed \(\d s\): prepara', lines[0])
    # What is refreshed is gone at the end, and nothing of it stands before the summary.
    assert re.search('\x1b\\[2K0 of 0 scans done', said)


def test_an_interrupted_run_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    said = on_terminal(40, tmp_path, script=INTERRUPTED, TERM='xterm')
    assert '\x1b[?25l' in said
    # The cursor is back, and the line is gone.
    assert re.fullmatch(r'(\x1b\[\S+?[a-zA-Z]|\s)*over\s*', said.rpartition('\x1b[?25h')[2])


def test_a_terminal_that_cannot_go_back_gets_plain_lines(tmp_path: Path) -> None:
    said = on_terminal(80, tmp_path, TERM='dumb')
    assert '\x1b' not in said
    assert '0/3 scans, 2 failed' in said


def record(label: str, output_dir: Path, **more: Any) -> ScanRecord:
    return ScanRecord(
        **{
            'participant': label,
            'session': None,
            'scan': f'sub-{label}_acq-dixon',
            'region': 'lumbar',
            'status': 'failed' if more.get('problem') else 'done',
            **more,
        }
    )


def test_the_summary_counts_causes_once_and_leaves_out_who_has_no_scan(tmp_path: Path) -> None:
    empty = NothingSelectedError('Nothing.', 'Look.').problem
    records = [record(label, tmp_path, problem=PROBLEM) for label in 'ab']
    records.append(record('c', tmp_path, problem=empty))
    assert summary(records, tmp_path) == [
        '0 of 2 scans done, 2 failed, 1 participant without scans',
        '      2 IncompleteScanError: sub-a_acq-dixon, sub-b_acq-dixon',
        '        Water has no fat. Add it.',
        '      1 NothingSelectedError: sub-c_acq-dixon',
        '        Nothing. Look.',
    ]


def test_a_finished_folder_says_what_the_run_said(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status([str(run.output_dir)]) == ExitCode.FAILURE
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith('2 of 8 scans done, ')
    assert '6 failed' in said[0]
    told = run.participant.stderr.splitlines()
    first = next(place for place, line in enumerate(told) if line.startswith(said[0]))
    assert told[first + 1 : first + len(said) - 1] == said[1:-1]
    assert re.match(r'run-\d{8}T\d{6}.log ended: ', said[-1])
    assert 'Pages: ' in said[-2]
    # What the pages call to be checked is counted.
    from bids_muscle.reports.lights import scan_light
    from bids_muscle.reports.outputs import read_scans

    levels = {each.record.scan: scan_light(each).level for each in read_scans(run.output_dir)}
    count = list(levels.values()).count
    assert f'{count("check")} of them to check' in said[0] or not count('check')
    # The records are enough to say so.
    shutil.copytree(run.output_dir / 'logs', tmp_path / 'logs')
    status([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[0] == said[0]
    lights = {each.scan: each.light for each in read_records(tmp_path)}
    assert lights == {name: '' if level == 'failed' else level for name, level in levels.items()}


def test_a_joined_scan_is_no_further_scan(tmp_path: Path) -> None:
    parts = [record(label, tmp_path, light='check') for label in 'ab']
    joined = record('c', tmp_path, light='ok', parts=tuple(part.scan for part in parts))
    assert summary([*parts, joined], tmp_path) == ['2 of 2 scans done, 2 of them to check']


def test_a_folder_in_which_something_runs_is_not_over(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.output_dir / 'logs', tmp_path / 'logs')
    log = RunLog(tmp_path)
    log.write('1/3 scans, 5 min left: sub-1 prepare began')
    assert status([str(tmp_path)]) == ExitCode.TEMPORARY
    assert '1/3 scans, 5 min left' in capsys.readouterr().out
    log.close()


def test_a_folder_without_a_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status([str(tmp_path)]) == ExitCode.NO_INPUT
    assert 'has no output of bids_muscle' in capsys.readouterr().err
    assert status(['--help']) == ExitCode.OK
    assert status([]) == ExitCode.USAGE


def test_a_short_plan_counts(run: Run) -> None:
    result = call(run.bids_dir, run.output_dir, 'participant', '--dry-run', '--quiet')
    assert result.returncode == ExitCode.OK
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][1:] == ['lumbar', 'water+fat']
    assert len(lines) < 20
    assert ' of 8 scans of 8 participants can be processed, 2 of them finished' in result.stdout
    assert '1 IncompleteScanError: sub-alone_acq-dixon\n' in result.stdout
