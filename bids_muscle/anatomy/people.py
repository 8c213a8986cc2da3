"""What tables say about people: names of columns, words for sex, plausible numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from bids_muscle.tables import number

#: Other names of a column, in lower case.
_OTHER_NAMES = {'sex': 'gender'}
#: A name and the unit behind it.
_WITH_UNIT = re.compile(r'(.+?)[\s_]*[\s_(\[](?:in )?(years?|yrs?|y|kg|cm|m|kg/m\^?2|kg/m²)[)\]]?')
#: Spellings of sex that leave no doubt.
_SEX = {
    **dict.fromkeys(('f', 'female', 'w', 'woman'), 'F'),
    **dict.fromkeys(('m', 'male', 'man'), 'M'),
}
#: From a baby to the largest people: years, metres, kg, kg/m2.
_PLAUSIBLE = {
    'age': (0.0, 120.0),
    'height': (0.4, 2.5),
    'weight': (5.0, 400.0),
    'bmi': (8.0, 100.0),
}
#: What sessions.tsv may say of a session, as it changes with time.
CHANGING = tuple(_PLAUSIBLE)
#: From this age on a height below this one (m) is one in inches or a slip: 68 is no 0.68 m.
_ADULT_YEARS, _ADULT_HEIGHT_M = 18.0, 1.2


def find_column(columns: Iterable[str], what: str) -> str | None:
    """Return what a table calls its column of sex, age, height, weight, BMI or another.

    Neither case, nor a unit behind the name, nor the ``participants_`` that a cohort table may
    write before it, makes a difference.

    Examples
    --------
    >>> [find_column(['Age (years)', 'Gender', 'agent'], what) for what in ('age', 'sex', 'bmi')]
    ['Age (years)', 'Gender', None]
    >>> find_column(['age_m', 'height_m'], 'age'), find_column(['age_m', 'height_m'], 'height')
    (None, 'height_m')
    """
    found: dict[str, str] = {}
    for name in columns:
        plain = name.strip().lower().removeprefix('participants_')
        found.setdefault(plain, name)
        # A column age_m is in months.
        if (match := _WITH_UNIT.fullmatch(plain)) and (match[1] != 'age' or match[2][0] == 'y'):
            found.setdefault(match[1], name)
    return found.get(what, found.get(_OTHER_NAMES.get(what, what)))


def at_session(person: Mapping[str, str], session: Mapping[str, str]) -> Mapping[str, str]:
    """Return what is known of a person at the time of a session.

    Parameters
    ----------
    person
        Row of ``participants.tsv``.
    session
        Row of ``sessions.tsv``. Its age, height, weight and body mass index go before those of the
        person, under the names that ``participants.tsv`` has for them.

    Examples
    --------
    >>> at_session({'sex': 'F', 'Age (years)': '8'}, {'age': '18', 'days': '3652'})
    {'sex': 'F', 'Age (years)': '18'}
    >>> at_session({'weight': '25', 'height': '125', 'bmi': '16'}, {'weight': '32'})
    {'weight': '32', 'height': '125', 'bmi': '20.48'}
    """
    told = [what for what in CHANGING if amount_of(session, what) is not None]
    if not told:
        return person
    found = dict(person)
    for what in told:
        name = find_column(session, what) or what
        found[find_column(person, what) or name] = session[name]
    bmi = find_column(person, 'bmi')
    height, weight = amount_of(found, 'height'), amount_of(found, 'weight')
    if bmi and height and weight and 'bmi' not in told and {'height', 'weight'} & set(told):
        found[bmi] = f'{weight / height**2:.4g}'  # that of participants.tsv is of another weight
    return found


def amount_of(info: Mapping[str, str], what: str) -> float | None:
    """Return the age, height in metres, weight or BMI of a row; None where it is not possible.

    Examples
    --------
    >>> [amount_of({'Height_cm': text}, 'height') for text in ('172', '1.72', 'n/a', '17')]
    [1.72, 1.72, None, None]
    >>> amount_of({'height': '68', 'age': '89+'}, 'height')
    """
    value = number(info.get(find_column(info, what) or '', ''))
    age = years_of(info.get(find_column(info, 'age') or '', ''))
    return None if value is None else plausible(what, value, age)


def years_of(age: str) -> float | None:
    """Return an age as a number, or None; ``89+``, as BIDS asks to write it, is 89."""
    return number(age.removesuffix('+'))


def sex_of(word: str) -> str | None:
    """Return ``'F'`` or ``'M'``, or None for all other words.

    Examples
    --------
    >>> [sex_of(word) for word in ('female', 'M', ' w', 'O', '1', 'n/a')]
    ['F', 'M', 'F', None, None, None]
    """
    return _SEX.get(word.strip().lower())


def plausible(what: str, value: float, age: float | None = None) -> float | None:
    """Return an age, height, weight or BMI, heights in metres; None where it is not possible.

    Parameters
    ----------
    what, value
        Such as ``'age'``, 34.
    age
        Of the person in years, where it is known; it decides which heights are possible.

    Examples
    --------
    >>> [plausible('age', age) for age in (34, -999, float('nan'))]
    [34.0, None, None]
    >>> [plausible('height', height) for height in (172, 1.72, 17)]
    [1.72, 1.72, None]
    >>> [plausible('height', 68, age) for age in (3, 40)]
    [0.68, None]
    """
    low, high = _PLAUSIBLE[what]
    if what == 'height' and age is not None and age >= _ADULT_YEARS:
        low = _ADULT_HEIGHT_M
    units = (1, 100) if what == 'height' else (1,)
    return next((value / unit for unit in units if low <= value / unit <= high), None)
