"""The page of a cohort, and its tables, made from the outputs of the participant level alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.participants import read_meanings
from bids_muscle.dataset.writer import write_text, write_together
from bids_muscle.reports.centiles import centiles_context, remove_centiles, write_centiles
from bids_muscle.reports.cohort import analysed_measures
from bids_muscle.reports.cohort_files import write_cohort_tables, write_review_tables
from bids_muscle.reports.cohort_input import Cohort, GroupOptions, RawTables, settle_cohort
from bids_muscle.reports.cohort_values import CohortValues
from bids_muscle.reports.completeness import cause_table, completeness
from bids_muscle.reports.detectable import read_detectable
from bids_muscle.reports.flow import Flow, flow_of, flow_svg
from bids_muscle.reports.group_charts import sentence_by_variable
from bids_muscle.reports.group_notes import by_series, mixed, models_of
from bids_muscle.reports.kept_scans import kept_scans
from bids_muscle.reports.norms import Norms, read_norms
from bids_muscle.reports.outliers import OUTLIER_Z, outlier_columns, robust_scores
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.reports.page import (
    SCANS_HERE,
    environment,
    format_value,
    heading,
    page_link,
    page_pieces,
)
from bids_muscle.reports.paper import Paper, write_paper
from bids_muscle.reports.published import published_context
from bids_muscle.reports.ratings import RATINGS, CohortReview
from bids_muscle.reports.review import review_page
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
from bids_muscle.statistics.cohort import AnalysisPlan, CohortAnalysis
from bids_muscle.statistics.sessions import SessionOrder, session_years
from bids_muscle.statistics.variables import Variable
from bids_muscle.tables import name_some

if TYPE_CHECKING:
    import pandas as pd


def write_group(
    output_dir: Path,
    options: GroupOptions | None = None,
    raw: RawTables | None = None,
    scans: Sequence[ScanOutputs] | None = None,
) -> list[Path]:
    """Write the cohort tables, the statistics, the review page and ``group.html``.

    Parameters
    ----------
    output_dir
        The derivatives dataset; participants without a result have their place as well.
    options
        What the user asks for; None for the defaults.
    raw
        What the raw dataset says of its participants; None where it is not here.
    scans
        All scans of `output_dir`, where they have been read already.

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
        written then. Also, once all is written, if the user gave ratings and none is about a
        segmentation that is here.
    """
    if scans is None:
        with kept_scans(output_dir) as scans:
            return write_group(output_dir, options, raw, scans)
    options, raw = options or GroupOptions(), raw or RawTables()
    norms = read_norms(options.norms) if options.norms else None
    cohort = settle_cohort(scans, output_dir, options, raw)
    scans, values, people = cohort.scans, cohort.values, cohort.people
    meanings = read_meanings(output_dir)
    plan = _plan(cohort, options, meanings)
    analyses = analyse_cohort(values, plan)
    expected = {*people, *raw.labels}
    complete = completeness(scans, expected, cohort.unusable)
    columns = dict.fromkeys([*analysed_measures(scans), *shown_measures(values)])
    scores = robust_scores(values, outlier_columns(scans, list(columns)))
    tables = write_cohort_tables(cohort, complete, scores, output_dir)
    tables += write_statistics(analyses, output_dir)
    tables += write_review_tables(scans, cohort.review, output_dir)
    centiles = None
    if norms and options.norms:
        centiles, written = write_centiles(norms, options.norms, scans, plan.years, output_dir)
        tables += written
    else:
        remove_centiles(output_dir)
    shown = shown_variables(scans, people, options.groups, meanings)
    data = scan_data(values, people, scores, shown)
    review = output_dir / dataset_path('group_review')
    page = output_dir / dataset_path('group_report')
    series = [
        _series_context(number, *each, values, analyses, norms, centiles, cohort.order)
        for number, each in enumerate(by_series(scans), 1)
    ]
    flow = flow_of(scans, expected, cohort.unusable, _tested(shown, analyses, options.groups))
    text = write_paper(
        scans,
        flow,
        analyses,
        people_of(scans, people),
        series,
        order=cohort.order_text,
        formula=options.formula,
        exclusion_list=bool(options.exclude),
    )
    paper, paper_files = _write_paper(output_dir, flow, text)
    text_of_page = _render(
        **_cohort_context(cohort, raw.remarks, expected),
        causes=cause_table(complete).to_dict('records'),
        tables=[path.relative_to(output_dir).as_posix() for path in tables],
        wall=review.name,
        series=series,
        **paper,
        data={
            **data.shared,
            'scans': SCANS_HERE,
            'sessions': cohort.order.names,
            'measure_names': shown_measures(values),
            'tests': _tests(analyses),
            'outliers': outlier_data(values, scores),
            'completeness': completeness_data(complete, cohort.unusable),
        },
    )
    # Both pages are written at once, since all rows do not fit into memory.
    rows, again = tee(data.scans())
    pages = {
        review: review_page(scans, replace(data, scans=lambda: again), output_dir),
        page: page_pieces(text_of_page, rows),
    }
    write_together(
        {path: (piece.encode('utf-8') for piece in pieces) for path, pieces in pages.items()}
    )
    if options.ratings:
        cohort.check_ratings()
    return [*tables, *paper_files, *pages]


def _plan(
    cohort: Cohort, options: GroupOptions, meanings: Mapping[str, Mapping[str, str]]
) -> AnalysisPlan:
    """Return what the statistics are to look at."""
    limits = options.detectable
    return AnalysisPlan(
        formula=options.formula,
        harmonise_sites=options.harmonise_sites,
        order=cohort.order,
        groups=options.groups,
        meanings=meanings,
        years=session_years(cohort.visits),
        detectable=read_detectable(limits, analysed_measures(cohort.scans)) if limits else (),
    )


def _tested(
    variables: Sequence[Variable], analyses: Mapping[str, CohortAnalysis], asked: Sequence[str]
) -> list[Variable]:
    """Return the columns that the user asked for and that were tested."""
    if not asked or 'groups' not in analyses:
        return []
    names = set(analyses['groups'].table['variable'])
    return [variable for variable in variables if variable.name in names]


def _cohort_context(
    cohort: Cohort, remarks: Sequence[str], expected: Collection[str]
) -> dict[str, Any]:
    """Return what the head of the page shows: counts, remarks, models, ratings."""
    scans = cohort.scans
    return {
        'summary': _summary(scans, expected, cohort.unusable),
        'notes': [*remarks, *cohort.remarks, *mixed(cohort.values), *cohort.order.notes],
        'models': models_of(scans),
        'order': cohort.order_text,
        'unusable': name_some(cohort.unusable),
        'review': _review_context(cohort.review, scans) if cohort.review else None,
        'scans': len(scans),
        **({'script': 'scans.js cohort.js'} if scans else {}),
    }


def _render(**context: Any) -> str:
    template = environment().get_template('group.html.j2')
    return template.render(title='Cohort', outlier_z=OUTLIER_Z, min_df=MIN_DF, **context)


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
    scans: Sequence[ScanOutputs], expected: Collection[str], unusable: Sequence[str]
) -> list[tuple[str, int]]:
    done = [scan for scan in scans if scan.done]
    counts = [
        ('Participants', len({scan.record.participant for scan in scans} | set(expected))),
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
    values: CohortValues,
    analyses: Mapping[str, CohortAnalysis],
    norms: Norms | None,
    centiles: pd.DataFrame | None,
    order: SessionOrder,
) -> dict[str, Any]:
    definitions = next((scan.definitions for scan in scans if scan.definitions), {})
    return {
        'anchor': f'series-{place}',
        'region': region,
        'contrast': contrast,
        'analyses': statistics_context(analyses, region, contrast, definitions),
        'norms': None
        if norms is None or centiles is None
        else centiles_context(norms, centiles, region, contrast, definitions, order),
        'published': published_context(
            region,
            contrast,
            analyses['means'].table if 'means' in analyses else None,
            definitions,
        ),
        'excluded': sum(len(scan.rows) - len(scan.kept) for scan in scans if not scan.part_of),
        'definitions': [
            (heading(name, definitions), definitions[name])
            for name in shown_measures(values, scans)
            if name in definitions
        ],
    }
