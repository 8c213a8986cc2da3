"""Fat by thresholds where slices fall off, coils fade and images are clipped."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.imaging.mask import body_mask
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.imaging.quality import clipped_fraction
from bids_muscle.measurement.brightness import even_slices
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.table import measure_scan
from bids_muscle.measurement.threshold_checks import checked_fat
from bids_muscle.measurement.thresholds import threshold_fat
from bids_muscle.phantom.artefacts import clip
from bids_muscle.phantom.dataset import write_dataset

TABLE = load_label_table('lumbar')
CONTRASTS = ('T1w', 'T2w')

Load = Callable[[str, str], tuple[nib.Nifti1Image, nib.Nifti1Image]]


@pytest.fixture(scope='module')
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Return image and true labels of one person in a contrast, by the fault of the scan."""
    root = tmp_path_factory.mktemp('phantoms')
    common = {'participants': 1, 'contrasts': ('t1w', 't2w'), 'shape': (160, 128, 16), 'seed': 3}
    faults = {
        'none': {'bias': 0.0},
        'slab': {'bias': 0.0, 'artefacts': (('slab', 1.0),)},
        'coil': {'bias': 1.5},
    }

    def read(contrast: str, fault: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
        folder = root / fault
        if not folder.exists():
            write_dataset(folder, **common, **faults[fault])
        name = f'sub-01/anat/sub-01_{contrast}.nii.gz'
        truth = f'sub-01/anat/sub-01_acq-{contrast}_seg-lumbarmuscles_dseg.nii.gz'
        paths = folder / name, folder / 'derivatives/truth' / truth
        image, labels = (nib.as_closest_canonical(nib.load(path)) for path in paths)
        return image, labels

    return read


def measured(image: nib.Nifti1Image, labels: nib.Nifti1Image, contrast: str) -> pd.DataFrame:
    data = np.asarray(image.dataobj, np.float32)
    body = body_mask(data, image.header.get_zooms())
    return measure_scan(
        labels,
        TABLE,
        ScanImages(
            contrast=contrast,
            intensity=nib.Nifti1Image(data, image.affine),
            body=body,
            clipped=clipped_fraction(data, body),
        ),
    ).muscles.set_index('index')


def at_once(image: nib.Nifti1Image, labels: nib.Nifti1Image) -> np.ndarray:
    """Fit all slices of each muscle as they are."""
    data, numbers = (np.asarray(each.dataobj) for each in (image, labels))
    return np.array(
        [threshold_fat(data[numbers == label.index].astype(float)).fat_pct for label in TABLE]
    )


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_clean_scan_has_the_fat_of_all_slices_at_once(load: Load, contrast: str) -> None:
    rows = measured(*load(contrast, 'none'), contrast)
    np.testing.assert_allclose(
        rows['fat_kmeans2_pct'].astype(float), at_once(*load(contrast, 'none')), atol=1
    )
    assert (rows['threshold_excluded_voxels'] == 0).all()


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_the_ends_of_a_slab_are_not_muscle_and_its_middle_is_not_fat(
    load: Load, contrast: str
) -> None:
    truth = at_once(*load(contrast, 'none'))
    if contrast == 'T1w':
        assert np.nanmedian(at_once(*load(contrast, 'slab')) - truth) > 40
    rows = measured(*load(contrast, 'slab'), contrast)
    found = rows['fat_kmeans2_pct'].astype(float)
    assert found.notna().sum() >= 7
    np.testing.assert_allclose(found[found.notna()], truth[found.notna()], atol=4)
    dark = rows['threshold_excluded_voxels'] > 0
    assert dark.any()
    assert rows.loc[dark, 'reason'].str.contains('because their signal is too low').all()


def test_a_coil_that_fades_changes_little(load: Load) -> None:
    image, labels = load('T2w', 'coil')
    corrected = prepare_scan({'T2w': image}).corrected['T2w']
    found = measured(corrected, labels, 'T2w')['fat_kmeans2_pct'].astype(float)
    off = np.abs(found - at_once(*load('T2w', 'none')))
    assert off.notna().all()
    assert off.median() < 1
    assert off.max() < 5  # quadratus lumborum, far from the coil


def test_a_clipped_scan_has_no_thresholds(load: Load) -> None:
    image, labels = load('T1w', 'none')
    data = np.asarray(image.dataobj)
    clipped = nib.Nifti1Image(clip(data, data > 50, (1, 'T1w')), image.affine)
    rows = measured(clipped, labels, 'T1w')
    fat = [name for name in rows if name.startswith('fat_')]
    assert rows[fat].isna().all(axis=None)
    assert rows['reason'].str.contains('has the highest value').all()


def muscle(fat_share: float, fat: float = 500.0, n: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(200, 20, n)
    values[: round(fat_share * n)] = rng.normal(fat, 30, round(fat_share * n))
    return values


@pytest.mark.parametrize(
    ('share', 'fat', 'skin', 'clipped', 'reason'),
    [
        (0.2, 500, 600, 0.0, None),
        (0.2, 500, np.nan, 0.0, None),
        (0.2, 300, 350, 0.0, 'only 1.7 times as bright as muscle'),
        (0.2, 500, 600, 0.02, '2 % of the body has the highest value'),
        # Vessels, or a bright half of the image: brighter than fat is anywhere.
        (0.2, 900, 500, 0.0, 'not as bright as subcutaneous fat'),
        (0.2, 300, 5000, 0.0, 'not as bright as subcutaneous fat'),
        (0.6, 500, 600, 0.0, 'more than 50 %'),
    ],
)
def test_bright_voxels_that_may_not_be_fat_have_a_reason(
    share: float, fat: float, skin: float, clipped: float, reason: str | None
) -> None:
    for found in checked_fat(muscle(share, fat), ['kmeans2', 'gmm3'], skin=skin, clipped=clipped):
        if reason is None:
            assert found.reason is None
            assert found.fat_pct == pytest.approx(100 * share, abs=1)
        else:
            assert reason in str(found.reason)
            assert np.isnan(found.fat_pct)
            assert np.isnan(found.probability).all()


def test_methods_that_contradict_each_other_are_not_trusted() -> None:
    # Uneven muscle with little fat: k-means halves the muscle.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(200, 40, 3900), rng.normal(420, 15, 100)])
    assert threshold_fat(values).fat_pct > 30
    assert threshold_fat(values, 'gmm3').fat_pct == pytest.approx(2.5, abs=0.2)
    for found in checked_fat(values, ['kmeans2', 'gmm3']):
        assert np.isnan(found.fat_pct)
        assert 'neither is trusted' in str(found.reason)


def test_slices_get_one_brightness_whatever_muscles_they_have() -> None:
    rng = np.random.default_rng(1)
    labels = np.zeros((40, 40, 12), np.uint8)
    labels[4:14, 4:14], labels[20:36, 4:14, :7] = 1, 5
    profile = np.array([0.1, 0.4, 0.7, *[1.0] * 7, 0.5, 0.2])
    image = np.where(labels == 5, 30.0, 240.0) * rng.normal(1, 0.03, labels.shape)
    image[4:14, 4:9, 3:5] = 900  # fat of one muscle on some slices
    found = even_slices(image * profile, labels, None, (1.0, 1.0))
    assert found.dark.tolist() == [True, *[False] * 10, True]
    assert np.isnan(found.even[..., 0]).all()
    means = [found.even[..., k][labels[..., k] == 1].mean() for k in (1, 2, 6, 7, 8, 9, 10)]
    np.testing.assert_allclose(means, 240, rtol=0.02)
    assert np.isnan(found.skin).all()


def test_fat_under_the_skin_is_seen_where_there_is_skin() -> None:
    body = np.zeros((80, 60, 4), bool)
    body[10:70, :50] = True  # front and back of the image cut the body
    image = np.where(body, 100.0, 3.0)
    image[10:16, :50] = image[64:70, :50] = image[10:70, 44:50] = 400
    labels = np.zeros(body.shape, np.uint8)
    labels[30:50, 10:30] = 1
    found = even_slices(image, labels, body, (1.0, 1.0))
    np.testing.assert_allclose(found.skin, 400)
    bare = even_slices(image, labels, np.ones_like(body), (1.0, 1.0))
    assert np.isnan(bare.skin).all()
