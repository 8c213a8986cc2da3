"""A small output folder with real images."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.lookups import bids_lookup
from bids_muscle.anatomy.spine import spine_names
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_image, write_json, write_text, write_tsv
from bids_muscle.reports.spine_figure import spine_labels

SHAPE = (6, 5, 4)
ORIGIN = {'Origin': 'http://localhost'}


def label_image(affine: np.ndarray) -> nib.Nifti1Image:
    """Return a map: the right multifidus where x is high, the left one elsewhere."""
    voxels = np.indices(SHAPE).reshape(3, -1)
    x = (affine[:3, :3] @ voxels)[0].reshape(SHAPE)
    data = np.where(x > np.median(x), 1, 2).astype(np.uint8)
    data[0, 0, 0] = 0
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 'scanner')
    image.set_qform(affine, 'scanner')
    return image


def write_output(folder: Path, label: str, affine: np.ndarray) -> Scan:
    """Add a finished scan to an output folder."""
    scan = Scan((('sub', label), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    preproc = derivative_path(scan, 'preproc', contrast='water')
    record = ScanRecord(
        participant=label,
        session=None,
        scan=scan.name,
        region='lumbar',
        status='done',
        inputs={'water': f'sub-{label}/anat/water.nii.gz'},
        outputs=(str(preproc),),
    )
    write_record(record, scan, folder)
    image = label_image(affine)
    write_image(image, folder / derivative_path(scan, 'dseg'))
    write_json({'Manual': False}, folder / derivative_path(scan, 'dseg_json'))
    water = np.arange(image.dataobj.size, dtype=np.float32).reshape(SHAPE) * 10
    write_image(nib.Nifti1Image(water, affine), folder / preproc)
    rows = [
        {
            'index': each.index,
            'name': each.name,
            'muscle': each.muscle,
            'side': each.side,
            'volume_ml': 10.0,
            'reason': None,
        }
        for each in load_label_table('lumbar')
    ]
    write_tsv(rows, folder / derivative_path(scan, 'morph'))
    write_json({}, folder / derivative_path(scan, 'morph_json'))
    description = {'DatasetLinks': {'raw': '../raw'}}
    (folder / 'dataset_description.json').write_text(json.dumps(description))
    return scan


def write_sagittal(folder: Path, label: str, affine: np.ndarray) -> Scan:
    """Add a finished sagittal scan to an output folder, and its image to the raw dataset.

    L4 is where z is high, L5 elsewhere, with their disc between them.
    """
    scan = Scan((('sub', label), ('acq', 'sagT2w')), 'T2w', 'spine', ())
    image = f'sub-{label}/anat/sub-{label}_acq-sag_T2w.nii.gz'
    z = np.argsort(np.argsort(affine[2, :3] @ np.indices(SHAPE).reshape(3, -1))).reshape(SHAPE)
    share = z / z.max()
    numbers = {
        'vertebrae': np.where(share > 0.6, 23, np.where(share < 0.4, 24, 0)),
        'discs': np.where((share >= 0.4) & (share <= 0.6), 123, 0),
    }
    for key, data in numbers.items():
        path = folder / derivative_path(scan, key)
        write_image(nib.Nifti1Image(data.astype(np.uint8), affine), path)
        write_json({'Manual': False}, folder / derivative_path(scan, f'{key}_json'))
        names = {int(n): spine_names(key)[int(n)] for n in np.unique(data) if n}
        write_text(bids_lookup(spine_labels(names)), folder / derivative_path(scan, f'{key}_tsv'))
    outputs = tuple(
        str(derivative_path(scan, f'{key}{e}')) for key in numbers for e in ('', '_tsv')
    )
    record = ScanRecord(
        participant=label,
        session=None,
        scan=scan.name,
        region='spine',
        status='done',
        inputs={'T2w': image},
        outputs=outputs,
    )
    write_record(record, scan, folder)
    raw = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    write_image(nib.Nifti1Image(raw, affine), folder.parent / 'raw' / image)
    return scan
