"""The order of sessions in time: by their dates, else by what their labels say."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, pairwise

from bids_muscle.errors import UsageError
from bids_muscle.statistics.analysis import listed
from bids_muscle.tables import name_some, number, parse_time

#: The session of a scan without one, as BIDS writes what is missing.
NO_SESSION = 'n/a'
#: Two sessions come in the order that this share of the people with both times has.
MAJORITY = 0.75
_UNSURE = 'labels, which is uncertain'

#: Stages of a study in the order of time. A label without such a word has stage 0.
_STAGES = {
    -2: r'screen[a-z]*|scr|recruit[a-z]*|enrol[a-z]*',
    -1: r'pre[a-z]*|base[a-z]*|bl|before|intake|init[a-z]*|admission|entry|start|early|test',
    1: r'mid[a-z]*|during|interim|half[a-z]*',
    2: r'post[a-z]*|after|end|discharge|late|retest|rescan',
    3: r'follow[a-z]*|fu|long[a-z]*',
    4: r'final|last|exit',
}
_ORDINALS = {'first': '1', 'second': '2', 'third': '3', 'fourth': '4', 'fifth': '5'}
_DAYS_PER_YEAR = 365.25
#: Days of a unit of time.
_DAYS = {
    **dict.fromkeys(('d', 'day', 'days'), 1.0),
    **dict.fromkeys(('w', 'wk', 'wks', 'week', 'weeks'), 7.0),
    **dict.fromkeys(('m', 'mo', 'mon', 'mth', 'month', 'months'), 30.0),
    **dict.fromkeys(('y', 'yr', 'yrs', 'year', 'years'), _DAYS_PER_YEAR),
}
#: Columns of sessions.tsv with a number that grows with time.
_GROWING = re.compile(
    r'(days?|weeks?|months?|years?|age|visit|order|timepoint|session_order)(_.*)?'
)

#: By participant and session (``ses-<label>`` or ``n/a``), what sessions.tsv says, with acq_time.
Visits = Mapping[str, Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True)
class SessionOrder:
    """The sessions of a cohort in the order of time.

    Parameters
    ----------
    names
        As in ``session_id``, the first one first; scans without a session have no place in it.
    source
        What says so.
    notes
        Sentences about contradictions.
    """

    names: tuple[str, ...] = ()
    source: str = ''
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The order, and where it is from.

        Examples
        --------
        >>> SessionOrder(('ses-pre', 'ses-post'), 'labels').text
        'ses-pre, ses-post (order by labels)'
        """
        return f'{", ".join(self.names)} (order by {self.source})'

    def present(self, names: Iterable[str]) -> list[str]:
        """Return those of some sessions that have a place, in order."""
        there = set(names)
        return [name for name in self.names if name in there]

    def first(self, names: Iterable[str]) -> str:
        """Return the first of some sessions; without a place in the order, that by its label.

        Examples
        --------
        >>> SessionOrder(('ses-b', 'ses-a')).first(['n/a', 'ses-a', 'ses-b'])
        'ses-b'
        """
        place = {name: at for at, name in enumerate(self.names)}
        return min(set(names), key=lambda name: (place.get(name, len(place)), label_key(name)))


def order_sessions(visits: Visits, given: Sequence[str] = ()) -> SessionOrder:
    """Put the sessions of a cohort in the order of time.

    Two sessions come in the order that ``acq_time``, or else a number in sessions.tsv (days, age),
    gives them in at least three quarters of the people in whom it is known; else in that of their
    labels. Labels that tell the order give way only where the times of at least half of the people
    with both sessions contradict them: a wrong date of one person does not reverse a cohort.

    Parameters
    ----------
    visits
        The sessions of each participant.
    given
        Labels without ``ses-`` in the order that a person gave: it decides, and what dates say
        against it is a note.

    Raises
    ------
    UsageError
        If the order given lacks a session or names one twice.
    """
    found = {name for sessions in visits.values() for name in sessions} - {NO_SESSION}
    labels = sorted(found, key=label_key)
    times = _Times(visits)
    if given:
        names = [f'ses-{label}' for label in given]
        if lacking := [name for name in labels if name not in names]:
            raise UsageError(
                f'--session-order lacks {listed(lacking)}.',
                'List all sessions, the earliest first.',
            )
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise UsageError(
                f'--session-order names {listed(repeated)} more than once.',
                'List each session once, the earliest first.',
            )
        order = [name for name in names if name in found]
        return SessionOrder(tuple(order), '--session-order', tuple(times.against(order)))
    order = times.sort(labels)
    sources = {pair: times.source(*pair) for pair in pairwise(order)}
    notes = times.against(order)
    notes += [
        f'By {source}, {one} came before {other}; their labels say the opposite.'
        for (one, other), source in sources.items()
        if source not in ('labels', _UNSURE) and _is_before(other, one)
    ]
    doubtful = [name for pair, source in sources.items() if source == _UNSURE for name in pair]
    if doubtful:
        notes.append(
            f'The order of {listed(list(dict.fromkeys(doubtful)))} is uncertain: acq_time is '
            'missing, and the labels do not contain an order. Give it with --session-order.'
        )
    return SessionOrder(tuple(order), listed(list(dict.fromkeys(sources.values()))), tuple(notes))


