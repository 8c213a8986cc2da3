"""Change in time and against measurement error: planted rates and planted noise are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import MEASURE, group_table
from test_group_level import group, rows, stats, write_outputs

from bids_muscle.errors import BadDataError, ExitCode
from bids_muscle.reports.detectable import read_detectable
from bids_muscle.statistics.change import rate
from bids_muscle.statistics.cohort import AnalysisPlan, analyse
from bids_muscle.statistics.detectable import WITHIN, GivenSdc, measurement_error
from bids_muscle.statistics.sessions import SessionOrder, session_years

NOISE = 0.5


def test_years_are_those_of_the_dates() -> None:
    visits = {
        'sub-1': {
            'ses-a': {'acq_time': '2020-01-01T12:00:00'},
            'ses-b': {'acq_time': '2022-01-01T00:00:00'},
        },
        'sub-2': {'ses-a': {'days_since': '10'}, 'ses-b': {'days_since': '375.25'}},
        'sub-3': {'ses-a': {'age': '40'}, 'ses-b': {'age': '42'}},
        'sub-4': {'ses-a': {'acq_time': '1900-01-01T12:00:00'}, 'ses-b': {}},
        'sub-5': {'ses-a': {'visit': '1'}, 'ses-b': {'visit': '2'}},
    }
    years = session_years(visits)
    assert set(years) == {'sub-1', 'sub-2', 'sub-3'}
    assert years['sub-1'] == {'ses-a': 0, 'ses-b': pytest.approx(730.5 / 365.25)}
    assert years['sub-2']['ses-b'] == pytest.approx(1)
    assert years['sub-3']['ses-b'] == pytest.approx(2)
    same = {
        who: {'ses-a': {'acq_time': '2020-01-01'}, 'ses-b': {'acq_time': '2020-01-01'}}
        for who in 'xy'
    }
    assert session_years(same) == {}


@pytest.mark.parametrize(
    ('column', 'first', 'second', 'years'),
    [
        ('age', '40', '41', 1.0),
        ('age_at_scan', '40', '40.5', 0.5),
        ('Age_years', '40', '41', 1.0),
        ('age_yr', '40', '41', 1.0),
        ('age_months', '480', '486', 180 / 365.25),
        ('age_in_months', '480', '486', 180 / 365.25),
        ('age_weeks', '2080', '2090', 70 / 365.25),
        ('age_at_scan_days', '14600', '14700', 100 / 365.25),
        ('days_in_year_2', '0', '100', 100 / 365.25),
        ('visit_months', '0', '6', None),
    ],
)
def test_ages_have_the_unit_of_their_name(
    column: str, first: str, second: str, years: float | None
) -> None:
    visits = {'sub-1': {'ses-a': {column: first}, 'ses-b': {column: second}}}
    found = session_years(visits).get('sub-1', {}).get('ses-b')
    assert found == (years and pytest.approx(years))


def test_a_planted_rate_is_found_in_years() -> None:
    """Everybody gains one unit a year, after one to three years, in two to three sessions."""
    rng = np.random.default_rng(1)
    years = {
        f'sub-{k}': {'ses-1': 0.0, 'ses-2': 1 + k / 20, 'ses-3': 2 + k / 20} for k in range(20)
    }
    index = [(who, session) for who, times in years.items() for session in times]
    index = [pair for pair in index if pair[1] != 'ses-3' or int(pair[0][4:]) % 2]
    time = np.array([years[who][session] for who, session in index])
    wide = pd.DataFrame(
        {
            'moves': 10 + time + rng.normal(0, 0.2, len(time)),
            'stays': 10 + rng.normal(0, 0.2, len(time)),
        },
        index=pd.MultiIndex.from_tuples(index),
    )
    order = SessionOrder(('ses-1', 'ses-2', 'ses-3'), 'acq_time')
    found = rate(wide, years, order)
    row = found.table.set_index('muscle')
    assert row.loc['moves', 'difference_ci_low'] < 1 < row.loc['moves', 'difference_ci_high']
    assert row.loc['moves', 'n'] == 20
    assert row.loc['stays', 'p_holm'] > 0.05
    assert found.sentences[0].startswith('Per year the measure changed')
    # Two weeks are no time in which a rate could be seen.
    soon = {who: {name: t / 50 for name, t in times.items()} for who, times in years.items()}
    assert 'was not tested: 0 participants' in rate(wide, soon, order).sentences[0]


def test_measurement_error_is_that_of_the_published_example() -> None:
    """Bland and Altman 1986, first and second reading of the large Wright peak flow meter."""
    first = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    second = [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421]
    both = pd.DataFrame(
        {
            'participant_id': [*range(17)] * 2,
            'session': 'ses-1',
            'value': [*map(float, first), *map(float, second)],
        }
    )
    found = measurement_error(both)
    # Bland and Altman 1996, BMJ 313:744: a within-subject standard deviation of 15.3 l/min.
    assert found['sem'] == pytest.approx(15.3, abs=0.05)
    assert found['sdc'] == pytest.approx(15.3 * 2.77, abs=0.2)
    assert found['sdc_ci_low'] < found['sdc'] < found['sdc_ci_high']
    assert 'too few' in measurement_error(both[both['participant_id'] < 4])['reason']


def repeated(n: int = 30) -> pd.DataFrame:
    """Return two sessions of two runs each; every tenth person gains 10, others nothing."""
    rng = np.random.default_rng(7)
    once = group_table(n)
    place = once['participant_id'].str.removeprefix('sub-').astype(int)
    parts = []
    for session in ('ses-pre', 'ses-post'):
        for run in ('1', '2'):
            value = once[MEASURE].astype(float) + rng.normal(0, NOISE, len(once))
            value += 10 * ((session == 'ses-post') & (place % 10 == 0))
            scan = once['participant_id'] + f'_{session}_acq-dixon_run-{run}'
            parts.append(once.assign(session_id=session, scan=scan, **{MEASURE: value.map(repr)}))
    return pd.concat(parts, ignore_index=True)


def test_noise_is_within_measurement_error_and_change_is_not() -> None:
    found = analyse(repeated())
    table = found['detectable'].table
    # Left and right are averaged, so that their noise is smaller.
    planted = 1.96 * np.sqrt(2) * NOISE / np.sqrt(2)
    assert ((table['sdc_ci_low'] < planted) & (planted < table['sdc_ci_high'])).sum() >= 6  # of 7
    assert set(table['n']) == {30}
    people = found['individual_change'].table
    changed = people[people['participant_id'].isin(['sub-10', 'sub-20', 'sub-30'])]
    assert set(changed['verdict']) == {'increase'}
    others = people.drop(changed.index)['verdict']
    # The mean of two runs has half of the variance: fewer than 5 % are beyond.
    assert (others == WITHIN).mean() > 0.97
    sentence = found['individual_change'].findings[0].sentence
    assert 'within measurement error in all muscles' in sentence
    counted = people.groupby('muscle')['verdict'].value_counts().unstack()
    assert (counted.sum(axis=1) == 30).all()


def test_scans_that_differ_by_more_than_their_run_are_no_repeats() -> None:
    table = repeated(8)
    table['scan'] = table['scan'].str.replace('run-2', 'rec-other')
    assert 'detectable' not in analyse(table)


def test_a_file_decides_and_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / 'sdc.tsv'
    path.write_text(f'measure\tsdc\tmuscle\n{MEASURE}\t3\t\n{MEASURE}\t25\ttrapezius\n')
    given = read_detectable(path, [MEASURE])
    assert given[1] == GivenSdc(MEASURE, 25, 'trapezius', source='sdc.tsv')
    analyses = analyse(repeated(10), AnalysisPlan(detectable=given))
    table = analyses['detectable'].table.set_index('muscle')
    assert table.loc['trapezius', 'sdc'] == 25
    assert set(table.drop(index='trapezius')['sdc']) == {3}
    assert set(table['sdc_source']) == {'sdc.tsv'}
    for text in (
        f'measure\tsdc\n{MEASURE}\t-1\n',
        'measure\tsdc\nheight\t1\n',
        f'measure\tlimit\n{MEASURE}\t1\n',
        f'measure\tsdc\n{MEASURE}\ta lot\n',
    ):
        path.write_text(text)
        with pytest.raises(BadDataError):
            read_detectable(path, [MEASURE])


def test_the_page_says_within_measurement_error(tmp_path: Path) -> None:
    table = group_table(6, sessions=2)
    output_dir = write_outputs(table, tmp_path / 'out')
    raw = tmp_path / 'raw'
    for who in table['participant_id'].unique():
        for session in ('ses-1', 'ses-2'):
            (raw / who / session).mkdir(parents=True)
        (raw / who / f'{who}_sessions.tsv').write_text(
            'session_id\tacq_time\nses-1\t2020-01-01T10:00:00\nses-2\t2021-07-01T22:00:00\n'
        )
    limit = tmp_path / 'sdc.tsv'
    limit.write_text(f'measure\tsdc\n{MEASURE}\t100\n')
    assert group(output_dir, '--sdc', limit, bids_dir=raw) == ExitCode.OK
    people = stats(output_dir, 'individual_change')
    assert set(people['verdict']) == {WITHIN}
    np.testing.assert_allclose(people['years'], 547.5 / 365.25)
    findings = {row['analysis']: row['finding'] for row in rows(output_dir / 'group_findings.tsv')}
    assert '6 of 6 are within measurement error in all muscles' in findings['individual_change']
    assert '(median 1.50 years, 1.50 to 1.50)' in findings['change']
    page = (output_dir / 'group.html').read_text()
    assert findings['individual_change'] in page
    assert stats(output_dir, 'rate')['years_median'].round(2).eq(1.5).all()
