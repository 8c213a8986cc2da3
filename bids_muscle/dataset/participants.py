"""What ``participants.tsv`` says about each participant."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bids_muscle.anatomy.people import amount_of, find_column, plausible, sex_of, years_of
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.labelled import Labelled, read_labelled
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import format_tsv, write_bytes
from bids_muscle.errors import PARSE_ERRORS, MissingInputError
from bids_muscle.files import read_small
from bids_muscle.tables import MISSING, name_some, number, read_rows
from bids_muscle.user_tables import decode

#: Units that may follow a number, in lower case; an age of DICOM is ``034Y``.
_UNITS = {
    'age': r'y|yo|yrs?|years?(?: old)?',
    'height': r'c?m',
    'weight': r'kgs?',
    'bmi': r'kg/m\^?2|kg/m²',
}
#: Units of columns that are not those of the analyses.
_OTHER_UNITS = re.compile(r'(lbs?|pounds?|inch(es)?|in|ft|feet|foot|months?|mo|weeks?|days?)\.?')
#: What other programs write for a number that nobody knows: -9, -99, 999.
_CODE = re.compile(r'(-9+|99+)(\.0+)?')
#: Files in which people keep what belongs into participants.tsv.
_MEANT = re.compile(r'(participants?|subjects?)\.(tsv|csv|txt|xlsx?|ods)', re.IGNORECASE)
#: How the columns begin, in lower case, that are read of a table with very many.
_OF_USE = ('sex', 'gender', 'age', 'height', 'weight', 'bmi', 'site', 'group')
#: As BIDS asks to write the age of people above 89, and words for sex that are neither.
_AS_BIDS = {'age': {'89+'}, 'sex': {'o', 'other', 'x', 'unknown', MISSING}}


def read_participants(bids_dir: Path, others: Collection[str] = (), named: str = '') -> Labelled:
    """Return the rows of ``participants.tsv`` by label without ``sub-``.

    The file is read again only where it has changed since.

    Parameters
    ----------
    bids_dir
        A dataset, raw or derivative.
    others
        Labels of participants who are not, or no longer, among its folders.
    named
        Columns or a formula. Of a table with very many columns, those named in it are read too.
    """
    paths = [bids_dir / dataset_path(key) for key in ('participants', 'participants_json')]
    return _read(bids_dir, tuple(sorted(others)), named, *map(_state, (*paths, bids_dir)))


def read_participant_info(bids_dir: Path, participant: str) -> Mapping[str, str]:
    """Return the row of a participant in ``participants.tsv``; empty where there is none."""
    return read_participants(bids_dir).rows.get(participant, {})


def keep_participants(
    bids_dir: Path, output_dir: Path, recorded: Collection[str] = (), named: str = ''
) -> Labelled | None:
    """Copy ``participants.tsv`` of the raw dataset, and return its rows.

    The file of today decides. Where the raw data are gone, the copy of an earlier run does.

    Parameters
    ----------
    bids_dir, output_dir
        The raw dataset and the derivatives.
    recorded
        Participants that have records.
    named
        See :func:`read_participants`.

    Returns
    -------
    Labelled or None
        None where there are neither raw data nor a copy.
    """
    kept = [output_dir / dataset_path(key) for key in ('participants', 'participants_json')]
    source = [bids_dir / path.name for path in kept]
    if not source[0].is_file():
        if _has_participants(bids_dir):
            for path in kept:
                path.unlink(missing_ok=True)
            return Labelled()
        return read_participants(output_dir, recorded, named) if kept[0].is_file() else None
    table = read_participants(bids_dir, recorded, named)
    if table.rows:
        _keep(_as_bids(source[0], table.rows), kept[0])
        if source[1].is_file():
            _keep(source[1].read_bytes(), kept[1])
    return table


def read_meanings(folder: Path) -> dict[str, dict[str, str]]:
    """Return what codes of ``participants.tsv`` mean, by column: ``Levels`` of its JSON file.

    Parameters
    ----------
    folder
        A dataset, raw or derivative.
    """
    meanings = {}
    for name, entry in read_definitions(folder / dataset_path('participants_json')).items():
        levels = entry.get('Levels') if isinstance(entry, dict) else None
        if isinstance(levels, dict):
            meanings[name] = {code: _meaning(levels, code) for code in levels}
    return meanings


def height_m(info: Mapping[str, str]) -> float | None:
    """Return the height of a participant in metres, given in m or cm; None where it is unlikely.

    Parameters
    ----------
    info
        From :func:`read_participant_info`.

    Examples
    --------
    >>> [height_m({'Height_cm': text}) for text in ('172', '1.72', 'n/a', '17')]
    [1.72, 1.72, None, None]
    >>> height_m({'height': '68', 'age': '40'})
    """
    return amount_of(info, 'height')


def weight_kg(info: Mapping[str, str]) -> float | None:
    """Return the body mass of a participant in kg; None where it is unlikely or not there.

    Parameters
    ----------
    info
        From :func:`read_participant_info`.

    Examples
    --------
    >>> [weight_kg({'weight': text}) for text in ('72.5', 'n/a', '72500')]
    [72.5, None, None]
    """
    return amount_of(info, 'weight')


def sex(info: Mapping[str, str]) -> str | None:
    """Return ``'female'`` or ``'male'``, from the words that BIDS allows; None for others.

    Examples
    --------
    >>> [sex({'sex': text}) for text in ('F', 'male', 'O', 'n/a')]
    ['female', 'male', None, None]
    """
    word = sex_of(info.get(find_column(info, 'sex') or '', ''))
    return {'F': 'female', 'M': 'male'}.get(word or '')


def _state(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=4)
def _read(
    bids_dir: Path, others: tuple[str, ...], named: str, *state: tuple[int, int] | None
) -> Labelled:
    def is_of_use(name: str) -> bool:
        plain = name.lower().removeprefix('participants_')
        return plain.startswith(_OF_USE) or name in named

    try:
        labels = {*list_participants(bids_dir), *others}
    except MissingInputError:
        labels = set(others)
    path = bids_dir / dataset_path('participants')
    table = read_labelled(path, 'participant_id', 'sub-', labels or None, is_of_use)
    rows = {label: dict(row) for label, row in table.rows.items()}
    definitions = read_definitions(bids_dir / dataset_path('participants_json'))
    said = [*_drop_codes(rows, definitions), *tidy(rows, definitions)]
    remarks = [f'{path.name}: {each}' for each in said]
    if not path.is_file():
        remarks += _misnamed(bids_dir)
    return Labelled(rows, (*table.remarks, *remarks))


def _misnamed(bids_dir: Path) -> Iterator[str]:
    """Return which file would be participants.tsv under that name."""
    try:
        names = sorted(path.name for path in bids_dir.iterdir())
    except OSError:
        return
    for name in names:
        if _MEANT.fullmatch(name) and name != 'participants.tsv':
            yield f'{name} is not read. Save it as participants.tsv.'


def _has_participants(bids_dir: Path) -> bool:
    try:
        return bool(list_participants(bids_dir))
    except MissingInputError:
        return False


def _as_bids(path: Path, rows: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return the table as it is where it keeps to BIDS, else as it was read."""
    try:
        strict = {row.pop('participant_id', ''): row for row in read_rows(path)}
    except (OSError, ValueError):
        strict = {}
    if strict == {f'sub-{label}': row for label, row in rows.items()}:
        return path.read_bytes()
    people = [{'participant_id': f'sub-{label}', **row} for label, row in rows.items()]
    return format_tsv(people).encode()


