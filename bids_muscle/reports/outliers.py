"""Values that lie far from those of the other scans: of muscles, of asymmetry, of the image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_muscle.reports.outputs import MISSING, ScanOutputs, number

if TYPE_CHECKING:
    import pandas as pd

#: A robust z beyond which a value is listed (Iglewicz and Hoaglin 1993).
OUTLIER_Z = 3.5
#: Fewer values than this have no outlier.
LEAST_VALUES = 5
#: What is in the name of a column that compares left with right; both sides have the same value.
ASYMMETRY = '_asymmetry_'
COLUMNS = (
    'participant_id', 'session_id', 'scan', 'region', 'contrast', 'kind', 'name', 'measure',
    'value', 'robust_z',
)  # fmt: skip


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
        The largest absolute robust z of a column in a scan, by scan and column.
    """

    outliers: tuple[Outlier, ...]
    farthest: Mapping[tuple[str, str], float]

    def among(self, columns: Collection[str]) -> list[Outlier]:
        """Return the outliers of these columns."""
        return [outlier for outlier in self.outliers if outlier.column in columns]


def robust_scores(scans: Sequence[ScanOutputs], columns: Sequence[str]) -> RobustScores:
    """Compute how far each value lies from those of the same muscle, side and contrast.

    The robust z is 0.6745 (value - median) / MAD, with MAD the median absolute deviation from the
    median [1]_, over the scans of one region and contrast, for each muscle and side. Muscles with
    fewer than five values, or of which more than half are equal, have no scores.

    References
    ----------
    .. [1] Iglewicz B, Hoaglin DC. How to detect and handle outliers. ASQC Quality Press, 1993.
    """
    import numpy as np

    groups: dict[tuple[str, ...], list[tuple[ScanOutputs, float]]] = {}
    for scan in scans:
        alike = str(scan.record.region), scan.contrast
        for name, column, value in _values(scan, columns):
            groups.setdefault((*alike, name, column), []).append((scan, value))
    outliers: list[Outlier] = []
    farthest: dict[tuple[str, str], float] = {}
    for (_, _, name, column), members in groups.items():
        values = np.array([value for _, value in members])
        distance = values - np.median(values)
        mad = np.median(np.abs(distance))
        if len(members) < LEAST_VALUES or mad == 0:
            continue
        for (scan, value), z in zip(members, (0.6745 * distance / mad).tolist(), strict=True):
            record = scan.record
            key = record.scan, column
            farthest[key] = max(farthest.get(key, 0.0), abs(z))
            if abs(z) > OUTLIER_Z:
                outliers.append(Outlier(record.participant, record.scan, name, column, value, z))
    outliers.sort(key=lambda o: (-abs(o.robust_z), o.scan, o.name, o.column))
    return RobustScores(tuple(outliers), farthest)


def outlier_columns(scans: Sequence[ScanOutputs], measures: Sequence[str]) -> list[str]:
    """Return these measures and all asymmetries and figures of image quality."""
    asymmetries = (name for scan in scans for name in scan.measures if ASYMMETRY in name)
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
    for each in outliers:
        scan = by_name[each.scan]
        kind = 'image quality' if not each.name else 'muscle'
        rows.append(
            {
                'participant_id': f'sub-{each.participant}',
                'session_id': f'ses-{scan.record.session}' if scan.record.session else MISSING,
                'scan': each.scan,
                'region': scan.record.region or MISSING,
                'contrast': scan.contrast,
                'kind': 'asymmetry' if ASYMMETRY in each.column else kind,
                'name': each.name or MISSING,
                'measure': each.column,
                'value': each.value,
                'robust_z': each.robust_z,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def _values(scan: ScanOutputs, columns: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Give name, column and value of all that a scan has."""
    for row in scan.kept:
        for column in columns:
            value = number(row.get(column, MISSING))
            if value is None or (ASYMMETRY in column and row['side'] != 'left'):
                continue
            yield row['muscle'] if ASYMMETRY in column else row['name'], column, value
    if not scan.exclusion():
        for column in columns:
            if column in scan.quality:
                yield '', column, scan.quality[column]
