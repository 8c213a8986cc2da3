"""What the scripts of the cohort page and of the review page know of each scan, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.anatomy.labels import Label
from bids_muscle.anatomy.people import find_column
from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.reports.cohort import People, measure_definitions
from bids_muscle.reports.cohort_values import DICE, CohortValues
from bids_muscle.reports.completeness import STATUSES, cause_of
from bids_muscle.reports.lights import Light, scan_lights
from bids_muscle.reports.measures import UNKNOWN_COLOUR
from bids_muscle.reports.outliers import OUTLIER_Z, Outlier, RobustScores, outlier_columns
from bids_muscle.reports.outputs import MISSING, ScanOutputs
from bids_muscle.reports.page import first_measures, heading, page_link
from bids_muscle.statistics.cohort import COVARIATES, participants
from bids_muscle.statistics.variables import Variable, ask_variables, explore_variables

if TYPE_CHECKING:
    import pandas as pd

#: Significant digits of a value; enough to sort and to draw by.
DIGITS = 4


@dataclass(frozen=True)
class ScanData:
    """What the filters, the wall and the charts of a cohort need.

    Parameters
    ----------
    shared
        ``measures``, ``muscles``, ``quality``, ``series``, ``columns`` and ``flags``: the lists of
        which the scans name places.
    scans
        Gives a dictionary for each scan, one after the other: those of a large cohort do not fit
        into memory. Its ``values`` are those of the first of ``measures`` for all ``muscles``,
        then those of the second and so on, its ``quality`` is in the order of ``quality``; what is
        not there is None. ``counts`` has the places in ``values`` of the muscles that no rating or
        list excludes, and ``columns`` the level or number of each of ``columns``.
    """

    shared: Mapping[str, Any]
    scans: Callable[[], Iterator[dict[str, Any]]]


def scan_data(
    values: CohortValues,
    people: People,
    scores: RobustScores,
    variables: Sequence[Variable] = (),
) -> ScanData:
    """Return what the filters, the wall and the charts of a cohort need.

    Parameters
    ----------
    values
        Of all scans of the dataset.
    people
        Rows of ``participants.tsv`` by participant.
    scores
        Of the main measures at least.
    variables
        Columns of ``participants.tsv``, from :func:`shown_variables`.
    """
    scans, measures = values.scans, shown_measures(values)
    muscles = _muscles(values)
    definitions = measure_definitions(scans)
    there = {name for scan in scans for name in scan.quality}
    qualities = [name for name in quality_dictionary() if name in there]
    series = sorted({_series(scan) for scan in scans})
    lights = scan_lights(values)
    kinds = _kinds(scans, lights)
    farthest = np.full(len(scans), np.nan)
    for column in set(measures) - {DICE}:
        if column in scores.farthest:
            farthest = np.fmax(farthest, scores.farthest[column])
    who = people_of(scans, people)

    def rows() -> Iterator[dict[str, Any]]:
        shown = _values(values, measures, list(muscles))
        for scan, light, far, numbers in zip(scans, lights, farthest, shown, strict=True):
            least_sure = scan.least_sure
            yield {
                'scan': scan.record.scan,
                'participant': scan.record.participant,
                'page': page_link(scan.record.participant),
                'series': series.index(_series(scan)),
                'segmentation': scan.segmentation,
                'labels': ('person' if scan.manual else 'network') if scan.done else None,
                **_result(scan, light),
                'flags': sorted({kinds[cause_of(note)] for note in _remarks(scan, light)}),
                **who[scan.record.participant],
                'columns': [
                    (each.values or {}).get(scan.record.participant) for each in variables
                ],
                'verdict': scan.verdict.rating if scan.verdict else '',
                'excluded': scan.exclusion(),
                'score': None if np.isnan(far) else round(float(far), 2),
                'sure': _short(least_sure[1]) if least_sure else None,
                **numbers,
                'quality': _shortened([scan.quality.get(name, np.nan) for name in qualities]),
            }

    shared = {
        'outlier_z': OUTLIER_Z,
        'measures': [heading(name, definitions) for name in measures],
        'muscles': [_drawn(label) for label in muscles.values()],
        'quality': [heading(name, quality_dictionary()) for name in qualities],
        'series': series,
        'columns': [
            {'name': each.name, 'kind': each.kind, 'levels': each.levels} for each in variables
        ],
        'flags': list(kinds),
    }
    return ScanData(shared, rows)


def shown_variables(
    scans: Sequence[ScanOutputs],
    people: People,
    asked: Sequence[str],
    meanings: Mapping[str, Mapping[str, str]],
) -> list[Variable]:
    """Return the columns of participants.tsv by which the page filters, splits and colours.

    Parameters
    ----------
    scans
        All scans of the dataset.
    people
        Rows of ``participants.tsv`` by participant.
    asked
        Columns that the user asks for; they come first.
    meanings
        Names of codes by column.

    Raises
    ------
    UsageError
        If a column that is asked for is not there.
    """
    labels = dict.fromkeys(scan.record.participant for scan in scans)
    names = dict.fromkeys(name for label in labels for name in people.get(label, ()))
    names.pop('participant_id', None)
    columns = {
        name: {label: people.get(label, {}).get(name, MISSING) for label in labels}
        for name in names
    }
    # The page splits by sex and site anyway; tests call columns as the analyses do.
    called = {find_column(columns, what): what for what in ('sex', 'site', *COVARIATES)}
    found = [
        replace(each, name=called.get(each.name, each.name))
        for each in ask_variables(asked, columns, meanings)
        if called.get(each.name) not in ('sex', 'site')
    ]
    others = explore_variables(columns, meanings)
    known = {each.name for each in found}
    return [
        each for each in (*found, *(o for o in others if o.name not in known)) if not each.reason
    ]


def outlier_data(values: CohortValues, scores: RobustScores) -> list[list[Any]]:
    """Return the outliers: place of the scan, muscle, measure, value, robust z."""
    scans = values.scans
    definitions = {**quality_dictionary(), **measure_definitions(scans)}
    places = {scan.record.scan: place for place, scan in enumerate(scans)}

    def row(outlier: Outlier) -> list[Any]:
        what = heading(outlier.column, definitions)
        z = round(outlier.robust_z, 1)
        return [places[outlier.scan], outlier.name, what, _short(outlier.value), z]

    columns = outlier_columns(scans, shown_measures(values))
    return [row(outlier) for outlier in scores.among([name for name in columns if name != DICE])]


def completeness_data(table: pd.DataFrame, unusable: Sequence[str] = ()) -> dict[str, Any]:
    """Return the matrix of participants and kinds of scan, as places in ``statuses``.

    A cell has a place for each scan of the kind.

    Parameters
    ----------
    table
        From :func:`~bids_muscle.reports.completeness.completeness`.
    unusable
        Folders of the raw dataset that look like participants and are none.
    """
    columns = list(dict.fromkeys(zip(table['session_id'], table['kind'], strict=True)))
    cells: dict[str, list[list[int]]] = {}
    rows = zip(
        table['participant_id'], table['session_id'], table['kind'], table['status'], strict=True
    )
    for participant, session, kind, status in rows:
        row = cells.setdefault(participant, [[] for _ in columns])
        row[columns.index((session, kind))].append(STATUSES.index(status))
    return {
        'statuses': list(STATUSES),
        'columns': [', '.join(part for part in each if part != MISSING) for each in columns],
        'rows': [
            {
                'name': name,
                'page': '' if name in unusable else page_link(name.removeprefix('sub-')),
                'cells': row,
            }
            for name, row in cells.items()
        ],
    }


def shown_measures(
    values: CohortValues, scans: Sequence[ScanOutputs] | None = None
) -> tuple[str, ...]:
    """Return the measures that people look at first, and the predicted Dice where it is known.

    Parameters
    ----------
    values
        Of all scans of the dataset.
    scans
        Some of them; None for all.
    """
    some = values.among(scans) if scans is not None else values
    present = [name for name in MAIN_MEASURES if name in some.columns]
    main = first_measures([name for name in present if some.has(name)] or present)
    return (*main, DICE) if some.has(DICE) else main


def _muscles(values: CohortValues) -> dict[str, Label]:
    """Return the labels of all regions by name, and those that no label table knows."""
    tables = {id(scan.table): scan.table for scan in values.scans if scan.rows}
    rows = {name for name, *_ in values.kinds}
    known = {
        label.name: label
        for table in tables.values()
        for label in table or ()
        if label.name in rows
    }
    for name, muscle, side, _ in values.kinds:
        if name not in known:
            known[name] = Label(0, name, muscle, '', side, UNKNOWN_COLOUR)
    return known


def _drawn(label: Label) -> dict[str, str]:
    """Return what a chart needs of a label."""
    return {
        'name': label.name,
        'muscle': label.muscle,
        'side': label.side,
        'colour': label.color,
    }


def _series(scan: ScanOutputs) -> str:
    return f'{scan.record.region or MISSING}, {scan.contrast}'


def _result(scan: ScanOutputs, light: Light) -> dict[str, str]:
    problem = scan.record.problem
    return {
        'light': light.level,
        'word': light.word,
        'reason': ': '.join([light.reason, *filter(None, [' '.join(scan.notes)])]),
        'remedy': problem.remedy if problem else '',
    }


def _remarks(scan: ScanOutputs, light: Light) -> Iterable[str]:
    return scan.notes if scan.done else (light.reason,)


def _kinds(scans: Sequence[ScanOutputs], lights: Sequence[Light]) -> dict[str, int]:
    """Return the kinds of remark and their places, the most frequent one first."""
    pairs = zip(scans, lights, strict=True)
    counts = Counter(cause_of(note) for scan, light in pairs for note in _remarks(scan, light))
    ordered = sorted(counts, key=lambda kind: (-counts[kind], kind))
    return {kind: place for place, kind in enumerate(ordered)}


def people_of(scans: Sequence[ScanOutputs], people: People) -> dict[str, dict[str, Any]]:
    """Return sex, site and covariates of each participant, None where they are unknown."""
    import pandas as pd

    labels = dict.fromkeys(scan.record.participant for scan in scans)
    rows = [
        {'participant_id': label, 'reason': '', **_only_text(people.get(label, {}))}
        for label in labels
    ]
    if not rows:
        return {}
    table = participants(pd.DataFrame(rows, dtype=object).fillna(MISSING))
    columns = [table[name].tolist() for name in ('sex', 'site', *COVARIATES)]
    return {
        label: {
            'sex': sex if isinstance(sex, str) else None,
            'site': site if isinstance(site, str) else None,
            **{name: _known(cell) for name, cell in zip(COVARIATES, numbers, strict=True)},
        }
        for label, sex, site, *numbers in zip(table.index, *columns, strict=True)
    }


def _only_text(info: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in info.items() if name not in ('participant_id', 'reason')}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else _short(value)


def _values(
    values: CohortValues, measures: Sequence[str], names: Sequence[str]
) -> Iterator[dict[str, list[Any]]]:
    """Give the numbers of each scan, with the places of its muscles and of those that count."""
    at = {name: place for place, name in enumerate(names)}
    place = np.array([at[name] for name, *_ in values.kinds], dtype=int)
    columns = [values.columns[name] for name in measures]
    for first, last in pairwise(values.starts.tolist()):
        own = place[values.kind[first:last]]
        cells = np.full((len(measures), len(names)), np.nan)
        cells[:, own] = values.numbers[first:last, columns].T
        yield {
            'values': _shortened(cells.ravel().tolist()),
            'rows': sorted(set(own.tolist())),
            'counts': sorted(set(own[values.kept[first:last]].tolist())),
        }


def _shortened(values: Sequence[float]) -> list[float | None]:
    """Return numbers as :func:`_short`, NaN as None; all at once, since a cohort has millions."""
    text = f'%.{DIGITS}g ' * len(values) % tuple(values)
    return [None if value != value else value for value in map(float, text.split())]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f'{value:.{DIGITS}g}')
