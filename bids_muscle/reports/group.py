"""The page of a cohort, and its tables, made from the outputs of the participant level alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_text
from bids_muscle.reports.charts import MAX_DOTS, Dot, Strip, strip_chart
from bids_muscle.reports.cohort import (
    People,
    muscle_table,
    write_cohort_tables,
    write_review_tables,
)
from bids_muscle.reports.exclusions import apply_exclusions, read_exclusions
from bids_muscle.reports.outliers import OUTLIER_Z, find_outliers
from bids_muscle.reports.outputs import MISSING, ScanOutputs, label_table, number, read_scans
from bids_muscle.reports.page import environment, format_value, heading, main_measures, page_of
from bids_muscle.reports.participant import SIDES, scan_light
from bids_muscle.reports.ratings import RATINGS, Review, merge_ratings, read_ratings
from bids_muscle.reports.review import write_review
from bids_muscle.reports.statistics import analyse_cohort, statistics_context, write_statistics
from bids_muscle.statistics.cohort import CohortAnalysis

#: Tables with a row for each scan are shown up to this many scans; there is a file with all.
MAX_ROWS = 300
#: Order of the levels of a traffic light in the list of scans.
URGENCY = {'failed': 0, 'check': 1, 'ok': 2}


def write_group(
    output_dir: Path,
    ratings: Sequence[Path] = (),
    *,
    people: People | None = None,
    exclude: Path | None = None,
    formula: str | None = None,
    harmonise_sites: bool = True,
) -> list[Path]:
    """Write the cohort tables, the statistics, the review page and ``group.html``.

    Parameters
    ----------
    output_dir
        The derivatives dataset; participants without a result have their place as well.
    ratings
        Files exported from the review page; what they exclude keeps its rows in the tables, and
        is left out of the statistics.
    people
        Rows of ``participants.tsv`` by participant.
    exclude
        List of what does not count either.
    formula, harmonise_sites
        See :func:`bids_muscle.statistics.cohort.analyse`.

    Returns
    -------
    list of Path
        The files written, the page last.

    Raises
    ------
    OutputError
        If a file cannot be written.
    MissingInputError, BadDataError, UsageError
        If the ratings, the list or the formula cannot be used; nothing is written then.
    """
    people = people or {}
    scans = read_scans(output_dir)
    notes: list[str] = []
    if exclude:
        scans, notes = apply_exclusions(read_exclusions(exclude), scans)
    review = merge_ratings(read_ratings(ratings), scans) if ratings else None
    if review:
        scans = [replace(scan, verdict=review.verdicts.get(scan.record.scan)) for scan in scans]
    muscles = muscle_table(scans, people)
    analyses = analyse_cohort(muscles, formula=formula, harmonise_sites=harmonise_sites)
    tables = write_cohort_tables(scans, people, muscles, output_dir)
    tables += write_statistics(analyses, output_dir)
    tables += write_review_tables(scans, review, output_dir)
    wall = write_review(scans, output_dir)
    page = output_dir / dataset_path('group_report')
    template = environment().get_template('group.html.j2')
    write_text(
        template.render(
            title='Cohort',
            summary=_summary(scans, people),
            notes=[*notes, *_mixed(scans)],
            tables=[path.relative_to(output_dir).as_posix() for path in tables],
            wall=wall.name,
            review=_review_context(review, scans) if review else None,
            scans=sorted(map(_scan_row, scans), key=lambda row: URGENCY[row['light'].level]),
            series=[
                _series_context(place, *each, analyses)
                for place, each in enumerate(_series(scans), 1)
            ],
            outlier_z=OUTLIER_Z,
            max_dots=MAX_DOTS,
            max_rows=MAX_ROWS,
        ),
        page,
    )
    return [*tables, wall, page]


def _summary(scans: Sequence[ScanOutputs], people: People) -> list[tuple[str, int]]:
    done = [scan for scan in scans if scan.done]
    return [
        ('Participants', len({scan.record.participant for scan in scans} | set(people))),
        ('with a result', len({scan.record.participant for scan in done})),
        ('Scans', len(scans)),
        ('done', len(done)),
        ('failed', len(scans) - len(done)),
        ('excluded', sum(bool(scan.exclusion()) for scan in done)),
    ]


def _review_context(review: Review, scans: Sequence[ScanOutputs]) -> dict[str, Any]:
    given = [verdict.rating for verdict in review.verdicts.values()]
    return {
        'counts': [
            ('Rated', f'{len(given)} of {len(scans)}'),
            *((rating, given.count(rating)) for rating in RATINGS),
        ],
        'notes': review.notes,
        'pairs': [
            (pair, *map(_or_missing, (pair.agreement_pct, pair.cohen_kappa)))
            for pair in review.pairs
        ],
        'excluded': [
            {
                'scan': scan.record.scan,
                'page': page_of(scan.record.participant),
                'what': 'whole scan' if scan.exclusion() else ', '.join(scan.verdict.muscles),
                'raters': ', '.join(scan.verdict.raters),
                'comments': ' '.join(scan.verdict.comments),
            }
            for scan in scans
            if scan.verdict and (scan.exclusion() or scan.verdict.muscles)
        ],
    }


def _or_missing(value: float) -> str:
    return format_value(None if math.isnan(value) else value)


def _mixed(scans: Sequence[ScanOutputs]) -> list[str]:
    """Say what was not the same for all scans, since it may change the numbers."""
    done = [scan.record for scan in scans if scan.done]
    found: dict[str, set[str | None]] = {
        'versions of bids_muscle': {record.versions.get('bids_muscle') for record in done},
        'settings': {record.settings_digest for record in done},
        'kinds of device': {record.device.partition(':')[0] for record in done},
    }
    for region in sorted({str(record.region) for record in done}):
        found[f'models for the {region} region'] = {
            record.model.get('sha256') for record in done if record.region == region
        }
    # A corrected scan has neither model nor device.
    counts = {what: len(values - {None, ''}) for what, values in found.items()}
    return [
        f'The scans were processed with {count} different {what}; see group_scans.tsv.'
        for what, count in counts.items()
        if count > 1
    ]


def _series(scans: Sequence[ScanOutputs]) -> list[tuple[str, str, list[ScanOutputs]]]:
    """Group scans that can be compared: one region, one contrast."""
    series: dict[tuple[str, str], list[ScanOutputs]] = {}
    for scan in scans:
        if scan.rows:
            series.setdefault((str(scan.record.region), scan.contrast), []).append(scan)
    return [(*key, members) for key, members in sorted(series.items())]


def _series_context(
    place: int,
    region: str,
    contrast: str,
    scans: Sequence[ScanOutputs],
    analyses: Mapping[str, CohortAnalysis],
) -> dict[str, Any]:
    definitions = next((scan.definitions for scan in scans if scan.definitions), {})
    columns = main_measures([row for scan in scans for row in scan.rows])
    strips = {column: _strips(scans, column) for column in columns}
    return {
        'anchor': f'series-{place}',
        'region': region,
        'contrast': contrast,
        'count': len(scans),
        'charts': [
            strip_chart(strips[column], heading(column, definitions)) for column in columns[:2]
        ],
        'analyses': statistics_context(analyses, region, contrast, definitions),
        'summaries': [
            (heading(column, definitions), [_describe(strip) for strip in strips[column]])
            for column in columns
        ],
        'outliers': [
            (outlier, heading(outlier.column, definitions))
            for outlier in find_outliers(scans, columns)
        ],
        'values': [
            (heading(column, definitions), *_value_table(scans, column)) for column in columns
        ]
        if len(scans) <= MAX_ROWS
        else [],
        'excluded': sum(len(scan.rows) - len(scan.kept) for scan in scans),
        'definitions': [
            (heading(name, definitions), definitions[name])
            for name in columns
            if name in definitions
        ],
    }


def _strips(scans: Sequence[ScanOutputs], column: str) -> list[Strip]:
    table = label_table(scans[0].record)
    kept = [{row['index']: row for row in scan.kept} for scan in scans]
    strips = []
    for label in table or ():
        dots = []
        for scan, rows in zip(scans, kept, strict=True):
            row = rows.get(str(label.index))
            value = number(row.get(column, MISSING)) if row else None
            if value is not None:
                text = f'{scan.record.scan}: {label.name} {format_value(value)}'
                dots.append(Dot(value, text, page_of(scan.record.participant)))
        strips.append(Strip(label.muscle, label.side, label.color, tuple(dots)))
    return strips


def _describe(strip: Strip) -> dict[str, str]:
    """Median, quartiles and range of one muscle and side."""
    import numpy as np

    values = [dot.value for dot in strip.dots]
    described = {'name': f'{strip.side} {strip.muscle}', 'count': str(len(values))}
    if not values:
        return {**described, 'median': MISSING, 'quartiles': MISSING, 'range': MISSING}
    low, high = np.percentile(values, [25, 75])
    return {
        **described,
        'median': format_value(statistics.median(values)),
        'quartiles': f'{format_value(float(low))} to {format_value(float(high))}',
        'range': f'{format_value(min(values))} to {format_value(max(values))}',
    }


def _value_table(
    scans: Sequence[ScanOutputs], column: str
) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Return muscle names and one row per scan, right and left side by side."""
    muscles = list(dict.fromkeys(row['muscle'] for scan in scans for row in scan.rows))
    rows = []
    for scan in scans:
        cells = {(row['muscle'], row['side']): row.get(column, MISSING) for row in scan.rows}
        values = [cells.get((muscle, side), MISSING) for muscle in muscles for side in SIDES]
        rows.append((scan.record.scan, page_of(scan.record.participant), values))
    return muscles, rows


def _scan_row(scan: ScanOutputs) -> dict[str, Any]:
    return {
        'participant': scan.record.participant,
        'page': page_of(scan.record.participant),
        'scan': scan.record.scan,
        'region': scan.record.region or MISSING,
        'contrast': scan.contrast,
        'light': scan_light(scan),
        'remedy': scan.record.problem.remedy if scan.record.problem else '',
    }
