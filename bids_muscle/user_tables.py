"""Tables that people made, as their programs save them."""

from __future__ import annotations

import codecs
import csv
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.files import MAX_TABLE_BYTES, how_to_fetch, read_small
from bids_muscle.tables import MISSING, name_some

#: How other programs say it, in lower case.
_MISSING_MARKS = frozenset({'', 'na', 'nan', '<na>', 'null', '#n/a', '#na', '-', '.'})
_SEPARATORS = {'\t': 'tabs', ';': 'semicolons', ',': 'commas', '|': 'bars', ' ': 'blanks'}
#: Characters that no text holds, and those that take no place in it.
_NO_TEXT = re.compile('[\x00-\x08\x0e-\x1f]')
_INVISIBLE = str.maketrans({'\ufeff': None, '\u200b': None, '\u200e': None, '\xad': None})
#: A spreadsheet writes an apostrophe before a number that it keeps as text.
_TEXT_MARK = re.compile(r"'([\d.,+-]+)'?")
#: A number with a decimal comma, and one whose comma may as well part the thousands.
_DECIMAL_COMMA = re.compile(r'[+-]?\d+,\d+')
_WHOLE = re.compile(r'[+-]?\d+')
_THOUSANDS = re.compile(r'[+-]?[1-9]\d{0,2},\d{3}')
#: A table with more columns is read in part where it is known which of them are of use.
MOST_COLUMNS = 1000


