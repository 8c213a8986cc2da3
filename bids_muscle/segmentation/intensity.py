"""Robust normalisation of planes, the same in training and in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
