"""From bodies, discs and sacrum to single vertebrae and discs with names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bids_muscle.imaging.levels import VERTEBRAE

#: Numbers of the classes in the label table of the spine.
BODY, DISC, SACRUM = 1, 2, 3
#: Number of a disc: that of the vertebra above it, and this. S1 is 26, as VerSe numbers sacra.
DISC_OFFSET, S1 = 100, 26
#: Vertebrae without a name count from this number, from below.
UNNAMED = 40
#: Lumbar and thoracic vertebrae from below, as they follow the sacrum.
FROM_BELOW = tuple(reversed(VERTEBRAE[: VERTEBRAE.index('S1')]))
#: A body smaller than this, ml, or than this share of the median body, is none.
LEAST_BODY_ML, LEAST_SHARE = 2.0, 0.25
#: A pixel of a body this far from its outline, mm, lies in the core of the body, by which bodies
#: are told apart.
CORE_MM = 5.5
#: Farthest from the middle of a core that those of its pieces in the plane lie, mm, and from which
#: share of the usual height on a piece is of several bodies.
STRAY_MM, TALL = 10.0, 1.4
#: Farthest that a pixel of a body lies from its core in the plane, mm; corners are farthest.
RIM_MM = 11.0
#: Least distance of two bodies, middle to middle, mm.
APART_MM = 18.0
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
    'the sacrum is not in view, or was not found, so that the vertebrae cannot be counted from it'
)
SMALL = (
    'the bodies are too small for the lumbar spine of a grown person, as those of the neck are: '
    'what was taken for a sacrum may be none, and nothing is named'
)
NOT_KNOWN = 'the model knows no {}, from which {} are named'
TRANSITIONAL = (
    'the disc between {0} and S1 is much lower than the others, as of a lumbosacral transitional '
    'vertebra: the count of the vertebrae may be off by one'
)
REMNANT = (
    'there is a disc within the sacrum, as of a lumbarised S1 (L6): the count of the vertebrae '
    'may be off by one'
)
TOGETHER = 'there is no disc between {0} and {1}: fused, worn, or not found'
MERGED = 'as high as two vertebrae: fused, or not told apart'
CURVED = 'the spine leaves the sagittal plane by {0:.0f} mm: discs may be cut obliquely'


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
        the names are counted.
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
    known: Collection[int] = (BODY, DISC, SACRUM),
) -> Spine:
    """Tell vertebrae and discs apart and name them from the sacrum upwards.

    What is too small, or lies too far from the others, is left out.

    Parameters
    ----------
    classes
        (X, Y, Z) in RAS+ order: 1 vertebral body, 2 disc, 3 sacrum.
    confidence_pct
        (X, Y, Z) probability of the class, percent.
    spacing_mm
        Voxel size.
    known
        The classes that the model knows. Of bodies alone, and of discs alone, each one gets a
        number.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    if BODY not in known:
        return _discs_alone(classes == DISC, confidence_pct, spacing_mm, voxel_ml)
    bodies = _bodies(classes == BODY, spacing_mm, voxel_ml)
    sacrum = _largest(classes == SACRUM)
    if np.count_nonzero(sacrum) * voxel_ml < LEAST_SACRUM_ML:
        sacrum = np.zeros_like(sacrum)
    chain = _chain(bodies, sacrum, spacing_mm)
    height_mm = _median_height(bodies, spacing_mm)
    vertebrae, discs = (np.zeros(classes.shape, np.uint8) for _ in range(2))
    names: dict[int, str] = {}
    reasons: dict[int, list[str]] = {}
    ordered: list[tuple[int, np.ndarray]] = []
    small = bool(chain) and (
        np.median([_area_mm2(bodies[number], spacing_mm) for number in chain]) < LEAST_LUMBAR_MM2
    )
    if sacrum.any() and chain and not small:
        first = _first_segment(sacrum, bodies[chain[0]], spacing_mm, height_mm)
        vertebrae[first] = S1
        names[S1] = 'S1'
        ordered.append((S1, first))
    named = bool(names)
    no_name = NO_SACRUM if SACRUM in known else NOT_KNOWN.format('sacrum', 'vertebrae')
    no_name = SMALL if sacrum.any() and small else no_name
    rest = [] if named else _others(bodies, chain, spacing_mm)
    for place, body in enumerate([*chain, *rest]):
        level = FROM_BELOW[place] if named else ''
        number = VERTEBRAE.index(level) + 1 if named else UNNAMED + place + 1
        vertebrae[bodies[body]] = number
        names[number] = level or f'vertebra {place + 1}'
        reasons[number] = [] if named else [no_name]
        if _height(bodies[body], spacing_mm) > FUSED * height_mm:
            reasons[number].append(MERGED)
        ordered.append((number, bodies[body]))
    if DISC in known:
        _split_discs(
            classes == DISC, ordered, discs, names, reasons, spacing_mm, voxel_ml, no_name
        )
    _judge(classes, vertebrae, discs, names, reasons, sacrum, spacing_mm)
    sure = float(confidence_pct[sacrum].mean()) / 100 if named else 1.0
    confidence = {
        number: float(confidence_pct[(vertebrae == number) | (discs == number)].mean())
        / 100
        * (1.0 if number == S1 else sure)
        for number in names
    }
    return Spine(
        vertebrae, discs, names, confidence, {n: tuple(r) for n, r in reasons.items() if r}
    )


