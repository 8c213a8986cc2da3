"""Which vertebral level an axial slice lies at, from where the spine's levels meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.anatomy.levels import EXTRA, VERTEBRAE, SliceLevels, vertebra_of
from bids_muscle.tables import read_rows

#: A slice has the level that has at least this probability; below it the level is not known.
MIN_CONFIDENCE = 0.6
#: Height of a level where only one boundary is known, mm.
_HEIGHT_MM = 25.0
#: No disc is higher, mm.
_MAX_DISC_MM = 20.0
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
        What the numbers mean; those that are not vertebrae (see :func:`vertebra_of`) are left out.

    Returns
    -------
    tuple of Boundary
        From top to bottom without gaps, the longest such run; the vertebrae themselves need not be
        complete. Vertebrae between which another one lies, as a sixth lumbar one, do not meet.
    """
    run = _longest_run(_meetings(labels, affine, names)[0])
    return tuple(each for each in run if {each.upper, each.lower} <= set(VERTEBRAE))


def _meetings(
    labels: np.ndarray, affine: np.ndarray, names: Mapping[int, str]
) -> tuple[list[Boundary], list[str]]:
    """Return where neighbours meet, from top to bottom, and clauses about what lies between."""
    numbers = {
        vertebra: number
        for number, name in names.items()
        if (vertebra := vertebra_of(name)) and (labels == number).any()
    }
    boundaries, between = [], []
    for upper, lower in itertools.pairwise(VERTEBRAE):
        other = EXTRA.get((upper, lower), '')
        row = [name for name in (upper, other, lower) if name in numbers]
        if len(row) == 3:
            between.append(f'{other} lies between {upper} and {lower}')
        # It has no level, but that of its neighbour ends where the two meet.
        for one, two in itertools.pairwise(row):
            gap_mm, middle = _facing(labels, affine, numbers[one], numbers[two])
            if gap_mm > _MAX_DISC_MM:
                between.append(f'at least {gap_mm:.0f} mm lie between {one} and {two}')
            else:
                boundaries.append(Boundary(one, two, middle, _DRAWN_SD_MM))
    return boundaries, between


def _facing(
    labels: np.ndarray, affine: np.ndarray, upper: int, lower: int
) -> tuple[float, tuple[float, float, float]]:
    """Return how far two vertebrae are from each other, mm, and the middle between them."""
    from scipy import ndimage

    spacing = voxel_sizes(affine)
    pair = (labels == upper) | (labels == lower)
    box = ndimage.find_objects(pair.astype(np.uint8))
    above, below = (
        ndimage.distance_transform_edt(labels[box[0]] != number, sampling=spacing)
        for number in (upper, lower)
    )
    middle = np.abs(above - below) <= spacing.max()
    total = np.where(middle, above + below, np.inf)
    # Where the end plates face each other, not the rim where they gape.
    facing = np.argwhere(total <= total.min() + 3.0) + [s.start for s in box[0]]
    x, y, z = apply_affine(affine, facing).mean(axis=0).tolist()
    # From edge to edge, not from centre to centre of voxels.
    return float(total.min() - spacing.max()), (x, y, z)


def _longest_run(found: Sequence[Boundary]) -> tuple[Boundary, ...]:
    runs: list[list[Boundary]] = [[]]
    for each in found:
        if runs[-1] and (runs[-1][-1].lower != each.upper or each.upper not in VERTEBRAE):
            runs.append([])
        runs[-1].append(each)
    runs.sort(key=len, reverse=True)
    return tuple(runs[0])


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
    voxels = apply_affine(np.linalg.inv(affine), [boundary.ras_mm for boundary in boundaries])
    slice_mm = voxel_sizes(affine)[2]
    heights = voxels[:, 2] * slice_mm
    gaps = -np.diff(heights) if len(heights) > 1 else np.array([_HEIGHT_MM])
    edges = np.concatenate([[heights[0] + gaps[0]], heights, [heights[-1] - gaps[-1]]])
    spread = np.array([boundary.sd_mm for boundary in boundaries])
    spread = np.concatenate([spread[:1], spread, spread[-1:]])
    slices = np.arange(n_slices)[:, None] * slice_mm
    below = np.zeros((n_slices, len(edges)))
    for shift_mm, weight in shifts:
        below += weight * ndtr((edges + shift_mm - slices) / spread)
    names = [*(boundary.upper for boundary in boundaries), boundaries[-1].lower]
    shares = np.maximum(below[:, :-1] - below[:, 1:], 0)
    # Beside a sixth lumbar vertebra a level ends, but it is none of its own.
    return {name: shares[:, k] for k, name in enumerate(names) if name in VERTEBRAE}


