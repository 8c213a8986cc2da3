"""Make norms of a cohort from the tables of its group level."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.provenance import SOFTWARE
from bids_muscle.dataset.records import read_records
from bids_muscle.errors import PARSE_ERRORS, BadDataError, MissingInputError
from bids_muscle.reports.norms import FORMAT, NormSeries, series_of
from bids_muscle.reports.outputs import IDENTITY, MISSING, REASON
from bids_muscle.statistics.cohort import MEASURES, participants
from bids_muscle.statistics.norms import MIN_PEOPLE, Curve, fit_curve
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

#: The curves depend on body mass index if that share of people with age and sex has one.
BMI_KNOWN = 0.9


def build_norms(
    output_dirs: Sequence[Path], population: str, *, example: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Make the curves of a cohort.

    Of each participant the first session counts; several scans of it are averaged. What ratings,
    a list or a low predicted Dice exclude does not count.

    Parameters
    ----------
    output_dirs
        Derivatives datasets of different people, whose group level has run.
    population
        Who the people are, in words.
    example
        Whether the people are simulated: the file is refused where norms are asked for.

    Returns
    -------
    dict, list of str
        Content of the file, and sentences about what was left out.

    Raises
    ------
    MissingInputError, BadDataError
        If a dataset has no table of the group level, or no curve could be made.
    """
    import pandas as pd

    tables: list[pd.DataFrame] = []
    made: dict[Any, tuple[NormSeries, dict[str, str]]] = {}
    for at, folder in enumerate(output_dirs):
        table, scans = _read(folder)
        table['participant_id'] = f'{at} ' + table['participant_id']
        tables.append(table)
        made |= {(at, name): each for name, each in scans.items()}
        table['scan_key'] = [(at, name) for name in table['scan']]
    return norms_of(pd.concat(tables, ignore_index=True), made, population, [], example)


def norms_of(
    table: pd.DataFrame,
    made: dict[Any, tuple[NormSeries, dict[str, str]]],
    population: str,
    remarks: list[str],
    example: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Make the curves of a table.

    Parameters
    ----------
    table
        As ``group_muscles.tsv``, with ``scan_key``, of the first sessions, and without rows that
        are excluded.
    made
        Series of each scan and what made it (``name``, ``version``, ``settings``, ``software``),
        by ``scan_key``.
    population, example
        See :func:`build_norms`.
    remarks
        Sentences, to which those about what was left out are added.
    """
    people = participants(table)
    values = _values(table, made)
    sex, age, bmi = (values['participant_id'].map(people[name]) for name in ('sex', 'age', 'bmi'))
    known = (sex.notna() & age.notna()).to_numpy()
    by_bmi = bool(known.any()) and float(people['bmi'].notna().mean()) >= BMI_KNOWN
    values = values.assign(sex=sex, age=age, bmi=bmi)[known]
    remarks += _left_out(people, by_bmi)
    series, behind = _fit_all(values, by_bmi)
    if not any(fitted['curves'] for fitted in series.values()):
        reasons = Counter(r['reason'] for fitted in series.values() for r in fitted['not_made'])
        why = reasons.most_common(1)[0][0] if reasons else 'nobody has an age and a sex'
        raise BadDataError(
            f'No curve could be made: {why}.',
            f'Give more outputs: each curve needs {MIN_PEOPLE} people of one sex with age.',
        )
    used = {where: fitted for where, fitted in series.items() if fitted['curves']}
    for where, fitted in series.items():
        if not fitted['curves']:
            reason = fitted['not_made'][0]['reason']
            remarks.append(f'No curves of {where.region}, {where.contrast}: {reason}.')
    content = {
        'format': FORMAT,
        'population': population,
        'example': example,
        'made_with': SOFTWARE,
        'people': len(behind),
        'by': ['sex', 'age', *(['bmi'] if by_bmi else [])],
        'min_people': MIN_PEOPLE,
        'series': [{**_described(where, made), **fitted} for where, fitted in used.items()],
    }
    return content, remarks


def _fit_all(
    values: pd.DataFrame, by_bmi: bool
) -> tuple[dict[NormSeries, dict[str, list[Any]]], set[str]]:
    """Fit all curves; return them and those not made by series, and the people behind them."""
    series: dict[NormSeries, dict[str, list[Any]]] = {}
    behind: set[str] = set()
    measures = [name for name in MEASURES if name in values]
    groups = values.groupby(['series', 'name', 'extent', 'sex'], sort=True)
    for (where, name, extent, one), part in groups:
        for measure in measures:
            whole = part[np.isfinite(part[measure])]
            whole = whole[whole['bmi'].notna()] if by_bmi else whole
            if whole.empty:
                continue
            curve = fit_curve(
                whole[measure].to_numpy(float),
                whole['age'].to_numpy(float),
                whole['bmi'].to_numpy(float) if by_bmi else None,
            )
            row = {'name': name, 'measure': measure, 'extent': extent, 'sex': one}
            kept = series.setdefault(where, {'curves': [], 'not_made': []})
            if isinstance(curve, Curve):
                behind.update(whole['participant_id'])
                kept['curves'].append({**row, **curve.as_dict()})
            else:
                kept['not_made'].append({**row, 'reason': curve})
    return series, behind


def format_norms(content: dict[str, Any]) -> str:
    """Return the text of a file of norms, a curve to a line."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return text.replace('{"name": ', '\n{"name": ') + '\n'


def _read(folder: Path) -> tuple[pd.DataFrame, dict[str, tuple[NormSeries, dict[str, str]]]]:
    """Return the rows that count, and of each scan its series and what made it."""
    import pandas as pd

    path = folder / dataset_path('group_muscles')
    if not path.is_file():
        raise MissingInputError(f'{path} is missing.', 'Run the group level on this folder first.')
    try:
        table = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False, quoting=3)
        table = table[table['excluded'] == 'no']
        contrasts = dict(zip(table['scan'], table['contrast'], strict=True))
        behind = table.columns[table.columns.get_loc(REASON) + 1 :]
    except (*PARSE_ERRORS, KeyError) as error:
        raise BadDataError(
            f'{path} is not a table of the group level.', 'Run the group level again.'
        ) from error
    kept = [
        *IDENTITY,
        'participant_id',
        'session_id',
        'scan',
        'extent',
        *MEASURES,
        REASON,
        *behind,
    ]
    table = table[[name for name in dict.fromkeys(kept) if name in table]]
    scans = {
        record.scan: (series_of(record, contrasts[record.scan]), _made(record))
        for record in read_records(folder)
        if record.scan in contrasts
    }
    table = table[table['scan'].isin(scans)]
    series = [scans[name][0] for name in table['scan']]
    first = table.groupby(['participant_id', series], sort=False)['session_id'].transform(
        _order(folder).first
    )
    return table[table['session_id'] == first].copy(), scans


