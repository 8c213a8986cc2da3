"""Write a simulated cohort as a BIDS dataset with its truth, one participant per process."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import OutputError, WorkerDiedError
from bids_muscle.phantom import bids, truth
from bids_muscle.phantom.anatomy import DISC_OFFSET
from bids_muscle.phantom.effects import Effects, load_effects
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.participant import TRUTH, write_participant
from bids_muscle.phantom.person import Person, draw_person
from bids_muscle.phantom.shapes import load_atlas
from bids_muscle.processes import map_in_processes
from bids_muscle.temporary import locked, locked_unused

#: The sample dataset: settings of :func:`write_dataset` that are the same for everybody.
SAMPLE: dict[str, Any] = {
    'participants': 4,
    'seed': 1,
    'shape': (180, 144, 8),
    'voxel_mm': (1.8, 1.8, 16.0),
}


def write_dataset(
    bids_dir: Path | str,
    *,
    participants: int,
    effects: Effects | None = None,
    overwrite: bool = False,
    n_procs: int = 1,
    **settings: Any,
) -> Path:
    """Write a simulated cohort.

    Parameters
    ----------
    bids_dir
        Folder to make. It appears only when everything in it is complete.
    participants
        Number of people.
    effects
        Cohort model; that of the package by default.
    overwrite
        Replace a folder that is not empty.
    n_procs
        Processes; the files do not depend on it.
    **settings
        Further fields of :class:`~bids_muscle.phantom.options.Options`, such as ``regions``,
        ``contrasts``, ``sessions``, ``seed``, ``shape``, ``voxel_mm``, ``snr``, ``bias``.

    Returns
    -------
    The folder.

    Raises
    ------
    UsageError
        If a setting is unknown or impossible; nothing is written then.
    OutputError
        If the folder cannot be made, or is not empty.
    WorkerDiedError
        If a process was killed; nothing is left behind.
    """
    options = Options(participants=participants, effects=effects or load_effects(), **settings)
    target = Path(bids_dir).absolute()
    _sweep(target)
    _check_target(target, overwrite)
    before = _listing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_staging_prefix(target), dir=target.parent))
    except OSError as error:
        raise OutputError(
            f'The folder {target} cannot be made ({error.strerror}).',
            'Choose a folder in which you may write.',
        ) from error
    try:
        with locked(staging):
            # mkdtemp gives 0700; the dataset gets the permissions of any new folder.
            umask = os.umask(0)
            os.umask(umask)
            staging.chmod(0o777 & ~umask)
            _fill(staging, options, n_procs)
            _publish(staging, target, before)
    except OSError as error:
        raise OutputError(
            f'The dataset {target} cannot be written ({error.strerror}).',
            'Check the free space and the permissions.',
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _staging_prefix(target: Path) -> str:
    return f'.{target.name}.phantom-'


def _sweep(target: Path) -> None:
    """Remove what killed runs for the same folder left; an older dataset gets its place back."""
    for folder in target.parent.glob(f'{glob.escape(_staging_prefix(target))}*'):
        with suppress(OSError), locked_unused(folder):
            if folder.suffix == '.old' and not target.exists():
                folder.replace(target)
            else:
                shutil.rmtree(folder)


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of everything in a folder, to see whether it has changed."""
    if not folder.is_dir():
        return {}
    found = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob('*')}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}


def _publish(staging: Path, target: Path, before: dict[str, tuple[int, int]]) -> None:
    """Put the finished folder in place; an older one goes only when the new one is there.

    Raises
    ------
    OutputError
        If somebody has written there since the start.
    """
    old = staging.with_name(f'{staging.name}.old')
    if before:
        target.replace(old)
    try:
        if before and _listing(old) != before:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        staging.replace(target)  # onto nothing or an empty folder; refused where files are
    except OSError as error:
        if old.exists():
            old.replace(target)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(
                f'The folder {target} has changed since the start, so it is left alone.',
                'Choose another folder, or run again when nobody writes there.',
            ) from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(f'{target} is a file.', 'Choose another folder.')
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise OutputError(
                f'The folder {target} is not empty.', 'Choose another folder or add --overwrite.'
            )
        if not _is_phantom(target):
            raise OutputError(
                f'The folder {target} was not written by bids_muscle-phantom.',
                'Delete it yourself if it is not needed, or choose another folder.',
            )


def _is_phantom(target: Path) -> bool:
    try:
        text = (target / 'dataset_description.json').read_text(encoding='utf-8')
    except OSError:
        return False
    return 'bids_muscle-phantom' in text


