"""What changed between sessions, within participants, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bids_muscle.statistics.analysis import (
    AFTER_HOLM,
    Analysis,
    counted,
    effects,
    interval_text,
    listed,
    tested_table,
    why_not_tested,
)
from bids_muscle.statistics.comparisons import PAIRED, paired_test
from bids_muscle.statistics.detectable import Years, time_text, years_between
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

_DIFFERENCE = ('difference', 'difference_ci_low', 'difference_ci_high')
_YEARS = ('years_median', 'years_min', 'years_max')
CHANGE_COLUMNS = ('muscle', 'session', 'first_session', 'session_order', *PAIRED)
RATE_COLUMNS = ('muscle', 'session_order', *_YEARS, *PAIRED)
#: A change within less than a month, as a rate for a year, would be noise times twelve.
MIN_YEARS = 30 / 365.25


def change(
    sessions: Mapping[str, pd.DataFrame], order: SessionOrder, years: Years | None = None
) -> Analysis:
    """Compare each later session with the first, within participants.

    Parameters
    ----------
    sessions
        Session -> one row per participant, one column per muscle, in the order of time.
    order
        That order, and what says so.
    years
        When each session was, for the sentence.
    """
    import pandas as pd

    first, *later = sessions
    rows = []
    for session in later:
        now, before = sessions[session].align(sessions[first], join='inner')
        rows += [
            {'muscle': muscle, 'session': session, 'first_session': first}
            | {'session_order': order.text}
            | paired_test(now[muscle], before[muscle])
            for muscle in now.columns
        ]
    table = tested_table(rows, CHANGE_COLUMNS)
    if not rows:
        return Analysis(table, ('Change was not tested: there is only one session.',))
    said = []
    for each in later:
        text = _change_sentence(table[table['session'] == each], first, each)
        both = sessions[first].index.intersection(sessions[each].index)
        passed = [years_between(years or {}, who, first, each) for who in both]
        time = time_text(pd.Series(passed, dtype=float))
        said.append(f'{text}; order by {order.source}){time}.')
    return Analysis(table, tuple(said))


def _change_sentence(table: pd.DataFrame, first: str, later: str) -> str:
    """Describe the change of one session, with an open bracket."""
    text = f'From {first} to {later} the measure'
    if reason := why_not_tested(table):
        return f'{text} was not tested ({reason}'
    return f'{text} {_found_to_change(table)} ({counted(table[table["p"].notna()]["n"])}'


def _found_to_change(table: pd.DataFrame) -> str:
    what = [
        f'{row["muscle"]} by {interval_text(*(row[name] for name in _DIFFERENCE))}'
        for row in effects(table).to_dict('records')
    ]
    return f'changed ({AFTER_HOLM}) in {listed(what)}' if what else 'was not found to change'


def rate(values: pd.DataFrame, years: Years, order: SessionOrder) -> Analysis:
    """Estimate the change per year: the mean of each participant's own slope.

    Parameters
    ----------
    values
        One row per participant and session (the index has both), one column per muscle.
    years
        When each session was; participants followed for less than a month are left out.
    order
        What says in which order the sessions were, for the table.

    Notes
    -----
    Summary measures of serial measurements (Matthews JNS et al. BMJ 1990;300:230-235).
    """
    import numpy as np
    import pandas as pd

    time = pd.Series(
        [years.get(str(who), {}).get(str(session), np.nan) for who, session in values.index],
        index=values.index,
    )
    rows = []
    for muscle in values:
        known = values[muscle].notna() & time.notna()
        y, x = values.loc[known, muscle], time[known]
        people = x.groupby(level=0)
        span = people.max() - people.min()
        x = x - people.transform('mean')
        products = (x * y).groupby(level=0).sum(), (x**2).groupby(level=0).sum()
        followed = span.index[span >= MIN_YEARS]
        slope = (products[0] / products[1])[followed]
        all_people = values.index.get_level_values(0).unique()
        tested = paired_test(slope.reindex(all_people), pd.Series(0.0, index=all_people))
        span = span[followed]
        spans = dict(zip(_YEARS, (span.median(), span.min(), span.max()), strict=True))
        rows.append({'muscle': muscle, 'session_order': order.text, **spans, **tested})
    table = tested_table(rows, RATE_COLUMNS)
    if reason := why_not_tested(table):
        return Analysis(table, (f'The change per year was not tested: {reason}.',))
    tested_rows = table[table['p'].notna()]
    first, found = tested_rows.iloc[0], _found_to_change(table)
    return Analysis(
        table,
        (
            f'Per year the measure {found} ({counted(tested_rows["n"])}, followed for a median of '
            f'{first["years_median"]:.2f} years, {first["years_min"]:.2f} to '
            f'{first["years_max"]:.2f}).',
        ),
    )
