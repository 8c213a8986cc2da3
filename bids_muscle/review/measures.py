"""The main measures of a scan, before and after a correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.names import spine_path
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.outputs import ScanOutputs, read_output_table
from bids_muscle.reports.page import format_value, heading, main_measures
from bids_muscle.reports.spine import COLUMNS
from bids_muscle.tables import MISSING


@dataclass(frozen=True)
class ShownMeasures:
    """What the page shows of the tables of a scan.

    Parameters
    ----------
    headings
        Of the columns, by name.
    rows
        Cells by column, by the name of the structure.
    """

    headings: Mapping[str, str]
    rows: Mapping[str, Mapping[str, str]]


def read_measures(output_dir: Path, scan: ScanOutputs) -> ShownMeasures:
    """Return the main measures of the muscles of a scan, or of the discs of a sagittal one."""
    if scan.record.region != SPINE:
        names = main_measures(scan.rows)
        return ShownMeasures(
            {name: heading(name, scan.definitions) for name in names},
            {row['name']: row for row in scan.rows},
        )
    definitions = read_dictionary('morph_spine')
    table = read_output_table(
        output_dir / spine_path(scan.record.scan, 'morph_spine'), ('kind', 'name')
    )
    return ShownMeasures(
        {name: heading(name, definitions) for name in COLUMNS},
        {f'{row["kind"]} {row["name"]}': row for row in table or ()},
    )


def compare_measures(before: ShownMeasures, after: ShownMeasures) -> dict[str, Any]:
    """Return the measures of each structure before and after, JSON-ready."""

    def cells(measures: ShownMeasures, name: str) -> list[str]:
        row = measures.rows.get(name, {})
        return [format_value(row.get(column, MISSING)) for column in after.headings]

    return {
        'measures': list(after.headings.values()),
        'rows': [
            {'name': name, 'before': cells(before, name), 'after': cells(after, name)}
            for name in dict.fromkeys([*after.rows, *before.rows])
        ],
    }
