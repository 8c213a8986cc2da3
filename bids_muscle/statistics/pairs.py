"""Agreement of scans of the same people: of sessions, of repeats in a session, of contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.agreement import MIN_PAIRS, Agreement, agreement
from bids_muscle.statistics.analysis import Analysis, counted, too_few
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ('muscle', 'test', 'reference', *(each.name for each in fields(Agreement)))


def compare_pairs(
    frame: pd.DataFrame, measures: Sequence[str], order: SessionOrder
) -> Iterator[tuple[dict[str, str], Analysis]]:
    """Compare each measure between scans of the same people.

    Parameters
    ----------
    frame
        One row per scan and muscle: ``region``, ``contrast``, ``participant_id``, ``session_id``,
        ``repeat`` (1 for the first scan of a session), ``muscle`` and the measures, each the mean
        of left and right.
    measures
        Columns to compare.
    order
        The sessions in the order of time; scans without one are not compared over time.

    Yields
    ------
    key, analysis
        Region, contrast and measure, and the agreement of each muscle: of each later session with
        the first, of each further scan with the first of its session, of each other contrast with
        the first in the alphabet. Sessions also differ by what has changed in between. Each
        participant counts once, as limits of agreement and ICC take pairs for independent: where
        several sessions have both scans, with the first of them.
    """
    session = ['participant_id', 'place']
    names = frame['session_id'].unique()
    in_time = [*order.present(names), *sorted({*names} - {*order.names})]
    frame = frame.assign(place=frame['session_id'].map({n: at for at, n in enumerate(in_time)}))
    for measure in measures:
        known = frame.dropna(subset=[measure])
        first = known[known['repeat'] == 1]
        for (region, contrast), part in known.groupby(['region', 'contrast'], sort=True):
            key = {'region': str(region), 'contrast': str(contrast), 'measure': measure}
            of_first = part[part['repeat'] == 1]
            sessions, repeats = part['session_id'].unique(), part['repeat'].unique()
            for some, people, levels, ordered in (
                (of_first, ['participant_id'], 'session_id', order.present(sessions)),
                (part, session, 'repeat', sorted(repeats)),
            ):
                for _, analysis in _with_first(some, people, levels, ordered, measure):
                    yield key, analysis
        for region, part in first.groupby('region', sort=True):
            contrasts = sorted(part['contrast'].unique())
            for contrast, analysis in _with_first(part, session, 'contrast', contrasts, measure):
                yield {'region': str(region), 'contrast': contrast, 'measure': measure}, analysis


def _with_first(
    part: pd.DataFrame, people: list[str], levels: str, ordered: Sequence[Any], measure: str
) -> Iterator[tuple[str, Analysis]]:
    """Compare each further level with the first; gives the first and the agreement with it."""
    if len(ordered) < 2:
        return
    muscles = list(part['muscle'].unique())
    wide = part.set_index([*people, levels, 'muscle'])[measure].unstack('muscle')[muscles]
    for test in ordered[1:]:
        reference = ordered[0]
        pair = [wide.xs(level, level=levels) for level in (test, reference)]
        ours, theirs = pair[0].align(pair[1], join='inner', axis=0)
        if ours.index.unique(0).size >= MIN_PAIRS:
            names = [f'scan {each}' if levels == 'repeat' else each for each in (test, reference)]
            yield reference, _agreement(*_first_session(ours, theirs), *names)


def _first_session(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[pd.DataFrame]:
    """Return a row per participant: of each muscle the first session that has both values."""
    both = ours.notna() & theirs.notna()
    return [each.where(both).groupby(level=0, sort=False).first() for each in (ours, theirs)]


def _agreement(ours: pd.DataFrame, theirs: pd.DataFrame, test: str, reference: str) -> Analysis:
    import pandas as pd

    rows, points = [], {}
    for muscle in ours.columns:
        values = np.column_stack([ours[muscle], theirs[muscle]]).astype(float)
        points[str(muscle), test] = values[np.isfinite(values).all(axis=1)]
        n = len(points[str(muscle), test])
        few = too_few(n)
        found = asdict(Agreement(n, len(values) - n, reason=few) if few else agreement(*values.T))
        rows.append({'muscle': muscle, 'test': test, 'reference': reference, **found})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    tested = table[table['icc'].notna()]
    said = [
        f'{row["muscle"]} {row["bias"]:.2f} ({row["loa_low"]:.2f} to {row["loa_high"]:.2f}), '
        f'ICC {row["icc"]:.2f}'
        for row in rows
        if np.isfinite([row['bias'], row['icc']]).all()
    ]
    if said:
        sentence = (
            f'{test} minus {reference} ({counted(tested["n"])}, each participant once), bias with '
            f'95 % limits of agreement and ICC(2,1): {"; ".join(said)}.'
        )
    else:
        why = '; '.join(dict.fromkeys(table['reason'].dropna()))
        sentence = f'Agreement of {test} with {reference} was not computed: {why}.'
    return Analysis(table, (sentence,), points)