def _order(folder: Path) -> SessionOrder:
    """Return the order of the sessions that the group level found, as its codebook says it."""
    import pandas as pd

    try:
        book = pd.read_csv(
            folder / dataset_path('group_codebook'), dtype=str, keep_default_na=False
        )
        levels = str(book.loc[book['column'] == 'session_id', 'levels'].iloc[0])
    except (OSError, *PARSE_ERRORS, KeyError, IndexError):
        return SessionOrder()
    return SessionOrder(tuple(levels.split(' < ')))


def _made(record: Any) -> dict[str, str]:
    with_ = record.made_with
    model = record.model
    return {
        'name': model.get('name', ''),
        'version': model.get('version', ''),
        'settings': with_.settings,
        'software': with_.version,
    }


def _values(
    table: pd.DataFrame, made: dict[Any, tuple[NormSeries, dict[str, str]]]
) -> pd.DataFrame:
    """Return one row per participant, series, muscle and extent: the mean of the scans."""
    import pandas as pd

    table = table.assign(series=[made[key][0] for key in table['scan_key']])
    if 'extent' not in table:
        table['extent'] = MISSING
    measures = [name for name in MEASURES if name in table]
    numbers = table[measures].apply(pd.to_numeric, errors='coerce')
    keys = ['participant_id', 'series', 'name', 'extent']
    return pd.concat([table[keys], numbers], axis=1).groupby(keys, sort=False).mean().reset_index()


def _left_out(people: pd.DataFrame, by_bmi: bool) -> list[str]:
    said = []
    for name, what in (('sex', 'sex'), ('age', 'age'), ('bmi', 'body mass index')):
        lacking = int(people[name].isna().sum())
        if lacking and (name != 'bmi' or by_bmi):
            said.append(f'{lacking} of {len(people)} people are left out: no {what}.')
    if not by_bmi:
        share = 100 * float(people['bmi'].notna().mean())
        said.append(
            f'The curves do not depend on body mass index: {share:.0f} % of people have one, '
            f'{100 * BMI_KNOWN:.0f} % are needed.'
        )
    return said


def _described(
    where: NormSeries, made: dict[Any, tuple[NormSeries, dict[str, str]]]
) -> dict[str, Any]:
    """Return what the scans of a series have in common."""
    own = [each for series, each in made.values() if series == where]
    model = {key: own[0][key] for key in ('name', 'version')}
    return {
        'region': where.region,
        'contrast': where.contrast,
        'processing': where.processing,
        'model': {**model, 'sha256': where.model},
        'settings': sorted({each['settings'] for each in own} - {''}),
        'versions': sorted({each['software'] for each in own} - {''}),
    }
