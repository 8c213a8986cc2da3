"""Comparison of models on the same scans: tables, figures, page (Wesselink 2022, Xia 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.dataset.writer import write_text
from bids_muscle.errors import UsageError
from bids_muscle.reports.comparison_plots import mean_bars, normal_quantiles
from bids_muscle.reports.evaluation_cells import (
    fixed,
    grouped,
    interval,
    mean_error,
    named,
    table_cells,
    write_figures,
    write_table,
)
from bids_muscle.reports.page import environment
from bids_muscle.statistics import analysis
from bids_muscle.statistics.evaluation import (
    ACCURACY,
    ALL,
    agreements,
    evaluation_dictionary,
    summarise,
)
from bids_muscle.statistics.factorial import COMPARED as COMPARED_COLUMNS
from bids_muscle.statistics.factorial import compare_levels, factorial_anova

if TYPE_CHECKING:
    import pandas as pd

#: Names of the tables, without extension.
ANOVA, PAIRS = 'comparison_anova', 'comparison_pairs'
SUMMARY, AGREEMENT = 'comparison_summary', 'comparison_agreement'
#: What the pairs of models are compared by: that of Wesselink 2022, and both of Xia 2019.
OUTCOMES = ('dice', 'mean_boundary_distance_mm')


def write_comparison(
    evaluations: Mapping[str, pd.DataFrame],
    output: Path,
    factors: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Compare models on the same scans by repeated-measures ANOVA of Dice, and by paired t.

    Scans of one person are not independent, so that tests, means and their spread take the mean
    of each person.

    Parameters
    ----------
    evaluations
        Rows of each evaluation by the name of the model; ``participant_id`` tells people of all
        datasets apart.
    output
        Folder.
    factors
        What the models differ in: the level of each model for each factor, in the order of the
        evaluations; by default one factor, the model.

    Raises
    ------
    UsageError
        If there are fewer than two models, a factor has not one level per model, or no scan is in
        all evaluations.
    """
    import pandas as pd

    models = list(evaluations)
    factors = dict(factors or {'model': models})
    table, left_out = _joined(evaluations, factors)
    people = _of_all_models(table, len(models))
    anova = factorial_anova(people, OUTCOMES[0], [*factors, 'label'])
    compared = [compare_levels(people, value, 'model', 'label') for value in OUTCOMES]
    pairs = pd.concat(
        [
            frame.table.assign(outcome=value)
            for value, frame in zip(OUTCOMES, compared, strict=True)
        ],
        ignore_index=True,
    )[['outcome', *COMPARED_COLUMNS]]
    own = [(model, table[table['model'] == model]) for model in models]
    summary = pd.concat([summarise(rows).assign(model=model) for model, rows in own])
    agreed = pd.concat([agreements(rows).assign(model=model) for model, rows in own])
    summary, agreed = (
        frame[['model', *(name for name in frame.columns if name != 'model')]]
        for frame in (summary, agreed)
    )
    for name, frame in (
        (SUMMARY, summary),
        (AGREEMENT, agreed),
        (ANOVA, anova.table),
        (PAIRS, pairs),
    ):
        write_table(frame, output / name, analysis.analysis_dictionary() | evaluation_dictionary())
    overall = summary[(summary['muscle'] == ALL) & (summary['measure'] == 'dice')]
    best = str(overall.set_index('model')['mean'].idxmax())
    of_best = pairs[(pairs['level'] == best) | (pairs['other_level'] == best)]
    of_best = of_best.assign(pair=of_best['level'] + '\xa0−\xa0' + of_best['other_level'])
    figures = {
        'comparison_dice': (
            f'Dice: mean and standard deviation; {best} against each other model by paired t, '
            'not corrected for the number of tests: * p ≤ 0.05, ** p ≤ 0.001',
            mean_bars(table, models, of_best[of_best['outcome'] == 'dice'], best),
        ),
        'comparison_normality': (
            f'Differences of Dice, {best} minus each other model, against the quantiles of a '
            'normal distribution',
            normal_quantiles(people, models, best),
        ),
    }
    columns = ('within', 'pair', 'n', 'difference', 't', 'p', 'p_holm')
    normality = ('shapiro_w', 'shapiro_p', 'skewness', 'kurtosis')
    context = {
        'title': 'Comparison of ' + ', '.join(models),
        'models': models,
        'best': best,
        'scans': table['scan'].nunique(),
        'people': table['participant_id'].nunique(),
        'left_out': left_out,
        'sentences': [*anova.sentences, *compared[0].sentences],
        'summary': _side_by_side(summary, agreed, models),
        'anova': _anova_cells(anova.table),
        'pairs': [
            (
                evaluation_dictionary()[value]['LongName'],
                table_cells(rows, (*columns, *normality)),
                list(dict.fromkeys(rows['reason'].dropna())),
            )
            for value, rows in of_best.groupby('outcome', sort=False)
        ],
        'labels': [named(muscle, side) for muscle, sides in grouped(summary) for side, _ in sides],
        'by_model': [
            (evaluation_dictionary()[value]['LongName'], _by_model(summary, models, value))
            for value in OUTCOMES
        ],
        'pictures': write_figures(figures, output),
    }
    page = output / 'comparison.html'
    write_text(environment().get_template('comparison.html.j2').render(context), page)
    return page


