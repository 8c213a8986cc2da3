"""Which corrected label map belongs to which scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.dataset.corrections import find_correction
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import BadDataError

SCAN = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
STEM = 'sub-01_ses-a_acq-dixon'


def put(folder: Path, name: str) -> Path:
    path = folder / 'sub-01/ses-a/anat' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    'name',
    [
        f'{STEM}_seg-lumbarmuscles_desc-manual_dseg.nii.gz',
        f'{STEM}_seg-lumbarmuscles_desc-manual_dseg.nii',
        f'{STEM}_desc-manual_dseg.nii.gz',
    ],
)
def test_a_corrected_map_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / 'other', name)
    assert find_correction(SCAN, [tmp_path / 'out', tmp_path / 'other']) == path


@pytest.mark.parametrize(
    'name',
    [
        f'{STEM}_seg-lumbarmuscles_dseg.nii.gz',
        f'{STEM}_seg-cervicalmuscles_desc-manual_dseg.nii.gz',
        f'{STEM}_run-2_desc-manual_dseg.nii.gz',
        f'{STEM}_desc-manual_dseg.nii.gz~',
        f'{STEM}_desc-manual2_dseg.nii.gz',
    ],
)
def test_maps_of_others_are_left_alone(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert find_correction(SCAN, [tmp_path]) is None


def test_the_output_folder_comes_first_and_two_in_one_folder_are_too_many(tmp_path: Path) -> None:
    first, second = tmp_path / 'out', tmp_path / 'other'
    put(second, f'{STEM}_desc-manual_dseg.nii.gz')
    path = put(first, f'{STEM}_desc-manual_dseg.nii.gz')
    assert find_correction(SCAN, [first, second]) == path
    put(first, f'{STEM}_desc-manual_dseg.nii')
    with pytest.raises(BadDataError, match='several corrected'):
        find_correction(SCAN, [first, second])
