"""People of boxes, whose place in an atlas is known, and their alignment."""

from __future__ import annotations

from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from bids_muscle.imaging import alignment
from bids_muscle.imaging.atlas import Atlas
from bids_muscle.imaging.levels import Boundary, likeliest
from bids_muscle.imaging.template import LabelledScan, build_atlas


def body(scale: float = 1.0, shift_mm: float = 0.0) -> LabelledScan:
    """Draw four muscles that grow downwards and two kidneys in a body, 160 mm high, upright."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-120, -100, -80)
    ras = np.moveaxis(apply_affine(affine, np.indices((60, 50, 40)).reshape(3, -1).T), 1, 0)
    ras[2] -= shift_mm
    x, y, z = ras.reshape(3, 60, 50, 40) / scale
    mask = (x / 105) ** 2 + (y / 80) ** 2 < 1
    image = np.where(mask, 0.9, 0.0)
    image[(x / 90) ** 2 + (y / 65) ** 2 < 1] = 0.4
    for side in (-1, 1):
        kidney = ((x - 55 * side) / 22) ** 2 + ((y - 5) / 22) ** 2 + ((z - 35) / 35) ** 2 < 1
        image[kidney] = 0.7
    labels = np.zeros(mask.shape, np.uint8)
    width = 16 - z / 12
    for side, first in ((1, 1), (-1, 2)):
        labels[(np.abs(x - 18 * side) < width) & (np.abs(y + 45) < width)] = first
        labels[(np.abs(x - 45 * side) < 26 - width) & (np.abs(y + 10) < 12)] = first + 4
    labels[~mask] = 0
    image[labels > 0] = 0.2
    heights = {('L2', 'L3'): 40.0, ('L3', 'L4'): 0.0, ('L4', 'L5'): -40.0}
    return LabelledScan(
        {'water': nib.Nifti1Image(image.astype(np.float32), affine)},
        labels,
        mask,
        tuple(
            Boundary(upper, lower, (0.0, 0.0, scale * height + shift_mm), 1.0)
            for (upper, lower), height in heights.items()
        ),
    )


@cache
def box_atlas() -> Atlas:
    """Return the atlas of three such people."""
    return build_atlas([body(1.0), body(1.05), body(0.95, 6)], 'lumbar', 'boxes', spacing_mm=4)


def align(case: LabelledScan, atlas: Atlas, **options: Any) -> alignment.Alignment:
    labels = nib.Nifti1Image(case.labels, case.affine)
    mask = nib.Nifti1Image(case.mask.astype(np.uint8), case.affine)
    return alignment.align_scan(case.images, labels, mask, atlas, **options)


def moved(case: LabelledScan, matrix: np.ndarray, slices: slice = slice(None)) -> LabelledScan:
    """Put a person elsewhere in the scanner, and cut the field of view."""
    affine = matrix @ case.affine
    affine[:3, 3] = apply_affine(affine, [0, 0, slices.start or 0])
    images = {
        key: nib.Nifti1Image(np.asarray(img.dataobj)[:, :, slices], affine)
        for key, img in case.images.items()
    }
    return LabelledScan(images, case.labels[:, :, slices], case.mask[:, :, slices])


def levels_of(
    case: LabelledScan, found: alignment.Alignment, atlas: Atlas
) -> tuple[str | None, ...]:
    scan = next(iter(case.images.values()))
    shares = alignment.level_probabilities(found, atlas, scan)
    for share in np.sum(list(shares.values()), axis=0) if shares else ():
        assert 0 <= share <= 1 + 1e-9
    return likeliest(shares, scan.shape[2], 'atlas').names
