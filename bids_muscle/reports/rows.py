"""Rows of muscle tables: as they are in memory, or in a file that keeps those of a cohort."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, overload

from bids_muscle.dataset.writer import tsv_line
from bids_muscle.tables import MISSING

if TYPE_CHECKING:
    import pyarrow as pa

Cell = TypeVar('Cell')


class Row(Mapping[str, Cell]):
    """One row of a table; rows share the names of their columns, so that cohorts fit in memory."""

    __slots__ = ('_cells', '_places')

    def __init__(self, places: Mapping[str, int], cells: Sequence[Cell]) -> None:
        self._places, self._cells = places, cells

    @property
    def places(self) -> Mapping[str, int]:
        """The places of the columns, which rows of one table share."""
        return self._places

    @property
    def cells(self) -> Sequence[Cell]:
        """Its cells in the order of the columns."""
        return self._cells

    def __getitem__(self, name: str) -> Cell:
        return self._cells[self._places[name]]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a cell; a cohort asks millions of times, so without an exception on the way."""
        place = self._places.get(name)
        return default if place is None else self._cells[place]

    def items(self) -> ItemsView[str, Cell]:
        """Return names and cells; those of a mapping would look up each name."""
        return dict(zip(self._places, self._cells, strict=True)).items()

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class StoredRows(Sequence[Row[str]]):
    """Rows that are taken from where they are kept whenever they are asked for.

    Parameters
    ----------
    columns
        Names of the columns; scans of one kind share them.
    count
        How many rows there are, at least one.
    load, place
        What gives their text for a place: lines of cells between tabs.
    main
        Their :func:`~bids_muscle.reports.page.main_measures`.
    """

    __slots__ = ('_count', '_load', '_place', 'columns', 'main')

    def __init__(
        self,
        columns: tuple[str, ...],
        count: int,
        load: Callable[[int], str],
        place: int,
        main: tuple[str, ...],
    ) -> None:
        self.columns, self._count, self._load, self._place = columns, count, load, place
        self.main = main

    @property
    def lines(self) -> list[str]:
        """The rows as text."""
        return self._load(self._place).split('\n')

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row[str]]:
        places = places_of(self.columns)
        for line in self.lines:
            yield Row(places, line.split('\t'))

    @overload
    def __getitem__(self, place: int) -> Row[str]: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Row[str], ...]: ...
    def __getitem__(self, place: int | slice) -> Row[str] | tuple[Row[str], ...]:
        return tuple(self)[place]


@cache
def places_of(columns: tuple[str, ...]) -> Mapping[str, int]:
    """Return the place of each column."""
    return {name: place for place, name in enumerate(columns)}


def columns_of(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the columns of a table; none where it has no rows."""
    if isinstance(rows, StoredRows):
        return rows.columns
    return tuple(rows[0]) if rows else ()


def of_one_table(rows: Sequence[Mapping[str, Cell]]) -> TypeGuard[Sequence[Row[Cell]]]:
    """Return whether all rows are :class:`Row` and share their columns."""
    tables = {id(row.places) if isinstance(row, Row) else None for row in rows}
    return len(tables) == 1 and None not in tables


def text_of(rows: Sequence[Mapping[str, str]]) -> str:
    r"""Return rows as lines of cells between tabs, as :func:`tsv_line` writes cells.

    Examples
    --------
    >>> text_of([{'a': 'one  blank', 'b': ''}])
    'one blank\tn/a'
    """
    lines = ['\t'.join(row.cells if isinstance(row, Row) else row.values()) for row in rows]
    text = '\n'.join(lines)
    # Cells have single blanks alone; a look at all of them at once is quicker than at each.
    blanks = text.replace('\t', ' ').replace('\n', ' ')
    if ' '.join(blanks.split()) == blanks:
        return text
    return ''.join(tsv_line(line.split('\t')) for line in lines).removesuffix('\n')


def lines_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return rows as :func:`text_of`, each a line; none where there are no rows."""
    if isinstance(rows, StoredRows):
        return rows.lines
    return text_of(rows).split('\n') if rows else []


def text_table(
    lines: Sequence[str], columns: Sequence[str], some: Sequence[str] | None = None
) -> pa.Table:
    """Return lines of a table as columns of text, null where they are n/a; all columns or some."""
    import pyarrow as pa
    from pyarrow import csv

    content = '\n'.join(lines).encode('utf-8')
    return csv.read_csv(
        pa.BufferReader(content),
        csv.ReadOptions(use_threads=False, block_size=len(content) + 1, column_names=columns),
        csv.ParseOptions(delimiter='\t', quote_char=False, double_quote=False),
        csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=columns if some is None else some,
            null_values=[MISSING],
            strings_can_be_null=True,
        ),
    )


def cells_of(
    rows: Sequence[Mapping[str, str]], names: tuple[str, ...]
) -> Iterable[tuple[str, ...]]:
    """Return some cells of each row, n/a where there is no such column.

    Parameters
    ----------
    rows
        Of one table.
    names
        Two columns or more.

    Examples
    --------
    >>> list(cells_of([{'a': '1', 'b': '2'}], ('b', 'c')))
    [('2', 'n/a')]
    """
    # A missing column is the cell behind the last one.
    if isinstance(rows, StoredRows):
        get = _getter(rows.columns, names)
        return [get(f'{line}\t{MISSING}'.split('\t')) for line in rows.lines]
    if of_one_table(rows):
        get = _getter(columns_of(rows), names)
        return [get((*row.cells, MISSING)) for row in rows]
    return [tuple([row.get(name, MISSING) for name in names]) for row in rows]


@cache
def _getter(
    columns: tuple[str, ...], names: tuple[str, ...]
) -> Callable[[Sequence[str]], tuple[str, ...]]:
    places = places_of(columns)
    return itemgetter(*(places.get(name, len(columns)) for name in names))
