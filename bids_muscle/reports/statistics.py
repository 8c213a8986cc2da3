"""Statistics of a cohort: tables, sentences and charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_json, write_tsv
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.charts import forest_chart
from bids_muscle.reports.cohort import analysis_table, measure_names
from bids_muscle.reports.cohort_values import CohortValues, read_values
from bids_muscle.reports.group_charts import group_blocks
from bids_muscle.reports.outputs import MISSING, Definitions
from bids_muscle.reports.page import heading
from bids_muscle.reports.statistics_figures import (
    FIGURES,
    Figure,
    estimates_of,
    key_of,
    marginal_means,
    mean_estimates,
    rows_of,
    unit_of,
)
from bids_muscle.reports.statistics_panels import agreement_panels, change_panels, residual_panels
from bids_muscle.statistics.analysis import analysis_dictionary
from bids_muscle.statistics.cohort import MEASURES, AnalysisPlan, CohortAnalysis, analyse

#: Analyses of measured values, also where the others are of harmonised ones.
MEASURED = (
    'site_differences',
    'harmonisation',
    'agreement',
    'formula',
    'detectable',
    'individual_change',
)


def analyse_cohort(values: CohortValues, plan: AnalysisPlan) -> dict[str, CohortAnalysis]:
    """Analyse the rows of a cohort that count.

    Parameters
    ----------
    values
        Of all scans.
    plan
        See :func:`~bids_muscle.statistics.cohort.analyse`.

    Raises
    ------
    UsageError
        If the formula cannot be used, or a column is not there.
    """
    measures: Sequence[str] = [name for name in values.columns if name in MEASURES]
    if plan.formula is not None:  # it may ask for any measure; otherwise most are not read
        measures = measure_names(values.scans)
        values = read_values(values.scans, measures)
    return analyse(analysis_table(values, measures), plan)


def write_statistics(analyses: Mapping[str, CohortAnalysis], output_dir: Path) -> list[Path]:
    """Write a table per analysis and one of all findings, each with its data dictionary.

    Those of an earlier run that are not written again are removed.
    """
    import pandas as pd

    dictionary = read_dictionary('evaluation') | analysis_dictionary()
    tables = {
        (
            dataset_path('group_stats', analysis=name),
            dataset_path('group_stats_json', analysis=name),
        ): (result.table, {column: dictionary[column] for column in result.table.columns})
        for name, result in analyses.items()
    }
    definitions = read_dictionary('group_findings')
    findings = [
        (name, result.region, result.contrast, result.measure or MISSING, result.sentence)
        for name, analysis in analyses.items()
        for result in analysis.findings
    ]
    tables[dataset_path('group_findings'), dataset_path('group_findings_json')] = (
        pd.DataFrame(findings, columns=list(definitions)),
        definitions,
    )
    written = []
    for (path, sidecar), (table, entries) in tables.items():
        write_tsv(table, output_dir / path)
        write_json(entries, output_dir / sidecar)
        written += [output_dir / path, output_dir / sidecar]
    pattern = dataset_path('group_stats', analysis='*').with_suffix('.*')
    for stale in set(output_dir.glob(str(pattern))) - set(written):
        stale.unlink()
    return written


def statistics_context(
    analyses: Mapping[str, CohortAnalysis], region: str, contrast: str, definitions: Definitions
) -> list[dict[str, Any]]:
    """Return what the page shows of one region and contrast: a block per measure."""
    measures = dict.fromkeys(
        finding.measure
        for analysis in analyses.values()
        for finding in analysis.findings
        if (finding.region, finding.contrast) == (region, contrast)
    )
    return [
        {
            'measure': heading(measure, definitions) if measure else 'model of --formula',
            'analyses': list(_blocks(analyses, (region, contrast, measure), definitions)),
        }
        for measure in measures
    ]


def _blocks(
    analyses: Mapping[str, CohortAnalysis], place: tuple[str, str, str], definitions: Definitions
) -> Iterator[dict[str, Any]]:
    """Give the blocks of one measure; those of columns that a user asked for come first."""
    unit = f' ({unit_of(place[2])})' if unit_of(place[2]) else ''
    compared = list(group_blocks(analyses, place, heading(place[2], definitions), unit))
    asked = 'groups' in analyses and (analyses['groups'].table['explored'] == 'no').all()
    if asked:
        yield from compared
    for name, figure in FIGURES.items():
        if name in analyses and (block := _block(name, figure, analyses, place, definitions)):
            yield block
    if not asked:
        yield from compared


def _block(
    name: str,
    figure: Figure,
    analyses: Mapping[str, CohortAnalysis],
    place: tuple[str, str, str],
    definitions: Definitions,
) -> dict[str, Any] | None:
    """Return title, sentences, chart and file of one analysis."""
    analysis = analyses[name]
    sentences = [
        finding.sentence
        for finding in analysis.findings
        if (finding.region, finding.contrast, finding.measure) == place
    ]
    if not sentences:
        return None
    own = rows_of(analysis.table, place)
    unit = f' ({unit_of(place[2])})' if unit_of(place[2]) else ''
    measure = heading(place[2], definitions)
    if name not in MEASURED and 'harmonised_values' in analyses:
        values = rows_of(analyses['harmonised_values'].table, place)
        measure += ', harmonised values' * (len(values) > 0)
    effect = figure.effect.format(unit=unit, measure=measure)
    rows = own.to_dict('records')
    if measure not in effect:
        effect = f'{measure}: {effect}'
    if name == 'means':
        estimates = mean_estimates(rows)
    else:
        # One person's change has no interval, and there are too many people.
        estimates = [] if name == 'individual_change' else estimates_of(figure, rows)
    charts = [(estimates, effect, key_of(name, rows) if estimates else '')]
    if name == 'sex_differences':
        title = f'{measure}, estimated means of women (circles) and men (squares)'
        stars = (
            'Lines: ± 1 standard error. Women and men differ: * p < 0.05, ** p < 0.01, '
            '*** p < 0.001, after Holm correction but for all muscles.'
        )
        charts.append((marginal_means(rows), title, stars))
    points = analysis.points.get(place, {})
    draw = {
        'pearson': residual_panels,
        'agreement': agreement_panels,
        'individual_change': change_panels,
    }.get(name)
    return {
        'title': figure.title,
        'sentences': sentences,
        'charts': [forest_chart(*chart) for chart in charts if chart[0]],
        'panels': draw(rows, points, measure) if draw else [],
        'file': str(dataset_path('group_stats', analysis=name)),
    }
