"""The mixed model and the user's formula, against statsmodels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohorts import people, values
from scipy import stats

from bids_muscle.errors import UsageError
from bids_muscle.statistics.formula import fit_formula
from bids_muscle.statistics.models import mixed_model, random_intercept
from bids_muscle.statistics.sessions import SessionOrder

ORDER = SessionOrder(('ses-1', 'ses-2'), 'labels')


def repeated(n: int = 40, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two sessions 0.5 apart; five participants miss the second."""
    who = people(n, seed)
    first = values(who, k=2, seed=seed)
    second = (first + np.random.default_rng(seed).normal(0.5, 0.5, first.shape)).iloc[5:]
    both = pd.concat({'ses-1': first, 'ses-2': second}, names=['session', 'id'])
    return both.swaplevel(), who


@pytest.mark.parametrize('seed', range(3))
def test_random_intercept_agrees_with_statsmodels(seed: int) -> None:
    sm = pytest.importorskip('statsmodels.api')
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    design = np.column_stack([np.ones(groups.size), rng.normal(size=(groups.size, 2))])
    y = design @ [10, 1, -0.5] + rng.normal(0, 2, 30)[groups] + rng.normal(0, 1, groups.size)
    expected = sm.MixedLM(y, design, groups=groups).fit(reml=True)
    found = random_intercept(y, design, groups)
    np.testing.assert_allclose(found.coefficients, expected.fe_params, rtol=1e-4)
    assert found.sd_within**2 == pytest.approx(expected.scale, rel=1e-3)
    assert found.sd_between**2 == pytest.approx(expected.cov_re[0, 0], rel=1e-3)
    # Standard errors as in lme4; those of statsmodels have the uncertainty of the variances too.
    same = groups[:, None] == groups
    covariance = found.sd_between**2 * same + found.sd_within**2 * np.eye(groups.size)
    inverse = np.linalg.inv(design.T @ np.linalg.solve(covariance, design))
    np.testing.assert_allclose(found.errors, np.sqrt(np.diag(inverse)), rtol=1e-6)
    # Ours is the better optimum, if they differ.
    assert expected.llf <= _log_likelihood(expected.model, found, y, design, groups) + 1e-6


def _log_likelihood(model, found, y, design, groups) -> float:
    """Restricted log likelihood of statsmodels at our estimates."""
    from statsmodels.regression.mixed_linear_model import MixedLMParams

    ratio = np.array([[(found.sd_between / found.sd_within) ** 2]])
    at = MixedLMParams.from_components(fe_params=found.coefficients, cov_re=ratio)
    return model.loglike(at, profile_fe=False)


def test_mixed_model_finds_the_planted_change() -> None:
    table = mixed_model(*repeated(), order=ORDER).table.set_index(['muscle', 'term'])
    row = table.loc[('muscle 0', 'session ses-2')]
    assert row['estimate_ci_low'] < 0.5 < row['estimate_ci_high']
    assert row['p'] < 1e-4
    assert (row['n'], row['n_observations']) == (40, 75)
    assert row['controlled'] == 'sex, age, bmi'
    assert row['cohen_d'] == pytest.approx(
        row['estimate'] / np.hypot(row['sd_between'], row['sd_within'])
    )


def test_a_balanced_mixed_model_is_the_t_tests_of_few_people() -> None:
    """Change is then tested as by the paired t, sex by the t of the means of each person."""
    who = people(7).assign(sex=list('FMFMFMF'))
    first = values(who, k=2)
    who = who.assign(age=np.nan, bmi=np.nan)
    second = first + np.random.default_rng(1).normal(0.5, 0.5, first.shape)
    both = pd.concat({'ses-1': first, 'ses-2': second}).swaplevel()
    table = mixed_model(both, who, order=ORDER).table.set_index(['muscle', 'term'])
    for muscle in first:
        row = table.loc[(muscle, 'session ses-2')]
        change = stats.ttest_rel(second[muscle], first[muscle])
        mean, women = (first[muscle] + second[muscle]) / 2, who['sex'] == 'F'
        sex = stats.ttest_ind(mean[women], mean[~women])
        for own, expected, df in ((row, change, 6), (table.loc[(muscle, 'sex')], sex, 5)):
            assert own['df'] == df
            assert own['t'] == pytest.approx(expected.statistic, rel=1e-5)
            assert own['p'] == pytest.approx(expected.pvalue, rel=1e-5)
        assert row[['estimate_ci_low', 'estimate_ci_high']].tolist() == pytest.approx(
            list(change.confidence_interval()), rel=1e-4
        )


@pytest.mark.skipif(not shutil.which('Rscript'), reason='needs R: apt install r-base-core')
def test_degrees_of_freedom_and_p_are_those_of_nlme(tmp_path: Path) -> None:
    both, who = repeated(14)
    both = pd.concat([both, (both + 0.2).rename(index={'ses-1': 'ses-3', 'ses-2': 'ses-4'})])
    both = both[both.index.get_level_values(1) != 'ses-4']
    order = SessionOrder(('ses-1', 'ses-2', 'ses-3'), 'labels')
    table = mixed_model(both, who, order=order).table.set_index(['muscle', 'term'])
    long = both['muscle 0'].rename_axis(['id', 'session']).rename('y').reset_index()
    long = long.join(who, on='id').assign(sex=lambda t: (t['sex'] == 'F') * 1)
    long.to_csv(tmp_path / 'long.csv', index=False)
    script = (
        'd <- read.csv("long.csv"); d$session <- factor(d$session); '
        'fit <- nlme::lme(y ~ session + sex + age + bmi, d, ~ 1 | id); '
        'write.csv(summary(fit)$tTable, "found.csv")'
    )
    subprocess.run(['Rscript', '-e', script], cwd=tmp_path, check=True, capture_output=True)
    found = pd.read_csv(tmp_path / 'found.csv', index_col=0)
    names = {'session ses-2': 'sessionses-2', 'session ses-3': 'sessionses-3'}
    for term in (*names, 'sex', 'age', 'bmi'):
        own, theirs = table.loc[('muscle 0', term)], found.loc[names.get(term, term)]
        assert own['df'] == theirs['DF']
        for name, other in (('estimate', 'Value'), ('t', 't-value'), ('p', 'p-value')):
            assert own[name] == pytest.approx(theirs[other], rel=1e-4), term


