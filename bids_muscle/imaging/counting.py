"""Which vertebrae the discs of a scan lie between, by the muscles around them.

Muscles tell the place of a scan along the spine to about half a vertebra, discs to 2 mm but for
their names. Each way to name the discs asks for its own affine, which brings them to the atlas's
borders of the same names; how much this affine tells about the places of all points
(:mod:`~bids_muscle.imaging.registration`) says how probable the names are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, combinations_with_replacement

import numpy as np
from nibabel.affines import apply_affine
from numpy.polynomial.polynomial import polyfit, polyval

from bids_muscle.anatomy.levels import VERTEBRAE
from bids_muscle.imaging.levels import Boundary
from bids_muscle.imaging.registration import PointMatch, step_matrix

#: Least number of discs: a single disc is named by its position only.
MIN_DISCS = 2
#: How well the middle of a disc is known from a stack of axial slices, mm; against readings by eye
#: (tests/real/borders.tsv) it is 2.5 mm.
_SEEN_SD_MM = 2.5
#: Every so many-th point is enough to move a scan across the spine.
_ROUGH = 3
#: Levels are higher or lower than those of the atlas by no more than this factor.
_MAX_GROWTH = 1.6
#: What a disc beyond the spine's ends costs, in units of log probability: one within the sacrum
#: is seldom seen, but it is.
_BEYOND = 2.3
#: What a disc costs, in the same units, that would be in view beyond those that were seen, and how
#: far from the edge of the scan, mm: of ten, nine are seen.
_UNSEEN, _EDGE_MM = 2.3, 5.0
#: What a disc that is none, seen in all views, and one that was missed cost when the rest is
#: compared with a smooth curve; how many of each there are at most; how far discs lie from the
#: curve along the body and across, mm; and how much levels differ from the atlas's, as a share.
_OUT_COST, _MISSED_COST, _MAX_OUT, _MAX_MISSED = 4.0, 2.0, 8, 3
_REGULAR_SD_MM, _ACROSS_SD_MM, _LEVEL_SD = 3.0, 8.0, 0.2
#: How much the spine bends: square term of its curve across the body, in heights of a level.
_BEND_SD = 0.1
#: Discs are no closer than this share of a usual level.
_CLOSEST = 0.5
#: What is less probable than this is left out.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Count:
    """One way to name the discs of a scan.

    Parameters
    ----------
    matrix
        (4, 4) from mm in the scan to mm in the atlas, with each disc at the height of its border.
    boundaries
        The borders of the levels in the scan, from top to bottom without gaps.
    discs_mm
        (N, 3) middles of the discs that were named, from top to bottom.
    probability
        Of these names.
    """

    matrix: np.ndarray
    boundaries: tuple[Boundary, ...]
    discs_mm: np.ndarray
    probability: float


def count_discs(
    fits: Sequence[PointMatch],
    matrix: np.ndarray,
    borders: Sequence[Boundary],
    discs_mm: np.ndarray,
    support: np.ndarray,
    centre_mm: np.ndarray,
    spread_mm: float,
) -> tuple[Count, ...]:
    """Name the discs of a scan in every way that its muscles allow.

    Parameters
    ----------
    fits
        How well an affine fits the points of the scan, in each contrast that the atlas has; their
        mean counts.
    matrix
        (4, 4) from mm in the scan to mm in the atlas, found without the discs.
    borders
        Of the levels of the atlas, in its world, from top to bottom without gaps.
    discs_mm
        (N, 3) middles of the discs in the scan, in any order; some may have been missed.
    support
        (N,) share of the views of the scan that see each, above 0 to 1.
    centre_mm
        (3,) middle of the points of the scan.
    spread_mm
        Standard deviation of a border beyond the discs that were seen.

    Returns
    -------
    tuple of Count
        The most probable first; empty where there are fewer than `MIN_DISCS` discs.
    """
    if len(discs_mm) < MIN_DISCS or len(borders) < MIN_DISCS:
        return ()
    there = np.array([each.ras_mm for each in borders])
    placed = apply_affine(matrix, discs_mm)
    order = np.argsort(-placed[:, 2])
    discs, placed = discs_mm[order], placed[order]

    def score(affine: np.ndarray, fits: Sequence[PointMatch] = fits) -> float:
        return float(np.mean([fit.score(affine) for fit in fits]))

    rough = partial(score, fits=[fit.of_some(_ROUGH) for fit in fits])

    level_mm = float(-np.diff(there[:, 2]).mean())
    kept, places = regular(placed, support[order], level_mm)
    discs, placed = discs[kept], placed[kept]
    highest = VERTEBRAE.index('C2') - VERTEBRAE.index(borders[0].upper)
    lowest = VERTEBRAE.index('L5') - VERTEBRAE.index(borders[0].upper)
    candidates = []
    for first in range(-int(places[-1]), len(borders)):
        numbers = first + places
        named = (numbers >= 0) & (numbers < len(borders))
        if np.count_nonzero(named) < MIN_DISCS:
            continue
        own = there[numbers[named]]
        growth, shift = np.polyfit(placed[named, 2], own[:, 2], 1)
        if not 1 / _MAX_GROWTH <= growth <= _MAX_GROWTH:
            continue
        moved = np.diag([1, 1, growth, 1]) @ matrix
        moved[2, 3] += shift
        moved[:2, 3] += (own - apply_affine(moved, discs[named])).mean(axis=0)[:2]
        moved = _in_plane(rough, moved, centre_mm)
        possible = (numbers >= highest) & (numbers <= lowest)
        boundaries = _named(moved, borders, discs[possible], numbers[possible], spread_mm)
        cost = _BEYOND * np.count_nonzero(~possible)
        above = range(max(highest, 0), numbers[0])
        below = range(numbers[-1] + 1, min(lowest + 1, len(borders)))
        shown = [fits[0].shows(moved, there[number], _EDGE_MM) for number in (*above, *below)]
        cost += _UNSEEN * sum(shown)
        candidates.append(
            (fits[0].certainty * score(moved) - cost, moved, boundaries, discs[possible])
        )
    if not candidates:
        return ()
    scores = np.array([one for one, *_ in candidates])
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    counts = [
        Count(moved, boundaries, seen, float(weight))
        for weight, (_, moved, boundaries, seen) in zip(weights, candidates, strict=True)
        if weight > _LEAST
    ]
    return tuple(sorted(counts, key=lambda count: -count.probability))


def regular(
    places_mm: np.ndarray, support: np.ndarray, level_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find which discs were missed, and which are none, from how regular the rest is.

    The heights of levels change little from one to the next, and discs lie on a smooth curve. Of
    all ways to leave out some and to miss up to three, that with the least residuals from such a
    curve is taken; each disc left out costs by how many views see it, each one missed as well.

    Parameters
    ----------
    places_mm
        (N, 3) of the discs along the axes of the atlas, from top to bottom.
    support
        (N,) share of the views that see each.
    level_mm
        Usual height of a level.

    Returns
    -------
    kept
        (M,) positions of the discs that are some.
    places
        (M,) how many levels below the first of them each lies.

    Examples
    --------
    >>> heights = np.array([170.0, 140.0, 80.0, 62.0, 48.0])
    >>> regular(heights[:, None] * [0, 0, 1], np.ones(5), 32.0)[1].tolist()
    [0, 1, 3, 4]
    """
    n = len(places_mm)
    best = (np.inf, np.arange(n), np.arange(n))
    for n_out in range(min(_MAX_OUT, n - MIN_DISCS) + 1):
        for out in combinations(range(n), n_out):
            price_out = _OUT_COST * support[list(out)].sum()
            if price_out >= best[0]:
                continue
            kept = np.delete(np.arange(n), out)
            own = places_mm[kept]
            if (-np.diff(own[:, 2])).min() < _CLOSEST * level_mm:
                continue
            for missed in range(_MAX_MISSED + 1):
                price = price_out + _MISSED_COST * missed
                if price >= best[0]:
                    break
                for gaps in combinations_with_replacement(range(len(kept) - 1), missed):
                    steps = 1 + np.bincount(gaps, minlength=len(kept) - 1)
                    places = np.concatenate([[0], np.cumsum(steps)])
                    cost = price + _irregularity(places, own, level_mm)
                    if cost < best[0]:
                        best = (cost, kept, places)
    return best[1], best[2]