def session_years(visits: Visits) -> dict[str, dict[str, float]]:
    """Return when each session was, in years since the first one whose time is known.

    Of each participant ``acq_time`` where at least two sessions have it, else a number of
    sessions.tsv whose name begins with its unit: days, weeks, months, years, or age, in years
    unless its name has another unit (``age_months``). One date for everybody is none.

    Examples
    --------
    >>> visits = {'sub-1': {'ses-a': {'months': '0'}, 'ses-b': {'months': '6'}}}
    >>> round(session_years(visits)['sub-1']['ses-b'], 2)
    0.49
    """
    dates = {
        date.date() for all_of in visits.values() for i in all_of.values() if (date := _date(i))
    }
    found = {}
    for who, sessions in visits.items():
        known = {name: date for name, info in sessions.items() if (date := _date(info))}
        first = min(known.values(), default=None)
        days = {
            name: (date - first).total_seconds() / 86_400
            for name, date in known.items()
            if first and len(dates) > 1
        }
        days = days if len(days) > 1 else _numbered_days(sessions)
        if len(days) > 1:
            start = min(days.values())
            found[who] = {name: (day - start) / _DAYS_PER_YEAR for name, day in days.items()}
    return found


def label_key(label: str) -> tuple[int, str, tuple[float, ...], str]:
    """Return what sessions are sorted by where only their labels are known.

    Examples
    --------
    >>> sorted(['ses-post', 'ses-week10', 'ses-pre', 'ses-week2'], key=label_key)
    ['ses-pre', 'ses-week2', 'ses-week10', 'ses-post']
    >>> sorted(['ses-1y', 'ses-followup', 'ses-6m', 'ses-baseline'], key=label_key)
    ['ses-baseline', 'ses-6m', 'ses-1y', 'ses-followup']
    """
    return (*_parse(label), label)


def _parse(label: str) -> tuple[int, str, tuple[float, ...]]:
    """Return the stage of a label, what else it is called, and its numbers.

    Where its number has a unit of time it is called ``days``. A number in front of the stage goes
    before it: ``t1pre``, ``t1post``, ``t2pre``.

    Examples
    --------
    >>> _parse('ses-pre'), _parse('ses-followup12m'), _parse('ses-T1post')
    ((-1, '', ()), (3, 'days', (360.0,)), (0, 't', (1.0, 2.0)))
    """
    parts = re.findall(r'[a-z]+|[0-9]+', label.removeprefix('ses-').lower())
    parts = [_ORDINALS.get(part, part) for part in parts]
    stage, numbered_first = 0, False
    for place, part in enumerate(parts):
        found = next((key for key, words in _STAGES.items() if re.fullmatch(words, part)), 0)
        if found:
            stage, numbered_first = found, any(each.isdigit() for each in parts[:place])
            del parts[place]
            break
    called = ''.join(part for part in parts if not part.isdigit())
    numbers = [float(part) for part in parts if part.isdigit()]
    if called in _DAYS and numbers and len(parts) == 2:
        called, numbers = 'days', [numbers[0] * _DAYS[called]]
    if numbered_first:
        return 0, called, (*numbers, float(stage))
    return stage, called if numbers or not stage else '', tuple(numbers)


