"""The section of the page about discs and curvature."""

from __future__ import annotations

from pathlib import Path

import html5lib
import pytest

from bids_muscle.dataset.writer import write_tsv
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.reports.spine import spine_sections


def write_spine(folder: Path, **changes: object) -> Path:
    """Write a table of one vertebra, one disc and the lordosis."""
    rows = [
        {
            'kind': kind,
            'name': name,
            'volume_ml': 17.5,
            'height_mm': 8.25 if kind == 'disc' else None,
            'mean_height_mm': 6.5 if kind == 'disc' else None,
            'depth_mm': 33.0 if kind == 'disc' else None,
            'tilt_deg': None if kind == 'vertebra' else 21.8,
            'reason': None,
        }
        | changes
        for kind, name in (('vertebra', 'L4'), ('disc', 'L4-L5'), ('lordosis', 'L1-S1'))
    ]
    path = folder / 'sub-01/anat/sub-01_acq-sag_desc-spine_morph.tsv'
    write_tsv(rows, path)
    return path


def page(folder: Path) -> str:
    text = write_participant_report(folder, '01').read_text(encoding='utf-8')
    html5lib.HTMLParser(strict=True).parse(text)
    return text


def test_discs_and_lordosis_are_shown(tmp_path: Path) -> None:
    write_spine(tmp_path)
    text = page(tmp_path)
    assert 'Discs and curvature: sub-01_acq-sag' in text
    assert 'Lordosis L1-S1: 21.8°' in text
    (section,) = spine_sections(tmp_path, '01')
    assert section['discs'] == [('L4-L5', ['8.25', '6.5', '33', '21.8', '17.5'])]
    assert '>8.25</td>' in text
    assert 'given with <code>--derivatives' in text


def test_the_model_that_outlined_is_named(tmp_path: Path) -> None:
    table = write_spine(tmp_path)
    table.with_suffix('.json').write_text('{"ModelName": "my <model>"}')
    assert 'the label maps of the model my &lt;model&gt;.' in page(tmp_path)
    table.with_suffix('.json').write_text('{"Manual": true, "ModelName": "mine"}')
    assert 'the label maps that a person corrected, of the model mine.' in page(tmp_path)
    table.with_suffix('.json').write_text('[]')
    assert 'given with <code>--derivatives' in page(tmp_path)


def test_reasons_are_said_and_escaped(tmp_path: Path) -> None:
    write_spine(tmp_path, tilt_deg=None, reason='reaches <the edge>')
    text = page(tmp_path)
    assert 'reaches &lt;the edge&gt;' in text
    assert 'Lordosis L1-S1: n/a.' in text


@pytest.mark.parametrize('content', ['', 'kind\tname\ndisc\tL4-L5\n', 'half\nof\ta\ttable\n'])
def test_what_is_no_table_is_named(tmp_path: Path, content: str) -> None:
    path = write_spine(tmp_path)
    path.write_text(content)
    text = page(tmp_path)
    if content:
        assert f'{path.name} is not a table' in text
    else:
        assert 'Discs and curvature' in text
