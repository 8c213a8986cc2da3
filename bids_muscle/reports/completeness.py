"""Which scan of which participant and session is there: done, failed, excluded or missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bids_muscle.reports.outputs import MISSING, ScanOutputs
from bids_muscle.reports.parts import kind_of
from bids_muscle.statistics.sessions import label_key
from bids_muscle.tables import name_some

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ('participant_id', 'session_id', 'kind', 'scan', 'status', 'reason', 'cause')
CAUSE_COLUMNS = ('status', 'cause', 'n_scans', 'n_participants', 'participants', 'example')
STATUSES = ('done', 'failed', 'excluded', 'missing')


def completeness(
    scans: Sequence[ScanOutputs], participants: Iterable[str], unusable: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one row per participant, session and scan that is there or should be.

    Expected of everybody is each kind of scan that anybody has in a session of that name. Parts
    of a joined scan are no scans of their own. A folder that failed as a whole is the reason why
    scans of its session are missing; where none is expected there, it has a row of its own.

    Parameters
    ----------
    scans
        All scans of the dataset.
    participants
        Labels of further participants, as in ``participants.tsv``.
    unusable
        Folders of the raw dataset that look like participants and are none.
    """
    import pandas as pd

    scans = [scan for scan in scans if not scan.part_of]
    expected = sorted(
        {(scan.record.session or '', kind) for scan in scans if (kind := kind_of(scan))}
    )
    there: dict[str, dict[tuple[str, str], list[ScanOutputs]]] = {
        label: {} for label in sorted({*participants, *(s.record.participant for s in scans)})
    }
    nothing: dict[str, dict[str, ScanOutputs]] = {}
    for scan in scans:
        record = scan.record
        if kind := kind_of(scan):
            place = (record.session or '', kind)
            there[record.participant].setdefault(place, []).append(scan)
        elif record.problem:
            nothing.setdefault(record.participant, {})[record.session or ''] = scan
    rows = []
    for label, found in there.items():
        failed = nothing.get(label, {})
        lacking = {session for session, kind in expected if (session, kind) not in found}
        for session, scan in failed.items():
            # The folder of a participant is the reason in all sessions.
            if not (session in lacking if session else lacking):
                found[session, ''] = [scan]
        for session, kind in sorted({*expected, *found}, key=_place) or [('', '')]:
            cells = {
                'participant_id': f'sub-{label}',
                'session_id': f'ses-{session}' if session else MISSING,
                'kind': kind or MISSING,
            }
            members = found.get((session, kind), [])
            rows += [{**cells, 'scan': each.record.scan, **_status(each)} for each in members]
            if not members:
                why = failed.get(session, failed.get(''))
                reason = str(why.record.problem) if why else 'no scan was processed'
                rows.append({**cells, 'scan': MISSING, 'status': 'missing', 'reason': reason})
    rows += [
        {
            'participant_id': name,
            'session_id': f'ses-{session}' if session else MISSING,
            'kind': kind or MISSING,
            'scan': MISSING,
            'status': 'missing',
            'reason': 'the name of the folder is no BIDS label',
        }
        for name in unusable
        for session, kind in expected or [('', '')]
    ]
    for row in rows:
        row['cause'] = cause_of(row['reason'])
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def cause_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cause why scans are failed, excluded or missing, the commonest first.

    Parameters
    ----------
    table
        From :func:`completeness`.
    """
    import pandas as pd

    rows = [
        {
            'status': status,
            'cause': cause,
            'n_scans': len(part),
            'n_participants': part['participant_id'].nunique(),
            'participants': name_some(dict.fromkeys(part['participant_id'])),
            'example': part['reason'].iloc[0],
        }
        for (status, cause), part in table[table['status'] != 'done'].groupby(
            ['status', 'cause'], sort=True
        )
    ]
    rows.sort(key=lambda row: (STATUSES.index(row['status']), -row['n_scans']))
    return pd.DataFrame(rows, columns=list(CAUSE_COLUMNS), dtype=object)


def cause_of(reason: str) -> str:
    """Return a reason without the names and numbers in it, which differ from scan to scan.

    Examples
    --------
    >>> cause_of('2 of 40 slices are empty.'), cause_of('sub-01_acq-dixon_iqm.json is missing.')
    ('… of … slices are empty.', '… is missing.')
    >>> cause_of('/data/sub-01/anat/sub-01_T2w.nii.gz ends early. Copy it again.')
    '… ends early. Copy it again.'
    """
    return re.sub(r'\S*sub-\S+|\d[\d.,]*', '…', reason)


def _place(cell: tuple[str, str]) -> tuple[Any, str]:
    session, kind = cell
    return label_key(session), kind


def _status(scan: ScanOutputs) -> dict[str, str]:
    if not scan.done:
        return {'status': 'failed', 'reason': str(scan.record.problem or MISSING)}
    excluded = scan.exclusion()
    return {'status': 'excluded' if excluded else 'done', 'reason': excluded or MISSING}