def _joined(
    evaluations: Mapping[str, pd.DataFrame], factors: Mapping[str, Sequence[str]]
) -> tuple[pd.DataFrame, int]:
    """Return the rows of the scans that all models have, and the number of other scans."""
    import pandas as pd

    models = list(evaluations)
    wrong = [name for name, levels in factors.items() if len(levels) != len(models)]
    if len(models) < 2 or wrong:
        raise UsageError(
            f'The factor {wrong[0]} has not one level for each of {len(models)} models.'
            if wrong
            else 'One model cannot be compared.',
            'Name two or more evaluations, and for each factor one level per evaluation.',
        )
    parts = []
    for place, (model, rows) in enumerate(evaluations.items()):
        levels = {name: factors[name][place] for name in factors}
        parts.append(rows.assign(**{'model': model, **levels, 'label': rows['name']}))
    table = pd.concat(parts, ignore_index=True)
    cases = table.groupby('scan')['model'].nunique()
    shared = cases[cases == len(models)].index
    if shared.empty:
        raise UsageError(
            'No scan is in all evaluations, so the models cannot be compared.',
            'Evaluate all models on the same scans.',
        )
    return table[table['scan'].isin(shared)], len(cases) - len(shared)


def _of_all_models(table: pd.DataFrame, n_models: int) -> pd.DataFrame:
    """Keep of a person with several scans the outcomes of those that all models have one of.

    The means of a person by two models are then of the same scans.
    """
    people = table.groupby(['participant_id', 'label'])
    several = people['scan'].transform('nunique') > 1
    counts = table.groupby(['scan', 'label'])[list(OUTCOMES)].transform('count')
    partial = counts.lt(n_models) & several.to_numpy()[:, None]
    return table.assign(**table[list(OUTCOMES)].mask(partial))


def _anova_cells(table: pd.DataFrame) -> list[list[str]]:
    """Return the tests with the degrees of freedom of sphericity, then as corrected."""
    epsilon = table['epsilon_greenhouse_geisser']
    shown = table.assign(df1=table['df1'] / epsilon, df2=table['df2'] / epsilon)
    return table_cells(
        shown,
        (
            *('effect', 'f', 'df1', 'df2', 'p_sphericity_assumed', 'mauchly_p'),
            *('epsilon_greenhouse_geisser', 'p', 'partial_eta_squared'),
        ),
    )


def _side_by_side(
    summary: pd.DataFrame, agreed: pd.DataFrame, models: Sequence[str]
) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Lay out the models side by side as Wesselink 2022, Table 1."""
    out = []
    volume = agreed[agreed['measure'] == 'volume_ml'].set_index(['muscle', 'side', 'model'])
    for muscle, sides in grouped(summary):
        for side, rows in sides:
            lines = []
            for name in ACCURACY:
                chosen = rows[rows['measure'] == name].set_index('model')
                values = [
                    f'{fixed(mean)} ({f"{failed} failed" if failed else fixed(sd)})'
                    for mean, sd, failed in (
                        chosen.loc[model, ['mean', 'sd', 'n_failed']] for model in models
                    )
                ]
                lines.append((evaluation_dictionary()[name]['LongName'], values))
            if muscle != ALL:
                values = []
                for model in models:
                    row = volume.loc[(muscle, side, model)]
                    ends = interval(row['icc_ci_low'], row['icc_ci_high'])
                    values.append(f'{fixed(row["icc"])} ({ends})')
                lines.append(('Volume ICC(2,1) (95 % CI)', values))
            out.append((named(muscle, side), lines))
    return out


def _by_model(
    summary: pd.DataFrame, models: Sequence[str], measure: str
) -> list[tuple[str, list[str]]]:
    """Lay out mean ± SD, a row per model, as Xia 2019, Table 1; Dice in percent there."""
    scale, digits = (100, 1) if measure == 'dice' else (1, 2)
    chosen = summary[summary['measure'] == measure].set_index(['muscle', 'side', 'model'])
    keys = [(muscle, side) for muscle, sides in grouped(summary) for side, _ in sides]
    return [
        (
            model,
            [
                mean_error(scale * row['mean'], scale * row['sd'], digits)
                for row in (chosen.loc[(*key, model)] for key in keys)
            ],
        )
        for model in models
    ]
