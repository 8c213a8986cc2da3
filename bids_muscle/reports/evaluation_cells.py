"""Cells of the tables of an evaluation, and its tables and figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.anatomy.labels import UNSIDED
from bids_muscle.dataset.writer import write_bytes, write_json, write_tsv
from bids_muscle.reports.evaluation_plots import as_uri, figure_png
from bids_muscle.reports.outputs import MISSING
from bids_muscle.statistics.evaluation import ALL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Columns with a probability.
P_COLUMNS = ('p', 'p_holm', 'p_sphericity_assumed', 'mauchly_p', 'shapiro_p', 'csa_p', 'height_p')
#: Keeps a cell on one line.
_SPACE = '\N{NO-BREAK SPACE}'
#: Folder of the figures below that of the tables.
FIGURES = 'figures'


def write_figures(
    figures: Mapping[str, tuple[str, Figure]], output: Path
) -> list[tuple[str, str]]:
    """Write figures as PNG and return their captions and data URIs.

    Parameters
    ----------
    figures
        Caption and figure by the name of the file.
    output
        Folder of the evaluation.
    """
    drawn = []
    for name, (caption, figure) in figures.items():
        content = figure_png(figure)
        write_bytes(content, output / FIGURES / f'{name}.png')
        drawn.append((caption, as_uri(content)))
    return drawn


def write_table(table: pd.DataFrame, stem: Path, known: Mapping[str, Any]) -> None:
    """Write a table and the dictionary of its columns."""
    write_tsv(table, stem.with_suffix('.tsv'))
    write_json({name: known[name] for name in table.columns}, stem.with_suffix('.json'))


def fixed(value: Any, digits: int = 3) -> str:
    """Write a number of a table, n/a where there is none.

    Examples
    --------
    >>> fixed(0.12345), fixed(float('nan')), fixed('all'), fixed(float('-inf'))
    ('0.123', 'n/a', 'all', '−∞')
    """
    if not isinstance(value, float):
        return MISSING if value is None else str(value)
    if value == -inf:
        return '−∞'
    return f'{value:.{digits}f}' if isfinite(value) else MISSING


def table_cells(table: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    """Return the cells of some columns, row by row."""
    return [
        [p_cell(row[name]) if name in P_COLUMNS else fixed(row[name]) for name in columns]
        for row in table.to_dict('records')
    ]


def p_cell(p: float | None) -> str:
    """Write a probability."""
    return f'<{_SPACE}0.001' if p is not None and p < 0.001 else fixed(p)


def mean_error(mean: float, error: float, digits: int = 2) -> str:
    r"""Return mean ± error, the mean alone where there is no error.

    Examples
    --------
    >>> mean_error(1.5, 0.25), mean_error(1.5, float('nan'))
    ('1.50\xa0±\xa00.25', '1.50')
    """
    text, half = fixed(mean, digits), fixed(error, digits)
    return text if half == MISSING else f'{text}{_SPACE}±{_SPACE}{half}'


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval.

    Examples
    --------
    >>> interval(0.5, 0.75), interval(float('nan'), float('nan'))
    ('0.500 to 0.750', 'n/a')
    """
    ends = fixed(low, digits), fixed(high, digits)
    return MISSING if MISSING in ends else ' to '.join(ends)


def grouped(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """Group rows by muscle, then side, left first as in the papers."""
    groups = []
    for muscle in dict.fromkeys(table['muscle']):
        rows = table[table['muscle'] == muscle]
        sides = sorted(dict.fromkeys(rows['side']))
        groups.append((muscle, [(side, rows[rows['side'] == side]) for side in sides]))
    return groups


def named(muscle: str, side: str) -> str:
    """Return muscle and side as the tables name them.

    Examples
    --------
    >>> named('multifidus', 'left'), named('disc', 'unsided'), named('all', 'all')
    ('multifidus, left', 'disc', 'all labels')
    """
    if muscle == ALL:
        return 'all labels'
    return muscle if side == UNSIDED else f'{muscle}, {side}'
