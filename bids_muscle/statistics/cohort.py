"""All analyses of a cohort, from the table of all muscles of all scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.anatomy.labels import UNSIDED
from bids_muscle.anatomy.people import find_column, plausible, sex_of
from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.statistics.analysis import Analysis, Points, listed
from bids_muscle.statistics.change import change
from bids_muscle.statistics.comparisons import muscle_summary, paired_t, sex_differences
from bids_muscle.statistics.correlations import partial_correlations
from bids_muscle.statistics.formula import fit_formula
from bids_muscle.statistics.groups import compare_groups
from bids_muscle.statistics.harmonise import harmonise
from bids_muscle.statistics.models import mixed_model
from bids_muscle.statistics.pairs import compare_pairs
from bids_muscle.statistics.repeated_measures import rm_ancova
from bids_muscle.statistics.sessions import NO_SESSION, SessionOrder, order_sessions
from bids_muscle.statistics.variables import (
    Variable,
    ask_variables,
    explore_variables,
    read_variable,
)

if TYPE_CHECKING:
    import pandas as pd

#: What is analysed by default, where the table has it.
MEASURES = tuple(name for name in MAIN_MEASURES if name != 'fat_kmeans3_pct')
COVARIATES = ('age', 'bmi')

#: What is missing, as BIDS writes it.
_MISSING = 'n/a'
_UNIT = ['region', 'contrast', 'participant_id', 'session_id', 'muscle']
_IDENTITY = {*_UNIT, 'scan', 'index', 'name', 'side'}


@dataclass(frozen=True)
class Finding:
    """A result in words, and what it is about; `measure` is empty for a model of the user."""

    region: str
    contrast: str
    measure: str
    sentence: str


@dataclass(frozen=True)
class CohortAnalysis:
    """One analysis of all regions, contrasts and measures.

    Parameters
    ----------
    table
        As of :class:`~bids_muscle.statistics.analysis.Analysis`, with ``region``, ``contrast`` and
        ``measure`` in front.
    findings
        One or more for each region, contrast and measure.
    points
        What scatter plots show, by region, contrast and measure.
    """

    table: pd.DataFrame
    findings: tuple[Finding, ...]
    points: Mapping[tuple[str, str, str], Points] = field(default_factory=dict)


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
        names = self.order.present(self.values.index.get_level_values(1))
        return {name: self.values.xs(name, level=1) for name in names}

    @property
    def first(self) -> pd.DataFrame:
        """Values of the first session of each participant (the index has both)."""
        people, sessions = (self.values.index.get_level_values(level) for level in (0, 1))
        place = {name: at for at, name in enumerate(self.order.names)}
        places = [place.get(name, len(place)) for name in sessions]
        ordered = self.values.iloc[np.lexsort([places, people])]
        return ordered.groupby(level=0, sort=False).head(1)


def analyse(
    table: pd.DataFrame,
    *,
    measures: Sequence[str] = MEASURES,
    covariates: Sequence[str] = COVARIATES,
    centred: bool = True,
    harmonise_sites: bool = True,
    formula: str | None = None,
    order: SessionOrder | None = None,
    groups: Sequence[str] = (),
    meanings: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, CohortAnalysis]:
    """Run all analyses that a cohort allows.

    Parameters
    ----------
    table
        One row per scan, muscle and side with ``participant_id``, ``session_id``, ``region``,
        ``contrast``, ``muscle``, ``side``, measures, ``reason``, and behind it the columns of
        participants.tsv; text with ``n/a`` for what is missing, as in ``group_muscles.tsv``, or
        numbers.
    measures
        Columns to analyse; those that the table lacks are passed over.
    covariates
        ``age``, ``bmi`` or other columns of participants.tsv with numbers.
    centred
        See :func:`bids_muscle.statistics.linear_model.make_design`.
    harmonise_sites
        Where the table has several sites (column ``site``), remove the differences between them
        before all analyses but the formula; see
        :func:`bids_muscle.statistics.harmonise.harmonise`.
    formula
        The user's own model; see :func:`bids_muscle.statistics.formula.fit_formula`.
    order
        The sessions in the order of time; without it, by what their labels say.
    groups
        Columns of participants.tsv to test, groups or numbers; without any, the first
        :data:`~bids_muscle.statistics.variables.MAX_EXPLORED` that can be.
    meanings
        Names of the codes of columns, by column: ``Levels`` of participants.json.

    Returns
    -------
    dict
        Analysis by name: ``means``, ``rm_ancova``, ``paired_t``, ``sex_differences``,
        ``pearson``, ``spearman``; ``agreement`` where people have several scans; ``change`` and
        ``mixed_model`` where there are sessions; ``site_differences``, ``harmonisation`` and
        ``harmonised_values`` where there are sites; ``groups``, ``group_pairs`` and
        ``group_means`` where there are columns to test; ``formula``.
        Regions, contrasts and measures are analysed each on its own; cross-sectional analyses
        take the first session of each participant.

    Raises
    ------
    UsageError
        If the formula cannot be used, or a column to test is not there.
    """
    measures = [name for name in measures if name in table.columns]
    frame = muscle_means(table, measures)
    people = participants(table, covariates)
    order = order or _order_of(frame)
    variables = find_variables(table, people, groups, meanings or {})
    parts: dict[str, list[tuple[dict[str, str], Analysis]]] = {}
    sites = harmonise_sites and people['site'].nunique() > 1
    for sample in _samples(frame, people, measures, order):
        key = {'region': sample.region, 'contrast': sample.contrast, 'measure': sample.measure}
        found: list[tuple[str, Analysis]] = []
        measured = sample.values
        if variables:
            first = sample.first.droplevel(1)
            tested = compare_groups(
                first,
                sample.people.loc[first.index],
                variables,
                covariates,
                with_sites=sites,
                explored=not groups,
            )
            found += tested.items()
        if sites:
            sample, told_of_sites = _harmonised(sample, covariates)
            found += told_of_sites
        front = '' if sample.values is measured else 'Harmonised values: '
        for name, analysis in _analyses(sample, covariates, centred):
            told = tuple(f'{front}{sentence}' for sentence in analysis.sentences)
            found.append((name, replace(analysis, sentences=told)))
        for name, analysis in found:
            parts.setdefault(name, []).append((key, analysis))
    for key, analysis in compare_pairs(_scan_means(table, frame, measures), measures, order):
        parts.setdefault('agreement', []).append((key, analysis))
    if formula is not None:
        names = [name for name in _measure_columns(table) if name not in _IDENTITY]
        # Without any the error names all that could have been meant.
        frame = muscle_means(table, [name for name in names if name in formula] or names)
        for (region, contrast), part in frame.groupby(['region', 'contrast'], sort=True):
            key = {'region': str(region), 'contrast': str(contrast)}
            joined = _for_formula(part, people, table)
            parts.setdefault('formula', []).append((key, fit_formula(joined, formula)))
    return {name: _joined(analyses) for name, analyses in parts.items()}


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

    keys = table[[*_UNIT, 'side']].fillna(_MISSING).astype(str)
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


def _scan_means(table: pd.DataFrame, frame: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
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


def participants(table: pd.DataFrame, covariates: Sequence[str] = COVARIATES) -> pd.DataFrame:
    """Return sex, site and covariates by participant; missing where nobody or nothing tells.

    Column names may be written in any case. Without ``bmi`` it is computed from ``weight`` in kg
    and ``height`` in cm or m.

    Parameters
    ----------
    table
        As in :func:`analyse`.
    covariates
        Columns of numbers.
    """
    import pandas as pd

    rows = _participant_rows(table)

    def column(what: str) -> pd.Series:
        name = find_column(map(str, rows.columns), what)
        return rows[name] if name else pd.Series(np.nan, index=rows.index)

    def numbers(what: str) -> pd.Series:
        values = pd.to_numeric(column(what), errors='coerce').astype(float)
        return values.where(np.isfinite(values))

    def possible(what: str, values: pd.Series) -> pd.Series:
        return values.map(lambda value: plausible(what, value)).astype(float)

    people = pd.DataFrame(index=rows.index)
    people['sex'] = [sex_of(str(word)) for word in column('sex')]
    people['site'] = column('site').astype(object).replace(_MISSING, np.nan).to_numpy()
    for name in covariates:
        people[name] = numbers(name.lower()).to_numpy()
    if 'bmi' in covariates and people['bmi'].isna().all():
        bmi = numbers('weight') / possible('height', numbers('height')) ** 2
        people['bmi'] = possible('bmi', bmi).to_numpy()
    return people


def find_variables(
    table: pd.DataFrame,
    people: pd.DataFrame,
    asked: Sequence[str],
    meanings: Mapping[str, Mapping[str, str]],
) -> list[Variable]:
    """Return the columns of participants.tsv to test.

    Those that the analyses know, such as sex in any spelling, are what they take them for.

    Parameters
    ----------
    table
        As in :func:`analyse`.
    people
        From :func:`participants`.
    asked, meanings
        ``groups`` and ``meanings`` of :func:`analyse`.
    """
    rows = _participant_rows(table)
    columns = {str(name): rows[name].astype(str).to_dict() for name in rows.columns}
    if not asked:
        return explore_variables(columns, meanings)
    called = {find_column(columns, str(name)): str(name) for name in people.columns}
    found = []
    for variable in ask_variables(asked, columns, meanings):
        if name := called.get(variable.name):
            known = people[name].dropna()
            codes = {'F': 'women', 'M': 'men'}
            cells = {who: codes.get(str(cell), str(cell)) for who, cell in known.items()}
            variable = read_variable(name, cells)
        found.append(variable)
    return found


def _order_of(frame: pd.DataFrame) -> SessionOrder:
    """Order the sessions of a table, which knows no times, by their labels."""
    groups = frame.groupby('participant_id', sort=False)['session_id'].unique()
    return order_sessions({who: {name: {} for name in names} for who, names in groups.items()})


def _samples(
    frame: pd.DataFrame, people: pd.DataFrame, measures: Sequence[str], order: SessionOrder
) -> Iterator[Sample]:
    for (region, contrast), part in frame.groupby(['region', 'contrast'], sort=True):
        muscles = list(dict.fromkeys(part['muscle']))
        wide = part.set_index(['participant_id', 'session_id', 'muscle'])
        for measure in measures:
            values = wide[measure].unstack('muscle')[muscles]
            # A muscle that nobody has is no muscle of this measure.
            values = values.dropna(axis=1, how='all').dropna(axis=0, how='all')
            if values.size:
                who = people.loc[values.index.get_level_values(0).unique()]
                yield Sample(str(region), str(contrast), measure, values, who, order)


def _analyses(
    sample: Sample, covariates: Sequence[str], centred: bool
) -> Iterator[tuple[str, Analysis]]:
    values, sessions = sample.first.droplevel(1), sample.sessions
    people = sample.people.loc[values.index]
    every = ('sex', *covariates)
    yield 'means', muscle_summary(values, _which_first(sample))
    yield 'rm_ancova', rm_ancova(values, people, covariates, centred=centred)
    yield 'paired_t', paired_t(values)
    yield 'sex_differences', sex_differences(values, people, covariates)
    yield 'pearson', partial_correlations(values, people, covariates, control=every)
    yield (
        'spearman',
        partial_correlations(values, people, every, control=every, method='spearman'),
    )
    if len(sessions) > 1:
        yield 'change', change(sessions, sample.order)
        yield (
            'mixed_model',
            mixed_model(sample.values, sample.people, covariates, order=sample.order),
        )


def _which_first(sample: Sample) -> str:
    """Say which sessions count as the first ones, where there are several."""
    if len(set(sample.values.index.get_level_values(1))) < 2:
        return ''
    counts = sample.first.index.get_level_values(1).value_counts(sort=False)
    names = sample.order.present(counts.index)
    told = [f'{name} of {counts[name]}' for name in names]
    if NO_SESSION in counts:
        told.append(f'scans without a session of {counts[NO_SESSION]}')
    return f' at the first session ({listed(told)}; order by {sample.order.source or "nothing"})'


def _harmonised(
    sample: Sample, covariates: Sequence[str]
) -> tuple[Sample, list[tuple[str, Analysis]]]:
    """Remove the differences between sites, and tell what was removed."""
    values, differences, removed = harmonise(
        sample.values, sample.people, covariates, order=sample.order
    )
    found = [('site_differences', differences), ('harmonisation', removed)]
    if values is sample.values:
        return sample, found
    long = values.stack().rename('harmonised').to_frame()
    long.insert(0, 'measured', sample.values.stack())
    found.append(('harmonised_values', Analysis(long.reset_index(), ())))
    return replace(sample, values=values.dropna(how='all')), found


def _for_formula(frame: pd.DataFrame, people: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Join the columns of participants.tsv, as numbers where they are."""
    import pandas as pd

    other = _participant_rows(table).replace(_MISSING, np.nan)
    other = other[
        [name for name in other.columns if name not in {*frame.columns, *people.columns}]
    ]
    for name in other.columns:
        numbers = pd.to_numeric(other[name], errors='coerce')
        if numbers.notna().sum() == other[name].notna().sum():
            other[name] = numbers
    joined = frame.join(people, on='participant_id').join(other, on='participant_id')
    return joined.reset_index(drop=True)


