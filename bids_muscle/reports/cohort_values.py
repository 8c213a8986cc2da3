"""The numbers of all muscles of a cohort by column, since a cohort of objects fills the memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, groupby, islice, repeat
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.reports.outputs import ASYMMETRY, ScanOutputs
from bids_muscle.reports.rows import lines_of, text_table
from bids_muscle.statistics.cohort import MEASURES
from bids_muscle.tables import MISSING, number

if TYPE_CHECKING:
    import pyarrow as pa

#: Scans whose cells are text at a time.
_PIECE = 500
#: A measure of the outlines rather than of the muscles: it is shown, and sorted by.
DICE = 'dice_predicted'
_WHICH = ('name', 'muscle', 'side', 'extent')


@dataclass(frozen=True)
class CohortValues:
    """Measures of all rows of all scans, one scan after the other.

    Parameters
    ----------
    scans
        All scans of the dataset.
    columns
        Places of the measures in `numbers`.
    numbers
        (n_rows, n_columns) numbers, NaN where there is none.
    starts
        (n_scans + 1,) first row of each scan, and the number of rows.
    kind
        (n_rows,) place of a row in `kinds`.
    kinds
        Name, muscle, side and extent of rows; each combination once.
    kept
        (n_rows,) whether a row counts in the cohort.
    """

    scans: Sequence[ScanOutputs]
    columns: Mapping[str, int]
    numbers: np.ndarray
    starts: np.ndarray
    kind: np.ndarray
    kinds: Sequence[tuple[str, ...]]
    kept: np.ndarray

    def of(self, column: str) -> np.ndarray:
        """Return the numbers of one column."""
        values: np.ndarray = self.numbers[:, self.columns[column]]
        return values

    def has(self, column: str) -> bool:
        """Return whether any row has a number in a column."""
        return column in self.columns and bool(np.isfinite(self.of(column)).any())

    def among(self, scans: Collection[ScanOutputs]) -> CohortValues:
        """Return the numbers of some of the scans, and the columns that these have."""
        names = {scan.record.scan for scan in scans}
        some = np.array([scan.record.scan in names for scan in self.scans], dtype=bool)
        rows, there = some[self.scan], {name for columns in headers(scans) for name in columns}
        counts = np.diff(self.starts)[some]
        return CohortValues(
            list(compress(self.scans, some)),
            {name: place for name, place in self.columns.items() if name in there},
            self.numbers[rows],
            np.concatenate([[0], np.cumsum(counts)]),
            self.kind[rows],
            self.kinds,
            self.kept[rows],
        )

    @cached_property
    def scan(self) -> np.ndarray:
        """(n_rows,) place of the scan of each row."""
        return np.repeat(np.arange(len(self.scans)), np.diff(self.starts))

    def texts(self, what: str) -> np.ndarray:
        """Return name, muscle, side or extent of each row; equal ones are one object."""
        names, codes = self.codes(what)
        found: np.ndarray = np.array(names, dtype=object)[codes]
        return found

    def codes(self, what: str) -> tuple[list[str], np.ndarray]:
        """Return the different texts of :meth:`texts`, and the place of that of each row."""
        place = _WHICH.index(what)
        names = list(dict.fromkeys(kind[place] for kind in self.kinds))
        codes = np.array([names.index(kind[place]) for kind in self.kinds], dtype=int)
        found: np.ndarray = codes[self.kind]
        return names, found


def read_values(scans: Sequence[ScanOutputs], further: Collection[str] = ()) -> CohortValues:
    """Read the measures that statistics, outliers and pages look at.

    Parameters
    ----------
    scans
        All scans of the dataset.
    further
        Columns to read besides.
    """
    present = dict.fromkeys(name for names in headers(scans) for name in names)
    known = {*MAIN_MEASURES, *MEASURES, DICE, *further}
    columns = tuple(name for name in present if name in known or ASYMMETRY in name)
    wanted = {*_WHICH, *columns}
    kinds: dict[tuple[str, ...], int] = {}
    starts = np.cumsum([0, *(len(scan.rows) for scan in scans)])
    numbers = np.full((starts[-1], len(columns)), np.nan)
    kind, kept = np.zeros(starts[-1], dtype=np.int32), np.ones(starts[-1], dtype=bool)
    first = 0
    for header, some in _pieces(scans):
        lines = [line for scan in some for line in lines_of(scan.cohort_rows)]
        table = text_table(lines, header, [n for n in header if n in wanted])
        last = first + len(table)
        which = (
            table[name].fill_null(MISSING).to_pylist() if name in header else repeat(MISSING)
            for name in _WHICH
        )
        kind[first:last] = [
            kinds.setdefault(each, len(kinds)) for each in zip(*which, strict=False)
        ]
        for place, name in enumerate(columns):
            if name in header:
                numbers[first:last, place] = _numbers(table[name])
        first = last
    for scan, start in zip(scans, starts[:-1].tolist(), strict=True):
        if scan.kept is not scan.rows:  # most scans exclude nothing: they are not asked by row
            kept[start : start + len(scan.rows)] = [not scan.exclusion(row) for row in scan.rows]
    return CohortValues(
        scans,
        {name: place for place, name in enumerate(columns)},
        numbers,
        starts,
        kind,
        list(kinds),
        kept,
    )


def _pieces(
    scans: Iterable[ScanOutputs],
) -> Iterator[tuple[tuple[str, ...], list[ScanOutputs]]]:
    """Give some scans at a time, all with rows of the same columns, and these."""
    measured = (scan for scan in scans if scan.rows)
    for header, group in groupby(measured, key=lambda scan: scan.columns):
        while some := list(islice(group, _PIECE)):
            yield header, some


def headers(scans: Iterable[ScanOutputs]) -> list[tuple[str, ...]]:
    """Return the different headers of muscle tables, in the order of the scans."""
    return list(dict.fromkeys(scan.columns for scan in scans if scan.rows))


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of text as numbers, NaN where there is none."""
    import pyarrow as pa

    try:
        found = column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # a word among the numbers
        cells = (number(cell) if cell else None for cell in column.to_pylist())
        found = np.array([math.nan if value is None else value for value in cells])
    return np.where(np.isfinite(found), found, math.nan)
