"""Evaluation of vertebrae and discs, laid out as Tables 3 to 7 of Hess 2022."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.statistics.agreement import correlation, half_width
from bids_muscle.statistics.evaluation import ALL, people_of

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the summary.
SUMMARY = (
    'kind',
    'name',
    'n',
    'dice_mean',
    'dice_ci',
    'centroid_error_mean_mm',
    'centroid_error_ci_mm',
    'height_mae_mean_mm',
    'height_mae_ci_mm',
    'height_r',
    'height_p',
    'mean_height_mae_mean_mm',
    'mean_height_mae_ci_mm',
    'mean_height_r',
    'mean_height_p',
)


def spine_dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each column of the tables."""
    return read_dictionary('evaluation_spine')


def summarise_spines(table: pd.DataFrame) -> pd.DataFrame:
    """Describe how well vertebrae and discs agree, all together and by level.

    Parameters
    ----------
    table
        One row per scan and structure: ``participant_id``, ``scan``, ``kind``, ``name``, ``dice``,
        ``centroid_error_mm``, and ``height`` and ``mean_height`` with the ends ``_test_mm`` and
        ``_reference_mm``.

    Returns
    -------
    pandas.DataFrame
        One row per kind for all levels, then one per level: means with half the width of their
        95 % confidence interval (Student's t), and Pearson's r of the heights. A vertebra or disc
        of a person counts once: Dice and centroid by the mean of the scans, heights by the first
        scan that has both.
    """
    import pandas as pd

    table = table.assign(person=people_of(table))
    rows = []
    for kind, part in table.groupby('kind', sort=True):
        groups = [(ALL, part), *part.groupby('name', sort=False)]
        rows += [{'kind': kind, 'name': name, **_describe(group)} for name, group in groups]
    return pd.DataFrame(rows, columns=list(SUMMARY))


def once_each_height(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows that have all `columns`: of several scans of a person the first of each.

    Parameters
    ----------
    table
        As for :func:`summarise_spines`, of one kind.
    columns
        A height in the test and in the reference, mm.
    """
    known = table.assign(person=people_of(table)).dropna(subset=list(columns))
    return known.drop_duplicates(['person', 'name'])


def _describe(group: pd.DataFrame) -> dict[str, Any]:
    of_each = group.groupby(['person', 'name'])
    found: dict[str, Any] = {'n': of_each.ngroups}
    for name, unit in (('dice', ''), ('centroid_error', '_mm')):
        values = of_each[f'{name}{unit}'].mean()
        found |= {
            f'{name}_mean{unit}': float(values.mean()),
            f'{name}_ci{unit}': half_width(values.dropna().to_numpy(dtype=float)),
        }
    for name in ('height', 'mean_height'):
        columns = [f'{name}_test_mm', f'{name}_reference_mm']
        both = once_each_height(group, columns)
        test, truth = (both[column] for column in columns)
        off = (test - truth).abs().to_numpy(dtype=float)
        r, p = correlation(test.to_numpy(dtype=float), truth.to_numpy(dtype=float))
        found |= {
            f'{name}_mae_mean_mm': float(off.mean()) if off.size else np.nan,
            f'{name}_mae_ci_mm': half_width(off),
            f'{name}_r': float(r),
            f'{name}_p': float(p),
        }
    return found