def read_definitions(path: Path) -> Mapping[str, Any]:
    """Return what a JSON file says of the columns of a table; empty where it cannot be read."""
    try:
        content = json.loads(decode(read_small(path))[0])
    except (OSError, *PARSE_ERRORS):
        return {}
    return content if isinstance(content, dict) else {}


def tidy(
    rows: dict[str, dict[str, str]],
    definitions: Mapping[str, Any],
    prefix: str = 'sub-',
    quantities: Sequence[str] = ('sex', 'age', 'height', 'weight', 'bmi'),
) -> Iterator[str]:
    """Write sex, ages and sizes so that all analyses understand them; say what was changed.

    Parameters
    ----------
    rows
        Cells by column for each label; they are changed.
    definitions
        What the JSON file beside the table says of its columns.
    prefix
        Of the labels.
    quantities
        What to look for.
    """
    columns = next(iter(rows.values()), {})
    for what in quantities:
        if (name := find_column(columns, what)) is None:
            continue
        definition = definitions.get(name)
        definition = definition if isinstance(definition, dict) else {}
        unit = str(definition.get('Units', '')).strip()
        if what in _UNITS and _OTHER_UNITS.fullmatch(unit.lower()):
            for row in rows.values():
                row[name] = MISSING
            yield f'{name} is in {unit} and is not used. Give years, m or cm, and kg.'
        yield from _tidy_column(rows, name, what, definition, prefix)


