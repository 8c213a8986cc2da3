"""Which folders are participants, and which only look like one: nobody is lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bids_muscle.dataset.bidsignore import is_ignored
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import (
    list_ignored,
    list_participants,
    list_unusable,
    select_participants,
)
from bids_muscle.errors import MissingInputError

TinyDataset = Callable[..., Path]


def test_participants_are_folders(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset({'sub-b/anat/sub-b_T1w': None, 'sub-02/anat/sub-02_T1w': None})
    (root / 'sub-03').touch()
    (root / 'derivatives').mkdir()
    (root / 'sub-link').symlink_to(root / 'sub-b')
    assert list_participants(root) == ['02', 'b', 'link']
    assert select_participants(root, []) == (['02', 'b', 'link'], [])
    assert select_participants(root, ['sub-b', '99', 'b']) == (['b'], ['99'])
    for list_some in (list_participants, list_unusable, list_ignored):
        with pytest.raises(MissingInputError):
            list_some(root / 'none')


@pytest.mark.parametrize(
    'name',
    ['sub-C_02', 'sub-P 04', 'Sub-05', 'sub-06.bak', 'SUB-07', 'sub_08', 'sub09', 'sub-1 (copy)',
     'sub-', 'subject-10', 'subj11', 'sub-ä'],
)  # fmt: skip
def test_folders_that_are_meant_for_participants(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert list_participants(tmp_path) == []
    assert list_unusable(tmp_path) == [name]


@pytest.mark.parametrize(
    'name', ['derivatives/anat', 'sourcedata/anat', '.git/anat', 'tpl-x/anat', 'subsets', 'sub-1']
)
def test_folders_that_are_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'sub-notes.txt').touch()
    assert list_unusable(tmp_path) == []


def test_folders_with_images_and_links_to_nothing(tmp_path: Path) -> None:
    (tmp_path / 'P07/ses-a/anat').mkdir(parents=True)
    (tmp_path / 'C1/anat').mkdir(parents=True)
    (tmp_path / 'sub-03').symlink_to(tmp_path / 'gone')
    assert list_unusable(tmp_path) == ['C1', 'P07', 'sub-03']
    (tmp_path / '.bidsignore').write_text('/P07/\nC?\n')
    assert list_unusable(tmp_path) == ['sub-03']


def test_bidsignore_leaves_out_participants_and_images(tiny_dataset: TinyDataset) -> None:
    names = ['sub-01/anat/sub-01_T2w', 'sub-01/anat/sub-01_acq-x_T2w', 'sub-02/anat/sub-02_T2w']
    root = tiny_dataset(dict.fromkeys(names), {'T2w.json': {'BodyPart': 'LSPINE'}})
    assert list_ignored(root) == []
    (root / 'sub-01/anat/sub-01_water.nii.gz').touch()
    rules = b'\xef\xbb\xbf# not good\n\nsub-02/\n*_acq-x_*\r\n*_water.*\n'
    (root / '.bidsignore').write_bytes(rules)
    assert list_participants(root) == ['01']
    assert list_ignored(root) == ['sub-02', 'sub-01/anat/sub-01_acq-x_T2w.nii.gz']
    # A name that BIDS does not know is there for the validator.
    assert [scan.name for scan in find_scans(root, '01')] == ['sub-01_acq-T2w', 'sub-01_acq-dixon']


@pytest.mark.parametrize(
    ('rules', 'ignored', 'kept'),
    [
        ('*.nii.gz', ['a.nii.gz', 'sub-1/anat/b.nii.gz'], ['a.nii', 'sub-1/']),
        ('sub-1', ['sub-1/', 'sub-1/anat/x', 'x/sub-1/'], ['sub-10/', 'sub-10/x']),
        ('/extra', ['extra/x'], ['sub-1/extra/x']),
        ('sub-*/**/anat/*_T2w*', ['sub-1/ses-a/anat/x_T2w.json', 'sub-1/anat/x_T2w.nii'],
         ['sub-1/func/x_T2w.nii', 'anat/x_T2w.nii']),
        ('*_T1w*\n!*_acq-ax_T1w*', ['sub-1/a_T1w.nii'], ['sub-1/a_acq-ax_T1w.nii']),
        ('sub-[0-4]/\nsub-[!a-z]?/', ['sub-3/', 'sub-31/'], ['sub-5/', 'sub-a1/']),
        ('[z-a]', [], ['a', 'sub-1/']),
    ],
)  # fmt: skip
def test_patterns_are_those_of_gitignore(
    tmp_path: Path, rules: str, ignored: list[str], kept: list[str]
) -> None:
    (tmp_path / '.bidsignore').write_text(rules)
    assert [name for name in ignored if not is_ignored(tmp_path, name)] == []
    assert [name for name in kept if is_ignored(tmp_path, name)] == []
