"""Summaries of an evaluation, against scipy and pingouin."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.statistics.evaluation import (
    ACCURACY,
    agreements,
    compare_maps,
    evaluation_dictionary,
    summarise,
)

LABELS = {label.index: label for label in load_label_table('lumbar') if label.index <= 3}


@pytest.fixture(scope='module')
def table() -> pd.DataFrame:
    """Ten scans of three muscles, one of them outlined nowhere in the last scan."""
    random = np.random.default_rng(5)
    rows = []
    for scan in range(10):
        reference = np.zeros((20, 12, 4), np.uint8)
        for label in LABELS:
            width = random.integers(3, 6)
            reference[6 * (label - 1) : 6 * (label - 1) + width, 3 : random.integers(6, 11)] = (
                label
            )
        test = reference.copy()
        test[random.random(test.shape) < 0.2] = 0
        if scan == 9:
            test[test == 3] = 0
        fat = random.random(test.shape)
        signals = 100 * (1 - fat), 100 * fat
        compared = compare_maps(test, reference, LABELS, (1.0, 1.0, 4.0), 4.0, fat, signals)
        who = {'participant_id': f'sub-{scan}', 'scan': f'sub-{scan}_ses-1'}
        rows += [who | row for row in compared]
    return pd.DataFrame(rows)


def test_every_column_is_defined(table: pd.DataFrame) -> None:
    for each in (table, summarise(table), agreements(table)):
        assert set(each.columns) <= set(evaluation_dictionary())


def test_summaries_are_those_of_pandas(table: pd.DataFrame) -> None:
    summary = summarise(table).set_index(['muscle', 'side', 'measure'])
    for (muscle, side), group in table.groupby(['muscle', 'side']):
        for name in ACCURACY:
            values = group[name]
            row = summary.loc[(muscle, side, name)]
            assert row['n'] == values.count()
            assert row['mean'] == pytest.approx(values.mean(), nan_ok=True)
            assert row['n_failed'] == (values == -inf).sum()
            assert row['sd'] == pytest.approx(values.std(), nan_ok=True)
            assert row['se'] == pytest.approx(values.sem(), nan_ok=True)
    overall = summary.loc[('all', 'all', 'dice')]
    assert overall['mean'] == pytest.approx(table.groupby('scan')['dice'].mean().mean())
    failed = summary.loc[('erector spinae', 'right', 'conformity')]
    assert (failed['n'], failed['n_failed'], failed['mean']) == (10, 1, -inf)
    assert failed['median'] == pytest.approx(table.query('index == 3')['conformity'].median())
    low, high = stats.t.interval(0.95, 9, overall['mean'], overall['se'])
    assert overall['ci'] == pytest.approx((high - low) / 2)
    missed = summary.loc[('erector spinae', 'right', 'mean_boundary_distance_mm')]
    assert (missed['n'], missed['n_missing']) == (9, 1)


def test_agreement_leaves_out_a_muscle_that_was_missed(table: pd.DataFrame) -> None:
    import pingouin

    found = agreements(table).set_index(['index', 'measure'])
    for index, group in table.groupby('index'):
        row = found.loc[(index, 'volume_ml')]
        known = group[group['volume_test_ml'] > 0]
        test, reference = known['volume_test_ml'], known['volume_reference_ml']
        assert (row['n'], row['n_missing']) == ((9, 1) if index == 3 else (10, 0))
        assert row['mae'] == pytest.approx((test - reference).abs().mean())
        assert row['rmse'] == pytest.approx(((test - reference) ** 2).mean() ** 0.5)
        assert row['pearson_r'] == pytest.approx(stats.pearsonr(test, reference).statistic)
        long = known.melt('scan', ['volume_test_ml', 'volume_reference_ml'], 'rater', 'ml')
        icc = pingouin.intraclass_corr(long, 'scan', 'rater', 'ml').set_index('Type')
        kind = 'ICC2' if 'ICC2' in icc.index else 'ICC(A,1)'
        assert row['icc'] == pytest.approx(icc.loc[kind, 'ICC'], abs=1e-6)


def test_more_scans_of_the_same_people_make_no_interval_narrower(table: pd.DataFrame) -> None:
    again = [
        table.assign(scan=table['scan'].str.replace('ses-1', f'ses-{session}'))
        for session in (1, 2, 3)
    ]
    three = pd.concat(again, ignore_index=True)
    over_scans = ['n_scans', 'sd_scans']
    once, more = summarise(table), summarise(three)
    pd.testing.assert_frame_equal(more.drop(columns=over_scans), once.drop(columns=over_scans))
    assert more['n_scans'].tolist() == (3 * once['n_scans']).tolist()
    pd.testing.assert_frame_equal(agreements(three), agreements(table))


def test_people_count_with_the_mean_of_their_scans_and_agree_in_the_first(
    table: pd.DataFrame,
) -> None:
    """Pairs of the ten scans are taken for sessions of five people."""
    number = table['scan'].str[4].astype(int)
    people = table.assign(participant_id='sub-' + (number // 2).astype(str))
    dice = table.groupby(['index', number // 2])['dice'].mean()
    summary = summarise(people).set_index(['index', 'measure'])
    agreed = agreements(people).set_index(['index', 'measure'])
    for index, group in people.groupby('index'):
        row = summary.loc[(index, 'dice')]
        low, high = stats.t.interval(0.95, 4, 0, stats.sem(dice[index]))
        assert (row['n'], row['n_scans']) == (5, 10)
        assert row['ci'] == pytest.approx((high - low) / 2)
        assert row['sd_scans'] == pytest.approx(group['dice'].std())
        first = group[number[group.index] % 2 == 0]
        off = first['volume_test_ml'] - first['volume_reference_ml']
        found = agreed.loc[(index, 'volume_ml')]
        assert (found['n'], found['n_missing']) == (5, 0)
        assert found['loa_high'] == pytest.approx(off.mean() + 1.96 * off.std())
    failed = summary.loc[(3, 'conformity')]
    assert (failed['n_failed'], failed['mean']) == (1, -inf)
    # Where the first scan has no pair, the next one counts.
    missed = people.assign(volume_test_ml=people['volume_test_ml'].where(number > 0, 0))
    assert set(agreements(missed)['n']) == {5}


def test_people_of_two_datasets_are_two(table: pd.DataFrame) -> None:
    other = table.assign(scan='b/' + table['scan'])
    both = pd.concat([table.assign(scan='a/' + table['scan']), other], ignore_index=True)
    assert summarise(both).loc[0, 'n'] == 20
    assert agreements(both)['n'].max() == 20


def test_what_nobody_outlined_is_no_background() -> None:
    """A reader has outlined one muscle of two, on every third slice."""
    whole = np.zeros((20, 10, 12), np.uint8)
    whole[2:6, 2:8, 1:11], whole[12:16, 2:8, 1:11] = 1, 2
    reference = np.where(whole == 1, whole, 0)
    reference[:, :, np.arange(12) % 3 != 1] = 0
    fat = np.broadcast_to(np.linspace(0, 1, 12), whole.shape)
    drawn, other, _ = compare_maps(whole, reference, LABELS, (1.0, 1.0, 5.0), 5.0, fat)
    for name in ('dice', 'jaccard', 'conformity', 'precision', 'specificity', 'volume_ratio'):
        assert drawn[name] == 1, name
    assert drawn['volume_test_ml'] == drawn['volume_reference_ml']
    assert drawn['mfi_test_pct'] == pytest.approx(drawn['mfi_reference_pct'])
    assert isnan(drawn['hd95_mm']) and 'some slices only' in drawn['reason']
    assert all(isnan(other[name]) for name in ACCURACY)
    assert other['reason'] == 'not in the reference'
    # A muscle that the test has missed is none of these.
    missed, *_ = compare_maps(whole * 0, whole, LABELS, (1.0, 1.0, 5.0), 5.0)
    assert (missed['dice'], missed['conformity']) == (0, -inf)
    # Nor is a stray voxel above a muscle a reference of single slices, nor are discs.
    short, stray = whole.copy(), whole.copy()
    short[:, :, 8:], stray[:, :, 8:] = 0, 0
    stray[0, 0, 11] = 1
    for each in (short, stray):
        found, *_ = compare_maps(whole, each, LABELS, (1.0, 1.0, 5.0), 5.0)
        assert found['reason'] is None and found['volume_ratio'] > 1.3
    disc = {2: load_label_table('spine').by_index[2]}
    (found,) = compare_maps(whole, reference * 2, disc, (1.0, 1.0, 5.0), 5.0)
    assert found['dice'] == 0


def test_says_why_there_is_no_mfi_and_no_overlap() -> None:
    reference = np.zeros((8, 4, 2), np.uint8)
    reference[:2], reference[2:4] = 1, 2
    beside = compare_maps(np.roll(reference, 4, 0), reference, LABELS, (1.0, 1.0, 1.0), 1.0)
    assert [row['dice'] for row in beside[:2]] == [0, 0]
    assert 'no overlap' in beside[0]['reason']
    assert beside[2]['reason'] == 'not in the test and the reference'
    assert isnan(beside[2]['dice'])
    who = {'participant_id': 'sub-1', 'scan': 'a'}
    found = agreements(pd.DataFrame([who | row for row in beside]))
    for measure, reason in (
        ('mfi_pct', 'there is no fat fraction'),
        ('mfi_ratio_pct', 'there are no water and fat images'),
    ):
        assert set(found.loc[found['measure'] == measure, 'reason']) == {reason}
