"""Tables that keep to BIDS, and what their cells say."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

#: How a table says that there is no value.
MISSING = 'n/a'
#: That many lines, names or columns are named in a sentence.
MOST_NAMED = 10


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table that keeps to BIDS, such as those of bids_muscle: UTF-8, tabs, no quotes.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not such a table.
    """
    with path.open(encoding='utf-8-sig', newline='') as stream:
        return list(parse_rows(stream))


def read_cells(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """Read the names of the columns and the cells of each row; see :func:`read_rows`."""
    with path.open(encoding='utf-8-sig', newline='') as stream:
        lines = _parse(stream)
        return tuple(next(lines, ())), list(lines)


def parse_rows(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Give the rows of a table that keeps to BIDS, one by one; see :func:`read_rows`.

    Empty lines are left out.

    Raises
    ------
    ValueError
        If it is not such a table: a row has more or fewer cells than the header, or two columns
        have one name.
    """
    rows = _parse(lines)
    header = next(rows, [])
    for cells in rows:
        yield dict(zip(header, cells, strict=True))


def _parse(lines: Iterable[str]) -> Iterator[list[str]]:
    """Give the header and the rows of a table; see :func:`parse_rows`."""
    reader = csv.reader(lines, delimiter='\t', quoting=csv.QUOTE_NONE)
    try:
        header: list[str] = []
        for cells in filter(None, reader):
            if not header:
                header = cells
                if len(set(header)) < len(header):
                    raise ValueError(f'line {reader.line_num} repeats the name of a column')
            elif len(cells) != len(header):
                raise ValueError(
                    f'line {reader.line_num} has {len(cells)} cells, not {len(header)}'
                )
            yield cells
    except csv.Error as error:
        raise ValueError(str(error)) from error


def number(text: str) -> float | None:
    """Return a table cell as a number, or None where it is n/a or no number.

    Examples
    --------
    >>> number('12.5'), number('n/a'), number('1_2')
    (12.5, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    # Python reads 1_2, a code of people, as 12.
    return value if math.isfinite(value) and '_' not in text else None


def parse_time(text: str) -> datetime | None:
    """Return a time as BIDS writes it (``acq_time``), without its zone, or None.

    Examples
    --------
    >>> parse_time('2020-01-31T09:30:00Z'), parse_time('n/a')
    (datetime.datetime(2020, 1, 31, 9, 30), None)
    """
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def name_some(names: Iterable[str]) -> str:
    """Return names in words, at most ten of them.

    Examples
    --------
    >>> name_some('abc'), name_some(str(k) for k in range(12))
    ('a, b, c', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    every = list(names)
    more = len(every) - MOST_NAMED
    return ', '.join(every[:MOST_NAMED]) + (f' and {more} more' if more > 0 else '')
