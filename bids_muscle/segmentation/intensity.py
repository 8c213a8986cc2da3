"""Normalisation of planes and volumes, the same in training and in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bids_muscle.errors import UsageError

if TYPE_CHECKING:
    import torch

#: Pixels below this share of the 99th percentile count as air.
AIR_SHARE = 0.04
#: Percentiles of the pixels that are not air; they become 0 and 1.
LOW, HIGH = 0.02, 0.98
#: Normalised values are clipped to this range.
CLIP = (-0.5, 2.0)


def normalize_planes(planes: torch.Tensor) -> torch.Tensor:
    """Scale each plane so that the 2nd and 98th percentile of what is not air become 0 and 1.

    Parameters
    ----------
    planes
        Shape (n, 1, x, y), any intensity scale.

    Returns
    -------
    torch.Tensor
        Same shape, float32, clipped to [-0.5, 2]; an empty plane becomes zero.
    """
    import torch

    flat = planes.float().flatten(1)
    # Every second pixel is enough for a percentile and halves the time of sorting.
    sample, _ = flat[:, ::2].sort(dim=1)
    count = sample.shape[1]
    top = sample[:, int(0.99 * (count - 1))]
    # Rank of the first pixel that is not air, then the percentiles of the rest.
    first = (sample <= (AIR_SHARE * top)[:, None]).sum(1).clamp(max=count - 1)
    rows = torch.arange(len(sample), device=sample.device)
    rest = (count - 1 - first).float()
    low = sample[rows, first + (LOW * rest).long()]
    high = sample[rows, first + (HIGH * rest).long()]
    scale = (high - low).clamp(min=1e-6)
    scaled = ((flat - low[:, None]) / scale[:, None]).clamp(*CLIP)
    scaled = torch.where((high > low)[:, None], scaled, torch.zeros_like(scaled))
    return scaled.view(planes.shape)


#: Percentiles of a volume that histogram standardisation brings to its landmarks: NiftyNet's, with
#: the cut-offs of Weber's released model.
PERCENTILES = (0.1, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100)


def normalize_range(volume: torch.Tensor) -> torch.Tensor:
    """Scale a volume of any shape so that its least and greatest value become 0 and 1."""
    volume = volume.float()
    low, high = volume.min(), volume.max()
    return (volume - low) / (high - low).clamp(min=1e-6)


def normalize_zscore(volume: torch.Tensor) -> torch.Tensor:
    """Scale a volume of any shape to mean 0 and variance 1."""
    volume = volume.float()
    return (volume - volume.mean()) / volume.std().clamp(min=1e-6)


#: What ``normalization`` in a recipe and in ``model.json`` names.
NORMALIZERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    'planes': normalize_planes,
    'range': normalize_range,
    'zscore': normalize_zscore,
}


def normalize_padded(
    volume: torch.Tensor,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    landmarks: Sequence[float] = (),
    pad: Sequence[int] = (),
) -> torch.Tensor:
    """Normalise a volume as NiftyNet does: padded, then standardised, then scaled.

    Parameters
    ----------
    volume
        Any shape.
    normalize
        One of :data:`NORMALIZERS`.
    landmarks
        For :func:`standardize_histogram`; empty for none.
    pad
        Pixels of air, the least value, on both sides of each axis; empty for none. They count in
        percentiles, mean and variance, and are cut off again.
    """
    import torch
    from torch.nn.functional import pad as padded

    volume = volume.float()
    if any(pad):
        sides = [n for width in reversed(pad) for n in (width, width)]
        volume = padded(volume, sides, value=float(volume.min()))
    if landmarks:
        volume = standardize_histogram(volume, landmarks)
    volume = normalize(volume)
    for axis, width in enumerate(pad):
        volume = torch.narrow(volume, axis, width, volume.shape[axis] - 2 * width)
    return volume


def standardize_histogram(volume: torch.Tensor, landmarks: Sequence[float]) -> torch.Tensor:
    """Map the intensities of a volume so that its percentiles become landmarks (Nyul 2000).

    Parameters
    ----------
    volume
        Any shape.
    landmarks
        Not decreasing, one for each of :data:`PERCENTILES`; between them the map is linear.

    Raises
    ------
    UsageError
        If the number of landmarks is another.
    """
    import numpy as np
    import torch

    if len(landmarks) != len(PERCENTILES):
        raise UsageError(
            f'There are {len(landmarks)} landmarks for histogram standardisation.',
            f'Give {len(PERCENTILES)} for each channel in the [landmarks] of the recipe.',
        )
    values = volume.numpy().astype(np.float64)
    # Air: several percentiles may be the same value, of which the last landmark counts.
    found, last = np.unique(np.percentile(values, PERCENTILES)[::-1], return_index=True)
    mapped = np.interp(values, found, np.asarray(landmarks, float)[::-1][last])
    return torch.from_numpy(mapped.astype(np.float32))
