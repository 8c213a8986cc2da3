"""A small derivatives folder, written with the functions that write real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.names import derivative_path, participant_path
from bids_muscle.dataset.records import ScanRecord, StepCost, write_record
from bids_muscle.dataset.scan import Contrast, Scan, ScanImage
from bids_muscle.dataset.writer import write_bytes, write_json, write_text, write_tsv
from bids_muscle.errors import Problem
from bids_muscle.reports.figures import FigureImages, scan_figures

DEFINITIONS = {
    'mfi_ratio_of_means_pct': {
        'LongName': 'Muscle fat infiltration',
        'Description': 'Mean fat signal over the sum of mean fat and mean water signal, times 100',
        'Units': '%',
        'Source': 'Weber 2021',
    },
    'volume_ml': {
        'LongName': 'Volume',
        'Description': 'Number of voxels times the voxel volume',
        'Units': 'ml',
    },
    'n_voxels': {'LongName': 'Voxels', 'Description': 'Number of voxels', 'Units': ''},
}
#: A muscle of which the tiny scans show nothing.
ABSENT = 8


def tiny_volumes(depth: int = 6) -> dict[str, nib.Nifti1Image]:
    """Return a small lumbar scan in RAS+: two blocks per side inside a body."""
    affine = np.diag([2.0, 2.0, 8.0, 1.0])
    water = np.zeros((60, 44, depth), np.float32)
    water[4:56, 4:40] = 200
    labels = np.zeros(water.shape, np.uint8)
    # Right is where x is high.
    labels[32:38, 8:18], labels[22:28, 8:18] = 1, 2
    labels[38:50, 8:18], labels[10:22, 8:18] = 3, 4
    labels[36:42, 28:34], labels[18:24, 28:34] = 5, 6
    water[labels > 0] = 800
    fat = np.where(water > 0, 1000 - water, 0).astype(np.float32)
    total = water + fat
    fraction = np.where(total > 0, fat / np.maximum(total, 1), np.nan).astype(np.float32)
    confidence = np.full(water.shape, 95, np.uint8)
    confidence[:, :, 2:3] = 60  # here the labels are least sure
    volumes = {
        'water': water,
        'confidence': confidence,
        'fat': fat,
        'labels': labels,
        'body': (water > 0).astype(np.uint8),
        'fraction': fraction,
    }
    return {name: nib.Nifti1Image(data, affine) for name, data in volumes.items()}


def tiny_figures(volumes: Mapping[str, nib.Nifti1Image]) -> dict[str, bytes]:
    """Draw the figures of a small scan whose water was brighter on one side."""
    water = volumes['water']
    shading = np.linspace(0.8, 1.25, water.shape[0], dtype=np.float32)[:, None, None]
    raw = nib.Nifti1Image(water.get_fdata(dtype=np.float32) * shading, water.affine)
    images = FigureImages(
        raw={'water': raw},
        corrected={'water': water},
        body_mask=volumes['body'],
        labels=volumes['labels'],
        fat_fraction=volumes['fraction'],
        confidence=volumes['confidence'],
    )
    return scan_figures(images, load_label_table('lumbar'), (water, volumes['labels']))


def muscle_rows(mfi_pct: float = 12.0) -> list[dict[str, Any]]:
    """Return a muscle table in which the last muscle is n/a."""
    return [
        {
            'index': label.index,
            'name': label.name,
            'muscle': label.muscle,
            'side': label.side,
            'mfi_ratio_of_means_pct': None if label.index == ABSENT else mfi_pct + label.index,
            'volume_ml': None if label.index == ABSENT else 20.5 * label.index,
            'n_voxels': 0 if label.index == ABSENT else 640 * label.index,
            'reason': 'not found' if label.index == ABSENT else 'cut off; bounded',
        }
        for label in load_label_table('lumbar')
    ]


@pytest.fixture
def volumes() -> dict[str, nib.Nifti1Image]:
    """Return the images of a small scan: water, fat, labels, body, fraction."""
    return tiny_volumes()


@pytest.fixture(name='muscle_rows')
def muscle_rows_fixture() -> Callable[..., list[dict[str, Any]]]:
    """Give :func:`muscle_rows`."""
    return muscle_rows


@pytest.fixture(scope='session')
def figures() -> dict[str, bytes]:
    """Return the figures of the small scan."""
    return tiny_figures(tiny_volumes())


@pytest.fixture(scope='session')
def one_slice() -> dict[str, bytes]:
    """Return the figures of a scan with a single slice."""
    return tiny_figures(tiny_volumes(1))


@pytest.fixture
def add_scan(tmp_path: Path, figures: dict[str, bytes]) -> Callable[..., Path]:
    """Give a function that adds one scan to a derivatives folder and returns the folder.

    ``add_scan(participant, *, session=None, problem=None, pictures=figures, rows=muscle_rows(),
    definitions=DEFINITIONS, **record fields)``; None leaves the file out.
    """

    def add(participant: str, **options: Any) -> Path:
        return write_scan(tmp_path / 'out', participant, **{'pictures': figures, **options})

    return add


def write_scan(
    output_dir: Path,
    participant: str,
    *,
    session: str | None = None,
    problem: Problem | None = None,
    pictures: Mapping[str, bytes] | None = None,
    rows: list[dict[str, Any]] | None = None,
    definitions: Mapping[str, Any] | None = DEFINITIONS,
    with_table: bool = True,
    settings: str | None = None,
    **fields: Any,
) -> Path:
    """Write the record, table, sidecar and figures of one scan."""
    entities = [('sub', participant), *([('ses', session)] if session else []), ('acq', 'dixon')]
    images = tuple(ScanImage(c, Path()) for c in (Contrast.WATER, Contrast.FAT))
    scan = Scan(tuple(entities), 'T1w', 'lumbar', images)
    record = {
        'status': 'failed' if problem else 'done',
        'inputs': {c: f'sub-{participant}/anat/{c}.nii.gz' for c in ('water', 'fat')},
        'model': {'name': 'lumbar-unet', 'version': '1.0', 'sha256': 'ab12' * 16},
        'versions': {'bids_muscle': '0.1.0', 'monai': '1.6.1', 'antspyx': '0.6.3'},
        'processing': {'bias_correction': True, 'bounded': False},
        'settings_digest': 'cd34' * 16,
        'steps': (StepCost('prepare', 12.34, 900.0), StepCost('segment', 30.0, None)),
        **fields,
    }
    write_record(
        ScanRecord(
            participant=participant,
            session=session,
            scan=scan.name,
            region='lumbar',
            problem=problem,
            **record,
        ),
        scan,
        output_dir,
    )
    if problem:
        return output_dir
    # Not an image, but all that the reports look at is which one it is.
    write_bytes(f'labels of {scan.name}'.encode(), output_dir / derivative_path(scan, 'dseg'))
    if with_table:
        write_tsv(rows or muscle_rows(), output_dir / derivative_path(scan, 'morph'))
    if definitions is not None:
        write_json(definitions, output_dir / derivative_path(scan, 'morph_json'))
    if settings is not None:
        write_text(settings, output_dir / participant_path(participant, 'settings'))
    for name, content in (pictures or {}).items():
        write_bytes(content, output_dir / derivative_path(scan, 'figure', desc=name))
    return output_dir