def _bodies(mask: np.ndarray, spacing_mm: Sequence[float], voxel_ml: float) -> list[np.ndarray]:
    """Return single bodies from below; bridges between them are cut where they are thinnest."""
    from scipy.ndimage import distance_transform_edt, find_objects
    from skimage.segmentation import watershed

    depth = np.stack([distance_transform_edt(plane, sampling=spacing_mm[1:]) for plane in mask])
    seeds, count = _cores(depth > CORE_MM, spacing_mm)
    if not count:
        return []
    # Depth in whole mm, so that noise in the outline makes no other order.
    grown = watershed(-np.floor(depth), seeds, mask=mask)
    for number, box in enumerate(find_objects(seeds), start=1):
        # Beside its outermost cores is no body.
        if box is not None:
            outside = np.ones(len(mask), bool)
            outside[box[0]] = False
            grown[(grown == number) & outside[:, None, None]] = 0
            for k in range(box[0].start, box[0].stop):
                core = seeds[k] == number
                if core.any():
                    away = distance_transform_edt(~core, sampling=spacing_mm[1:])
                    grown[k][(grown[k] == number) & (away > RIM_MM)] = 0
    sizes_ml = np.bincount(grown.ravel(), minlength=count + 1)[1:] * voxel_ml
    large = sizes_ml[sizes_ml >= LEAST_BODY_ML]
    least = max(LEAST_BODY_ML, LEAST_SHARE * float(np.median(large))) if large.size else np.inf
    kept = [grown == 1 + number for number in np.flatnonzero(sizes_ml >= least)]
    return sorted(kept, key=lambda each: float(np.nonzero(each)[2].mean()))


def _cores(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, int]:
    """Give the cores of each body a number: pieces of any slice with their middles in one place.

    The largest pieces come first; one that lies between two bodies, or is several that run into
    one, as at the sides of the spine, is left out, unless nothing else is there.
    """
    from scipy.ndimage import find_objects, label

    plane_mm = np.asarray(spacing_mm[1:])
    pieces = []
    for k, plane in enumerate(mask):
        numbers, _ = label(plane)
        for number, box in enumerate(find_objects(numbers), start=1):
            voxels = np.argwhere(numbers[box] == number) + [each.start for each in box]
            pieces.append((k, voxels))
    heights = [np.ptp(voxels[:, 1]) * plane_mm[1] for _, voxels in pieces]
    usual = float(np.median(heights)) if heights else 0.0
    # Large and usual pieces first, then those of several bodies.
    order = sorted(
        range(len(pieces)), key=lambda n: (heights[n] > TALL * usual, -len(pieces[n][1]))
    )
    seeds = np.zeros(mask.shape, np.int32)
    middles: list[np.ndarray] = []
    for n in order:
        k, voxels = pieces[n]
        middle = voxels.mean(0) * plane_mm
        ways = [float(np.linalg.norm(middle - each)) for each in middles]
        near = int(np.argmin(ways)) if ways and min(ways) < STRAY_MM else None
        if heights[n] > TALL * usual and any(
            (voxels == np.rint(each / plane_mm)).all(1).any() for each in middles
        ):
            continue
        if near is None and ways and min(ways) < APART_MM:
            continue
        if near is None:
            middles.append(middle)
            near = len(middles) - 1
        seeds[(k, *voxels.T)] = near + 1
    return seeds, len(middles)


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    parts, count = label(mask)
    return mask if count < 2 else parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())


