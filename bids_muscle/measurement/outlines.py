"""Outlines that are likely to be wrong: what is missing, and what changes as no muscle does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.segmentation.quality import UNUSABLE_DICE

if TYPE_CHECKING:
    import pandas as pd

    from bids_muscle.anatomy.labels import LabelTable

_DOUBT = 'predicted Dice {:.2f}{}: do not use without correcting the outline'
#: The smaller side has less than this share of the larger one, and the larger at least this area.
SHARE, LEAST_CM2 = 0.2, 2.0
#: Volumes of the two sides that differ by this factor, where the larger has at least this volume.
SIDES_FACTOR, LEAST_ML = 3.0, 5.0
#: A slice with this factor less, or more, than both its neighbours has a hole or a splinter.
JUMP_FACTOR = 2.5
#: A border moves where the share of a muscle in the two changes by the first part,
#: while their sum changes by less than the second, and each has at least the third of it.
BORDER_PART, STEADY_PART, LEAST_SHARE = 1 / 3, 0.2, 0.2
_AWAY_FROM_ENDS = 3
#: One side of a muscle may end so much before the other.
_END_MM = 10.0
#: Muscles with a common border that readers and networks confuse.
NEIGHBOURS = {
    'lumbar': (('multifidus', 'erector spinae'),),
    'cervical': (
        ('multifidus and semispinalis cervicis', 'semispinalis capitis'),
        ('semispinalis capitis', 'splenius capitis'),
        ('splenius capitis', 'trapezius'),
    ),
}
#: All muscles of a region are in view where muscles are seen over this length, mm.
IN_VIEW_MM = {'lumbar': 100.0, 'cervical': 60.0}


def outline_doubts(
    slices: pd.DataFrame, table: LabelTable, unlabelled: Collection[int] = ()
) -> list[str]:
    """Return which outlines are likely to be wrong, and where.

    Such findings are rare in people (a paralysis, an implant, a slice tilted at the end of a
    muscle); outlines that have gone astray are not.

    Parameters
    ----------
    slices
        Table of slices of :class:`~bids_muscle.measurement.table.Measures`.
    table
        The labels of the region.
    unlabelled
        Numbers of the labels that the model has no class for: that they are absent says nothing.

    Returns
    -------
    list of str
        One sentence for each muscle and kind of finding. Slices are numbered as in the tables,
        from 0 at the inferior end.
    """
    table = replace(table, labels=tuple(each for each in table if each.index not in unlabelled))
    slices = slices[slices['within_extent']]
    if slices.empty:
        return []
    areas = slices.pivot_table(
        index='slice', columns='name', values='csa_cm2', aggfunc='sum', fill_value=0.0
    )
    first, last = int(areas.index.min()), int(areas.index.max())
    areas = areas.reindex(
        index=range(first, last + 1),
        columns=[label.name for label in table],
        fill_value=0.0,
    )
    return [
        *_absent(slices, table),
        *_sides(slices, areas, table),
        *_jumps(areas),
        *_borders(areas, table),
    ]


def add_predicted_dice(
    muscles: pd.DataFrame,
    dice: Mapping[str, float],
    parts: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> None:
    """Fill the column ``dice_predicted``, and say in ``reason`` where it is too low.

    Parameters
    ----------
    muscles
        Table of muscles of :class:`~bids_muscle.measurement.table.Measures`; changed in place.
    dice
        Predicted Dice by name of the label.
    parts
        The same of each part of a joined scan, by its name: one bad part spoils the whole muscle.
    """
    muscles['dice_predicted'] = muscles['name'].map(dice)
    places = {'': dice, **{f' in {scan}': each for scan, each in parts.items()}}
    for place, each in places.items():
        low = muscles['name'].map(each) < UNUSABLE_DICE
        if place:  # a mean that is too low says it already
            low &= ~(muscles['dice_predicted'] < UNUSABLE_DICE)
        muscles.loc[low, 'reason'] = [
            '; '.join(filter(None, (_DOUBT.format(each[row.name], place), row.reason)))
            for row in muscles[low].fillna({'reason': ''}).itertuples(index=False)
        ]


def _absent(slices: pd.DataFrame, table: LabelTable) -> Iterator[str]:
    """Name muscles of which neither side was found, though they must be in view."""
    length_mm = float(np.ptp(slices['z_ras_mm']))
    if length_mm < IN_VIEW_MM.get(table.region, np.inf):
        return
    for muscle in dict.fromkeys(label.muscle for label in table if label.expected):
        if muscle not in set(slices['muscle']):
            yield (
                f'{muscle.capitalize()} was not found on either side, though other muscles are '
                f'seen over {length_mm:.0f} mm. Check the segmentation.'
            )


def _sides(slices: pd.DataFrame, areas: pd.DataFrame, table: LabelTable) -> Iterator[str]:
    """Compare left with right: a side that is missing, much smaller, or absent in some slices."""
    volumes = slices.groupby('name')['volume_ml'].sum()
    spacing_mm = _spacing_mm(slices)
    for muscle in dict.fromkeys(label.muscle for label in table):
        names = {side: f'{side} {muscle}' for side in ('left', 'right')}
        if not set(names.values()) <= set(areas.columns):
            continue
        ml = {side: float(volumes.get(name, 0.0)) for side, name in names.items()}
        small, large = sorted(ml, key=lambda side: ml[side])
        if ml[large] < LEAST_ML:
            continue
        if ml[small] == 0:
            yield (
                f'{names[small].capitalize()} is missing, and {names[large]} has '
                f'{ml[large]:.0f} ml. Check the segmentation.'
            )
            continue
        if ml[large] > SIDES_FACTOR * ml[small]:
            yield (
                f'The sides of {muscle} differ {ml[large] / ml[small]:.1f}-fold (left '
                f'{ml["left"]:.0f}, right {ml["right"]:.0f} ml). Check the segmentation.'
            )
        left, right = (areas[names[side]] for side in ('left', 'right'))
        low, high = np.minimum(left, right), np.maximum(left, right)
        uneven = (high >= LEAST_CM2) & (low < SHARE * high)
        uneven &= ~_at_ends(uneven.to_numpy(), low.to_numpy() > 0, spacing_mm)
        if uneven.any():
            worst = (high - low)[uneven].idxmax()
            yield (
                f'{muscle.capitalize()} is almost missing on one side in '
                f'{_slices(areas.index[uneven])} (slice {worst}: left {left[worst]:.1f}, right '
                f'{right[worst]:.1f} cm2). Check the segmentation there.'
            )


def _spacing_mm(slices: pd.DataFrame) -> float:
    """Return the distance of neighbouring slices; infinite for a single one."""
    middles = slices.groupby('slice')['z_ras_mm'].mean()
    steps = np.abs(np.diff(middles)) / np.diff(middles.index)
    return float(np.median(steps)) if steps.size else np.inf


def _at_ends(uneven: np.ndarray, there: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Return which uneven slices only say that one side of a muscle ends a little earlier.

    Parameters
    ----------
    uneven, there
        (n_slices,) bool, whether the sides differ, and whether the smaller one is there.
    spacing_mm
        Distance of the slices.
    """
    known = np.flatnonzero(there)
    first, last = (known[0], known[-1]) if known.size else (uneven.size, -1)
    ends = np.zeros(uneven.size, bool)
    start = 0
    for run in np.split(uneven, np.flatnonzero(np.diff(uneven)) + 1):
        stop = start + run.size
        outside = start > last or stop <= first or start == first or stop == last + 1
        if run[0] and outside and run.size * spacing_mm < _END_MM:
            ends[start:stop] = True
        start = stop
    return ends


