"""A list of what does not count in a cohort: participants, scans or muscles, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bids_muscle.errors import BadDataError
from bids_muscle.reports.outputs import ScanOutputs
from bids_muscle.tables import MISSING
from bids_muscle.user_tables import fit_labels, read_table

COLUMNS = ('participant_id', 'session_id', 'scan', 'muscle', 'reason')
_UNSAID = 'excluded by the list'


@dataclass(frozen=True)
class Exclusion:
    """One row of the list; an empty field means all of them.

    Parameters
    ----------
    participant, session
        Labels without ``sub-`` and ``ses-``.
    scan
        Name of the scan.
    muscle
        Name with its side, such as ``'left psoas major'``, or without.
    reason
        Why.
    place
        File and row, for messages.
    """

    participant: str
    session: str
    scan: str
    muscle: str
    reason: str
    place: str

    def fits(self, scan: ScanOutputs) -> bool:
        """Whether it speaks of a scan, or of a muscle in it."""
        record = scan.record
        return (
            self.participant == record.participant
            and self.session in ('', record.session)
            and self.scan in ('', record.scan)
        )


def read_exclusions(path: Path) -> list[Exclusion]:
    """Read a list of exclusions.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    BadDataError
        If it is no TSV with a column ``participant_id``, or a column is unknown.
    """
    try:
        table = read_table(path)
    except BadDataError as error:
        raise _not_a_list(path) from error
    if table.rows and ('participant_id' not in table.columns or set(table.columns) - set(COLUMNS)):
        raise _not_a_list(path)
    if table.left_out:  # what is not understood must not count after all
        raise BadDataError(f'{path}: {" ".join(table.left_out)}', 'Correct the list.')
    exclusions = []
    for number, row in enumerate(table.rows, 1):
        cells = {name: row.get(name, MISSING) for name in COLUMNS}
        cells = {name: '' if text == MISSING else text for name, text in cells.items()}
        source = f'{path}, row {number}'
        if not cells['participant_id']:
            raise BadDataError(f'{source} names no participant.', 'Write a participant_id there.')
        exclusions.append(
            Exclusion(
                cells['participant_id'].removeprefix('sub-'),
                cells['session_id'].removeprefix('ses-'),
                cells['scan'],
                cells['muscle'],
                cells['reason'] or _UNSAID,
                source,
            )
        )
    return exclusions


def apply_exclusions(
    exclusions: Sequence[Exclusion], scans: Sequence[ScanOutputs]
) -> tuple[list[ScanOutputs], list[str]]:
    """Mark what the list excludes.

    Returns
    -------
    scans : list of ScanOutputs
        Each with what is excluded of it.
    notes : list of str
        Rows of the list that speak of nothing in the dataset, and ids that were understood.

    Raises
    ------
    BadDataError
        If a muscle is not in the tables of the scans it is excluded from.
    """
    labels = {scan.record.participant for scan in scans}
    fitting = fit_labels({rule.participant for rule in exclusions}, 'sub-', labels)
    notes = [
        f'{rule.place}: {rule.participant} is read as sub-{fitting[rule.participant]}.'
        for rule in exclusions
        if fitting.get(rule.participant, rule.participant) != rule.participant
    ]
    exclusions = [
        replace(rule, participant=fitting.get(rule.participant, rule.participant))
        for rule in exclusions
    ]
    by_participant: dict[str, list[Exclusion]] = {}
    for exclusion in exclusions:
        by_participant.setdefault(exclusion.participant, []).append(exclusion)
    used: set[Exclusion] = set()
    marked = []
    for scan in scans:
        reasons: dict[str, str] = {}
        for exclusion in by_participant.get(scan.record.participant, ()):
            if exclusion.fits(scan):
                used.add(exclusion)
                for name in _names(exclusion, scan):
                    known = reasons.get(name)
                    reasons[name] = f'{known}; {exclusion.reason}' if known else exclusion.reason
        marked.append(replace(scan, excluded=reasons) if reasons else scan)
    notes += [
        f'{rule.place} excludes sub-{rule.participant}, of whom there is no such scan.'
        for rule in exclusions
        if rule not in used
    ]
    return marked, notes


def _names(exclusion: Exclusion, scan: ScanOutputs) -> list[str]:
    """Return the names of the muscles excluded, or '' for the whole scan."""
    if not exclusion.muscle:
        return ['']
    wanted = exclusion.muscle
    names = [row['name'] for row in scan.rows if wanted in (row['name'], row['muscle'])]
    if scan.rows and not names:
        muscles = ', '.join(row['name'] for row in scan.rows)
        raise BadDataError(
            f'{exclusion.place}: {wanted!r} is not a muscle of {scan.record.scan}.',
            f'Use names of its table: {muscles}.',
        )
    return names


def _not_a_list(path: Path) -> BadDataError:
    return BadDataError(
        f'{path} is not a list of exclusions.',
        f'Give a TSV with participant_id and, if you like, {", ".join(COLUMNS[1:])}.',
    )
