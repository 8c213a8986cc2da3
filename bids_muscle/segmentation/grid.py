"""From the grid of a scan to that of a model and back, plane by plane."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from math import exp, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

#: Axes of an image in RAS+ order that become those of a plane, and the slices.
AXES = {'axial': (0, 1, 2), 'sagittal': (2, 1, 0)}
#: Classes brought to the grid of the scan at once.
CHUNK = 8
#: How many standard deviations away a neighbouring slice counts for anything; the share of equal
#: probabilities that each slice is mixed with, so that none is too sure to be outvoted; and the
#: most that the neighbours weigh together, as a share of the slice itself.
_FAR, _MIXED, _MOST = 1.5, 0.15, 0.5


def model_size(
    shape: Sequence[int], zooms_mm: Sequence[float], spacing_mm: Sequence[float | None]
) -> tuple[int, ...]:
    """Return how many pixels of the model's spacing cover each axis; None keeps the scan's.

    Examples
    --------
    >>> model_size((320, 320, 40), (0.8, 0.8, 4), (1.6, 1.6, None))
    (160, 160, 40)
    """
    return tuple(
        n if spacing is None else max(1, round(n * zoom / spacing))
        for n, zoom, spacing in zip(shape, zooms_mm, spacing_mm, strict=True)
    )


def to_model_grid(planes: Iterator[np.ndarray], size: tuple[int, ...]) -> torch.Tensor:
    """Resample the planes of a volume, linearly and without aliasing in plane.

    Parameters
    ----------
    planes
        (x, y) each.
    size
        Pixels (x, y, planes) of the result.

    Returns
    -------
    torch.Tensor
        float32, (planes, 1, x, y).
    """
    import torch
    from torch.nn.functional import interpolate

    small = torch.cat(
        [
            interpolate(
                torch.from_numpy(np.array(plane, dtype=np.float32))[None, None],
                size=size[:2],
                mode='bilinear',
                antialias=True,
            )
            for plane in planes
        ]
    )
    depth = len(small)
    if size[2] == depth:
        return small
    lower, upper, share = _between(depth, size[2])
    weight = torch.tensor(share, dtype=torch.float32)[:, None, None, None]
    return torch.lerp(small[lower], small[upper], weight)


def at_slices(planes: Iterator[torch.Tensor], depth: int, slices: int) -> Iterator[torch.Tensor]:
    """Yield what lies at each slice of the scan, between planes on the grid of the model.

    Parameters
    ----------
    planes
        In order, ``depth`` of them.
    depth, slices
        Planes of the model's grid and slices of the scan over the same extent.
    """
    if depth == slices:
        yield from planes
        return
    held: dict[int, torch.Tensor] = {}
    reached = 0
    for lower, upper, share in zip(*_between(depth, slices), strict=True):
        while reached <= upper:
            held[reached] = next(planes)
            reached += 1
        for old in [number for number in held if number < lower]:
            del held[old]
        yield held[lower].lerp(held[upper], share)


def with_neighbours(
    planes: Iterator[torch.Tensor], apart_mm: float, reach_mm: float
) -> Iterator[torch.Tensor]:
    """Yield the class probabilities of each slice averaged with those of its neighbours.

    Where a slice says little, its neighbours decide. Their logarithms have Gaussian weights of the
    distance, together at most half of the weight of the slice itself: what is sure stays, as a
    thin muscle that moves sideways from slice to slice. Divided by the root of all weights, the
    sum is on the whole as sure as slices alone, and predicted Dice stays calibrated.

    Parameters
    ----------
    planes
        (classes, x, y) of each slice, in order.
    apart_mm
        Distance of the slices.
    reach_mm
        Standard deviation of the Gaussian.

    Examples
    --------
    >>> import torch
    >>> sure, unsure = torch.tensor([[[0.1]], [[0.9]]]), torch.tensor([[[0.6]], [[0.4]]])
    >>> found = with_neighbours(iter([sure, unsure, sure]), 3.0, 4.0)
    >>> [round(float(plane[1, 0, 0]), 2) for plane in found]
    [0.87, 0.62, 0.87]
    """
    ahead = int(_FAR * reach_mm / apart_mm)
    if ahead < 1:
        yield from planes
        return
    logs: dict[int, torch.Tensor] = {}
    for k, plane in enumerate(chain(planes, repeat(None, ahead))):
        if plane is not None:
            logs[k] = (plane * (1 - _MIXED) + _MIXED / len(plane)).log()
        own = k - ahead
        if own in logs:
            yield _averaged(logs, own, apart_mm / reach_mm)
            logs.pop(own - ahead, None)


def _averaged(logs: dict[int, torch.Tensor], own: int, apart_sd: float) -> torch.Tensor:
    weights = {k: exp(-0.5 * ((k - own) * apart_sd) ** 2) for k in logs if k != own}
    total = sum(weights.values())
    share = min(1.0, _MOST / total) if total else 0.0
    mean = logs[own].clone()
    for k, weight in weights.items():
        mean.add_(logs[k], alpha=share * weight)
    mixed = mean.div_(sqrt(1 + share * total)).softmax(0)
    # Without what was mixed in, what is sure in all slices stays so.
    found = (mixed - _MIXED / len(mixed)).clamp_(min=0)
    return found / found.sum(0)


def _between(depth: int, wanted: int) -> tuple[list[int], list[int], list[float]]:
    """Neighbours and share of the upper one at ``wanted`` places over ``depth`` planes."""
    place = np.clip((np.arange(wanted) + 0.5) * depth / wanted - 0.5, 0, depth - 1)
    lower = np.floor(place).astype(int)
    upper = np.minimum(lower + 1, depth - 1)
    return lower.tolist(), upper.tolist(), (place - lower).tolist()


def arg_max(
    scores: torch.Tensor, shape: tuple[int, int], least: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bring class scores to the grid of the scan and take the largest, a few classes at a time.

    Parameters
    ----------
    scores
        Shape (classes, x, y), not negative; class 0 is the background.
    shape
        Pixels (x, y) of the scan.
    least
        No class can win with less than this anywhere; such classes are not looked at.

    Returns
    -------
    winner
        Class of each pixel, int64.
    best
        Its score.
    background
        The score of class 0.
    """
    import torch
    from torch.nn.functional import interpolate

    candidates = torch.nonzero(scores.amax((1, 2)) >= least).flatten().tolist()
    candidates = [0, *(c for c in candidates if c != 0)]
    background = best = winner = None
    for start in range(0, len(candidates), CHUNK):
        chosen = candidates[start : start + CHUNK]
        fine = interpolate(scores[chosen][None], size=shape, mode='bilinear')[0]
        if background is None:
            background = fine[0]
        top, index = fine.max(0)
        index = torch.tensor(chosen, device=index.device)[index]
        if best is None or winner is None:
            best, winner = top, index
        else:
            winner = torch.where(top > best, index, winner)
            best = torch.maximum(top, best)
    assert winner is not None and best is not None and background is not None  # noqa: S101
    return winner, best, background
