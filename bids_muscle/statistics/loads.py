"""Loads on the spine from two segmentations, compared as in Table 8 of Hess 2022."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.agreement import agreement, half_width

if TYPE_CHECKING:
    import pandas as pd

#: The row of all levels together.
ALL_LEVELS = 'all'


def once_each_disc(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with both loads: of several scans of a person the first of each disc."""
    known = table.dropna(subset=['test_n', 'reference_n'])
    return known.drop_duplicates(['participant_id', 'task', 'level'])


def compare_loads(table: pd.DataFrame) -> pd.DataFrame:
    """Compare the compression of the discs by two segmentations of the same scans.

    Parameters
    ----------
    table
        One row per scan, task and level, with the columns ``participant_id``, ``task``, ``level``,
        ``test_n`` and ``reference_n``, of which :func:`once_each_disc` count.

    Returns
    -------
    pandas.DataFrame
        A row per task for all levels, then one for each; columns as in the dictionary
        ``evaluation_loads``.
    """
    import pandas as pd

    known = once_each_disc(table)
    rows = []
    for task in dict.fromkeys(table['task']):
        of_task = known[known['task'] == task]
        rows.append({'task': task, 'level': ALL_LEVELS} | _agreement(of_task))
        for level in dict.fromkeys(table['level']):
            part = of_task[of_task['level'] == level]
            rows.append({'task': task, 'level': level} | _agreement(part))
    return pd.DataFrame(rows)


def _agreement(part: pd.DataFrame) -> dict[str, Any]:
    test, reference = (part[name].to_numpy(dtype=float) for name in ('test_n', 'reference_n'))
    found = agreement(test, reference)
    return {
        'n': found.n,
        'mean_test_n': found.mean_test,
        'mean_reference_n': found.mean_reference,
        'bias_n': found.bias,
        'mae_n': found.mae,
        'mae_ci_n': half_width(np.abs(test - reference)),
        'pearson_r': found.pearson_r,
        'pearson_p': found.pearson_p,
        'reason': found.reason,
    }
