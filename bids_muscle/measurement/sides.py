"""Slices on which one side of a muscle is much smaller than the other, as it seldom is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

#: The smaller side has less than this share of the larger one, and the larger at least this area.
SHARE, LEAST_CM2 = 0.2, 2.0


def uneven_sides(slices: pd.DataFrame) -> list[str]:
    """Say on which slices one side of a muscle nearly lacks while the other is there.

    A muscle of that kind is rare (a paralysis, a slice tilted at the end of a muscle); an outline
    that has gone astray is not.

    Parameters
    ----------
    slices
        Table of slices of :class:`~bids_muscle.measurement.table.Measures`.

    Returns
    -------
    list of str
        One sentence for each muscle that has such slices.
    """
    sided = slices[slices['side'].isin(['left', 'right']) & slices['within_extent']]
    areas = sided.pivot_table(
        index=['muscle', 'slice'], columns='side', values='csa_cm2', aggfunc='sum', fill_value=0.0
    ).reindex(columns=['left', 'right'], fill_value=0.0)
    small, large = areas.min(axis=1), areas.max(axis=1)
    found = areas[(large >= LEAST_CM2) & (small < SHARE * large)]
    sentences = []
    for muscle, uneven in found.groupby('muscle', sort=False):
        # As the page counts: from one.
        numbers = uneven.index.get_level_values('slice') + 1
        worst = uneven.loc[(uneven['left'] - uneven['right']).abs().idxmax()]
        sentences.append(
            f'One side of {muscle} nearly lacks on slice {_ranges(numbers)} from below (left '
            f'{worst.left:.1f}, right {worst.right:.1f} cm2): look at its outlines there.'
        )
    return sentences


def _ranges(numbers: Iterable[int]) -> str:
    """Write ascending numbers shortly.

    Examples
    --------
    >>> _ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ', '.join('-'.join(map(str, run)) for run in runs)
