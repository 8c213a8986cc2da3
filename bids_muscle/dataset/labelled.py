"""Tables with a row per participant, session or scan, whoever wrote them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bids_muscle.errors import BidsMuscleError
from bids_muscle.tables import MISSING, name_some
from bids_muscle.user_tables import Table, fit_labels, read_table

#: Names of the column that says whom a row is about, without case, blanks and dashes.
_ALIASES = {
    'participant_id': ('participantid', 'participant', 'subjectid', 'subject', 'sub', 'id'),
    'session_id': ('sessionid', 'session', 'sesid', 'ses'),
    'filename': ('filename', 'file', 'scan'),
}
_NOUNS = {'sub-': 'participant', 'ses-': 'session'}


@dataclass(frozen=True)
class Labelled:
    """Rows by label, and what has to be said about them.

    Parameters
    ----------
    rows
        Cells by column for each label, without the column of the label; ``'n/a'`` for what is
        missing. Rows that fit no label of the dataset have their own.
    remarks
        Sentences about how the table was read and what was left out.
    """

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read_sessions(
    bids_dir: Path, participant: str, sessions: Collection[str] | None = None
) -> Labelled:
    """Read the ``sessions.tsv`` of a participant, by session label without ``ses-``.

    Parameters
    ----------
    bids_dir
        The dataset.
    participant
        Label without ``sub-``.
    sessions
        Labels of its sessions; None to take all labels as they are.
    """
    path = bids_dir / f'sub-{participant}' / f'sub-{participant}_sessions.tsv'
    return read_labelled(path, 'session_id', 'ses-', sessions)


def read_scans_table(bids_dir: Path, participant: str, session: str | None = None) -> Labelled:
    """Read the ``scans.tsv`` of a participant or session, by file name without its extension."""
    names = [f'sub-{participant}', *([f'ses-{session}'] if session else [])]
    path = bids_dir.joinpath(*names, f'{"_".join(names)}_scans.tsv')
    table = read_labelled(path, 'filename', '')
    rows = {
        PurePosixPath(name.replace('\\', '/')).name.partition('.')[0]: row
        for name, row in table.rows.items()
    }
    return Labelled(rows, table.remarks)


def read_labelled(
    path: Path,
    column: str,
    prefix: str,
    labels: Collection[str] | None = None,
    is_of_use: Callable[[str], bool] | None = None,
) -> Labelled:
    """Read a table by the labels in one of its columns; empty where there is no file.

    A row fits a label that is written as in the dataset, with or without prefix. It fits as well
    where only case, zeros before numbers, blanks and dashes differ, and no other row or label
    differs as little. Rows of one label are joined; where they contradict each other, the cell is
    missing.

    Parameters
    ----------
    path
        The table.
    column, prefix
        Such as ``'participant_id'`` and ``'sub-'``.
    labels
        Those of the dataset, without prefix; None to take all labels as they are.
    is_of_use
        For a table with very many columns: whether a column is needed.
    """

    def is_wanted(name: str) -> bool:
        return _plain(name) in _ALIASES[column] or (is_of_use is not None and is_of_use(name))

    try:
        table = read_table(path, is_wanted if is_of_use else None)
    except BidsMuscleError as error:
        is_there = path.exists() or path.is_symlink()
        return Labelled({}, (f'{error} It is not used.',) if is_there else ())
    remarks = table.remarks(path.name)
    key = _find_column(table, column)
    if key is None:
        why = f'has no column {column}' if table.columns else 'is empty'
        return Labelled({}, (*remarks, f'{path.name} {why} and is not used.'))
    if key != column:
        remarks.append(f'{path.name}: the column {key!r} is read as {column}.')
    by_name: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in table.rows:
        if row[key].removeprefix(prefix) not in ('', MISSING):
            by_name[row[key]].append({name: row[name] for name in table.columns if name != key})
    fitting = fit_labels(by_name, prefix, labels)
    changed = [
        f'{name!r} as {prefix}{label}'
        for name, label in fitting.items()
        if name.removeprefix(prefix) != label
    ]
    if changed:
        remarks.append(f'{path.name} is read with {name_some(changed)}.')
    by_label: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for name, label in fitting.items():
        by_label[label] += by_name[name]
    rows, doubled = {}, []
    for label, own in by_label.items():
        rows[label], differing = _join(own)
        if differing:
            doubled.append(f'{prefix}{label} (in {name_some(differing)})')
    if doubled:
        remarks.append(
            f'{path.name} has rows that contradict each other for {name_some(doubled)}. What '
            'differs is left out. Keep one row for each.'
        )
    unfit = [name for name in by_name if name not in fitting]
    if labels is not None:
        remarks += _unmatched(path.name, prefix, unfit, sorted(set(labels) - set(rows)))
    for name in unfit:
        label = re.sub(f'^{prefix}', '', name, flags=re.IGNORECASE)
        rows.setdefault(label, _join(by_name[name])[0])
    return Labelled(rows, tuple(remarks))


def _find_column(table: Table, column: str) -> str | None:
    """Return the column of the labels as the table calls it."""
    if column in table.columns:
        return column
    plain = {_plain(name): name for name in reversed(table.columns)}
    return next((plain[alias] for alias in _ALIASES[column] if alias in plain), None)


def _plain(name: str) -> str:
    return re.sub(r'[\W_]', '', name).lower()


def _join(rows: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], list[str]]:
    """Join rows of one label; return the columns in which they contradict each other too."""
    if len(rows) == 1:
        return rows[0], []
    joined, differing = {}, []
    for name in rows[0]:
        cells = {row[name] for row in rows} - {MISSING}
        joined[name] = cells.pop() if len(cells) == 1 else MISSING
        differing += [name] if cells else []
    return joined, differing


def _unmatched(
    file: str, prefix: str, names: Sequence[str], labels: Sequence[str]
) -> Iterable[str]:
    """Return which rows fit no label, and which labels have no row."""
    noun = _NOUNS[prefix]
    if names:
        rows = f'{len(names)} rows of {file} fit' if len(names) > 1 else f'1 row of {file} fits'
        yield f'{rows} no {noun} of the dataset: {name_some(names)}.'
    if labels:
        have = f'{len(labels)} {noun}s have' if len(labels) > 1 else f'1 {noun} has'
        yield f'{have} no row in {file}: {name_some(f"{prefix}{label}" for label in labels)}.'
