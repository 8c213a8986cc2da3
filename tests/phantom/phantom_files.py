"""Reading what the phantom wrote, without the code under test."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

#: Settings of scans that take a second: coarse voxels, whole body in view.
TINY = {'shape': (64, 64, 10)}

Row = dict[str, str]


def read_tsv(path: Path) -> list[Row]:
    with path.open(encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def read_image(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)