def _fill(root: Path, options: Options, n_procs: int) -> None:
    cohort = options.effects.cohort
    people = [
        draw_person(
            options.seed,
            index,
            age_years=(cohort['age_mean_years'], cohort['age_sd_years']),
            female_share=cohort['female_share'],
            bmi=(cohort['bmi_mean'], cohort['bmi_sd']),
            sites=tuple(options.effects.sites),
            digits=max(2, len(str(options.participants))),
        )
        for index in range(1, options.participants + 1)
    ]
    _write_head(root, people, options)
    jobs = [(root, person, options) for person in people]
    rows = [row for rows in _run_all(jobs, n_procs) for row in rows]
    columns = truth.SCAN_COLUMNS | truth.MUSCLE_COLUMNS
    bids.write_text(root / TRUTH / 'group_muscles.tsv', truth.format_table(rows, columns))
    bids.write_json(root / TRUTH / 'group_muscles.json', truth.describe_columns(columns))


def _run_all(jobs: list[tuple[Path, Person, Options]], n_procs: int) -> list[list[truth.Row]]:
    """Run the participants, each in one of several processes; the order of the rows is kept."""
    workers = min(n_procs, len(jobs))
    if workers <= 1:
        return [_run_job(job) for job in jobs]
    try:
        return list(map_in_processes(_run_job, jobs, workers))
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            'A process that simulated a participant was killed, most likely for lack of memory.',
            'Run again with fewer processes (--nprocs); each needs about 1 GB.',
        ) from error


def _run_job(job: tuple[Path, Person, Options]) -> list[truth.Row]:
    return write_participant(*job)


def _write_head(root: Path, people: list[Person], options: Options) -> None:
    """Write the files of the dataset as a whole."""
    bids.write_json(
        root / 'dataset_description.json',
        bids.dataset_description('Simulated muscle MRI', derivative=False),
    )
    bids.write_text(
        root / 'README',
        'Simulated scans of the neck or lumbar spine, written by bids_muscle-phantom.\n'
        'No person was scanned. The true label maps, volumes and fat fractions are in\n'
        f'{TRUTH.as_posix()}.\n',
    )
    rows: list[truth.Row] = [
        {
            'participant_id': f'sub-{person.label}',
            'age': person.age_years,
            'sex': person.sex,
            'height': person.height_cm,
            'weight': person.weight_kg,
            'bmi': person.bmi,
            'site': person.site,
        }
        for person in people
    ]
    columns = {
        'participant_id': ('Participant', ''),
        'age': ('Age at the first session', 'year'),
        'sex': ('Sex', ''),
        'height': ('Height', 'cm'),
        'weight': ('Weight', 'kg'),
        'bmi': ('Body mass index', 'kg/m2'),
        'site': ('Site of the scanner', ''),
    }
    bids.write_text(root / 'participants.tsv', truth.format_table(rows, columns))
    dictionary: dict[str, Any] = truth.describe_columns(columns)
    dictionary['sex']['Levels'] = {'F': 'female', 'M': 'male'}
    bids.write_json(root / 'participants.json', dictionary)
    if options.sessions > 1:
        for person in people:
            lines = [
                f'ses-{k + 1}\t{k * bids.DAYS_BETWEEN_SESSIONS}' for k in range(options.sessions)
            ]
            stem = f'sub-{person.label}'
            text = '\n'.join(['session_id\tdays_since_first', *lines]) + '\n'
            bids.write_text(root / stem / f'{stem}_sessions.tsv', text)
    if options.dicom:
        # What dcm2bids leaves when it fills the dataset.
        bids.write_text(root / '.bidsignore', 'tmp_dcm2bids\n')
    elif options.naming == 'musclemap':
        bids.write_text(root / '.bidsignore', '\n'.join(bids.MUSCLEMAP_IGNORE) + '\n')
    bids.write_json(
        root / TRUTH / 'dataset_description.json',
        bids.dataset_description('Truth of the simulated scans', derivative=True),
    )
    bids.write_text(root / TRUTH / '.bidsignore', '*_morph.*\n*_levels.*\ngroup_*\n')
    for region in options.regions:
        _write_lookups(root / TRUTH, region)


def _write_lookups(folder: Path, region: str) -> None:
    table = load_label_table(region)
    lines = ['index\tname\tcolor', *(f'{x.index}\t{x.name}\t{x.color}' for x in table)]
    bids.write_text(folder / f'seg-{table.segmentation}_dseg.tsv', '\n'.join(lines) + '\n')
    names = load_atlas(region).level_names
    rows = [f'{k + 1}\t{name}' for k, name in enumerate(names)]
    rows += [
        f'{DISC_OFFSET + k}\t{names[k]}-{names[k + 1]}'
        for k in range(load_atlas(region).fused_from - load_atlas(region).first_level)
    ]
    bids.write_text(
        folder / f'seg-{region}spine_dseg.tsv', '\n'.join(['index\tname', *rows]) + '\n'
    )
