"""Exit codes that only the data of a run can cause; the others are in tests/cli/test_main.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.cli.main import main
from bids_muscle.errors import ExitCode


def _junk(path: Path) -> None:
    path.write_bytes(b'junk' * 200)


def _not_fetched(path: Path) -> None:
    """Leave a link of git-annex whose content is elsewhere."""
    path.symlink_to('../../.git/annex/objects/none')


def _absent(path: Path) -> None:
    """Leave nothing."""


@pytest.mark.parametrize(
    ('kinds', 'code'),
    [
        ([_junk], ExitCode.BAD_DATA),
        ([_not_fetched], ExitCode.NO_INPUT),
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
    for number in range(len(kinds)):
        assert f'sub-{number}' in said
