"""Where a value lies: in norms, or else in the cohort of the group level."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.errors import PARSE_ERRORS
from bids_muscle.reports.norms import Centile, Norms, kept_norms
from bids_muscle.reports.outputs import MISSING, ScanOutputs, number
from bids_muscle.tables import parse_rows

#: In fewer scans a percentile says nothing.
MIN_SCANS = 10

Key = tuple[str, str, str, str, str]


class Cohort:
    """Sorted values of the rows that count, of one region, contrast, muscle, extent and measure.

    Parameters
    ----------
    rows
        Rows of ``group_muscles.tsv``.
    """

    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        values: dict[Key, list[float]] = {}
        for row in rows:
            if row['excluded'] != 'no':
                continue
            for measure in MAIN_MEASURES:
                value = number(row.get(measure) or '')
                if value is not None:
                    extent = row.get('extent', MISSING)
                    key = row['region'], row['contrast'], row['name'], extent, measure
                    values.setdefault(key, []).append(value)
        self._values = {key: sorted(found) for key, found in values.items()}

    def explain(self, scan: ScanOutputs, n: int) -> str:
        """Return what the percentiles of a scan mean, among up to n scans."""
        return (
            f'P is the percentile within the cohort (same region and contrast, up to {n} scans, '
            'from the last group_muscles.tsv): P90 exceeds 90 % of them. Sex and age are not '
            'taken into account.'
        )

    def centile(self, scan: ScanOutputs, row: Mapping[str, str], measure: str) -> Centile | None:
        """Return where a value of a scan lies, or None where that is not known."""
        value = number(row.get(measure) or '')
        if value is None:
            return None
        where = scan.record.region or MISSING, scan.contrast, row['name']
        found = self.percentile((*where, row.get('extent', MISSING), measure), value)
        return Centile(found[0], None, None, found[1]) if found else None

    def percentile(self, key: Key, value: float) -> tuple[int, int] | None:
        """Return the mid-rank percentile of a value and the number of scans it is compared with.

        None among fewer than ``MIN_SCANS``.

        Examples
        --------
        >>> row = {'excluded': 'no', 'region': 'lumbar', 'contrast': 'T2w', 'name': 'left psoas'}
        >>> cohort = Cohort({**row, 'volume_ml': str(k)} for k in range(20))
        >>> cohort.percentile(('lumbar', 'T2w', 'left psoas', 'n/a', 'volume_ml'), 4.0)
        (22, 20)
        """
        values = self._values.get(key, [])
        if len(values) < MIN_SCANS:
            return None
        middle = (bisect_left(values, value) + bisect_right(values, value)) / 2
        return int(100 * middle / len(values)), len(values)


def read_reference(output_dir: Path) -> Norms | Cohort | None:
    """Return the norms that the group level used, else its cohort, or None if it has not run."""
    return kept_norms(output_dir) or _read_cohort(output_dir)


def _read_cohort(output_dir: Path) -> Cohort | None:
    """Read the table of the group level, or return None where it has not run."""
    path = output_dir / dataset_path('group_muscles')
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, KeyError, *PARSE_ERRORS):
        return None


@lru_cache(maxsize=1)
def _read(path: Path, changed_ns: int) -> Cohort:
    """Read it once for all participants of a run."""
    with path.open(encoding='utf-8', newline='') as stream:
        return Cohort(parse_rows(stream))
