"""What an error-free measurement on the images finds is what the truth says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from phantom_files import TINY, read_image, read_tsv

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.phantom.anatomy import DISC_OFFSET, Anatomy
from bids_muscle.phantom.dataset import write_dataset
from bids_muscle.phantom.truth import true_level_rows

STEM = 'sub-01_acq-dixon_seg-lumbarmuscles'


@pytest.fixture(scope='module')
def measured(clean: Path) -> dict[int, dict[str, float]]:
    """MFI and volume of every label, computed here from the files alone."""
    import nibabel as nib

    anat = clean / 'sub-01/anat'
    water = read_image(anat / 'sub-01_acq-dixonwater_T1w.nii.gz').astype(float)
    fat = read_image(anat / 'sub-01_acq-dixonfat_T1w.nii.gz').astype(float)
    image = nib.load(clean / f'derivatives/truth/sub-01/anat/{STEM}_dseg.nii.gz')
    labels = np.asarray(image.dataobj)
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    found = {}
    for label in load_label_table('lumbar'):
        inside = labels == label.index
        f, w = fat[inside].sum(), water[inside].sum()
        found[label.index] = {'mfi': 100 * f / (f + w), 'ml': inside.sum() * voxel_ml}
    return found


def truth_rows(dataset: Path) -> list[dict[str, str]]:
    return read_tsv(dataset / f'derivatives/truth/sub-01/anat/{STEM}_morph.tsv')


def test_mfi_on_true_labels_is_the_planted_one(
    clean: Path, measured: dict[int, dict[str, float]]
) -> None:
    for row in truth_rows(clean):
        mfi = measured[int(row['index'])]['mfi']
        assert mfi == pytest.approx(float(row['mfi_pct']), abs=0.1), row['name']
        assert mfi == pytest.approx(float(row['planted_mfi_pct']), abs=0.1), row['name']


def test_volume_of_true_labels_is_the_true_volume(
    clean: Path, measured: dict[int, dict[str, float]]
) -> None:
    for row in truth_rows(clean):
        ml = measured[int(row['index'])]['ml']
        assert ml == pytest.approx(float(row['label_volume_ml']), rel=1e-5)
        assert ml == pytest.approx(float(row['volume_ml']), rel=0.01), row['name']


def test_tissue_mfi_leaves_out_the_surroundings(clean: Path) -> None:
    for row in truth_rows(clean):
        if row['muscle'] in ('psoas major', 'quadratus lumborum'):  # embedded in fat
            assert float(row['tissue_mfi_pct']) < float(row['mfi_pct'])
        # Fat is brighter than muscle in a T1-weighted scan, so the signal ratio is larger.
        assert float(row['fat_fraction_pct']) < float(row['tissue_mfi_pct'])
        assert float(row['volume_ml']) <= float(row['whole_volume_ml']) * 1.02


def test_water_and_fat_follow_from_the_two_echoes(clean: Path) -> None:
    anat = clean / 'sub-01/anat'
    names = ('dixonwater', 'dixonfat', 'dixonin', 'dixonout')
    water, fat, in_phase, opposed = (
        read_image(anat / f'sub-01_acq-{name}_T1w.nii.gz').astype(float) for name in names
    )
    assert np.abs(in_phase - (water + fat)).max() <= 1.5
    assert np.abs(opposed - np.abs(water - fat)).max() <= 1.5


def test_surface_alone_above_the_planted_value_is_told(tmp_path: Path) -> None:
    coarse = write_dataset(tmp_path / 'bids', participants=1, snr=None, bias=0.0, **TINY)
    rows = truth_rows(coarse)
    thin = [row for row in rows if row['muscle'] == 'quadratus lumborum']
    assert all(float(row['mfi_pct']) > float(row['planted_mfi_pct']) + 1 for row in thin)


def test_left_is_where_x_is_negative(clean: Path) -> None:
    import nibabel as nib

    image = nib.load(clean / f'derivatives/truth/sub-01/anat/{STEM}_dseg.nii.gz')
    labels = np.asarray(image.dataobj)
    assert nib.aff2axcodes(image.affine) == ('L', 'A', 'S')
    for label in load_label_table('lumbar'):
        x = (np.argwhere(labels == label.index).mean(axis=0) @ image.affine[:3, :3].T)[0]
        x += image.affine[0, 3]
        assert (x < 0) == (label.side == 'left'), label.name


def test_levels_and_areas(lumbar: Anatomy) -> None:
    rows = true_level_rows(lumbar)
    area = {(row['name'], row['level']): float(row['csa_cm2']) for row in rows}
    # Cranial levels hold more erector spinae, caudal levels more multifidus and psoas.
    for side in ('left', 'right'):
        assert area[f'{side} multifidus', 'L5'] > 1.5 * area[f'{side} multifidus', 'L2']
        assert area[f'{side} erector spinae', 'L2'] > 1.5 * area[f'{side} erector spinae', 'L5']
        assert area[f'{side} psoas major', 'L4'] > 1.5 * area[f'{side} psoas major', 'L2']
        assert area[f'{side} quadratus lumborum', 'S1'] == 0
    for label in lumbar.table:
        total = sum(float(row['volume_ml']) for row in rows if row['name'] == label.name)
        classes = [n for n, x in enumerate(lumbar.legend) if x.muscle_index == label.index]
        cells = np.isin(lumbar.classes, classes).sum()
        assert total == pytest.approx(cells * np.prod(lumbar.spacing_mm) / 1000, rel=1e-6)


def test_disc_heights_are_those_of_the_label_map(clean: Path, lumbar: Anatomy) -> None:
    spine, step = lumbar.spine, lumbar.spacing_mm[0]
    labels = lumbar.spine_index[lumbar.classes]
    z = lumbar.origin_mm[0] + np.arange(labels.shape[0]) * step
    for k in range(spine.fused_from):
        cells = labels == DISC_OFFSET + k
        middle = np.argwhere(cells).mean(axis=0).round().astype(int)
        along = cells[:, middle[1], middle[2]]
        tilt = np.deg2rad((spine.tilt_deg[k] + spine.tilt_deg[k + 1]) / 2)
        assert along.sum() * step * np.cos(tilt) == pytest.approx(
            spine.disc_height_mm[k], abs=step + 0.5
        )
        assert z[along].mean() == pytest.approx(spine.disc_centre_mm[k], abs=2 * step)
    rows = read_tsv(
        clean / 'derivatives/truth/sub-01/anat/sub-01_acq-dixon_seg-lumbarspine_morph.tsv'
    )
    assert [row['name'] for row in rows][:2] == ['T12-L1', 'L1-L2']
    assert {row['in_view'] for row in rows} == {'yes', 'no'}


def test_the_projects_own_measurement_finds_the_truth(clean: Path) -> None:
    import nibabel as nib

    from bids_muscle.measurement.images import ScanImages
    from bids_muscle.measurement.table import measure_scan

    def image(path: str) -> nib.Nifti1Image:
        return nib.as_closest_canonical(nib.load(clean / path))

    table = measure_scan(
        image(f'derivatives/truth/sub-01/anat/{STEM}_dseg.nii.gz'),
        load_label_table('lumbar'),
        ScanImages(
            contrast='dixon',
            water=image('sub-01/anat/sub-01_acq-dixonwater_T1w.nii.gz'),
            fat=image('sub-01/anat/sub-01_acq-dixonfat_T1w.nii.gz'),
        ),
    ).muscles.set_index('name')
    for row in truth_rows(clean):
        mine = table.loc[row['name']]
        assert mine['mfi_ratio_of_means_pct'] == pytest.approx(float(row['mfi_pct']), abs=0.1)
        assert mine['volume_ml'] == pytest.approx(float(row['label_volume_ml']), rel=1e-4)


def test_the_projects_own_areas_at_levels_find_the_truth(clean: Path) -> None:
    import nibabel as nib

    from bids_muscle.anatomy.levels import SliceLevels
    from bids_muscle.measurement.images import ScanImages
    from bids_muscle.measurement.table import measure_scan

    folder = clean / 'derivatives/truth/sub-01/anat'
    truths = read_tsv(folder / f'{STEM}_levels.tsv')
    labels = nib.as_closest_canonical(nib.load(folder / f'{STEM}_dseg.nii.gz'))
    z_mm = {row['level']: float(row['z_mm']) for row in truths}
    z = labels.affine[2, 3] + labels.affine[2, 2] * np.arange(labels.shape[2])
    names = tuple(min(z_mm, key=lambda name: abs(z_mm[name] - at)) for at in z)
    levels = SliceLevels(names, np.ones(len(names)), 'segmentation')
    table = measure_scan(
        labels, load_label_table('lumbar'), ScanImages(contrast='T2w'), levels=levels
    )
    rows = table.levels.set_index(['name', 'level'])
    compared = 0
    for row in truths:
        if (row['name'], row['level']) in rows.index and float(row['csa_cm2']) > 2:
            mine = rows.loc[(row['name'], row['level'])]
            if np.isfinite(mine['csa_cm2']):
                compared += 1
                assert mine['csa_cm2'] == pytest.approx(float(row['csa_cm2']), rel=0.15), row
    assert compared >= 8
