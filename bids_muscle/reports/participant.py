"""The page of one participant, made from the derivatives and the logs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_muscle.dataset.names import participant_path
from bids_muscle.dataset.writer import write_text
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.reports.charts import Bar, bar_chart
from bids_muscle.reports.methods import write_methods
from bids_muscle.reports.outputs import (
    MISSING,
    REASON,
    ScanOutputs,
    label_table,
    number,
    read_scans,
)
from bids_muscle.reports.page import (
    data_uri,
    environment,
    format_value,
    heading,
    main_measures,
)

#: Right first, as it stands in the pictures.
SIDES = ('right', 'left')

#: Pictures of a page in their order: name, title, caption, alternative text.
FIGURES = (
    (
        'segmentation',
        'Segmentation',
        'Axial slices from superior to inferior: the first and the last with muscle, the one that '
        'shows most of all muscles, and others between, closer where there are more muscles. They '
        "are seen from below, the patient's right is on the left. z is the position in scanner "
        'space.',
        'Axial slices with the outline of each muscle in its colour.',
    ),
    (
        'fatfraction',
        'Fat fraction',
        'Fat signal as a share of fat and water, with the outlines of the muscles. Black: no '
        'signal, or not defined.',
        'Maps of the fat fraction from 0 to 100 % on the same axial slices.',
    ),
    (
        'extent',
        'Extent',
        'Coronal and sagittal slice through the muscles; white marks show the axial slices above. '
        'A muscle that reaches the edge is cut off by the field of view.',
        'Coronal and sagittal slice with the outline of each muscle in its colour.',
    ),
    (
        'alignment',
        'Atlas',
        'The muscles of the atlas on the scan, after alignment: they should lie about where the '
        'muscles are, not outline them.',
        'Axial slices with the outlines of the muscles of the atlas.',
    ),
    (
        'bias',
        'Bias field',
        'Before and after bias correction, and the field that was divided out, relative to 1.',
        'Axial slices before and after bias correction, and the bias field between them.',
    ),
)
BARE = 'slices'
#: Below this predicted Dice the page asks for a look at the outlines.
DOUBTFUL_DICE = 0.75
UNKNOWN_COLOUR = '#888888'


@dataclass(frozen=True)
class Light:
    """A traffic light: ``level`` is ok, check or failed."""

    level: str
    word: str
    reason: str


def write_participant_report(output_dir: Path, participant: str) -> Path:
    """Write the page of one participant.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    participant
        Label without ``sub-``.

    Returns
    -------
    Path
        ``output_dir/sub-<participant>.html``.

    Raises
    ------
    BadDataError
        If the label cannot be part of a file name.
    OutputError
        If the page cannot be written.
    """
    path = output_dir / participant_path(participant, 'report')
    scans = read_scans(output_dir, participant)
    paragraphs, references = write_methods(scans)
    infos = [scan.record.participant_info for scan in scans if scan.record.participant_info]
    page = environment().get_template('participant.html.j2')
    text = page.render(
        title=f'sub-{participant}',
        script='viewer.js',
        light=participant_light(scans),
        sessions=sorted({scan.record.session for scan in scans if scan.record.session}),
        info=_shown_info(infos[0]) if infos else [],
        scans=[_scan_context(scan, place) for place, scan in enumerate(scans, start=1)],
        paragraphs=paragraphs,
        references=references,
    )
    write_text(text, path)
    return path


def scan_light(scan: ScanOutputs) -> Light:
    """Say whether a scan can be used as it is."""
    if not scan.done:
        problem = scan.record.problem
        return Light('failed', 'Failed', problem.message if problem else 'No reason was recorded.')
    main = main_measures(scan.rows)
    unknown = sum(any(number(row[name]) is None for name in main) for row in scan.rows)
    reasons = []
    if scan.notes:
        reasons.append(_plural(len(scan.notes), 'warning'))
    if unknown:
        reasons.append(f'{unknown} of {_plural(len(scan.rows), "muscle")} with values n/a')
    if reasons:
        return Light('check', 'Check', ', '.join(reasons))
    return Light('ok', 'Complete', 'No warnings, no value missing')


def participant_light(scans: Sequence[ScanOutputs]) -> Light:
    """Say whether a participant's results can be used as they are.

    Examples
    --------
    >>> participant_light([]).reason
    'No scan was found or processed.'
    """
    if not scans:
        return Light('failed', 'No result', 'No scan was found or processed.')
    lights = [scan_light(scan) for scan in scans]
    if len(lights) == 1:
        return lights[0]
    failed = sum(light.level == 'failed' for light in lights)
    check = sum(light.level == 'check' for light in lights)
    if failed == len(lights):
        return Light('failed', 'Failed', f'All {failed} scans failed')
    if failed or check:
        counts = [f'{failed} failed'] * bool(failed) + [f'{check} to check'] * bool(check)
        return Light('check', 'Check', f'Of {len(lights)} scans: {", ".join(counts)}')
    return Light('ok', 'Complete', f'{len(lights)} scans, no warnings, no value missing')


def _scan_context(scan: ScanOutputs, place: int) -> dict[str, Any]:
    record = scan.record
    table = label_table(record)
    colours = {str(label.index): label.color for label in table} if table else {}
    main = main_measures(scan.rows)
    others = tuple(name for name in scan.measures if name not in main)
    return {
        'anchor': f'scan-{place}',
        'record': record,
        'light': scan_light(scan),
        'manual': scan.manual,
        'notes': scan.notes,
        'contrast': scan.contrast,
        'figures': _figures(scan),
        'viewer': _viewer(scan),
        'quality': _quality(scan),
        'image_quality': [
            (definition['LongName'], definition['Description'], scan.quality.get(name))
            for name, definition in (quality_dictionary() if scan.quality else {}).items()
            if name in scan.quality
        ],
        'doubtful_dice': DOUBTFUL_DICE,
        'alignment': scan.alignment,
        'charts': [_chart(scan, column, colours) for column in main[:2]],
        'headings': [heading(column, scan.definitions) for column in main],
        'muscles': _muscles(scan.rows, main, colours),
        'by_thresholds': any(row.get('threshold_method', MISSING) != MISSING for row in scan.rows),
        'remarks': _remarks(scan.rows),
        'other_headings': [heading(column, scan.definitions) for column in others],
        'other_rows': [(row['name'], [row[column] for column in others]) for row in scan.rows],
        'definitions': [
            (heading(name, scan.definitions), scan.definitions[name])
            for name in (*main, *others)
            if name in scan.definitions
        ],
    }


def _figures(scan: ScanOutputs) -> list[dict[str, str]]:
    found = []
    for name, title, caption, alt in FIGURES:
        if name not in scan.figures:
            continue
        bare = scan.figures.get(BARE) if name == 'segmentation' else None
        found.append(
            {
                'name': name,
                'title': title,
                'caption': caption,
                'alt': f'{scan.record.scan}: {alt}',
                'uri': data_uri(scan.figures[name]),
                'bare': data_uri(bare) if bare else '',
            }
        )
    return found


def _quality(scan: ScanOutputs) -> list[tuple[str, list[float | None]]]:
    """Predicted Dice of each muscle, right then left."""
    muscles: dict[str, dict[str, float | None]] = {}
    for row in scan.rows if scan.predicted_dice else ():
        sides = muscles.setdefault(row['muscle'], {})
        sides[row['side']] = scan.predicted_dice.get(row['name'])
    return [(name, [sides.get(side) for side in SIDES]) for name, sides in muscles.items()]


def _viewer(scan: ScanOutputs) -> dict[str, Any] | None:
    """Return what the scroller through all slices shows, or None without its files."""
    table = label_table(scan.record)
    if table is None or not {'scroller', 'outlines'} <= set(scan.figures):
        return None
    try:
        outlines = json.loads(scan.figures['outlines'].read_text(encoding='utf-8'))
        shown = {
            'width': int(outlines['width']),
            'height': int(outlines['height']),
            'last': len(outlines['slices']) - 1,
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    muscles = [
        {'index': str(label.index), 'name': label.name, 'colour': label.color} for label in table
    ]
    sheet = data_uri(scan.figures['scroller'])
    return {
        **shown,
        'muscles': muscles,
        'data': {'outlines': outlines, 'muscles': muscles, 'sheet': sheet},
    }


def _muscles(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], colours: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows of the table of measures: one muscle each, right and left side by side."""
    muscles: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in rows:
        muscles.setdefault(row['muscle'], {})[row['side']] = row
    return [
        {
            'name': name,
            'colours': [
                colours.get(sides[s]['index'], UNKNOWN_COLOUR) for s in SIDES if s in sides
            ],
            'cells': [
                sides[side][column] if side in sides else MISSING
                for column in columns
                for side in SIDES
            ],
        }
        for name, sides in muscles.items()
    ]


def _chart(scan: ScanOutputs, column: str, colours: Mapping[str, str]) -> dict[str, object]:
    bars = [
        Bar(
            row['muscle'],
            row['side'],
            colours.get(row['index'], UNKNOWN_COLOUR),
            number(row[column]),
            format_value(row[column]),
        )
        for row in scan.rows
    ]
    return bar_chart(bars, heading(column, scan.definitions))


def _shown_info(info: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in info.items() if name != 'participant_id']


def _remarks(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Say why values are n/a or limited: the muscles concerned, and the reason."""
    concerned: dict[str, list[str]] = {}
    for row in rows:
        reasons = row.get(REASON, MISSING)
        for reason in reasons.split('; ') if reasons not in ('', MISSING) else ():
            concerned.setdefault(reason, []).append(row['name'])
    return [
        ('all muscles' if len(names) == len(rows) > 1 else ', '.join(names), reason)
        for reason, names in concerned.items()
    ]


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'
