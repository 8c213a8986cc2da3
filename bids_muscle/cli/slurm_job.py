"""The job array of a cohort: which participants, the scripts, the submission."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.dataset.folders import select_participants
from bids_muscle.dataset.writer import write_json, write_text
from bids_muscle.errors import OutputError, SchedulerError, UsageError
from bids_muscle.segmentation.catalogue import packaged_models
from bids_muscle.segmentation.registry import model_folder
from bids_muscle.settings import Settings
from bids_muscle.workflows.participant_run import seems_finished
from bids_muscle.workflows.planning import RunInputs, find_models

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Folder of the jobs in the output folder; each has a number.
JOBS = 'logs/slurm'
#: Slurm's default of MaxArraySize is 1001.
_MOST_TASKS = 1000
#: A container cannot see the limits of Slurm, so they are passed on; the rest
#: is for Python and the system.
_MEMORY_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class JobArray:
    """A job array to be written.

    Parameters
    ----------
    settings
        What each task runs with, for no participant in particular.
    participants
        Labels without ``sub-``.
    container
        Image file or image name, or None to run what is installed here.
    partition, gpus, cpus, memory_gb, time_limit
        What each task asks of Slurm.
    max_jobs
        Tasks that run at once, None for all.
    chunk
        Participants of a task, None for as few as keep the array within Slurm's default limit.
    """

    settings: Settings
    participants: tuple[str, ...]
    container: str | None = None
    partition: str | None = None
    gpus: int = 0
    cpus: int = 2
    memory_gb: float = 8.0
    time_limit: str = '02:00:00'
    max_jobs: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        for name, least in (('cpus', 1), ('max_jobs', 1), ('chunk', 1), ('gpus', 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                option = name.replace('_', '-')
                raise UsageError(f'--{option} is {value}.', f'Give {least} or more.')
        for text in (self.partition or '', self.time_limit, str(self.settings.output_dir)):
            if any(character in text for character in '\n"\\'):
                raise UsageError(
                    f'{text!r} is not allowed in a Slurm script.', 'Use another name.'
                )
        for path, _ in _mounted(self.settings) if self.container else ():
            if not {',', ':'}.isdisjoint(str(path)):
                raise UsageError(
                    f'{path} has a comma or a colon in its name. Containers split what they mount '
                    'there.',
                    'Rename it.',
                )

    @property
    def chunk_size(self) -> int:
        """Participants of a task."""
        return self.chunk or math.ceil(len(self.participants) / _MOST_TASKS)

    @property
    def n_tasks(self) -> int:
        """Tasks of the array."""
        return math.ceil(len(self.participants) / self.chunk_size)


def unfinished(settings: Settings, *, everybody: bool = False) -> tuple[list[str], int]:
    """Return the participants that are left to do, and how many are finished.

    Finished is what :func:`~bids_muscle.workflows.participant_run.seems_finished` calls so. Only
    the task itself notices that an image has changed or has come, so ``everybody`` and
    ``--overwrite`` list all.
    """
    present, _ = select_participants(settings.bids_dir, settings.participants)
    if everybody:
        return present, 0
    inputs = RunInputs.find(settings)
    left = [label for label in present if not seems_finished(inputs, label)]
    return left, len(present) - len(left)


def with_model_paths(settings: Settings) -> Settings:
    """Return settings that name the models of the user by path, to be found from any folder.

    Raises
    ------
    ModelError
        If the model of ``--model``, or none of ``[models]``, is there.
    """
    if settings.model:
        # Of the regions that the user's model is not for it is the package's.
        others = _user_models(replace(settings, models=())).values()
        settings = replace(settings, model=next(iter(others), settings.model))
    if settings.models:
        alone = _user_models(replace(settings, model=None, model_orientation=None))
        named = ((region, alone.get(region, name)) for region, name in settings.models)
        settings = replace(settings, models=tuple(named))
    return settings


def _user_models(settings: Settings) -> dict[str, str]:
    """Return the path of the model by region, but for those of which an image has its own copy."""
    models, _ = find_models(settings)
    return {
        region: str(model.path.resolve())
        for region, model in models.items()
        if not model.path.is_relative_to(packaged_models())
    }


def write_job(job: JobArray) -> Path:
    """Write the scripts of a job into a new folder under ``logs/slurm`` and return it."""
    folder = _new_folder(job.settings.output_dir / JOBS)
    write_text(''.join(f'{label}\n' for label in job.participants), folder / 'participants.txt')
    write_text(job.settings.to_toml(), folder / 'settings.toml')
    write_text(''.join(_array_script(job, folder)), folder / 'array.sh')
    write_text(''.join(_group_script(job, folder)), folder / 'group.sh')
    return folder


def submit(folder: Path) -> tuple[str, str]:
    """Submit the scripts of a folder and return the ids of the array and of the group job.

    Raises
    ------
    SchedulerError
        If there is no Slurm or it refuses.
    """
    array = _sbatch(folder / 'array.sh')
    # After any end: scans that failed are part of what the group level reports.
    group = _sbatch(folder / 'group.sh', f'--dependency=afterany:{array}')
    write_json({'array': array, 'group': group}, folder / 'jobs.json')
    return array, group


def _sbatch(script: Path, *options: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603
            ['sbatch', '--parsable', *options, str(script)],  # noqa: S607 - that of the site
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise SchedulerError(
            'sbatch is not installed.', f'Submit {script} where Slurm is installed.'
        ) from error
    except subprocess.CalledProcessError as error:
        raise SchedulerError(
            f'Slurm refuses {script}: {error.stderr.strip()}.',
            'Change the options and run again, or edit the script and submit it with sbatch.',
        ) from error
    return answer.stdout.strip().partition(';')[0]


def _new_folder(jobs: Path) -> Path:
    try:
        jobs.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            try:
                (jobs / f'{number:04d}').mkdir()
            except FileExistsError:
                continue
            return jobs / f'{number:04d}'
    except OSError as error:
        raise OutputError(
            f'{jobs} cannot be made: {error.strerror}.', 'Make the output folder writable.'
        ) from error
    raise AssertionError  # count() does not end


def _array_script(job: JobArray, folder: Path) -> Iterator[str]:
    array = f'0-{job.n_tasks - 1}' + (f'%{job.max_jobs}' if job.max_jobs else '')
    yield from _header(job, 'bids_muscle', folder / 'task-%a.log', f'--array={array}')
    yield (
        f'cd {shlex.quote(str(folder))}\n'
        f'first=$((SLURM_ARRAY_TASK_ID * {job.chunk_size} + 1))\n'
        f'last=$((first + {job.chunk_size - 1}))\n'
        'mapfile -t labels < <(sed -n "${first},${last}p" participants.txt)\n'
        'rm -f "task-$SLURM_ARRAY_TASK_ID.exit"\n'
        f'{_command(job, folder, "participant")} --participant-label "${{labels[@]}}"\n'
        'code=$?\n'
        'echo "$code" > "task-$SLURM_ARRAY_TASK_ID.exit"\n'
        'exit "$code"\n'
    )


def _group_script(job: JobArray, folder: Path) -> Iterator[str]:
    job = replace(job, gpus=0)  # it only reads tables
    yield from _header(job, 'bids_muscle_group', folder / 'group.log')
    yield f'{_command(job, folder, "group")}\n'


def _header(job: JobArray, name: str, log: Path, *more: str) -> Iterator[str]:
    # In the name of a log, Slurm replaces what follows a % sign.
    folder = str(log.parent).replace('%', '%%')
    options = [
        f'--job-name={name}',
        f'--output="{folder}/{log.name}"',
        f'--cpus-per-task={job.cpus}',
        f'--mem={math.ceil(job.memory_gb * 1e9 / 2**20)}M',
        f'--time={job.time_limit}',
        *more,
    ]
    if job.partition:
        options.append(f'--partition={job.partition}')
    if job.gpus:
        options.append(f'--gpus={job.gpus}')
    yield '#!/bin/bash\n'
    yield from (f'#SBATCH {option}\n' for option in options)


def _command(job: JobArray, folder: Path, level: str) -> str:
    """Return the command of one task as in a script, without the participants."""
    settings = job.settings
    words = [str(settings.bids_dir), str(settings.output_dir), level]
    words += ['--config-file', str(folder / 'settings.toml')]
    if settings.nprocs is None:
        words += ['--nprocs', str(job.cpus)]
    if settings.memory_gb is None:
        words += ['--mem', f'{_MEMORY_SHARE * job.memory_gb:.3f}G']
    if job.gpus and settings.device == 'auto':
        words += ['--device', 'cuda']  # rather an error than CPUs while GPUs lie idle
    return f'{_start(job)} {shlex.join(words)}'


def _start(job: JobArray) -> str:
    """Return the words before the arguments of bids_muscle."""
    if job.container is None:
        return shlex.join([sys.executable, '-m', 'bids_muscle'])
    mounts = [f'{path}:{path}{mode}' for path, mode in _mounted(job.settings)]
    if Path(job.container).exists():
        image = str(Path(job.container).absolute())
        words = ['run', '--cleanenv', *_each('-B', mounts), *(['--nv'] if job.gpus else [])]
        # Where Slurm does not set it, an empty value would hide all GPUs.
        visible = '${CUDA_VISIBLE_DEVICES+--env CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES"}'
        gpus = f' {visible}' if job.gpus else ''
        runtime = '"$(command -v apptainer || command -v singularity)"'
        return f'{runtime} {shlex.join(words)}{gpus} {shlex.quote(image)}'
    words = ['docker', 'run', '--rm', '--network', 'none', *_each('-v', mounts)]
    gpus = ' --gpus all --env CUDA_VISIBLE_DEVICES' if job.gpus else ''
    return f'{shlex.join(words)} --user "$(id -u):$(id -g)"{gpus} {shlex.quote(job.container)}'


def _mounted(settings: Settings) -> list[tuple[Path, str]]:
    """Return what a container has to see, each with ``':ro'`` where it is only read."""
    places = (settings.output_dir, settings.work_dir)
    inputs = [path for paths in settings.inputs().values() for path in paths]
    named = [settings.model, *(name for _, name in settings.models)]
    paths = [Path(name) for name in named if name and Path(name).is_absolute()]
    inputs += dict.fromkeys(model_folder(path) for path in paths)
    return [
        (settings.bids_dir, ':ro'),
        *((place, '') for place in places if place),
        *((path, ':ro') for path in inputs),
    ]


def _each(option: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
