"""When each session took place: ``acq_time`` of scans.tsv, and the rows of sessions.tsv."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

#: By participant and session label, what sessions.tsv and scans.tsv say.
RawVisits = Mapping[str, Mapping[str | None, Mapping[str, str]]]


def read_session_info(bids_dir: Path, participant: str, session: str | None) -> dict[str, str]:
    """Return what sessions.tsv says of a session, and its time.

    Parameters
    ----------
    bids_dir
        The raw dataset.
    participant, session
        Labels without ``sub-`` and ``ses-``; None for scans without a session.

    Returns
    -------
    dict
        The row of ``sub-<label>_sessions.tsv``, whose ``acq_time`` gives way to the earliest one
        of ``sub-<label>[_ses-<label>]_scans.tsv``; empty where neither can be read.
    """
    folder, stem = bids_dir / f'sub-{participant}', f'sub-{participant}'
    info: dict[str, str] = {}
    if session:
        for row in _rows(folder / f'{stem}_sessions.tsv'):
            if row.pop('session_id', '').removeprefix('ses-') == session:
                info = row
                break
        folder, stem = folder / f'ses-{session}', f'{stem}_ses-{session}'
    times = [row.get('acq_time', '') for row in _rows(folder / f'{stem}_scans.tsv')]
    if known := [time for time in times if time[:1].isdigit()]:
        info['acq_time'] = min(known)
    return info


def read_visits(
    bids_dir: Path, sessions: Mapping[str, Iterable[str | None]]
) -> dict[str, dict[str | None, dict[str, str]]]:
    """Return what the raw dataset says of the sessions of each participant that is still there.

    Parameters
    ----------
    bids_dir
        The raw dataset.
    sessions
        Session labels by participant label.
    """
    return {
        participant: {each: read_session_info(bids_dir, participant, each) for each in known}
        for participant, known in sessions.items()
        if (bids_dir / f'sub-{participant}').is_dir()
    }


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Give the rows of a table, as far as it can be read, without what is ``n/a``."""
    try:
        with path.open(encoding='utf-8-sig', newline='') as stream:
            for row in csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE):
                yield {key: text for key, text in row.items() if key and text and text != 'n/a'}
    except (OSError, UnicodeDecodeError, csv.Error):
        return
