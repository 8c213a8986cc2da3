"""Ctrl-C while a command begins: no traceback, and nothing is written."""

from __future__ import annotations

import multiprocessing.forkserver
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bids_muscle.engine.worker import start_forkserver
from bids_muscle.errors import ExitCode

#: Presses Ctrl-C when a module is imported, then runs a command.
PROGRAM = """
import os, signal, sys
class Press:
    def find_spec(self, name, path, target=None):
        if name == where:
            os.kill(os.getpid(), signal.SIGINT)
where, command, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, Press())
if __name__ == '__main__':
    from bids_muscle.cli import start
    sys.exit(getattr(start, command)())
"""
COMMANDS = {
    'main': 'bids out participant',
    'atlas': 'build out --region lumbar bids',
    'model': 'list',
    'norms': 'build out --output norms.json --population people',
    'phantom': 'out --participants 1',
    'report': 'pack out out.zip',
    'segment': 'T2w=image.nii.gz labels.nii.gz',
    'slurm': 'bids out --submit',
    'status': 'out',
}


def press(folder: Path, where: str, command: str) -> tuple[int, str]:
    words = COMMANDS[command].split()
    (folder / 'bids').mkdir()
    (folder / 'bids/dataset_description.json').write_text('{"Name": "", "BIDSVersion": "1.10.0"}')
    ended = subprocess.run(
        [sys.executable, '-c', PROGRAM, where, command, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert 'Traceback' not in ended.stderr
    assert [path.name for path in folder.iterdir() if path.name != 'out'] == ['bids']
    assert not list(folder.glob('out/*'))
    return ended.returncode, ended.stderr


def test_each_command_begins_in_the_module_that_is_ready_for_it() -> None:
    text = (Path(__file__).parents[2] / 'setup.py').read_text()
    scripts = dict(re.findall(r"'bids_muscle-?(\w*) = bids_muscle\.cli\.start:(\w+)'", text))
    assert scripts == {'' if name == 'main' else name: name for name in COMMANDS}
    assert len(scripts) == text.count(' = bids_muscle.')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('where', ['argparse', 'bids_muscle.errors'])
def test_among_the_first_imports_it_ends_the_process(
    tmp_path: Path, where: str, command: str
) -> None:
    assert press(tmp_path, where, command) == (-signal.SIGINT, '')  # 130 to a shell


@pytest.mark.parametrize(
    ('command', 'where'),
    [
        ('main', 'bids_muscle.dataset.index'),
        ('main', 'numpy'),
        ('model', 'bids_muscle.segmentation.bundle'),
        ('phantom', 'numpy'),
        ('phantom', 'scipy.ndimage'),
    ],
)
def test_later_it_is_said(tmp_path: Path, where: str, command: str) -> None:
    code, errors = press(tmp_path, where, command)
    assert code in (-signal.SIGINT, ExitCode.TEMPORARY)
    assert code < 0 or 'Interrupted' in errors


def test_the_server_of_workers_does_not_hear_it() -> None:
    """It would print a traceback from among its imports; its parent stops it."""
    start_forkserver()
    number = multiprocessing.forkserver._forkserver._forkserver_pid
    status = Path(f'/proc/{number}/status').read_text()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith('SigBlk'))
    assert int(blocked, 16) & 1 << (signal.SIGINT - 1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
