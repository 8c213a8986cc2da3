"""The measures of a scan on the page of a participant: tables, charts, remarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from bids_muscle.anatomy.labels import REGIONS, UNSIDED, load_label_table
from bids_muscle.errors import PARSE_ERRORS
from bids_muscle.measurement.muscle import SCAN
from bids_muscle.reports.charts import Bar, SideHistogram, bar_chart, histogram_charts
from bids_muscle.reports.norms import Norms
from bids_muscle.reports.outputs import MISSING, ScanOutputs, number
from bids_muscle.reports.page import format_value, grouped_reasons, heading, main_measures
from bids_muscle.reports.percentiles import Cohort
from bids_muscle.reports.rows import cells_of

#: Right first, as in the pictures.
SIDES = ('right', 'left')

#: Columns with the difference of the sides, by the measure they are about. Those of a threshold
#: are about the one that ``threshold_method`` names.
ASYMMETRIES = {
    'mfi_ratio_of_means_pct': 'mfi_asymmetry_points',
    'volume_ml': 'volume_asymmetry_pct',
}

UNKNOWN_COLOUR = '#888888'


def measures_content(scan: ScanOutputs, reference: Norms | Cohort | None) -> dict[str, Any]:
    """Return what the template needs for the measures of a scan.

    Parameters
    ----------
    scan
        The scan.
    reference
        Norms, or the measures of all scans; None before the group level has run.
    """
    colours = {str(label.index): label.color for label in scan.table or ()}
    main = main_measures(scan.rows)
    others = tuple(name for name in scan.measures if name not in main)
    muscles, compared = _muscles(scan, main, colours, reference)
    return {
        'histograms': _histograms(scan, colours),
        'quality': _quality(scan),
        'charts': [_chart(scan, column, colours) for column in main[:2]],
        'headings': [
            (heading(column, scan.definitions), _asymmetry(scan, column)) for column in main
        ],
        'muscles': muscles,
        'centiles': reference.explain(scan, compared) if reference and compared else '',
        'norm_remark': reference.remark(scan) if isinstance(reference, Norms) else '',
        'extent': _extent(scan.rows),
        'by_thresholds': any(row.get('threshold_method', MISSING) != MISSING for row in scan.rows),
        'remarks': grouped_reasons(scan.rows),
        'other_headings': [heading(column, scan.definitions) for column in others],
        'other_rows': [(row['name'], [row[column] for column in others]) for row in scan.rows],
        'definitions': [
            (heading(name, scan.definitions), scan.definitions[name])
            for name in (*main, *others)
            if name in scan.definitions
        ],
    }


def _histograms(scan: ScanOutputs, colours: Mapping[str, str]) -> list[dict[str, object]]:
    """Lay out the histograms of the fat fraction, one for each muscle with both sides."""
    try:
        text = scan.figures['histograms'].read_text(encoding='utf-8')
        counts = {
            label: [int(count) for count in each] for label, each in json.loads(text).items()
        }
    except (OSError, *PARSE_ERRORS, KeyError, TypeError, AttributeError):
        return []
    muscles: dict[str, list[SideHistogram]] = {}
    for row in scan.rows:
        histogram = counts.get(row['index'], [])
        if sum(histogram):
            colour = colours.get(row['index'], UNKNOWN_COLOUR)
            muscles.setdefault(row['muscle'], []).append(
                SideHistogram(row['side'], colour, tuple(histogram))
            )
    return histogram_charts(muscles)


def _quality(scan: ScanOutputs) -> list[tuple[str, list[float | None]]]:
    """Predicted Dice of each muscle, right then left."""
    muscles: dict[str, dict[str, float | None]] = {}
    for row in scan.rows if scan.predicted_dice else ():
        sides = muscles.setdefault(row['muscle'], {})
        sides[row['side']] = scan.predicted_dice.get(row['name'])
    return [(name, [sides.get(side) for side in SIDES]) for name, sides in muscles.items()]


def _asymmetry(scan: ScanOutputs, column: str) -> str:
    """Return the column with the difference of the sides of a measure, or nothing."""
    by_method = {f'fat_{row.get("threshold_method")}_pct' for row in scan.rows}
    name = 'threshold_asymmetry_points' if by_method == {column} else ASYMMETRIES.get(column, '')
    return name if name in scan.measures else ''


def _muscles(
    scan: ScanOutputs,
    columns: Sequence[str],
    colours: Mapping[str, str],
    reference: Norms | Cohort | None,
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the table of measures, and of how many at most centiles are.

    A row is a muscle; its cells are the right and the left value of each measure and, where it
    has one, the difference of the sides. What has no side has one cell over all of these.
    """
    compared = 0
    muscles: dict[tuple[str, bool], dict[str, Mapping[str, str]]] = {}
    for row in scan.rows:
        muscles.setdefault((row['muscle'], row['side'] == UNSIDED), {})[row['side']] = row
    rows = []
    for (name, unsided), sides in muscles.items():
        cells: list[dict[str, Any]] = []
        own_sides = (UNSIDED,) if unsided else SIDES
        for column in columns:
            difference = _asymmetry(scan, column)
            span = len(SIDES) + bool(difference) if unsided else 1
            for side in own_sides:
                text = sides[side][column] if side in sides else MISSING
                rank = None
                if reference and side in sides:
                    rank = reference.centile(scan, sides[side], column)
                    compared = max(compared, rank.n if rank else 0)
                first = side == own_sides[0]
                centile = rank.text if rank else ''
                cells.append({'text': text, 'rank': centile, 'first': first, 'span': span})
            if difference and not unsided:
                text = next(iter(sides.values()))[difference]
                cells.append({'text': text, 'rank': '', 'first': False, 'span': 1})
        shown = [colours.get(sides[s]['index'], UNKNOWN_COLOUR) for s in own_sides if s in sides]
        rows.append({'name': name, 'colours': shown, 'cells': cells})
    return rows, compared


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


def extents_of(rows: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the levels within which muscles are measured, each with its muscles."""
    muscles: dict[str, list[str]] = {}
    for muscle, extent in dict.fromkeys(cells_of(rows, ('muscle', 'extent'))):
        # Structures that only models of other programs know have no such levels.
        if muscle in _muscles_with_levels() and extent != MISSING:
            muscles.setdefault(extent, []).append(muscle)
    return muscles


@cache
def _muscles_with_levels() -> frozenset[str]:
    return frozenset(label.muscle for region in REGIONS for label in load_label_table(region))


def _extent(rows: Sequence[Mapping[str, str]]) -> str:
    """Return which part of the muscles is measured, or nothing where the table does not."""
    muscles = extents_of(rows)
    if not muscles:
        return ''
    if set(muscles) == {SCAN}:
        return (
            'Where the vertebral levels at which muscles are measured begin and end is not known: '
            'measures are of all that the scan shows, which depends on its field of view.'
        )
    parts = [f'{extent} ({", ".join(names)})' for extent, names in muscles.items()]
    named = next(iter(muscles)) if len(muscles) == 1 else '; '.join(parts)
    return (
        f'Muscles are measured within these vertebral levels: {named}. What lies above and below '
        'them counts in no other column than those of the volume outside.'
    )
