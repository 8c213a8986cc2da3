"""The table of all muscles of a cohort, made piece by piece: its text does not fit into memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dataset.writer import tsv_line
from bids_muscle.reports.cohort import (
    SCAN_COLUMNS,
    SOURCE,
    measure_names,
    people_columns,
    scan_cells,
    source_of,
    tidy_columns,
)
from bids_muscle.reports.interchange import LOGICAL, TRUE, typed
from bids_muscle.reports.outputs import IDENTITY, MISSING, REASON, ScanOutputs
from bids_muscle.reports.rows import StoredRows, cells_of, text_table

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a row group of the Parquet file, at most.
MOST_ROWS = 131_072
#: Rows that are text at a time, at most; text takes many times the memory of numbers.
_PIECE = 8192


class MuscleTable:
    """One row per scan, muscle and side, joined with the participants' columns.

    Values are text, exactly as the participant level wrote them, but for the differences of sides
    of which only one counts.

    Parameters
    ----------
    scans
        All scans of the dataset.
    """

    def __init__(self, scans: Sequence[ScanOutputs]) -> None:
        self._scans = [scan for scan in scans if scan.rows]
        self._own = (*IDENTITY, *measure_names(scans), REASON)
        own = tidy_columns(scans)
        self._people = people_columns(self._scans, own)
        self.columns = (*own, *self._people)

    def tsv(self) -> Iterator[str]:
        """Give the table as :func:`~bids_muscle.dataset.writer.write_tsv` writes it."""
        yield tsv_line(self.columns)
        for place, scan in enumerate(self._scans):
            front = tsv_line(scan_cells(scan).values()).rstrip('\n')
            people = tsv_line(['', *(column[place] for column in self._people.values())])
            behind = people.removeprefix(MISSING)
            source, reasons = source_of(scan), _reasons(scan)
            ends = {
                reason: f'\t{source}\t{"yes" if reason else "no"}\t{reason or MISSING}{behind}'
                for reason in set(reasons)
            }
            pieces = zip(self._lines(scan), reasons, strict=True)
            yield ''.join([f'{front}\t{line}{ends[reason]}' for line, reason in pieces])

    def parquet(self) -> Iterator[bytes]:
        """Give the table as Parquet: numbers and logical columns typed, in row groups."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = {name: _Type() for name in self._own}
        for _, table in self._pieces():
            for name, column in zip(self._own, table.columns, strict=True):
                found[name].see(column)
        scans = self._scan_columns()
        excluded = any(reason for scan in self._scans for reason in set(_reasons(scan)))
        types = {name: column.type for name, column in scans.items()}
        types |= {name: each.type for name, each in found.items()}
        types['excluded'] = pa.bool_()
        types['exclusion_reason'] = pa.string() if excluded else pa.float64()
        schema = pa.schema([(name, types[name]) for name in self.columns])
        pipe, rows = _Pipe(), 0
        ready: list[pa.Table] = []
        with pq.ParquetWriter(pipe, schema) as writer:
            for which, table in self._pieces():
                if rows + len(table) > MOST_ROWS:
                    writer.write_table(pa.concat_tables(ready).combine_chunks(), MOST_ROWS)
                    yield pipe.drain()
                    ready, rows = [], 0
                ready.append(self._typed(which, table, scans, schema))
                rows += len(table)
            if ready:
                writer.write_table(pa.concat_tables(ready).combine_chunks(), MOST_ROWS)
        yield pipe.drain()

    def _typed(
        self, which: list[int], table: pa.Table, scans: Mapping[str, pa.Array], schema: pa.Schema
    ) -> pa.Table:
        """Return rows of text as rows of all columns, each of its type."""
        import pyarrow as pa

        at = pa.array(np.repeat(which, [len(self._scans[place].rows) for place in which]))
        columns = {name: column.take(at) for name, column in scans.items()}
        columns |= {
            name: _as(column, schema.field(name).type)
            for name, column in zip(self._own, table.columns, strict=True)
        }
        reasons = [reason or None for place in which for reason in _reasons(self._scans[place])]
        columns['excluded'] = pa.array([bool(reason) for reason in reasons])
        columns['exclusion_reason'] = pa.array(reasons, schema.field('exclusion_reason').type)
        return pa.table([columns[name] for name in self.columns], schema)

    def _lines(self, scan: ScanOutputs) -> list[str]:
        """Return the rows of a scan as text: the columns that its own table has."""
        rows = scan.cohort_rows
        if isinstance(rows, StoredRows) and rows.columns == self._own:
            return rows.lines
        return [tsv_line(cells).rstrip('\n') for cells in cells_of(rows, self._own)]

    def _pieces(self) -> Iterator[tuple[list[int], pa.Table]]:
        """Give places of scans, and their rows as text with nulls."""
        which: list[int] = []
        lines: list[str] = []
        for place, scan in enumerate(self._scans):
            if lines and len(lines) + len(scan.rows) > _PIECE:
                yield which, text_table(lines, self._own)
                which, lines = [], []
            which.append(place)
            lines += self._lines(scan)
        if lines:
            yield which, text_table(lines, self._own)

    def _scan_columns(self) -> dict[str, pa.Array]:
        """Return the columns that are the same in all rows of a scan, one value a scan."""
        cells = [scan_cells(scan) for scan in self._scans]
        columns: dict[str, list[str]] = {
            name: [each[name] for each in cells] for name in SCAN_COLUMNS
        }
        columns[SOURCE] = [source_of(scan) for scan in self._scans]
        return {name: typed(column) for name, column in {**columns, **self._people}.items()}


@dataclass
class _Type:
    """What a column of text can be read as, from the pieces seen so far."""

    words: set[str] = field(default_factory=set)
    whole: bool = True
    numeric: bool = True
    missing: bool = False

    def see(self, column: pa.ChunkedArray) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.missing |= column.null_count > 0
        if column.null_count == len(column):
            return
        first = column.drop_null()[0].as_py()
        logical = any(first in words for words in LOGICAL)
        # One word is enough to say that a column is not logical.
        self.words |= set(pc.unique(column.drop_null()).to_pylist()) if logical else {first}
        whole = self.whole and _reads(column, pa.int64())
        self.numeric = self.numeric and (whole or _reads(column, pa.float64()))
        self.whole = whole

    @property
    def type(self) -> pa.DataType:
        """The type, as :func:`~bids_muscle.reports.interchange.typed` chooses it."""
        import pyarrow as pa

        if self.words and any(self.words <= each for each in LOGICAL):
            return pa.bool_()
        if not self.numeric:
            return pa.string()
        return pa.int64() if self.whole and self.words and not self.missing else pa.float64()


class _Pipe(io.RawIOBase):
    """A file that is handed on in pieces, while it is written."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._pieces.append(bytes(content))
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def drain(self) -> bytes:
        """Return what was written since the last time."""
        content = b''.join(self._pieces)
        self._pieces.clear()
        return content


def _reads(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = column.cast(kind)
    except pa.ArrowInvalid:
        return False
    return not (pa.types.is_floating(kind) and pc.any(pc.is_nan(numbers)).as_py())


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_boolean(kind):
        return column.cast(kind)
    true = pc.is_in(column, value_set=pa.array(sorted(TRUE)))
    return pc.if_else(pc.is_null(column), pa.scalar(None, pa.bool_()), true)


def _reasons(scan: ScanOutputs) -> Sequence[Any]:
    """Return why each row of a scan does not count, or nothing."""
    if scan.kept is scan.rows:
        return [''] * len(scan.rows)
    return [scan.exclusion(row) for row in scan.rows]