def test_too_few_second_sessions_are_no_test() -> None:
    both, who = repeated(12)
    second = both.index.get_level_values(1) == 'ses-2'
    both = both[~second | both.index.get_level_values(0).isin(who.index[-4:])]
    analysis = mixed_model(both, who, order=ORDER)
    assert '4 values beside the first are too few; at least 5' in analysis.sentences[0]


@pytest.mark.parametrize(
    ('case', 'reason'),
    [
        ('collinear', 'collinear'),
        ('once', 'in two sessions'),
        ('same', 'no participant changes'),
        ('one', 'too few'),
    ],
)
def test_what_cannot_be_modelled_has_a_reason(case: str, reason: str) -> None:
    both, who = repeated()
    if case == 'collinear':
        who['bmi'] = who['age'] / 2
    if case == 'once':
        both = both[~both.index.get_level_values(0).duplicated()]
        both = both.rename(index={'sub-001': 'sub-001'})
        both.index = pd.MultiIndex.from_tuples(
            [(p, f'ses-{i % 2}') for i, p in enumerate(both.index.get_level_values(0))]
        )
    if case == 'same':
        both = both.groupby(level=0).transform('first')
    if case == 'one':
        both = both[both.index.get_level_values(0) == 'sub-010']
    table = mixed_model(both, who, order=ORDER).table
    assert table['p'].isna().all()
    assert table['reason'].str.contains(reason).all()


def test_an_unknown_covariate_loses_only_itself() -> None:
    both, who = repeated()
    table = mixed_model(both, who.assign(bmi=np.nan), order=ORDER).table.set_index(
        ['muscle', 'term']
    )
    assert table.loc[('muscle 0', 'bmi'), 'reason'] == 'no participant has bmi'
    assert table.loc[('muscle 0', 'session ses-2'), 'controlled'] == 'sex, age'
    assert np.isfinite(table.loc[('muscle 0', 'session ses-2'), 'p'])


def test_one_sex_loses_only_sex() -> None:
    both, who = repeated()
    table = mixed_model(both, who.assign(sex='F'), order=ORDER).table.set_index(['muscle', 'term'])
    assert table.loc[('muscle 0', 'sex'), 'reason'] == 'sex is the same in all'
    assert np.isfinite(table.loc[('muscle 0', 'session ses-2'), 'p'])


def frame(n: int = 40) -> pd.DataFrame:
    who = people(n)
    return who.assign(volume_ml=values(who, k=1).to_numpy()[:, 0], participant_id=who.index)


def test_formula_is_ordinary_least_squares_for_single_rows() -> None:
    smf = pytest.importorskip('statsmodels.formula.api')
    data = frame()
    table = fit_formula(data, 'volume_ml ~ age * sex').table.set_index('term')
    expected = smf.ols('volume_ml ~ age * sex', data).fit()
    np.testing.assert_allclose(table['estimate'], expected.params)
    np.testing.assert_allclose(table['p'], expected.pvalues)
    np.testing.assert_allclose(table[['estimate_ci_low', 'estimate_ci_high']], expected.conf_int())
    assert np.isnan(table.loc['Intercept', 'p_holm'])


def test_copies_of_participants_do_not_make_p_smaller() -> None:
    data = frame()
    once = fit_formula(data, 'volume_ml ~ age').table.set_index('term').loc['age']
    copies = pd.concat([data] * 10, ignore_index=True)
    often = fit_formula(copies, 'volume_ml ~ age').table.set_index('term').loc['age']
    assert often['estimate'] == pytest.approx(once['estimate'])
    assert often['estimate_se'] > 0.7 * once['estimate_se']
    assert (often['n'], often['n_observations'], often['df']) == (40, 400, 39)


def test_missing_values_keep_participants_apart() -> None:
    data = pd.concat([frame(), frame()], ignore_index=True)
    data.loc[[0, 7], 'age'] = np.nan
    found = fit_formula(data, 'volume_ml ~ age').table
    assert set(found['n_observations']) == {78}
    assert set(found['n']) == {40}


@pytest.mark.parametrize('formula', ['volume_ml ~ nothing', 'volume_ml ~ (', 'volume_ml', ''])
def test_a_formula_that_cannot_be_read_is_an_error(formula: str) -> None:
    with pytest.raises(UsageError, match='columns: sex, age, bmi, volume_ml'):
        fit_formula(frame(), formula)


def test_a_collinear_formula_has_a_reason() -> None:
    data = frame().assign(twice=lambda table: 2 * table['age'])
    analysis = fit_formula(data, 'volume_ml ~ age + twice')
    assert analysis.table['estimate'].isna().all()
    assert analysis.table['reason'].str.contains('collinear').all()
