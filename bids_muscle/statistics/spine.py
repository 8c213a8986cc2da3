"""Evaluation of vertebrae and discs, laid out as Tables 3 to 7 of Hess 2022."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.statistics.evaluation import ALL

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
)


def spine_dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each column of the tables."""
    return read_dictionary('evaluation_spine')


def summarise_spines(table: pd.DataFrame) -> pd.DataFrame:
    """Describe how well vertebrae and discs agree, all together and by level.

    Parameters
    ----------
    table
        One row per scan and structure: ``kind``, ``name``, ``dice``, ``centroid_error_mm``,
        ``height_test_mm`` and ``height_reference_mm``.

    Returns
    -------
    pandas.DataFrame
        One row per kind for all levels, then one per level: means with half the width of their
        95 % confidence interval (Student's t over rows), and Pearson's r of the heights.
    """
    import pandas as pd

    rows = []
    for kind, part in table.groupby('kind', sort=True):
        groups = [(ALL, part), *part.groupby('name', sort=True)]
        rows += [{'kind': kind, 'name': name, **_describe(group)} for name, group in groups]
    return pd.DataFrame(rows, columns=list(SUMMARY))


def _describe(group: pd.DataFrame) -> dict[str, Any]:
    from scipy.stats import pearsonr

    heights = group[['height_test_mm', 'height_reference_mm']].dropna()
    test, truth = heights['height_test_mm'], heights['height_reference_mm']
    spread = len(heights) > 2 and test.nunique() > 1 and truth.nunique() > 1
    r, p = pearsonr(test, truth) if spread else (np.nan, np.nan)
    found: dict[str, Any] = {'n': len(group)}
    for name, values in (
        ('dice', group['dice']),
        ('centroid_error', group['centroid_error_mm']),
        ('height_mae', (test - truth).abs()),
    ):
        unit = '' if name == 'dice' else '_mm'
        found |= {
            f'{name}_mean{unit}': float(values.mean()),
            f'{name}_ci{unit}': _half_width(values.dropna().to_numpy(dtype=float)),
        }
    return {**found, 'height_r': float(r), 'height_p': float(p)}


def _half_width(values: np.ndarray) -> float:
    """Return half the 95 % confidence interval of a mean.

    Examples
    --------
    >>> round(_half_width(np.array([1.0, 2.0, 3.0])), 3)
    2.484
    """
    from scipy.stats import t

    n = values.size
    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
