"""Charts and sentences call the same effects effects, and say nothing of too few people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import MEASURE, group_table, people, values
from scipy import stats
from test_group_level import group, rows, write_outputs
from test_group_level import stats as table_of

from bids_muscle.errors import ExitCode
from bids_muscle.reports.charts import LETTER_WIDTH, Estimate, forest_chart
from bids_muscle.reports.outputs import read_scans
from bids_muscle.reports.statistics import FIGURES, statistics_context
from bids_muscle.statistics.analysis import effects
from bids_muscle.statistics.change import change
from bids_muscle.statistics.cohort import AnalysisPlan, CohortAnalysis, Finding, analyse
from bids_muscle.statistics.comparisons import sex_differences
from bids_muscle.statistics.harmonise import harmonise
from bids_muscle.statistics.sessions import SessionOrder

PLACE = ('cervical', 'fat+water', MEASURE)


def planted_p(n: int, chances: dict[str, float]) -> pd.DataFrame:
    """Return differences of n people whose paired t has exactly these p."""
    rng = np.random.default_rng(0)
    columns = {}
    for muscle, p in chances.items():
        spread = rng.normal(size=n)
        spread = (spread - spread.mean()) / spread.std(ddof=1)
        columns[muscle] = spread + stats.t.isf(p / 2, n - 1) / np.sqrt(n)
    return pd.DataFrame(columns)


def marks(name: str, table: pd.DataFrame) -> dict[str, str]:
    """Return which dots the page fills, by the name of the row."""
    front = pd.DataFrame([PLACE] * len(table), columns=['region', 'contrast', 'measure'])
    whole = pd.concat([front, table], axis=1)
    [block] = statistics_context({name: as_planted(whole)}, *PLACE[:2], {})[0]['analyses']
    return {' '.join(row['lines']): row['mark'] for row in block['charts'][0]['rows']}


def as_planted(table: pd.DataFrame) -> CohortAnalysis:
    return CohortAnalysis(table, (Finding(*PLACE, sentence='As planted.'),))


def test_an_effect_that_holm_takes_away_is_in_no_sentence_and_has_an_open_dot() -> None:
    """0.001 stays (x 4); 0.02, which is below 0.05 alone, becomes 0.06."""
    later = planted_p(20, {'strong': 0.001, 'lost': 0.02, 'c': 0.4, 'd': 0.8})
    found = change({'ses-1': later * 0, 'ses-2': later}, SessionOrder())
    np.testing.assert_allclose(found.table['p'], [0.001, 0.02, 0.4, 0.8])
    np.testing.assert_allclose(found.table['p_holm'], [0.004, 0.06, 0.8, 0.8])
    assert 'p < 0.05 after Holm correction) in strong by' in found.sentences[0]
    assert 'lost' not in found.sentences[0]
    assert effects(found.table)['muscle'].tolist() == ['strong']
    drawn = marks('change', found.table)
    assert drawn['strong: ses-2'] == 'certain'
    assert {drawn[f'{muscle}: ses-2'] for muscle in ('lost', 'c', 'd')} == {'open'}


def test_a_test_that_stands_alone_has_a_closed_dot_in_both_charts() -> None:
    """The mean of all muscles has no p of Holm, and is the effect of sex in the ANCOVA."""
    table = group_table(84)
    found = analyse(table)
    row = found['sex_differences'].table.set_index('muscle').loc['all muscles']
    assert row['p'] < 0.05
    blocks = {
        block['title']: block for block in statistics_context(found, *PLACE[:2], {})[0]['analyses']
    }
    for name, label in (('sex_differences', 'all muscles'), ('rm_ancova', 'sex')):
        [mark] = [
            each['mark']
            for each in blocks[FIGURES[name].title]['charts'][0]['rows']
            if each['lines'] == [label]
        ]
        assert mark == 'certain', name
    # Stars of the single muscles follow Holm's p as well.
    stars = {
        ' '.join(each['lines']).partition(':')[0]: '*' in ' '.join(each['lines'])
        for each in blocks[FIGURES['sex_differences'].title]['charts'][1]['rows']
    }
    muscles = found['sex_differences'].table.iloc[1:]
    assert {name for name, starred in stars.items() if starred} == {
        'all muscles',
        *effects(muscles)['muscle'],
    }


def test_each_chart_says_what_its_lines_are_and_of_how_many() -> None:
    found = analyse(group_table(30, sessions=2), AnalysisPlan(formula=f'{MEASURE} ~ age'))
    charts = [
        chart
        for measure in statistics_context(found, *PLACE[:2], {})
        for block in measure['analyses']
        for chart in block['charts']
    ]
    assert len(charts) == 11
    for chart in charts:
        assert 'standard error' in chart['key'] or '95 % confidence intervals' in chart['key']
        tested = any(each['mark'] in ('certain', 'open') for each in chart['rows'])
        assert tested == ('Filled dots' in chart['key'])
        assert all(', n = ' in each['text'] for each in chart['rows'])
    mixed = ' '.join(' '.join(row['lines']) for row in charts[-2]['rows'])
    assert 'age (per year)' in mixed
    assert 'bmi (per kg/m²)' in mixed.lower()


@pytest.mark.parametrize('n', [1, 2, 3, 4])
def test_of_too_few_people_nothing_is_said(n: int) -> None:
    """Below five people there is no test, no interval, no line and no n of nobody."""
    found = analyse(group_table(n, sessions=2))
    for name, analysis in found.items():
        if name != 'means':
            assert analysis.table['icc' if name == 'agreement' else 'p'].isna().all(), name
            ends = [column for column in analysis.table if column.endswith('_ci_low')]
            assert analysis.table[ends].isna().all(axis=None), name
        for finding in analysis.findings:
            assert '95 % CI' not in finding.sentence
            assert 'n = 0' not in finding.sentence
            assert name == 'means' or 'not ' in finding.sentence
    # Of one or two there is no table of agreement either.
    assert ('agreement' in found) == (n > 2)
    assert f'{n} participant' in found['paired_t'].findings[0].sentence
    charts = [
        chart
        for block in statistics_context(found, *PLACE[:2], {})[0]['analyses']
        for chart in block['charts']
    ]
    assert [row['interval'] for chart in charts for row in chart['rows']] == [None] * 7


def test_five_people_are_enough_for_a_mean_and_not_for_three_covariates() -> None:
    found = analyse(group_table(5, sessions=2))
    assert found['paired_t'].table['p'].notna().all()
    assert found['agreement'].table['icc'].notna().all()
    assert found['pearson'].table['p'].isna().all()
    assert 'at least 8 are needed' in found['pearson'].findings[0].sentence


def test_a_muscle_that_few_have_twice_has_no_agreement() -> None:
    table = group_table(12, sessions=2)
    gone = (table['muscle'] == 'trapezius') & (table['participant_id'] > 'sub-04')
    found = analyse(table[~gone])['agreement'].table.set_index('muscle')
    assert found['icc'].notna().sum() == 6
    assert found.loc['trapezius', ['n', 'n_missing']].tolist() == [4, 8]
    assert '4 participants are too few' in found.loc['trapezius', 'reason']


def test_with_and_without_magnetisation_transfer_is_no_repeat(tmp_path: Path) -> None:
    table = group_table(8)
    other = table.assign(**{MEASURE: (table[MEASURE].astype(float) + 10).map(repr)})
    output_dir = write_outputs(table, tmp_path / 'out', acq='MToff')
    write_outputs(other, output_dir, acq='MTon')
    assert group(output_dir) == ExitCode.OK
    means = table_of(output_dir, 'means').set_index(['contrast', 'muscle'])['mean']
    np.testing.assert_allclose(means['fat+water (MT on)'] - means['fat+water (MT off)'], 10)
    agreement = table_of(output_dir, 'agreement')
    assert set(agreement['test']) == {'fat+water (MT on)'}
    assert set(agreement['reference']) == {'fat+water (MT off)'}
    assert {row['contrast'] for row in rows(output_dir / 'group_wide.tsv')} == set(
        means.index.get_level_values(0)
    )
    scan = read_scans(output_dir)[0]
    for name, expected in (
        ('sub-1_mt-on_MTS', 'fat+water (MT on)'),
        ('sub-1_acq-dixon_T1w', 'fat+water'),
        ('sub-1_acq-common_T1w', 'fat+water'),
    ):
        assert replace(scan, record=replace(scan.record, scan=name)).contrast == expected


def visits(sessions: int, n: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return people of two sites without a difference; later sessions are copies plus 3."""
    who = people(n)
    who['site'] = np.where(np.arange(n) % 2, 'north', 'south')
    wide = values(who)
    both = pd.concat({f'ses-{at}': wide + 3 * at for at in range(sessions)}).swaplevel()
    return both, who