def _drop_codes(rows: dict[str, dict[str, str]], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Write what is missing as such where a code stands for it that has no name; say so."""
    columns = next(iter(rows.values()), {})
    known = {find_column(columns, what) for what in ('sex', 'site', *_UNITS)}
    for name in (name for name in columns if name not in known):
        definition = definitions.get(name)
        levels = definition.get('Levels') if isinstance(definition, dict) else None
        codes = _missing_codes({row[name] for row in rows.values()}) - set(levels or ())
        for row in rows.values() if codes else ():
            row[name] = MISSING if row[name] in codes else row[name]
        if codes:
            yield f'{name} is read as missing where it is {name_some(sorted(codes))}.'


def _missing_codes(cells: Collection[str]) -> set[str]:
    """Return the cells that stand for a missing number, as no other one is nearly as far out.

    Examples
    --------
    >>> sorted(_missing_codes(['3', '-999', '10', '99'])), _missing_codes(['-9', '-5', '99', '80'])
    (['-999', '99'], set())
    """
    codes = {cell for cell in cells if _CODE.fullmatch(cell)}
    others = [value for cell in cells if cell not in codes and (value := number(cell)) is not None]
    low, high = min(others, default=0.0), max(others, default=math.inf)
    return {
        cell
        for cell in codes
        if (float(cell) / 9 < low if cell[0] == '-' else high < float(cell) / 9)
    }


def _tidy_column(
    rows: dict[str, dict[str, str]],
    name: str,
    what: str,
    definition: Mapping[str, Any],
    prefix: str,
) -> Iterator[str]:
    read, impossible, small, unclear = {}, [], [], []
    age = find_column(next(iter(rows.values()), {}), 'age') if what == 'height' else None
    for label, row in rows.items():
        cell = row[name]
        if cell == MISSING or cell.lower() in _AS_BIDS.get(what, ()):
            continue
        text = _sex(cell, definition) if what == 'sex' else _amount(cell, what)
        if text is None:
            unclear.append(f'{prefix}{label} ({cell})')
            continue
        # Ages come before heights and are tidy here.
        if age and text != MISSING and plausible(what, float(text), years_of(row[age])) is None:
            row[name] = MISSING
            small.append(f'{prefix}{label} ({cell})')
            continue
        row[name] = text
        if text == MISSING:
            impossible.append(f'{prefix}{label} ({cell})')
        elif text != cell:
            read[cell] = text
    if read:
        yield f'{name} {name_some(f"{cell!r} is read as {text}" for cell, text in read.items())}.'
    if impossible:
        yield f'{name} is impossible and set to missing for {name_some(impossible)}.'
    if small:
        yield (
            f'{name} is below 1.2 m, which no adult is expected to be, and set to missing for '
            f'{name_some(small)}. Give it in m or cm.'
        )
    if unclear:
        expected = 'F or M' if what == 'sex' else 'a number'
        yield f'{name} is not {expected} and is excluded from analyses for {name_some(unclear)}.'


def _sex(cell: str, definition: Mapping[str, Any]) -> str | None:
    """Return what a cell says about sex, by itself or by the levels of its definition.

    Examples
    --------
    >>> _sex('Male', {}), _sex('W', {}), _sex('1', {}), _sex('1', {'Levels': {'1': 'male'}})
    ('Male', 'F', None, 'M')
    """
    if cell.lower() in ('f', 'female', 'm', 'male'):
        return cell
    levels = definition.get('Levels')
    meaning = _meaning(levels, cell) if isinstance(levels, dict) and cell in levels else ''
    return sex_of(cell) or sex_of(meaning)


def _meaning(levels: Mapping[str, Any], code: str) -> str:
    """Return the name of a code, which BIDS allows to be an object with a description."""
    meaning = levels[code]
    if isinstance(meaning, dict):
        meaning = meaning.get('Description')
    return ' '.join(meaning.split()) if isinstance(meaning, str) and meaning.strip() else code


def _amount(cell: str, what: str) -> str | None:
    """Return a number without its unit, ``'n/a'`` where it is not possible, or None.

    Examples
    --------
    >>> [_amount(cell, 'age') for cell in ('34.5', '034Y', '34 years', '-999', '>89')]
    ['34.5', '34', '34', 'n/a', None]
    """
    match = re.fullmatch(rf'(.*?)\s*(?:{_UNITS[what]})', cell, re.IGNORECASE)
    value = number(match[1] if match else cell)
    if value is None:
        return None
    if plausible(what, value) is None:
        return MISSING
    return f'{value:.8g}' if match else cell


def _keep(content: bytes, copy: Path) -> None:
    """Write a copy unless it is there already."""
    if not copy.is_file() or copy.read_bytes() != content:
        write_bytes(content, copy)
