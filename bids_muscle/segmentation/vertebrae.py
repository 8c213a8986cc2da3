"""From bodies, discs and sacrum to single vertebrae and discs with names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bids_muscle.anatomy.levels import VERTEBRAE
from bids_muscle.anatomy.spine import DISC_OFFSET, S1, UNNAMED
from bids_muscle.segmentation.bodies import APART_MM, single_bodies
from bids_muscle.segmentation.sacrum import (
    CUT,
    CUT_CERTAINTY,
    WHOLE,
    disc_within,
    first_segment,
    in_view,
    why_not_counted,
)
from bids_muscle.segmentation.shapes import (
    area_mm2,
    distance_mm,
    height_mm,
    largest,
    middle_mm,
    surface,
)

#: Numbers of the classes in the label table of the spine.
BODY, DISC, SACRUM = 1, 2, 3
#: Lumbar and thoracic vertebrae from below, as they follow the sacrum.
FROM_BELOW = tuple(reversed(VERTEBRAE[: VERTEBRAE.index('S1')]))
#: Least sacrum, and least disc, ml.
LEAST_SACRUM_ML, LEAST_DISC_ML = 2.0, 0.3
#: Least area of lumbar bodies in their largest slice, mm2, the median: that of grown people is 700
#: or more, that of bodies of the neck 200 to 350.
LEAST_LUMBAR_MM2 = 500.0
#: Farthest that two bodies on either side of a disc lie apart, mm.
GAP_MM = 20.0
#: Least difference in height of two discs, and their farthest distance where one between them was
#: missed, mm; less than this share of the median disc is none.
DISCS_APART_MM, DISCS_MM, LEAST_DISC_SHARE = 22.0, 85.0, 0.25
#: Where nothing is named, what lies farther to a side of the middle of the spine is no part of
#: it, mm.
BESIDE_MM = 20.0
#: From this share of the median height on, a body is taken for two that grew together.
FUSED = 1.6
#: A curve that leaves the sagittal plane by more than this, mm, is said.
CURVE_MM = 12.0
#: A lumbosacral disc below this share of the median disc height asks for a look at the numbering.
LOW_DISC = 0.45

NO_SACRUM = (
    'the sacrum is outside the field of view or was not found, so the vertebrae cannot be counted'
)
SMALL = (
    'the vertebral bodies are too small for an adult lumbar spine and may be cervical, so the '
    'sacrum is doubtful and no vertebra is named'
)
NOT_KNOWN = 'the model has no label {}, from which {} are named'
TRANSITIONAL = (
    'the disc between {0} and S1 is much lower than the others, as with a lumbosacral '
    'transitional vertebra, so the vertebrae may be named one level off'
)
REMNANT = (
    'there is a disc within the sacrum, as with a lumbarised S1 (L6), so the vertebrae may be '
    'named one level off'
)
TOGETHER = 'there is no disc between {0} and {1}: fused, degenerated, or not found'
MERGED = 'as high as two vertebrae: fused, or not separated'
CURVED = 'the spine leaves the sagittal plane by {0:.0f} mm, so discs may be cut obliquely'


@dataclass(frozen=True)
class Spine:
    """Vertebrae and discs of a scan.

    Parameters
    ----------
    vertebrae, discs
        (X, Y, Z) uint8 numbers.
    names
        Name by number of all that was found: ``'L4'``, ``'L4-L5'``; ``'vertebra 1'`` and
        ``'disc 1'``, from below, where they cannot be named.
    confidence
        By number, 0 to 1: mean probability of the voxels, times that of the sacrum, from which
        the names are counted, and less where little of the sacrum is in view.
    reasons
        By number: what makes a name or a shape doubtful, or why there is no name.
    """

    vertebrae: np.ndarray
    discs: np.ndarray
    names: Mapping[int, str]
    confidence: Mapping[int, float] = field(default_factory=dict)
    reasons: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def name_spine(
    classes: np.ndarray,
    confidence_pct: np.ndarray,
    spacing_mm: Sequence[float],
    model_classes: Collection[int] = (BODY, DISC, SACRUM),
) -> Spine:
    """Separate vertebrae and discs and name them from the sacrum upwards.

    What is too small, or lies too far from the others, is left out.

    Parameters
    ----------
    classes
        (X, Y, Z) in RAS+ order: 1 vertebral body, 2 disc, 3 sacrum.
    confidence_pct
        (X, Y, Z) probability of the class, percent.
    spacing_mm
        Voxel size.
    model_classes
        The classes that the model knows. Of bodies alone, and of discs alone, each one gets a
        number.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    if BODY not in model_classes:
        return _discs_alone(classes == DISC, confidence_pct, spacing_mm, voxel_ml)
    bodies = single_bodies(classes == BODY, spacing_mm, voxel_ml)
    sacrum = largest(classes == SACRUM)
    if np.count_nonzero(sacrum) * voxel_ml < LEAST_SACRUM_ML:
        sacrum = np.zeros_like(sacrum)
    chain = _chain(bodies, sacrum, spacing_mm)
    column = [bodies[number] for number in chain]
    body_mm = float(np.median([height_mm(body, spacing_mm) for body in bodies] or [0.0]))
    no_name = NO_SACRUM if SACRUM in model_classes else NOT_KNOWN.format('sacrum', 'vertebrae')
    certainty = 1.0
    counted = bool(column) and bool(sacrum.any())
    between: list[np.ndarray] = []
    if counted:
        first = first_segment(sacrum, column[0], spacing_mm, body_mm)
        between = _discs_between(classes == DISC, [first, *column], spacing_mm, voxel_ml)
        small = np.median([area_mm2(body, spacing_mm) for body in column]) < LEAST_LUMBAR_MM2
        known_discs = between if DISC in model_classes else None
        doubt = (
            SMALL if small else why_not_counted(sacrum, column, known_discs, spacing_mm, body_mm)
        )
        counted, no_name = not doubt, doubt or no_name
    if counted:
        column = [first, *column]
        levels = FROM_BELOW[: len(chain)]
        numbers = [S1, *(VERTEBRAE.index(level) + 1 for level in levels)]
        labels = ['S1', *levels]
        certainty = float(confidence_pct[sacrum].mean()) / 100
    else:
        column += [bodies[number] for number in _others(bodies, chain, spacing_mm)]
        numbers = [UNNAMED + 1 + place for place in range(len(column))]
        labels = [f'vertebra {number - UNNAMED}' for number in numbers]
        between = _discs_between(classes == DISC, column, spacing_mm, voxel_ml)
    vertebrae, discs = (np.zeros(classes.shape, np.uint8) for _ in range(2))
    reasons: dict[int, list[str]] = {}
    names = dict(zip(numbers, labels, strict=True))
    for number, body in zip(numbers, column, strict=True):
        vertebrae[body] = number
        reasons[number] = [] if counted else [no_name]
        if number != S1 and height_mm(body, spacing_mm) > FUSED * body_mm:
            reasons[number].append(MERGED)
    if DISC in model_classes:
        _name_discs(between, numbers, discs, names, reasons)
    if counted and in_view(sacrum, column[1], spacing_mm, body_mm) < WHOLE:
        certainty *= CUT_CERTAINTY
        reasons[S1].append(CUT)
    _judge(classes, vertebrae, discs, names, reasons, sacrum, spacing_mm)
    confidence = {
        number: float(confidence_pct[(vertebrae == number) | (discs == number)].mean())
        / 100
        * (1.0 if number == S1 else certainty)
        for number in names
    }
    return Spine(
        vertebrae, discs, names, confidence, {n: tuple(r) for n, r in reasons.items() if r}
    )


