"""What a statistical analysis returns: a tidy table and sentences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: Below this p an effect is called one; tables hold p itself.
ALPHA = 0.05


@dataclass(frozen=True)
class Analysis:
    """Result of one analysis.

    Parameters
    ----------
    table
        One row per effect, columns as in :func:`dictionary`. What cannot be computed is missing,
        and ``reason`` says why.
    sentences
        The result in words, one sentence for each model that was fitted.
    """

    table: pd.DataFrame
    sentences: tuple[str, ...]


@cache
def dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each column of the tables: LongName, Description, Units."""
    path = resources.files('bids_muscle') / 'data/dictionaries/statistics.json'
    definitions: dict[str, dict[str, str]] = json.loads(path.read_text(encoding='utf-8'))
    return definitions


def p_text(p: float) -> str:
    """Write a p as papers do.

    Examples
    --------
    >>> p_text(0.0213), p_text(0.00001)
    ('p = 0.021', 'p < 0.001')
    """
    return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'


def is_effect(p: float) -> bool:
    """Whether p, if there is one, is below 0.05."""
    return not isnan(p) and p < ALPHA


def listed(names: list[str]) -> str:
    """Join names as in a sentence.

    Examples
    --------
    >>> listed(['age']), listed(['age', 'bmi', 'sex'])
    ('age', 'age, bmi and sex')
    """
    return ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)
