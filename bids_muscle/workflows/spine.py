"""Vertebrae and discs of other programs, and vertebrae joined with muscles by level."""

from __future__ import annotations

import filecmp
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle import __version__
from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.names import SPINE_TABLE, io_spec, name_ending, session_path, spine_path
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.spine_maps import SpineMaps, find_spine_maps, read_label_names
from bids_muscle.dataset.writer import read_tsv, write_json, write_tsv
from bids_muscle.errors import Problem, problem_of
from bids_muscle.workflows.resume import remove_page

if TYPE_CHECKING:
    import pandas as pd
    from nibabel import Nifti1Image

    from bids_muscle.settings import Settings


def measure_spines(settings: Settings, participant: str) -> list[Problem]:
    """Write a table of vertebrae and discs for each pair of label maps of a participant.

    A map of a person or another program takes the place of that of the sagittal scan of its name,
    also in the table; where only one of the two maps is given, the other is the scan's own. Tables
    of maps that are no longer there are removed. What goes wrong with one is said on standard
    error and stops no other.

    Returns
    -------
    list of Problem
        What went wrong.
    """
    problems = []
    records = read_records(settings.output_dir, participant)
    kept = {settings.output_dir / name for record in records for name in record.outputs}
    for maps in find_spine_maps([*settings.derivatives, settings.output_dir], participant):
        if settings.sessions and maps.session not in settings.sessions:
            continue
        # The table of the scan itself also knows how sure its names are.
        if not any(_is_given(path, maps, settings.output_dir) for path in maps.paths):
            continue
        try:
            _measure(maps, participant, settings.output_dir)
            kept |= {
                settings.output_dir / spine_path(maps.stem, key) for key in io_spec()['spine']
            }
        except Exception as error:
            problems.append(problem_of(error, f'Measuring the spine of {maps.stem}'))
            print(f'bids_muscle: {problems[-1]}', file=sys.stderr)
    if not settings.sessions:
        for path in _written(settings.output_dir, participant, SPINE_TABLE):
            if path not in kept:
                remove_page(settings.output_dir, participant)  # it shows the table
                path.unlink(missing_ok=True)
    return problems


def join_planes(settings: Settings, participant: str) -> list[Problem]:
    """Write, for each session with both, the table of vertebral levels with their muscles.

    Vertebrae are those of the tables of the spine, muscles those of the tables of levels whose
    levels come from vertebrae. Tables of an earlier run that are not written again, as of a
    session that is no longer there, are removed.

    Returns
    -------
    list of Problem
        What went wrong.
    """
    from bids_muscle.measurement.rows import dictionary
    from bids_muscle.measurement.spine import join_levels

    output_dir = settings.output_dir
    records = read_records(output_dir, participant)
    problems = []
    kept: set[Path] = set()
    ending = name_ending('morph_spine')
    for session in sorted({record.session for record in records}, key=str):
        path = output_dir / session_path(participant, session, 'morph_joined')
        sidecar = output_dir / session_path(participant, session, 'morph_joined_json')
        try:
            spines = {
                each.name.removesuffix(ending): read_tsv(each)
                for each in sorted(path.parent.glob(f'*{ending}'))
            }
            alignments = {
                record.scan: json.loads((output_dir / name).read_text(encoding='utf-8'))
                for record in records
                if record.session == session and record.region != SPINE
                for name in record.outputs
                if name.endswith(name_ending('levels_json'))
            }
            muscles = {
                record.scan: read_tsv(output_dir / name)
                for record in records
                if alignments.get(record.scan, {}).get('LevelSource') == 'segmentation'
                for name in record.outputs
                if name.endswith(name_ending('morph_levels'))
            }
            for record in (record for record in records if record.parts):
                _take_joined(record, output_dir, muscles, alignments)
            joined = join_levels(spines, muscles, alignments)
            if joined.empty:
                continue
            write_tsv(joined, path)
            version = {'SoftwareVersion': f'bids_muscle {__version__}'}
            write_json({**dictionary('morph_joined'), **version}, sidecar)
            kept |= {path, sidecar}
        except Exception as error:
            problems.append(problem_of(error, f'Joining vertebrae and muscles of {path.name}'))
            print(f'bids_muscle: {problems[-1]}', file=sys.stderr)
    for path in _written(output_dir, participant, io_spec()['session']):
        if path not in kept:
            path.unlink(missing_ok=True)
    return problems


def _take_joined(
    record: ScanRecord,
    output_dir: Path,
    muscles: dict[str, pd.DataFrame],
    alignments: dict[str, dict[str, Any]],
) -> None:
    """Put a joined scan in the place of its parts, where vertebrae tell the levels of them all.

    It lies as far from the vertebrae as the part that lies farthest.
    """
    used = [name for name in record.parts if name not in record.aside]
    if record.status != 'done' or not set(used) <= muscles.keys():
        return
    each = [alignments[name] for name in used]
    farthest = max(each, key=lambda one: sum(mm**2 for mm in one.get('MovementMm') or ()))
    remarks = [text for one in each for text in one.get('MovementRemarks', ())]
    alignments[record.scan] = {**farthest, 'MovementRemarks': list(dict.fromkeys(remarks))}
    [table] = [name for name in record.outputs if name.endswith(name_ending('morph_levels'))]
    for name in used:
        del muscles[name]
    muscles[record.scan] = read_tsv(output_dir / table)


def _written(output_dir: Path, participant: str, keys: Iterable[str]) -> list[Path]:
    """Return the files of these keys that are there."""
    folder = output_dir / f'sub-{participant}'
    return [path for key in keys for path in folder.rglob(f'*{name_ending(key)}')]


def _is_given(path: Path, maps: SpineMaps, output_dir: Path) -> bool:
    """Say whether a map is another one than that which a scan of this dataset has written."""
    own = (output_dir / spine_path(maps.stem, 'morph_spine')).with_name(path.name)
    if path == own:
        return '_desc-' in path.name
    return not (own.is_file() and filecmp.cmp(own, path, shallow=False))


def _measure(maps: SpineMaps, participant: str, output_dir: Path) -> None:
    from bids_muscle.imaging.conform import load_image
    from bids_muscle.measurement.rows import dictionary
    from bids_muscle.measurement.spine import measure_spine

    def read(path: Path | None) -> tuple[Nifti1Image, dict[int, str]] | None:
        return (load_image(path), read_label_names(path, participant)) if path else None

    table = measure_spine(read(maps.vertebrae), read(maps.discs))
    sources = [path.name for path in maps.paths]
    sidecar = {
        **dictionary('morph_spine'),
        'SourceFiles': sources,
        'SoftwareVersion': f'bids_muscle {__version__}',
    }
    write_tsv(table, output_dir / spine_path(maps.stem, 'morph_spine'))
    write_json(sidecar, output_dir / spine_path(maps.stem, 'morph_spine_json'))
