"""Agreement of scans of the same people: sessions, repeats in a session, contrasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import MEASURE, group_table

from bids_muscle.statistics.agreement import agreement
from bids_muscle.statistics.cohort import CohortAnalysis, analyse, muscle_means

MUSCLE = 'trapezius'


def in_sessions(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    visits = {'ses-1': one, 'ses-2': other}
    return pd.concat(
        [table.assign(session_id=name) for name, table in visits.items()], ignore_index=True
    )


def of_people(table: pd.DataFrame) -> pd.Series:
    """Return the mean of both sides of one muscle."""
    means = muscle_means(table, [MEASURE])
    return means[means['muscle'] == MUSCLE].set_index('participant_id')[MEASURE]


def row_of(found: dict[str, CohortAnalysis]) -> pd.Series:
    [row] = [row for _, row in found['agreement'].table.iterrows() if row['muscle'] == MUSCLE]
    return row


def one_visit(n: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a cohort, and the same with other values: 0.7 more, and noise."""
    table = group_table(n)
    noise = np.random.default_rng(0).normal(0.7, 0.3, len(table))
    return table, table.assign(**{MEASURE: (table[MEASURE].astype(float) + noise).map(repr)})


@pytest.mark.parametrize(
    ('changed', 'test', 'reference'),
    [
        ({'scan': 'sub-x_run-2'}, 'scan 2', 'scan 1'),
        ({'contrast': 'water+fat (echoes)'}, 'water+fat (echoes)', 'fat+water'),
    ],
)
def test_scans_of_the_same_people_are_compared(
    changed: dict[str, str], test: str, reference: str
) -> None:
    one, other = one_visit()
    # One of them was not scanned again.
    other = other.assign(**changed)[other['participant_id'] != 'sub-01']
    row = row_of(analyse(pd.concat([one, other], ignore_index=True)))
    assert (row['test'], row['reference'], row['n']) == (test, reference, 11)
    expected = agreement(of_people(other).to_numpy(), of_people(one).to_numpy()[1:])
    for name in ('bias', 'loa_low', 'loa_high', 'icc', 'icc_ci_low', 'pearson_r'):
        assert row[name] == pytest.approx(getattr(expected, name)), name
    assert row['bias'] == pytest.approx(0.7, abs=0.3)


def test_sessions_of_one_person_are_no_further_people() -> None:
    """Each person counts once, with the first session in time that has both scans."""
    one, other = one_visit()
    both = [one.assign(scan='a_run-1'), other.assign(scan='a_run-2')]
    first = pd.concat(both, ignore_index=True)
    # The alphabet has post before pre. Later scans of a session are 40 more than the first ones.
    far = other.assign(**{MEASURE: (other[MEASURE].astype(float) + 40).map(repr)})
    later = pd.concat([both[0], far.assign(scan='a_run-2')], ignore_index=True)
    alone = row_of(analyse(first.assign(session_id='ses-pre')))
    assert alone['n'] == 12
    visits = pd.concat(
        [first.assign(session_id='ses-pre'), later.assign(session_id='ses-post')],
        ignore_index=True,
    )
    repeats = analyse(visits)['agreement']
    of_repeats = repeats.table[repeats.table['test'] == 'scan 2'].set_index('muscle')
    pd.testing.assert_series_equal(of_repeats.loc[MUSCLE], alone.drop('muscle'), check_names=False)
    assert any('n = 12, each participant once' in each.sentence for each in repeats.findings)
    contrasts = visits.assign(contrast=np.where(visits['scan'] == 'a_run-2', 'w', 'fat+water'))
    found = analyse(contrasts)['agreement'].table
    own = found[(found['test'] == 'w') & (found['muscle'] == MUSCLE)].iloc[0]
    assert own[['n', 'bias', 'icc']].tolist() == alone[['n', 'bias', 'icc']].tolist()
    # Of who lacks the muscle in the first session, the second one counts.
    lost = (visits['participant_id'] == 'sub-01') & (visits['muscle'] == MUSCLE)
    lost &= visits['session_id'] == 'ses-pre'
    found = analyse(visits.assign(**{MEASURE: visits[MEASURE].mask(lost, 'n/a')}))['agreement']
    points = found.points['cervical', 'fat+water', MEASURE][MUSCLE, 'scan 2']
    assert len(points) == 12
    assert ((points[:, 0] - points[:, 1]) > 30).sum() == 1


def test_what_is_drawn_is_what_was_computed() -> None:
    one, other = one_visit()
    found = analyse(in_sessions(one, other))
    place = ('cervical', 'fat+water', MEASURE)
    drawn = found['agreement'].points[place][MUSCLE, 'ses-2']
    assert np.mean(drawn[:, 0] - drawn[:, 1]) == pytest.approx(row_of(found)['bias'])
    table = found['pearson'].table
    for (muscle, variable), points in found['pearson'].points[place].items():
        [r] = table[(table['muscle'] == muscle) & (table['variable'] == variable)]['r']
        assert np.corrcoef(points.T)[0, 1] == pytest.approx(r)


def test_scans_without_a_session_are_not_compared_over_time() -> None:
    one, other = one_visit()
    found = analyse(pd.concat([one, other.assign(session_id='ses-2')], ignore_index=True))
    assert 'agreement' not in found
    assert 'change' not in found


def test_one_scan_of_everybody_has_nothing_to_agree_with() -> None:
    assert 'agreement' not in analyse(group_table(5))
