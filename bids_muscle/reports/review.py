"""The review page: a wall of all scans, to be rated by keyboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_text
from bids_muscle.reports.outliers import OUTLIER_Z, robust_scores
from bids_muscle.reports.outputs import MISSING, ScanOutputs, number
from bids_muscle.reports.page import environment, heading, main_measures, page_of
from bids_muscle.reports.participant import scan_light
from bids_muscle.reports.ratings import FORMAT, SEPARATOR

#: Significant digits of a measure; enough to sort by.
DIGITS = 4


def write_review(scans: Sequence[ScanOutputs], output_dir: Path) -> Path:
    """Write the review page of a cohort; its pictures are files beside it.

    Parameters
    ----------
    scans
        All scans of the dataset.
    output_dir
        The derivatives dataset.
    """
    path = output_dir / dataset_path('group_review')
    text = (
        environment()
        .get_template('review.html.j2')
        .render(
            title='Review',
            script='review.js',
            scans=len(scans),
            cohort=str(dataset_path('group_report')),
            data=review_data(scans, output_dir),
        )
    )
    write_text(text, path)
    return path


def review_data(scans: Sequence[ScanOutputs], output_dir: Path) -> dict[str, Any]:
    """Return what the script of the page shows, as JSON-ready values.

    Addresses are relative to the output folder. ``values`` of a scan stand in the order of
    ``columns``, one for each measure and muscle, None where there is none.
    """
    measures = main_measures([row for scan in scans for row in scan.rows])
    names = list(dict.fromkeys(row['name'] for scan in scans for row in scan.rows))
    definitions: dict[str, Mapping[str, str]] = {}
    for scan in scans:
        for key, entry in scan.definitions.items():
            definitions.setdefault(key, entry)
    scores: dict[str, float] = {}
    for each in robust_scores(scans, measures):
        scores[each.scan] = max(scores.get(each.scan, 0.0), round(abs(each.robust_z), 2))
    rows = []
    for scan in scans:
        light = scan_light(scan)
        by_name = {row['name']: row for row in scan.rows}
        rows.append(
            {
                'scan': scan.record.scan,
                'page': page_of(scan.record.participant),
                'series': f'{scan.record.region or MISSING}, {scan.contrast}',
                'segmentation': scan.segmentation,
                'light': light.level,
                'word': light.word,
                'reason': light.reason,
                'muscles': list(by_name),
                'score': scores.get(scan.record.scan),
                'values': [
                    _value(by_name.get(name, {}).get(measure, MISSING))
                    for measure in measures
                    for name in names
                ],
                'thumbnail': _address(scan, ('thumbnail', 'segmentation'), output_dir),
                'bare': _address(scan, ('slices',), output_dir),
                'outlined': _address(scan, ('segmentation',), output_dir),
                'extent': _address(scan, ('extent',), output_dir),
            }
        )
    return {
        'format': FORMAT,
        'separator': SEPARATOR,
        'outlier_z': OUTLIER_Z,
        'columns': [
            {'measure': heading(measure, definitions), 'muscle': name}
            for measure in measures
            for name in names
        ],
        'series': sorted({row['series'] for row in rows}),
        'scans': rows,
    }


def _value(text: str) -> float | None:
    value = number(text)
    return None if value is None else float(f'{value:.{DIGITS}g}')


def _address(scan: ScanOutputs, names: Sequence[str], output_dir: Path) -> str:
    """Return the address of the first of these pictures that is there, or nothing."""
    found = next((scan.figures[name] for name in names if name in scan.figures), None)
    return quote(found.relative_to(output_dir).as_posix()) if found else ''