@dataclass(frozen=True)
class Table:
    """A table that a person has made.

    Parameters
    ----------
    columns
        Names of the columns, without blanks around them.
    rows
        Text by column, ``'n/a'`` where there is none.
    read_as
        What had to be done to read it, such as ``'with decimal commas in age'``.
    left_out
        Sentences about what could not be read without doubt.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    read_as: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def remarks(self, name: str) -> list[str]:
        """Return all that has to be said about the table, as sentences.

        Examples
        --------
        >>> Table(('age',), (), ('as UTF-16',)).remarks('participants.tsv')
        ['participants.tsv is read as UTF-16. Save it as UTF-8 with tabs, as BIDS asks for.']
        """
        done = [
            f'{name} is read {", ".join(self.read_as)}. '
            'Save it as UTF-8 with tabs, as BIDS asks for.'
        ]
        return [*(done if self.read_as else []), *(f'{name}: {each}' for each in self.left_out)]


def read_table(path: Path, is_of_use: Callable[[str], bool] | None = None) -> Table:
    """Read a table of a person, and what can be read of it without doubt.

    Encodings (UTF-8, UTF-16, Windows), separators (tab, semicolon, comma, bar), line ends, quotes,
    blanks around cells, and decimal commas of columns that have no other are understood. Rows that
    are too long are left out, as nobody knows which of their cells belongs where.

    Parameters
    ----------
    path
        The table.
    is_of_use
        Says by its name whether a column is needed. Of a table with more than a thousand columns,
        others are not read; None to read all.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    BadDataError
        If it is no table of text.
    """
    if fetch := how_to_fetch(path):
        raise MissingInputError(f'{path} is a placeholder of git-annex or Git LFS.', fetch)
    try:
        text, encoding = decode(read_small(path, MAX_TABLE_BYTES))
    except OSError as error:
        raise MissingInputError(
            f'{path} cannot be read: {error.strerror}.', 'Check the path and its permissions.'
        ) from error
    except ValueError as error:
        raise BadDataError(
            f'{path} is not a table of text.', 'Export it as text separated by tabs, in UTF-8.'
        ) from error
    read_as = [f'as {encoding}'] if encoding else []
    lines = [line for line in re.split('\r\n|\r|\n', text) if line.strip('\t ;,|')]
    if lines and (match := re.fullmatch(r'sep=(\W)', lines[0].strip())):
        delimiter, lines = match[1], lines[1:]
    else:
        delimiter = _separator(lines)
    if delimiter == ' ':
        lines = ['\t'.join(line.split()) for line in lines]
    if delimiter != '\t' and lines:
        read_as.append(f'with {_SEPARATORS.get(delimiter, delimiter)} between its cells')
    try:
        records, quoted = _split(lines, '\t' if delimiter == ' ' else delimiter)
    except csv.Error as error:
        raise BadDataError(f'{path} is not a table: {error}.', 'Export it again.') from error
    if quoted:
        read_as.append('without the quotes around its cells')
    return _table(records, read_as, is_of_use)


def decode(content: bytes) -> tuple[str, str | None]:
    """Return text, and the name of its encoding where that is not UTF-8.

    Raises
    ------
    ValueError
        If it is no text.

    Examples
    --------
    >>> decode('Jürgen'.encode('utf-8-sig')), decode('Jürgen'.encode('latin-1'))
    (('Jürgen', None), ('Jürgen', 'Windows-1252 (Latin-1)'))
    """
    encoding = _utf16(content)
    if encoding:
        text, name = content.decode(encoding), 'UTF-16'
    else:
        try:
            return _checked(content.decode('utf-8-sig')), None
        except UnicodeDecodeError:
            # It gives five bytes no meaning, which Latin-1 calls control characters.
            text, name = content.decode('cp1252', errors='replace'), 'Windows-1252 (Latin-1)'
    return _checked(text), name


def fit_labels(
    names: Iterable[str], prefix: str, labels: Collection[str] | None
) -> dict[str, str]:
    """Return the label of each name that fits one, written as in the dataset or nearly so.

    Parameters
    ----------
    names
        What a person wrote, with or without the prefix.
    prefix
        Such as ``'sub-'``.
    labels
        Those of the dataset, without prefix; None to take all names as they are.

    Examples
    --------
    >>> fit_labels(['sub-01', 'SUB-2', '3.0', 'C_4', 'x'], 'sub-', ['01', '002', '3', 'C4', '5'])
    {'sub-01': '01', 'SUB-2': '002', '3.0': '3', 'C_4': 'C4'}
    >>> fit_labels(['1', 'sub-A', '04'], 'sub-', ['01', '001', 'A', 'a', '4', '04'])
    {'sub-A': 'A', '04': '04'}
    """
    names = list(names)
    if labels is None:
        return {name: name.removeprefix(prefix) for name in names}
    known = set(labels)
    exact = {name: label for name in names if (label := name.removeprefix(prefix)) in known}
    near_labels, near_names = _by_core(labels, prefix), _by_core(names, prefix)
    fitting = {}
    for name in names:
        if name in exact:
            fitting[name] = exact[name]
            continue
        core = _core(name, prefix)
        if len(near_labels.get(core, ())) == 1 == len(near_names[core]):
            fitting[name] = near_labels[core][0]
    return fitting


def _by_core(names: Iterable[str], prefix: str) -> dict[str, list[str]]:
    cores: dict[str, list[str]] = defaultdict(list)
    for name in names:
        cores[_core(name, prefix)].append(name)
    return cores


def _core(name: str, prefix: str) -> str:
    """Return what is left of a label without what people and spreadsheets change in it."""
    text = re.sub(r'^(\d+)\.0+$', r'\1', name.casefold())
    text = re.sub(r'[-_ ]', '', text.removeprefix(prefix))
    text = text.removeprefix(prefix.rstrip('-')) if prefix else text
    return re.sub(r'0*(\d+)', r'\1', text)


def _utf16(content: bytes) -> str | None:
    """Return the codec of UTF-16, with or without its mark, or None for other encodings."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 'utf-16'
    half = min(len(content), 200) // 2
    for codec, zeros in (('utf-16-le', content[1 : 2 * half : 2]), ('utf-16-be', content[::2])):
        if half and zeros[:half].count(0) > 0.9 * half:
            return codec
    return None


def _checked(text: str) -> str:
    if _NO_TEXT.search(text):
        raise ValueError('control characters')
    return text


def _separator(lines: Sequence[str]) -> str:
    """Return what parts the cells: the first candidate before which none of the others is.

    Blanks count only where they part all lines into as many cells.
    """
    header = lines[0] if lines else ''
    marks = set(_SEPARATORS) - {' '}
    for candidate in _SEPARATORS:
        first, found, _ = header.partition(candidate)
        if candidate != ' ' and found and not set(first) & marks:
            return candidate
    widths = {len(line.split()) for line in lines}
    return ' ' if len(widths) == 1 and widths != {1} else '\t'