def _irregularity(numbers: np.ndarray, places_mm: np.ndarray, level_mm: float) -> float:
    degree = 2 if len(numbers) > 3 else 1
    curve = polyfit(numbers, places_mm, degree)
    off = places_mm - polyval(numbers, curve).T
    residuals = off / [_ACROSS_SD_MM, _ACROSS_SD_MM, _REGULAR_SD_MM]
    levels = -np.diff(polyval(np.arange(numbers[-1] + 1), curve[:, 2]))
    usual = (np.log(np.maximum(levels, 1) / level_mm) / _LEVEL_SD) ** 2
    bend = curve[2:, :2] / (_BEND_SD * level_mm)
    return float((residuals**2).sum() + usual.mean() + (bend**2).sum())


def _in_plane(
    score: Callable[[np.ndarray], float], start: np.ndarray, centre_mm: np.ndarray
) -> np.ndarray:
    """Improve an affine by shift and growth across the spine; heights stay."""
    from scipy import optimize

    centre = apply_affine(start, centre_mm)

    def matrix(steps: np.ndarray) -> np.ndarray:
        x, y, growth = steps
        return step_matrix([x, y, 0, 0, 0, 0, growth, growth, 0, 0, 0, 0], centre) @ start

    result = optimize.minimize(
        lambda steps: -score(matrix(steps)),
        np.zeros(3),
        method='Powell',
        options={'xtol': 0.5, 'ftol': 1e-3, 'maxiter': 3},
    )
    return matrix(result.x)


def _named(
    matrix: np.ndarray,
    borders: Sequence[Boundary],
    discs_mm: np.ndarray,
    numbers: np.ndarray,
    spread_mm: float,
) -> tuple[Boundary, ...]:
    """Return the borders in the scan: the discs, what lies between them, and the atlas's beyond.

    `numbers` are the places of the discs among the borders of the atlas; those above its first are
    negative.
    """
    top = VERTEBRAE.index(borders[0].upper)
    expected = apply_affine(np.linalg.inv(matrix), [each.ras_mm for each in borders])
    out = []
    for number in range(min(int(numbers[0]), 0), max(int(numbers[-1]) + 1, len(borders))):
        seen = np.flatnonzero(numbers == number)
        if len(seen):
            position, sd_mm = discs_mm[seen[0]], _SEEN_SD_MM
        elif numbers[0] < number < numbers[-1]:
            position = np.array([np.interp(number, numbers, line) for line in discs_mm.T])
            sd_mm = 2 * _SEEN_SD_MM
        else:
            position, sd_mm = expected[number], spread_mm
        x, y, z = position.tolist()
        out.append(
            Boundary(VERTEBRAE[top + number], VERTEBRAE[top + number + 1], (x, y, z), sd_mm)
        )
    return tuple(out)
