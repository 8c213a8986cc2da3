"""The smallest change of one person that is more than measurement error, and who changed so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.statistics.analysis import Analysis, counted, listed, too_few
from bids_muscle.statistics.effect_size import CONFIDENCE
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

#: Years since the first session, by participant and session.
Years = Mapping[str, Mapping[str, float]]
#: 1.96 standard deviations of the difference of two measurements.
_FACTOR = 1.96 * sqrt(2)
DETECTABLE_COLUMNS = (
    'muscle', 'n', 'n_observations', 'sem', 'sdc', 'sdc_ci_low', 'sdc_ci_high', 'sdc_source',
    'reason',
)  # fmt: skip
PERSON_COLUMNS = (
    'participant_id', 'muscle', 'session', 'first_session', 'years', 'first_value', 'difference',
    'sdc', 'verdict',
)  # fmt: skip
WITHIN = 'within measurement error'


@dataclass(frozen=True)
class GivenSdc:
    """A smallest detectable change that a user gives; empty text means all of them."""

    measure: str
    sdc: float
    muscle: str = ''
    region: str = ''
    contrast: str = ''
    source: str = ''

    def fits(self, place: tuple[str, str, str], muscle: str) -> bool:
        """Whether it holds for a region, contrast and measure, and a muscle."""
        wanted = (self.region, self.contrast, self.measure, self.muscle)
        return all(
            mine in ('', theirs) for mine, theirs in zip(wanted, (*place, muscle), strict=True)
        )

    @property
    def precision(self) -> int:
        """How much it says about what it holds for; the most precise one decides."""
        return sum(map(bool, (self.muscle, self.region, self.contrast)))


def without_run(scan: str) -> str:
    """Return the name of a scan without its run: the same for repeats of it.

    Examples
    --------
    >>> without_run('sub-1_ses-a_acq-dixon_run-02')
    'sub-1_ses-a_acq-dixon'
    """
    return re.sub(r'_run-[0-9A-Za-z+]+', '', scan)


def measurement_error(values: pd.DataFrame) -> dict[str, Any]:
    """Return the standard error of measurement of one muscle and the change that it allows.

    Parameters
    ----------
    values
        Column ``value`` of repeats, ``participant_id`` and ``session`` of which are repeats of
        each other.

    Returns
    -------
    dict
        ``n`` people, ``n_observations``, ``sem`` (standard deviation within a session), ``sdc`` =
        1.96 sqrt(2) sem with its interval, or ``reason``.

    Notes
    -----
    de Vet HCW et al. J Clin Epidemiol 2006;59:1033-1039. The interval is that of a variance.
    """
    from scipy.stats import chi2

    known = values.dropna(subset=['value'])
    groups = known.groupby(['participant_id', 'session'], sort=False)['value']
    sizes, variances = groups.count(), groups.var(ddof=1)
    repeated = sizes[sizes > 1]
    n = repeated.index.get_level_values(0).nunique()
    cells: dict[str, Any] = {'n': n, 'n_observations': int(repeated.sum())}
    if few := too_few(n):
        return cells | {'reason': few}
    df = int((repeated - 1).sum())
    squares = float((variances[repeated.index] * (repeated - 1)).sum())
    if squares == 0:
        return cells | {'reason': 'all repeats are the same'}
    sem = sqrt(squares / df)
    tail = (1 - CONFIDENCE) / 2
    low, high = (sem * sqrt(df / chi2.ppf(q, df)) for q in (1 - tail, tail))
    return cells | {
        'sem': sem,
        'sdc': _FACTOR * sem,
        'sdc_ci_low': _FACTOR * low,
        'sdc_ci_high': _FACTOR * high,
        'sdc_source': 'repeats of this cohort',
    }


def detectable_changes(
    muscles: Sequence[str],
    repeats: pd.DataFrame | None,
    given: Sequence[GivenSdc],
    place: tuple[str, str, str],
) -> Analysis:
    """Return the smallest detectable change of each muscle: given, or from repeats.

    Parameters
    ----------
    muscles
        Names.
    repeats
        Scans that are repeated within a session, one row per scan and muscle, with ``value``; None
        where there are none.
    given
        What a user gives; it decides.
    place
        Region, contrast and measure.
    """
    import pandas as pd

    rows = []
    for muscle in muscles:
        fitting = sorted((g for g in given if g.fits(place, muscle)), key=lambda g: g.precision)
        if fitting:
            closest = fitting[-1]
            cells = {'sdc': closest.sdc, 'sdc_source': closest.source}
        elif repeats is not None:
            cells = measurement_error(repeats[repeats['muscle'] == muscle])
        else:
            continue
        rows.append({'muscle': muscle, **cells})
    table = pd.DataFrame(rows, columns=list(DETECTABLE_COLUMNS))
    if not rows:
        return Analysis(table, ())
    known = table[table['sdc'].notna()]
    if not len(known):
        why = '; '.join(dict.fromkeys(table['reason'].dropna()))
        return Analysis(table, (f'The smallest detectable change was not computed: {why}.',))
    said = [
        f'{row["muscle"]} {row["sdc"]:.2f}'
        + (
            f' (95 % CI {row["sdc_ci_low"]:.2f} to {row["sdc_ci_high"]:.2f})'
            if np.isfinite(row['sdc_ci_low'])
            else ''
        )
        for row in known.to_dict('records')
    ]
    sources = listed(list(dict.fromkeys(known['sdc_source'])))
    own = known[known['sem'].notna()]
    number = f', {counted(own["n"])} with repeats' if len(own) else ''
    text = f'Smallest detectable change of one person (1.96 √2 SEM; {sources}{number})'
    return Analysis(table, (f'{text}: {"; ".join(said)}.',))


def changes_of_people(
    sessions: Mapping[str, pd.DataFrame],
    detectable: pd.DataFrame,
    years: Years,
    order: SessionOrder,
) -> Analysis:
    """Test for each person and muscle whether it changed by more than measurement error.

    Parameters
    ----------
    sessions
        Session -> one row per participant, one column per muscle, in the order of time, as
        measured.
    detectable
        Table of :func:`detectable_changes`.
    years
        When each session was.
    order
        What says in which order the sessions were.
    """
    import pandas as pd

    limits = detectable.dropna(subset=['sdc']).set_index('muscle')['sdc']
    first, *later = sessions
    parts, said, points = [], [], {}
    for session in later:
        now, before = sessions[session].align(sessions[first], join='inner')
        times = [years_between(years, who, first, session) for who in now.index]
        passed = pd.Series(times, index=now.index, dtype=float)
        of_session = []
        for muscle in limits.index.intersection(now.columns, sort=False):
            change = (now[muscle] - before[muscle]).dropna()
            sdc = float(limits[muscle])
            verdict = np.where(
                change > sdc, 'increase', np.where(change < -sdc, 'decrease', WITHIN)
            )
            of_session.append(
                pd.DataFrame(
                    {
                        'participant_id': change.index,
                        'muscle': muscle,
                        'session': session,
                        'first_session': first,
                        'years': passed[change.index].to_numpy(),
                        'first_value': before.loc[change.index, muscle].to_numpy(),
                        'difference': change.to_numpy(),
                        'sdc': sdc,
                        'verdict': verdict,
                    }
                )
            )
            points[str(muscle), session] = np.column_stack(
                [before.loc[change.index, muscle], change]
            )
        table = pd.concat([each for each in of_session if len(each)] or of_session[:1])
        said.append(f'{_persons_text(table, first, session)}; order by {order.source}.')
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)[list(PERSON_COLUMNS)]
    return Analysis(table, tuple(said), points)


def _persons_text(table: pd.DataFrame, first: str, session: str) -> str:
    people = table['participant_id'].nunique()
    text = f'From {first} to {session}'
    if not people:
        return f'{text} no participant has both values'
    beyond = table[table['verdict'] != WITHIN]
    what = []
    for muscle, part in beyond.groupby('muscle', sort=False):
        counts = part['verdict'].value_counts()
        ways = [f'{counts[way]} {way}' for way in ('increase', 'decrease') if way in counts]
        n = int((table['muscle'] == muscle).sum())
        what.append(f'{muscle} {" and ".join(ways)} of {n} (limit {part["sdc"].iloc[0]:.2f})')
    changed = beyond['participant_id'].nunique()
    found = f': {"; ".join(what)}' if what else ''
    return (
        f'{text}{time_text(table.drop_duplicates("participant_id")["years"])}, {changed} of '
        f'{people} people changed by more than the smallest detectable change in a muscle or '
        f'more{found}; {people - changed} of {people} are {WITHIN} in all muscles'
    )


def years_between(years: Years, participant: Any, first: str, session: str) -> float:
    """Return the years between two sessions of a person; missing where one is not known."""
    times = years.get(str(participant), {})
    if first not in times or session not in times:
        return nan
    return times[session] - times[first]


def time_text(years: pd.Series) -> str:
    """Write how much time passed, in brackets, or nothing where that is not known.

    Examples
    --------
    >>> import pandas as pd
    >>> time_text(pd.Series([1.0, 0.5, float('nan')])), time_text(pd.Series([float('nan')]))
    (' (median 0.75 years, 0.50 to 1.00)', '')
    """
    known = years.dropna()
    if not len(known):
        return ''
    return f' (median {known.median():.2f} years, {known.min():.2f} to {known.max():.2f})'
