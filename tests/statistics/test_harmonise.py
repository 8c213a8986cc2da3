"""ComBat against neuroCombat, and planted differences between sites."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from cohorts import people, values

from bids_muscle.statistics.harmonise import combat, harmonise


def sites(n: int = 60, k: int = 4, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Three sites: the second is 3 higher, the third spreads twice as much."""
    who = people(n, seed)
    who['site'] = np.array(['a', 'b', 'c'])[np.arange(n) % 3]
    wide = values(who, k, seed)
    wide[who['site'] == 'b'] += 3
    wide[who['site'] == 'c'] = 12 + 2 * (wide[who['site'] == 'c'] - 12)
    wide.index = pd.MultiIndex.from_product([wide.index, ['n/a']])
    return wide, who


def test_combat_agrees_with_neurocombat() -> None:
    reference = pytest.importorskip('neuroCombat')
    wide, who = sites()
    who['female'] = (who['sex'] == 'F').astype(float)
    covariates = ['age', 'bmi', 'female']
    with contextlib.redirect_stdout(io.StringIO()):
        expected = reference.neuroCombat(
            dat=wide.to_numpy().T,
            covars=who[['site', *covariates]],
            batch_col='site',
            continuous_cols=covariates,
        )
    number = who['site'].map({'a': 0, 'b': 1, 'c': 2}).to_numpy()
    found = combat(wide.to_numpy(), number, who[covariates].to_numpy())
    np.testing.assert_allclose(found.values, expected['data'].T, rtol=1e-6)
    estimates = expected['estimates']
    spread = np.sqrt(estimates['var.pooled']).T
    np.testing.assert_allclose(found.shift, estimates['gamma.star'] * spread, rtol=1e-6)
    np.testing.assert_allclose(found.scale**2, estimates['delta.star'], rtol=1e-6)


def test_planted_differences_go_and_effects_stay() -> None:
    wide, who = sites(300)
    harmonised, differences, removed = harmonise(wide, who)
    assert (differences.table['p_holm'] < 1e-6).all()
    assert 'n = 300' in differences.sentences[0]
    shift = removed.table.pivot(index='site', columns='muscle', values='shift')
    np.testing.assert_allclose(shift.loc['b'] - shift.loc['a'], 3, atol=1.2)
    _, again, _ = harmonise(harmonised, who)
    assert (again.table['p'] > 0.5).all()
    sex = harmonised.groupby(who['sex'].to_numpy()).mean()
    np.testing.assert_allclose(sex.loc['F'] - sex.loc['M'], 1.5, atol=1)


def test_a_missing_muscle_costs_only_itself() -> None:
    wide, who = sites()
    holed = wide.copy()
    holed.iloc[3, 1] = np.nan
    found = harmonise(holed, who)[0]
    pd.testing.assert_series_equal(found.isna().sum(), holed.isna().sum())
    np.testing.assert_allclose(found, harmonise(wide, who)[0].where(holed.notna()), atol=0.3)


def test_who_has_no_site_is_left_out() -> None:
    wide, who = sites()
    who.iloc[:6, who.columns.get_loc('site')] = np.nan
    found, differences, _ = harmonise(wide, who)
    assert found.isna().all(axis=1).tolist() == [True] * 6 + [False] * 54
    assert set(differences.table['n_excluded']) == {6}


@pytest.mark.parametrize(
    ('site', 'reason'),
    [
        ('x', '1 site only'),
        (np.nan, 'site is missing for all participants'),
        (['x'] * 58 + ['y'] * 2, 'site y has fewer than 3'),
        ('sex', 'collinear'),
    ],
)
def test_what_cannot_be_harmonised_stays_and_says_why(site: object, reason: str) -> None:
    wide, who = sites()
    who['site'] = who['sex'] if site == 'sex' else site
    found, differences, removed = harmonise(wide, who)
    pd.testing.assert_frame_equal(found, wide)
    for analysis in (differences, removed):
        assert reason in analysis.sentences[0]
        assert analysis.table['reason'].str.contains(reason).all()


def test_one_muscle_and_constant_values() -> None:
    wide, who = sites(k=1)
    found = harmonise(wide, who)[0]
    assert harmonise(wide, who)[1].table['p'].item() < 1e-3
    assert harmonise(found, who)[1].table['p'].item() > 0.9
    assert 'is the same in all' in harmonise(wide * 0 + 7, who)[2].sentences[0]


def test_the_effect_of_age_is_kept_where_sites_differ_in_age() -> None:
    """People in the south are 20 years older, and measured 5 more; fat grows by 0.2 a year."""
    rng = np.random.default_rng(3)
    south = np.arange(80) % 2 == 1
    age = rng.normal(np.where(south, 55, 35), 8)
    who = pd.DataFrame(
        {
            'site': np.where(south, 'south', 'north'),
            'age': age,
            'sex': rng.choice(['F', 'M'], 80),
            'bmi': rng.normal(26, 4, 80),
        },
        index=[f'sub-{k:02d}' for k in range(80)],
    )
    data = (0.2 * age + 5 * south)[:, None] + rng.normal(0, 1, (80, 4)) + rng.normal(0, 1, (80, 1))
    index = pd.MultiIndex.from_product([who.index, ['n/a']])
    wide = pd.DataFrame(data, index, [f'muscle {k}' for k in range(4)])
    free = harmonise(wide, who)[0].droplevel(1)
    for muscle in free:
        assert np.polyfit(age, wide[muscle].to_numpy(), 1)[0] > 0.3
        assert np.polyfit(age, free[muscle], 1)[0] == pytest.approx(0.2, abs=0.06)
    means = (free.mean(axis=1) - 0.2 * age).groupby(who['site']).mean()
    assert abs(means['south'] - means['north']) < 1.2
