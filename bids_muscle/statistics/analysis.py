"""What a statistical analysis returns: a tidy table and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING, Any

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.statistics.effect_size import holm

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: What is drawn of each muscle and variable or test: (n, 2) values.
Points = Mapping[tuple[str, str], 'np.ndarray']

#: Below this p, corrected by Holm's method where a table holds several tests, an effect is called
#: one; tables hold p itself.
ALPHA = 0.05
#: The same in words.
AFTER_HOLM = 'p < 0.05 after Holm correction'
#: Row of the mean over all muscles.
ALL_MUSCLES = 'all muscles'
#: A test has at least this many degrees of freedom of the residuals: five people for a mean.
MIN_DF = 4


@dataclass(frozen=True)
class Analysis:
    """Result of one analysis.

    Parameters
    ----------
    table
        One row per effect, columns as in :func:`analysis_dictionary`. What cannot be computed is
        missing, and ``reason`` says why.
    sentences
        The result in words, one sentence for each model that was fitted.
    points
        What a scatter plot shows: by muscle and variable, or muscle and test, (n, 2) values.
    """

    table: pd.DataFrame
    sentences: tuple[str, ...]
    points: Points = field(default_factory=dict)


def tested_table(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return a table of tests, each with its p after Holm's correction for all of them."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(columns))
    table['p_holm'] = holm(table['p'].to_numpy(dtype=float))
    return table


def analysis_dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each column of the tables: LongName, Description, Units."""
    return read_dictionary('statistics')


def p_text(p: float) -> str:
    """Write a p as papers do.

    Examples
    --------
    >>> p_text(0.0213), p_text(0.00001)
    ('p = 0.021', 'p < 0.001')
    """
    return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'


def interval_text(estimate: float, low: float, high: float, digits: int = 2) -> str:
    """Write an estimate with its interval.

    Examples
    --------
    >>> interval_text(1.234, 0.5, 2, 1)
    '1.2 (95 % CI 0.5 to 2.0)'
    """
    return f'{estimate:.{digits}f} (95 % CI {low:.{digits}f} to {high:.{digits}f})'


def counted(numbers: Iterable[float]) -> str:
    """Write how many took part in tests that may differ in it.

    Examples
    --------
    >>> counted([84, 84]), counted([80, 84])
    ('n = 84', 'n = 80 to 84')
    """
    low, *_, high = sorted([*(counts := list(numbers) or [0]), counts[0]])
    return f'n = {low:.0f}' if low == high else f'n = {low:.0f} to {high:.0f}'


def is_effect(p: float) -> bool:
    """Whether p, if there is one, is below 0.05."""
    return not isnan(p) and p < ALPHA


def deciding_p(row: Mapping[Any, Any]) -> float:
    """Return the p that decides whether an effect is called one: Holm's, where it has one.

    Examples
    --------
    >>> deciding_p({'p': 0.01, 'p_holm': 0.07}), deciding_p({'p': 0.01, 'p_holm': float('nan')})
    (0.07, 0.01)
    """
    return float(row['p'] if isnan(row['p_holm']) else row['p_holm'])


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table whose effect is called one."""
    return table[table['p_holm'].fillna(table['p']) < ALPHA]


def why_not_tested(table: pd.DataFrame) -> str | None:
    """Return the reasons of a table in which nothing was tested, or None."""
    if table['p'].notna().any():
        return None
    return '; '.join(dict.fromkeys(table['reason'].dropna())) or 'there are no data to test'


def too_few(n: int, coefficients: int = 1) -> str | None:
    """Return that people are too few for a test, or None.

    Examples
    --------
    >>> too_few(3), too_few(5), too_few(1, 4)
    ('3 participants are too few; at least 5 are needed', None, '1 participant is too few; \
at least 8 are needed')
    """
    needed = coefficients + MIN_DF
    what = '1 participant is' if n == 1 else f'{n} participants are'
    return f'{what} too few; at least {needed} are needed' if n < needed else None


def listed(names: list[str]) -> str:
    """Join names as in a sentence.

    Examples
    --------
    >>> listed(['age']), listed(['age', 'bmi', 'sex'])
    ('age', 'age, bmi and sex')
    """
    return ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)
