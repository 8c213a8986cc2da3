"""Repeated-measures ANOVA of several factors, against pingouin and statsmodels."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from bids_muscle.statistics.factorial import compare_levels, factorial_anova


def dice(n: int = 20, seed: int = 0, augmented: bool = False) -> pd.DataFrame:
    """Return Dice of two models in three muscles; the second model is 0.02 better."""
    rng = np.random.default_rng(seed)
    subject = rng.normal(0, 0.02, n)
    rows = []
    for i, model, muscle, trained in itertools.product(
        range(n), ('2-D', '3-D'), ('MF', 'ES', 'PM'), ('raw', 'augmented')[: 1 + augmented]
    ):
        value = 0.9 + subject[i] + 0.02 * (model == '3-D') - 0.03 * (muscle == 'PM')
        rows.append((f'sub-{i:02d}', model, muscle, trained, value + rng.normal(0, 0.01)))
    return pd.DataFrame(rows, columns=['participant_id', 'model', 'muscle', 'trained', 'dice'])


def test_two_factors_agree_with_pingouin() -> None:
    pingouin = pytest.importorskip('pingouin')
    table = dice()
    found = factorial_anova(table, 'dice', ['model', 'muscle']).table.set_index('effect')
    expected = pingouin.rm_anova(
        table, dv='dice', within=['model', 'muscle'], subject='participant_id', detailed=True
    ).set_index('Source')
    for ours, theirs in (('model', 'model'), ('muscle', 'muscle')):
        row, other = found.loc[ours], expected.loc[theirs]
        assert row['f'] == pytest.approx(other['F'], rel=1e-6, abs=0)
        assert row['p_sphericity_assumed'] == pytest.approx(other['p_unc'], rel=1e-6, abs=0)
        assert row['p'] == pytest.approx(other['p_GG_corr'], rel=1e-6, abs=0)
        assert row['epsilon_greenhouse_geisser'] == pytest.approx(other['eps'], rel=1e-6, abs=0)
    inner = found.loc['model x muscle']
    assert inner['f'] == pytest.approx(expected.loc['model * muscle', 'F'], rel=1e-6, abs=0)


def test_three_factors_agree_with_statsmodels() -> None:
    reference = pytest.importorskip('statsmodels.stats.anova')
    table = dice(augmented=True)
    factors = ['model', 'trained', 'muscle']
    found = factorial_anova(table, 'dice', factors).table.set_index('effect')
    expected = reference.AnovaRM(table, 'dice', 'participant_id', within=factors).fit().anova_table
    expected.index = expected.index.str.replace(':', ' x ')
    assert set(found.index) == set(expected.index)
    expected = expected.loc[found.index]
    np.testing.assert_allclose(found['f'], expected['F Value'], rtol=1e-6)
    np.testing.assert_allclose(found['p_sphericity_assumed'], expected['Pr > F'], rtol=1e-6)
    factor = found['epsilon_greenhouse_geisser']
    np.testing.assert_allclose(found['df1'] / factor, expected['Num DF'])
    np.testing.assert_allclose(found['df2'] / factor, expected['Den DF'])


def test_the_planted_difference_of_models_is_found() -> None:
    analysis = compare_levels(dice(), 'dice', 'model', by='muscle')
    overall, *inner = analysis.table.to_dict('records')
    assert (overall['within'], overall['level'], overall['other_level']) == ('all', '2-D', '3-D')
    assert overall['difference'] == pytest.approx(-0.02, abs=0.004)
    assert {row['within'] for row in inner} == {'MF', 'ES', 'PM'}
    assert all(row['p'] <= row['p_holm'] for row in inner)
    assert '2-D minus 3-D -0.0' in analysis.sentences[0]


def test_who_lacks_a_combination_is_left_out() -> None:
    table = dice()
    holed = table.drop(index=table.index[3])
    found = factorial_anova(holed, 'dice', ['model', 'muscle']).table
    assert set(found['n']) == {19}
    assert set(found['n_excluded']) == {1}
    whole = factorial_anova(
        table[table['participant_id'] != 'sub-00'], 'dice', ['model', 'muscle']
    )
    np.testing.assert_allclose(found['f'], whole.table['f'])


@pytest.mark.parametrize('case', ['one subject', 'one model', 'constant', 'nobody'])
def test_bad_input_has_a_reason(case: str) -> None:
    table = dice()
    if case == 'one subject':
        table = table[table['participant_id'] == 'sub-00']
    if case == 'one model':
        table = table[table['model'] == '2-D']
    if case == 'constant':
        table['dice'] = 0.9
    if case == 'nobody':
        table['dice'] = np.nan
    found = factorial_anova(table, 'dice', ['model', 'muscle'])
    pairs = compare_levels(table, 'dice', 'model', by='muscle')
    for analysis in (found, pairs):
        assert (analysis.table['p'].notna() | analysis.table['reason'].notna()).all()
        assert 'nan' not in analysis.sentences[0]
    assert found.table['p'].isna().any()
