"""The page of a cohort, and its tables, made from the outputs of the participant level alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.participants import read_meanings
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.dataset.sessions import RawVisits
from bids_muscle.dataset.writer import write_text
from bids_muscle.errors import BadDataError
from bids_muscle.reports.centiles import centiles_context, remove_centiles, write_centiles
from bids_muscle.reports.cohort import (
    People,
    analysed_measures,
    muscle_table,
    recorded_people,
    write_cohort_tables,
    write_review_tables,
)
from bids_muscle.reports.completeness import cause_table, completeness
from bids_muscle.reports.detectable import read_detectable
from bids_muscle.reports.exclusions import apply_exclusions, read_exclusions
from bids_muscle.reports.flow import Flow, flow_of, flow_svg
from bids_muscle.reports.group_charts import sentence_by_variable
from bids_muscle.reports.group_notes import by_series, mixed, models_of
from bids_muscle.reports.norms import Norms, read_norms
from bids_muscle.reports.outliers import OUTLIER_Z
from bids_muscle.reports.outputs import ScanOutputs, read_scans, segmentations
from bids_muscle.reports.page import environment, format_value, heading, page_link
from bids_muscle.reports.paper import Paper, write_paper
from bids_muscle.reports.parts import settle_parts
from bids_muscle.reports.published import published_context
from bids_muscle.reports.ratings import (
    RATINGS,
    CohortReview,
    merge_ratings,
    read_ratings,
    saved_ratings,
)
from bids_muscle.reports.review import write_review
from bids_muscle.reports.scan_data import (
    completeness_data,
    outlier_data,
    people_of,
    scan_data,
    shown_measures,
    shown_variables,
)
from bids_muscle.reports.statistics import analyse_cohort, statistics_context, write_statistics
from bids_muscle.statistics.analysis import MIN_DF
from bids_muscle.statistics.cohort import CohortAnalysis
from bids_muscle.statistics.sessions import NO_SESSION, Visits, order_sessions, session_years
from bids_muscle.tables import name_some

if TYPE_CHECKING:
    import pandas as pd


def write_group(
    output_dir: Path,
    ratings: Sequence[Path] = (),
    *,
    people: People | None = None,
    unusable: Sequence[str] = (),
    exclude: Path | None = None,
    formula: str | None = None,
    groups: Sequence[str] = (),
    harmonise_sites: bool = True,
    visits: RawVisits | None = None,
    remarks: Sequence[str] = (),
    session_order: Sequence[str] = (),
    norms: Path | None = None,
    records: Sequence[ScanRecord] | None = None,
    detectable: Path | None = None,
) -> list[Path]:
    """Write the cohort tables, the statistics, the review page and ``group.html``.

    Parameters
    ----------
    output_dir
        The derivatives dataset; participants without a result have their place as well.
    ratings
        Files exported from the review page, besides those of ``bids_muscle-report serve``, which
        lie in the output folder; what they exclude keeps its rows in the tables, and
        is left out of the statistics.
    people
        Rows of ``participants.tsv`` by participant; None for what the participant level noted.
    unusable
        Folders of the raw dataset that look like participants and are none.
    exclude
        List of what does not count either.
    formula, groups, harmonise_sites
        See :func:`bids_muscle.statistics.cohort.analyse`.
    visits
        What the raw dataset says of the sessions of each participant that it has; that of others
        is what the participant level noted.
    remarks
        Sentences about the tables of the raw dataset.
    session_order
        The order of sessions that the user gave.
    norms
        A file of ``bids_muscle-norms build``.
    records
        Of all scans of `output_dir`, where they have been read already.
    detectable
        List of smallest detectable changes.

    Returns
    -------
    list of Path
        The files written, the page last.

    Raises
    ------
    OutputError
        If a file cannot be written.
    MissingInputError, BadDataError, UsageError
        If the ratings, a list, the norms, the formula or a column cannot be used; nothing is
        written then. Also, once all is written, if there are ratings and none is about a
        segmentation that is here.
    """
    known = read_norms(norms) if norms else None
    scans = read_scans(output_dir, records=records)
    people = recorded_people(scans) if people is None else people
    unknown: list[str] = []
    if exclude:
        scans, unknown = apply_exclusions(read_exclusions(exclude), scans)
        for sentence in unknown:
            print(f'bids_muscle: {sentence}', file=sys.stderr)
    given = read_ratings([*ratings, *saved_ratings(output_dir)])
    review = merge_ratings(given, segmentations(scans)) if given or ratings else None
    if review:
        scans = [replace(scan, verdict=review.verdicts.get(scan.record.scan)) for scan in scans]
    scans = settle_parts(scans)
    muscles = muscle_table(scans, people)
    of_people = _visits(scans, visits or {})
    order = order_sessions(of_people, session_order)
    limits = read_detectable(detectable, analysed_measures(scans)) if detectable else []
    meanings = read_meanings(output_dir)
    analyses = analyse_cohort(
        muscles,
        formula=formula,
        harmonise_sites=harmonise_sites,
        order=order,
        groups=groups,
        meanings=meanings,
        years=session_years(of_people),
        detectable=limits,
    )
    complete = completeness(scans, people, unusable)
    tables = write_cohort_tables(scans, people, muscles, complete, output_dir, order.names)
    tables += write_statistics(analyses, output_dir)
    tables += write_review_tables(scans, review, output_dir)
    centiles = None
    if known and norms:
        centiles, written = write_centiles(known, norms, scans, people, output_dir)
        tables += written
    else:
        remove_centiles(output_dir)
    shown = shown_variables(scans, people, groups, meanings)
    data = scan_data(scans, people, shown)
    wall = write_review(scans, data, output_dir)
    series = [
        _series_context(place, *each, analyses, known, centiles)
        for place, each in enumerate(by_series(scans), 1)
    ]
    names = set(analyses['groups'].table['variable']) if groups and 'groups' in analyses else set()
    flow = flow_of(scans, people, unusable, [each for each in shown if each.name in names])
    paper, paper_files = _write_paper(
        output_dir,
        flow,
        write_paper(
            scans,
            flow,
            analyses,
            people_of(scans, people),
            series,
            order=order.text if len(order.names) > 1 else '',
            formula=formula,
        ),
    )
    page = output_dir / dataset_path('group_report')
    template = environment().get_template('group.html.j2')
    write_text(
        template.render(
            title='Cohort',
            **({'script': 'scans.js cohort.js'} if scans else {}),
            summary=_summary(scans, people, unusable),
            notes=[*remarks, *unknown, *mixed(scans), *order.notes],
            models=models_of(scans),
            order=order.text if len(order.names) > 1 else '',
            unusable=name_some(unusable),
            causes=cause_table(complete).to_dict('records'),
            tables=[path.relative_to(output_dir).as_posix() for path in tables],
            wall=wall.name,
            review=_review_context(review, scans) if review else None,
            scans=len(scans),
            series=series,
            **paper,
            outlier_z=OUTLIER_Z,
            min_df=MIN_DF,
            data={
                **data,
                'sessions': order.names,
                'measure_names': shown_measures(scans),
                'tests': _tests(analyses),
                'outliers': outlier_data(scans),
                'completeness': completeness_data(complete, unusable),
            },
        ),
        page,
    )
    if review and ratings and given and not review.verdicts:
        raise BadDataError(
            f'None of the {len(given)} ratings is about a segmentation of this dataset '
            f'({given[0].place} is about {given[0].scan!r}). The cohort was written without them.',
            'Give rating files that were exported from the review page of this output folder.',
        )
    return [*tables, *paper_files, wall, page]


def _visits(scans: Sequence[ScanOutputs], raw: RawVisits) -> Visits:
    """Return what is known of each session of each participant."""
    visits: dict[str, dict[str, Mapping[str, str]]] = {}
    for record in (scan.record for scan in scans):
        noted = {record.session: record.session_info}
        info = raw.get(record.participant, noted).get(record.session, {})
        own = visits.setdefault(f'sub-{record.participant}', {})
        own[f'ses-{record.session}' if record.session else NO_SESSION] = info
    return visits


def _write_paper(output_dir: Path, flow: Flow, paper: Paper) -> tuple[dict[str, Any], list[Path]]:
    """Write the text for a paper and its flow chart; return what the page shows, and the files."""
    picture, drawn = flow_svg(flow), output_dir / dataset_path('group_flow')
    text = output_dir / dataset_path('group_text')
    write_text(str(picture), drawn)
    write_text(paper.to_markdown(drawn.name), text)
    context = {'paper': paper, 'flow': picture, 'text': text.name, 'flow_file': drawn.name}
    return context, [text, drawn]


def _tests(analyses: Mapping[str, CohortAnalysis]) -> dict[str, dict[str, dict[str, str]]]:
    """Return what the tests of each column say, by column, series and measure."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    places = dict.fromkeys(
        (each.region, each.contrast, each.measure)
        for each in (analyses['groups'].findings if 'groups' in analyses else ())
    )
    for region, contrast, measure in places:
        said = sentence_by_variable(analyses, 'groups', (region, contrast, measure))
        for variable, sentence in said.items():
            series = found.setdefault(variable, {}).setdefault(f'{region}, {contrast}', {})
            series[measure] = sentence
    return found


