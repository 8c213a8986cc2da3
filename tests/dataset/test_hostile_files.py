"""A pipe, a device or a huge file in place of a small one ends in a sentence and hangs no job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_muscle.config import read_config
from bids_muscle.dataset.contrasts import load_contrast_rules
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants, list_unusable
from bids_muscle.dataset.index import read_filters
from bids_muscle.dataset.participants import read_participants
from bids_muscle.engine.nipype_plugin import read_plugin
from bids_muscle.errors import BidsMuscleError
from bids_muscle.files import MAX_BYTES, read_small
from bids_muscle.phantom.effects import load_effects
from bids_muscle.reports.ratings import read_ratings
from bids_muscle.segmentation.training.recipe import read_recipe
from bids_muscle.user_tables import read_table

TinyDataset = Callable[..., Path]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to('/dev/zero')


def _huge(path: Path) -> None:
    with path.open('wb') as stream:
        stream.truncate(2**29)  # a hole: it takes no space on the disk


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = {'pipe': _pipe, 'device': _device, 'huge': _huge, 'loop': _loop}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'read',
    [
        read_table,
        read_config,
        read_filters,
        load_contrast_rules,
        lambda path: read_ratings([path]),
        load_effects,
        read_recipe,
        lambda path: read_plugin(str(path)),
    ],
    ids=['table', 'settings', 'filters', 'rules', 'ratings', 'effects', 'recipe', 'plugin'],
)
def test_files_of_the_user(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / 'x.tsv'
    KINDS[kind](path)
    with pytest.raises(
        BidsMuscleError, match=r'regular file|larger than|levels of symbolic links|Nipype plugin'
    ):
        read(path)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('place', ['sub-01/anat/sub-01_T2w.json', 'T2w.json'])
def test_a_sidecar_is_left_out_with_a_warning(
    tiny_dataset: TinyDataset, kind: str, place: str
) -> None:
    bids_dir = tiny_dataset({'sub-01/anat/sub-01_T2w': None})
    (bids_dir / place).unlink(missing_ok=True)
    KINDS[kind](bids_dir / place)
    (scan,) = find_scans(bids_dir, '01', rules=load_contrast_rules(None), region='lumbar')
    assert scan.problem is None
    assert any(f'The sidecar {place} is left out' in warning for warning in scan.warnings)


def test_links_to_themselves_and_to_a_whole_disk(
    tiny_dataset: TinyDataset, tmp_path: Path
) -> None:
    bids_dir = tiny_dataset({'sub-01/anat/sub-01_T2w': None})
    for name in ('sub-02', 'T2w.json', 'anything', 'participants.tsv'):
        (bids_dir / name).symlink_to(name)
    far = tmp_path / 'disk/a/b'
    far.mkdir(parents=True)
    (far / 'sub-01_T1w.nii').write_bytes(b'')
    (bids_dir / 'sub-01/anat/disk').symlink_to(tmp_path / 'disk')
    assert list_participants(bids_dir) == ['01']
    assert list_unusable(bids_dir) == ['sub-02']
    (remark,) = read_participants(bids_dir).remarks
    assert 'levels of symbolic links' in remark
    (scan,) = find_scans(bids_dir, '01', rules=load_contrast_rules(None), region='lumbar')
    assert any('The sidecar T2w.json is left out' in warning for warning in scan.warnings)


def test_an_image_that_is_a_pipe_is_a_problem_of_that_scan(tiny_dataset: TinyDataset) -> None:
    bids_dir = tiny_dataset({f'sub-01/anat/sub-01_{name}': None for name in ('T1w', 'T2w')})
    (image,) = bids_dir.glob('sub-01/anat/sub-01_T2w.nii*')
    image.unlink()
    _pipe(image)
    scans = find_scans(bids_dir, '01', rules=load_contrast_rules(None), region='lumbar')
    problems = {scan.suffix: scan.problem for scan in scans}
    assert problems['T1w'] is None
    assert problems['T2w'] is not None
    assert 'not a regular file' in problems['T2w'].message


def test_what_is_small_is_read(tmp_path: Path) -> None:
    (tmp_path / 'x').write_bytes(b'a' * MAX_BYTES)
    assert read_small(tmp_path / 'x') == b'a' * MAX_BYTES
