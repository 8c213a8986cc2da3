"""Imaging and measurement on the traps of the real scans; see their README."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import GridMismatchError
from bids_muscle.imaging.conform import load_image, make_image, read_grid, reconcile_grids
from bids_muscle.imaging.dixon import fat_source
from bids_muscle.imaging.impossible import check_images
from bids_muscle.imaging.mask import body_mask
from bids_muscle.imaging.prepare import PreparedScan, prepare_scan
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.table import measure_scan

LABELS = 'derivatives/manual/sub-TUM01/anat/sub-TUM01_acq-dixonwater_seg-paraspinal_dseg.nii.gz'


def array(img: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(img.dataobj)


@pytest.fixture(scope='module')
def folder(real_data: Path) -> Path:
    return real_data / 'dixon-lumbar'


@pytest.fixture(scope='module')
def dixon(folder: Path) -> PreparedScan:
    return prepare_scan(
        {
            key: load_image(folder / f'sub-TUM01/anat/sub-TUM01_acq-dixon{key}_T1w.nii.gz')
            for key in ('water', 'fat')
        },
        bias_correction=False,
    )


def test_water_takes_the_affine_that_fat_kept(dixon: PreparedScan) -> None:
    assert dixon.native.affine[:3, 3] == pytest.approx([204.5, 147.9, 192.8], abs=0.1)
    (warning,) = dixon.warnings
    assert warning.startswith('sub-TUM01_acq-dixonwater_T1w.nii.gz has lost its position')


def test_all_labelled_muscle_is_in_the_body_and_above_the_noise(
    folder: Path, dixon: PreparedScan
) -> None:
    labels = nib.as_closest_canonical(nib.load(folder / LABELS))
    muscle = np.asarray(labels.dataobj) > 0
    assert muscle.sum() > 10_000
    assert array(dixon.body_mask)[muscle].all()
    assert np.isfinite(array(dixon.fat_fraction)[muscle]).mean() > 0.999
    assert 0.2 < array(dixon.body_mask).mean() < 0.45


def test_measures_of_the_expert_labels_are_plausible(folder: Path, dixon: PreparedScan) -> None:
    stored = nib.load(folder / LABELS)
    # Theirs: 1 is erector spinae where world x > 0; a guess about the rest is tested by place.
    numbers = np.asarray(stored.dataobj).astype(np.uint8)
    labels = nib.as_closest_canonical(make_image(numbers, dixon.native.affine))
    rows = measure_scan(
        labels,
        load_label_table('lumbar'),
        ScanImages(
            contrast='dixon',
            water=dixon.images['water'],
            fat=dixon.images['fat'],
            fat_fraction=dixon.fat_fraction,
        ),
    ).muscles.set_index('index')
    found = rows[rows['n_voxels'] > 0]
    assert len(found) == 4
    assert found['volume_ml'].between(20, 600).all()
    assert found['mfi_ratio_of_means_pct'].between(3, 50).all()
    assert (found['mfi_ratio_of_means_pct'] - found['mfi_mean_of_voxels_pct']).abs().max() < 10
    assert (found['mfi_excluded_voxels'] < 0.001 * found['n_voxels']).all()
    other = np.asarray(stored.dataobj) == 1
    middle = np.argwhere(numbers > 0).mean(axis=0)
    centre = dixon.native.affine[:3, :3] @ (np.argwhere(other).mean(axis=0) - middle)
    assert (rows.loc[1, 'x_ras_mm'] > found['x_ras_mm'].mean()) == (centre[0] > 0)


def test_labels_on_the_lost_affine_are_refused(folder: Path, dixon: PreparedScan) -> None:
    labels = nib.as_closest_canonical(nib.load(folder / LABELS))
    with pytest.raises(GridMismatchError):
        measure_scan(
            labels,
            load_label_table('lumbar'),
            ScanImages(contrast='dixon', water=dixon.images['water'], fat=dixon.images['fat']),
        )


def test_phases_share_a_grid_and_another_sequence_does_not(real_data: Path) -> None:
    folder = real_data / 'inout-abdomen/sub-11/anat'
    grids = {path.name: read_grid(path) for path in sorted(folder.glob('*.nii.gz'))}
    assert len(grids) == 3
    with pytest.raises(GridMismatchError, match='spir'):
        reconcile_grids(grids)
    del grids['sub-11_acq-spir_T2w.nii.gz']
    assert reconcile_grids(grids)[1] == []


def test_phases_are_bounded(real_data: Path) -> None:
    folder = real_data / 'inout-abdomen/sub-11/anat'
    scan = prepare_scan(
        {
            'inphase': load_image(folder / 'sub-11_acq-dixonin_T1w.nii.gz'),
            'opposedphase': load_image(folder / 'sub-11_acq-dixonout_T1w.nii.gz'),
        },
        bias_correction=False,
    )
    assert scan.bounded
    inside = array(scan.fat_fraction)[array(scan.body_mask) > 0]
    assert 0.3 < np.nanmax(inside) <= 0.5


def test_coil_fall_off_does_not_eat_the_psoas(real_data: Path) -> None:
    folder = real_data / 'oblique-lumbar'
    img = load_image(folder / 'sub-0001/anat/sub-0001_T2w.nii.gz')
    labels = nib.load(
        folder / 'derivatives/model/sub-0001/anat/sub-0001_seg-paraspinal_dseg.nii.gz'
    )
    muscle = np.asarray(labels.dataobj) > 0
    mask = body_mask(array(img), read_grid(Path(img.get_filename())).zooms)
    assert muscle.sum() > 10_000
    assert mask[muscle].mean() > 0.999


@pytest.mark.slow
def test_correction_of_the_coil_fall_off(real_data: Path) -> None:
    img = load_image(real_data / 'oblique-lumbar/sub-0001/anat/sub-0001_T2w.nii.gz')
    scan = prepare_scan({'T2w': img})
    # Subcutaneous fat at the back against fat in the abdomen, one tissue: read off the 95th
    # percentile of the back third and the front third of the body.
    third = img.shape[1] // 3
    ratio = [
        np.percentile(data[:, :third], 95) / np.percentile(data[:, -third:], 95)
        for data in (array(scan.images['T2w']), array(scan.corrected['T2w']))
    ]
    assert ratio[0] > 3
    assert ratio[1] < 0.5 * ratio[0]


def test_real_images_are_neither_copies_nor_exchanged_nor_signed(real_data: Path) -> None:
    paths = [path for path in real_data.glob('*/sub-*/anat/*.nii.gz') if 'sag' not in path.name]
    single = [path for path in paths if 'dixon' not in path.name]
    groups = [{'T1w': path} for path in single]
    anat = real_data / 'inout-abdomen/sub-11/anat/sub-11_acq-dixon'
    groups.append({'inphase': Path(f'{anat}in_T1w.nii.gz')})
    groups[-1]['opposedphase'] = Path(f'{anat}out_T1w.nii.gz')
    anat = real_data / 'dixon-lumbar/sub-TUM01/anat/sub-TUM01_acq-dixon'
    groups.append({key: Path(f'{anat}{key}_T1w.nii.gz') for key in ('water', 'fat')})
    assert len(groups) >= 10
    for group in groups:
        arrays = {key: array(load_image(path)) for key, path in group.items()}
        checked = check_images(arrays, fat_source(arrays))
        assert (checked.doubt, checked.warnings) == ('', ()), group
    phases = groups[-2]
    turned = dict(zip(phases, reversed(phases.values()), strict=True))
    arrays = {key: array(load_image(path)) for key, path in turned.items()}
    assert 'swapped' in check_images(arrays, fat_source(arrays)).doubt
