"""When each session took place: ``acq_time`` of scans.tsv, and the rows of sessions.tsv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bids_muscle.anatomy.people import CHANGING, at_session
from bids_muscle.dataset.labelled import read_scans_table, read_sessions
from bids_muscle.dataset.participants import read_definitions, read_participant_info, tidy
from bids_muscle.tables import MISSING, parse_time

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
    return _read(bids_dir, participant)[0].get(session, {})


def read_person(bids_dir: Path, participant: str, session: str | None) -> Mapping[str, str]:
    """Return what is known of a person at a session; see :func:`at_session`.

    Parameters
    ----------
    bids_dir, participant, session
        As for :func:`read_session_info`.
    """
    return at_session(
        read_participant_info(bids_dir, participant),
        read_session_info(bids_dir, participant, session),
    )


def read_visits(bids_dir: Path, participants: Iterable[str]) -> tuple[RawVisits, list[str]]:
    """Return what the raw dataset says of the sessions of each participant that is still there.

    Returns
    -------
    visits
        As :func:`read_session_info`, by participant and session.
    remarks
        Sentences about how the tables were read.
    """
    visits, remarks = {}, []
    for participant in participants:
        if (bids_dir / f'sub-{participant}').is_dir():
            visits[participant], said = _read(bids_dir, participant)
            remarks += said
    return visits, remarks


def _read(bids_dir: Path, participant: str) -> tuple[dict[str | None, dict[str, str]], list[str]]:
    folder = bids_dir / f'sub-{participant}'
    labels = sorted(path.name.removeprefix('ses-') for path in folder.glob('ses-*'))
    table = read_sessions(bids_dir, participant, labels)
    rows = {label: dict(row) for label, row in table.rows.items()}
    stem = f'sub-{participant}_sessions'
    common, own = bids_dir / 'sessions.json', folder / f'{stem}.json'
    definitions = {**read_definitions(common), **read_definitions(own)}
    said = tidy(rows, definitions, 'ses-', CHANGING)
    remarks = [*table.remarks, *(f'{stem}.tsv: {each}' for each in said)]
    by_session: dict[str | None, dict[str, str]] = {}
    for session in (None, *labels):
        info = dict(rows.get(session, {})) if session else {}
        scans = read_scans_table(bids_dir, participant, session)
        remarks += scans.remarks
        texts = [row.get('acq_time', MISSING) for row in scans.rows.values()]
        times = [(time, text) for text in texts if (time := parse_time(text))]
        if times:
            info['acq_time'] = min(times)[1]
        by_session[session] = {name: text for name, text in info.items() if text != MISSING}
    return by_session, remarks
