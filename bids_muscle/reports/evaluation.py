"""Tables, plots and pages of an evaluation and of a comparison of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.writer import read_tsv, write_json, write_text, write_tsv
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.errors import MissingInputError, UsageError
from bids_muscle.reports.evaluation_plots import NAMES, agreement_plots, dice_plot, figure_uri
from bids_muscle.reports.outputs import MISSING
from bids_muscle.reports.page import environment, webp_uri
from bids_muscle.statistics import analysis, spine
from bids_muscle.statistics.evaluation import (
    ACCURACY,
    ALL,
    agreements,
    evaluation_dictionary,
    summarise,
)
from bids_muscle.statistics.factorial import compare_levels, factorial_anova
from bids_muscle.statistics.loads import compare_loads

if TYPE_CHECKING:
    import pandas as pd

#: Names of the tables, without extension.
ROWS, SUMMARY, AGREEMENT = 'evaluation', 'evaluation_summary', 'evaluation_agreement'
LOADS = 'evaluation_loads'
ANOVA, PAIRS, COMPARED = 'comparison_anova', 'comparison_pairs', 'comparison_summary'


def write_evaluation(
    table: pd.DataFrame,
    output: Path,
    title: str,
    left_out: Sequence[str] = (),
    loads: pd.DataFrame | None = None,
    examples: Sequence[tuple[str, bytes]] = (),
) -> Path:
    """Write an evaluation: three tables with dictionaries, and a self-contained page.

    Parameters
    ----------
    table
        Rows of :func:`~bids_muscle.statistics.evaluation.compare_maps` with the columns
        ``participant_id``, ``session_id`` and ``scan``.
    output
        Folder.
    title
        What was evaluated.
    left_out
        Sentences about what could not be evaluated.
    loads
        Loads on the spine by both, for :func:`~bids_muscle.statistics.loads.compare_loads`.
    examples
        Pictures of test over reference, WebP, each with its caption.

    Returns
    -------
    Path
        The page.
    """
    summary, agreed = summarise(table), agreements(table)
    for name, each in ((ROWS, table), (SUMMARY, summary), (AGREEMENT, agreed)):
        _write_table(each, output / name, evaluation_dictionary())
    by_level = None if loads is None else compare_loads(loads)
    if by_level is not None:
        _write_table(by_level, output / LOADS, read_dictionary('evaluation_loads'))
    page = output / 'evaluation.html'
    context = {
        'title': title,
        'people': table['participant_id'].nunique(),
        'scans': table['scan'].nunique(),
        'left_out': left_out,
        'accuracy': _accuracy(summary),
        'headings': [evaluation_dictionary()[name]['LongName'] for name in ACCURACY],
        'agreement': _agreement(agreed),
        'measures': list(NAMES.values()),
        'loads': [] if by_level is None else _loads(by_level),
        'examples': [(caption, webp_uri(content)) for caption, content in examples],
        'pictures': [
            ('Dice of each scan', figure_uri(dice_plot(table))),
            *(
                (f'{title}: correlation and Bland-Altman', figure_uri(figure))
                for title, figure in agreement_plots(table)
            ),
        ],
        'definitions': [
            (evaluation_dictionary()[n]['LongName'], evaluation_dictionary()[n]) for n in ACCURACY
        ],
    }
    write_text(environment().get_template('evaluation.html.j2').render(context), page)
    return page


def write_spine_evaluation(table: pd.DataFrame, output: Path, title: str) -> Path:
    """Write the evaluation of vertebrae and discs: two tables and a self-contained page.

    Parameters
    ----------
    table
        Rows for :func:`~bids_muscle.statistics.spine.summarise_spines` with the columns
        ``participant_id``, ``session_id`` and ``scan``.
    output
        Folder.
    title
        What was evaluated.

    Returns
    -------
    Path
        The page, ``evaluation_spine.html``.
    """
    summary = spine.summarise_spines(table)
    _write_table(table, output / 'evaluation_spine', spine.spine_dictionary())
    _write_table(summary, output / 'evaluation_spine_summary', spine.spine_dictionary())
    page = output / 'evaluation_spine.html'
    context = {
        'title': title,
        'people': table['participant_id'].nunique(),
        'scans': table['scan'].nunique(),
        'headings': [spine.spine_dictionary()[name]['LongName'] for name in summary.columns],
        'rows': _cells(summary.astype(object).where(summary.notna(), None), list(summary)),
    }
    write_text(environment().get_template('evaluation_spine.html.j2').render(context), page)
    return page


def read_evaluation(folder: Path) -> pd.DataFrame:
    """Read the rows of an evaluation.

    Raises
    ------
    MissingInputError
        If the folder has none.
    """
    path = folder / f'{ROWS}.tsv'
    text = ('participant_id', 'session_id', 'scan', 'name', 'muscle', 'side', 'reason')
    try:
        return read_tsv(path, text)
    except (OSError, ValueError) as error:
        raise MissingInputError(
            f'The evaluation {path} cannot be read: {error}.',
            'Name folders that bids_muscle-model evaluate has written.',
        ) from error


def write_comparison(
    evaluations: Mapping[str, pd.DataFrame],
    output: Path,
    factors: Mapping[str, Sequence[str]] | None = None,
    value: str = 'dice',
) -> Path:
    """Compare models on the same scans by repeated-measures ANOVA and paired t (Wesselink 2022).

    Parameters
    ----------
    evaluations
        Rows of each evaluation by the name of the model.
    output
        Folder.
    factors
        What the models differ in: the level of each model for each factor, in the order of the
        evaluations; by default one factor, the model.
    value
        Column that is compared.

    Raises
    ------
    UsageError
        If there are fewer than two models, a factor has not one level per model, or no scan is in
        all evaluations.
    """
    import pandas as pd

    models = list(evaluations)
    factors = dict(factors or {'model': models})
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
    table = table[table['scan'].isin(shared)]
    anova = factorial_anova(table, value, [*factors, 'label'], 'scan')
    pairs = compare_levels(table, value, 'model', 'label', 'scan')
    summary = pd.concat(
        [summarise(table[table['model'] == model]).assign(model=model) for model in models]
    )
    summary = summary[['model', *(name for name in summary.columns if name != 'model')]]
    known = analysis.analysis_dictionary() | evaluation_dictionary()
    _write_table(summary, output / COMPARED, known)
    _write_table(anova.table, output / ANOVA, analysis.analysis_dictionary())
    _write_table(pairs.table, output / PAIRS, analysis.analysis_dictionary())
    best = table.groupby('model')[value].mean().idxmax()
    own = (pairs.table['level'] == best) | (pairs.table['other_level'] == best)
    context = {
        'title': 'Comparison of ' + ', '.join(models),
        'models': models,
        'best': best,
        'outcome': evaluation_dictionary()[value]['LongName'],
        'scans': len(shared),
        'left_out': len(cases) - len(shared),
        'sentences': [*anova.sentences, *pairs.sentences],
        'summary': _side_by_side(summary, models),
        'anova': _cells(anova.table, ('effect', 'f', 'df1', 'df2', 'p', 'partial_eta_squared')),
        'pairs': _cells(
            pairs.table[own],
            ('within', 'level', 'other_level', 'n', 'difference', 't', 'p', 'p_holm', 'reason'),
        ),
    }
    page = output / 'comparison.html'
    write_text(environment().get_template('comparison.html.j2').render(context), page)
    return page


def _loads(table: pd.DataFrame) -> list[tuple[str, str, int, list[str]]]:
    """Return task, level, discs and what Table 8 of Hess 2022 has, one row per level."""
    return [
        (
            row['task'],
            row['level'],
            row['n'],
            [
                _fixed(row['mean_test_n'], 0),
                _fixed(row['mean_reference_n'], 0),
                _fixed(row['pearson_r']),
                _fixed(row['pearson_p']),
                f'{_fixed(row["mae_n"], 0)} ± {_fixed(row["mae_ci_n"], 0)}',
            ],
        )
        for row in table.to_dict('records')
    ]


def _write_table(table: pd.DataFrame, stem: Path, known: Mapping[str, Any]) -> None:
    write_tsv(table, stem.with_suffix('.tsv'))
    write_json({name: known[name] for name in table.columns}, stem.with_suffix('.json'))


def _fixed(value: Any, digits: int = 3) -> str:
    """Write a number of a table, n/a where there is none.

    Examples
    --------
    >>> _fixed(0.12345), _fixed(float('nan')), _fixed('all')
    ('0.123', 'n/a', 'all')
    """
    if not isinstance(value, float):
        return MISSING if value is None else str(value)
    return f'{value:.{digits}f}' if isfinite(value) else MISSING


def _cells(table: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    return [
        [_p(row[name]) if name in ('p', 'p_holm') else _fixed(row[name]) for name in columns]
        for row in table.to_dict('records')
    ]


def _p(p: float) -> str:
    return '< 0.001' if p < 0.001 else _fixed(p)


def _mean_sd(row: Mapping[str, Any], scans: int) -> str:
    """Return mean and SD, of a single scan the mean alone, and n where it is not that of all."""
    mean, sd = _fixed(row['mean'], 2), _fixed(row['sd'], 2)
    text = mean if sd == MISSING else f'{mean} ± {sd}'
    return text if row['n'] in (0, scans) else f'{text} (n = {row["n"]})'


def _interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval.

    Examples
    --------
    >>> _interval(0.5, 0.75), _interval(float('nan'), float('nan'))
    ('0.500 to 0.750', 'n/a')
    """
    ends = _fixed(low, digits), _fixed(high, digits)
    return MISSING if MISSING in ends else ' to '.join(ends)


