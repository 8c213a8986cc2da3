"""Temporary folders of killed runs are swept; those in use, and of others, are not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bids_muscle.temporary import temporary_folder
from bids_muscle.workflows.work_folder import work_folder

KILLED = """
import os, signal
from bids_muscle.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / 'image.nii').write_bytes(b'x')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def make_old(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder, (time.time() - 3600,) * 2)


def test_the_next_run_sweeps_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, '-c', KILLED], env={**os.environ, 'TMPDIR': str(tmp_path)})
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    names = ('bids_muscle-data', 'bids_muscle-abcd1234', 'x-abcd1234.tmp')
    others = [tmp_path / name for name in names]
    shared = tmp_path / 'bids_muscle-shared00.tmp'
    for folder in (*others, shared):
        folder.mkdir(mode=0o700)
    shared.chmod(0o770)
    link = tmp_path / 'bids_muscle-link0000.tmp'
    link.symlink_to(others[0])
    with work_folder(None):  # it may not be locked yet
        assert left.exists()
    with temporary_folder() as used:
        make_old(left, used, shared, *others)
        with work_folder(None) as own:
            assert sorted(tmp_path.iterdir()) == sorted([*others, shared, link, used, own])
    assert sorted(tmp_path.iterdir()) == sorted([*others, shared, link])


@pytest.mark.skipif(os.getuid() != 0, reason='needs root to give a folder away')
def test_a_folder_of_somebody_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    folder = tmp_path / 'bids_muscle-abcd1234.tmp'
    folder.mkdir(mode=0o700)
    make_old(folder)
    os.chown(folder, 12345, 12345)
    with work_folder(None):
        assert folder.exists()
