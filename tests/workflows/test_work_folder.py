"""Nobody else may write where Nipype unpickles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_muscle.errors import OutputError
from bids_muscle.workflows.work_folder import WORKFLOW, work_folder


def test_a_new_one_is_private_and_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with work_folder(tmp_path / 'a/b') as folder:
            assert folder == tmp_path / 'a/b'
    assert (folder / WORKFLOW).stat().st_mode & 0o777 == 0o700


def test_a_temporary_one_is_private_and_removed() -> None:
    with work_folder(None) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


@pytest.mark.parametrize('mode', [0o770, 0o707, 0o777])
def test_one_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / WORKFLOW).mkdir()
    (tmp_path / WORKFLOW).chmod(mode)
    with pytest.raises(OutputError, match='somebody else'), work_folder(tmp_path):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason='needs root to give a folder away')
def test_one_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / WORKFLOW).mkdir(mode=0o700)
    os.chown(tmp_path / WORKFLOW, 12345, 12345)
    with pytest.raises(OutputError, match='somebody else'), work_folder(tmp_path):
        pass


def test_a_link_to_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'other').mkdir()
    (tmp_path / WORKFLOW).symlink_to(tmp_path / 'other')
    with pytest.raises(OutputError, match='somebody else'), work_folder(tmp_path):
        pass