def _grouped(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """Group rows by muscle, then side, left first as in the papers."""
    groups = []
    for muscle in dict.fromkeys(table['muscle']):
        rows = table[table['muscle'] == muscle]
        sides = sorted(dict.fromkeys(rows['side']))
        groups.append((muscle, [(side, rows[rows['side'] == side]) for side in sides]))
    return groups


def _accuracy(summary: pd.DataFrame) -> list[tuple[str, list[tuple[str, int, list[str]]]]]:
    """Lay out mean ± SD of the accuracy as Weber 2021, Table 4."""
    out = []
    for muscle, sides in _grouped(summary):
        lines = []
        for side, rows in sides:
            cells = {row['measure']: row for row in rows.to_dict('records')}
            scans = int(cells['dice']['n'])
            lines.append((side, scans, [_mean_sd(cells[name], scans) for name in ACCURACY]))
        out.append((muscle, lines))
    return out


def _agreement(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, list[str], list[str]]]]]:
    """Lay out MFI beside volume as Weber 2021, Table 2, and the ICC as its Table 3."""
    out = []
    for muscle, sides in _grouped(table):
        lines = []
        for side, rows in sides:
            by_measure = {row['measure']: row for row in rows.to_dict('records')}
            accuracy, reliability = [], []
            for measure in NAMES:
                row = by_measure[measure]
                accuracy += [
                    str(row['n']),
                    _fixed(row['mean_test'], 1),
                    _fixed(row['bias'], 1),
                    _interval(row['loa_low'], row['loa_high'], 1),
                    _fixed(row['mae'], 1),
                    _fixed(row['rmse'], 1),
                    _fixed(row['r_squared']),
                ]
                reliability += [
                    _fixed(row['icc']),
                    _interval(row['icc_ci_low'], row['icc_ci_high']),
                    _p(row['icc_p']),
                ]
            lines.append((side, accuracy, reliability))
        out.append((muscle, lines))
    return out


def _side_by_side(
    summary: pd.DataFrame, models: Sequence[str]
) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Lay out the models side by side as Wesselink 2022, Table 1."""
    out = []
    for muscle, sides in _grouped(summary):
        for side, rows in sides:
            lines = []
            for name in ACCURACY:
                chosen = rows[rows['measure'] == name]
                by_model = {row['model']: row for row in chosen.to_dict('records')}
                values = [
                    f'{_fixed(by_model[m]["mean"])} ({_fixed(by_model[m]["sd"])})' for m in models
                ]
                lines.append((evaluation_dictionary()[name]['LongName'], values))
            out.append((f'{muscle} {side}' if muscle != ALL else 'all labels', lines))
    return out
