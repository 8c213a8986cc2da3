"""Columns of participants.tsv: how careless ones are read, and the tests of groups and numbers."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import MEASURE, group_table, people, values
from test_group_level import group, rows, stats, write_outputs

from bids_muscle.errors import ExitCode, UsageError
from bids_muscle.statistics.analysis import ALL_MUSCLES, analysis_dictionary
from bids_muscle.statistics.cohort import AnalysisPlan, analyse
from bids_muscle.statistics.groups import compare_groups, effect_beside
from bids_muscle.statistics.variables import Variable, ask_variables, read_variable


def column(*cells: str) -> dict[str, str]:
    return {f'sub-{i:03d}': cell for i, cell in enumerate(cells)}


@pytest.mark.parametrize(
    ('cells', 'kind', 'levels'),
    [
        (['a', 'B ', ' b', 'n/a', '', 'b'], 'groups', ('a', 'b')),
        (['patient', 'control', 'patient', 'NaN'], 'groups', ('control', 'patient')),
        (['2', '1', '1.0', '2'], 'groups', ('1', '2')),
        (['0', '5', '7.5', 'n/a'], 'number', ()),
        (['yes', 'no', 'yes'], 'groups', ('no', 'yes')),
        (['1_1', '1_2', '2_1', '1_1'], 'groups', ('1_1', '1_2', '2_1')),
        (['1', '2', 'unknown'], 'groups', ('1', '2', 'unknown')),
    ],
)
def test_columns_are_read_as_people_mean_them(
    cells: list[str], kind: str, levels: tuple[str, ...]
) -> None:
    found = read_variable('group', column(*cells))
    assert (found.kind, found.levels, found.reason) == (kind, levels, None)


@pytest.mark.parametrize(
    ('cells', 'reason'),
    [
        (['n/a', '', ' '], 'no participant has x'),
        (['a', 'a', 'A'], 'x is a in all 3 participants'),
        (['2020-01-02', '2021-01-02'], 'x contains dates'),
        (['02.01.2020', '03.01.2020'], 'x contains dates'),
        ([f'id{i}' for i in range(40)], 'x has 40 different values'),
        (['1', '2', '3', '4', '>5'], 'x contains numbers and words (>5)'),
    ],
)
def test_columns_that_cannot_be_tested_say_why(cells: list[str], reason: str) -> None:
    found = read_variable('x', column(*cells))
    assert found.kind == ''
    assert str(found.reason).startswith(reason)


def test_codes_have_their_names_and_numbers_may_be_groups() -> None:
    codes = column('1', '2', '3', '1')
    named = read_variable('arm', codes, {'1': 'placebo', '2': 'low', '3': 'high'})
    assert named.levels == ('placebo', 'low', 'high')
    [asked] = ask_variables(['C(Arm)'], {'arm': codes}, {})
    assert (asked.kind, asked.levels) == ('groups', ('1', '2', '3'))
    many = column(*'aaaaabbbbb', *[f'id{i}' for i in range(20)])
    assert read_variable('x', many).levels == ('a', 'b')
    with pytest.raises(UsageError, match="'pain' of --group is not in"):
        ask_variables(['pain'], {'arm': codes}, {})


def test_three_groups_and_a_number_agree_with_least_squares() -> None:
    smf = pytest.importorskip('statsmodels.formula.api')
    from statsmodels.stats.anova import anova_lm

    who = people(60)
    who['site'] = np.where(np.arange(60) % 4 > 1, 'north', 'south')
    wide = values(who)
    rng = np.random.default_rng(2)
    arm = pd.Series(rng.choice(['c', 'd', 'e'], 60), index=who.index)
    pain = pd.Series(rng.normal(5, 2, 60), index=who.index)
    variables = [
        Variable('arm', 'groups', arm.to_dict(), ('c', 'd', 'e')),
        Variable('pain', 'number', pain.to_dict()),
    ]
    found = compare_groups(wide, who, variables)
    row = found['groups'].table.set_index(['variable', 'muscle'])
    data = who.assign(y=wide['muscle 1'], arm=arm, pain=pain)
    model = smf.ols('y ~ C(arm) + sex + age + bmi + site', data).fit()
    expected = anova_lm(model, typ=2).loc['C(arm)']
    own = row.loc[('arm', 'muscle 1')]
    assert (own['f'], own['p']) == pytest.approx((expected['F'], expected['PR(>F)']))
    assert own['controlled'] == 'sex, age, bmi, site'
    pair = found['group_pairs'].table.query('muscle == "muscle 1" and level == "e"')
    pair = pair[pair['other_level'] == 'c'].iloc[0]
    limits = model.conf_int().loc['C(arm)[T.e]']
    np.testing.assert_allclose(
        pair[['difference', 'difference_ci_low', 'difference_ci_high', 'p']].astype(float),
        [model.params['C(arm)[T.e]'], *limits, model.pvalues['C(arm)[T.e]']],
    )
    means = found['group_means'].table.query('muscle == "muscle 1"').set_index('level')
    at = data.assign(arm='e')
    shape = model.model.data.model_spec
    from patsy import dmatrix

    x = np.asarray(dmatrix(shape, at)).mean(axis=0)
    assert means.loc['e', 'emm'] == pytest.approx(float(x @ model.params))
    assert means.loc['e', 'emm_se'] == pytest.approx(float(np.sqrt(x @ model.cov_params() @ x)))
    slope = smf.ols('y ~ pain + sex + age + bmi + site', data).fit()
    own = row.loc[('pain', 'muscle 1')]
    assert own['estimate'] == pytest.approx(slope.params['pain'])
    assert own['p'] == pytest.approx(slope.pvalues['pain'])
    assert set(found['groups'].points) == {
        (muscle, 'pain') for muscle in (ALL_MUSCLES, *wide.columns)
    }


def test_the_published_example_of_r() -> None:
    """``anova(lm(weight ~ group, PlantGrowth))`` and its summary, from the manual of R."""
    weights = {
        'ctrl': [4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14],
        'trt1': [4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69],
        'trt2': [6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26],
    }
    index = [f'sub-{k:02d}' for k in range(30)]
    who = pd.DataFrame(np.nan, index, ['sex', 'site', 'age', 'bmi']).astype(object)
    wide = pd.DataFrame({'plant': np.concatenate(list(weights.values()))}, index)
    arm = dict(zip(index, np.repeat(list(weights), 10), strict=True))
    found = compare_groups(wide, who, [read_variable('group', arm)])
    row = found['groups'].table.set_index('muscle').loc['plant']
    assert row[['df1', 'df2']].tolist() == [2, 27]
    assert (row['f'], row['p']) == pytest.approx((4.846, 0.01591), abs=5e-4)
    pairs = found['group_pairs'].table.query('muscle == "plant" and other_level == "ctrl"')
    np.testing.assert_allclose(pairs['difference'].to_numpy(float), [-0.371, 0.494], atol=5e-4)
    np.testing.assert_allclose(pairs['t'].to_numpy(float), [-1.331, 1.772], atol=5e-4)
    np.testing.assert_allclose(pairs['p'].to_numpy(float), [0.1944, 0.0877], atol=5e-4)
    residual = 0.6234  # standard error of the residuals in that summary
    np.testing.assert_allclose(
        pairs['cohen_d'].to_numpy(float), np.array([-0.371, 0.494]) / residual, atol=1e-3
    )


def test_two_groups_with_covariates_agree_with_pingouin() -> None:
    pingouin = pytest.importorskip('pingouin')
    who = people(40)
    wide = values(who)
    arm = pd.Series(np.random.default_rng(1).choice(['a', 'b'], 40), who.index)
    variable = read_variable('arm', arm.to_dict())
    who = who.assign(sex=None, site=None)
    row = compare_groups(wide, who, [variable])['groups'].table.set_index('muscle')
    data = who.assign(y=wide['muscle 2'], arm=arm)
    expected = pingouin.ancova(data, dv='y', between='arm', covar=['age', 'bmi'])
    expected = expected.set_index('Source').loc['arm']
    own = row.loc['muscle 2']
    assert own['f'] == pytest.approx(expected['F'], abs=1e-4)
    assert own['partial_eta_squared'] == pytest.approx(expected['np2'], abs=1e-4)
    assert own['controlled'] == 'age, bmi'


def test_what_follows_from_the_others_is_not_tested() -> None:
    who = people(40)
    who['site'] = np.where(np.arange(40) < 20, 'north', 'south')
    cases = {
        'code': ('groups', who['sex'].map({'F': '1', 'M': '2'}), ('1', '2'), 'sex'),
        'months': ('number', who['age'] * 12, (), 'age'),
        'centre': ('groups', who['site'].str.upper(), ('NORTH', 'SOUTH'), 'site'),
    }
    variables = [
        Variable(name, kind, column.to_dict(), levels)
        for name, (kind, column, levels, _) in cases.items()
    ]
    found = compare_groups(values(who), who, variables)['groups'].table.set_index('variable')
    for name, (*_, culprit) in cases.items():
        assert set(found.loc[name, 'reason']) == {f'{name} is determined by {culprit} (collinear)'}
        assert found.loc[name, 'p'].isna().all()
    assert effect_beside(np.arange(9.0), np.ones((9, 1)), np.ones((9, 1))) == 'determined'


def test_a_group_of_two_is_left_out_and_too_few_are_not_tested() -> None:
    who = people(30).assign(site=np.nan)
    arm = dict(zip(who.index, ['x', 'x', *'ab' * 14], strict=True))
    variable = Variable('arm', 'groups', arm, ('a', 'b', 'x'))
    found = compare_groups(values(who), who, [variable])
    row = found['groups'].table.iloc[0]
    assert (row['n'], row['n_excluded'], row['n_groups']) == (28, 2, 2)
    assert 'x (n = 2), left out' in found['groups'].sentences[0]
    few = compare_groups(values(who).iloc[:9], who.iloc[:9], [variable])
    assert few['groups'].table['p'].isna().all()
    assert 'fewer than two groups have 5 participants' in few['groups'].sentences[0]
    assert 'group_means' not in few


@pytest.fixture(scope='module')
def planted() -> pd.DataFrame:
    """Return 60 people, of whom every other one is a patient with 3 more, and a coin."""
    table = group_table(60)
    place = table['participant_id'].str.removeprefix('sub-').astype(int)
    patient = place % 2 == 0
    group = np.where(patient, np.where(place % 4 == 0, 'Patient ', 'patient'), 'healthy')
    coin = np.random.default_rng(1).choice(['heads', 'tails'], 61)[place]
    value = (table[MEASURE].astype(float) + 3 * patient).map(repr)
    return table.assign(**{MEASURE: value}, group=group, coin=coin)


def test_a_planted_group_is_found_and_a_coin_is_not(planted: pd.DataFrame) -> None:
    found = analyse(planted, AnalysisPlan(groups=['Group', 'coin']))
    table = found['groups'].table.set_index(['variable', 'muscle'])
    own = table.loc['group']
    assert set(own['level']) == {'patient'} or set(own['level']) == {'Patient'}
    assert set(own['other_level']) == {'healthy'}
    assert ((own['estimate_ci_low'] < 3) & (own['estimate_ci_high'] > 3)).sum() >= 7  # of 8
    assert own.loc[ALL_MUSCLES, 'p'] < 0.01
    assert (table.loc['coin', 'p_holm'].dropna() > 0.05).all()
    single = table.drop(index=[('group', ALL_MUSCLES), ('coin', ALL_MUSCLES)])
    assert (single['p_holm'] >= single['p']).all()
    assert set(table['explored']) == {'no'}
    columns = {name for each in found.values() for name in each.table.columns}
    assert columns <= set(analysis_dictionary())


def test_without_a_column_all_are_explored_in_one_family(planted: pd.DataFrame) -> None:
    asked = analyse(planted, AnalysisPlan(groups=['group']))['groups'].table
    explored = analyse(planted)['groups']
    assert list(dict.fromkeys(explored.table['variable'])) == ['group', 'coin']
    assert set(explored.table['explored']) == {'yes'}
    own = explored.table[explored.table['variable'] == 'group']
    np.testing.assert_allclose(own['p'], asked['p'])
    assert (own['p_holm'].dropna() >= asked['p_holm'].dropna()).all()
    assert all('(explored, as --group names no column)' in f.sentence for f in explored.findings)


def test_sex_as_a_group_is_the_test_of_women_and_men(planted: pd.DataFrame) -> None:
    found = analyse(planted, AnalysisPlan(groups=['sex']))
    ours = found['groups'].table.set_index('muscle')
    theirs = found['sex_differences'].table.set_index('muscle')
    # The levels are in the order of the alphabet, so that it is women minus men.
    np.testing.assert_allclose(
        -ours['estimate'] if ours['level'].iloc[0] == 'men' else ours['estimate'],
        theirs['difference'],
    )
    np.testing.assert_allclose(ours['p'], theirs['p'])


@pytest.mark.parametrize('asked', ['site', 'C(site)'])
@pytest.mark.parametrize('as_number', [False, True])
def test_numbers_of_sites_are_codes(planted: pd.DataFrame, asked: str, as_number: bool) -> None:
    place = planted['participant_id'].str.removeprefix('sub-').astype(int)
    codes = 1 + place % 3
    # The second of three sites measures more: no line through the codes shows it.
    value = planted[MEASURE].astype(float) + 20 * (codes == 2)
    table = planted.assign(
        **{MEASURE: value.map(repr)}, site=codes.astype(float) if as_number else codes.map(str)
    )
    found = analyse(table, AnalysisPlan(groups=[asked]))
    own = found['groups'].table.set_index('muscle')
    assert set(own['kind']) == {'groups'}
    assert set(own['n_groups']) == {3}
    theirs = found['site_differences'].table.set_index('muscle')
    np.testing.assert_allclose(own.loc[theirs.index, 'f'], theirs['f'])
    names = {'site': {'1': 'Bern', '2': 'Oslo', '3': 'Rome'}}
    named = analyse(table, AnalysisPlan(groups=[asked], meanings=names))['group_means'].table
    assert set(named['level']) == {'Bern', 'Oslo', 'Rome'}
    assert named.groupby('level')['emm'].mean().idxmax() == 'Oslo'


def test_codes_of_a_known_column_are_groups_where_they_are_called_so(
    planted: pd.DataFrame,
) -> None:
    place = planted['participant_id'].str.removeprefix('sub-').astype(int)
    table = planted.assign(age=(1 + place % 3).map(str))
    names = {'age': {'1': 'young', '2': 'middle', '3': 'old'}}
    for asked, meanings, levels in (
        ('age', {}, set()),
        ('C(age)', {}, set('123')),
        ('age', names, {'young', 'middle', 'old'}),
    ):
        found = analyse(table, AnalysisPlan(groups=[asked], meanings=meanings))
        assert set(found['groups'].table['kind']) == {'groups' if levels else 'number'}
        assert set(found['groups'].table['controlled']) == {'sex, bmi'}
        if levels:
            assert set(found['group_means'].table['level']) == levels


def test_the_command_tests_and_shows_a_column(planted: pd.DataFrame, tmp_path: Path) -> None:
    some = planted[planted['participant_id'] <= 'sub-24']
    raw = tmp_path / 'raw'
    info = some.drop_duplicates('participant_id')[['participant_id', 'age', 'sex', 'bmi', 'group']]
    for label in info['participant_id']:
        (raw / label).mkdir(parents=True)
    codes = info['group'].str.strip().map({'healthy': '0', 'patient': '1', 'Patient': '1'})
    info.assign(group=codes).to_csv(raw / 'participants.tsv', sep='\t', index=False)
    levels = {'0': 'healthy', '1': {'Description': 'back pain'}}
    (raw / 'participants.json').write_text(json.dumps({'group': {'Levels': levels}}))
    output_dir = write_outputs(some, tmp_path / 'out')
    assert group(output_dir, '--group', 'group', bids_dir=raw) == ExitCode.OK
    table = stats(output_dir, 'groups')
    assert set(table['level'].dropna()) == {'back pain'}
    [finding] = [
        row for row in rows(output_dir / 'group_findings.tsv') if row['analysis'] == 'groups'
    ]
    page = (output_dir / 'group.html').read_text()
    assert 'back pain (n = 12) minus healthy (n = 12)' in finding['finding']
    assert finding['finding'] in html.unescape(page)
    data = json.loads(page.split('id="data">')[1].split('</script>')[0])
    shown = {'name': 'group', 'kind': 'groups', 'levels': ['healthy', 'back pain']}
    assert data['columns'] == [shown]
    assert {tuple(scan['columns']) for scan in data['scans']} == {('healthy',), ('back pain',)}
    assert data['tests']['group']['cervical, fat+water'][MEASURE] == finding['finding']
    before = (output_dir / 'group.html').read_bytes()
    assert group(output_dir, '--group', 'nothing', bids_dir=raw) == ExitCode.USAGE
    assert (output_dir / 'group.html').read_bytes() == before


def test_a_number_that_nobody_asked_for_is_explored_and_shown(
    planted: pd.DataFrame, tmp_path: Path
) -> None:
    some = planted[planted['participant_id'] <= 'sub-24']
    raw, output_dir = tmp_path / 'raw', write_outputs(some, tmp_path / 'out')
    info = some.drop_duplicates('participant_id')[['participant_id', 'age', 'sex', 'bmi']]
    for label in info['participant_id']:
        (raw / label).mkdir(parents=True)
    scores = [str(7 * place % 11) for place in range(len(info))]
    info.assign(score=scores).to_csv(raw / 'participants.tsv', sep='\t', index=False)
    assert group(output_dir, bids_dir=raw) == ExitCode.OK
    assert stats(output_dir, 'groups')['p'].notna().all()
    assert 'What goes with score?' in (output_dir / 'group.html').read_text()
