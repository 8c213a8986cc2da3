"""What tables say about people: names of columns, words for sex, plausible numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Other names of a column, in lower case.
_OTHER_NAMES = {'sex': 'gender'}
#: A name and the unit behind it.
_WITH_UNIT = re.compile(
    r'(.+?)[\s_]*[\s_(\[](?:in )?(?:years?|yrs?|y|kg|cm|m|kg/m\^?2|kg/m²)[)\]]?'
)
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
    """
    found: dict[str, str] = {}
    for name in columns:
        plain = name.strip().lower().removeprefix('participants_')
        found.setdefault(plain, name)
        if match := _WITH_UNIT.fullmatch(plain):
            found.setdefault(match[1], name)
    return found.get(what, found.get(_OTHER_NAMES.get(what, what)))


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
