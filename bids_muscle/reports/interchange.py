"""Files for other programs: ``group_wide`` as CSV, its codebook, and a script for R."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.anatomy.people import find_column
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.writer import PIECE, as_list, write_bytes, write_text
from bids_muscle.reports.outputs import MISSING
from bids_muscle.tables import number

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Words of logical columns: those of bids_muscle, and those of people.
LOGICAL = ({'true', 'false'}, {'True', 'False'}, {'yes', 'no'})
TRUE = {'true', 'True', 'yes'}
#: Columns of participants.tsv that the models use, whatever they are called.
ROLES = ('sex', 'age', 'bmi', 'weight', 'height', 'site')
_COLUMNS = (
    'column', 'label', 'description', 'units', 'type', 'role', 'measure', 'muscle', 'side',
    'levels',
)  # fmt: skip


def write_for_others(
    wide: pd.DataFrame,
    definitions: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, tuple[str, str, str]],
    sessions: Sequence[str],
    output_dir: Path,
) -> list[Path]:
    """Write the wide table with commas, what its columns mean, and a script that reads both.

    Parameters
    ----------
    wide
        As in ``group_wide``, text with ``n/a``; missing values are empty cells here.
    definitions
        Data dictionary of its columns.
    places
        Measure, muscle and side of the columns that hold measures of one side.
    sessions
        In the order of time.
    output_dir
        The derivatives dataset.
    """
    import pandas as pd

    table, book, script = (
        output_dir / dataset_path(f'group_{name}') for name in ('wide_csv', 'codebook', 'models_r')
    )
    rows = _codebook(wide, definitions, places, sessions)
    write_bytes(_csv(wide), table)
    write_bytes(_csv(pd.DataFrame(rows, columns=list(_COLUMNS)).fillna('')), book)
    source = resources.files('bids_muscle') / 'data/r/group_models.R'
    write_text(source.read_text(encoding='utf-8'), script)
    return [table, book, script]


def _csv(table: pd.DataFrame) -> Iterator[bytes]:
    """Give a table with commas, and nothing where it is n/a, in pieces."""
    for start in range(0, max(len(table), 1), PIECE):
        some = table.iloc[start : start + PIECE].astype(object).replace(MISSING, '')
        text = some.to_csv(index=False, lineterminator='\n', header=not start)
        yield text.encode('utf-8')


def to_parquet(table: pd.DataFrame) -> bytes:
    """Return a table of text as Parquet; columns of numbers and logical columns are typed so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    columns = {name: typed(table[name]) for name in table}
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


def typed(cells: Sequence[str] | pd.Series) -> pa.Array:
    """Return a column of text as what all of its cells are; n/a becomes null."""
    import pandas as pd
    import pyarrow as pa

    if (numbers := _numbers(cells)) is not None:
        return numbers
    if _text(cells).unique().to_pylist() == [MISSING]:
        return pa.nulls(len(cells), pa.float64())
    cells = list(cells)
    if type_of(cells) == 'logical':
        return pa.array([None if word == MISSING else word in TRUE for word in cells])
    column = pd.Series([None if word == MISSING else word for word in cells], dtype=object)
    try:
        return pa.array(pd.to_numeric(column), from_pandas=True)
    except (ValueError, TypeError):
        return pa.array(column, pa.string(), from_pandas=True)


def _text(cells: Sequence[str] | pd.Series) -> pa.Array:
    """Return text as Arrow has it; that of a column of a table need not be copied."""
    import pyarrow as pa

    column = pa.array(getattr(cells, 'array', cells), pa.string())
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(cells: Sequence[str] | pd.Series) -> pa.Array | None:
    """Return a column of text as numbers, or None where it may hold anything else.

    Almost all columns hold numbers, and to look at each cell takes many times as long.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _text(cells)
    known = pc.if_else(pc.equal(column, MISSING), pa.scalar(None, pa.string()), column)
    if known.null_count == len(known):
        return None
    try:
        numbers = known.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    if pc.any(pc.is_nan(numbers)).as_py():  # the word nan is no number
        return None
    # A cast that fails takes many times as long as one that does not.
    if not known.null_count and pc.all(pc.equal(numbers, pc.floor(numbers))).as_py():
        with suppress(pa.ArrowInvalid):  # 2.0
            return known.cast(pa.int64())
    return numbers


def _codebook(
    wide: pd.DataFrame,
    definitions: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, tuple[str, str, str]],
    sessions: Sequence[str],
) -> list[dict[str, Any]]:
    role_of = {find_column(map(str, wide.columns), role): role for role in ROLES}
    rows = []
    for name in map(str, wide.columns):
        entry = definitions.get(name, {})
        measure, muscle, side = places.get(name, ('', '', ''))
        numeric = _numbers(wide[name]) is not None
        cells = [] if numeric else as_list(wide[name])
        kind = 'number' if numeric else type_of(cells)
        levels = ' < '.join(sessions) if name == 'session_id' else _levels(entry, cells, kind)
        rows.append(
            {
                'column': name,
                'label': entry.get('LongName', name),
                'description': entry.get('Description', ''),
                'units': entry.get('Units', ''),
                'type': kind,
                'role': role_of.get(name, ''),
                'measure': measure,
                'muscle': muscle,
                'side': side,
                'levels': levels,
            }
        )
    return rows


def _levels(entry: Mapping[str, Any], column: Iterable[str], kind: str) -> str:
    """Return the levels that a column of few words has, as in its dictionary or as they occur."""
    if isinstance(entry.get('Levels'), dict):
        return '; '.join(f'{level} = {text}' for level, text in entry['Levels'].items())
    if kind == 'number':
        return ''
    words = sorted(set(column) - {MISSING})
    return '; '.join(words) if len(words) <= 10 else ''


def type_of(column: Iterable[str]) -> str:
    """Return ``'number'``, ``'logical'`` or ``'text'``, as all cells but n/a are.

    Examples
    --------
    >>> type_of(['1', '2.5', 'n/a']), type_of(['true', 'false']), type_of(['no', 'yes'])
    ('number', 'logical', 'logical')
    >>> type_of(['true', '1']), type_of(['n/a']), type_of(['1_1', '1_2'])
    ('text', 'text', 'text')
    """
    words = set(column) - {MISSING}
    if words and any(words <= each for each in LOGICAL):
        return 'logical'
    return 'number' if words and all(number(word) is not None for word in words) else 'text'
