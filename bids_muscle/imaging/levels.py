"""Which vertebral level an axial slice lies at, from where the spine's levels meet."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.anatomy.levels import SliceLevels

#: Vertebrae from top to bottom.
VERTEBRAE = (
    *(f'C{n}' for n in range(1, 8)),
    *(f'T{n}' for n in range(1, 13)),
    *(f'L{n}' for n in range(1, 6)),
    'S1',
)
#: A slice has the level that has at least this probability; below it the level is not known.
MIN_CONFIDENCE = 0.6
#: Height of a level where only one boundary is known, mm.
_HEIGHT_MM = 25.0
#: How well the middle of a disc is known from a label map of its vertebrae, mm.
_DRAWN_SD_MM = 1.0


@dataclass(frozen=True)
class Boundary:
    """The middle of the disc between two vertebrae.

    Parameters
    ----------
    upper, lower
        The vertebrae, such as ``'L4'`` and ``'L5'``.
    ras_mm
        Its place.
    sd_mm
        Standard deviation of its height.
    """

    upper: str
    lower: str
    ras_mm: tuple[float, float, float]
    sd_mm: float


def level_of(name: str) -> str | None:
    """Return the vertebra that a name in a lookup table means, or None.

    Examples
    --------
    >>> level_of('L4'), level_of('vertebra_l4'), level_of('L4-L5'), level_of('sacrum')
    ('L4', 'L4', None, None)
    """
    match = re.fullmatch(r'(?:vertebrae?[ _-]*)?([CTLS]\d+)', name.strip(), re.IGNORECASE)
    level = match[1].upper() if match else None
    return level if level in VERTEBRAE else None


def vertebra_boundaries(
    labels: np.ndarray, affine: np.ndarray, names: Mapping[int, str]
) -> tuple[Boundary, ...]:
    """Find where neighbouring vertebrae of a label map are nearest to each other.

    Parameters
    ----------
    labels
        (X, Y, Z) numbers, in any orientation.
    affine
        (4, 4) voxel index to RAS+ mm.
    names
        What the numbers mean; those that are not vertebrae (see :func:`level_of`) are left out.

    Returns
    -------
    tuple of Boundary
        From top to bottom; the vertebrae themselves need not be complete.
    """
    from scipy import ndimage

    spacing = voxel_sizes(affine)
    numbers = {level: number for number, name in names.items() if (level := level_of(name))}
    found = []
    for upper, lower in itertools.pairwise(VERTEBRAE):
        if upper not in numbers or lower not in numbers:
            continue
        pair = (labels == numbers[upper]) | (labels == numbers[lower])
        box = ndimage.find_objects(pair.astype(np.uint8))
        if not box:
            continue
        part = labels[box[0]]
        masks = [part == numbers[level] for level in (upper, lower)]
        if not all(mask.any() for mask in masks):
            continue
        above, below = (ndimage.distance_transform_edt(~m, sampling=spacing) for m in masks)
        middle = np.abs(above - below) <= spacing.max()
        total = np.where(middle, above + below, np.inf)
        # Where the end plates face each other, not the rim where they gape.
        facing = np.argwhere(total <= total.min() + 3.0) + [s.start for s in box[0]]
        x, y, z = apply_affine(affine, facing).mean(axis=0).tolist()
        found.append(Boundary(upper, lower, (x, y, z), _DRAWN_SD_MM))
    return tuple(found)


def slice_probabilities(
    boundaries: Sequence[Boundary],
    affine: np.ndarray,
    n_slices: int,
    shifts: Sequence[tuple[float, float]] = ((0.0, 1.0),),
) -> dict[str, np.ndarray]:
    """Return the probability of each level at each slice.

    A slice lies at a level when it crosses the spine between the level's two boundaries. The
    height of each boundary is normally distributed about its place; the outermost levels are
    taken to be as high as their neighbours.

    Parameters
    ----------
    boundaries
        From top to bottom without gaps, in the world of the scan.
    affine
        (4, 4) of the scan in canonical voxel order.
    n_slices
        Along its third axis.
    shifts
        How far all boundaries together may lie higher (mm), each with its probability.

    Returns
    -------
    dict
        (n_slices,) by level, from top to bottom. What is missing to 1 lies beyond them.
    """
    from scipy.special import ndtr

    if not boundaries:
        return {}
    voxels = apply_affine(np.linalg.inv(affine), [each.ras_mm for each in boundaries])
    slice_mm = voxel_sizes(affine)[2]
    heights = voxels[:, 2] * slice_mm
    gaps = -np.diff(heights) if len(heights) > 1 else np.array([_HEIGHT_MM])
    edges = np.concatenate([[heights[0] + gaps[0]], heights, [heights[-1] - gaps[-1]]])
    spread = np.array([each.sd_mm for each in boundaries])
    spread = np.concatenate([spread[:1], spread, spread[-1:]])
    slices = np.arange(n_slices)[:, None] * slice_mm
    below = np.zeros((n_slices, len(edges)))
    for shift_mm, weight in shifts:
        below += weight * ndtr((edges + shift_mm - slices) / spread)
    names = [*(each.upper for each in boundaries), boundaries[-1].lower]
    shares = np.maximum(below[:, :-1] - below[:, 1:], 0)
    return {name: shares[:, k] for k, name in enumerate(names)}


def likeliest(probabilities: Mapping[str, np.ndarray], n_slices: int, source: str) -> SliceLevels:
    """Return the likeliest level of each slice; none below `MIN_CONFIDENCE`.

    Examples
    --------
    >>> likeliest({'L3': np.array([0.1, 0.5]), 'L4': np.array([0.9, 0.5])}, 2, 'atlas').names
    ('L4', None)
    """
    if not probabilities:
        return SliceLevels((None,) * n_slices, np.zeros(n_slices), source)
    names, shares = list(probabilities), np.stack(list(probabilities.values()))
    best, confidence = shares.argmax(axis=0), shares.max(axis=0)
    sure = confidence >= MIN_CONFIDENCE
    return SliceLevels(
        tuple(names[k] if ok else None for k, ok in zip(best, sure, strict=True)),
        np.where(sure, confidence, 0.0),
        source,
    )