def _measure_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns up to ``reason``; those of participants.tsv stand behind it."""
    return [str(name) for name in table.columns[: table.columns.get_loc('reason')]]


def _participant_rows(table: pd.DataFrame) -> pd.DataFrame:
    rows = table.drop_duplicates('participant_id').set_index('participant_id')
    rows.index = rows.index.astype(str)
    return rows.drop(columns=[*_measure_columns(table), 'reason'], errors='ignore')


def _joined(parts: list[tuple[dict[str, str], Analysis]]) -> CohortAnalysis:
    """Put tables below each other, with the columns that tell them apart in front."""
    import pandas as pd

    tables, findings = [], []
    points: dict[tuple[str, str, str], Points] = {}
    for key, analysis in parts:
        front = pd.DataFrame([key] * len(analysis.table), index=analysis.table.index)
        tables.append(pd.concat([front, analysis.table], axis=1))
        findings += [Finding(**{'measure': ''} | key, sentence=t) for t in analysis.sentences]
        if analysis.points:
            place = (key['region'], key['contrast'], key['measure'])
            points[place] = {**points.get(place, {}), **analysis.points}
    # An empty table has no types of its own to pass on.
    filled = [each for each in tables if len(each)] or tables[:1]
    return CohortAnalysis(pd.concat(filled, ignore_index=True), tuple(findings), points)
