"""Norms and statistics take the age that a person had at a session, where sessions.tsv has it."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pandas as pd
import pytest
from cohorts import MEASURE, group_table
from test_group_level import group, stats, write_outputs

from bids_muscle.cli.norms import main as norms_main
from bids_muscle.errors import ExitCode
from bids_muscle.reports.participant import write_participant_report


def cohort(n: int, **options: int) -> pd.DataFrame:
    """Return a cohort of two muscles."""
    table = group_table(n, **options)
    return table[table['muscle'].isin(['trapezius', 'levator scapulae'])]


@pytest.fixture(scope='module')
def norms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return norms of 84 people, 65 of them women."""
    folder = tmp_path_factory.mktemp('norms')
    output_dir, file = write_outputs(cohort(84), folder / 'out'), folder / 'norms.json'
    assert group(output_dir) == ExitCode.OK
    words = ['build', str(output_dir), '--output', str(file), '--population', 'planted people']
    assert norms_main(words) == ExitCode.OK
    return file


def raw_dataset(root: Path, people: str, sessions: str, *labels: str) -> Path:
    """Write participants.tsv, and the same sessions.tsv for everybody."""
    for label in labels:
        for session in ('1', '2'):
            (root / f'sub-{label}/ses-{session}/anat').mkdir(parents=True)
        (root / f'sub-{label}/sub-{label}_sessions.tsv').write_text(sessions)
    (root / 'participants.tsv').write_text(people)
    return root


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False)


def ages(path: Path) -> dict[str, str]:
    """Return the age of each session."""
    table = read(path).drop_duplicates(['session_id', 'age'])
    return dict(zip(table['session_id'], table['age'], strict=True))


def test_a_follow_up_is_placed_at_its_own_age(norms: Path, tmp_path: Path) -> None:
    """The same values 20 years later are less fat for their age than they were."""
    table = cohort(2, sessions=2, seed=3).copy()
    first = table[table['session_id'] == 'ses-1']
    table.loc[table['session_id'] == 'ses-2', MEASURE] = first[MEASURE].to_list()
    output_dir = write_outputs(table, tmp_path / 'out')
    people = 'participant_id\tsex\tage\tbmi\nsub-01\tF\t25\t25\nsub-02\tF\t25\t25\n'
    sessions = 'session_id\tage\nses-1\t25\nses-2\t045Y\n'
    raw = raw_dataset(tmp_path / 'raw', people, sessions, '01', '02')
    assert group(output_dir, '--norms', norms, bids_dir=raw) == ExitCode.OK
    assert ages(output_dir / 'group_centiles.tsv') == {'ses-1': '25', 'ses-2': '45'}
    assert ages(output_dir / 'group_muscles.tsv') == {'ses-1': '25', 'ses-2': '45'}
    assert ages(output_dir / 'group_wide.tsv') == {'ses-1': '25', 'ses-2': '45'}
    table = read(output_dir / 'group_centiles.tsv')
    assert set(table['remark']) == {'n/a'}
    by_session = table[table['name'] == 'left trapezius'].pivot(
        index='participant_id', columns='session_id', values='z'
    )
    z = by_session.astype(float)
    assert (z['ses-2'] < z['ses-1'] - 0.1).all()
    entries = json.loads((output_dir / 'group_muscles.json').read_text())
    assert 'sessions.tsv' in entries['age']['Description']
    assert 'sessions.tsv' not in entries['sex']['Description']


def test_the_age_of_years_before_is_said(norms: Path, tmp_path: Path) -> None:
    output_dir = write_outputs(cohort(1, sessions=2, seed=3), tmp_path / 'out')
    people = 'participant_id\tsex\tage\tbmi\nsub-01\tF\t25\t25\n'
    sessions = 'session_id\tacq_time\nses-1\t2010-01-01\nses-2\t2020-01-01\n'
    raw = raw_dataset(tmp_path / 'raw', people, sessions, '01')
    assert group(output_dir, '--norms', norms, bids_dir=raw) == ExitCode.OK
    table = read(output_dir / 'group_centiles.tsv').groupby('session_id')['remark'].first()
    assert table['ses-1'] == 'n/a'
    assert 'more than a year after the first one' in table['ses-2']
    # It is not said of a session soon after.
    path = raw / 'sub-01/sub-01_sessions.tsv'
    path.write_text(sessions.replace('2020', '2010'))
    assert group(output_dir, '--norms', norms, bids_dir=raw) == ExitCode.OK
    assert set(read(output_dir / 'group_centiles.tsv')['remark']) == {'n/a'}


def test_ages_that_only_sessions_tsv_has_are_not_lost(tmp_path: Path) -> None:
    """The analyses take that of the first session, here the second by name."""
    table = cohort(30, sessions=2)
    output_dir = write_outputs(table.drop(columns='age'), tmp_path / 'out')
    given = table.drop_duplicates('participant_id').set_index('participant_id')
    labels = [who.removeprefix('sub-') for who in given.index]
    lines = [f'{who}\t{row["sex"]}\t{row["bmi"]}\n' for who, row in given.iterrows()]
    raw = raw_dataset(tmp_path / 'raw', 'participant_id\tsex\tbmi\n' + ''.join(lines), '', *labels)
    for who, row in given.iterrows():
        age = float(row['age'])
        (raw / f'{who}/{who}_sessions.tsv').write_text(
            f'session_id\tage\tacq_time\nses-1\t{age + 3}\t2013-01-01\nses-2\t{age}\t2010-01-01\n'
        )
    assert group(output_dir, bids_dir=raw) == ExitCode.OK
    found = stats(output_dir, 'rm_ancova')
    assert set(found['controlled']) == {'sex, age, bmi'}
    assert f'"age": {float(given["age"].iloc[0]):g}' in (output_dir / 'group.html').read_text()
    reference = write_outputs(
        table.assign(session_id=table['session_id'].map({'ses-1': 'ses-b', 'ses-2': 'ses-a'})),
        tmp_path / 'reference',
    )
    assert group(reference, '--session-order', 'a', 'b') == ExitCode.OK
    pd.testing.assert_frame_equal(found, stats(reference, 'rm_ancova'))


def test_the_page_of_a_participant_says_the_age_of_each_scan(norms: Path, tmp_path: Path) -> None:
    table = cohort(1, sessions=2, seed=3).assign(sex='F', age='25', bmi='25')
    for session, age in (('ses-1', '25'), ('ses-2', '45')):
        part = table[table['session_id'] == session]
        output_dir = write_outputs(part, tmp_path / 'out', session_info={'age': age})
    assert group(output_dir, '--norms', norms) == ExitCode.OK
    page = html.unescape(write_participant_report(output_dir, '01').read_text())
    assert 'for sex, age (25 years)' in page
    assert 'for sex, age (45 years)' in page
    assert '25, 45' in page