def _chain(
    bodies: Sequence[np.ndarray], sacrum: np.ndarray, spacing_mm: Sequence[float]
) -> list[int]:
    """Return the bodies, from below, that follow each other a disc apart.

    The chain starts at the sacrum where there is one, else at the lowest body; it ends where
    the next body is too far off.
    """
    if not bodies:
        return []
    last = sacrum if sacrum.any() else None
    middles = [middle_mm(body, spacing_mm) for body in bodies]
    chain: list[int] = []
    left = list(range(len(bodies)))
    while left:
        if last is None:
            chosen = left[0]
        else:
            # A piece beside the last body is not the next one.
            low = middles[chain[-1]][2] + APART_MM if chain else -np.inf
            ways = {
                k: distance_mm(bodies[k], last, spacing_mm) for k in left if middles[k][2] > low
            }
            if not ways:
                break
            chosen = min(ways, key=lambda k: ways[k])
            if ways[chosen] > GAP_MM:
                break
        chain.append(chosen)
        left.remove(chosen)
        last = bodies[chosen]
    return chain


def _others(
    bodies: Sequence[np.ndarray], chain: Sequence[int], spacing_mm: Sequence[float]
) -> list[int]:
    """Return the bodies beyond a gap in the chain; none that lies beside it."""
    middles = [middle_mm(body, spacing_mm) for body in bodies]
    line = [middles[number] for number in chain]
    return [
        number
        for number, middle in enumerate(middles)
        if number not in chain and _in_line(middle, line, APART_MM)
    ]


def _in_line(middle: np.ndarray, line: Sequence[np.ndarray], apart_mm: float) -> bool:
    """Return whether a piece lies above or below each of the others, and not beside them."""
    if not line:
        return True
    aside = abs(middle[0] - float(np.median([each[0] for each in line])))
    apart = min(abs(middle[2] - each[2]) for each in line)
    return bool(aside <= BESIDE_MM and apart >= apart_mm)


