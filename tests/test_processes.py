"""Results come back in order, and no process outlives the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from bids_muscle.errors import BadDataError
from bids_muscle.processes import map_in_processes

PROGRAM = """
import os, sys, time
from bids_muscle.processes import map_in_processes
def job(number):
    os.write(1, f'{os.getpid()}\\n'.encode())  # at once: both write to one pipe
    time.sleep(60)
if __name__ == '__main__':
    list(map_in_processes(job, range(9), 2))
"""


def act(what: int | str) -> int:
    if what == 'die':
        os._exit(9)
    if what == 'fail':
        raise BadDataError('It is broken.', 'Mend it.')
    return 2 * int(what)


def test_results_are_in_order() -> None:
    assert list(map_in_processes(act, range(20), 2)) == list(range(0, 40, 2))


def test_an_error_comes_back_as_it_is() -> None:
    with pytest.raises(BadDataError, match=r'It is broken\. Mend it\.'):
        list(map_in_processes(act, [1, 'fail', 2], 2))


def test_a_killed_process_is_noticed() -> None:
    with pytest.raises(BrokenProcessPool):
        list(map_in_processes(act, [1, 'die', 2], 2))


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_none_is_left_when_the_main_process_ends(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / 'program.py').write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / 'program.py')]
    main = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert main.stdout
    workers = [int(main.stdout.readline()) for _ in range(2)]
    main.send_signal(how)
    main.wait(20)
    deadline = time.monotonic() + 20
    while any(Path(f'/proc/{pid}').exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    main.stdout.close()