def _split(lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], bool]:
    """Return the cells of all lines, and whether quotes were around some of them."""
    plain = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    if not any('"' in line for line in lines):
        return plain, False
    try:
        records = list(
            csv.reader((f'{line}\n' for line in lines), delimiter=delimiter, strict=True)
        )
    except csv.Error:  # a quote that is part of the text, as in 5'10"
        records = plain
    bare = [[re.sub(r'^\s*"([^"]*)"\s*$', r'\1', cell) for cell in row] for row in records]
    return bare, bare != plain


def _table(
    records: Sequence[Sequence[str]],
    read_as: list[str],
    is_of_use: Callable[[str], bool] | None,
) -> Table:
    """Put cells under the names of their columns."""
    header = records[0] if records else []
    names = [_clean(name) for name in header]
    if any(clean != name for clean, name in zip(names, header, strict=True)):
        read_as.append('without the blanks around the names of its columns')
    left_out = []
    if any(_clean(cell) for row in records[1:] for cell, name in zip(row, names) if not name):  # noqa: B905 - rows may be shorter
        left_out.append('a column without a name is left out.')
    long = [n for n, row in enumerate(records) if any(map(_clean, row[len(names) :]))]
    if long:
        rows = name_some(map(str, long))
        left_out.append(
            f'{"rows" if len(long) > 1 else "row"} {rows} below the header '
            f'{"have" if len(long) > 1 else "has"} more cells than the header and '
            f'{"are" if len(long) > 1 else "is"} left out.'
        )
    kept = [row for n, row in enumerate(records) if n and n not in set(long)]
    if is_of_use and len(names) > MOST_COLUMNS:
        places = [number for number, name in enumerate(names) if is_of_use(name)]
        left_out.append(
            f'{len(names) - len(places)} of its {len(names)} columns are not read. '
            f'A table of at most {MOST_COLUMNS} columns is read as a whole.'
        )
        names = [names[number] for number in places]
        kept = [[row[number] for number in places if number < len(row)] for row in kept]
    columns: dict[str, list[str]] = {}
    doubled = set()
    for number, name in enumerate(names):
        cells = [_cell(row[number]) if number < len(row) else MISSING for row in kept]
        if name and columns.setdefault(name, cells) != cells:
            doubled.add(name)
    for name in sorted(doubled):
        del columns[name]
        left_out.append(f'two columns are called {name} and differ; both are left out.')
    if any(_is_mark(cell) for row in kept for cell in map(_clean, row)):
        read_as.append('with other marks than n/a for what is missing')
    if commas := [name for name, cells in columns.items() if _has_decimal_commas(cells)]:
        read_as.append(f'with decimal commas in {name_some(commas)}')
        for name in commas:
            columns[name] = [cell.replace(',', '.') for cell in columns[name]]
    return Table(
        tuple(columns),
        tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)),
        tuple(read_as),
        tuple(left_out),
    )


def _clean(cell: str) -> str:
    """Return a cell without blanks around it; a blank may be a no-break space."""
    text = ' '.join(cell.translate(_INVISIBLE).split())
    match = _TEXT_MARK.fullmatch(text)
    return match[1] if match else text


def _is_mark(text: str) -> bool:
    return bool(text) and text.lower() in _MISSING_MARKS


def _cell(cell: str) -> str:
    text = _clean(cell)
    return MISSING if not text or _is_mark(text) else text


def _has_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether all numbers of a column are written with decimal commas, beyond doubt.

    Examples
    --------
    >>> [_has_decimal_commas(cells) for cells in (['72,5', '80'], ['1,234'], ['1,5', '1.5'])]
    [True, False, False]
    """
    given = [cell for cell in cells if cell != MISSING]
    commas = [cell for cell in given if _DECIMAL_COMMA.fullmatch(cell)]
    return any(not _THOUSANDS.fullmatch(cell) for cell in commas) and all(
        _DECIMAL_COMMA.fullmatch(cell) or _WHOLE.fullmatch(cell) for cell in given
    )