def _discs_between(
    mask: np.ndarray,
    column: Sequence[np.ndarray],
    spacing_mm: Sequence[float],
    voxel_ml: float,
) -> list[np.ndarray]:
    """Return the disc between each two neighbours of a column, empty where there is none."""
    from scipy.spatial import cKDTree

    none = np.zeros(mask.shape, bool)
    voxels = np.argwhere(mask)
    if len(column) < 2 or not len(voxels):
        return [none] * (len(column) - 1)
    points = voxels * np.asarray(spacing_mm)
    trees = [cKDTree(surface(body) * np.asarray(spacing_mm)) for body in column]
    far = 1.5 * GAP_MM
    ways = np.stack([tree.query(points, distance_upper_bound=far)[0] for tree in trees], 1)
    # A voxel of a disc is near both of its vertebrae.
    pairs = ways[:, :-1] + ways[:, 1:]
    nearest = pairs.argmin(1)
    close = pairs.min(1) < far
    between = []
    for k in range(len(column) - 1):
        part = none.copy()
        part[tuple(voxels[(nearest == k) & close].T)] = True
        part = largest(part) if part.any() else part
        between.append(part if np.count_nonzero(part) * voxel_ml >= LEAST_DISC_ML else none)
    return between


def _name_discs(
    between: Sequence[np.ndarray],
    numbers: Sequence[int],
    discs: np.ndarray,
    names: dict[int, str],
    reasons: dict[int, list[str]],
) -> None:
    """Name each disc after the vertebrae that it lies between; say where there is none."""
    for part, (low, up) in zip(between, pairwise(numbers), strict=True):
        if not part.any():
            reasons[up].append(TOGETHER.format(names[up], names[low]))
            continue
        number = up + DISC_OFFSET
        discs[part] = number
        unnamed = names[up].startswith('vertebra')
        names[number] = f'disc {up - UNNAMED}' if unnamed else f'{names[up]}-{names[low]}'
        if unnamed:
            reasons[number] = reasons[up][:1]


def _discs_alone(
    mask: np.ndarray,
    confidence_pct: np.ndarray,
    spacing_mm: Sequence[float],
    voxel_ml: float,
) -> Spine:
    """Separate discs in a map of discs only, and number those of one spine."""
    from scipy.ndimage import label
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import pdist, squareform

    discs = np.zeros(mask.shape, np.uint8)
    parts, count = label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    large = sizes[sizes * voxel_ml >= LEAST_DISC_ML]
    if not large.size:
        return Spine(discs.copy(), discs, {})
    least = max(LEAST_DISC_ML / voxel_ml, LEAST_DISC_SHARE * float(np.median(large)))
    taken: list[int] = []
    middles: list[np.ndarray] = []
    # The largest first: a piece between two discs is none.
    for number in 1 + np.argsort(-sizes, kind='stable'):
        part = parts == number
        middle = middle_mm(part, spacing_mm)
        if sizes[number - 1] >= least and _in_line(middle, middles, DISCS_APART_MM):
            taken.append(int(number))
            middles.append(middle)
    _, groups = connected_components(squareform(pdist(middles)) <= DISCS_MM)
    spine = groups == np.bincount(groups, weights=sizes[np.array(taken) - 1]).argmax()
    order = np.argsort([middle[2] for middle in middles], kind='stable')
    names, confidence = {}, {}
    for rank, k in enumerate((k for k in order if spine[k]), start=1):
        number = DISC_OFFSET + UNNAMED + rank
        part = parts == taken[k]
        discs[part] = number
        names[number] = f'disc {rank}'
        confidence[number] = float(confidence_pct[part].mean()) / 100
    reason = NOT_KNOWN.format('vertebrae', 'discs')
    return Spine(np.zeros_like(discs), discs, names, confidence, dict.fromkeys(names, (reason,)))


def _judge(
    classes: np.ndarray,
    vertebrae: np.ndarray,
    discs: np.ndarray,
    names: Mapping[int, str],
    reasons: dict[int, list[str]],
    sacrum: np.ndarray,
    spacing_mm: Sequence[float],
) -> None:
    """Return what is unusual: a transitional vertebra, and a curve out of the plane."""
    numbers = sorted((n for n in names if n < DISC_OFFSET and n != S1), reverse=True)
    if not numbers:
        return
    middles = [middle_mm(vertebrae == number, spacing_mm)[0] for number in numbers]
    if np.ptp(middles) > CURVE_MM:
        for number in numbers:
            reasons.setdefault(number, []).append(CURVED.format(np.ptp(middles)))
    if S1 not in names:
        return
    heights = {n: height_mm(discs == n, spacing_mm) for n in names if n > DISC_OFFSET}
    lowest = numbers[0] + DISC_OFFSET
    others = [height for n, height in heights.items() if n != lowest]
    doubts = []
    if lowest in heights and len(others) > 1 and heights[lowest] < LOW_DISC * np.median(others):
        doubts.append(TRANSITIONAL.format(names[numbers[0]]))
    rest = (classes == DISC) & (discs == 0)
    parts = [discs == number for number in heights]
    if disc_within(rest, parts, sacrum, spacing_mm):
        doubts.append(REMNANT)
    for number in (S1, *numbers):
        reasons.setdefault(number, []).extend(doubts)