def _middle(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    return np.asarray(np.argwhere(mask).mean(0) * np.asarray(spacing_mm))


def _height(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the extent of a body along its axis, from its volume and cross-section."""
    rows = np.count_nonzero(mask, axis=2)
    return float(np.median(rows[rows > 0.5 * rows.max()]) * spacing_mm[2])


def _area_mm2(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the area of a body in its largest slice."""
    return float(np.count_nonzero(mask, axis=(1, 2)).max() * spacing_mm[1] * spacing_mm[2])


def _median_height(bodies: Sequence[np.ndarray], spacing_mm: Sequence[float]) -> float:
    heights = [_height(body, spacing_mm) for body in bodies]
    return float(np.median(heights)) if heights else 27.0


def _distance(one: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the least distance between two masks, mm."""
    from scipy.spatial import cKDTree

    first, second = (_surface(mask) * np.asarray(spacing_mm) for mask in (one, other))
    return float(cKDTree(first).query(second)[0].min())


def _surface(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion, find_objects

    box = find_objects(mask.astype(np.uint8))[0]
    inner = mask[box]
    return np.argwhere(inner & ~binary_erosion(inner)) + [each.start for each in box]


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
    middles = [_middle(body, spacing_mm) for body in bodies]
    chain: list[int] = []
    left = list(range(len(bodies)))
    while left:
        if last is None:
            chosen = left[0]
        else:
            # A piece beside the last body is not the next one.
            low = middles[chain[-1]][2] + APART_MM if chain else -np.inf
            ways = {k: _distance(bodies[k], last, spacing_mm) for k in left if middles[k][2] > low}
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
    middles = [_middle(body, spacing_mm) for body in bodies]
    line = [middles[number] for number in chain]
    return [
        number
        for number, middle in enumerate(middles)
        if number not in chain and _in_line(middle, line, APART_MM)
    ]


def _in_line(middle: np.ndarray, line: Sequence[np.ndarray], apart_mm: float) -> bool:
    """Say whether a piece lies above or below each of the others, and not beside them."""
    if not line:
        return True
    aside = abs(middle[0] - float(np.median([each[0] for each in line])))
    apart = min(abs(middle[2] - each[2]) for each in line)
    return bool(aside <= BESIDE_MM and apart >= apart_mm)


def _first_segment(
    sacrum: np.ndarray, above: np.ndarray, spacing_mm: Sequence[float], height_mm: float
) -> np.ndarray:
    """Return S1: what of the sacrum lies within the height of a body from its upper end plate."""
    points = np.argwhere(sacrum) * np.asarray(spacing_mm)
    down = points.mean(0) - _middle(above, spacing_mm)
    down[0] = 0
    down /= np.linalg.norm(down)
    depth = points @ down
    top = np.quantile(depth, 0.02)
    first = np.zeros_like(sacrum)
    near = depth <= top + height_mm
    first[tuple(np.argwhere(sacrum)[near].T)] = True
    return first


def _split_discs(
    mask: np.ndarray,
    ordered: Sequence[tuple[int, np.ndarray]],
    discs: np.ndarray,
    names: dict[int, str],
    reasons: dict[int, list[str]],
    spacing_mm: Sequence[float],
    voxel_ml: float,
    no_name: str,
) -> None:
    """Give each disc to the two vertebrae it lies between; number and name it."""
    from scipy.spatial import cKDTree

    voxels = np.argwhere(mask)
    if len(ordered) < 2 or not len(voxels):
        for (low, _), (up, _) in pairwise(ordered):
            reasons.setdefault(up, []).append(TOGETHER.format(names[up], names[low]))
        return
    points = voxels * np.asarray(spacing_mm)
    trees = [cKDTree(_surface(body) * np.asarray(spacing_mm)) for _, body in ordered]
    far = 1.5 * GAP_MM
    ways = np.stack([tree.query(points, distance_upper_bound=far)[0] for tree in trees], 1)
    # A voxel of a disc is near both of its vertebrae.
    pairs = ways[:, :-1] + ways[:, 1:]
    nearest = pairs.argmin(1)
    close = pairs.min(1) < far
    for k, ((low, _), (up, _)) in enumerate(pairwise(ordered)):
        part = np.zeros(mask.shape, bool)
        part[tuple(voxels[(nearest == k) & close].T)] = True
        part = _largest(part) if part.any() else part
        if np.count_nonzero(part) * voxel_ml < LEAST_DISC_ML:
            reasons.setdefault(up, []).append(TOGETHER.format(names[up], names[low]))
            continue
        number = up + DISC_OFFSET
        discs[part] = number
        unnamed = names[up].startswith('vertebra')
        names[number] = f'disc {up - UNNAMED}' if unnamed else f'{names[up]}-{names[low]}'
        if unnamed:
            reasons[number] = [no_name]


def _discs_alone(
    mask: np.ndarray,
    confidence_pct: np.ndarray,
    spacing_mm: Sequence[float],
    voxel_ml: float,
) -> Spine:
    """Tell discs apart where nothing else is known, and number the pieces of one spine."""
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
        middle = _middle(part, spacing_mm)
        if sizes[number - 1] >= least and _in_line(middle, middles, DISCS_APART_MM):
            taken.append(int(number))
            middles.append(middle)
    _, groups = connected_components(squareform(pdist(middles)) <= DISCS_MM)
    spine = groups == np.bincount(groups, weights=sizes[np.array(taken) - 1]).argmax()
    order = np.argsort([middle[2] for middle in middles], kind='stable')
    names, confidence = {}, {}
    for place, k in enumerate((k for k in order if spine[k]), start=1):
        number = DISC_OFFSET + UNNAMED + place
        part = parts == taken[k]
        discs[part] = number
        names[number] = f'disc {place}'
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
    """Say what is unusual: a transitional vertebra, and a curve out of the plane."""
    numbers = sorted((n for n in names if n < DISC_OFFSET and n != S1), reverse=True)
    if not numbers:
        return
    middles = [_middle(vertebrae == number, spacing_mm)[0] for number in numbers]
    if np.ptp(middles) > CURVE_MM:
        for number in numbers:
            reasons.setdefault(number, []).append(CURVED.format(np.ptp(middles)))
    if S1 not in names:
        return
    heights = {n: _height(discs == n, spacing_mm) for n in names if n > DISC_OFFSET}
    lowest = numbers[0] + DISC_OFFSET
    others = [height for n, height in heights.items() if n != lowest]
    doubts = []
    if lowest in heights and len(others) > 1 and heights[lowest] < LOW_DISC * np.median(others):
        doubts.append(TRANSITIONAL.format(names[numbers[0]]))
    if _disc_within(classes, discs, sacrum, spacing_mm):
        doubts.append(REMNANT)
    for number in (S1, *numbers):
        reasons.setdefault(number, []).extend(doubts)


def _disc_within(
    classes: np.ndarray, discs: np.ndarray, sacrum: np.ndarray, spacing_mm: Sequence[float]
) -> bool:
    """Say whether a disc of the sacrum is as large as half of the median disc."""
    from scipy.ndimage import label

    sizes = np.bincount(discs.ravel())[DISC_OFFSET:]
    sizes = sizes[sizes > 0]
    parts, count = label((classes == DISC) & (discs == 0))
    if not sizes.size:
        return False
    found = np.bincount(parts.ravel(), minlength=count + 1)
    return any(
        found[n] > 0.5 * np.median(sizes) and _distance(parts == n, sacrum, spacing_mm) < 3.0
        for n in range(1, count + 1)
    )
