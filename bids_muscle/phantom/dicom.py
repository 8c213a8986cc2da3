"""Scans as DICOM series, as the scanners of three vendors write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_muscle import __version__
from bids_muscle.phantom.person import Person
from bids_muscle.phantom.protocol import GAMMA_MHZ_PER_T
from bids_muscle.phantom.render import ScanGrid
from bids_muscle.phantom.shapes import load_atlas
from bids_muscle.phantom.vendors import VENDORS, Vendor

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    from bids_muscle.phantom.simulate import Image

#: Day of the first session.
FIRST_DAY = date(2024, 1, 15)

#: Largest number that a Philips scanner stores.
LARGEST_STORED = 4095

#: Displayed value over stored value. Philips scanners choose it for each image type, and only
#: the scale slope beside it makes water and fat comparable (Chenevert 2014, PMC3998685).
PHILIPS_RESCALE_SLOPE = {'water': 0.8, 'fat': 1.7, 'inphase': 1.1, 'opposedphase': 0.6}


@dataclass(frozen=True)
class Visit:
    """One visit of a person to the scanner.

    Parameters
    ----------
    vendor
        Key of :data:`VENDORS`.
    day
        Days since the first session.
    seed
        Seed of the cohort, which makes the identifiers of two cohorts differ.
    """

    person: Person
    vendor: str
    field_strength_t: float
    day: int
    seed: int


def write_scan(
    folder: Path, images: Iterable[Image], grid: ScanGrid, visit: Visit, region: str, plane: str
) -> None:
    """Write the images of one scan as DICOM series, one folder each, one file per slice.

    Parameters
    ----------
    folder
        Folder of the visit; the numbers of the series go on from those in it.
    images
        Images of the scan on the grid.
    region
        ``'cervical'`` or ``'lumbar'``.
    plane
        ``'axial'`` or ``'sagittal'``.
    """
    vendor = VENDORS[visit.vendor]
    folder.mkdir(parents=True, exist_ok=True)
    for template, members in groupby(images, lambda image: vendor.series[_kind(image)][0]):
        number = len(list(folder.iterdir())) + 2  # 1 was the localizer
        name = template.format(plane=vendor.planes[plane])
        series = folder / f'{number:03d}_{name.replace(" ", "_")}'
        series.mkdir()
        data = _series_header(visit, region, number, name, grid)
        instance = 0
        for echo, image in enumerate(members, start=1):
            _add_image(data, image, echo if _kind(image) == 'echo' else 1, vendor)
            stored, scale_slope = _stored(image, visit.vendor)
            if scale_slope:
                _add_philips_scaling(data, image.kind, scale_slope)
            data.BitsStored = 12 if stored.max() <= LARGEST_STORED else 16
            data.HighBit = data.BitsStored - 1
            for position in range(grid.shape[2]):
                instance += 1
                data.InstanceNumber = instance
                _add_slice(data, stored, grid, position, _uid(visit, number, instance))
                data.save_as(series / f'{instance:05d}.dcm', enforce_file_format=True)


def _kind(image: Image) -> str:
    return image.kind.split('-')[0]


def _uid(visit: Visit, *rest: object) -> UID:
    """Return an identifier that depends only on what it names."""
    from pydicom.uid import generate_uid

    key = (visit.seed, visit.person.label, visit.vendor, visit.day, *rest)
    return generate_uid(entropy_srcs=[repr(key)])


def _series_header(visit: Visit, region: str, number: int, name: str, grid: ScanGrid) -> Dataset:
    """Return the header of all images of a series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    person, vendor = visit.person, VENDORS[visit.vendor]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.Modality = 'MR'
    data.Manufacturer, data.ManufacturerModelName = vendor.manufacturer, vendor.model
    data.InstitutionName = person.site
    data.SoftwareVersions = f'bids_muscle-phantom {__version__}'
    data.PatientName = data.PatientID = person.label
    data.PatientSex, data.PatientAge = person.sex, f'{person.age_years:03.0f}Y'
    data.PatientSize, data.PatientWeight = _decimal(person.height_cm / 100), person.weight_kg
    data.PatientPosition = 'HFS'
    data.BodyPartExamined = load_atlas(region).body_part
    day = f'{FIRST_DAY + timedelta(days=visit.day):%Y%m%d}'
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = day
    data.StudyTime = '090000'
    data.SeriesTime = data.AcquisitionTime = data.ContentTime = f'09{number % 60:02d}00'
    data.StudyInstanceUID, data.StudyID = _uid(visit), '1'
    data.FrameOfReferenceUID = _uid(visit, 'frame')
    data.SeriesInstanceUID, data.SeriesNumber = _uid(visit, number), number
    data.SeriesDescription = data.ProtocolName = name
    data.AcquisitionNumber = 1
    data.MagneticFieldStrength = visit.field_strength_t
    data.ImagingFrequency = _decimal(visit.field_strength_t * GAMMA_MHZ_PER_T)
    data.ImagedNucleus = '1H'
    across, down, between = (_decimal(size) for size in grid.voxel_mm)
    data.PixelSpacing = [down, across]
    data.SliceThickness = data.SpacingBetweenSlices = between
    data.ImageOrientationPatient = [*_lps(grid, (1, 0, 0)), *_lps(grid, (0, -1, 0))]
    data.Columns, data.Rows, _ = grid.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, 'MONOCHROME2'
    data.BitsAllocated, data.PixelRepresentation = 16, 0
    return data


