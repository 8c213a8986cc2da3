"""What changed between sessions, within participants."""

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
    why_not_tested,
)
from bids_muscle.statistics.comparisons import PAIRED, paired_test, tested_table
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

_DIFFERENCE = ('difference', 'difference_ci_low', 'difference_ci_high')
CHANGE_COLUMNS = ('muscle', 'session', 'first_session', 'session_order', *PAIRED)


def change(sessions: Mapping[str, pd.DataFrame], order: SessionOrder) -> Analysis:
    """Compare each later session with the first, within participants.

    Parameters
    ----------
    sessions
        Session -> one row per participant, one column per muscle, in the order of time.
    order
        That order, and what says so.
    """
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
        return Analysis(table, ('There is one session only, so no change.',))
    said = (_change_sentence(table[table['session'] == each], first, each) for each in later)
    return Analysis(table, tuple(f'{text}; order by {order.source}).' for text in said))


def _change_sentence(table: pd.DataFrame, first: str, later: str) -> str:
    """Tell the change of one session, with an open bracket."""
    text = f'From {first} to {later} the measure'
    if reason := why_not_tested(table):
        return f'{text} was not tested ({reason}'
    what = [
        f'{row["muscle"]} by {interval_text(*(row[name] for name in _DIFFERENCE))}'
        for row in effects(table).to_dict('records')
    ]
    found = f'changed ({AFTER_HOLM}) in {listed(what)}' if what else 'was not found to change'
    return f'{text} {found} ({counted(table[table["p"].notna()]["n"])}'
