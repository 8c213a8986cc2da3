"""From the group table to all analyses: Weber's effects, planted in a cohort, are found."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from cohorts import MEASURE, group_table

from bids_muscle.errors import UsageError
from bids_muscle.phantom.effects import load_effects
from bids_muscle.statistics import evaluation
from bids_muscle.statistics.agreement import Agreement
from bids_muscle.statistics.analysis import analysis_dictionary
from bids_muscle.statistics.cohort import (
    AnalysisPlan,
    CohortAnalysis,
    analyse,
    muscle_means,
    participants,
)
from bids_muscle.statistics.detectable import GivenSdc
from bids_muscle.statistics.factorial import compare_levels, factorial_anova

CROSS_SECTIONAL = {'means', 'rm_ancova', 'paired_t', 'sex_differences', 'pearson', 'spearman'}


@pytest.fixture(scope='module')
def weber() -> dict[str, CohortAnalysis]:
    return analyse(group_table(84))


def test_effects_of_weber_are_found(weber: dict[str, CohortAnalysis]) -> None:
    ancova = weber['rm_ancova'].table.set_index('effect')
    assert set(ancova['n']) == {84}
    assert ancova.loc['sex', 'df2'] == 80
    assert ancova.loc['muscle', 'df2'] == pytest.approx(
        480 * ancova.loc['muscle', 'epsilon_greenhouse_geisser']
    )
    assert (ancova.loc[['muscle', 'sex', 'age'], 'p'] < 0.05).all()

    effects = load_effects().mfi['cervical']
    sex = weber['sex_differences'].table.set_index('muscle')
    planted = np.mean([effect['female'] for effect in effects.values()])
    overall = sex.loc['all muscles']
    assert overall['difference_ci_low'] < planted < overall['difference_ci_high']
    assert overall['p'] < 0.05

    pairs = weber['paired_t'].table.set_index(['muscle', 'other_muscle'])
    deep, superficial = 'multifidus and semispinalis cervicis', 'levator scapulae'
    row = pairs.loc[(deep, superficial)]
    assert row['difference'] > 5
    assert row['p_holm'] < 1e-10

    age = weber['pearson'].table.query('variable == "age"').set_index('muscle')
    assert age.loc[deep, 'r'] > 0.2
    assert age.loc[deep, 'df'] == 80


def test_intervals_cover_what_was_planted(weber: dict[str, CohortAnalysis]) -> None:
    effects = load_effects().mfi['cervical']
    sex = weber['sex_differences'].table.set_index('muscle').drop('all muscles')
    covered = [
        row['difference_ci_low'] < effects[muscle]['female'] < row['difference_ci_high']
        for muscle, row in sex.iterrows()
    ]
    assert sum(covered) >= 6  # of 7, at 95 % each


def test_nothing_is_found_where_nothing_is_planted() -> None:
    table = group_table(84)
    rng = np.random.default_rng(5)
    table[MEASURE] = rng.normal(12, 2, len(table)).astype(str)
    analyses = analyse(table)
    for name in ('paired_t', 'sex_differences', 'pearson', 'spearman'):
        assert (analyses[name].table['p_holm'].dropna() > 0.05).all()
    assert 'were not found to differ' in analyses['rm_ancova'].findings[0].sentence


def test_change_between_sessions_is_found() -> None:
    analyses = analyse(group_table(40, sessions=2))
    assert set(analyses) == CROSS_SECTIONAL | {'agreement', 'change', 'mixed_model'}
    table = analyses['change'].table
    planted = load_effects().change_per_session['mean']
    assert (table['p_holm'] < 0.05).all()
    assert ((table['difference_ci_low'] < planted) & (planted < table['difference_ci_high'])).any()
    mixed = analyses['mixed_model'].table.query('term == "session ses-2"')
    # With both sessions of everybody the mixed model estimates the mean change.
    np.testing.assert_allclose(mixed['estimate'], table['difference'], rtol=1e-6)


def test_cross_sectional_analyses_take_the_first_session() -> None:
    both = group_table(20, sessions=2)
    first = both[both['session_id'] == 'ses-1']
    for name in CROSS_SECTIONAL:
        pd.testing.assert_frame_equal(analyse(both)[name].table, analyse(first)[name].table)


def test_every_column_is_in_the_dictionary() -> None:
    table = with_sites(group_table(20, sessions=2))
    place = table['participant_id'].str.removeprefix('sub-').astype(int)
    table['arm'] = place.map(lambda k: 'abc'[k % 3])
    years = {who: {'ses-1': 0.0, 'ses-2': 1.0} for who in table['participant_id']}
    limits = [GivenSdc(MEASURE, 1.0)]
    analyses = analyse(
        table, AnalysisPlan(formula=f'{MEASURE} ~ age + muscle', years=years, detectable=limits)
    )
    columns = {name for each in analyses.values() for name in each.table.columns}
    values = table.assign(model=table['session_id'], dice=table[MEASURE].astype(float))
    columns |= set(compare_levels(values, 'dice', 'model', 'muscle').table.columns)
    columns |= set(factorial_anova(values, 'dice', ['model', 'muscle']).table.columns)
    columns.add('outcome')  # which measure two models are compared by, see reports/comparison.py
    # Columns of the agreement are defined with those of the evaluation of a model.
    agreement = set(asdict(Agreement(0, 0))) & set(evaluation.evaluation_dictionary())
    assert columns == set(analysis_dictionary()) | agreement
    assert all(
        set(entry) == {'LongName', 'Description', 'Units'}
        for entry in analysis_dictionary().values()
    )


def with_sites(table: pd.DataFrame) -> pd.DataFrame:
    """Give every other participant to a second site, which measures 5 more."""
    second = table['participant_id'].str[-1].isin(list('02468'))
    values = table[MEASURE].astype(float) + 5 * second
    site = np.where(second, 'north', 'south')
    return table.assign(**{MEASURE: values.map(repr)}, site=site)


def test_sites_are_harmonised_before_all_else(weber: dict[str, CohortAnalysis]) -> None:
    table = with_sites(group_table(84))
    found, left = analyse(table), analyse(table, AnalysisPlan(harmonise_sites=False))
    assert (found['site_differences'].table['p_holm'] < 1e-3).all()
    shift = found['harmonisation'].table.set_index(['muscle', 'site'])['shift'].unstack()
    np.testing.assert_allclose(shift['north'] - shift['south'], 5, atol=2)
    values = found['harmonised_values'].table
    assert len(values) == 84 * 7
    assert values['measured'].std() > values['harmonised'].std() + 0.5
    error, raw, single = (
        each['sex_differences'].table['difference_se'].iloc[0] for each in (found, left, weber)
    )
    assert error < 0.9 * raw
    assert error == pytest.approx(single, rel=0.1)
    assert 'site_differences' not in left


def test_left_and_right_are_averaged_and_half_a_muscle_is_missing() -> None:
    table = group_table(3)
    means = muscle_means(table, [MEASURE]).set_index(['participant_id', 'muscle'])[MEASURE]
    trapezius = table[(table['participant_id'] == 'sub-01') & (table['muscle'] == 'trapezius')]
    assert means['sub-01', 'trapezius'] == pytest.approx(trapezius[MEASURE].astype(float).mean())
    for broken in (
        table.drop(index=trapezius.index[0]),
        table.assign(**{MEASURE: table[MEASURE].mask(table.index == trapezius.index[0], 'n/a')}),
    ):
        means = muscle_means(broken, [MEASURE]).set_index(['participant_id', 'muscle'])[MEASURE]
        assert np.isnan(means['sub-01', 'trapezius'])
        assert means.notna().sum() == 3 * 7 - 1


def test_both_sides_outlined_as_one_are_not_compared_with_two() -> None:
    rows = [('1', 'left', 1.0), ('1', 'right', 3.0), ('2', 'unsided', 8.0)]
    table = pd.DataFrame(rows, columns=['participant_id', 'side', MEASURE]).assign(
        region='thigh', contrast='T2w', session_id='n/a', muscle='gracilis'
    )
    means = muscle_means(table, [MEASURE]).set_index('muscle')[MEASURE]
    assert means.to_dict() == {'gracilis': 2.0, 'gracilis (unsided)': 8.0}


def test_several_scans_of_a_session_count_once() -> None:
    table = group_table(10)
    again = table.assign(scan='again')
    again[MEASURE] = (again[MEASURE].astype(float) + 2).astype(str)
    means = muscle_means(pd.concat([table, again], ignore_index=True), [MEASURE])
    expected = muscle_means(table, [MEASURE])
    np.testing.assert_allclose(means[MEASURE], expected[MEASURE] + 1)


def test_contrasts_are_never_mixed() -> None:
    table = pd.concat([group_table(10), group_table(12, seed=2).assign(contrast='T2w')])
    found = analyse(table)['paired_t'].table
    assert found.groupby('contrast')['n'].max().to_dict() == {'T2w': 12, 'fat+water': 10}


def test_spellings_of_sex_and_the_body_mass_index() -> None:
    rows = [
        ('sub-1', 'Female', '170', '65', '30'),
        ('sub-2', 'm', '1.8', '80', 'n/a'),
        ('sub-3', 'O', '18', '70', 'inf'),
        ('sub-4', 'f', '68', '45', '40'),  # inches
        ('sub-5', 'f', '90', '12', '2'),
    ]
    table = pd.DataFrame(rows, columns=['participant_id', 'SEX', 'height', 'weight', 'Age'])
    table.insert(1, 'reason', 'n/a')
    people = participants(table)
    assert people['sex'].fillna('?').tolist() == ['F', 'M', '?', 'F', 'F']
    assert people['bmi'].iloc[0] == pytest.approx(65 / 1.7**2)
    assert people['bmi'].iloc[1] == pytest.approx(80 / 1.8**2)
    assert people['bmi'].iloc[2:4].isna().all()  # 18 cm is no height, and 68 cm none of an adult
    assert people['bmi'].iloc[4] == pytest.approx(12 / 0.9**2)
    assert people['age'].fillna(-1).tolist() == [30, -1, -1, 40, 2]
    # Who lacks the index is not lost where others have theirs.
    some = participants(table.assign(bmi=['n/a', '30', 'n/a', 'n/a', 'n/a']))['bmi']
    assert some.iloc[:2].tolist() == [pytest.approx(65 / 1.7**2), 30]
    assert some.iloc[2:4].isna().all()
    sites = participants(table.assign(Site=['Ulm', 'Bonn', 'ulm', 'Ulm', 'n/a']))['site']
    assert sites.fillna('?').tolist() == ['Ulm', 'Bonn', 'Ulm', 'Ulm', '?']
    assert participants(table.assign(Site='n/a'))['site'].isna().all()
    # Months are no years.
    assert participants(table.rename(columns={'Age': 'age_m'}))['age'].isna().all()


def test_a_formula_may_use_every_measure_and_column() -> None:
    table = group_table(20).assign(smoker=lambda t: np.where(t['participant_id'] < 'sub-08', 1, 0))
    table.insert(9, 'length_mm', '100')
    table['length_mm'] = np.random.default_rng(0).normal(100, 5, len(table)).astype(str)
    found = analyse(table, AnalysisPlan(formula='length_mm ~ smoker + muscle'))['formula'].table
    assert 'smoker' in set(found['term'])
    assert set(found['n_observations']) == {140}
    assert set(found['n']) == {20}
    with pytest.raises(UsageError, match='nonsense'):
        analyse(table, AnalysisPlan(formula='length_mm ~ nonsense'))


DAMAGE = {
    'nobody': lambda table: table.iloc[:0],
    'one participant': lambda table: table[table['participant_id'] == 'sub-01'],
    'one sex': lambda table: table.assign(sex='F'),
    'no sex': lambda table: table.drop(columns='sex'),
    'no covariates': lambda table: table.drop(columns=['age', 'sex', 'bmi']),
    'text for age': lambda table: table.assign(age='old'),
    'collinear': lambda table: table.assign(bmi=table['age']),
    'no measures': lambda table: table.assign(**{MEASURE: 'n/a'}),
    'constant': lambda table: table.assign(**{MEASURE: '7'}),
    'one muscle': lambda table: table[table['muscle'] == 'trapezius'],
    'infinite': lambda table: table.assign(**{MEASURE: 'inf'}),
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('sessions', [1, 2])
def test_bad_input_gives_reasons(damage: str, sessions: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        analyses = analyse(DAMAGE[damage](group_table(12, sessions=sessions)))
    for analysis in analyses.values():
        table = analysis.table
        result = next(name for name in ('p', 'icc', 'sd') if name in table)
        assert (table[result].notna() | table['reason'].notna()).all()
        assert not any('nan' in finding.sentence for finding in analysis.findings)


def test_the_same_table_gives_the_same_bytes() -> None:
    table = group_table(20)
    one, other = analyse(table), analyse(table.iloc[::-1])
    for name, analysis in analyse(table).items():
        assert analysis.table.to_csv() == one[name].table.to_csv()
    ancova = other['rm_ancova'].table
    np.testing.assert_allclose(ancova['f'], one['rm_ancova'].table['f'], rtol=1e-8)
