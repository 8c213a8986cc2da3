"""Scans on which other programs and ours are compared, and what the networks learn of them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from peer_cases import REAL, Case

from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor

#: Names the folder of the real scans.
REAL_DATA = 'BIDS_MUSCLE_REAL_DATA'
#: Middle (right, front mm) and half extent of each muscle.
BOXES = {1: (14, 0, 10, 16), 2: (-14, 0, 10, 16), 3: (40, 0, 12, 18), 4: (-40, 0, 12, 18)}
#: Brightness of the background and the muscles.
LEVELS = {'fat': (140, 60, 50, 30, 20)}
USUAL = (60, 90, 105, 135, 150)


def images_of(case: Case) -> dict[str, nib.Nifti1Image]:
    """Return the images of a case as they are stored."""
    return _some_slices(case.scan, case.channels, case.shape[2]) if case.scan else _drawn(case)


def truth_of(case: Case, images: dict[str, nib.Nifti1Image]) -> np.ndarray:
    """Return what the network learns of the images, in RAS order; of real ones our own labels."""
    if not case.scan:
        return np.repeat(_boxes(case)[..., None], case.shape[2], axis=2)
    return _segmented(case.scan, case.channels, case.shape[2])


@cache
def _segmented(scan: str, channels: tuple[str, ...], n_slices: int) -> np.ndarray:
    """Return the labels of the packaged model, in RAS order."""
    images = _some_slices(scan, channels, n_slices)
    canonical = {name: nib.as_closest_canonical(image) for name, image in images.items()}
    found = Predictor(find_model(None, REAL[scan].region)).segment(canonical)
    return np.asarray(found.labels.dataobj)


def _some_slices(
    scan: str, channels: tuple[str, ...], n_slices: int
) -> dict[str, nib.Nifti1Image]:
    files, first = REAL[scan].files, REAL[scan].first
    images: dict[str, nib.Nifti1Image] = {}
    for name in channels:
        image = nib.load(Path(os.environ[REAL_DATA]) / files[name])
        cut = image.slicer[..., first : first + n_slices]
        if images:
            # Water and fat of one scan may have affines that differ in the last digits.
            cut = nib.Nifti1Image(cut.get_fdata(), next(iter(images.values())).affine)
        images[name] = cut
    return images


def _boxes(case: Case) -> np.ndarray:
    """Return the labels of one slice."""
    x, y = _places_mm(case)
    labels = np.zeros(case.shape[:2], np.int64)
    for label, (right, front, width, depth) in BOXES.items():
        labels[(abs(x + right)[:, None] < width) & (abs(y - front) < depth)] = label
    return labels


def _places_mm(case: Case) -> tuple[np.ndarray, np.ndarray]:
    x, y, _ = (
        (np.arange(n) - (n - 1) / 2 + 3) * zoom
        for n, zoom in zip(case.shape, case.zooms_mm, strict=True)
    )
    return x, y


def _drawn(case: Case) -> dict[str, nib.Nifti1Image]:
    """Draw boxes of different brightness in a body, air around it with exact zeros and noise."""
    rng = np.random.default_rng(len(case.order) + case.shape[0])
    x, y = _places_mm(case)
    labels = _boxes(case)
    body = (x[:, None] / 62) ** 2 + (y / 42) ** 2 < 1
    affine = np.diag([*case.zooms_mm, 1.0])
    turn = np.deg2rad(case.tilt_deg)
    tilt = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine[:3, :3] = tilt @ affine[:3, :3]
    images = {}
    for name in case.channels:
        plane = np.array(LEVELS.get(name, USUAL))[labels]
        plane = np.where(body | (labels > 0), plane, 4.0)
        values = np.repeat(plane[..., None], case.shape[2], axis=2)
        values = np.abs(values + rng.normal(0, 4, case.shape))
        values[:6], values[:, -5:] = 0, 0
        image = nib.Nifti1Image(values.round().astype(np.int16), affine)
        turned = nib.orientations.ornt_transform(
            nib.io_orientation(affine), nib.orientations.axcodes2ornt(case.order)
        )
        images[name] = image.as_reoriented(turned)
    return images
