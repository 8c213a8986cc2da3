"""Whether a scan and a participant's results can be used: ok, check, unusable or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bids_muscle.anatomy.labels import MUSCLE
from bids_muscle.reports.outputs import ScanOutputs, number
from bids_muscle.reports.page import main_measures
from bids_muscle.reports.rows import cells_of


@dataclass(frozen=True)
class Light:
    """A traffic light: ``level`` is ok, check, unusable or failed."""

    level: str
    word: str
    reason: str


def scan_light(scan: ScanOutputs) -> Light:
    """Return whether a scan can be used as it is."""
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
    main = main_measures(scan.rows)
    # Fat by thresholds is known of muscles alone.
    others = {label.name for label in scan.table or () if label.kind != MUSCLE}
    muscles = (
        [cells for name, *cells in cells_of(scan.rows, ('name', *main)) if name not in others]
        if main
        else []
    )
    unknown = sum(any(number(cell) is None for cell in cells) for cells in muscles)
    reasons = []
    if scan.notes:
        reasons.append(_plural(len(scan.notes), 'warning'))
    if unknown:
        reasons.append(f'{unknown} of {_plural(len(muscles), "muscle")} with values n/a')
    if reasons:
        return Light('check', 'Check', ', '.join(reasons))
    return Light('ok', 'Complete', 'No warnings, no value missing')


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
