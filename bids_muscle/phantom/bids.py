"""File names, sidecars and byte-identical files of the simulated dataset."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_muscle import __version__
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.render import ScanGrid
from bids_muscle.phantom.shapes import load_atlas
from bids_muscle.phantom.simulate import Image

#: Days between sessions, as written in sessions.tsv and in DICOM.
DAYS_BETWEEN_SESSIONS = 365

#: Kind of image -> (value of `acq` or None, suffix) with BIDS-valid names.
BIDS_NAMES = {
    'water': ('dixonwater', 'T1w'),
    'fat': ('dixonfat', 'T1w'),
    'inphase': ('dixonin', 'T1w'),
    'opposedphase': ('dixonout', 'T1w'),
    't1w': (None, 'T1w'),
    't2w': (None, 'T2w'),
}

#: Kind of image -> suffix in MuscleMap's naming.
MUSCLEMAP_NAMES = {
    'water': 'water',
    'fat': 'fat',
    'inphase': 'inphase',
    'opposedphase': 'outphase',
}

#: Suffixes of MuscleMap's naming that BIDS does not know.
MUSCLEMAP_IGNORE = ('*_water.*', '*_fat.*', '*_inphase.*', '*_outphase.*')


def scan_acq(kinds: tuple[str, ...]) -> str:
    """Value of `acq` that names a scan in the truth, after its contrast."""
    return {'t1w': 'T1w', 't2w': 'T2w', 'megre': 'T2starwdixon'}.get(kinds[0], 'dixon')


def join_name(entities: dict[str, str | None], *rest: str) -> str:
    """Join the entities that have a value, in BIDS order, and the suffix.

    Examples
    --------
    >>> join_name({'sub': '01', 'ses': None, 'acq': 'dixon'}, 'T1w')
    'sub-01_acq-dixon_T1w'
    """
    order = ('sub', 'ses', 'acq', 'run', 'echo', 'chunk', 'seg')
    parts = [f'{key}-{entities[key]}' for key in order if entities.get(key)]
    return '_'.join([*parts, *rest])


def image_name(entities: dict[str, str | None], kind: str, naming: str) -> str:
    """Return the file stem of an image."""
    if kind.startswith('echo-'):
        return join_name(entities | {'echo': kind.removeprefix('echo-')}, 'MEGRE')
    if naming == 'musclemap' and kind in MUSCLEMAP_NAMES:
        return join_name(entities, MUSCLEMAP_NAMES[kind])
    acq, suffix = BIDS_NAMES[kind]
    return join_name(entities | {'acq': acq}, suffix)


def sidecar(image: Image, region: str, options: Options, site: str) -> dict[str, Any]:
    """Return the sidecar of an image (times in seconds, as BIDS wants them)."""
    sequence = image.sequence
    spin_echo = sequence.kind == 'spin echo'
    return {
        'Modality': 'MR',
        'Manufacturer': 'bids_muscle phantom',
        'InstitutionName': site,
        'MagneticFieldStrength': options.field_strength_t,
        'BodyPart': load_atlas(region).body_part,
        'PulseSequenceType': 'Turbo spin echo' if spin_echo else 'Spoiled gradient echo',
        'ScanningSequence': 'SE' if spin_echo else 'GR',
        'MRAcquisitionType': '2D' if spin_echo else '3D',
        'EchoTime': round(image.echo_time_ms / 1000, 6),
        'RepetitionTime': round(sequence.repetition_time_ms / 1000, 6),
        'FlipAngle': sequence.flip_angle_deg,
        'PixelBandwidth': sequence.bandwidth_hz,
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8', newline='\n')


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def write_nifti(path: Path, data: NDArray[Any], grid: ScanGrid) -> None:
    """Write a .nii.gz whose bytes depend only on its content.

    Parameters
    ----------
    data
        (X, Y, Z) integers, stored without scaling.
    """
    image = nib.Nifti1Image(data, grid.affine.astype(np.float32).astype(float))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units('mm')
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('wb') as stream, gzip.GzipFile('', 'wb', 3, stream, mtime=0) as packed:
        packed.write(image.to_bytes())


def dataset_description(name: str, *, derivative: bool) -> dict[str, Any]:
    """Return the content of dataset_description.json."""
    content: dict[str, Any] = {
        'Name': name,
        'BIDSVersion': '1.10.0',
        'DatasetType': 'derivative' if derivative else 'raw',
        'License': 'CC0',
        'Authors': ['bids_muscle phantom'],
        'GeneratedBy': [{'Name': 'bids_muscle-phantom', 'Version': __version__}],
    }
    if derivative:
        content['DatasetLinks'] = {'raw': '../..'}
    return content
