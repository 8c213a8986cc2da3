"""Columns of participants.tsv as variables of an analysis: groups of people, or numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bids_muscle.anatomy.people import find_column
from bids_muscle.errors import UsageError
from bids_muscle.statistics.analysis import MIN_DF, listed
from bids_muscle.tables import name_some, number

#: A smaller group is not tested: fewer than five people have no mean.
MIN_PER_GROUP = MIN_DF + 1
#: More groups are no design, but names.
MAX_GROUPS = 10
#: So many columns are tested where nobody asked for some.
MAX_EXPLORED = 12
#: What the analyses control for anyway, or know under another name.
_KNOWN = ('sex', 'age', 'bmi', 'weight', 'height', 'site')
_MISSING = frozenset({'', 'n/a', 'na', 'nan'})
#: Groups that others are compared with.
_CONTROL = re.compile(
    r'(healthy|control|ctrl|hc|cn|con|normal|asymptomatic|placebo|reference|no|none|never|false)'
    r'(\W.*|s|_.*|\d*)',
    re.IGNORECASE,
)
_DATES = ('%Y-%m-%d', '%d.%m.%Y', '%d/%m/%Y', '%m/%d/%Y', '%Y/%m/%d', '%Y%m%d')


@dataclass(frozen=True)
class Variable:
    """A column of participants.tsv.

    Parameters
    ----------
    name
        Of the column.
    kind
        ``'groups'`` or ``'number'``; nothing where it is neither.
    values
        Level or number by participant, without those of whom it is not known.
    levels
        The groups, what others are compared with first; empty for a number.
    reason
        Why it cannot be analysed, or None.
    notes
        How it was read, as parts of a sentence.
    """

    name: str
    kind: str = ''
    values: Mapping[str, str | float] | None = None
    levels: tuple[str, ...] = ()
    reason: str | None = None
    notes: tuple[str, ...] = ()


def read_variable(
    name: str,
    cells: Mapping[str, str],
    meanings: Mapping[str, str] | None = None,
    *,
    as_groups: bool = False,
) -> Variable:
    """Read a column as groups or as numbers.

    Two numbers are codes of two groups, more are numbers, unless they have names or the user says
    that they are groups. Spellings that differ in case and blanks are one.

    Parameters
    ----------
    name
        Of the column.
    cells
        Text by participant.
    meanings
        Name of each code, as ``Levels`` in participants.json.
    as_groups
        Whether numbers are codes.

    Examples
    --------
    >>> read_variable('arm', dict(enumerate(['2', '1', '1', 'n/a', '2 ']))).levels
    ('1', '2')
    >>> read_variable('arm', dict(enumerate(['Pain', 'control', 'pain', 'pain']))).levels
    ('control', 'pain')
    >>> read_variable('visit', dict(enumerate(['2020-01-31', '2021-03-01']))).reason
    'visit contains dates. Give a time as a number, such as years'
    """
    texts = {who: ' '.join(str(cell).split()) for who, cell in cells.items()}
    texts = {who: text for who, text in texts.items() if text.casefold() not in _MISSING}
    if not texts:
        return Variable(name, reason=f'no participant has {name}')
    named = {code.casefold(): meaning for code, meaning in (meanings or {}).items()}
    if all(text.casefold() in named for text in texts.values()):
        return _groups(
            name,
            {who: named[text.casefold()] for who, text in texts.items()},
            list(named.values()),
        )
    numbers = {who: value for who, text in texts.items() if (value := number(text)) is not None}
    if all(map(_is_date, texts.values())):
        reason = f'{name} contains dates. Give a time as a number, such as years'
        return Variable(name, reason=reason)
    distinct = sorted(set(numbers.values()))
    if len(numbers) == len(texts):
        if len(distinct) > 2 and not as_groups:
            return Variable(name, 'number', numbers)
        order = [f'{value:g}' for value in distinct]
        return _groups(name, {who: f'{value:g}' for who, value in numbers.items()}, order)
    if len(distinct) > 2 and 2 * len(numbers) > len(texts) and not as_groups:
        words = name_some(sorted({texts[who] for who in texts.keys() - numbers.keys()}))
        reason = f'{name} contains numbers and words ({words}). Correct the words, or write n/a'
        return Variable(name, reason=reason)
    return _groups(name, texts)


def ask_variables(
    names: Iterable[str],
    columns: Mapping[str, Mapping[str, str]],
    meanings: Mapping[str, Mapping[str, str]],
) -> list[Variable]:
    """Return the columns that a user asks for, each once.

    Parameters
    ----------
    names
        Columns in any case; ``C(name)`` for one whose numbers are codes of groups.
    columns
        Cells of each column by participant.
    meanings
        Names of codes by column.

    Raises
    ------
    UsageError
        If there is no such column.
    """
    found: dict[str, Variable] = {}
    for asked in names:
        match = re.fullmatch(r'C\((.+)\)', asked.strip())
        plain = (match[1] if match else asked).strip()
        name = plain if plain in columns else find_column(columns, plain.casefold())
        if name is None:
            known = name_some(columns) or 'none'
            raise UsageError(
                f"The column '{plain}' of --group is not in participants.tsv.",
                f'Its columns are: {known}.',
            )
        codes = meanings.get(name)
        found.setdefault(name, read_variable(name, columns[name], codes, as_groups=bool(match)))
    return list(found.values())


def explore_variables(
    columns: Mapping[str, Mapping[str, str]], meanings: Mapping[str, Mapping[str, str]]
) -> list[Variable]:
    """Return the first columns that can be analysed, but for those that always are."""
    known = {find_column(columns, what) for what in _KNOWN}
    found: list[Variable] = []
    for name in (name for name in columns if name not in known):
        variable = read_variable(name, columns[name], meanings.get(name))
        if variable.reason is None and len(found) < MAX_EXPLORED:
            found.append(variable)
    return found


def _groups(name: str, texts: Mapping[str, str], order: list[str] | None = None) -> Variable:
    """Return groups; one without an order has controls first, then the alphabet."""
    spellings: dict[str, Counter[str]] = {}
    for text in texts.values():
        spellings.setdefault(text.casefold(), Counter())[text] += 1
    # The most frequent spelling, of equal ones the first of the alphabet.
    called = {
        core: min(counts, key=lambda text, counts=counts: (-counts[text], text))  # type: ignore[misc]
        for core, counts in spellings.items()
    }
    merged = [listed(sorted(counts)) for counts in spellings.values() if len(counts) > 1]
    notes = [f'{each} are one group' for each in merged]
    sizes = {called[core]: counts.total() for core, counts in spellings.items()}
    values = {who: called[text.casefold()] for who, text in texts.items()}
    if len(sizes) > MAX_GROUPS:
        small = {level for level, size in sizes.items() if size < MIN_PER_GROUP}
        values = {who: level for who, level in values.items() if level not in small}
        number = len(sizes)
        sizes = {level: size for level, size in sizes.items() if level not in small}
        if not 2 <= len(sizes) <= MAX_GROUPS:
            reason = (
                f'{name} has {number} different values. Give 2 to {MAX_GROUPS} groups of at least '
                f'{MIN_PER_GROUP} participants'
            )
            return Variable(name, reason=reason)
        notes.append(f'{len(small)} values of fewer than {MIN_PER_GROUP} participants left out')
    if len(sizes) < 2:
        only = next(iter(sizes))
        return Variable(name, reason=f'{name} is {only} in all {len(values)} participants')
    places = {level: place for place, level in enumerate(dict.fromkeys(order or ()))}
    levels = sorted(
        sizes,
        key=lambda level: (places.get(level, len(places)), not _CONTROL.fullmatch(level), level),
    )
    return Variable(name, 'groups', values, tuple(levels), notes=tuple(notes))


def _is_date(text: str) -> bool:
    for form in _DATES:
        try:
            time = datetime.strptime(text.partition('T')[0], form)
        except ValueError:
            continue
        if 1900 <= time.year <= 2100:
            return True
    return False
