"""Alignments as files that ITK, ANTs and 3D Slicer read."""

from __future__ import annotations

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine

from bids_muscle.imaging.alignment import Alignment
from bids_muscle.imaging.atlas import Atlas


def itk_affine(matrix: np.ndarray) -> str:
    """Return an affine as a transform file of ITK, which resamples the scan onto the atlas.

    Parameters
    ----------
    matrix
        (4, 4) from RAS+ mm in the scan to RAS+ mm in the atlas. ITK wants the way back, in LPS+.
    """
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    back = flip @ np.linalg.inv(matrix) @ flip
    numbers = ' '.join(f'{value:.9g}' for value in (*back[:3, :3].ravel(), *back[:3, 3]))
    return (
        '#Insight Transform File V1.0\n#Transform 0\n'
        'Transform: AffineTransform_double_3_3\n'
        f'Parameters: {numbers}\nFixedParameters: 0 0 0\n'
    )


def itk_field(found: Alignment, atlas: Atlas) -> Nifti1Image:
    """Return the whole transform as a displacement field of ITK on the grid of the atlas."""
    shape = next(iter(atlas.images.values())).shape
    points = apply_affine(atlas.affine, np.indices(shape).reshape(3, -1).T)
    moved = (found.to_scan(points) - points) * (-1, -1, 1)
    field = Nifti1Image(moved.reshape(*shape, 1, 3).astype(np.float32), atlas.affine)
    field.header.set_intent('vector')
    return field
