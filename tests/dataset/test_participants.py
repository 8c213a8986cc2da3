"""participants.tsv is read whatever is wrong with it; the file of today decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_muscle.dataset.participants import (
    height_m,
    keep_participants,
    read_participant_info,
    read_participants,
    sex,
    weight_kg,
)


def _dataset(root: Path, text: str, *labels: str, definitions: object = None) -> Path:
    for label in labels:
        (root / f'sub-{label}').mkdir(parents=True)
    (root / 'participants.tsv').write_text(text)
    if definitions:
        (root / 'participants.json').write_text(json.dumps(definitions))
    return root


def test_rows_by_participant(tmp_path: Path) -> None:
    assert read_participants(tmp_path).rows == {}
    path = tmp_path / 'participants.tsv'
    path.write_text('participant_id\tage\tnote\nsub-02\t1\tx\nsub-01\t2\t"y\n')
    assert read_participants(tmp_path).rows == {
        '02': {'age': '1', 'note': 'x'},
        '01': {'age': '2', 'note': '"y'},
    }
    assert read_participant_info(tmp_path, '01') == {'age': '2', 'note': '"y'}
    assert read_participant_info(tmp_path, '03') == {}
    path.write_bytes(b'\xff\xfe\x00')
    assert read_participants(tmp_path).rows == {}
    assert read_participant_info(tmp_path, '01') == {}


def test_a_table_under_another_name_is_named(tmp_path: Path) -> None:
    (tmp_path / 'Participants.csv').write_text('participant_id,age\n1,30\n')
    (tmp_path / 'participants.json').write_text('{}')
    remark = 'Participants.csv is not read. Save it as participants.tsv.'
    assert read_participants(tmp_path).remarks == (remark,)
    (tmp_path / 'participants.tsv').write_text('participant_id\tage\nsub-1\t30\n')
    assert read_participants(tmp_path).remarks == ()


def test_the_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _dataset(tmp_path, 'participant_id\tage\nsub-01\t30\n', '01')
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, 'read_bytes', lambda path: reads.append(path) or read_bytes(path))
    for _ in range(100):
        assert read_participant_info(tmp_path, '01') == {'age': '30'}
    assert len(reads) <= 2


def test_a_clean_table_gives_no_remark(tmp_path: Path) -> None:
    text = (
        'participant_id\tage\tsex\theight\tweight\tBMI\tgroup\n'
        'sub-01\t30\tF\t172\t72.5\t24.5\tcontrol, old\nsub-02\t89+\tO\t1.8\tn/a\tn/a\tx\n'
    )
    table = read_participants(_dataset(tmp_path, text, '01', '02'))
    assert table.remarks == ()
    assert table.rows['01']['group'] == 'control, old'


@pytest.mark.parametrize(
    ('column', 'cell', 'read'),
    [
        ('age', '034Y', '34'),
        ('age', '34 years', '34'),
        ('Age (years)', '34y', '34'),
        ('age', '34', '34'),
        ('age', '-999', 'n/a'),
        ('age', '999', 'n/a'),
        ('age', '3_4', '3_4'),
        ('age', '>89', '>89'),
        ('height', '172 cm', '172'),
        ('height_cm', '172', '172'),
        ('height', '17', 'n/a'),
        ('weight (kg)', '72.5 kg', '72.5'),
        ('BMI', '24.5 kg/m2', '24.5'),
        ('sex', '1', 'M'),
        ('sex', '3', '3'),
        ('gender', 'W', 'F'),
        ('sex', 'Male', 'Male'),
    ],
)
def test_numbers_and_words_that_leave_no_doubt(
    tmp_path: Path, column: str, cell: str, read: str
) -> None:
    definitions = {'sex': {'Levels': {'1': 'male', '2': {'Description': 'Female'}, '3': 'any'}}}
    text = f'participant_id\t{column}\nsub-01\t{cell}\n'
    table = read_participants(_dataset(tmp_path, text, '01', definitions=definitions))
    assert table.rows['01'] == {column: read}
    clean = read == cell and cell not in ('>89', '3_4', '3')
    assert len(table.remarks) == (not clean)


def test_inches_of_adults_are_no_centimetres(tmp_path: Path) -> None:
    people = {'01': '40\t68', '02': '89+\t60', '03': '17\t68', '04': 'n/a\t68', '05': '18\t1.2'}
    lines = ''.join(f'sub-{label}\t{cells}\n' for label, cells in people.items())
    table = read_participants(_dataset(tmp_path, f'participant_id\tage\theight\n{lines}', *people))
    (remark,) = table.remarks
    assert 'set to missing for sub-01 (68), sub-02 (60). Give it in m or cm' in remark
    assert [table.rows[label]['height'] for label in people] == ['n/a', 'n/a', '68', '68', '1.2']
    heights = [height_m(table.rows[label]) for label in people]
    assert heights == [None, None, 0.68, 0.68, 1.2]


def test_units_that_are_not_ours_are_not_taken_for_them(tmp_path: Path) -> None:
    text = 'participant_id\tweight\theight\nsub-01\t160\t172\n'
    definitions = {'weight': {'Units': 'lbs'}, 'height': {'Units': 'cm'}}
    table = read_participants(_dataset(tmp_path, text, '01', definitions=definitions))
    assert weight_kg(table.rows['01']) is None
    assert height_m(table.rows['01']) == 1.72
    assert 'weight is in lbs' in table.remarks[0]


def test_codes_for_what_is_missing_are_no_numbers(tmp_path: Path) -> None:
    """A code with a name stays, and so does a number that others come close to."""
    lines = [
        'participant_id\tpain\tscore\tz\tstage\tdose\tsite',
        'sub-01\t3\t-9\t-0.5\t1\t80\t1',
        'sub-02\t-999\t5\t-999.0\t9\t99\t99',
        'sub-03\t999\t12\t1.5\t-9\t50\t2',
    ]
    root = _dataset(
        tmp_path,
        '\n'.join(lines),
        *('01', '02', '03'),
        definitions={'stage': {'Levels': {'1': 'early', '9': 'late', '-9': 'other'}}},
    )
    table = read_participants(root)
    cells = {
        name: [table.rows[label][name] for label in ('01', '02', '03')]
        for name in ('pain', 'score', 'z', 'stage', 'dose', 'site')
    }
    assert cells == {
        'pain': ['3', 'n/a', 'n/a'],
        'score': ['n/a', '5', '12'],
        'z': ['-0.5', 'n/a', '1.5'],
        'stage': ['1', '9', '-9'],
        'dose': ['80', '99', '50'],
        'site': ['1', '99', '2'],
    }
    assert table.remarks == (
        'participants.tsv: pain is read as missing where it is -999, 999.',
        'participants.tsv: score is read as missing where it is -9.',
        'participants.tsv: z is read as missing where it is -999.0.',
    )


def test_a_table_of_a_spreadsheet_gives_what_it_says(tmp_path: Path) -> None:
    text = 'Subject ;Age;Sex;Height_cm;Weight;;\r\n'
    text += '1;"34,5";w;172,5;72,5;;\r\n2;40;M;;80;;\r\n;;;;;;\r\n'
    root = _dataset(tmp_path, '', '01', '02', '03')
    (root / 'participants.tsv').write_bytes(text.encode('utf-16'))
    table = read_participants(root)
    info = table.rows['01']
    assert (height_m(info), weight_kg(info), sex(info)) == (1.725, 72.5, 'female')
    assert info['Age'] == '34.5'
    assert table.remarks[-2:] == (
        '1 participant has no row in participants.tsv: sub-03.',
        "participants.tsv: Sex 'w' is read as F.",
    )
    out = tmp_path / 'out'
    assert keep_participants(root, out) == table
    copy = (out / 'participants.tsv').read_text().splitlines()
    assert copy[0] == 'participant_id\tAge\tSex\tHeight_cm\tWeight'
    assert copy[1] == 'sub-01\t34.5\tF\t172.5\t72.5'


def test_of_very_many_columns_those_of_use_are_read(tmp_path: Path) -> None:
    names = [f'f.{number}.0.0' for number in range(2000)]
    header = '\t'.join(['Subject', 'Age (years)', 'participants_sex', *names])
    root = _dataset(tmp_path, f'{header}\n' + '\t'.join(['sub-1', '40', 'F', *names]), '1')
    table = read_participants(root)
    assert table.rows == {'1': {'Age (years)': '40', 'participants_sex': 'F'}}
    assert 'participants.tsv: 2000 of its 2003 columns are not read' in table.remarks[0]
    # What a model names is read too, and the copy in the outputs holds as much.
    formula = 'volume_ml ~ age + Q("f.1234.0.0")'
    rows = keep_participants(root, tmp_path / 'out', named=formula).rows
    assert rows['1']['f.1234.0.0'] == 'f.1234.0.0'
    copy = (tmp_path / 'out/participants.tsv').read_text().splitlines()
    assert copy[0] == 'participant_id\tAge (years)\tparticipants_sex\tf.1234.0.0'
    # A table of 1,000 columns is read as a whole.
    (root / 'participants.tsv').write_text(
        '\t'.join(['participant_id', *names[:999]]) + '\n' + '\t'.join(['sub-1', *names[:999]])
    )
    assert len(read_participants(root).rows['1']) == 999


def test_the_file_of_today_decides(tmp_path: Path) -> None:
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    _dataset(raw, 'participant_id\tage\nsub-1\t20\n', '1', definitions={'age': {}})
    assert keep_participants(raw, out).rows == {'1': {'age': '20'}}
    assert (out / 'participants.tsv').read_bytes() == (raw / 'participants.tsv').read_bytes()
    (raw / 'participants.tsv').write_text('participant_id\tage\nsub-1\t21\n')
    assert keep_participants(raw, out).rows == {'1': {'age': '21'}}
    for broken in (b'', b'\xff\xfe\x00'):
        (raw / 'participants.tsv').write_bytes(broken)
        table = keep_participants(raw, out)
        assert table.rows == {}
        assert len(table.remarks) == 1
    # Where all raw data are gone, the copy serves.
    gone = tmp_path / 'gone'
    assert keep_participants(gone, out, {'1', '2'}).rows == {'1': {'age': '21'}}
    assert keep_participants(gone, out, {'1', '2'}).remarks[0].endswith('sub-2.')
    # Where only the file is gone, nothing is known any more.
    (raw / 'participants.tsv').unlink()
    assert keep_participants(raw, out).rows == {}
    assert not (out / 'participants.tsv').exists()
    assert keep_participants(gone, out) is None
