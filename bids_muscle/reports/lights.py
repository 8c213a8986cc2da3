"""Whether a scan and a participant's results can be used: ok, check, unusable or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.anatomy.labels import MUSCLE, LabelTable
from bids_muscle.reports.outputs import ScanOutputs, number
from bids_muscle.reports.page import main_measures
from bids_muscle.reports.rows import cells_of

if TYPE_CHECKING:
    from bids_muscle.reports.cohort_values import CohortValues


@dataclass(frozen=True)
class Light:
    """A traffic light: ``level`` is ok, check, unusable or failed."""

    level: str
    word: str
    reason: str


def scan_light(scan: ScanOutputs, counts: tuple[int, int] | None = None) -> Light:
    """Return whether a scan can be used as it is.

    Parameters
    ----------
    scan
        The scan.
    counts
        How many muscles it has, and of how many a main measure is n/a, where that is known.
    """
    if not scan.done:
        problem = scan.record.problem
        return Light('failed', 'Failed', problem.message if problem else 'No reason was recorded.')
    if scan.unusable:
        few = ', '.join(scan.unusable)
        if len(scan.unusable) > 3:
            few = f'{len(scan.unusable)} of {len(scan.rows)} muscles'
        return Light(
            'unusable',
            'Do not use without correction',
            f'The outlines of {few} are likely to be wrong: they do not count in the cohort until '
            'a person corrects the map or passes the scan',
        )
    muscles, unknown = counts or _counts(scan)
    reasons = []
    if scan.notes:
        reasons.append(_plural(len(scan.notes), 'warning'))
    if unknown:
        reasons.append(f'{unknown} of {_plural(muscles, "muscle")} with values n/a')
    if reasons:
        return Light('check', 'Check', ', '.join(reasons))
    return Light('ok', 'Complete', 'No warnings, no value missing')


def scan_lights(values: CohortValues) -> list[Light]:
    """Return :func:`scan_light` of all scans of a cohort, of which no cell is read again."""
    of_table = {id(scan.table): _no_muscles(scan.table) for scan in values.scans}
    alike: dict[tuple[tuple[str, ...], frozenset[str]], list[int]] = {}
    for place, scan in enumerate(values.scans):
        alike.setdefault((main_measures(scan.rows), of_table[id(scan.table)]), []).append(place)
    counts = np.zeros((2, len(values.scans)), dtype=int)
    for (main, others), places in alike.items():
        among = np.zeros(len(values.scans), dtype=bool)
        among[places] = bool(main)
        is_muscle = np.array([name not in others for name, *_ in values.kinds], dtype=bool)
        rows = np.flatnonzero(among[values.scan] & is_muscle[values.kind])
        is_unknown = np.zeros(len(rows), dtype=bool)
        for name in main:
            is_unknown |= np.isnan(values.of(name)[rows])
        for which, count in zip((rows, rows[is_unknown]), counts, strict=True):
            count += np.bincount(values.scan[which], minlength=len(count))
    pairs = zip(*counts.tolist(), strict=True)
    return [scan_light(scan, pair) for scan, pair in zip(values.scans, pairs, strict=True)]


def _counts(scan: ScanOutputs) -> tuple[int, int]:
    """Return how many muscles a scan has, and of how many a main measure is n/a."""
    if not (main := main_measures(scan.rows)):
        return 0, 0
    others = _no_muscles(scan.table)
    cells = [each for name, *each in cells_of(scan.rows, ('name', *main)) if name not in others]
    return len(cells), sum(any(number(cell) is None for cell in each) for each in cells)


def _no_muscles(table: LabelTable | None) -> frozenset[str]:
    """Return the labels that are no muscles: fat by thresholds is known of muscles alone."""
    return frozenset(label.name for label in table or () if label.kind != MUSCLE)


def participant_light(scans: Sequence[ScanOutputs]) -> Light:
    """Return whether a participant's results can be used as they are.

    Examples
    --------
    >>> participant_light([]).reason
    'No scan was found or processed.'
    """
    if not scans:
        return Light('failed', 'No result', 'No scan was found or processed.')
    lights = [scan_light(scan) for scan in scans]
    if len(lights) == 1:
        return lights[0]
    failed = sum(light.level == 'failed' for light in lights)
    unusable = sum(light.level == 'unusable' for light in lights)
    check = sum(light.level == 'check' for light in lights)
    if failed == len(lights):
        return Light('failed', 'Failed', f'All {failed} scans failed')
    if failed or unusable or check:
        counts = {'failed': failed, 'not to be used without correction': unusable}
        counts['to check'] = check
        said = ', '.join(f'{count} {what}' for what, count in counts.items() if count)
        level, word = ('unusable', 'Do not use all') if unusable else ('check', 'Check')
        return Light(level, word, f'Of {len(lights)} scans: {said}')
    return Light('ok', 'Complete', f'{len(lights)} scans, no warnings, no value missing')


def _plural(count: int, noun: str) -> str:
    return f'{count} {noun}' if count == 1 else f'{count} {noun}s'
