"""The section of a participant's page about the discs and the curvature of the spine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bids_muscle.dataset.names import name_ending
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.outputs import REASON, read_output_table
from bids_muscle.reports.page import grouped_reasons, heading

_SUFFIX = name_ending('morph_spine')
#: Which of the two heights of a disc to trust, for pages.
DISC_HEIGHT_NOTE = (
    'On true label maps of simulated discs the disc height is 1.9 mm too large on average and the '
    'mean disc height 0.5 mm too small (docs/benchmarks.md): the mean disc height is nearer the '
    'truth. Take the disc height to compare with Hess 2022.'
)
#: What is shown of each disc.
COLUMNS = ('height_mm', 'mean_height_mm', 'depth_mm', 'tilt_deg', 'volume_ml')


def spine_sections(output_dir: Path, participant: str) -> list[dict[str, Any]]:
    """Return what the page shows of each table of vertebrae and discs of a participant.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label without ``sub-``.

    Returns
    -------
    list of dict
        By name of the table; a table that cannot be read has ``problem`` instead of rows.
    """
    paths = sorted((output_dir / f'sub-{participant}').rglob(f'*{_SUFFIX}'))
    return [_section(path, place) for place, path in enumerate(paths, start=1)]


def _section(path: Path, place: int) -> dict[str, Any]:
    section: dict[str, Any] = {
        'anchor': f'spine-{place}',
        'name': path.name.removesuffix(_SUFFIX),
        'table': path.name,
        'problem': '',
    }
    rows = read_output_table(path, {'kind', 'name', *COLUMNS, REASON})
    if rows is None:
        return section | {'problem': f'{path.name} is not a table of vertebrae and discs.'}
    definitions = read_dictionary('morph_spine')
    return section | {
        'maker': _maker(path.with_suffix('.json')),
        'headings': [heading(name, definitions) for name in COLUMNS],
        'discs': [
            (row['name'], [row[name] for name in COLUMNS]) for row in rows if row['kind'] == 'disc'
        ],
        'note': DISC_HEIGHT_NOTE,
        'vertebrae': [row['name'] for row in rows if row['kind'] == 'vertebra'],
        'lordosis': [(row['name'], row['tilt_deg']) for row in rows if row['kind'] == 'lordosis'],
        'remarks': grouped_reasons(rows, 'all vertebrae and discs'),
        'definitions': [(heading(name, definitions), definitions[name]) for name in COLUMNS],
    }


def _maker(sidecar: Path) -> str:
    """Say who made the label maps, to follow "the label maps"; empty where they were given."""
    try:
        content = json.loads(sidecar.read_text(encoding='utf-8'))
        model, manual = str(content.get('ModelName', '')), content.get('Manual') is True
    except (OSError, ValueError, AttributeError):
        model, manual = '', False
    network = f'of the model {model}' if model else ''
    if manual:
        return ', '.join(filter(None, ['that a person corrected', network]))
    return network