def _summary(
    scans: Sequence[ScanOutputs], people: People, unusable: Sequence[str]
) -> list[tuple[str, int]]:
    done = [scan for scan in scans if scan.done]
    counts = [
        ('Participants', len({scan.record.participant for scan in scans} | set(people))),
        ('with a result', len({scan.record.participant for scan in done})),
        ('Scans', len(scans)),
        ('done', len(done)),
        ('failed', len(scans) - len(done)),
        ('excluded', sum(bool(scan.judgement()) for scan in done)),
    ]
    if parts := sum(bool(scan.part_of) for scan in scans):
        counts.append(('parts of a joined scan', parts))
    if manual := sum(scan.manual for scan in done):
        counts.append(('drawn or corrected by hand', manual))
    if unusable:
        counts.append(('folders that are no BIDS participants', len(unusable)))
    return counts


def _review_context(review: CohortReview, scans: Sequence[ScanOutputs]) -> dict[str, Any]:
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
                'page': page_link(scan.record.participant),
                'what': 'whole scan' if scan.judgement() else ', '.join(scan.verdict.muscles),
                'raters': ', '.join(scan.verdict.raters),
                'comments': ' '.join(scan.verdict.comments),
            }
            for scan in scans
            if scan.verdict and (scan.judgement() or scan.verdict.muscles)
        ],
    }


def _or_missing(value: float) -> str:
    return format_value(None if math.isnan(value) else value)


def _series_context(
    place: int,
    region: str,
    contrast: str,
    scans: Sequence[ScanOutputs],
    analyses: Mapping[str, CohortAnalysis],
    norms: Norms | None,
    centiles: pd.DataFrame | None,
) -> dict[str, Any]:
    definitions = next((scan.definitions for scan in scans if scan.definitions), {})
    return {
        'anchor': f'series-{place}',
        'region': region,
        'contrast': contrast,
        'analyses': statistics_context(analyses, region, contrast, definitions),
        'norms': None
        if norms is None or centiles is None
        else centiles_context(norms, centiles, region, contrast, definitions),
        'published': published_context(
            region,
            contrast,
            analyses['means'].table if 'means' in analyses else None,
            definitions,
        ),
        'excluded': sum(len(scan.rows) - len(scan.kept) for scan in scans if not scan.part_of),
        'definitions': [
            (heading(name, definitions), definitions[name])
            for name in shown_measures(scans)
            if name in definitions
        ],
    }
