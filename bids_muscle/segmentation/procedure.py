"""How another program brings a scan before its network and the answer back, as data.

What the programs have in common: an array is cropped, scaled and resampled
(:class:`NetworkInput`), windows slide over it, the outputs of the network are added with weights
and resampled to the scan, and the largest class wins. :mod:`~bids_muscle.segmentation.parity` does
this; here is what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Taps:
    """Where each voxel of an axis of the scan takes its value from, on the axis of the network.

    Parameters
    ----------
    index
        Shape (voxels, 2), int64: two pixels of the network.
    weight
        Shape (voxels, 2), float64: their shares; both 0 for a voxel that was cropped away.
    """

    index: np.ndarray
    weight: np.ndarray

    @classmethod
    def identity(cls, extent: int) -> Taps:
        """Each voxel is a pixel.

        Examples
        --------
        >>> Taps.identity(2).index.tolist()
        [[0, 0], [1, 1]]
        """
        index = np.arange(extent)
        return cls(np.stack([index, index], 1), np.tile([1.0, 0.0], (extent, 1)))

    @classmethod
    def between(cls, place: np.ndarray, extent: int, border: bool = True) -> Taps:
        """Linear interpolation.

        Parameters
        ----------
        place
            Where each voxel lies, in pixels of the network.
        extent
            Number of these pixels.
        border
            Whether the outermost pixels go on beyond the edge; else there is nothing.

        Examples
        --------
        >>> taps = Taps.between(np.array([-1.0, 0.25]), 2)
        >>> taps.index.tolist(), taps.weight.tolist()
        ([[0, 1], [0, 1]], [[1.0, 0.0], [0.75, 0.25]])
        """
        place = np.clip(place, 0, extent - 1) if border else place
        lower = np.floor(place).astype(np.int64)
        index = np.stack([lower, lower + 1], 1)
        weight = np.stack([lower + 1 - place, place - lower], 1)
        weight[(index < 0) | (index >= extent)] = 0
        return cls(np.clip(index, 0, extent - 1), weight)

    def nearest(self) -> Taps:
        """Take the nearer of the two pixels alone, the even one half-way; nothing if it was cut.

        Examples
        --------
        >>> Taps.between(np.array([0.25, 0.75]), 2).nearest().weight.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        even = self.index % 2 == 0
        chosen = (self.weight > 0.5) | ((self.weight == 0.5) & even)
        return Taps(self.index, chosen.astype(float))

    def cut(self, start: int, extent: int) -> Taps:
        """Follow a crop or a padding of the network's axis.

        Parameters
        ----------
        start
            Pixel that becomes the first; negative where pixels were added.
        extent
            Pixels after it.

        Examples
        --------
        >>> Taps.identity(3).cut(1, 2).weight[:, 0].tolist()
        [0.0, 1.0, 1.0]
        """
        index = self.index - start
        outside = (index < 0) | (index >= extent)
        return Taps(np.clip(index, 0, extent - 1), np.where(outside, 0, self.weight))

    def within(self, start: int, extent: int) -> Taps:
        """Put the taps of a crop back into an axis of the scan; what was cropped has no weight.

        Examples
        --------
        >>> Taps.identity(1).within(1, 3).weight[:, 0].tolist()
        [0.0, 1.0, 0.0]
        """
        index, weight = np.zeros((extent, 2), np.int64), np.zeros((extent, 2))
        chosen = slice(start, start + len(self.index))
        index[chosen], weight[chosen] = self.index, self.weight
        return Taps(index, weight)


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """A scan as the network sees it.

    Parameters
    ----------
    volume
        Shape (channels, planes, rows, columns), float32.
    axes
        The axis of the scan that became planes, rows and columns.
    taps
        Of the planes, rows and columns: the way back.
    """

    volume: torch.Tensor
    axes: tuple[int, int, int]
    taps: tuple[Taps, Taps, Taps]


@dataclass(frozen=True, eq=False)
class Procedure:
    """What a program does around its network.

    Parameters
    ----------
    prepare
        From an image (channels, x, y, z) in the order of `orientation`, float32, and its affine
        (4, 4), to what the network sees.
    orientation
        Voxel order, such as ``'RAS'``, that `prepare` takes.
    window
        Extent (planes, rows, columns); None for all at once.
    overlap
        Share of a window that the next one covers too.
    starts
        From extent, window and overlap to where windows begin.
    weight
        Weight of each pixel of a window, from its extent.
    spatial_dims
        Axes of the network, 2 or 3; with 2, windows have one plane.
    planes_last
        Whether a network of three axes takes (rows, columns, planes).
    half
        Whether windows are added, and the sums resampled, in half precision.
    shares
        Whether shares (softmax) are resampled instead of logits.
    nearest
        Whether each voxel takes the class of the nearest pixel instead of interpolating.
    mirrors
        Axes of a window (0 planes, 1 rows, 2 columns) of each further view that is averaged.
    """

    prepare: Callable[[np.ndarray, np.ndarray], NetworkInput]
    window: tuple[int, int, int] | None
    overlap: float
    starts: Callable[[int, int, float], Sequence[int]]
    weight: Callable[[tuple[int, int, int]], torch.Tensor]
    spatial_dims: int
    orientation: str = 'RAS'
    planes_last: bool = False
    half: bool = False
    shares: bool = False
    nearest: bool = False
    mirrors: tuple[tuple[int, ...], ...] = ()


def fixed_starts(extent: int, window: int, overlap: float) -> list[int]:
    """Begin windows at whole steps; the last is moved back to end with the axis (MONAI).

    Examples
    --------
    >>> fixed_starts(10, 4, 0.25)
    [0, 3, 6]
    >>> fixed_starts(11, 4, 0.25)
    [0, 3, 6, 7]
    """
    step = max(int(window * (1 - overlap)), 1)
    return [*range(0, extent - window, step), extent - window]


def even_starts(extent: int, window: int, overlap: float) -> list[int]:
    """Spread windows evenly, as few as overlap enough (nnU-Net).

    Examples
    --------
    >>> even_starts(11, 4, 0.5)
    [0, 2, 4, 5, 7]
    """
    count = int(np.ceil((extent - window) / (window * (1 - overlap)))) + 1
    step = (extent - window) / max(count - 1, 1)
    return [int(np.round(step * i)) for i in range(count)]
