"""What the scripts of the cohort page and of the review page know of each scan, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bids_muscle.anatomy.labels import Label
from bids_muscle.anatomy.people import find_column
from bids_muscle.imaging.quality import quality_dictionary
from bids_muscle.reports.cohort import People, measure_definitions
from bids_muscle.reports.completeness import STATUSES, cause_of
from bids_muscle.reports.lights import scan_light
from bids_muscle.reports.measures import UNKNOWN_COLOUR
from bids_muscle.reports.outliers import OUTLIER_Z, Outlier, RobustScores, outlier_columns
from bids_muscle.reports.outputs import MISSING, ScanOutputs, number
from bids_muscle.reports.page import heading, main_measures, page_link
from bids_muscle.statistics.cohort import COVARIATES, participants
from bids_muscle.statistics.variables import Variable, ask_variables, explore_variables

if TYPE_CHECKING:
    import pandas as pd

#: Significant digits of a value; enough to sort and to draw by.
DIGITS = 4
#: A measure of the outlines rather than of the muscles: it is shown, and sorted by.
DICE = 'dice_predicted'


def scan_data(
    scans: Sequence[ScanOutputs],
    people: People,
    scores: RobustScores,
    variables: Sequence[Variable] = (),
) -> dict[str, Any]:
    """Return what the filters, the wall and the charts of a cohort need.

    Parameters
    ----------
    scans
        All scans of the dataset.
    people
        Rows of ``participants.tsv`` by participant.
    scores
        Of the main measures at least.
    variables
        Columns of ``participants.tsv``, from :func:`shown_variables`.

    Returns
    -------
    dict
        ``scans`` has a dictionary for each scan. Its ``values`` are those of the first of
        ``measures`` for all ``muscles``, then those of the second and so on, its ``quality`` is
        in the order of ``quality``; what is not there is None. ``counts`` has the places in
        ``values`` of the muscles that no rating or list excludes, and ``columns`` the level or
        number of each of ``columns``. ``series`` and ``flags`` of a
        scan are places in the lists of that name.
    """
    measures = shown_measures(scans)
    muscles = _muscles(scans)
    definitions = measure_definitions(scans)
    qualities = [
        name for name in quality_dictionary() if any(name in scan.quality for scan in scans)
    ]
    series = sorted({_series(scan) for scan in scans})
    kinds = _kinds(scans)
    farthest: dict[str, float] = {}
    for (scan_name, column), z in scores.farthest.items():
        if column in measures and column != DICE:
            farthest[scan_name] = max(farthest.get(scan_name, 0.0), round(z, 2))
    who = people_of(scans, people)
    return {
        'outlier_z': OUTLIER_Z,
        'measures': [heading(name, definitions) for name in measures],
        'muscles': [_drawn(label) for label in muscles.values()],
        'quality': [heading(name, quality_dictionary()) for name in qualities],
        'series': series,
        'columns': [
            {'name': each.name, 'kind': each.kind, 'levels': each.levels} for each in variables
        ],
        'flags': list(kinds),
        'scans': [
            {
                'scan': scan.record.scan,
                'participant': scan.record.participant,
                'page': page_link(scan.record.participant),
                'series': series.index(_series(scan)),
                'segmentation': scan.segmentation,
                'labels': ('person' if scan.manual else 'network') if scan.done else None,
                **_result(scan),
                'flags': sorted({kinds[cause_of(note)] for note in _remarks(scan)}),
                **who[scan.record.participant],
                'columns': [
                    (each.values or {}).get(scan.record.participant) for each in variables
                ],
                'verdict': scan.verdict.rating if scan.verdict else '',
                'excluded': scan.exclusion(),
                'score': farthest.get(scan.record.scan),
                'sure': _short(scan.least_sure[1]) if scan.least_sure else None,
                **_values(scan, measures, list(muscles)),
                'quality': [_short(scan.quality.get(name)) for name in qualities],
            }
            for scan in scans
        ],
    }


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


def outlier_data(scans: Sequence[ScanOutputs], scores: RobustScores) -> list[list[Any]]:
    """Return the outliers: place of the scan, muscle, measure, value, robust z."""
    definitions = {**quality_dictionary(), **measure_definitions(scans)}
    places = {scan.record.scan: place for place, scan in enumerate(scans)}

    def row(outlier: Outlier) -> list[Any]:
        what = heading(outlier.column, definitions)
        z = round(outlier.robust_z, 1)
        return [places[outlier.scan], outlier.name, what, _short(outlier.value), z]

    columns = outlier_columns(scans, shown_measures(scans))
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
    found = zip(
        table['participant_id'], table['session_id'], table['kind'], table['status'], strict=True
    )
    for participant, session, kind, status in found:
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


def shown_measures(scans: Sequence[ScanOutputs]) -> tuple[str, ...]:
    """Return the measures that people look at first, and the predicted Dice where it is known."""
    rows = [row for scan in scans for row in scan.rows]
    known = any(number(row.get(DICE, MISSING)) is not None for row in rows)
    return (*main_measures(rows), DICE) if known else main_measures(rows)


def _muscles(scans: Sequence[ScanOutputs]) -> dict[str, Label]:
    """Return the labels of all regions by name, and those that no label table knows."""
    tables = {id(scan.table): scan.table for scan in scans if scan.rows}
    rows = {row['name'] for scan in scans for row in scan.rows}
    known = {
        label.name: label
        for table in tables.values()
        for label in table or ()
        if label.name in rows
    }
    for scan in scans:
        for row in scan.rows:
            if row['name'] not in known:
                known[row['name']] = Label(
                    0, row['name'], row['muscle'], '', row['side'], UNKNOWN_COLOUR
                )
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


def _result(scan: ScanOutputs) -> dict[str, str]:
    light, problem = scan_light(scan), scan.record.problem
    return {
        'light': light.level,
        'word': light.word,
        'reason': ': '.join([light.reason, *filter(None, [' '.join(scan.notes)])]),
        'remedy': problem.remedy if problem else '',
    }


def _remarks(scan: ScanOutputs) -> Iterable[str]:
    return scan.notes if scan.done else (scan_light(scan).reason,)


def _kinds(scans: Sequence[ScanOutputs]) -> dict[str, int]:
    """Return the kinds of remark and their places, the most frequent one first."""
    counts = Counter(cause_of(note) for scan in scans for note in _remarks(scan))
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
    return {label: _person(row) for label, row in table.iterrows()}


def _only_text(info: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in info.items() if name not in ('participant_id', 'reason')}


def _person(row: pd.Series) -> dict[str, Any]:
    known = row.notna()
    return {
        **{name: str(row[name]) if known[name] else None for name in ('sex', 'site')},
        **{name: _short(row[name]) if known[name] else None for name in COVARIATES},
    }


def _values(
    scan: ScanOutputs, measures: Sequence[str], names: Sequence[str]
) -> dict[str, list[Any]]:
    by_name = {row['name']: row for row in scan.rows}
    kept = {row['name'] for row in scan.kept}
    return {
        'values': [
            _short(number(by_name[name].get(measure, MISSING))) if name in by_name else None
            for measure in measures
            for name in names
        ],
        'rows': [place for place, name in enumerate(names) if name in by_name],
        'counts': [place for place, name in enumerate(names) if name in kept],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f'{value:.{DIGITS}g}')
