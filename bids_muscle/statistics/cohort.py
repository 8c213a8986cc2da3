"""All analyses of a cohort, from the table of all muscles of all scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.statistics.analysis import Analysis, Points, listed
from bids_muscle.statistics.change import change, rate
from bids_muscle.statistics.comparisons import muscle_summary, paired_t, sex_differences
from bids_muscle.statistics.correlations import partial_correlations
from bids_muscle.statistics.detectable import (
    GivenSdc,
    Years,
    changes_of_people,
    detectable_changes,
)
from bids_muscle.statistics.formula import fit_formula
from bids_muscle.statistics.groups import compare_groups
from bids_muscle.statistics.harmonise import harmonise
from bids_muscle.statistics.models import mixed_model
from bids_muscle.statistics.pairs import compare_pairs
from bids_muscle.statistics.repeated_measures import rm_ancova
from bids_muscle.statistics.sample import (
    COVARIATES,
    IDENTITY,
    Sample,
    by_time,
    find_variables,
    for_formula,
    measure_columns,
    muscle_means,
    participants,
    repeats_of,
    samples_of,
    scan_means,
)
from bids_muscle.statistics.sessions import NO_SESSION, SessionOrder, order_sessions

if TYPE_CHECKING:
    import pandas as pd

#: What is analysed by default, where the table has it.
MEASURES = tuple(name for name in MAIN_MEASURES if name != 'fat_kmeans3_pct')


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
class AnalysisPlan:
    """What to analyse, and how.

    Parameters
    ----------
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
    years
        When each session was, by participant and session.
    detectable
        Smallest detectable changes; without them, from repeats within a session.
    """

    measures: Sequence[str] = MEASURES
    covariates: Sequence[str] = COVARIATES
    centred: bool = True
    harmonise_sites: bool = True
    formula: str | None = None
    order: SessionOrder | None = None
    groups: Sequence[str] = ()
    meanings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    years: Years = field(default_factory=dict)
    detectable: Sequence[GivenSdc] = ()


def analyse(table: pd.DataFrame, plan: AnalysisPlan | None = None) -> dict[str, CohortAnalysis]:
    """Run all analyses that a cohort allows.

    Parameters
    ----------
    table
        One row per scan, muscle and side with ``participant_id``, ``session_id``, ``region``,
        ``contrast``, ``muscle``, ``side``, measures, ``reason``, and behind it the columns of
        participants.tsv; text with ``n/a`` for what is missing, as in ``group_muscles.tsv``, or
        numbers.
    plan
        What to analyse, and how; None for the defaults.

    Returns
    -------
    dict
        Analysis by name: ``means``, ``rm_ancova``, ``paired_t``, ``sex_differences``,
        ``pearson``, ``spearman``; ``agreement`` where people have several scans; ``change`` and
        ``mixed_model`` where there are sessions, ``rate`` where their times are known;
        ``detectable`` and ``individual_change`` where measurement error is known;
        ``site_differences``, ``harmonisation`` and ``harmonised_values`` where there are sites;
        ``groups``, ``group_pairs`` and ``group_means`` where there are columns to test;
        ``formula``.
        Regions, contrasts and measures are analysed each on its own; cross-sectional analyses
        take the first session of each participant.

    Raises
    ------
    UsageError
        If the formula cannot be used, or a column to test is not there.
    """
    plan = plan or AnalysisPlan()
    measures = [name for name in plan.measures if name in table.columns]
    frame = muscle_means(table, measures)
    order = plan.order or _order_of(frame)
    # Age and size may differ between the sessions of a person: those of the first one count.
    in_time = by_time(table, order)
    people = participants(in_time, plan.covariates)
    variables = find_variables(in_time, people, plan.groups, plan.meanings)
    repeats = repeats_of(table, measures)
    parts: dict[str, list[tuple[dict[str, str], Analysis]]] = {}
    sites = plan.harmonise_sites and people['site'].nunique() > 1
    for sample in samples_of(frame, people, measures, order):
        key = {'region': sample.region, 'contrast': sample.contrast, 'measure': sample.measure}
        found: list[tuple[str, Analysis]] = []
        measured = sample.values
        found += _individual(sample, repeats, plan.detectable, plan.years)
        if variables:
            first = sample.first.droplevel(1)
            tested = compare_groups(
                first,
                sample.people.loc[first.index],
                variables,
                plan.covariates,
                with_sites=sites,
                explored=not plan.groups,
            )
            found += tested.items()
        if sites:
            sample, told_of_sites = _harmonised(sample, plan.covariates)
            found += told_of_sites
        front = '' if sample.values is measured else 'Harmonised values: '
        for name, analysis in _analyses(sample, plan):
            told = tuple(f'{front}{sentence}' for sentence in analysis.sentences)
            found.append((name, replace(analysis, sentences=told)))
        for name, analysis in found:
            parts.setdefault(name, []).append((key, analysis))
    for key, analysis in compare_pairs(scan_means(table, frame, measures), measures, order):
        parts.setdefault('agreement', []).append((key, analysis))
    if plan.formula is not None:
        names = [name for name in measure_columns(table) if name not in IDENTITY]
        # Without any the error names all that could have been meant.
        frame = muscle_means(table, [name for name in names if name in plan.formula] or names)
        for (region, contrast), part in frame.groupby(['region', 'contrast'], sort=True):
            key = {'region': str(region), 'contrast': str(contrast)}
            joined = for_formula(part, people, in_time, plan.years)
            parts.setdefault('formula', []).append((key, fit_formula(joined, plan.formula)))
    return {name: _joined(analyses) for name, analyses in parts.items()}


def _order_of(frame: pd.DataFrame) -> SessionOrder:
    """Order the sessions of a table, which knows no times, by their labels."""
    groups = frame.groupby('participant_id', sort=False)['session_id'].unique()
    return order_sessions({who: {name: {} for name in names} for who, names in groups.items()})


def _analyses(sample: Sample, plan: AnalysisPlan) -> Iterator[tuple[str, Analysis]]:
    covariates, years = plan.covariates, plan.years
    values, sessions = sample.first.droplevel(1), sample.sessions
    people = sample.people.loc[values.index]
    every = ('sex', *covariates)
    yield 'means', muscle_summary(values, _which_first(sample))
    yield 'rm_ancova', rm_ancova(values, people, covariates, centred=plan.centred)
    yield 'paired_t', paired_t(values)
    yield 'sex_differences', sex_differences(values, people, covariates)
    yield 'pearson', partial_correlations(values, people, covariates, control=every)
    yield (
        'spearman',
        partial_correlations(values, people, every, control=every, method='spearman'),
    )
    if len(sessions) > 1:
        yield 'change', change(sessions, sample.order, years)
        if years:
            yield 'rate', rate(sample.values, years, sample.order)
        yield (
            'mixed_model',
            mixed_model(sample.values, sample.people, covariates, order=sample.order),
        )


def _individual(
    sample: Sample, repeats: pd.DataFrame | None, given: Sequence[GivenSdc], years: Years
) -> Iterator[tuple[str, Analysis]]:
    """Return which change of one person is more than measurement error, and who changed so."""
    place = (sample.region, sample.contrast, sample.measure)
    if repeats is not None:
        here = (repeats['region'] == sample.region) & (repeats['contrast'] == sample.contrast)
        repeats = repeats[here].rename(columns={sample.measure: 'value'})
        repeats = repeats if len(repeats) else None
    detectable = detectable_changes(list(sample.values), repeats, given, place)
    if detectable.sentences:
        yield 'detectable', detectable
        sessions = sample.sessions
        if len(sessions) > 1 and detectable.table['sdc'].notna().any():
            yield (
                'individual_change',
                changes_of_people(sessions, detectable.table, years, sample.order),
            )


def _which_first(sample: Sample) -> str:
    """Return which sessions count as the first ones, where there are several."""
    if len(sample.values.index.unique(1)) < 2:
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
