"""Fixtures that every test folder may use: the real scans and small datasets made on the spot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings

# Run inside an image, for hours, or in the processes of a run that is to fail: no test modules.
collect_ignore = ['container', 'soak', 'faults/inject']

# A loaded machine is no fault of the code.
settings.register_profile('untimed', deadline=None)
settings.load_profile('untimed')

#: Voxel size of a tiny image: thick axial slices, as muscle scans have.
TINY_ZOOMS_MM = (1.0, 1.0, 4.0)

#: Folders whose files take longest. They begin first, so that both workers end together.
LONGEST = ('tests/workflows', 'tests/faults', 'tests/slurm', 'tests/segmentation', 'tests/reports')

TinyImage = np.ndarray | nib.Nifti1Image | bytes | None
TinyDataset = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest folders first; the order within a folder stays."""

    def turn(item: pytest.Item) -> int:
        folders = (n for n, folder in enumerate(LONGEST) if item.nodeid.startswith(folder))
        return next(folders, len(LONGEST))

    items.sort(key=turn)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder of the real scans, or skip."""
    default = Path(__file__).parents[1] / '../shared/data'
    folder = Path(os.environ.get('BIDS_MUSCLE_REAL_DATA', default)).resolve()
    if not folder.is_dir():
        pytest.skip(f'no real scans: {folder} is not there (set BIDS_MUSCLE_REAL_DATA)')
    return folder


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> TinyDataset:
    """Give a function that writes a small BIDS dataset and returns its folder.

    ``tiny_dataset(images, sidecars=None, *, description=True, name='bids')``:

    - ``images``: stem relative to the dataset, such as ``'sub-01/anat/sub-01_T2w'``, to an array
      (axial slices, 1x1x4 mm), a ``Nifti1Image``, bytes (written as they are, for broken files)
      or None (a random 8x8x4 uint16 image, the same at every call).
    - ``sidecars``: file name relative to the dataset, such as
      ``'sub-01/anat/sub-01_T2w.json'``, to its content.
    - ``description``: whether ``dataset_description.json`` is written.
    """

    def write(
        images: Mapping[str, TinyImage],
        sidecars: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        description: bool = True,
        name: str = 'bids',
    ) -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        if description:
            content = {'Name': 'tiny', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
            (root / 'dataset_description.json').write_text(json.dumps(content))
        for stem, image in images.items():
            _write_image(root / f'{stem}.nii.gz', image)
        for file_name, sidecar in (sidecars or {}).items():
            path = root / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(sidecar))
        return root

    return write


def _write_image(path: Path, image: TinyImage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
        return
    if image is None:
        image = np.random.default_rng(0).integers(1, 1000, (8, 8, 4)).astype(np.uint16)
    if isinstance(image, np.ndarray):
        zooms = (*TINY_ZOOMS_MM, *[1.0] * (image.ndim - 3))
        image = nib.Nifti1Image(image, np.diag([*TINY_ZOOMS_MM, 1.0]))
        image.header.set_zooms(zooms)
    nib.save(image, path)


@pytest.fixture(scope='session')
def dicom_to_bids(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Give a function that converts the first person of a DICOM phantom, or skip.

    ``dicom_to_bids(folder, vendor, bids_dir, label='01', program='dcm2bids')`` runs the commands
    and configuration files of docs/from-dicom.md.
    """
    recipes = Path(__file__).parents[1] / 'docs/dicom'

    def convert(
        folder: Path, vendor: str, bids_dir: Path, label: str = '01', program: str = 'dcm2bids'
    ) -> None:
        for tool in ('dcm2niix', program):
            # Those of the venv are beside Python, and need not be on the path.
            beside = Path(sys.executable).with_name(tool)
            if not (shutil.which(tool) or beside.exists()):
                pytest.skip(f'{tool} is not installed')
        series = folder / 'sourcedata/sub-01'
        if vendor != 'siemens':
            split = tmp_path_factory.mktemp('split') / f'sub-{label}'
            _run(sys.executable, recipes / 'split_by_image_type.py', series, split)
            series = split
        if program == 'dcm2bids':
            config = recipes / f'dcm2bids-{vendor}.json'
            _run('dcm2bids', '-d', series, '-p', label, '-c', config, '-o', bids_dir)
        elif program == 'heudiconv':
            heuristic = ['-f', recipes / 'heudiconv_heuristic.py', '-c', 'dcm2niix', '-b']
            words = ['--files', series, '-s', label, *heuristic, '--minmeta', '-o', bids_dir]
            _run('heudiconv', *words)
        else:
            template = ['-t', recipes / 'bidscoin_template.yaml', '-a']
            _run('bidsmapper', series.parent, bids_dir, *template)
            _run('bidscoiner', series.parent, bids_dir)

    return convert


def _run(program: str, *words: object) -> None:
    folder = str(Path(sys.executable).parent)
    environment = {**os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}'}
    done = subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
