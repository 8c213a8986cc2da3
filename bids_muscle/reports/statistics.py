"""Statistics of a cohort: tables, sentences and charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import write_json, write_tsv
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.charts import Estimate, Panel, forest_chart, panel_grid
from bids_muscle.reports.cohort import EXCLUSION, SCAN_COLUMNS
from bids_muscle.reports.outputs import IDENTITY, MISSING, REASON, Definitions
from bids_muscle.reports.page import format_value, heading
from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    Points,
    deciding_p,
    dictionary,
    is_effect,
    p_text,
    too_few,
)
from bids_muscle.statistics.cohort import MEASURES, CohortAnalysis, analyse
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

Cells = Mapping[str, Any]
#: Analyses of measured values, also where the others are of harmonised ones.
MEASURED = ('site_differences', 'harmonisation', 'agreement', 'formula')
#: Columns in front of the reason that the statistics look at.
KEPT = {*SCAN_COLUMNS, *IDENTITY, *MEASURES}


@dataclass(frozen=True)
class Figure:
    """How an analysis is drawn.

    Parameters
    ----------
    title
        Question that the analysis answers.
    column
        Column of the effect size; its interval is in columns with ``_ci_low`` and ``_ci_high``.
    effect
        Name of the effect size; ``{measure}`` and ``{unit}`` stand for the measure and its unit.
    label
        Makes the name of a row from its cells.
    family
        Whether its tests ask one question of many muscles, so that Holm's p decides. The effects
        of the ANCOVA are questions of their own: sex is the test of all muscles in
        ``sex_differences``.
    """

    title: str
    column: str
    effect: str
    label: Callable[[Cells], str]
    family: bool = True


FIGURES = {
    'means': Figure(
        'What is the mean of each muscle?',
        'mean',
        '{measure}, mean',
        lambda row: row['muscle'],
    ),
    'site_differences': Figure(
        'Do sites differ?',
        'partial_eta_squared',
        'partial eta squared of site (share of variance, 0 to 1)',
        lambda row: row['muscle'],
    ),
    'harmonisation': Figure(
        'What was removed from each site?',
        'shift',
        'shift of the mean{unit}',
        lambda row: f'{row["muscle"]}: {row["site"]}',
    ),
    'rm_ancova': Figure(
        'Do muscles differ, and what does that depend on?',
        'partial_eta_squared',
        'partial eta squared (share of variance, 0 to 1)',
        lambda row: row['effect'],
        family=False,
    ),
    'paired_t': Figure(
        'Which muscles differ?',
        'difference',
        'difference{unit}',
        lambda row: f'{row["muscle"]} minus {row["other_muscle"]}',
    ),
    'sex_differences': Figure(
        'Do women and men differ?',
        'difference',
        'women minus men{unit}',
        lambda row: row['muscle'],
    ),
    'pearson': Figure(
        'What goes with age and body mass index? (linear)',
        'r',
        'partial correlation, Pearson (-1 to 1)',
        lambda row: f'{row["variable"]}: {row["muscle"]}',
    ),
    'spearman': Figure(
        'What goes with sex, age and body mass index? (ranks)',
        'r',
        'partial correlation, Spearman (-1 to 1)',
        lambda row: f'{row["variable"]}: {row["muscle"]}',
    ),
    'agreement': Figure(
        'Do scans of the same people agree?',
        'icc',
        'ICC(2,1), absolute agreement (1 is perfect)',
        lambda row: f'{row["muscle"]}: {row["test"]}',
    ),
    'change': Figure(
        'What changed since the first session?',
        'difference',
        'later minus first{unit}',
        lambda row: f'{row["muscle"]}: {row["session"]}',
    ),
    'mixed_model': Figure(
        'What changed, with those who missed a session?',
        'cohen_d',
        'Cohen d, in standard deviations of one value, per unit of the term',
        lambda row: f'{row["muscle"]}: {_term_text(row["term"])}',
    ),
    'formula': Figure(
        'Your own model',
        'partial_eta_squared',
        'partial eta squared (share of variance, 0 to 1)',
        lambda row: row['term'],
    ),
}


def analyse_cohort(
    muscles: pd.DataFrame, *, formula: str | None, harmonise_sites: bool, order: SessionOrder
) -> dict[str, CohortAnalysis]:
    """Analyse the rows of :func:`~bids_muscle.reports.cohort.muscle_table` that count.

    Raises
    ------
    UsageError
        If the formula cannot be used.
    """
    measures = muscles.columns[: muscles.columns.get_loc(REASON)]
    # A formula may ask for any measure; otherwise most are not copied.
    unused = [name for name in measures if name not in KEPT] if formula is None else []
    kept, counted = muscles.drop(columns=[*unused, *EXCLUSION]), muscles['excluded'] == 'no'
    return analyse(
        kept if counted.all() else kept[counted],
        formula=formula,
        harmonise_sites=harmonise_sites,
        order=order,
    )


def write_statistics(analyses: Mapping[str, CohortAnalysis], output_dir: Path) -> list[Path]:
    """Write a table per analysis and one of all findings, each with its data dictionary.

    Those of an earlier run that are not written again are removed.
    """
    import pandas as pd

    known = read_dictionary('evaluation') | dictionary()
    tables = {
        (
            dataset_path('group_stats', analysis=name),
            dataset_path('group_stats_json', analysis=name),
        ): (each.table, {column: known[column] for column in each.table.columns})
        for name, each in analyses.items()
    }
    definitions = read_dictionary('group_findings')
    findings = [
        (name, each.region, each.contrast, each.measure or MISSING, each.sentence)
        for name, analysis in analyses.items()
        for each in analysis.findings
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
            'measure': heading(measure, definitions) if measure else 'your own model',
            'analyses': [
                each
                for name, figure in FIGURES.items()
                if name in analyses
                and (
                    each := _block(
                        name, figure, analyses, (region, contrast, measure), definitions
                    )
                )
            ],
        }
        for measure in measures
    ]


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
    own = _rows_of(analysis.table, place)
    unit = f' ({_unit(place[2])})' if _unit(place[2]) else ''
    measure = heading(place[2], definitions)
    if name not in MEASURED and 'harmonised_values' in analyses:
        values = _rows_of(analyses['harmonised_values'].table, place)
        measure += ', harmonised values' * (len(values) > 0)
    effect = figure.effect.format(unit=unit, measure=measure)
    rows = own.to_dict('records')
    if measure not in effect:
        effect = f'{measure}: {effect}'
    charts = [
        (_means(rows) if name == 'means' else _estimates(figure, rows), effect, _key(name, rows))
    ]
    if name == 'sex_differences':
        title = f'{measure}, estimated means of women (circles) and men (squares)'
        stars = (
            'Lines: ± 1 standard error. Women and men differ: * p < 0.05, ** p < 0.01, '
            '*** p < 0.001, after Holm correction but for all muscles.'
        )
        charts.append((_marginal_means(rows), title, stars))
    points = analysis.points.get(place, {})
    draw = {'pearson': _residual_panels, 'agreement': _agreement_panels}.get(name)
    return {
        'title': figure.title,
        'sentences': sentences,
        'charts': [forest_chart(*chart) for chart in charts if chart[0]],
        'panels': draw(rows, points, measure) if draw else [],
        'file': str(dataset_path('group_stats', analysis=name)),
    }


def _estimates(figure: Figure, rows: Sequence[Cells]) -> list[Estimate]:
    """Return the effects that are known; what ComBat removes has no interval."""
    estimates = []
    for row in rows:
        value = row[figure.column]
        low, high = (row.get(f'{figure.column}_ci_{end}', value) for end in ('low', 'high'))
        if np.isfinite([value, low, high]).all() and row.get('term') != 'Intercept':
            mark = 'plain'
            if 'p_holm' in row:
                p = deciding_p(row) if figure.family else row['p']
                mark = 'certain' if is_effect(p) else 'open'
            interval = f' ({low:.2f} to {high:.2f})' if low < high else ''
            text = f'{value:.2f}{interval}, {_n_text(row)}'
            estimates.append(Estimate(figure.label(row), value, low, high, mark, text))
    return estimates


def _key(name: str, rows: Sequence[Cells]) -> str:
    """Say what lines and dots of the first chart of an analysis are."""
    if name == 'means':
        return 'Dots: means. Lines: ± 1 standard error. Nothing is tested.'
    if name == 'harmonisation':
        return 'Dots: what was removed; it has no interval and no test.'
    if name == 'agreement':
        return 'Lines: 95 % confidence intervals. Nothing is tested.'
    if not FIGURES[name].family:
        return 'Lines: 95 % confidence intervals. Filled dots: p < 0.05, each a test of its own.'
    tests = sum(np.isfinite(row['p_holm']) for row in rows)
    alone = ', all muscles: p < 0.05 of one test' if name == 'sex_differences' else ''
    return (
        f'Lines: 95 % confidence intervals. Filled dots: {AFTER_HOLM} for {tests} '
        f'test{"s" if tests != 1 else ""}{alone}.'
    )


def _n_text(row: Cells) -> str:
    if 'n_female' in row:
        return f'n = {row["n_female"]:.0f} F, {row["n_male"]:.0f} M'
    return f'n = {row["n"]:.0f}'


def _term_text(term: str) -> str:
    """Name a term of the mixed model with its unit.

    Examples
    --------
    >>> _term_text('age'), _term_text('session ses-post'), _term_text('pain')
    ('age (per year)', 'session ses-post minus first', 'pain (per unit)')
    """
    if term.startswith('session '):
        return f'{term} minus first'
    known = {'sex': 'women minus men', 'age': 'age (per year)', 'bmi': 'BMI (per kg/m²)'}
    return known.get(term, f'{term} (per unit)')


def _rows_of(table: pd.DataFrame, place: tuple[str, str, str]) -> pd.DataFrame:
    """Return the rows of a region, contrast and, but for a model of the user, measure."""
    keys = [key for key in ('region', 'contrast', 'measure') if key in table]
    return table[(table[keys] == list(place[: len(keys)])).all(axis=1)]


def _means(rows: Sequence[Cells]) -> list[Estimate]:
    """Return the mean of each muscle with its standard error (Weber 2021, Figure 5A)."""
    return [
        _with_error(
            row['muscle'], row['mean'], 0.0 if too_few(row['n']) else row['se'], 'plain', row
        )
        for row in rows
        if np.isfinite(row['mean'])
    ]


def _marginal_means(rows: Sequence[Cells]) -> list[Estimate]:
    """Return the estimated marginal means of women and men (Weber 2021, Figure 5B)."""
    found = []
    for row in rows:
        if np.isfinite(row['emm_female']):
            stars = '*' * sum(deciding_p(row) < limit for limit in (0.05, 0.01, 0.001))
            for name, mark in (('female', 'women'), ('male', 'men')):
                label = f'{row["muscle"]}: {mark} {stars}'.strip()
                mean, error = row[f'emm_{name}'], row[f'emm_{name}_se']
                found.append(_with_error(label, mean, error, mark, {'n': row[f'n_{name}']}))
    return found


def _with_error(label: str, mean: float, error: float, mark: str, row: Cells) -> Estimate:
    spread = f' ± {format_value(error)}' if error else ''
    text = f'{format_value(mean)}{spread}, {_n_text(row)}'
    return Estimate(label, mean, mean - error, mean + error, mark, text)


def _residual_panels(rows: Sequence[Cells], points: Points, measure: str) -> list[dict[str, Any]]:
    """Draw what is left of each muscle on what is left of a variable (Weber 2021, Figure 6)."""
    grids = []
    for variable in dict.fromkeys(row['variable'] for row in rows):
        panels = []
        for row in rows:
            values = points.get((row['muscle'], variable))
            if row['variable'] == variable and values is not None and np.isfinite(row['r']):
                slope = row['r'] * values[:, 1].std() / values[:, 0].std()
                low, high = float(values[:, 0].min()), float(values[:, 0].max())
                line = ('regression', (low, slope * low), (high, slope * high))
                text = f'r = {row["r"]:.2f}, {p_text(row["p_holm"])}, {_n_text(row)}'
                panels.append(Panel(row['muscle'], text, values, (line,)))
        if panels:
            title = (
                f'{measure} and {variable}, what is left of both after the other covariates; '
                'p after Holm correction'
            )
            grids.append(panel_grid(panels, title, variable, measure))
    return grids


def _agreement_panels(rows: Sequence[Cells], points: Points, measure: str) -> list[dict[str, Any]]:
    """Draw correlation and Bland-Altman plots as Weber 2021, Figures 3 and 4."""
    grids = []
    for test, reference in dict.fromkeys((row['test'], row['reference']) for row in rows):
        scatter, difference = [], []
        for row in rows:
            values = points.get((row['muscle'], test), np.empty((0, 2)))
            if row['test'] != test or too_few(len(values)):
                continue
            test_values, reference_values = values.T
            low, high = float(values.min()), float(values.max())
            scatter.append(
                Panel(
                    row['muscle'],
                    f'ICC {row["icc"]:.2f}, r {row["pearson_r"]:.2f}, {_n_text(row)}',
                    values[:, ::-1],
                    (('identity', (low, low), (high, high)),),
                )
            )
            means = (test_values + reference_values) / 2
            ends = float(means.min()), float(means.max())
            levels = (('bias', row['bias']), ('limit', row['loa_low']), ('limit', row['loa_high']))
            difference.append(
                Panel(
                    row['muscle'],
                    f'bias {row["bias"]:.2f}, {_n_text(row)}',
                    np.column_stack([means, test_values - reference_values]),
                    tuple((style, (ends[0], y), (ends[1], y)) for style, y in levels),
                )
            )
        if scatter:
            named = f'{measure}, {test} and {reference}'
            grids.append(panel_grid(scatter, named, reference, test, square=True))
            title = f'{named}: Bland-Altman, bias and 95 % limits of agreement'
            grids.append(panel_grid(difference, title, 'mean of both', f'{test} - {reference}'))
    return grids


def _unit(measure: str) -> str:
    """Return the unit that the name of a measure ends in.

    Examples
    --------
    >>> _unit('volume_ml'), _unit('mfi_ratio_of_means_pct')
    ('ml', 'points')
    """
    return {'pct': 'points', 'ml': 'ml', 'cm2': 'cm²', 'mm': 'mm'}.get(
        measure.rpartition('_')[2], ''
    )
