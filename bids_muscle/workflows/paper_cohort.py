"""The people of an experiment: simulated ones, and what the data say about the scanner."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.participants import read_participants
from bids_muscle.engine.resources import allowed_cpus
from bids_muscle.errors import OutputError
from bids_muscle.segmentation.training.recipe import tuples
from bids_muscle.workflows.papers import Paper


def simulate(paper: Paper, scale: str, output: Path, report: Callable[[str], None]) -> Path:
    """Simulate the people of an experiment, unless they are there.

    Sagittal scans of the same people have ``acq-sag`` in their names.

    Returns
    -------
    Path
        The BIDS dataset.
    """
    from bids_muscle.phantom.dataset import write_dataset

    if (output / 'dataset_description.json').is_file():
        return output
    settings = dict(paper.scales[scale]['people'])
    sagittal = settings.pop('sagittal', None)
    settings = tuples(settings)
    report(f'--- {settings["participants"]} simulated people')
    part = output.with_name(f'{output.name}-part')
    n_procs = min(allowed_cpus(), 2)
    write_dataset(part, overwrite=True, n_procs=n_procs, **settings)
    if sagittal:
        side = output.with_name(f'{output.name}-sagittal')
        write_dataset(
            side,
            overwrite=True,
            n_procs=n_procs,
            plane='sagittal',
            **{**settings, **tuples(sagittal)},
        )
        for path in sorted(side.rglob('sub-*/anat/*')):
            name = path.name.replace('_acq-T1w', '').replace('_acq-T2w', '')
            person, rest = name.split('_', 1)
            target = part / path.parent.relative_to(side) / f'{person}_acq-sag_{rest}'
            shutil.move(path, target)
        shutil.rmtree(side)
    try:
        part.replace(output)
    except OSError as error:
        raise OutputError(
            f'The folder {output} cannot be made ({error.strerror}).', 'Choose another --output.'
        ) from error
    return output


def remarks_on_cohort(data: Path) -> list[str]:
    """Say where all people were scanned by one scanner, as far as the dataset tells."""
    people = read_participants(data, list_participants(data)).rows
    sites = {row.get('site', 'n/a') for row in people.values()} - {'n/a', ''}
    if len(sites) > 1:
        return []
    return [
        'All participants are of one site, as far as participants.tsv tells. All tables can be '
        'made, but none says how the networks do on scans of another scanner.'
    ]
