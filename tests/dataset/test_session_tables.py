"""What sessions.tsv and scans.tsv say about a session."""

from __future__ import annotations

from pathlib import Path

from bids_muscle.dataset.sessions import read_person, read_session_info, read_visits


def write(path: Path, *rows: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join('\t'.join(row) + '\n' for row in rows), encoding='utf-8-sig')


def test_the_time_of_scans_goes_before_that_of_the_session(tmp_path: Path) -> None:
    folder = tmp_path / 'sub-01'
    for session in ('pre', 'post'):
        (folder / f'ses-{session}').mkdir(parents=True)
    assert read_session_info(tmp_path, '01', 'pre') == {}
    write(
        folder / 'sub-01_sessions.tsv',
        ('session_id', 'acq_time', 'days'),
        ('ses-post', '2020-03-01', '60'),
        ('pre', '2020-01-01', 'n/a'),
    )
    assert read_session_info(tmp_path, '01', 'pre') == {'acq_time': '2020-01-01'}
    assert read_session_info(tmp_path, '01', 'post') == {'acq_time': '2020-03-01', 'days': '60'}
    write(
        folder / 'ses-post/sub-01_ses-post_scans.tsv',
        ('filename', 'acq_time'),
        ('anat/b.nii.gz', '2020-03-02T10:00:00'),
        ('anat/c.nii.gz', 'n/a'),
        ('anat/a.nii.gz', '2020-03-02T09:30:00'),
    )
    assert read_session_info(tmp_path, '01', 'post')['acq_time'] == '2020-03-02T09:30:00'
    write(folder / 'sub-01_scans.tsv', ('filename', 'acq_time'), ('anat/a.nii.gz', '1999-01-01'))
    assert read_session_info(tmp_path, '01', None) == {'acq_time': '1999-01-01'}


def test_the_earliest_time_is_that_of_the_clock_not_of_the_alphabet(tmp_path: Path) -> None:
    (tmp_path / 'sub-01').mkdir()
    write(
        tmp_path / 'sub-01/sub-01_scans.tsv',
        ('filename', 'acq_time'),
        ('anat/a.nii.gz', '2020-03-02 10:00:00'),
        ('anat/b.nii.gz', '2020-03-02T09:30:00'),
        ('anat/c.nii.gz', '20200303T080000'),
        ('anat/d.nii.gz', '1900'),
    )
    assert read_session_info(tmp_path, '01', None) == {'acq_time': '2020-03-02T09:30:00'}


def test_tables_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    folder = tmp_path / 'sub-01'
    (folder / 'ses-pre').mkdir(parents=True)
    for content in (b'', b'\xff\xfe\x00', b'session_id\nses-pre\textra\n', b'\n\n'):
        (folder / 'sub-01_sessions.tsv').write_bytes(content)
        assert read_session_info(tmp_path, '01', 'pre') == {}


def test_people_without_raw_data_are_left_to_their_records(tmp_path: Path) -> None:
    (tmp_path / 'sub-01').mkdir()
    assert read_visits(tmp_path, ['01', '02']) == ({'01': {None: {}}}, [])


def test_how_a_table_was_read_is_said(tmp_path: Path) -> None:
    (tmp_path / 'sub-01/ses-02').mkdir(parents=True)
    path = tmp_path / 'sub-01/sub-01_sessions.tsv'
    path.write_text('session_id,acq_time\n2,2020-01-01\n7,2021-01-01\n', encoding='utf-16')
    visits, remarks = read_visits(tmp_path, ['01'])
    assert visits['01']['02'] == {'acq_time': '2020-01-01'}
    assert any('UTF-16' in each for each in remarks)
    assert any('fits no session of the dataset: 7' in each for each in remarks)


def test_a_person_has_the_age_and_weight_of_the_session(tmp_path: Path) -> None:
    folder = tmp_path / 'sub-01'
    for session in ('1', '2', '3'):
        (folder / f'ses-{session}').mkdir(parents=True)
    write(
        tmp_path / 'participants.tsv',
        ('participant_id', 'sex', 'age', 'weight', 'height', 'bmi'),
        ('sub-01', 'F', '8', '25', '125', '16'),
    )
    write(
        folder / 'sub-01_sessions.tsv',
        ('session_id', 'age', 'weight', 'height'),
        ('ses-1', '8', 'n/a', 'n/a'),
        ('ses-2', '018Y', '64 kg', '1.6'),
        ('ses-3', '999', '300 stone', 'n/a'),
    )
    first = {'sex': 'F', 'age': '8', 'weight': '25', 'height': '125', 'bmi': '16'}
    assert read_person(tmp_path, '01', '1') == first
    assert read_person(tmp_path, '01', '2') == {
        **first,
        'age': '18',
        'weight': '64',
        'height': '1.6',
        'bmi': '25',
    }
    assert read_person(tmp_path, '01', '3') == first
    assert read_person(tmp_path, '01', None) == first
    _, remarks = read_visits(tmp_path, ['01'])
    assert any('age is impossible and set to missing for ses-3 (999)' in each for each in remarks)
    assert any('weight is not a number' in each and 'ses-3' in each for each in remarks)
    (tmp_path / 'sessions.json').write_text('{"age": {"Units": "months"}}')
    assert read_person(tmp_path, '01', '2')['age'] == '8'
    assert any('age is in months' in each for each in read_visits(tmp_path, ['01'])[1])
