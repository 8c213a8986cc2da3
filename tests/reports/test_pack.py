"""One file with all pages: everything they link is in it, and nothing else."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from bids_muscle.cli.report import main
from bids_muscle.errors import ExitCode
from bids_muscle.reports.group import write_group
from bids_muscle.reports.participant import write_participant_report

AddScan = Callable[..., Path]


@pytest.fixture
def dataset(add_scan: AddScan) -> Path:
    for participant in ('01', '02'):
        output_dir = add_scan(participant)
        write_participant_report(output_dir, participant)
    write_group(output_dir)
    return output_dir


def test_what_pages_link_is_packed_and_no_scan_data(dataset: Path, tmp_path: Path) -> None:
    target = tmp_path / 'reports.zip'
    assert main(['pack', str(dataset), str(target)]) == ExitCode.OK
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
        review = archive.read('reports/group_review.html').decode()
        pages = {name: archive.read(name).decode() for name in names if name.endswith('.html')}
    assert len(pages) == 4
    assert not [name for name in names if '.nii' in name or '/logs/' in name]
    linked = re.findall(r'"(sub-[^"]+\.(?:png|webp|html))"', review)
    assert len(linked) == 2 * 5
    links = [link for page in pages.values() for link in re.findall(r'href="([^"#:]+)"', page)]
    assert links
    assert {f'reports/{unquote(link)}' for link in (*linked, *links)} <= names


def test_a_link_out_of_the_folder_is_not_packed(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / 'secret.html').write_text('secret')
    (dataset / 'sub-99.html').symlink_to(tmp_path / 'secret.html')
    target = tmp_path / 'reports.zip'
    assert main(['pack', str(dataset), str(target)]) == ExitCode.OK
    with zipfile.ZipFile(target) as archive:
        assert 'reports/sub-99.html' not in archive.namelist()
        assert 'reports/sub-01.html' in archive.namelist()


def test_same_pages_same_bytes(dataset: Path, tmp_path: Path) -> None:
    first, second = tmp_path / 'a' / 'r.zip', tmp_path / 'b' / 'r.zip'
    for target in (first, second):
        target.parent.mkdir()
        assert main(['pack', str(dataset), str(target)]) == ExitCode.OK
        (dataset / 'sub-01.html').touch()
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ['r.zip']


def test_mistakes_are_said(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'empty').mkdir()
    assert main(['pack', str(tmp_path / 'empty'), 'x.zip']) == ExitCode.NOTHING_SELECTED
    target = tmp_path / 'absent' / 'x.zip'
    assert main(['pack', str(dataset), str(target)]) == ExitCode.CANNOT_CREATE
    assert str(target) in capsys.readouterr().err
    assert main(['unpack']) == ExitCode.USAGE
