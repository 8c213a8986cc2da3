"""Tables of people are read as programs save them; what is in doubt is left out and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.tables import read_rows
from bids_muscle.user_tables import Table, read_table

CLEAN = 'participant_id\tage\tsite\nsub-01\t34.5\tMünchen\nsub-02\tn/a\tKöln\n'
ROWS = (
    {'participant_id': 'sub-01', 'age': '34.5', 'site': 'München'},
    {'participant_id': 'sub-02', 'age': 'n/a', 'site': 'Köln'},
)


def _read(tmp_path: Path, content: str | bytes) -> Table:
    path = tmp_path / 'participants.tsv'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (CLEAN, []),
        (CLEAN.encode('utf-8-sig'), []),
        (CLEAN.replace('\n', '\r\n'), []),
        (CLEAN.replace('\n', '\r'), []),
        (CLEAN.replace('\n', '\r\n', 1), []),
        (CLEAN + '\t\t\n\t\t\n\n', []),
        (CLEAN.replace('\n', '\t\t\n'), []),
        (CLEAN.encode('utf-16'), ['UTF-16']),
        (CLEAN.encode('utf-16-be'), ['UTF-16']),
        (CLEAN.encode('latin-1'), ['Latin-1']),
        (CLEAN.replace('\t', ','), ['commas']),
        (CLEAN.replace('\t', ';'), ['semicolons']),
        ('sep=;\n' + CLEAN.replace('\t', ';'), ['semicolons']),
        (CLEAN.replace('\t', '   '), ['blanks between']),
        (CLEAN.replace('participant_id\tage', '"participant_id"\t"age"'), ['quotes']),
        (CLEAN.replace('34.5', '"34.5"'), ['quotes']),
        (CLEAN.replace('34.5', "'34.5"), []),
        (CLEAN.replace('age\t', ' age\xa0\t'), ['names of its columns']),
        (CLEAN.replace('sub-01', '\xa0sub-01 '), []),
        (CLEAN.replace('34.5', '34,5'), ['decimal commas in age']),
        (CLEAN.replace('34.5', '"34,5"').replace('\t', ','), ['commas', 'quotes', 'decimal']),
        (CLEAN.replace('n/a', 'NA'), ['other marks']),
        (CLEAN.replace('n/a', ''), []),
    ],
)
def test_every_way_of_saving_a_table(
    tmp_path: Path, content: str | bytes, said: list[str]
) -> None:
    table = _read(tmp_path, content)
    assert table.rows == ROWS
    assert table.left_out == ()
    remarks = table.remarks('participants.tsv')
    assert len(remarks) == bool(said)
    for words in said:
        assert words in remarks[0]


@pytest.mark.parametrize(
    ('column', 'read'),
    [
        (['72,5', '80', 'n/a'], ['72.5', '80', 'n/a']),
        (['1,72', '1,805'], ['1.72', '1.805']),
        (['0,125'], ['0.125']),
        (['1,234', '2,500'], ['1,234', '2,500']),
        (['72,5', '71.2'], ['72,5', '71.2']),
        (['72,5', 'heavy'], ['72,5', 'heavy']),
        (['L4,L5'], ['L4,L5']),
    ],
)
def test_decimal_commas_are_read_where_a_column_has_no_other(
    tmp_path: Path, column: list[str], read: list[str]
) -> None:
    table = _read(tmp_path, '\n'.join(['id\tx', *(f'a\t{cell}' for cell in column)]))
    assert [row['x'] for row in table.rows] == read
    assert bool(table.read_as) == (column != read)


def test_what_is_in_doubt_is_left_out_and_said(tmp_path: Path) -> None:
    # A decimal comma between commas moves all cells behind it.
    table = _read(tmp_path, 'participant_id,age,sex\n1,34,5,M\n2,35,F\n')
    assert table.rows == ({'participant_id': '2', 'age': '35', 'sex': 'F'},)
    assert 'row 1 below the header' in table.left_out[0]
    table = _read(tmp_path, 'id\tage\tage\tx\tx\t\na\t1\t2\t3\t3\t4\n')
    assert table.rows == ({'id': 'a', 'x': '3'},)
    assert len(table.left_out) == 2
    # Quotes that are text stay, and take no other line with them.
    table = _read(tmp_path, 'id\theight\tnote\n1\t5\'10"\tx\n2\t"y\tz\n3\t5\tz\n')
    assert [row['height'] for row in table.rows] == ['5\'10"', '"y', '5']
    table = _read(tmp_path, 'id\tnote\n1\t"two\nlines"\n2\tx\n')
    assert [row['note'] for row in table.rows] == ['two lines', 'x']


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for content in (b'PK\x03\x04\x14\x00\x06\x00', b'\xff\xfe\x00', b'a\tb\n\x00\x01\n'):
        with pytest.raises(BadDataError, match='not a table'):
            _read(tmp_path, content)
    with pytest.raises(MissingInputError):
        read_table(tmp_path)
    assert _read(tmp_path, b'') == Table((), ())


def test_tables_that_keep_to_bids_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / 'x.tsv'
    path.write_text('name\tnote\nleft\t"so"\n\nright\t\n')
    assert read_rows(path) == [{'name': 'left', 'note': '"so"'}, {'name': 'right', 'note': ''}]
    for text in ('name\tnote\n\nleft\n', 'name\tnote\n\nleft\ta\tb\n'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r'line 3 has . cells, not 2'):
            read_rows(path)
    path.write_text('name\tname\na\tb\n')
    with pytest.raises(ValueError, match='line 1 repeats'):
        read_rows(path)
    path.write_bytes('é'.encode('latin-1'))
    with pytest.raises(ValueError, match='utf-8'):
        read_rows(path)
