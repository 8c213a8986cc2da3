"""What an affine leaves: SyN (Avants et al. 2008, doi:10.1016/j.media.2007.06.004) by ANTs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.temporary import temporary_folder

#: Iterations at a quarter, half and full resolution; the atlas is coarse, so the last is left out.
_ITERATIONS = (40, 20, 0)
_SEED = 1


@dataclass(frozen=True, eq=False)
class Warp:
    """Displacements on a grid: a point x goes to x + displacement(x).

    Parameters
    ----------
    displacement_mm
        (X, Y, Z, 3) RAS+ mm.
    affine
        (4, 4) voxel index to mm.
    """

    displacement_mm: np.ndarray
    affine: np.ndarray

    def __call__(self, points_mm: np.ndarray) -> np.ndarray:
        """Move points, (N, 3) mm; beyond the grid as at its edge."""
        from scipy import ndimage

        voxels = apply_affine(np.linalg.inv(self.affine), points_mm).T
        moved = [
            ndimage.map_coordinates(
                self.displacement_mm[..., axis], voxels, order=1, mode='nearest'
            )
            for axis in range(3)
        ]
        return np.asarray(points_mm + np.stack(moved, axis=-1))


def painted(intensity: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Give each muscle a grey value of its own, above those of the image.

    Mutual information of two such images counts anatomy of any contrast and muscles alike, and
    cannot mistake left for right.

    Parameters
    ----------
    intensity
        (X, Y, Z) 0 to 1.
    classes
        (X, Y, Z) 0 where there is no muscle, else its position in the label table plus 1.
    """
    return np.where(classes > 0, 1.2 + 0.2 * classes, intensity).astype(np.float32)


def find_warp(fixed: np.ndarray, moving: np.ndarray, affine: np.ndarray) -> tuple[Warp, Warp]:
    """Deform an image to look like another on the same grid.

    ANTs runs on one thread with a fixed seed, so that the result is always the same.

    Parameters
    ----------
    fixed, moving
        (X, Y, Z), from :func:`painted`.
    affine
        (4, 4) of both, axes along RAS.

    Returns
    -------
    warp, inverse
        From points of the fixed image to those of the moving one, and back.
    """
    # ITK reads this once, when it first computes.
    os.environ['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = '1'
    import ants

    spacing, origin = voxel_sizes(affine), affine[:3, 3] * (-1, -1, 1)
    pictures = [
        ants.from_numpy(
            np.ascontiguousarray(data, np.float32),
            origin=origin.tolist(),
            spacing=spacing.tolist(),
            direction=np.diag([-1.0, -1.0, 1.0]),
        )
        for data in (fixed, moving)
    ]
    seed, ants.config._random_seed = ants.config._random_seed, _SEED
    try:
        with temporary_folder() as folder:
            ants.registration(
                *pictures,
                type_of_transform='SyNOnly',
                initial_transform='identity',
                reg_iterations=_ITERATIONS,
                outprefix=str(folder / 'syn'),
            )
            return _read_warp(folder, 'Warp', affine), _read_warp(folder, 'InverseWarp', affine)
    finally:
        ants.config._random_seed = seed


def _read_warp(folder: Path, name: str, affine: np.ndarray) -> Warp:
    (path,) = folder.glob(f'syn[0-9]{name}.nii.gz')
    displacement = np.asarray(nib.Nifti1Image.from_filename(path).dataobj, np.float32)
    # ITK counts x to the left and y to the back.
    return Warp(displacement[:, :, :, 0] * np.array([-1, -1, 1], np.float32), affine)
