"""Loads on the lumbar spine, from the tables of vertebrae and muscles of a participant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle import __version__
from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.names import name_ending, spine_path
from bids_muscle.dataset.participants import height_m, read_participant_info, sex, weight_kg
from bids_muscle.dataset.writer import read_tsv, write_bytes, write_json, write_tsv
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.errors import Problem, problem_of
from bids_muscle.workflows.resume import remove_page

if TYPE_CHECKING:
    from bids_muscle.settings import Settings

_SPINE = name_ending('morph_spine')
_LEVELS = name_ending('morph_levels', seg=load_label_table('lumbar').segmentation)


def check_loading(settings: Settings) -> None:
    """Raise MissingInputError where loads are asked for and OpenSim is not installed."""
    if settings.loading:
        from bids_muscle.spinal_loads.opensim_model import require_opensim

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
    places = [folder / f'ses-{label}/anat' for label in settings.sessions] or [folder]
    endings = [name_ending(key) for key in ('loads', 'loads_json', 'loads_model')]
    for path in [path for place in places for end in endings for path in place.rglob(f'*{end}')]:
        remove_page(settings.output_dir, participant)  # it shows the loads
        path.unlink()
    if not settings.loading:
        return []
    spines = sorted(path for place in places for path in place.rglob(f'*{_SPINE}'))
    muscles = sorted(path for place in places for path in place.rglob(f'*{_LEVELS}'))
    seen = {path.parent for path in spines}
    # A session without vertebrae has a table that says so.
    for path in (*spines, *(path for path in muscles if path.parent not in seen)):
        try:
            _measure(settings, participant, path)
        except Exception as error:
            problems.append(problem_of(error, f'Computing the loads of {path.name}'))
            print(f'bids_muscle: {problems[-1]}', file=sys.stderr)
    return problems


def _measure(settings: Settings, participant: str, path: Path) -> None:
    from bids_muscle.spinal_loads.table import measure_loads

    # Of several axial scans of a session the first counts.
    beside = next(iter(sorted(path.parent.glob(f'*{_LEVELS}'))), None)
    has_spine = path.name.endswith(_SPINE)
    stem = path.name.removesuffix(_SPINE if has_spine else _LEVELS)
    info = read_participant_info(settings.bids_dir, participant)
    loads = measure_loads(
        read_tsv(path) if has_spine else None,
        read_tsv(beside) if beside else None,
        height_m=height_m(info),
        weight_kg=weight_kg(info),
        sex=sex(info),
        lean=settings.loading_strength == 'lean',
        shift_mm=_shift_mm(beside, stem) if beside else None,
    )
    sidecar = {
        **read_dictionary('loading'),
        **loads.made_from,
        'SourceFiles': list(dict.fromkeys(each.name for each in (path, beside) if each)),
        'SoftwareVersion': f'bids_muscle {__version__}',
    }
    write_tsv(loads.rows, settings.output_dir / spine_path(stem, 'loads'))
    write_json(sidecar, settings.output_dir / spine_path(stem, 'loads_json'))
    if loads.model:
        write_bytes(loads.model, settings.output_dir / spine_path(stem, 'loads_model'))


def _shift_mm(levels: Path, spine: str) -> list[float] | None:
    """Return how far a scan of muscles lies from the sagittal one, if that was measured."""
    sidecar = levels.with_name(levels.name.removesuffix(_LEVELS) + name_ending('levels_json'))
    if not sidecar.is_file():
        return None
    found = json.loads(sidecar.read_text(encoding='utf-8'))
    shift: list[float] | None = found.get('MovementMm')
    return shift if found.get('MovementSpine') == spine else None
