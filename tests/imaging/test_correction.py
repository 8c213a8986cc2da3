"""A person's label map, whatever a program made of its voxel order; and what is no label map."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import BadDataError, GridMismatchError
from bids_muscle.imaging.conform import make_image, to_canonical
from bids_muscle.imaging.correction import read_correction

TABLE = load_label_table('lumbar')
AFFINE = np.array([[0, 0, 3.0, -20], [-1.5, 0, 0, 30], [0, 2.0, 0, 5], [0, 0, 0, 1]])


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((7, 6, 5), np.uint8)
    labels[1:3, 2:4, 1], labels[4:6, 1:5, 3] = 1, 8
    return labels


@pytest.mark.parametrize('codes', ['RAS', 'LPS', 'PSR'])
@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_the_labels_stay_where_they_are(
    tmp_path: Path, labels: np.ndarray, codes: str, dtype: type
) -> None:
    native = make_image(labels.astype(np.float32), AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes)
    )
    path = tmp_path / 'manual.nii.gz'
    nib.save(make_image(labels.astype(dtype), AFFINE).as_reoriented(turn), path)
    found = read_correction(path, native, TABLE)
    expected = to_canonical(native)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine)
    assert found.get_data_dtype() == np.uint8


def test_what_is_no_label_map_of_the_scan_is_refused(tmp_path: Path, labels: np.ndarray) -> None:
    native = make_image(labels.astype(np.float32), AFFINE)
    path = tmp_path / 'manual.nii.gz'
    for data, affine, error, words in (
        (labels * 9, AFFINE, BadDataError, '9, 72'),
        (labels * 0.5, AFFINE, BadDataError, '0.5'),
        (labels * 0, AFFINE, BadDataError, 'is empty'),
        (labels[:-1], AFFINE, GridMismatchError, 'shape'),
        (labels, AFFINE + np.eye(4, k=3) * 4, GridMismatchError, 'manual.nii.gz'),
    ):
        nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
        with pytest.raises(error, match=words):
            read_correction(path, native, TABLE)


def placed(codes: str, *, origin: bool = True) -> np.ndarray:
    """Return an affine whose voxel axes run in these directions."""
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (7, 6, 5))
    affine = np.array(np.diag([1.5, 2, 3, 1]) @ np.linalg.inv(turn))
    affine[:3, 3] = (20, -30, 5) if origin else 0
    return affine


@pytest.mark.parametrize('lost', ['manual.nii.gz', 'The scan'])
@pytest.mark.parametrize('codes', ['RAS', 'LAS', 'LPS'])
def test_a_lost_position_is_taken_voxel_by_voxel(
    tmp_path: Path, labels: np.ndarray, codes: str, lost: str
) -> None:
    native = make_image(labels.astype(np.float32), placed(codes, origin=lost != 'The scan'))
    path = tmp_path / 'manual.nii.gz'
    nib.save(make_image(labels, placed(codes, origin=lost == 'The scan')), path)
    found = read_correction(path, native, TABLE)
    expected = to_canonical(native)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine)
    [warning] = found.extra['warnings']
    assert warning.startswith(f'{lost} has lost its position')


@pytest.mark.parametrize(('scan', 'drawn'), [('LAS', 'RAS'), ('RAS', 'LAS'), ('LPS', 'RAS')])
def test_sides_that_a_lost_position_may_exchange_are_refused(
    tmp_path: Path, labels: np.ndarray, scan: str, drawn: str
) -> None:
    path = tmp_path / 'manual.nii.gz'
    for lost in ('scan', 'drawn', 'header'):
        native = make_image(labels.astype(np.float32), placed(scan, origin=lost != 'scan'))
        image = make_image(labels, placed(drawn, origin=lost != 'drawn'))
        if lost == 'header':  # whatever its order was
            image = nib.Nifti1Image(labels, None)
            image.header.set_zooms((1.5, 2, 3))
        nib.save(image, path)
        with pytest.raises(GridMismatchError, match='left and right cannot be told'):
            read_correction(path, native, TABLE)