def _jumps(areas: pd.DataFrame) -> Iterator[str]:
    """Find slices in which a muscle is much smaller, or larger, than in both slices beside."""
    for name in areas.columns:
        area = areas[name].to_numpy()
        below, own, above = area[:-2], area[1:-1], area[2:]
        hole = (np.minimum(below, above) >= LEAST_CM2) & (
            own * JUMP_FACTOR < np.minimum(below, above)
        )
        spike = (own >= LEAST_CM2) & (own > JUMP_FACTOR * np.maximum(below, above))
        # A muscle may begin and end in one slice, but not in the middle of it.
        spike &= np.minimum(below, above) > 0
        jumps = areas.index[1:-1][hole | spike]
        if len(jumps):
            yield (
                f'The area of {name} jumps in {_slices(jumps)} (slice {jumps[0]}: '
                f'{areas.loc[jumps[0], name]:.1f} cm2, beside it '
                f'{areas.loc[jumps[0] - 1, name]:.1f} and {areas.loc[jumps[0] + 1, name]:.1f}). '
                'Check the segmentation there.'
            )


def _borders(areas: pd.DataFrame, table: LabelTable) -> Iterator[str]:
    """Find slices between which the border of two neighbours moves while their sum does not."""
    for inner, outer in NEIGHBOURS.get(table.region, ()):
        for side in ('left', 'right'):
            names = f'{side} {inner}', f'{side} {outer}'
            if not set(names) <= set(areas.columns):
                continue
            both = areas[list(names)].sum(axis=1)
            moved_at = []
            for one, two in pairwise(areas.index):
                # Where one of them ends, its share falls to nothing within a few slices.
                around = areas.loc[one - _AWAY_FROM_ENDS : two + _AWAY_FROM_ENDS, list(names)]
                if len(around) < 2 * (_AWAY_FROM_ENDS + 1) or not (around > 0).all(axis=None):
                    continue
                steady = abs(both[two] - both[one]) < STEADY_PART * max(both[one], both[two])
                if min(both[one], both[two]) < 2 * LEAST_CM2 or not steady:
                    continue
                shares = [areas.loc[k, names[0]] / both[k] for k in (one, two)]
                small = min(*shares, 1 - max(shares))
                moved = abs(shares[1] - shares[0]) > BORDER_PART * max(small, BORDER_PART)
                if moved and small >= LEAST_SHARE:
                    moved_at.append(two)
            if moved_at:
                yield (
                    f'The border of {inner} with {outer} on the {side} moves by more than a '
                    f'third of the smaller muscle at {_slices(moved_at)}. Check the segmentation '
                    'there.'
                )


def _slices(numbers: Iterable[int]) -> str:
    """Write ascending slice numbers shortly.

    Examples
    --------
    >>> _slices([1, 2, 3, 7]), _slices([4])
    ('slices 1-3, 7', 'slice 4')
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    text = ', '.join('-'.join(map(str, run)) for run in runs)
    return f'slice {text}' if text.isdigit() else f'slices {text}'
