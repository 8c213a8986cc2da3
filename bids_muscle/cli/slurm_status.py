"""What became of the jobs of ``bids_muscle-slurm``, from their files and Slurm's queue."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bids_muscle.cli.slurm_job import JOBS
from bids_muscle.dataset.records import read_records
from bids_muscle.errors import ExitCode, MissingInputError


def print_status(output_dir: Path) -> ExitCode:
    """Print how far the cohort of an output folder is, and every failure.

    Returns
    -------
    ExitCode
        OK if everybody is done, TEMPORARY while something runs or is left to run, FAILURE if all
        has run and something failed.

    Raises
    ------
    MissingInputError
        If no job was written for the folder.
    """
    folders = sorted((output_dir / JOBS).glob('[0-9]*'))
    if not folders:
        raise MissingInputError(
            f'{output_dir} has no jobs of bids_muscle-slurm.', 'Write some, or check the path.'
        )
    listed = {label for folder in folders for label in _lines(folder / 'participants.txt')}
    records = [each for each in read_records(output_dir) if each.participant in listed]
    failed = [record for record in records if record.status != 'done']
    ended = {record.participant for record in records}
    bad = {record.participant for record in failed}
    print(
        f'participants: {len(listed)} listed, {len(ended - bad)} done, {len(bad)} failed, '
        f'{len(listed - ended)} to come'
    )
    active = _print_job(folders[-1])
    for record in failed:
        print(f'{record.scan}: {record.problem}')
    if active or listed - ended:
        return ExitCode.TEMPORARY
    return ExitCode.FAILURE if failed else ExitCode.OK


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
