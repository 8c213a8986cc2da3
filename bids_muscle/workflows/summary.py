"""How scans ended, in a few lines: the end of a run, and ``bids_muscle-status``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.dataset.names import participant_path
from bids_muscle.errors import Problem
from bids_muscle.tables import name_some
from bids_muscle.workflows.records import is_empty

if TYPE_CHECKING:
    from bids_muscle.dataset.records import ScanRecord


def summary(records: Sequence[ScanRecord], output_dir: Path) -> list[str]:
    """Return how many scans are done, to check and failed, why, and where the pages are.

    Parameters
    ----------
    records
        Of the scans in question.
    output_dir
        The derivatives dataset, in which the pages are.
    """
    lines = [
        _counts([record for record in records if not record.parts]),
        *cause_lines((record.scan, record.problem) for record in records),
    ]
    pages = [
        output_dir / participant_path(participant, 'report')
        for participant in dict.fromkeys(record.participant for record in records)
    ]
    there = [page for page in pages if page.is_file()]
    if there:
        more = len(there) - 1
        lines.append(f'Pages: {there[0]}{f" and {more} more" if more else ""}')
    return lines


def _counts(records: Sequence[ScanRecord]) -> str:
    levels = Counter(record.light for record in records)
    done = sum(not record.problem for record in records)
    empty = sum(is_empty(record) for record in records)
    scans = len(records) - empty
    parts = [f'{done} of {scans} {"scans" if scans != 1 else "scan"} done']
    if levels['check']:
        parts.append(f'{levels["check"]} of them to check')
    if levels['unusable']:
        parts.append(f'{levels["unusable"]} not to be used without correction')
    if done < scans:
        parts.append(f'{scans - done} failed')
    if empty:
        parts.append(f'{empty} {"participants" if empty > 1 else "participant"} without scans')
    return ', '.join(parts)


def cause_lines(scans: Iterable[tuple[str, Problem | None]]) -> list[str]:
    """Return two lines for each kind of problem, the commonest first: which scans, and an example.

    Parameters
    ----------
    scans
        Name of each scan, and its problem if it has one.
    """
    failed: dict[str, list[tuple[str, Problem]]] = {}
    for name, problem in scans:
        if problem:
            failed.setdefault(problem.kind, []).append((name, problem))
    lines = []
    for kind, each in sorted(failed.items(), key=lambda item: -len(item[1])):
        lines.append(f'{len(each):>7} {kind}: {name_some(name for name, _ in each)}')
        lines.append(f'{"":>7} {each[0][1]}')
    return lines