def _add_image(data: Dataset, image: Image, echo: int, vendor: Vendor) -> None:
    """Add what differs between the images of a scan."""
    sequence = image.sequence
    spin_echo = sequence.kind == 'spin echo'
    data.ImageType = vendor.series[_kind(image)][1].split('\\')
    data.ScanningSequence = 'SE' if spin_echo else 'GR'
    data.SequenceVariant = 'SK' if spin_echo else 'SP'
    data.ScanOptions = ''
    data.MRAcquisitionType = '2D' if spin_echo else '3D'
    data.RepetitionTime = _decimal(sequence.repetition_time_ms)
    data.EchoTime, data.EchoNumbers = _decimal(image.echo_time_ms), echo
    data.FlipAngle = _decimal(sequence.flip_angle_deg)
    data.PixelBandwidth = _decimal(sequence.bandwidth_hz)


def _add_slice(
    data: Dataset, stored: NDArray[np.uint16], grid: ScanGrid, position: int, uid: UID
) -> None:
    """Add one slice. Rows of DICOM go down, the second axis of the grid goes up."""
    corner = grid.affine @ (0, grid.shape[1] - 1, position, 1)
    data.ImagePositionPatient = [_decimal(x) for x in corner[:3] * (-1, -1, 1)]
    data.SliceLocation = _decimal(grid.voxel_mm[2] * position)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
    data.PixelData = stored[:, ::-1, position].T.astype('<u2').tobytes()


def _lps(grid: ScanGrid, direction: tuple[int, int, int]) -> list[Any]:
    """Return the unit vector of a direction along the axes of the grid, in LPS+ (DICOM)."""
    vector = grid.affine[:3, :3] @ direction * (-1, -1, 1)
    return [_decimal(x) for x in vector / np.linalg.norm(vector)]


def _decimal(number: float) -> Any:
    """Return a decimal string of DICOM, at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return DSfloat(float(number) + 0.0, auto_format=True)


def _stored(image: Image, vendor: str) -> tuple[NDArray[np.uint16], float | None]:
    """Return the numbers that the vendor stores, and the scale slope of Philips.

    Philips stretches each image to the whole range, so that water and fat are only comparable
    after division by their scale slopes.
    """
    if vendor != 'philips':
        return image.data, None
    slope = LARGEST_STORED / max(int(image.data.max()), 1)
    return np.rint(image.data * slope).astype(np.uint16), slope


def _add_philips_scaling(data: Dataset, kind: str, scale_slope: float) -> None:
    """Add the two scalings: value = (stored * rescale slope) / (rescale slope * scale slope)."""
    data.RescaleIntercept, data.RescaleType = 0, 'normalized'
    data.RescaleSlope = _decimal(PHILIPS_RESCALE_SLOPE.get(kind, 1.0))
    block = data.private_block(0x2005, 'Philips MR Imaging DD 001', create=True)
    block.add_new(0x0E, 'FL', scale_slope)