def drawn_shares(
    drawn: Nifti1Image, names: Mapping[int, str], affine: np.ndarray, n_slices: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the probability of each level at each slice of a scan, from drawn vertebrae.

    Parameters
    ----------
    drawn
        Label map of single vertebrae, on any grid.
    names
        What its numbers mean.
    affine, n_slices
        Of the scan, as for :func:`slice_probabilities`.

    Returns
    -------
    tuple
        As :func:`slice_probabilities`, and clauses about vertebrae without a level.
    """
    boundaries, between = _meetings(np.asarray(drawn.dataobj), drawn.affine, names)
    doubts = [f'{text}, so levels are given on one side of it only' for text in between]
    return slice_probabilities(_longest_run(boundaries), affine, n_slices), doubts


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
        probabilities,
    )


@dataclass(frozen=True, eq=False)
class ChosenLevels:
    """The levels of a scan, of all that are known of it.

    Parameters
    ----------
    levels
        The likeliest of each slice, or those that a person marked.
    shares
        Probability of each level at each slice, by level; may be empty.
    from_map
        Position of the map of vertebrae that `shares` come from; None where it is the atlas.
    """

    levels: SliceLevels
    shares: Mapping[str, np.ndarray]
    from_map: int | None


def choose_levels(
    atlas: Mapping[str, np.ndarray],
    maps: Iterable[Mapping[str, np.ndarray]],
    marked: SliceLevels | None,
    n_slices: int,
) -> ChosenLevels:
    """Choose whose levels a scan has: a person's, else a map's of its vertebrae, else the atlas's.

    Parameters
    ----------
    atlas, maps
        From :func:`slice_probabilities`. Of the maps the first with a level at the height of the
        scan counts, and none after it is asked for; one of another region has no such level.
    marked
        From :func:`~bids_muscle.imaging.marks.levels_from_marks`, or None where nobody marked any;
        marks of another scan name no slice of this one, and do not count.
    n_slices
        Of the scan.

    Examples
    --------
    >>> sure = {'L3': np.array([1.0])}
    >>> choose_levels({'L4': np.array([1.0])}, [{}, sure], None, 1).levels.names
    ('L3',)
    """
    shares, from_map = atlas, None
    levels = likeliest(atlas, n_slices, 'atlas')
    for position, drawn in enumerate(maps):
        found = likeliest(drawn, n_slices, 'segmentation')
        if any(found.names):
            levels, shares, from_map = found, drawn, position
            break
    by_hand = marked if marked and any(marked.names) else None
    return ChosenLevels(by_hand or levels, shares, from_map)


def through_middle(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the affine with its origin in the middle of the first slice, not in its corner.

    In oblique slices the height of the corner is that of another vertebra.

    Examples
    --------
    >>> through_middle(np.eye(4), (5, 3, 2))[:3, 3].tolist()
    [2.0, 1.0, 0.0]
    """
    moved = np.array(affine, dtype=float)
    moved[:3, 3] = affine[:3, :2] @ (np.asarray(shape[:2]) - 1) / 2 + affine[:3, 3]
    return moved


def slice_level_rows(
    levels: SliceLevels, shares: Mapping[str, np.ndarray], affine: np.ndarray
) -> list[dict[str, object]]:
    """Return the table of levels: one row per slice, from inferior to superior.

    Parameters
    ----------
    levels
        Of the scan.
    shares
        From :func:`slice_probabilities`: a column for each level; may be empty.
    affine
        (4, 4) of the scan in canonical voxel order, from :func:`through_middle`.
    """
    return [
        {
            'slice': k,
            'z_mm': float(affine[2, 3] + k * affine[2, 2]),
            'level': name,
            'confidence': float(levels.confidence[k]) if name else None,
            'source': levels.source if name else None,
            **{f'p_{level}': round(float(share[k]), 4) for level, share in shares.items()},
        }
        for k, name in enumerate(levels.names)
    ]


def read_levels(path: Path) -> SliceLevels | None:
    """Read the levels from a table made of :func:`slice_level_rows`; None where none is named."""
    rows = read_rows(path)
    sources = {row['source'] for row in rows} - {'n/a'}
    if not sources:
        return None
    source = sources.pop()
    # The probabilities beside marks of a person are those of the atlas.
    levels = [name for name in rows[0] if name.startswith('p_') and source != 'file']
    return SliceLevels(
        tuple(None if row['level'] == 'n/a' else row['level'] for row in rows),
        np.array([0.0 if row['level'] == 'n/a' else float(row['confidence']) for row in rows]),
        source,
        {name[2:]: np.array([float(row[name]) for row in rows]) for name in levels},
    )
