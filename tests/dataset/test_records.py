from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bids_muscle.dataset.records import ScanRecord, StepCost, read_records, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import GridMismatchError


def scan(label: str) -> Scan:
    return Scan((('sub', label), ('ses', 'a'), ('acq', 'dixon')), 'T1w', 'lumbar', ())


def record(label: str) -> ScanRecord:
    return ScanRecord(
        participant=label,
        session='a',
        scan=scan(label).name,
        region='lumbar',
        status='failed',
        problem=GridMismatchError('a and b differ.', 'Look.').problem,
        warnings=('careful',),
        inputs={'water': 'sub-1/x.nii.gz'},
        model={'name': 'm'},
        versions={'numpy': '2'},
        settings_digest='ff',
        steps=(StepCost('prepare', 1.5, 300.0), StepCost('segment', 2.5)),
    )


def test_round_trip(tmp_path: Path) -> None:
    first, second = replace(record('1'), status='done', problem=None), record('2')
    write_record(second, scan('2'), tmp_path)
    write_record(first, scan('1'), tmp_path)
    assert read_records(tmp_path) == [first, second]
    assert read_records(tmp_path, '2') == [record('2')]
    assert read_records(tmp_path, '3') == []
    assert read_records(tmp_path / 'none') == []


@pytest.mark.parametrize(
    'text', ['', '{', '[]', '{}', '{"evil": 1}', '{"steps": 3}', 'null', '[' * 99_999]
)
def test_a_broken_record_is_a_failed_scan(tmp_path: Path, text: str) -> None:
    write_record(record('1'), scan('1'), tmp_path)
    broken = tmp_path / 'logs/sub-1/sub-1_acq-x.json'
    broken.write_text(text)
    good, bad = sorted(read_records(tmp_path), key=lambda each: each.scan != scan('1').name)
    assert good == record('1')
    assert (bad.participant, bad.scan, bad.status) == ('1', 'sub-1_acq-x', 'failed')
    assert str(broken) in bad.problem.message


def test_a_record_with_a_value_of_another_type_is_broken(tmp_path: Path) -> None:
    for key, value in {'region': ['lumbar'], 'processing': None, 'outputs': [3]}.items():
        write_record(record('1'), scan('1'), tmp_path)
        (path,) = tmp_path.glob('logs/*/*.json')
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        (broken,) = read_records(tmp_path)
        assert broken.problem.kind == 'BadDataError', key
