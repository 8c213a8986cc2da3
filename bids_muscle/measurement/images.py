"""The images of a scan that its muscles are measured in, on the grid of its label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray

from bids_muscle.errors import GridMismatchError
from bids_muscle.measurement.methods import BRIGHT_FAT


@dataclass(frozen=True, kw_only=True)
class ScanImages:
    """The images of a scan, and what is known about the fat in them.

    Parameters
    ----------
    contrast
        What the scan is: ``'dixon'``, ``'T1w'``, ``'T2w'`` or ``'PDw'``.
    water, fat
        Signals, NaN where undefined, without bias correction: their ratio does not need it.
    fat_fraction
        Fat fraction 0 to 1, NaN where undefined; without it, that of `water` and `fat` wherever
        their sum is positive.
    intensity
        T1w, T2w or PDw image without bias field, NaN where undefined, for thresholds.
    body
        (X, Y, Z) mask of the body, in the voxel order of the label map: what is bright in muscles
        is compared with the fat under the skin.
    swap
        (X, Y, Z) mask, in the voxel order of the label map, of where fat and water are swapped;
        these voxels are left out of fat measures and counted.
    clipped
        Share of the body that has the highest value of the image that thresholds are for.
    bounded
        Whether fat and water come from in- and opposed-phase magnitudes.
    fat_suppressed
        Whether fat is dark in `intensity`.
    fat_doubt
        Why no number of fat of this scan can be trusted, or empty: all of them are missing then.
    """

    contrast: str
    water: Nifti1Image | None = None
    fat: Nifti1Image | None = None
    fat_fraction: Nifti1Image | None = None
    intensity: Nifti1Image | None = None
    body: NDArray[np.bool_] | None = None
    swap: NDArray[np.bool_] | None = None
    clipped: float = 0.0
    bounded: bool = False
    fat_suppressed: bool = False
    fat_doubt: str = ''

    def signals(self, labels: Nifti1Image) -> dict[str, np.ndarray]:
        """Return the data of images and masks by name, in RAS+ voxel order.

        Parameters
        ----------
        labels
            (X, Y, Z) label map.

        Raises
        ------
        GridMismatchError
            If one of them is not on the grid of `labels`.
        """
        order = io_orientation(labels.affine)
        images = {'water': self.water, 'fat': self.fat, 'fat fraction': self.fat_fraction}
        images['intensity'] = self.intensity if self.contrast in BRIGHT_FAT else None
        signals: dict[str, np.ndarray] = {}
        for name, image in images.items():
            if image is not None:
                check_grid(image.shape, image.affine, labels, f'{name} image')
                signals[name] = apply_orientation(np.asanyarray(image.dataobj), order)
        for name, mask in {'swap': self.swap, 'body': self.body}.items():
            if mask is not None:
                check_grid(mask.shape, labels.affine, labels, f'{name} mask')
                signals[name] = apply_orientation(mask, order)
        return signals


def check_grid(shape: tuple[int, ...], affine: np.ndarray, labels: Nifti1Image, what: str) -> None:
    """Raise GridMismatchError where an image is not on the grid of its label map."""
    if shape != labels.shape or not np.allclose(affine, labels.affine, atol=1e-3):
        raise GridMismatchError(
            f'The {what} is not on the grid of the label map: {shape} and '
            f'{labels.shape} voxels, or different affines.',
            'Resample the label map to the grid of the scan, with nearest neighbour.',
        )
