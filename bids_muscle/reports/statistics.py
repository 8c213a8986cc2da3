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
from bids_muscle.reports.charts import Estimate, forest_chart
from bids_muscle.reports.cohort import EXCLUSION
from bids_muscle.reports.outputs import MISSING, Definitions
from bids_muscle.reports.page import heading
from bids_muscle.statistics.analysis import ALPHA, dictionary
from bids_muscle.statistics.cohort import CohortAnalysis, analyse

if TYPE_CHECKING:
    import pandas as pd

Cells = Mapping[str, Any]


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
        Name of the effect size; ``{unit}`` stands for that of the measure.
    label
        Makes the name of a row from its cells.
    """

    title: str
    column: str
    effect: str
    label: Callable[[Cells], str]


FIGURES = {
    'site_differences': Figure(
        'Do sites differ?',
        'partial_eta_squared',
        'partial eta squared of site',
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
        'partial eta squared',
        lambda row: row['effect'],
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
        'partial correlation, Pearson',
        lambda row: f'{row["variable"]}: {row["muscle"]}',
    ),
    'spearman': Figure(
        'What goes with sex, age and body mass index? (ranks)',
        'r',
        'partial correlation, Spearman',
        lambda row: f'{row["variable"]}: {row["muscle"]}',
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
        'Cohen d',
        lambda row: f'{row["muscle"]}: {row["term"]}',
    ),
    'formula': Figure(
        'Your own model',
        'partial_eta_squared',
        'partial eta squared',
        lambda row: row['term'],
    ),
}


def analyse_cohort(
    muscles: pd.DataFrame, *, formula: str | None, harmonise_sites: bool
) -> dict[str, CohortAnalysis]:
    """Analyse the rows of :func:`~bids_muscle.reports.cohort.muscle_table` that count.

    Raises
    ------
    UsageError
        If the formula cannot be used.
    """
    kept = muscles[muscles['excluded'] == 'no'].drop(columns=list(EXCLUSION))
    return analyse(kept, formula=formula, harmonise_sites=harmonise_sites)


def write_statistics(analyses: Mapping[str, CohortAnalysis], output_dir: Path) -> list[Path]:
    """Write a table per analysis and one of all findings, each with its data dictionary.

    Those of an earlier run that are not written again are removed.
    """
    import pandas as pd

    known = dictionary()
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
                and (each := _block(name, figure, analyses[name], (region, contrast, measure)))
            ],
        }
        for measure in measures
    ]


def _block(
    name: str, figure: Figure, analysis: CohortAnalysis, place: tuple[str, str, str]
) -> dict[str, Any] | None:
    """Return title, sentences, chart and file of one analysis."""
    sentences = [
        finding.sentence
        for finding in analysis.findings
        if (finding.region, finding.contrast, finding.measure) == place
    ]
    if not sentences:
        return None
    table = analysis.table
    keys = [key for key in ('region', 'contrast', 'measure') if key in table]
    own = table[(table[keys] == list(place[: len(keys)])).all(axis=1)]
    unit = f' ({_unit(place[2])})' if _unit(place[2]) else ''
    effect = figure.effect.format(unit=unit)
    estimates = _estimates(figure, own.to_dict('records'))
    return {
        'title': figure.title,
        'sentences': sentences,
        'chart': forest_chart(estimates, effect) if estimates else None,
        'file': str(dataset_path('group_stats', analysis=name)),
        'emms': _emms(own.to_dict('records')) if name == 'sex_differences' else [],
    }


def _estimates(figure: Figure, rows: Sequence[Cells]) -> list[Estimate]:
    """Return the effects that are known; what ComBat removes has no interval."""
    estimates = []
    for row in rows:
        value = row[figure.column]
        low, high = (row.get(f'{figure.column}_ci_{end}', value) for end in ('low', 'high'))
        if np.isfinite([value, low, high]).all() and row.get('term') != 'Intercept':
            certain = row.get('p_holm', 1.0) < ALPHA
            estimates.append(Estimate(figure.label(row), value, low, high, certain))
    return estimates


def _emms(rows: Sequence[Cells]) -> list[dict[str, Any]]:
    """Return the estimated marginal means of women and men, for a table."""
    return [row for row in map(dict, rows) if row['emm_female'] == row['emm_female']]


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
