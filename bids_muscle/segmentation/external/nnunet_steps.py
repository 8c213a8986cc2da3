"""What nnU-Net v2 does to an image before its network, and the way back.

Isensee et al. 2021, Nature Methods 18:203. An array of nnU-Net has its axes in the order (z, y, x)
before the plan turns them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.segmentation.procedure import NetworkInput, Taps

if TYPE_CHECKING:
    import torch

#: Planes thicker than this many pixels are resampled apart from their plane.
ANISOTROPY = 3
#: Least standard deviation.
LEAST = 1e-8

#: From one channel of a crop, and where anything is not zero, to scaled intensities.
Scale = Callable[[np.ndarray, np.ndarray], np.ndarray]


def prepare(
    image: np.ndarray,
    affine: np.ndarray,
    *,
    axes: tuple[int, int, int],
    spacing_mm: Sequence[float],
    scales: Sequence[Scale],
    data: Mapping[str, Any],
    answer: Mapping[str, Any],
) -> NetworkInput:
    """Crop to what is not zero, scale each channel, resample.

    Parameters
    ----------
    image
        Shape (channels, x, y, z), float32, in the voxel order of the training.
    affine
        (4, 4), voxel to RAS+ mm.
    axes
        Axes of the scan that become planes, rows and columns.
    spacing_mm
        Of the network, along planes, rows and columns, or rows and columns alone.
    scales
        One per channel.
    data, answer
        How images and logits are resampled: ``order`` of the spline, ``order_z`` across planes
        that are resampled apart, ``force_separate_z``.
    """
    from scipy.ndimage import binary_fill_holes, find_objects
    from torch import from_numpy

    zooms = np.linalg.norm(affine[:3, :3], axis=0)[list(axes)]
    turned = image.transpose(0, *(1 + axis for axis in axes))
    there = binary_fill_holes((turned != 0).any(0))
    # A scan of zeros is not cropped.
    found = find_objects(there.astype(np.uint8)) or [tuple(slice(0, n) for n in there.shape)]
    box = found[0]
    target = np.array([*zooms[: 3 - len(spacing_mm)], *spacing_mm])
    crop = np.stack(
        [
            scale(channel[box].astype(np.float32), there[box])
            for scale, channel in zip(scales, turned, strict=True)
        ]
    )
    extents = crop.shape[1:]
    shape = tuple(
        round(float(zoom) / float(wanted) * n)
        for zoom, wanted, n in zip(zooms, target, extents, strict=True)
    )
    apart = _apart(data.get('force_separate_z'), zooms, target)
    resampled = np.stack([_resize(channel, shape, apart, data) for channel in crop])
    apart = _apart(answer.get('force_separate_z'), target, zooms)
    taps = []
    for axis, (native, pixels) in enumerate(zip(extents, shape, strict=True)):
        place = pixels / native * (np.arange(native) + 0.5) - 0.5
        linear = answer.get('order', 1) if axis != apart else answer.get('order_z', 0)
        back = Taps.between(place if linear else np.floor(place + 0.5), pixels)
        taps.append(back.within(box[axis].start, there.shape[axis]))
    return NetworkInput(from_numpy(resampled), axes, (taps[0], taps[1], taps[2]))


def _apart(force: bool | None, now: np.ndarray, then: np.ndarray) -> int | None:
    """Return the axis of thick planes, which is resampled apart, if there is one."""
    for spacing in (now, then) if force is None else (now,) * force:
        if force or spacing.max() / spacing.min() > ANISOTROPY:
            thick = np.flatnonzero(spacing.max() / spacing == 1)
            return int(thick[0]) if len(thick) == 1 else None
    return None


def _resize(
    volume: np.ndarray, shape: tuple[int, ...], apart: int | None, options: Mapping[str, Any]
) -> np.ndarray:
    """Resample one channel; the outermost pixels go on beyond the edge."""
    from scipy.ndimage import map_coordinates
    from skimage.transform import resize

    if volume.shape == shape:
        return volume
    order = int(options.get('order', 3))
    how = {'order': order, 'mode': 'edge', 'anti_aliasing': False}
    if apart is None:
        return np.asarray(resize(volume.astype(float), shape, **how), np.float32)
    planes = np.moveaxis(volume.astype(float), apart, 0)
    in_plane = tuple(n for axis, n in enumerate(shape) if axis != apart)
    small = np.stack([resize(plane, in_plane, **how) for plane in planes])
    depth = shape[apart]
    if depth != len(small):
        position = len(small) / depth * (np.arange(depth) + 0.5) - 0.5
        order_z = int(options.get('order_z', 0))
        if order_z == 0:
            nearest = np.floor(position + 0.5).astype(int)
            small = small[np.clip(nearest, 0, len(small) - 1)]
        else:
            where = np.meshgrid(position, *(np.arange(n) for n in in_plane), indexing='ij')
            small = map_coordinates(small, where, order=order_z, mode='nearest')
    return np.moveaxis(small, 0, apart).astype(np.float32)


def scale_of(scheme: str, masked: bool, properties: Mapping[str, Any]) -> Scale:
    """Return how a channel is scaled.

    Parameters
    ----------
    scheme
        Name of nnU-Net's normalisation.
    masked
        Whether only what is not zero counts and changes.
    properties
        Of the foreground in the training images, for CT.

    Raises
    ------
    ValueError
        If it is none that is known here.
    """
    if scheme == 'ZScoreNormalization':
        return _z_score_there if masked else _z_score
    if scheme == 'NoNormalization':
        return lambda image, _: image
    if scheme == 'RescaleTo01Normalization':
        return _to_unit
    if scheme == 'RGBTo01Normalization':
        return lambda image, _: image / np.float32(255)
    if scheme == 'CTNormalization':
        low, high = float(properties['percentile_00_5']), float(properties['percentile_99_5'])
        mean, deviation = float(properties['mean']), float(properties['std'])
        return lambda image, _: (np.clip(image, low, high) - mean) / max(deviation, LEAST)
    raise ValueError(f'it normalises images with {scheme}')


def _z_score(image: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.asarray((image - image.mean()) / max(image.std(), LEAST))


def _z_score_there(image: np.ndarray, there: np.ndarray) -> np.ndarray:
    values = image[there]
    out = image.copy()
    out[there] = (values - values.mean()) / max(values.std(), LEAST)
    return out


def _to_unit(image: np.ndarray, _: np.ndarray) -> np.ndarray:
    image = image - image.min()
    return np.asarray(image / max(image.max(), LEAST))


def window_weight(window: tuple[int, int, int]) -> torch.Tensor:
    """Return the weight of each pixel of a window: a Gaussian around its middle, 10 at most."""
    import torch
    from scipy.ndimage import gaussian_filter

    extents = window[1:] if window[0] == 1 else window
    peak = np.zeros(extents)
    peak[tuple(extent // 2 for extent in extents)] = 1
    bell = gaussian_filter(peak, [extent / 8 for extent in extents], mode='constant')
    weight = torch.from_numpy(bell * (10 / bell.max())).half()
    weight[weight == 0] = weight[weight > 0].min()
    return weight.reshape(window)


def mirrors(axes: Sequence[int] | None, dims: int) -> tuple[tuple[int, ...], ...]:
    """Return all views that are mirrored along one or more of some axes of a window.

    Examples
    --------
    >>> mirrors([0, 1], 2)
    ((1,), (2,), (1, 2))
    >>> mirrors(None, 3)
    ()
    """
    chosen = [int(axis) + 3 - dims for axis in axes or ()]
    return tuple(
        each for count in range(1, len(chosen) + 1) for each in combinations(chosen, count)
    )