def test_sites_count_people_and_not_sessions() -> None:
    """More sessions of the same people make no difference surer."""
    order = SessionOrder(('ses-0', 'ses-1', 'ses-2'), 'labels')
    _, once, _ = harmonise(*visits(1), order=order)
    _, often, removed = harmonise(*visits(3), order=order)
    assert set(often.table['n']) == {60}
    assert set(often.table['n_excluded']) == {0}
    assert set(removed.table['n']) == {30}
    assert 'n = 60 of 60 participants, 180 of 180 sessions' in removed.sentences[0]
    for column in ('f', 'df2', 'p'):
        np.testing.assert_allclose(often.table[column], once.table[column])


def test_many_sessions_of_two_people_are_no_site() -> None:
    wide, who = visits(3)
    who['site'] = np.where(np.arange(60) < 2, 'small', 'large')
    _, _, removed = harmonise(wide, who, order=SessionOrder(('ses-0', 'ses-1', 'ses-2')))
    assert 'site small has fewer than 3 participants' in removed.sentences[0]


def test_harmonised_and_measured_values_are_told_apart() -> None:
    table = group_table(40, sessions=2)
    second = table['participant_id'].str[-1].isin(list('02468'))
    moved = (table[MEASURE].astype(float) + 5 * second).map(repr)
    table = table.assign(**{MEASURE: moved}, site=np.where(second, 'north', 'south'))
    measured = {'agreement', 'site_differences', 'harmonisation'}
    for harmonised in (True, False):
        found = analyse(table, AnalysisPlan(harmonise_sites=harmonised))
        marked = {
            name
            for name, analysis in found.items()
            for finding in analysis.findings
            if finding.sentence.startswith('Harmonised values: ')
        }
        shown = statistics_context(found, *PLACE[:2], {})[0]['analyses']
        titles = {
            block['title']: ['harmonised values' in chart['title'] for chart in block['charts']]
            for block in shown
        }
        named = set(found) - {'harmonised_values'}
        assert marked == (named - measured if harmonised else set())
        for name in named:
            expected = harmonised and name not in measured
            assert set(titles[FIGURES[name].title]) == {expected}, name


def test_no_value_is_wider_than_its_chart() -> None:
    text = '-14321.35 (-13321.65 to 105211.06), n = 10000'
    chart = forest_chart([Estimate('a', 0, -1, 1, 'open', text)], 'difference', 'Lines')
    assert chart['value_x'] + LETTER_WIDTH * len(text) <= chart['width']


def test_women_and_men_are_counted_in_the_chart() -> None:
    who = people(40)
    found = sex_differences(values(who), who)
    assert not found.sentences[0].startswith('Women and men were not compared')
    row = found.table.iloc[0]
    front = pd.DataFrame([PLACE] * len(found.table), columns=['region', 'contrast', 'measure'])
    shown = as_planted(pd.concat([front, found.table], axis=1))
    [block] = statistics_context({'sex_differences': shown}, *PLACE[:2], {})[0]['analyses']
    assert f', n = {row["n_female"]} F, {row["n_male"]} M' in block['charts'][0]['rows'][0]['text']
