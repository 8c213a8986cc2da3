"""The values of a cohort in norms: a table, and what the cohort page shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.anatomy.people import amount_of
from bids_muscle.dataset.names import dataset_path
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.dataset.writer import write_bytes, write_json, write_tsv
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.charts import Estimate, Panel, forest_chart, panel_grid
from bids_muscle.reports.cohort import analysed_measures, session_name
from bids_muscle.reports.norms import (
    Centile,
    NormGroup,
    Norms,
    NormSeries,
    centile_of,
    doubts,
    person_of,
    series_of,
)
from bids_muscle.reports.outputs import MISSING, Definitions, ScanOutputs, number
from bids_muscle.reports.page import heading
from bids_muscle.statistics.analysis import too_few
from bids_muscle.statistics.detectable import Years
from bids_muscle.statistics.sessions import SessionOrder

if TYPE_CHECKING:
    import pandas as pd

#: Centiles that are drawn, and how.
DRAWN = ((5, 'limit'), (50, 'regression'), (95, 'limit'))
#: Points from which a curve is drawn.
_STEPS = 13
#: From then on the age of participants.tsv is no longer that of the session.
MUCH_LATER_YEARS = 1.0
_FILES = ('group_centiles', 'group_centiles_json', 'group_norms')


def write_centiles(
    norms: Norms, path: Path, scans: Sequence[ScanOutputs], years: Years, output_dir: Path
) -> tuple[pd.DataFrame, list[Path]]:
    """Write where the values of a cohort lie in norms, and keep the norms for the other pages.

    Parameters
    ----------
    norms, path
        The norms, and the file they are from.
    scans
        Of the cohort.
    years
        When each session was.
    output_dir
        The derivatives dataset.

    Returns
    -------
    DataFrame, list of Path
        ``group_centiles``, and the files written.
    """
    table = centile_table(scans, years, norms)
    places = [output_dir / dataset_path(key) for key in _FILES]
    write_tsv(table, places[0])
    write_json(read_dictionary('group_centiles'), places[1])
    write_bytes(path.read_bytes(), places[2])
    return table, places


def remove_centiles(output_dir: Path) -> None:
    """Remove what an earlier run with norms left."""
    for key in _FILES:
        (output_dir / dataset_path(key)).unlink(missing_ok=True)


def centile_table(scans: Sequence[ScanOutputs], years: Years, norms: Norms) -> pd.DataFrame:
    """Return one row per scan, muscle and measure: value, centile and z with their intervals."""
    import pandas as pd

    measures = analysed_measures(scans)
    groups: dict[tuple[NormSeries, NormGroup], list[tuple[Any, ...]]] = {}
    order = 0
    for scan in (scan for scan in scans if scan.rows):
        record = scan.record
        sex, age, bmi = person_of(record.person)
        front = (
            f'sub-{record.participant}',
            session_name(record),
            record.scan,
            record.region or MISSING,
            scan.contrast,
        )
        series = series_of(record, scan.contrast)
        remark = '; '.join(filter(None, (norms.remark(scan), _of_another_time(record, years))))
        remark = remark or MISSING
        for row in scan.rows:
            excluded = scan.exclusion(row)
            for measure in measures:
                group = NormGroup(row['name'], measure, row.get('extent', MISSING), sex)
                cell = (order, front, number(row.get(measure) or ''), age, bmi, excluded, remark)
                groups.setdefault((series, group), []).append(cell)
                order += 1
    cells: list[tuple[Any, ...]] = []
    for (series, group), members in groups.items():
        arrays = np.array([member[2:5] for member in members], float).T
        z, error, reasons, n = norms.place(series, group, *arrays)
        for at, member in enumerate(members):
            reason = f'excluded: {member[5]}' if member[5] else reasons[at]
            found = None if reason else centile_of(float(z[at]), float(error[at]), n)
            numbers = _numbers(found, float(z[at]), float(error[at]))
            cells.append((
                member[0], *member[1], group.name, group.measure, member[2], group.sex or MISSING,
                *(None if np.isnan(x) else x for x in member[3:5]), n or None, *numbers,
                reason or MISSING, member[6],
            ))  # fmt: skip
    cells.sort(key=lambda cell: cell[0])
    return pd.DataFrame(
        [cell[1:] for cell in cells], columns=list(read_dictionary('group_centiles'))
    )


def _of_another_time(record: ScanRecord, years: Years) -> str:
    """Return that the age of participants.tsv is taken for one years later, or nothing."""
    passed = years.get(f'sub-{record.participant}', {}).get(session_name(record), 0.0)
    if passed < MUCH_LATER_YEARS or amount_of(record.session_info, 'age') is not None:
        return ''
    return (
        'the age is that of participants.tsv, and the session is more than a year after the first '
        'one: give the age of each session in sessions.tsv'
    )


def _numbers(found: Centile | None, z: float, error: float) -> tuple[float | None, ...]:
    """Return centile and z, each with its limits."""
    if found is None:
        return (None,) * 6
    limits = (z - 1.959964 * error, z + 1.959964 * error)
    centile = (found.pct, found.low_pct, found.high_pct)
    return tuple(
        None if each is None else round(float(each), 4) for each in (*centile, z, *limits)
    )


def centiles_context(
    norms: Norms,
    table: pd.DataFrame,
    region: str,
    contrast: str,
    definitions: Definitions,
    order: SessionOrder,
) -> dict[str, Any]:
    """Return what the page shows of one region and contrast: a block for each measure."""
    own = table[(table['region'] == region) & (table['contrast'] == contrast)]
    asked = own[own['value'].notna()]
    placed = asked[asked['z'].notna()]
    reasons = Counter(asked[asked['z'].isna()]['reason'])
    remarks = Counter(placed[placed['remark'] != MISSING]['remark'])
    first = _first_sessions(placed, order)
    blocks = [
        {
            'measure': heading(measure, definitions),
            'forest': _forest(first[first['measure'] == measure], heading(measure, definitions)),
            'panels': _panels(norms, first[first['measure'] == measure], region, contrast,
                              heading(measure, definitions)),
        }
        for measure in dict.fromkeys(first['measure'])
    ]  # fmt: skip
    return {
        'population': norms.population,
        'people': norms.people,
        'doubts': doubts(norms),
        'placed': f'{len(placed)} of {len(asked)} values',
        'reasons': reasons.most_common(),
        'remarks': remarks.most_common(),
        'by_bmi': norms.by_bmi,
        'blocks': blocks,
    }


def _first_sessions(placed: pd.DataFrame, order: SessionOrder) -> pd.DataFrame:
    """Return the values of the first session of each participant: people, not scans."""
    if placed.empty:
        return placed
    sessions = placed.groupby('participant_id', sort=False)['session_id']
    first = sessions.transform(order.first)
    return placed[placed['session_id'] == first]


def _forest(placed: pd.DataFrame, measure: str) -> dict[str, object] | None:
    """Draw the mean z of each muscle with its interval, and count who is far out."""
    from scipy.stats import t as student

    estimates = []
    for name, part in placed.groupby('name', sort=False):
        z = part.groupby('participant_id')['z'].mean()
        n, mean = len(z), float(z.mean())
        half = 0.0
        if not too_few(n):
            half = float(student.ppf(0.975, n - 1) * z.std(ddof=1) / np.sqrt(n))
        far = f'below P5: {int((z < -1.6449).sum())}, above P95: {int((z > 1.6449).sum())}'
        interval = f' ({mean - half:.2f} to {mean + half:.2f})' if half else ''
        text = f'{mean:.2f}{interval}, n = {n}; {far}'
        estimates.append(Estimate(str(name), mean, mean - half, mean + half, 'plain', text))
    if not estimates:
        return None
    key = (
        'Dots: mean z of the cohort; 0 is the median of the norms for sex and age. Lines: 95 % '
        'confidence intervals over people. Nothing is tested.'
    )
    return forest_chart(estimates, f'{measure}: z in the norms', key)


def _panels(
    norms: Norms, placed: pd.DataFrame, region: str, contrast: str, measure: str
) -> dict[str, Any] | None:
    """Draw the curves of each muscle and sex with the people of the cohort."""
    panels = []
    for (name, sex), part in placed.groupby(['name', 'sex'], sort=False):
        lines = _curves(norms, (region, contrast), name, part.iloc[0]['measure'], sex)
        if not lines:
            continue
        points = part[['age', 'value']].to_numpy(float)
        who = {'F': 'women', 'M': 'men'}[sex]
        panels.append(Panel(f'{name}, {who}', f'n = {len(part)}', points, tuple(lines)))
    if not panels:
        return None
    title = (
        f'{measure} on the curves of the norms: median, and centiles 5 and 95'
        f'{", at their middle body mass index" if norms.by_bmi else ""}'
    )
    return panel_grid(panels, title, 'age (years)', measure)


def _curves(
    norms: Norms, place: tuple[str, str], name: str, measure: str, sex: str
) -> list[tuple[str, tuple[float, float], tuple[float, float]]]:
    """Return the lines of the curve of a muscle, if one alone is known."""
    found = [
        curve
        for (series, group), curve in norms.curves.items()
        if (series.region, series.contrast) == place
        and (group.name, group.measure, group.sex) == (name, measure, sex)
    ]
    if len(found) != 1:
        return []
    curve = found[0]
    ages = np.linspace(*curve.age_limits_years, _STEPS)
    bmi = np.full(_STEPS, np.nan if curve.bmi_middle is None else curve.bmi_middle)
    lines = []
    for pct, style in DRAWN:
        points = list(zip(ages.tolist(), curve.value(pct, ages, bmi).tolist(), strict=True))
        lines += [(style, a, b) for a, b in pairwise(points)]
    return lines
