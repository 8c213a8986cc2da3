"""DICOM series of the phantom, converted as users do, are its NIfTI images again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.scan import Contrast
from bids_muscle.errors import UsageError
from bids_muscle.phantom.dataset import write_dataset
from bids_muscle.phantom.dicom import PHILIPS_RESCALE_SLOPE
from bids_muscle.phantom.vendors import VENDORS

#: Plane and tilt of the slices, and a grid of which no two axes are alike.
PLANES = {
    'axial': {'shape': (40, 36, 6), 'voxel_mm': (8.0, 7.0, 16.0)},
    'oblique': {'shape': (40, 36, 6), 'voxel_mm': (8.0, 7.0, 16.0), 'oblique_deg': 20.0},
    'sagittal': {'shape': (7, 36, 30), 'voxel_mm': (9.0, 7.0, 6.0), 'plane': 'sagittal'},
}


def closest(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return the image in RAS+ order."""
    return nib.as_closest_canonical(image)


@pytest.mark.parametrize(
    ('vendor', 'plane'), [('siemens', 'axial'), ('ge', 'oblique'), ('philips', 'sagittal')]
)
def test_converted_series_are_the_simulated_images(
    tmp_path: Path, dicom_to_bids: Callable[..., None], vendor: str, plane: str
) -> None:
    settings = {
        'participants': 1,
        'seed': 4,
        'contrasts': ('dixon', 'inout', 't1w', 't2w'),
        **PLANES[plane],
    }
    straight = write_dataset(tmp_path / 'nifti', **settings)
    folder = write_dataset(tmp_path / 'dicom', dicom=vendor, **settings)
    converted = tmp_path / 'bids'
    converted.mkdir()
    shutil.copy(folder / 'dataset_description.json', converted)
    dicom_to_bids(folder, vendor, converted)

    paths = sorted(straight.glob('sub-01/anat/*.nii.gz'))
    assert len(paths) == 6
    for path in paths:
        name = path.name
        if plane == 'sagittal':
            name = name.replace('sub-01_T', 'sub-01_acq-sag_T')
        made, true = nib.load(converted / 'sub-01/anat' / name), nib.load(path)
        made, true = closest(made), closest(true)
        np.testing.assert_allclose(made.affine, true.affine, atol=1e-3)
        # Philips stores 4096 levels of the largest value.
        coarse = true.get_fdata().max() / 4095 if vendor == 'philips' else 0
        np.testing.assert_allclose(made.get_fdata(), true.get_fdata(), atol=coarse + 1e-3)
        sidecar, twin = (
            json.loads(image.with_suffix('').with_suffix('.json').read_text())
            for image in (converted / 'sub-01/anat' / name, path)
        )
        for key in ('EchoTime', 'RepetitionTime', 'FlipAngle', 'MagneticFieldStrength'):
            assert sidecar[key] == pytest.approx(twin[key]), key

    scans = {scan.name: scan for scan in find_scans(converted, '01')}
    dixon = scans['sub-01_acq-dixon']
    assert {image.contrast for image in dixon.images} == {
        Contrast.WATER,
        Contrast.FAT,
        Contrast.IN_PHASE,
        Contrast.OPPOSED_PHASE,
    }
    assert len(scans) == 3
    assert [scan.problem for scan in scans.values()] == [None] * 3
    assert dixon.region == 'lumbar'


@pytest.mark.parametrize(('program', 'vendor'), [('heudiconv', 'siemens'), ('bidscoiner', 'ge')])
def test_other_converters_name_the_same_files(
    tmp_path: Path, dicom_to_bids: Callable[..., None], program: str, vendor: str
) -> None:
    folder = write_dataset(
        tmp_path / 'dicom',
        participants=1,
        contrasts=('dixon', 'inout', 't1w', 't2w'),
        dicom=vendor,
        **PLANES['axial'],
    )
    for name in ('dcm2bids', program):
        (tmp_path / name).mkdir()
        dicom_to_bids(folder, vendor, tmp_path / name, program=name)
    names = [path.name for path in sorted((tmp_path / 'dcm2bids').glob('sub-01/anat/*.nii.gz'))]
    assert len(names) == 6
    anat = tmp_path / program / 'sub-01/anat'
    assert [path.name for path in sorted(anat.glob('*.nii.gz'))] == names
    for name in names:
        one, other = nib.load(tmp_path / 'dcm2bids/sub-01/anat' / name), nib.load(anat / name)
        np.testing.assert_array_equal(one.get_fdata(), other.get_fdata())


def test_series_are_those_of_the_vendors(tmp_path: Path) -> None:
    """Siemens: one series per image; GE and Philips: one for all, whose image types differ."""
    import pydicom

    found = {}
    for vendor in VENDORS:
        folder = write_dataset(
            tmp_path / vendor,
            participants=1,
            sessions=2,
            contrasts=('dixon', 'inout', 'megre'),
            dicom=vendor,
            **PLANES['axial'],
        )
        visit = folder / 'sourcedata/sub-01/ses-2'
        found[vendor] = {
            path.name: [pydicom.dcmread(file) for file in sorted(path.iterdir())]
            for path in sorted(visit.iterdir())
        }
    assert {vendor: len(series) for vendor, series in found.items()} == {
        'siemens': 5,
        'ge': 2,
        'philips': 2,
    }
    for series in found.values():
        for images in series.values():
            assert len({image.SeriesInstanceUID for image in images}) == 1
            assert [image.InstanceNumber for image in images] == list(range(1, len(images) + 1))
            assert images[0].StudyDate == '20250114'
        everything = [image for images in series.values() for image in images]
        assert len({image.SOPInstanceUID for image in everything}) == len(everything) == 60
        assert len({image.FrameOfReferenceUID for image in everything}) == 1
        assert len({image.SeriesInstanceUID for image in everything}) == len(series)
    echoes = found['siemens']['006_t1_gre_6echo_tra']
    assert sorted({image.EchoNumbers for image in echoes}) == [1, 2, 3, 4, 5, 6]
    water, fat = (found['philips']['002_mDIXON_TRA'][first] for first in (0, 6))
    assert (water.ImageType[2], fat.ImageType[2]) == ('W', 'F')
    assert (water.RescaleSlope, fat.RescaleSlope) == (
        PHILIPS_RESCALE_SLOPE['water'],
        PHILIPS_RESCALE_SLOPE['fat'],
    )
    assert water[0x2005, 0x100E].value != fat[0x2005, 0x100E].value


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    trees = []
    for name in 'ab':
        folder = write_dataset(tmp_path / name, participants=1, dicom='philips', **PLANES['axial'])
        trees.append(
            {
                path.relative_to(folder): path.read_bytes()
                for path in sorted(folder.rglob('*'))
                if path.is_file()
            }
        )
    assert trees[0] == trees[1]
    assert not [
        path for path in trees[0] if path.suffix == '.gz' and 'derivatives' not in path.parts
    ]


def test_vendor_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='vendor'):
        write_dataset(tmp_path / 'a', participants=1, dicom='canon')
    with pytest.raises(UsageError, match='naming'):
        write_dataset(tmp_path / 'a', participants=1, dicom='ge', naming='musclemap')
