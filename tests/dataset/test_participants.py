"""participants.tsv is read whatever is wrong with it, and kept for when the raw data are gone."""

from __future__ import annotations

from pathlib import Path

from bids_muscle.dataset.participants import (
    keep_participants,
    read_participant_info,
    read_participants,
)


def test_rows_by_participant(tmp_path: Path) -> None:
    path = tmp_path / 'participants.tsv'
    assert read_participants(path) == {}
    path.write_text('participant_id\tage\tnote\nsub-02\t1\tx\nsub-01\t2\t"y\n02\t9\t\n')
    assert read_participants(path) == {
        '02': {'age': '1', 'note': 'x'},
        '01': {'age': '2', 'note': '"y'},
    }
    assert read_participant_info(tmp_path, '01') == {'age': '2', 'note': '"y'}
    assert read_participant_info(tmp_path, '03') == {}
    path.write_bytes(b'\xff\xfe\x00')
    assert read_participants(path) == {}
    assert read_participant_info(tmp_path, '01') == {}


def test_the_copy_serves_when_the_raw_data_are_gone(tmp_path: Path) -> None:
    raw, out = tmp_path / 'raw', tmp_path / 'out'
    raw.mkdir()
    (raw / 'participants.tsv').write_text('participant_id\tage\nsub-1\t20\n')
    (raw / 'participants.json').write_text('{}')
    assert keep_participants(raw, out) == {'1': {'age': '20'}}
    (raw / 'participants.tsv').write_text('participant_id\tage\nsub-1\t21\n')
    assert keep_participants(raw, out) == {'1': {'age': '21'}}
    for broken in (b'', b'\xff\xfe\x00'):
        (raw / 'participants.tsv').write_bytes(broken)
        assert keep_participants(raw, out) == {'1': {'age': '21'}}
    (raw / 'participants.tsv').unlink()
    assert keep_participants(raw, out) == {'1': {'age': '21'}}
    assert (out / 'participants.json').read_text() == '{}'
