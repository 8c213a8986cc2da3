"""The list of smallest detectable changes that a user gives."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from bids_muscle.errors import BadDataError
from bids_muscle.statistics.detectable import GivenSdc
from bids_muscle.tables import MISSING
from bids_muscle.user_tables import read_table

COLUMNS = ('measure', 'sdc', 'muscle', 'region', 'contrast')


def read_detectable(path: Path, measures: Collection[str]) -> list[GivenSdc]:
    """Read a list of smallest detectable changes.

    Parameters
    ----------
    path
        TSV with ``measure`` and ``sdc`` in its unit, and optionally ``muscle``, ``region`` and
        ``contrast``; a cell that is empty or ``n/a`` means all of them.
    measures
        Measures that are analysed.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    BadDataError
        If it is no such table.
    """
    table = read_table(path)
    if not {'measure', 'sdc'} <= set(table.columns) or set(table.columns) - set(COLUMNS):
        raise BadDataError(
            f'{path} is not a list of smallest detectable changes.',
            f'Give a TSV with measure and sdc and, if you like, {", ".join(COLUMNS[2:])}.',
        )
    if table.left_out:  # what is not understood must not be another limit
        raise BadDataError(f'{path}: {" ".join(table.left_out)}', 'Correct the list.')
    given = []
    for number, row in enumerate(table.rows, 1):
        where_read = f'{path}, row {number}'
        cells = {name: row.get(name, MISSING) for name in COLUMNS}
        cells = {name: '' if text == MISSING else text for name, text in cells.items()}
        if cells['measure'] not in measures:
            raise BadDataError(
                f'{where_read}: {cells["measure"] or "nothing"} is not a measure of this cohort.',
                f'Use one of: {", ".join(measures)}.',
            )
        try:
            sdc = float(cells['sdc'])
        except ValueError:
            sdc = math.nan
        if not (math.isfinite(sdc) and sdc > 0):
            raise BadDataError(
                f'{where_read}: sdc is {cells["sdc"] or "missing"}.', 'Give a number above zero.'
            )
        where = (cells['muscle'], cells['region'], cells['contrast'])
        given.append(GivenSdc(cells['measure'], sdc, *where, source=path.name))
    return given
