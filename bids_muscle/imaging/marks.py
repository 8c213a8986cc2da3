"""Vertebral levels of axial slices that a person marked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bids_muscle.anatomy.levels import VERTEBRAE, SliceLevels, level_of, levels_shown
from bids_muscle.errors import BadDataError
from bids_muscle.tables import MISSING, name_some
from bids_muscle.user_tables import read_table


def read_marks(
    path: Path, participant: str, session: str | None, region: str = ''
) -> list[Mapping[str, str]]:
    """Return the rows of a participant and session in a table of levels.

    Parameters
    ----------
    path
        TSV with the columns ``participant_id``, ``level`` and ``slice`` or ``z_mm``;
        ``session_id`` where there are sessions.
    participant, session
        Labels without ``sub-`` and ``ses-``.
    region
        Of the scan; marks of levels that it cannot show are of another scan and left out.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    BadDataError
        If a column is missing, or a row of the participant has no known level or no place.
    """
    table = read_table(path)
    columns = set(table.columns)
    if table.left_out:  # a mark that is lost moves the levels of its neighbours
        raise BadDataError(f'{path}: {" ".join(table.left_out)}', 'Correct --levels.')
    if not {'participant_id', 'level'} <= columns or not columns & {'slice', 'z_mm'}:
        raise BadDataError(
            f'A column is missing in the table of levels {path}.',
            'Give participant_id, level, and slice or z_mm, separated by tabs.',
        )
    own: list[Mapping[str, str]] = [
        row
        for row in table.rows
        if row['participant_id'].removeprefix('sub-') == participant
        and row.get('session_id', MISSING).removeprefix('ses-') in ('n/a', session)
    ]
    for row in own:
        try:
            float(row['slice'] if _given(row, 'slice') else row['z_mm'])
            level = level_of(row['level'])
        except (KeyError, TypeError, ValueError, AttributeError):
            level = None
        if level is None:
            raise BadDataError(
                f'A row of sub-{participant} in the table of levels {path} is invalid: '
                f'{dict(row)}.',
                'Give a level such as L4, and a slice number or a height z_mm.',
            )
    return [row for row in own if level_of(row['level']) in levels_shown(region)]


def _given(row: Mapping[str, str], column: str) -> bool:
    return (row.get(column) or 'n/a') != 'n/a'


def levels_from_marks(
    marks: Sequence[Mapping[str, str]],
    affine: np.ndarray,
    n_slices: int,
    table: str = 'the table of levels',
) -> SliceLevels:
    """Return the levels of the slices from those that a person marked.

    A slice between marks of one level or of neighbouring levels has that of the nearer one. Other
    slices without a mark have none, for nobody said where the marked levels end.

    Parameters
    ----------
    marks
        From :func:`read_marks`: ``slice`` counts from 0 at the inferior end, ``z_mm`` is the RAS+
        height of the middle of a slice.
    affine
        (4, 4) of the scan in canonical voxel order, from
        :func:`~bids_muscle.imaging.levels.through_middle`.
    n_slices
        Along its third axis. Marks outside it, of another scan say, do not count.
    table
        What an error calls the place where the marks are.

    Raises
    ------
    BadDataError
        If a mark is of a higher level than one above it, or a place has two levels.

    Examples
    --------
    >>> marks = [{'slice': '1', 'level': 'L5'}, {'slice': '3', 'level': 'L4'}]
    >>> levels_from_marks(marks, np.eye(4), 5).names
    (None, 'L5', 'L5', 'L4', None)
    """
    places = _places(marks, affine, n_slices)
    for (low, lower), (high, upper) in itertools.pairwise(places):
        if _order(lower) < _order(upper) or (low == high and lower != upper):
            raise BadDataError(
                f'The levels in {table} contradict each other: {lower} is marked at slice '
                f'{low:.4g}, and {upper} at slice {high:.4g}. Slice 0 is the lowest.',
                'Correct --levels: count slices from 0 at the inferior end, or give z_mm.',
            )
    names: list[str | None] = [None] * n_slices
    for k in range(n_slices) if places else ():
        below = [pair for pair in places if pair[0] <= k + 0.5]
        above = [pair for pair in places if pair[0] >= k - 0.5]
        if below and above and _order(below[-1][1]) - _order(above[0][1]) <= 1:
            names[k] = min(places, key=lambda pair: abs(pair[0] - k))[1]
    confidence = np.array([float(name is not None) for name in names])
    return SliceLevels(tuple(names), confidence, 'file')


def mark_doubts(marks: Sequence[Mapping[str, str]], levels: SliceLevels) -> list[str]:
    """Return what a person has to know about the marks of a scan, as sentences.

    Parameters
    ----------
    marks
        From :func:`read_marks`, with the region of the scan.
    levels
        From :func:`levels_from_marks`.

    Examples
    --------
    >>> marks = [{'slice': '1', 'level': 'L5'}, {'slice': '3', 'level': 'L3'}]
    >>> mark_doubts(marks, levels_from_marks(marks, np.eye(4), 5))
    ['No slice is marked as L4 in --levels. The slices between the marks beside it have no level.']
    """
    named = [_order(name) for name in levels.names if name]
    if not named:
        return ['No mark in --levels lies within this scan.'] if marks else []
    missing = [name for name in VERTEBRAE[min(named) : max(named)] if name not in levels.names]
    if not missing:
        return []
    return [
        f'No slice is marked as {name_some(missing)} in --levels. The slices between the marks '
        'beside it have no level.'
    ]


def _places(
    marks: Sequence[Mapping[str, str]], affine: np.ndarray, n_slices: int
) -> list[tuple[float, str]]:
    """Return slice and level of the marks within a scan, from inferior to superior."""
    placed = sorted(
        (
            float(mark['slice'])
            if _given(mark, 'slice')
            else (float(mark['z_mm']) - float(affine[2, 3])) / float(affine[2, 2]),
            str(level_of(mark['level'])),
        )
        for mark in marks
    )
    return [pair for pair in placed if -0.5 <= pair[0] <= n_slices - 0.5]


def _order(level: str) -> int:
    """Return the place of a level, counted from the head."""
    return VERTEBRAE.index(level)
