"""What became of the jobs of ``bids_muscle-slurm``, from their files and Slurm's queue."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bids_muscle.cli.slurm_job import JOBS
from bids_muscle.config import build_settings, read_config
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.durations import duration
from bids_muscle.workflows.planning import RunInputs


def print_jobs(output_dir: Path, every: Sequence[ScanRecord]) -> bool:
    """Print how far the jobs of an output folder are; return whether some are left to run.

    Parameters
    ----------
    output_dir
        The derivatives dataset, in which jobs were written.
    every
        Records of all its scans.
    """
    folders = sorted((output_dir / JOBS).glob('[0-9]*'))
    if not folders:
        return False
    listed = {label for folder in folders for label in _lines(folder / 'participants.txt')}
    records = [each for each in every if each.participant in listed]
    ended = {record.participant for record in records} - _outdated(folders[-1], records)
    bad = {record.participant for record in records if record.status != 'done'} & ended
    parts = [f'participants: {len(listed)} listed', f'{len(ended - bad)} done']
    parts += [f'{len(bad)} failed', f'{len(listed - ended)} to come']
    left_s = _left_s(output_dir, folders[-1], listed - ended)
    print(', '.join([*parts, *([f'{duration(left_s)} left'] if left_s else [])]))
    return _print_job(folders[-1]) or bool(listed - ended)


def _outdated(folder: Path, records: Sequence[ScanRecord]) -> set[str]:
    """Return who is listed in a job and has a record that it will make anew.

    Participants of a task that has not begun have the records of an earlier run.
    """
    places = dict.fromkeys(('bids_dir', 'output_dir'), folder)  # neither decides
    config = read_config(folder / 'settings.toml')
    inputs = RunInputs.find(build_settings({**places, 'level': 'participant'}, config))
    old = {record.participant for record in records if not inputs.fits(record)}
    return old & set(_lines(folder / 'participants.txt'))


def _left_s(output_dir: Path, folder: Path, to_come: Collection[str]) -> float | None:
    """Return the time left (s) at the pace since the job was submitted, or None."""
    try:
        began_s = (folder / 'jobs.json').stat().st_mtime
    except OSError:
        return None
    places = (output_dir / f'logs/sub-{label}' for label in _lines(folder / 'participants.txt'))
    times = [place.stat().st_mtime for place in places if place.is_dir()]
    ended = sum(time_s > began_s for time_s in times)
    return (time.time() - began_s) / ended * len(to_come) if ended else None


def _print_job(folder: Path) -> bool:
    """Print what became of the tasks of a job; return whether Slurm still has some of them."""
    states = _queue(folder)
    codes = {
        int(path.stem.removeprefix('task-')): ' '.join(_lines(path))
        for path in folder.glob('task-*.exit')
    }
    began = {int(path.stem.removeprefix('task-')) for path in folder.glob('task-*.log')}
    queued = ', '.join(
        f'{n} {state.lower()}' for state, n in sorted(Counter(states.values()).items())
    )
    print(f'job {folder.name}: {len(codes)} tasks ended; in the queue: {queued or "none"}')
    for task in sorted(began | set(codes)):
        code = codes.get(task)
        if code == '0' or (code is None and str(task) in states):
            continue
        end = f'exit code {code}' if code else 'killed by Slurm (memory, time) or by hand'
        print(f'task {task}: {end}; {folder / f"task-{task}.log"}')
    return bool(states)


def _queue(folder: Path) -> Mapping[str, str]:
    """Return the state of each task that Slurm has not ended, by number, and of the group job."""
    try:
        jobs = json.loads((folder / 'jobs.json').read_text(encoding='utf-8'))
        query = ['squeue', '--noheader', '--array', '--format=%A %K %i %T']
        query.append(f'--jobs={jobs["array"]},{jobs["group"]}')
        answer = subprocess.run(query, capture_output=True, text=True)  # noqa: S603
    except (OSError, ValueError):  # not submitted, or no Slurm here
        return {}
    lines = [line.split() for line in answer.stdout.splitlines()]
    return {'group' if task == 'N/A' else task: state for _, task, _, state in lines}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8').split()
    except OSError:
        return []
