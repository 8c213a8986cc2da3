"""The section of the page about loads on the lumbar discs."""

from __future__ import annotations

from pathlib import Path

import html5lib
import pytest

from bids_muscle.dataset.writer import write_tsv
from bids_muscle.reports.loads import load_sections
from bids_muscle.reports.participant import write_participant_report

DISCS = ('L1-L2', 'L2-L3', 'L3-L4', 'L4-L5', 'L5-S1')


def write_loads(folder: Path, **changes: object) -> Path:
    rows = [
        {
            'task': task,
            'level': disc[:2],
            'joint': disc,
            'compression_n': newtons,
            'shear_n': 12.5,
            'lateral_n': 0.0,
            'moment_n_m': 3.0,
            'reserve_n_m': 0.1,
            'reference_low_n': 509.1 if disc == 'L4-L5' else None,
            'reference_high_n': 712.8 if disc == 'L4-L5' else None,
            'reason': None,
        }
        | changes
        for task, newtons in (('standing', 456.0), ('flexion', 2789.0))
        for disc in DISCS
    ]
    path = folder / 'sub-01/anat/sub-01_acq-sag_loads.tsv'
    write_tsv(rows, path)
    return path


def page(folder: Path) -> str:
    text = write_participant_report(folder, '01').read_text(encoding='utf-8')
    html5lib.HTMLParser(strict=True).parse(text)
    return text


def test_the_page_shows_each_load_beside_its_reference(tmp_path: Path) -> None:
    write_loads(tmp_path)
    text = page(tmp_path)
    assert 'Loads on the lumbar discs: sub-01_acq-sag' in text
    assert '2789' in text
    assert '509 to 713' in text


def test_reasons_and_missing_loads_are_said(tmp_path: Path) -> None:
    write_loads(tmp_path, compression_n=None, reason='no height in <participants.tsv>')
    text = page(tmp_path)
    assert 'no height in &lt;participants.tsv&gt;' in text
    (section,) = load_sections(tmp_path, '01')
    assert all(cells[0] == 'n/a' for _, _, cells, _ in section['rows'])


def test_a_page_without_loads_does_not_speak_of_them(tmp_path: Path) -> None:
    (tmp_path / 'sub-01').mkdir()
    assert 'Loads on' not in page(tmp_path)


@pytest.mark.parametrize('content', [b'\xff\xfe', b'task\tjoint\nstanding\tL1-L2\n'])
def test_a_broken_table_is_said(tmp_path: Path, content: bytes) -> None:
    write_loads(tmp_path).write_bytes(content)
    assert 'is not a table of loads' in page(tmp_path)
