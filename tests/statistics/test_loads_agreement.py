"""Loads by two segmentations, as in Table 8 of Hess 2022."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.statistics.loads import compare_loads

LEVELS = ('L1', 'L2', 'L3')


def people(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for person in range(count):
        for level, mean in zip(LEVELS, (1500, 2000, 2500), strict=True):
            reference = rng.normal(mean, 300)
            test = reference + rng.normal(50, 100)
            rows.append((f'sub-{person}', 'flexion', level, test, reference))
    columns = ['participant_id', 'task', 'level', 'test_n', 'reference_n']
    return pd.DataFrame(rows, columns=columns)


def test_each_level_is_compared_as_scipy_does() -> None:
    table = people(9)
    found = compare_loads(table).set_index('level')
    assert set(found.reset_index()) == set(read_dictionary('evaluation_loads'))
    assert list(found.index) == ['all', *LEVELS]
    for level in LEVELS:
        part = table[table['level'] == level]
        off = (part['test_n'] - part['reference_n']).abs()
        r, p = stats.pearsonr(part['test_n'], part['reference_n'])
        low, high = stats.t.interval(0.95, 8, off.mean(), stats.sem(off))
        row = found.loc[level]
        assert row['pearson_r'] == pytest.approx(r)
        assert row['pearson_p'] == pytest.approx(p)
        assert row['mae_n'] == pytest.approx(off.mean())
        assert row['mae_ci_n'] == pytest.approx((high - low) / 2)
    assert found.loc['all', 'n'] == 27
    # A second session of the same people adds nobody.
    later = table.assign(test_n=table['test_n'] + 50)
    twice = compare_loads(pd.concat([table, later], ignore_index=True)).set_index('level')
    pd.testing.assert_frame_equal(twice, found)


def test_discs_without_a_load_do_not_count_and_few_discs_have_a_reason() -> None:
    table = people(4)
    table.loc[table['level'] == 'L1', 'test_n'] = np.nan
    found = compare_loads(table).set_index('level')
    assert found.loc['L1', 'n'] == 0
    assert 'pairs' in found.loc['L1', 'reason']
    assert found.loc['all', 'n'] == 8
