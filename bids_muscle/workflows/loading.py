"""Loads on the lumbar spine, from the tables of vertebrae and muscles of a participant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle import __version__
from bids_muscle.dataset.names import spine_path
from bids_muscle.dataset.participants import height_m, read_participant_info, sex, weight_kg
from bids_muscle.dataset.writer import write_json, write_tsv
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.errors import Problem
from bids_muscle.workflows.planning import unforeseen

if TYPE_CHECKING:
    import pandas as pd

    from bids_muscle.settings import Settings

_SPINE = '_desc-spine_morph.tsv'
_LEVELS = '*_seg-lumbarmuscles_desc-levels_morph.tsv'


def check_loading(settings: Settings) -> None:
    """Raise MissingInputError where loads are asked for and OpenSim is not installed."""
    if settings.loading:
        from bids_muscle.loading.opensim_model import require_opensim

        require_opensim()


def measure_participant_loads(settings: Settings, participant: str) -> list[Problem]:
    """Write the loads for each table of vertebrae of a participant, where they are asked for.

    Loads of an earlier run are removed. What goes wrong with one table is said on standard error
    and stops no other.

    Returns
    -------
    list of Problem
        What went wrong.
    """
    problems = []
    folder = settings.output_dir / f'sub-{participant}'
    anat = [folder / f'ses-{label}/anat' for label in settings.sessions] or [folder]
    for path in sorted(found for each in anat for found in each.rglob('*_loads.*')):
        path.unlink()
    tables = sorted(found for each in anat for found in each.rglob(f'*{_SPINE}'))
    for path in tables if settings.loading else ():
        try:
            _measure(settings, participant, path)
        except Exception as error:
            problems.append(unforeseen(error, f'computing the loads of {path.name}'))
            print(f'bids_muscle: {problems[-1]}', file=sys.stderr)
    return problems


def _measure(settings: Settings, participant: str, path: Path) -> None:
    from bids_muscle.loading.table import measure_loads

    # Of several axial scans of a session the first counts.
    beside = next(iter(sorted(path.parent.glob(_LEVELS))), None)
    info = read_participant_info(settings.bids_dir, participant)
    rows, made = measure_loads(
        _read(path),
        _read(beside) if beside else None,
        height_m=height_m(info),
        weight_kg=weight_kg(info),
        sex=sex(info),
        lean=settings.loading == 'lean',
    )
    stem = path.name.removesuffix(_SPINE)
    sidecar = {
        **read_dictionary('loading'),
        **made,
        'SourceFiles': [each.name for each in (path, beside) if each],
        'SoftwareVersion': f'bids_muscle {__version__}',
    }
    write_tsv(rows, settings.output_dir / spine_path(stem, 'loads'))
    write_json(sidecar, settings.output_dir / spine_path(stem, 'loads_json'))


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(path, sep='\t', na_values='n/a', keep_default_na=False)
