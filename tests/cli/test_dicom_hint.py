"""Who gives a folder of DICOM images is told how to convert them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_muscle.cli.main import main
from bids_muscle.dataset.folders import CONVERT, find_dicom
from bids_muscle.errors import ExitCode

DICOM = bytes(128) + b'DICM' + bytes(8)


@pytest.mark.parametrize('place', ['', 'scans/IM0001', 'sub-01/anat/1.dcm', 'sourcedata/sub-01/1'])
@pytest.mark.parametrize('described', [False, True])
def test_dicom_without_nifti_is_named_with_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, described: bool
) -> None:
    path = tmp_path / 'bids' / (place or '00001')
    path.parent.mkdir(parents=True)
    path.write_bytes(DICOM)
    if described:
        description = tmp_path / 'bids/dataset_description.json'
        description.write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    code = main([str(tmp_path / 'bids'), str(tmp_path / 'out'), 'participant'])
    said = ''.join(capsys.readouterr())
    assert code == (ExitCode.NOTHING_SELECTED if described else ExitCode.INVALID_INPUT)
    assert str(path) in said
    assert CONVERT in said


def test_nothing_is_said_where_there_is_nifti_too(tmp_path: Path) -> None:
    (tmp_path / 'sub-01').mkdir()
    (tmp_path / 'sub-01/1.dcm').write_bytes(DICOM)
    assert find_dicom(tmp_path) == tmp_path / 'sub-01/1.dcm'
    (tmp_path / 'sub-01/x_T1w.nii.gz').write_bytes(b'')
    assert find_dicom(tmp_path) is None


def test_no_other_file_is_taken_for_dicom(tmp_path: Path) -> None:
    (tmp_path / 'short').write_bytes(b'DICM')
    (tmp_path / 'text').write_text('DICM ' * 100)
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to(tmp_path / 'nowhere')
    assert find_dicom(tmp_path) is None
