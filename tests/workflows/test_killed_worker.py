"""A step whose process is killed, as the kernel does when memory runs out, in a real run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bids_muscle.errors import ExitCode


def test_a_killed_step_is_a_named_failure_and_the_others_finish(
    phantom: Path, tmp_path: Path
) -> None:
    output_dir, work_dir = tmp_path / 'out', tmp_path / 'work'
    words = [phantom, output_dir, 'participant', '--work-dir', work_dir, '--nprocs', 2]
    process = subprocess.Popen(
        [sys.executable, '-m', 'bids_muscle', *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
    )
    victim = _wait_for_process_in(work_dir, 'sub_01_acq_dixon/segment', process)
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=500)

    assert process.returncode == ExitCode.TEMPORARY, errors
    records = {
        path.parent.name: json.loads(path.read_text())
        for path in output_dir.glob('logs/*/*_acq-dixon.json')
    }
    assert records['sub-02']['status'] == 'done'
    assert records['sub-01']['status'] == 'failed'
    problem = records['sub-01']['problem']
    assert 'segment' in problem['message']
    assert 'SIGKILL' in problem['message']
    assert 'memory' in problem['remedy']
    assert not list(output_dir.glob('sub-01/anat/*'))
    assert 'SIGKILL' in (output_dir / 'sub-01.html').read_text()


def _wait_for_process_in(work_dir: Path, step: str, run: subprocess.Popen[str]) -> int:
    """Return the process that works in the folder of a step, as soon as there is one."""
    while run.poll() is None:
        for path in Path('/proc').glob('[0-9]*/cwd'):
            try:
                folder = path.readlink()
            except OSError:
                continue
            if folder.is_relative_to(work_dir) and str(folder).endswith(step):
                return int(path.parent.name)
        time.sleep(0.02)
    raise AssertionError(f'the run ended before the step {step}: {run.communicate()[1]}')
