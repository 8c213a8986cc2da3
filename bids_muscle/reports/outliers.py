"""Values that lie far from those of the other scans: of muscles, of asymmetry, of the image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.reports.cohort import session_name
from bids_muscle.reports.cohort_values import CohortValues, headers
from bids_muscle.reports.outputs import ASYMMETRY, MISSING, ScanOutputs

if TYPE_CHECKING:
    import pandas as pd

#: A robust z beyond which a value is listed (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5
#: Fewer values than this have no outlier.
LEAST_VALUES = 5
COLUMNS = (
    'participant_id', 'session_id', 'scan', 'region', 'contrast', 'kind', 'name', 'measure',
    'value', 'robust_z',
)  # fmt: skip


#: Names, and of each value the place of its name, that of its scan, and itself.
_Named = tuple[Sequence[str], np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Outlier:
    """A value and its distance from those of the same muscle, side and contrast.

    Parameters
    ----------
    participant, scan
        Where.
    name
        Muscle and side, muscle (asymmetry), or empty (image quality).
    column
        Measure.
    value, robust_z
        The value and its distance.
    """

    participant: str
    scan: str
    name: str
    column: str
    value: float
    robust_z: float


@dataclass(frozen=True)
class RobustScores:
    """How far values lie from those of the same muscle, side and contrast.

    Parameters
    ----------
    outliers
        Values with a robust z beyond :data:`OUTLIER_Z`, the farthest first.
    farthest
        (n_scans,) largest absolute robust z of each scan, by column; NaN where it has none.
    """

    outliers: tuple[Outlier, ...]
    farthest: Mapping[str, np.ndarray]

    def among(self, columns: Collection[str]) -> list[Outlier]:
        """Return the outliers of these columns."""
        return [outlier for outlier in self.outliers if outlier.column in columns]


def robust_scores(values: CohortValues, columns: Sequence[str]) -> RobustScores:
    """Compute how far each value lies from those of the same muscle, side and contrast.

    The robust z is 0.6745 (value - median) / MAD, with MAD the median absolute deviation from the
    median [1]_, over the scans of one region and contrast, for each muscle and side. Muscles with
    fewer than five values, or of which more than half are equal, have no scores.

    References
    ----------
    .. [1] Iglewicz B, Hoaglin DC. How to detect and handle outliers. ASQC Quality Press, 1993.
    """
    scans = values.scans
    series: dict[tuple[str, str], int] = {}
    alike = np.array(
        [
            series.setdefault((str(scan.record.region), scan.contrast), len(series))
            for scan in scans
        ],
        dtype=int,
    )
    counted = [place for place, scan in enumerate(scans) if not scan.exclusion()]
    outliers: list[Outlier] = []
    farthest: dict[str, np.ndarray] = {}
    for column in columns:
        farthest[column] = np.full(len(scans), np.nan)
        for names, which, at, numbers in (
            _muscles(values, column),
            _quality(scans, counted, column),
        ):
            for members in _groups(alike[at], which):
                distance = numbers[members] - np.median(numbers[members])
                mad = np.median(np.abs(distance))
                if len(members) < LEAST_VALUES or mad == 0:
                    continue
                z = 0.6745 * distance / mad
                np.fmax.at(farthest[column], at[members], np.abs(z))
                for place in np.flatnonzero(np.abs(z) > OUTLIER_Z):
                    row = members[place]
                    record = scans[at[row]].record
                    where = record.participant, record.scan, names[which[row]], column
                    outliers.append(Outlier(*where, float(numbers[row]), float(z[place])))
    outliers.sort(key=lambda o: (-abs(o.robust_z), o.scan, o.name, o.column))
    return RobustScores(tuple(outliers), farthest)


def _groups(alike: np.ndarray, names: np.ndarray) -> Iterator[np.ndarray]:
    """Give the places of values that are compared: those alike, of one name."""
    codes = names + alike * (names.max(initial=0) + 1)
    order = np.argsort(codes, kind='stable')
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    if len(order):
        yield from np.split(order, ends)


def _muscles(values: CohortValues, column: str) -> _Named:
    """Return names, and name, place of the scan and number of the muscles that have a number."""
    if column not in values.columns:
        return [], np.empty(0, int), np.empty(0, int), np.empty(0)
    counted = values.kept & np.isfinite(values.of(column))
    if ASYMMETRY in column:
        counted &= values.texts('side') == 'left'
    names, which = values.codes('muscle' if ASYMMETRY in column else 'name')
    return names, which[counted], values.scan[counted], values.of(column)[counted]


def _quality(scans: Sequence[ScanOutputs], counted: Sequence[int], column: str) -> _Named:
    """Return the same of a figure of image quality, which has no name, of scans that count."""
    at = [k for k in counted if column in scans[k].quality]
    numbers = np.array([scans[k].quality[column] for k in at], dtype=float)
    return [''], np.zeros(len(at), int), np.array(at, dtype=int), numbers


def outlier_columns(scans: Sequence[ScanOutputs], measures: Sequence[str]) -> list[str]:
    """Return these measures and all asymmetries and figures of image quality."""
    asymmetries = (name for columns in headers(scans) for name in columns if ASYMMETRY in name)
    quality = (name for scan in scans for name in scan.quality)
    return list(dict.fromkeys([*measures, *asymmetries, *quality]))


def outlier_table(scans: Sequence[ScanOutputs], outliers: Sequence[Outlier]) -> pd.DataFrame:
    """Return outliers as a table.

    Parameters
    ----------
    scans
        All scans of the dataset.
    outliers
        In the order of the rows.
    """
    import pandas as pd

    by_name = {scan.record.scan: scan for scan in scans}
    rows = []
    for outlier in outliers:
        scan = by_name[outlier.scan]
        kind = 'image quality' if not outlier.name else 'muscle'
        rows.append(
            {
                'participant_id': f'sub-{outlier.participant}',
                'session_id': session_name(scan.record),
                'scan': outlier.scan,
                'region': scan.record.region or MISSING,
                'contrast': scan.contrast,
                'kind': 'asymmetry' if ASYMMETRY in outlier.column else kind,
                'name': outlier.name or MISSING,
                'measure': outlier.column,
                'value': outlier.value,
                'robust_z': outlier.robust_z,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
