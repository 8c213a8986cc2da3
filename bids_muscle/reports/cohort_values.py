"""The numbers of all muscles of a cohort by column, since a cohort of objects fills the memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np

from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.reports.rows import cells_of
from bids_muscle.statistics.cohort import MEASURES
from bids_muscle.tables import MISSING, number

#: What is in the name of a column that compares left with right; both sides have the same value.
ASYMMETRY = '_asymmetry_'
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
    wanted = {*MAIN_MEASURES, *MEASURES, DICE, *further}
    columns = tuple(name for name in present if name in wanted or ASYMMETRY in name)
    kinds: dict[tuple[str, ...], int] = {}
    numbers, kind, kept, starts = array('d'), array('i'), array('b'), [0]
    for scan in scans:
        # Most scans exclude nothing, and need not be asked row by row.
        whole = scan.kept is scan.rows
        for cells in cells_of(scan.rows, (*_WHICH, *columns)) if scan.rows else ():
            kind.append(kinds.setdefault(cells[:4], len(kinds)))
            numbers.extend(map(_number, cells[4:]))
        starts.append(len(kind))
        kept.extend(
            [True] * len(scan.rows) if whole else [not scan.exclusion(r) for r in scan.rows]
        )
    return CohortValues(
        scans,
        {name: place for place, name in enumerate(columns)},
        np.array(numbers).reshape(len(kind), len(columns)),
        np.array(starts),
        np.array(kind, dtype=np.int32),
        list(kinds),
        np.array(kept, dtype=bool),
    )


def headers(scans: Iterable[ScanOutputs]) -> list[tuple[str, ...]]:
    """Return the different headers of muscle tables, in the order of the scans."""
    return list(dict.fromkeys(scan.columns for scan in scans if scan.rows))


def _number(cell: str) -> float:
    if cell == MISSING:
        return math.nan
    value = number(cell)
    return math.nan if value is None else value
