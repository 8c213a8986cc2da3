"""Vertebrae and discs, measured from label maps that other programs have made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle import __version__
from bids_muscle.dataset.names import io_spec, spine_path
from bids_muscle.dataset.spine_maps import SpineMaps, find_spine_maps, read_label_names
from bids_muscle.dataset.writer import write_json, write_tsv
from bids_muscle.errors import Problem
from bids_muscle.workflows.planning import unforeseen

if TYPE_CHECKING:
    from nibabel import Nifti1Image

    from bids_muscle.settings import Settings


def measure_spines(settings: Settings, participant: str) -> list[Problem]:
    """Write a table of vertebrae and discs for each pair of label maps of a participant.

    Tables of maps that are no longer there are removed. What goes wrong with one is said on
    standard error and stops no other.

    Returns
    -------
    list of Problem
        What went wrong.
    """
    problems, kept = [], set()
    for maps in find_spine_maps(settings.derivatives, participant):
        if settings.sessions and maps.session not in settings.sessions:
            continue
        try:
            _measure(maps, participant, settings.output_dir)
            kept |= {
                settings.output_dir / spine_path(maps.stem, key) for key in io_spec()['spine']
            }
        except Exception as error:
            problems.append(unforeseen(error, f'measuring the spine of {maps.stem}'))
            print(f'bids_muscle: {problems[-1]}', file=sys.stderr)
    if not settings.sessions:
        for path in (settings.output_dir / f'sub-{participant}').rglob('*_desc-spine_morph.*'):
            if path not in kept:
                path.unlink(missing_ok=True)
    return problems


def _measure(maps: SpineMaps, participant: str, output_dir: Path) -> None:
    from bids_muscle.imaging.conform import load_image
    from bids_muscle.measurement.rows import dictionary
    from bids_muscle.measurement.spine import measure_spine

    def read(path: Path | None) -> tuple[Nifti1Image, dict[int, str]] | None:
        return (load_image(path), read_label_names(path, participant)) if path else None

    table = measure_spine(read(maps.vertebrae), read(maps.discs))
    sources = [path.name for path in (maps.vertebrae, maps.discs) if path]
    sidecar = {
        **dictionary('morph_spine'),
        'SourceFiles': sources,
        'SoftwareVersion': f'bids_muscle {__version__}',
    }
    write_tsv(table, output_dir / spine_path(maps.stem, 'morph_spine'))
    write_json(sidecar, output_dir / spine_path(maps.stem, 'morph_spine_json'))
