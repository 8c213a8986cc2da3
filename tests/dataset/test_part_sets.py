"""Scans that show parts of one body, and scans that repeat each other."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.parts import check_places, find_part_sets

#: Height of a scan of twelve slices, mm.
HEIGHT, SLICES = 60.0, 12


def add(
    bids_dir: Path,
    name: str,
    low_mm: float,
    *,
    angle: float = 0.0,
    slices: int = SLICES,
    located: bool = True,
) -> None:
    """Write the images of a scan that begins at a height; ``{}`` stands for water and fat."""
    session = next((part for part in name.split('_') if part.startswith('ses-')), '')
    folder = bids_dir / 'sub-01' / session / 'anat'
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([5.0, 5.0, HEIGHT / SLICES, 1.0])
    affine[:3, 3] = [-50, -50, low_mm]
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(0, 0, angle)
    data = np.arange(20 * 20 * slices, dtype=np.int16).reshape(20, 20, slices)
    image = nib.Nifti1Image(data, turn @ affine if located else None)
    for contrast in ('water', 'fat') if '{}' in name else ('',):
        nib.save(image, folder / f'sub-01_{name.format(contrast)}.nii.gz')


def sets(bids_dir: Path) -> dict[str, list[str]]:
    """Return the places of each joined scan, scans at one place joined by ``+``."""
    scans = find_scans(bids_dir, '01', region='lumbar')
    return {
        each.scan.name.removeprefix('sub-01_'): [
            '+'.join(scan.name.removeprefix('sub-01_') for scan in place) for place in each.places
        ]
        for each in find_part_sets(scans)
    }


PARTS = {
    'chunks': (
        {'acq-dixon{}_chunk-1_T1w': 55, 'acq-dixon{}_chunk-2_T1w': 0},
        {'acq-dixonjoined': ['acq-dixon_chunk-1', 'acq-dixon_chunk-2']},
    ),
    'chunks from below': (
        {'acq-dixon{}_chunk-1_T1w': 0, 'acq-dixon{}_chunk-2_T1w': 40},
        {'acq-dixonjoined': ['acq-dixon_chunk-2', 'acq-dixon_chunk-1']},
    ),
    'chunks that overlap much': (
        {'acq-dixon{}_chunk-1_T1w': 0, 'acq-dixon{}_chunk-2_T1w': 20},
        {'acq-dixonjoined': ['acq-dixon_chunk-2', 'acq-dixon_chunk-1']},
    ),
    'runs at other heights': (
        {'acq-ax_run-1_T2w': 50, 'acq-ax_run-2_T2w': 0},
        {'acq-axT2wjoined': ['acq-axT2w_run-1', 'acq-axT2w_run-2']},
    ),
    'runs with an overlap of 40 %': (
        {'run-1_T2w': 36, 'run-2_T2w': 0},
        {'acq-T2wjoined': ['acq-T2w_run-1', 'acq-T2w_run-2']},
    ),
    'runs with a gap': (
        {'run-1_T2w': 90, 'run-2_T2w': 0},
        {'acq-T2wjoined': ['acq-T2w_run-1', 'acq-T2w_run-2']},
    ),
    'other names': (
        {'acq-upper{}_T1w': 50, 'acq-lower{}_T1w': 0},
        {'acq-dixonjoined': ['acq-upperdixon', 'acq-lowerdixon']},
    ),
    'other names of T1w': (
        {'acq-upper_T1w': 50, 'acq-lower_T1w': 0},
        {'acq-T1wjoined': ['acq-upperT1w', 'acq-lowerT1w']},
    ),
    'three': (
        {'run-1_T2w': 100, 'run-2_T2w': 50, 'run-3_T2w': 0},
        {'acq-T2wjoined': ['acq-T2w_run-1', 'acq-T2w_run-2', 'acq-T2w_run-3']},
    ),
    'a repeat of one part': (
        {'run-1_T2w': 50, 'run-2_T2w': 0, 'run-3_T2w': 53},
        {'acq-T2wjoined': ['acq-T2w_run-1+acq-T2w_run-3', 'acq-T2w_run-2']},
    ),
    'a repeat of all parts': (
        {f'acq-dixon{{}}_run-{r}_chunk-{c}_T1w': 110 - 55 * c + r for r in (1, 2) for c in (1, 2)},
        {
            'acq-dixonjoined_run-1': ['acq-dixon_run-1_chunk-1', 'acq-dixon_run-1_chunk-2'],
            'acq-dixonjoined_run-2': ['acq-dixon_run-2_chunk-1', 'acq-dixon_run-2_chunk-2'],
        },
    ),
    'a repeat of all parts, counted on': (
        {'run-1_T2w': 50, 'run-2_T2w': 0, 'run-3_T2w': 53, 'run-4_T2w': 3},
        {
            'acq-T2wjoined': ['acq-T2w_run-1', 'acq-T2w_run-2'],
            'acq-T2wjoined_run-2': ['acq-T2w_run-3', 'acq-T2w_run-4'],
        },
    ),
    'two sessions': (
        {f'ses-{s}_run-{r}_T2w': 110 - 55 * r for s in 'ab' for r in (1, 2)},
        {
            f'ses-{s}_acq-T2wjoined': [f'ses-{s}_acq-T2w_run-1', f'ses-{s}_acq-T2w_run-2']
            for s in 'ab'
        },
    ),
}

NO_PARTS = {
    'repeats': {'run-1_T2w': 0, 'run-2_T2w': 0},
    'repeats a few mm apart': {'run-1_T2w': 0, 'run-2_T2w': 7},
    'other heights in other sessions': {'ses-a_T2w': 50, 'ses-b_T2w': 0},
    'other contrasts': {'T1w': 50, 'T2w': 0},
    'Dixon and T1w': {'acq-dixon{}_T1w': 50, 'acq-ax_T1w': 0},
    'two acquisitions of one place': {'acq-MTon_T1w': 0, 'acq-MToff_T1w': 1},
    'one chunk': {'acq-dixon{}_chunk-2_T1w': 0},
}


@pytest.mark.parametrize('name', PARTS)
def test_parts(name: str, tmp_path: Path) -> None:
    scans, expected = PARTS[name]
    for scan, low_mm in scans.items():
        add(tmp_path, scan, low_mm)
    assert sets(tmp_path) == expected


@pytest.mark.parametrize('name', NO_PARTS)
def test_no_parts(name: str, tmp_path: Path) -> None:
    for scan, low_mm in NO_PARTS[name].items():
        add(tmp_path, scan, low_mm)
    assert sets(tmp_path) == {}


def test_a_short_slab_within_a_long_scan_is_no_part(tmp_path: Path) -> None:
    add(tmp_path, 'acq-ax_T2w', 0, slices=30)
    add(tmp_path, 'acq-disc_T2w', 100, slices=5)
    assert sets(tmp_path) == {}


def test_oblique_parts_are_told_by_the_middle_of_their_slices(tmp_path: Path) -> None:
    """Their corners reach far into each other."""
    add(tmp_path, 'run-1_T2w', 60, angle=0.3)
    add(tmp_path, 'run-2_T2w', 0, angle=0.3)
    assert list(sets(tmp_path)) == ['acq-T2wjoined']


def test_a_part_that_failed_is_one_all_the_same(tmp_path: Path) -> None:
    add(tmp_path, 'acq-dixon{}_chunk-1_T1w', 55)
    add(tmp_path, 'acq-dixon{}_chunk-2_T1w', 0)
    (tmp_path / 'sub-01/anat/sub-01_acq-dixonfat_chunk-2_T1w.nii.gz').unlink()
    (tmp_path / 'sub-01/anat/sub-01_acq-dixonwater_chunk-1_T1w.nii.gz').write_bytes(b'')
    [places] = sets(tmp_path).values()
    assert sorted(places) == ['acq-dixon_chunk-1', 'acq-dixon_chunk-2']


def test_an_image_that_lost_its_position_does_not_hide_that_of_the_others(tmp_path: Path) -> None:
    for run, low_mm in ((1, 55), (2, 5)):
        add(tmp_path, f'acq-dixon{{}}_run-{run}_T1w', low_mm)
        path = tmp_path / f'sub-01/anat/sub-01_acq-dixonwater_run-{run}_T1w.nii.gz'
        image = nib.load(path)
        affine = image.affine.copy()
        affine[:3, 3] = 0
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    assert sets(tmp_path) == {'acq-dixonjoined': ['acq-dixon_run-1', 'acq-dixon_run-2']}
    [parts] = find_part_sets(find_scans(tmp_path, '01', region='lumbar'))
    assert check_places(parts.members) is None


def test_a_name_that_is_taken_is_not_taken_again(tmp_path: Path) -> None:
    add(tmp_path, 'acq-joined_T2w', 0)
    for run in (1, 2):
        add(tmp_path, f'acq-joinedT2wjoined_run-{run}_T2w', 100.0 * run)
    add(tmp_path, 'run-1_T2w', 50)
    add(tmp_path, 'run-2_T2w', 0)
    names = [scan.name for scan in find_scans(tmp_path, '01', region='lumbar')]
    found = [f'sub-01_{name}' for name in sets(tmp_path)]
    assert not set(found) & set(names)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ('low_mm', 'located', 'said'),
    [(55, True, None), (0, True, 'the same position'), (55, False, 'has no position')],
)
def test_places_that_cannot_be_are_said(
    low_mm: float, located: bool, said: str | None, tmp_path: Path
) -> None:
    add(tmp_path, 'acq-dixon{}_chunk-1_T1w', low_mm, located=located)
    add(tmp_path, 'acq-dixon{}_chunk-2_T1w', 0)
    [parts] = find_part_sets(find_scans(tmp_path, '01', region='lumbar'))
    problem = check_places(parts.members)
    assert (problem is None) == (said is None)
    assert said is None or (problem is not None and said in problem.message)
