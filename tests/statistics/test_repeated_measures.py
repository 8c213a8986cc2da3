"""Repeated-measures ANCOVA against pingouin, the published degrees of freedom and identities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import people, values
from scipy import stats
from scipy.linalg import helmert

from bids_muscle.statistics.linear_model import make_design
from bids_muscle.statistics.repeated_measures import rm_ancova, sphericity


def effects(wide: pd.DataFrame, who: pd.DataFrame, *covariates: str) -> pd.DataFrame:
    return rm_ancova(wide, who, covariates).table.set_index('effect')


def long(wide: pd.DataFrame, who: pd.DataFrame) -> pd.DataFrame:
    stacked = wide.rename_axis('id').stack().rename('value').rename_axis(['id', 'muscle'])
    return stacked.reset_index().join(who, on='id')


def test_degrees_of_freedom_and_p_of_weber() -> None:
    who = people(84)
    who['sex'] = ['F'] * 61 + ['M'] * 23
    rows = effects(values(who, k=7), who, 'age', 'bmi')
    epsilon = rows.loc['muscle', 'epsilon_greenhouse_geisser']
    assert rows.loc['muscle', 'df1'] == pytest.approx(6 * epsilon)
    assert rows.loc['muscle', 'df2'] == pytest.approx(480 * epsilon)
    assert tuple(rows.loc['sex', ['df1', 'df2']]) == (1, 80)
    # F(4.5, 361.8) = 2.791, p = 0.021 and F(1, 80) = 5.160, p = 0.026 have one epsilon.
    assert pytest.approx(4.5, abs=0.05) == 361.8 / 480 * 6
    assert stats.f.sf(2.791, 6 * 361.8 / 480, 361.8) == pytest.approx(0.021, abs=5e-4)


@pytest.mark.parametrize('level', [False, True], ids=['differ', 'nearly alike'])
@pytest.mark.parametrize('seed', range(3))
def test_one_group_agrees_with_pingouin(seed: int, level: bool) -> None:
    pingouin = pytest.importorskip('pingouin')
    who = people(30, seed).assign(sex='F')
    wide = values(who, k=3 + seed, seed=seed)
    if level:
        # Muscles with nearly equal means give F near 3: p is then neither 0 nor 1.
        wide += (wide.mean(axis=1).mean() - wide.mean()) * 0.9
    row = effects(wide, who).loc['muscle']
    expected = pingouin.rm_anova(wide, correction=True, detailed=True, effsize='np2').iloc[0]
    assert row['f'] == pytest.approx(expected['F'], rel=1e-6, abs=0)
    assert row['p_sphericity_assumed'] == pytest.approx(expected['p_unc'], rel=1e-6, abs=0)
    assert row['p'] == pytest.approx(expected['p_GG_corr'], rel=1e-6, abs=0)
    assert not level or 1e-4 < row['p'] < 0.9
    assert row['epsilon_greenhouse_geisser'] == pytest.approx(expected['eps'], rel=1e-6, abs=0)
    assert row['epsilon_huynh_feldt'] == pytest.approx(
        pingouin.epsilon(wide, correction='hf'), rel=1e-6, abs=0
    )
    assert row['mauchly_w'] == pytest.approx(expected['W_spher'], rel=1e-6, abs=0)
    assert row['mauchly_p'] == pytest.approx(expected['p_spher'], rel=1e-6, abs=0)
    assert row['partial_eta_squared'] == pytest.approx(expected['np2'], rel=1e-6, abs=0)


def test_two_balanced_groups_agree_with_pingouin() -> None:
    pingouin = pytest.importorskip('pingouin')
    who = people(30)
    who['sex'] = ['F', 'M'] * 15
    wide = values(who)
    rows = effects(wide, who)
    expected = pingouin.mixed_anova(
        long(wide, who), dv='value', within='muscle', subject='id', between='sex'
    ).set_index('Source')
    for name, source in (('muscle', 'muscle'), ('sex', 'sex'), ('muscle x sex', 'Interaction')):
        assert rows.loc[name, 'f'] == pytest.approx(expected.loc[source, 'F'], rel=1e-6, abs=0)
        chance = 'p' if name == 'sex' else 'p_sphericity_assumed'
        assert rows.loc[name, chance] == pytest.approx(
            expected.loc[source, 'p_unc'], rel=1e-6, abs=0
        )
        assert rows.loc[name, 'partial_eta_squared'] == pytest.approx(
            expected.loc[source, 'np2'], rel=1e-6, abs=0
        )


def test_between_effects_are_the_ancova_of_the_mean_in_pingouin() -> None:
    pingouin = pytest.importorskip('pingouin')
    who = people()
    wide = values(who)
    rows = effects(wide, who, 'age', 'bmi')
    expected = pingouin.ancova(
        who.assign(value=wide.mean(axis=1)), dv='value', between='sex', covar=['age', 'bmi']
    ).set_index('Source')
    for name in ('sex', 'age', 'bmi'):
        assert rows.loc[name, 'f'] == pytest.approx(expected.loc[name, 'F'], rel=1e-6, abs=0)
        assert rows.loc[name, 'p'] == pytest.approx(expected.loc[name, 'p_unc'], rel=1e-6, abs=0)


def test_interactions_are_sums_over_contrasts_in_statsmodels() -> None:
    sm = pytest.importorskip('statsmodels.api')
    who = people()
    wide = values(who)
    rows = effects(wide, who, 'age', 'bmi')
    design = make_design(who, np.ones(len(who), bool), ('sex', 'age', 'bmi')).matrix
    hypothesis, error = np.zeros(4), 0.0
    for contrast in (wide.to_numpy() @ helmert(4).T).T:
        result = sm.OLS(contrast, design).fit()
        # Type III: what the fit loses without the term.
        for i in range(4):
            reduced = sm.OLS(contrast, np.delete(design, i, axis=1)).fit()
            hypothesis[i] += reduced.ssr - result.ssr
        error += result.ssr
    f = (hypothesis / 3) / (error / (36 * 3))
    names = ['muscle', 'muscle x sex', 'muscle x age', 'muscle x bmi']
    np.testing.assert_allclose(rows.loc[names, 'f'].astype(float), f, rtol=1e-8)


def test_centring_changes_the_muscle_effect_only() -> None:
    who = people()
    wide = values(who)
    centred = rm_ancova(wide, who).table.set_index('effect')['f']
    at_zero = rm_ancova(wide, who, centred=False).table.set_index('effect')['f']
    np.testing.assert_allclose(centred.drop('muscle'), at_zero.drop('muscle'), rtol=1e-6)
    assert at_zero['muscle'] < 0.5 * centred['muscle']


def test_order_of_muscles_and_participants_does_not_matter() -> None:
    who = people()
    wide = values(who)
    mixed = wide.iloc[::-1, [2, 0, 3, 1]]
    pd.testing.assert_frame_equal(
        rm_ancova(mixed, who.iloc[::-1]).table, rm_ancova(wide, who).table, rtol=1e-8
    )


def test_huynh_feldt_with_covariates_stays_within_bounds() -> None:
    found = sphericity(np.diag([1.0, 1.0, 1.0]), 20)
    assert (found.greenhouse_geisser, found.huynh_feldt) == (1, 1)
    assert found.mauchly_p == pytest.approx(1)
    assert sphericity(np.diag([1.0, 1e-9, 1e-9]), 20).greenhouse_geisser == pytest.approx(1 / 3)


def test_participants_with_gaps_are_left_out_and_counted() -> None:
    who = people()
    wide = values(who)
    wide.iloc[3, 1] = np.nan
    who.iloc[5, who.columns.get_loc('bmi')] = np.nan
    rows = rm_ancova(wide, who).table
    assert set(rows['n']) == {38}
    assert set(rows['n_excluded']) == {2}
    kept = np.ones(40, bool)
    kept[[3, 5]] = False
    expected = rm_ancova(wide[kept], who[kept]).table
    np.testing.assert_allclose(rows['f'], expected['f'])


def test_one_sex_loses_only_what_needs_two() -> None:
    who = people().assign(sex='F')
    rows = effects(values(who), who, 'age', 'bmi')
    assert rows.loc[['sex', 'muscle x sex'], 'f'].isna().all()
    assert rows.loc['sex', 'reason'] == 'all 40 participants have sex F'
    assert rows.loc[['muscle', 'muscle x age', 'age', 'bmi'], 'f'].notna().all()
    assert set(rows['controlled']) == {'age, bmi'}


@pytest.mark.parametrize(
    ('case', 'reason'),
    [
        ('collinear', 'collinear'),
        ('one', 'too few'),
        ('nobody', 'no participant has|too few'),
    ],
)
def test_what_cannot_be_fitted_has_a_reason(case: str, reason: str) -> None:
    who = people(1 if case == 'one' else 20)
    wide = values(who)
    if case == 'collinear':
        who['bmi'] = 3 - 0.5 * who['age']
    if case == 'nobody':
        who, wide = who.iloc[:0], wide.iloc[:0]
    analysis = rm_ancova(wide, who)
    assert analysis.table['f'].isna().all()
    assert analysis.table['reason'].str.contains(reason).all()
    assert 'not tested' in analysis.sentences[0]


def test_one_muscle_has_no_within_effect() -> None:
    who = people()
    rows = effects(values(who, k=1), who, 'age', 'bmi')
    assert rows.loc['muscle', 'reason'] == 'only one muscle'
    assert np.isfinite(rows.loc['sex', 'f'])


def test_muscles_that_differ_alike_in_all_are_not_tested() -> None:
    who = people()
    wide = pd.DataFrame({'a': who['age'], 'b': who['age'] + 1})
    rows = effects(wide, who, 'bmi')
    assert (
        rows.loc['muscle', 'reason']
        == 'differences between muscles are identical in all participants'
    )
    assert rows.loc['muscle', ['f', 'p']].isna().all()


def test_means_that_a_covariate_explains_wholly_are_not_tested() -> None:
    who = people(200)
    apart = values(who, k=1).iloc[:, 0]
    wide = pd.DataFrame({'a': who['age'] + apart, 'b': who['age'] - apart})
    rows = effects(wide, who, 'age')
    assert rows.loc['age', 'reason'] == 'no variance is left between participants'
    assert rows.loc[['sex', 'age'], ['f', 'p']].isna().all(axis=None)
    assert np.isfinite(rows.loc['muscle', 'f'])


def test_a_covariate_that_nobody_has_is_left_out_and_named() -> None:
    who = people(20)
    wide = values(who)
    found = rm_ancova(wide, who.assign(bmi=np.nan)).table.set_index('effect')
    assert (found.loc[['bmi', 'muscle x bmi'], 'reason'] == 'no participant has bmi').all()
    expected = rm_ancova(wide, who, ['age']).table.set_index('effect')
    rest = ['muscle', 'sex', 'age']
    np.testing.assert_array_equal(found.loc[rest, 'f'], expected.loc[rest, 'f'])
    assert set(found['controlled']) == {'sex, age'}
