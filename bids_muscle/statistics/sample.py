"""The values of a cohort by participant, session and muscle, and what is known of its people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.anatomy.labels import UNSIDED
from bids_muscle.anatomy.people import find_column, plausible, sex_of
from bids_muscle.statistics.detectable import Years, without_run
from bids_muscle.statistics.sessions import SessionOrder
from bids_muscle.statistics.variables import (
    Variable,
    ask_variables,
    explore_variables,
    read_variable,
)
from bids_muscle.tables import MISSING

if TYPE_CHECKING:
    import pandas as pd

COVARIATES = ('age', 'bmi')
_UNIT = ['region', 'contrast', 'participant_id', 'session_id', 'muscle']
IDENTITY = {*_UNIT, 'scan', 'index', 'name', 'side'}


@dataclass(frozen=True)
class Sample:
    """One measure of one region and contrast.

    Parameters
    ----------
    values
        One row per participant and session (the index has both), one column per muscle, the mean
        of left and right.
    people
        ``sex``, ``age``, ``bmi`` by participant.
    order
        The sessions in the order of time.
    """

    region: str
    contrast: str
    measure: str
    values: pd.DataFrame
    people: pd.DataFrame
    order: SessionOrder

    @property
    def sessions(self) -> dict[str, pd.DataFrame]:
        """Values by session, in the order of time; without those of scans without a session."""
        names = self.order.present(self.values.index.unique(1))
        return {name: self.values.xs(name, level=1) for name in names}

    @property
    def first(self) -> pd.DataFrame:
        """Values of the first session of each participant (the index has both)."""
        people, sessions = (self.values.index.get_level_values(level) for level in (0, 1))
        place = {name: at for at, name in enumerate(self.order.names)}
        places = [place.get(name, len(place)) for name in sessions]
        ordered = self.values.iloc[np.lexsort([places, people])]
        return ordered.groupby(level=0, sort=False).head(1)


def muscle_means(table: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return the mean of left and right of each muscle, participant and session.

    Several scans of a session are averaged first. A muscle one side of which is missing is
    missing, since its sides differ (Weber 2021 averages the two MFIs, not their voxels). Both
    sides outlined as one by another model are a muscle of their own.

    Parameters
    ----------
    table
        As in :func:`analyse`.
    measures
        Columns to average.
    """
    import pandas as pd

    keys = table[[*_UNIT, 'side']].fillna(MISSING).astype(str)
    sides = keys.groupby(['region', 'muscle'])['side'].transform('nunique')
    keys.loc[keys['side'].eq(UNSIDED) & sides.gt(1), 'muscle'] += f' ({UNSIDED})'
    numbers = table[list(measures)].apply(pd.to_numeric, errors='coerce').astype(float)
    numbers = numbers.where(np.isfinite(numbers))
    by_side = pd.concat([keys, numbers], axis=1).groupby([*_UNIT, 'side'], sort=False).mean()
    sides = keys.groupby(['region', 'muscle'])['side'].nunique().rename('sides')
    grouped = by_side.groupby(_UNIT, sort=False)
    expected = grouped.size().reset_index().join(sides, on=['region', 'muscle'])['sides']
    complete = grouped.count().ge(expected.to_numpy(), axis=0)
    return grouped.mean().where(complete).reset_index()


def by_time(table: pd.DataFrame, order: SessionOrder) -> pd.DataFrame:
    """Return the rows of a table in the order of their sessions."""
    place = {name: at for at, name in enumerate(order.names)}
    places = table['session_id'].map(place).fillna(len(place))
    return table.iloc[np.argsort(places.to_numpy(), kind='stable')]