def _is_before(one: str, other: str) -> bool:
    """Whether the labels of two sessions say that the first came first.

    Examples
    --------
    >>> _is_before('ses-baseline', 'ses-m6'), _is_before('ses-a', 'ses-b')
    (True, False)
    """
    (stage, called, numbers), (other_stage, other_called, other_numbers) = map(
        _parse, (one, other)
    )
    if not (stage or numbers) or not (other_stage or other_numbers):
        return False
    if stage != other_stage:
        # Six weeks may be before or after the end of a treatment.
        numbered = {stage, other_stage} & {0} and {stage, other_stage} & {1, 2, 3}
        return not numbered and stage < other_stage
    alike = called == other_called or not (numbers and other_numbers)
    return alike and numbers < other_numbers


class _Times:
    """What the times of people say about the order of their sessions.

    Parameters
    ----------
    visits
        The sessions of each participant.
    """

    def __init__(self, visits: Visits) -> None:
        dates = {
            date.date()
            for sessions in visits.values()
            for info in sessions.values()
            if (date := _date(info))
        }
        #: People in whom the first of two sessions came first, each with what says so.
        self.votes: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        #: How many people have both of two sessions.
        self.both = Counter(
            frozenset(pair) for sessions in visits.values() for pair in combinations(sessions, 2)
        )
        for participant, sessions in visits.items():
            for one, other in combinations(sessions, 2):
                infos = sessions[one], sessions[other]
                first, second = map(_date, infos)
                # One date for everybody was put in the place of the true ones.
                if first and second and first != second and len(dates) > 1:
                    self._add(one, other, first < second, participant, 'acq_time')
                elif pair := _numbers(*infos):
                    self._add(one, other, pair[0] < pair[1], participant, 'sessions.tsv')

    def _add(self, one: str, other: str, before: bool, participant: str, source: str) -> None:
        self.votes[(one, other) if before else (other, one)][participant] = source

    def decide(self, one: str, other: str) -> bool:
        """Whether times say that the first session came first."""
        yes, no = (len(self.votes.get(pair, ())) for pair in ((one, other), (other, one)))
        least = self.both[frozenset((one, other))] / 2 if _is_before(other, one) else 0
        return yes > 0 and yes >= max(least, MAJORITY * (yes + no))

    def source(self, one: str, other: str) -> str:
        """Return what says that two sessions come in this order."""
        if self.decide(one, other):
            return Counter(self.votes[one, other].values()).most_common(1)[0][0]
        return 'labels' if _is_before(one, other) else _UNSURE

    def sort(self, labels: Sequence[str]) -> list[str]:
        """Sort by times; where they say nothing, or go in a circle, the order stays as it is."""
        order: list[str] = []
        left = list(labels)
        while left:
            free = (
                name
                for name in left
                if not any(self.decide(other, name) for other in left if other != name)
            )
            order.append(next(free, left[0]))
            left.remove(order[-1])
        return order

    def against(self, order: Sequence[str]) -> list[str]:
        """Name the people whose times say the opposite of an order."""
        notes = []
        for one, other in combinations(order, 2):
            if people := sorted(self.votes.get((other, one), ())):
                total = len(people) + len(self.votes.get((one, other), ()))
                notes.append(
                    f'In {len(people)} of {total} participants with both times, {other} came '
                    f'before {one} ({name_some(people)}). All are analysed as '
                    f'{one} before {other}: check the dates and labels.'
                )
        return notes


def _date(info: Mapping[str, str]) -> datetime | None:
    return parse_time(info.get('acq_time', ''))


def _numbered_days(sessions: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """Return the days of sessions by the first column that tells two or more of them apart."""
    for name in dict.fromkeys(name for info in sessions.values() for name in info):
        if not _GROWING.fullmatch(name.lower()):
            continue
        unit, *behind = re.findall('[a-z]+', name.lower())
        if unit == 'age':
            unit = next((word for word in behind if word in _DAYS), 'years')
        if (factor := _DAYS.get(unit)) is None:
            continue
        days = {
            session: value * factor
            for session, info in sessions.items()
            if (value := number(info.get(name, ''))) is not None
        }
        if len(set(days.values())) > 1:
            return days
    return {}


def _numbers(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[float, float] | None:
    """Return the numbers of two sessions in the first column that tells them apart."""
    for name in one:
        if name in other and _GROWING.fullmatch(name.lower()):
            first, second = number(one[name]), number(other[name])
            if first is not None and second is not None and first != second:
                return first, second
    return None
