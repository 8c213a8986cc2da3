"""Exit codes that only the data of a run can cause; the others are in tests/cli/test_main.py."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.cli.main import main
from bids_muscle.errors import ExitCode, problem_of


def _junk(path: Path) -> None:
    path.write_bytes(b'junk' * 200)


def _not_fetched(path: Path) -> None:
    """Leave a link of git-annex whose content is elsewhere."""
    path.symlink_to('../../.git/annex/objects/none')


def _not_mounted(path: Path) -> None:
    """Leave a link into an archive that a container does not see."""
    path.symlink_to('/archive/2026/scan.nii.gz')


def _absent(path: Path) -> None:
    """Leave nothing."""


def test_who_has_nothing_to_do_has_not_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids_dir, out = tmp_path / 'bids', tmp_path / 'out'
    for label in ('1', '2'):
        (bids_dir / f'sub-{label}/anat').mkdir(parents=True)
    shape, affine = (40, 40, 4), np.diag([4.0, 4.0, 10.0, 1.0])
    values = np.random.default_rng(0).gamma(2, 100, shape).astype('float32')
    nib.save(nib.Nifti1Image(values, affine), bids_dir / 'sub-1/anat/sub-1_T2w.nii.gz')
    words = [str(bids_dir), str(out), 'participant', '--skip-bids-validation']
    words += ['--region', 'lumbar', '--nprocs', '1']
    assert main(words) == ExitCode.OK
    said = capsys.readouterr().err
    assert 'sub-2 has nothing to do. No scan of sub-2' in said
    assert 'sub-2 failed' not in said
    assert main([*words, '--participant-label', '2']) == ExitCode.NOTHING_SELECTED


@pytest.mark.parametrize(
    ('full', 'said'), [(True, 'no disk space is left in /somewhere/full'), (False, 'is left: ')]
)
def test_the_disk_that_is_full_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, full: bool, said: str
) -> None:
    monkeypatch.setattr(tempfile, 'gettempdir', lambda: '/somewhere/full')
    usage = shutil.disk_usage('.')

    def disk_usage(folder: Path) -> object:
        return usage._replace(free=0 if full and 'somewhere' in str(folder) else 10**12)

    monkeypatch.setattr(shutil, 'disk_usage', disk_usage)
    problem = problem_of(OSError(errno.ENOSPC, 'No space left on device'), 'The step')
    assert said in problem.message
    assert 'TMPDIR' in problem.remedy
    assert problem.exit_code == ExitCode.IO_ERROR


@pytest.mark.parametrize(
    ('kinds', 'code'),
    [
        ([_junk], ExitCode.BAD_DATA),
        ([_not_fetched], ExitCode.NO_INPUT),
        ([_not_mounted], ExitCode.NO_INPUT),
        ([_absent], ExitCode.NOTHING_SELECTED),
        ([_junk, _junk, _absent], ExitCode.BAD_DATA),
        ([_junk, _not_fetched], ExitCode.FAILURE),
    ],
)
def test_the_code_that_all_failures_share_or_1(
    tmp_path: Path, kinds: list, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bids_dir, out = tmp_path / 'bids', tmp_path / 'out'
    for number, make in enumerate(kinds):
        image = bids_dir / f'sub-{number}/anat/sub-{number}_T2w.nii.gz'
        image.parent.mkdir(parents=True)
        make(image)
    words = [str(bids_dir), str(out), 'participant', '--skip-bids-validation']
    assert main([*words, '--region', 'lumbar', '--nprocs', '1']) == code
    said = capsys.readouterr().err
    assert 'Traceback' not in said
    assert 'with -vv' not in said  # the remedy of an error that nobody foresaw
    assert ('/archive/2026/scan.nii.gz' in said) == (_not_mounted in kinds)
    assert ('mount that folder' in said) == (_not_mounted in kinds)
    for number in range(len(kinds)):
        assert f'sub-{number}' in said