def scan_means(table: pd.DataFrame, frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return the means of each scan, with ``repeat`` 2 for the second of a session, and so on."""
    import pandas as pd

    units = _UNIT[:-1]
    if 'scan' not in table:
        return frame.assign(repeat=1)
    scans = table[[*units, 'scan']].drop_duplicates().sort_values('scan')
    scans['repeat'] = scans.groupby(units).cumcount() + 1
    if not (scans['repeat'] > 1).any():
        return frame.assign(repeat=1)
    joined = table.merge(scans)
    return pd.concat(
        [muscle_means(part, measures).assign(repeat=n) for n, part in joined.groupby('repeat')],
        ignore_index=True,
    )


def repeats_of(table: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame | None:
    """Return the means of scans that are repeated within a session and differ by their run alone.

    Returns
    -------
    DataFrame or None
        As :func:`muscle_means`, one row per scan and muscle, ``session`` the same for repeats of
        each other; None where there are none.
    """
    units = _UNIT[:-1]
    if 'scan' not in table:
        return None
    scans = table[[*units, 'scan']].drop_duplicates()
    scans['session'] = [without_run(str(scan)) for scan in scans['scan']]
    scans = scans[scans.duplicated([*units, 'session'], keep=False)]
    if not len(scans):
        return None
    joined = table.merge(scans)
    # Each scan is a session of its own, so that repeats are not averaged.
    means = muscle_means(joined.assign(session_id=joined['scan']), measures)
    return means.merge(
        scans[['scan', 'session']].drop_duplicates(), left_on='session_id', right_on='scan'
    )


def participants(table: pd.DataFrame, covariates: Sequence[str] = COVARIATES) -> pd.DataFrame:
    """Return sex, site and covariates by participant; missing where nobody or nothing tells.

    Column names may be written in any case. Who has no ``bmi`` gets that of ``weight`` in kg and
    ``height`` in cm or m.

    Parameters
    ----------
    table
        As in :func:`analyse`.
    covariates
        Columns of numbers.
    """
    import pandas as pd

    rows = participant_rows(table)

    def column(what: str) -> pd.Series:
        name = find_column(map(str, rows.columns), what)
        return rows[name] if name else pd.Series(np.nan, index=rows.index)

    def numbers(what: str) -> pd.Series:
        values = pd.to_numeric(column(what), errors='coerce').astype(float)
        return values.where(np.isfinite(values))

    def possible(what: str, values: pd.Series) -> pd.Series:
        found = [plausible(what, *each) for each in zip(values, numbers('age'), strict=True)]
        return pd.Series(found, values.index, dtype=float)

    people = pd.DataFrame(index=rows.index)
    people['sex'] = [sex_of(str(word)) for word in column('sex')]
    site = column('site').astype(object).replace(MISSING, np.nan)
    # Spellings that differ in case are one site, called as most people have it.
    core = site.map(lambda name: str(name).casefold(), na_action='ignore')
    people['site'] = site.groupby(core).transform(lambda names: names.mode().iloc[0])
    for name in covariates:
        people[name] = numbers(name.lower()).to_numpy()
    if 'bmi' in covariates and people['bmi'].isna().any():
        bmi = numbers('weight') / possible('height', numbers('height')) ** 2
        people['bmi'] = people['bmi'].fillna(possible('bmi', bmi))
    return people


def find_variables(
    table: pd.DataFrame,
    people: pd.DataFrame,
    asked: Sequence[str],
    meanings: Mapping[str, Mapping[str, str]],
) -> list[Variable]:
    """Return the columns of participants.tsv to test.

    Those that the analyses know, such as sex in any spelling, are what they take them for; site
    is never a number.

    Parameters
    ----------
    table
        As in :func:`analyse`.
    people
        From :func:`participants`.
    asked, meanings
        ``groups`` and ``meanings`` of :func:`analyse`.
    """
    rows = participant_rows(table)
    columns = {str(name): rows[name].astype(str).to_dict() for name in rows.columns}
    if not asked:
        return explore_variables(columns, meanings)
    called = {find_column(columns, str(name)): str(name) for name in people.columns}
    found = []
    for variable in ask_variables(asked, columns, meanings):
        if name := called.get(variable.name):
            words = {'F': 'women', 'M': 'men'} if name == 'sex' else {}
            # A number is written as in the table, where its codes have names: 1, not 1.0.
            cells = {
                who: f'{cell:.15g}' if isinstance(cell, float) else words.get(cell, str(cell))
                for who, cell in people[name].dropna().items()
            }
            codes = None if words else meanings.get(variable.name)
            groups = name == 'site' or variable.kind == 'groups'
            variable = read_variable(name, cells, codes, as_groups=groups)
        found.append(variable)
    return found


def samples_of(
    frame: pd.DataFrame, people: pd.DataFrame, measures: Sequence[str], order: SessionOrder
) -> Iterator[Sample]:
    """Give each measure of each region and contrast; see :class:`Sample`."""
    for (region, contrast), part in frame.groupby(['region', 'contrast'], sort=True):
        muscles = list(part['muscle'].unique())
        wide = part.set_index(['participant_id', 'session_id', 'muscle'])
        for measure in measures:
            values = wide[measure].unstack('muscle')[muscles]
            # A muscle that nobody has is no muscle of this measure.
            values = values.dropna(axis=1, how='all').dropna(axis=0, how='all')
            if values.size:
                who = people.loc[values.index.get_level_values(0).unique()]
                yield Sample(str(region), str(contrast), measure, values, who, order)


def for_formula(
    frame: pd.DataFrame, people: pd.DataFrame, table: pd.DataFrame, years: Years
) -> pd.DataFrame:
    """Join the columns of participants.tsv, as numbers where they are, and ``years``."""
    import pandas as pd

    other = participant_rows(table).replace(MISSING, np.nan)
    other = other[
        [name for name in other.columns if name not in {*frame.columns, *people.columns}]
    ]
    for name in other.columns:
        numbers = pd.to_numeric(other[name], errors='coerce')
        if numbers.notna().sum() == other[name].notna().sum():
            other[name] = numbers
    joined = frame.join(people, on='participant_id').join(other, on='participant_id')
    if years and 'years' not in joined:
        visits = zip(joined['participant_id'], joined['session_id'], strict=True)
        joined['years'] = [years.get(who, {}).get(session, np.nan) for who, session in visits]
    return joined.reset_index(drop=True)


def measure_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns up to ``reason``; those of participants.tsv follow it."""
    return [str(name) for name in table.columns[: table.columns.get_loc('reason')]]


def participant_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of participants.tsv, one row per participant."""
    rows = table.drop_duplicates('participant_id').set_index('participant_id')
    rows.index = rows.index.astype(str)
    return rows.drop(columns=[*measure_columns(table), 'reason'], errors='ignore')
