"""Rows of people's tables find their participants, sessions and scans, or are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.dataset.labelled import Labelled, read_labelled, read_scans_table, read_sessions

LABELS = ('01', '02', '10')


def _read(tmp_path: Path, text: str, labels: tuple[str, ...] | None = LABELS) -> Labelled:
    path = tmp_path / 'participants.tsv'
    path.write_text(text)
    return read_labelled(path, 'participant_id', 'sub-', labels)


@pytest.mark.parametrize(
    'ids',
    [
        ('sub-01', 'sub-02', 'sub-10'),
        ('01', '02', '10'),
        ('1', '2', '10'),
        ('1.0', '2.0', '10.0'),
        ('SUB-01', 'Sub-02', 'sub-10'),
        ('sub01', 'sub_02', 'sub 10'),
        ('sub-001', 'sub-2', '010'),
    ],
)
@pytest.mark.parametrize('header', ['participant_id', 'Subject', 'Participant ID', 'ID'])
def test_ids_are_read_as_the_labels_that_they_mean(
    tmp_path: Path, ids: tuple[str, ...], header: str
) -> None:
    table = _read(
        tmp_path, '\n'.join([f'{header}\tage', *(f'{each}\t3{each[-1]}' for each in ids)])
    )
    assert sorted(table.rows) == list(LABELS)
    assert len({row['age'] for row in table.rows.values()}) == (1 if ids[0] == '1.0' else 3)
    exact = ids[0].removeprefix('sub-') == '01' and ids[1].removeprefix('sub-') == '02'
    assert len(table.remarks) == (not exact) + (header != 'participant_id')


def test_clean_tables_give_no_remark(tmp_path: Path) -> None:
    text = 'participant_id\tage\nsub-01\t30\nsub-02\tn/a\nsub-10\t89+\n'
    assert _read(tmp_path, text).remarks == ()
    assert read_labelled(tmp_path / 'absent.tsv', 'participant_id', 'sub-', LABELS) == Labelled()


def test_a_row_that_may_be_of_two_is_of_nobody(tmp_path: Path) -> None:
    table = _read(tmp_path, 'participant_id\tage\n1\t30\n01\t40\n', ('01', '001'))
    assert table.rows == {'01': {'age': '40'}, '1': {'age': '30'}}
    assert table.remarks[0] == '1 row of participants.tsv fits no participant of the dataset: 1.'
    assert table.remarks[1] == '1 participant has no row in participants.tsv: sub-001.'
    table = _read(tmp_path, 'participant_id\tage\n1\t30\n001\t40\n', ('01',))
    assert '01' not in table.rows


def test_who_fits_nobody_and_who_has_no_row_are_named_up_to_ten(tmp_path: Path) -> None:
    rows = '\n'.join(f'sub-x{k}\t1' for k in range(12))
    table = _read(tmp_path, f'participant_id\tage\nsub-01\t30\n{rows}')
    unfit, lacking = table.remarks
    assert unfit.startswith('12 rows of participants.tsv fit no participant')
    assert 'sub-x9 and 2 more.' in unfit
    assert lacking == '2 participants have no row in participants.tsv: sub-02, sub-10.'


def test_doubled_rows_are_joined_where_they_agree(tmp_path: Path) -> None:
    text = 'participant_id\tage\tsex\tbmi\nsub-01\t30\tF\tn/a\n01\t31\tF\t22\n'
    table = _read(tmp_path, text, ('01',))
    assert table.rows == {'01': {'age': 'n/a', 'sex': 'F', 'bmi': '22'}}
    assert table.remarks == (
        'participants.tsv has rows that contradict each other for sub-01 (in age). What differs '
        'is left out. Keep one row for each.',
    )
    assert _read(tmp_path, 'participant_id\tage\nsub-01\t3\nsub-01\t3\n', ('01',)).remarks == ()
    # One sentence for a table with a row for each session of everybody.
    labels = [f'{k:02d}' for k in range(30)]
    rows = ''.join(f'sub-{label}\t{age}\n' for label in labels for age in (30, 31))
    [remark] = _read(tmp_path, f'participant_id\tage\n{rows}', labels).remarks
    assert 'sub-09 (in age) and 20 more' in remark


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('', 'is empty'),
        ('age\tsex\n30\tF\n', 'has no column participant_id'),
        ('\x00\x01\x02\x03', 'is not a table of text'),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, why: str) -> None:
    table = _read(tmp_path, text)
    assert table.rows == {}
    assert why in table.remarks[0]


def test_sessions_and_scans(tmp_path: Path) -> None:
    folder = tmp_path / 'sub-01/ses-pre'
    folder.mkdir(parents=True)
    (tmp_path / 'sub-01/sub-01_sessions.tsv').write_text(
        'session_id;acq_time\nSES-PRE;2020-01-01T10:00:00\nses-post;2020-03-01T10:00:00\n'
    )
    sessions = read_sessions(tmp_path, '01', ['pre', 'post'])
    assert sessions.rows['pre']['acq_time'].startswith('2020-01')
    assert sessions.rows['post']['acq_time'].startswith('2020-03')
    assert len(sessions.remarks) == 2
    (folder / 'sub-01_ses-pre_scans.tsv').write_text(
        'filename\tacq_time\nanat\\sub-01_ses-pre_T1w.nii.gz\t2020-01-01T10:00:00\n'
    )
    assert list(read_scans_table(tmp_path, '01', 'pre').rows) == ['sub-01_ses-pre_T1w']
    assert read_scans_table(tmp_path, '01') == Labelled()
