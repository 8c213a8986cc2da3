"""The section of a participant's page about the loads on the lumbar discs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_muscle.dataset.names import name_ending
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.charts import Bar, bar_chart
from bids_muscle.reports.outputs import MISSING, REASON, number, read_output_table
from bids_muscle.reports.page import format_value, heading

_SUFFIX = name_ending('loads')
#: Tasks in their order, with the letter and the colour of their bars.
_TASKS = {'standing': '#56B4E9', 'bent-empty': '#E69F00', 'flexion': '#D55E00'}
_COLUMNS = ('compression_n', 'shear_n', 'moment_n_m')
_REFERENCE = ('reference_low_n', 'reference_high_n')


def load_sections(output_dir: Path, participant: str) -> list[dict[str, Any]]:
    """Return what the page shows of each table of loads of a participant.

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
        'anchor': f'loads-{place}',
        'name': path.name.removesuffix(_SUFFIX),
        'problem': '',
    }
    rows = read_output_table(path, {'task', 'joint', *_COLUMNS, *_REFERENCE, REASON})
    if rows is None:
        return section | {'problem': f'{path.name} is not a table of loads.'}
    definitions = read_dictionary('loading')
    return section | {
        'chart': bar_chart(_bars(rows), heading('compression_n', definitions)),
        'headings': [heading(name, definitions) for name in _COLUMNS],
        'rows': [
            (
                row['task'],
                row['joint'],
                [row[name] for name in _COLUMNS],
                ' to '.join(format_value(row[name]) for name in _REFERENCE)
                if row[_REFERENCE[0]] != MISSING
                else '',
            )
            for row in rows
        ],
        'reasons': list(dict.fromkeys(row[REASON] for row in rows if row[REASON] != MISSING)),
        'definitions': [(heading(name, definitions), definitions[name]) for name in definitions],
    }


def _bars(rows: Sequence[Mapping[str, str]]) -> list[Bar]:
    """Return the compression of each disc, one bar for each task."""
    return [
        Bar(
            joint,
            task,
            colour,
            number(row['compression_n']),
            format_value(row['compression_n']),
        )
        for joint in dict.fromkeys(row['joint'] for row in rows)
        for task, colour in _TASKS.items()
        for row in rows
        if (row['joint'], row['task']) == (joint, task)
    ]
