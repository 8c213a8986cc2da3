"""Which corrected label map belongs to which scan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_muscle.dataset.corrections import (
    correction_path,
    find_correction,
    find_corrections,
    sha256_of,
)
from bids_muscle.dataset.label_maps import find_label_maps
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
    assert find_correction(SCAN, [tmp_path / 'out', tmp_path / 'other']) == (('dseg', path),)


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
    assert find_correction(SCAN, [tmp_path]) == ()


def test_the_output_folder_comes_first_and_two_in_one_folder_are_too_many(tmp_path: Path) -> None:
    first, second = tmp_path / 'out', tmp_path / 'other'
    put(second, f'{STEM}_desc-manual_dseg.nii.gz')
    path = put(first, f'{STEM}_desc-manual_dseg.nii.gz')
    assert find_correction(SCAN, [first, second]) == (('dseg', path),)
    put(first, f'{STEM}_desc-manual_dseg.nii')
    with pytest.raises(BadDataError, match='several corrected'):
        find_correction(SCAN, [first, second])


def put_saved(folder: Path, rater: str, saved_at: str, **facts: object) -> Path:
    """Save a correction as the browser does."""
    path = put(folder, correction_path(SCAN, rater).name)
    path.write_text(rater)
    sidecar = {'Rater': rater, 'SavedAt': saved_at, 'Passed': True, **facts}
    path.with_name(path.name.replace('.nii.gz', '.json')).write_text(json.dumps(sidecar))
    return path


def test_of_several_raters_the_newest_passed_map_counts(tmp_path: Path) -> None:
    put_saved(tmp_path, 'Anna', '2026-01-02T00:00:00.000Z')
    newest = put_saved(tmp_path, 'B. C.', '2026-01-03T00:00:00.000Z')
    put_saved(tmp_path, 'Draft', '2026-01-04T00:00:00.000Z', Passed=False)
    assert find_correction(SCAN, [tmp_path]) == (('dseg', newest),)
    assert [each.rater for each in find_corrections(SCAN, tmp_path)] == ['Anna', 'B. C.', 'Draft']
    # So it is where label maps are looked for as references and for training.
    whole = [put(tmp_path, f'{STEM}_seg-lumbarmuscles_dseg.nii.gz'), newest]
    assert [each.path for each in find_label_maps(tmp_path)] == whole[1:]
    assert [each.path for each in find_label_maps(tmp_path, predicted=True)] == whole[:1]
    (anna,) = find_label_maps(tmp_path, rater='Anna')
    assert 'manualAnna' in anna.path.name


def test_a_map_drawn_elsewhere_counts_until_somebody_corrects_it(tmp_path: Path) -> None:
    saved = put_saved(tmp_path, 'Anna', '2026-01-02T00:00:00.000Z')
    drawn = put(tmp_path, f'{STEM}_desc-manual_dseg.nii.gz')
    assert find_correction(SCAN, [tmp_path]) == (('dseg', drawn),)
    put_saved(tmp_path, 'Anna', '2026-01-03T00:00:00.000Z', Replaces=sha256_of(drawn))
    assert find_correction(SCAN, [tmp_path]) == (('dseg', saved),)
    drawn.write_bytes(b'drawn again')
    assert find_correction(SCAN, [tmp_path]) == (('dseg', drawn),)
