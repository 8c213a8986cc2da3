"""Transforms of MONAI before a network, and the way back from their affines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.segmentation.procedure import NetworkInput, Taps

if TYPE_CHECKING:
    import torch

#: Two grids have the same directions when no corner is farther apart than this, in voxels.
SAME_VOXELS = 0.01

#: From an image (channels, x, y, z) with its affine to another.
Transform = Callable[[Any], Any]


def prepare(
    transforms: Sequence[Transform], planes_axis: int, image: np.ndarray, affine: np.ndarray
) -> NetworkInput:
    """Apply transforms, and follow where each voxel goes.

    Parameters
    ----------
    transforms
        MONAI's for arrays: crops, paddings, at most one change of the grid, and scalings.
    planes_axis
        Axis (0, 1, 2) whose planes are looked at in turn.
    image
        Shape (channels, x, y, z), float32.
    affine
        (4, 4), voxel to RAS+ mm. A sheared one is taken for straight, with the same voxel size.
    """
    from monai.data import MetaTensor
    from torch import as_tensor, float64

    volume = MetaTensor(as_tensor(image), affine=as_tensor(_straight(affine), dtype=float64))
    taps = [Taps.identity(extent) for extent in volume.shape[1:]]
    for transform in transforms:
        before = np.linalg.inv(np.asarray(volume.affine)), volume.shape[1:]
        volume = transform(volume)
        # From pixels before the step to those after it.
        move = np.linalg.inv(before[0] @ np.asarray(volume.affine))
        resampled = not np.allclose(np.diag(move), 1, rtol=0, atol=1e-6)
        for axis, extent in enumerate(volume.shape[1:]):
            if resampled:
                place = np.arange(before[1][axis]) * move[axis, axis] + move[axis, 3]
                after = Taps.between(place, extent)
                index = taps[axis].index[:, 0]
                alive = taps[axis].weight[:, :1]
                taps[axis] = Taps(after.index[index], after.weight[index] * alive)
            else:
                taps[axis] = taps[axis].cut(-round(move[axis, 3]), extent)
    axes = (planes_axis, *(axis for axis in range(3) if axis != planes_axis))
    order = (0, *(1 + axis for axis in axes))
    plain: torch.Tensor = volume.as_tensor().permute(order).contiguous()
    return NetworkInput(plain, (axes[0], axes[1], axes[2]), (*(taps[axis] for axis in axes),))  # type: ignore[arg-type]


def _straight(affine: np.ndarray) -> np.ndarray:
    """Return an affine without shear."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / zooms
    if np.abs(directions.T @ directions - np.eye(3)).max() < SAME_VOXELS / 100:
        return affine
    return np.diag([*zooms, 1.0])


def array_transform(name: str, **options: Any) -> Transform:
    """Return one of MONAI's array transforms, made when it is first used.

    Examples
    --------
    >>> array_transform('ScaleIntensity', minv=0.0, maxv=2.0)(np.array([[1.0, 3.0]])).tolist()
    [[0.0, 2.0]]
    """

    def apply(image: Any) -> Any:
        from monai import transforms

        return getattr(transforms, name)(**options)(image)

    return apply


def window_weight(mode: str, window: tuple[int, int, int]) -> torch.Tensor:
    """Return the weight of each pixel of a window, as MONAI blends windows."""
    from monai.data.utils import compute_importance_map

    weight: torch.Tensor = compute_importance_map(window, mode=mode)
    return weight
