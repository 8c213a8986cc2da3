"""The sacrum, from which vertebrae are counted: its first segment, and whether it is one.

Where the lower edge of the image cuts the sacrum or L5, a part of one is easily taken for the
other, and all names are one too high or too low. The bounds below are from the eight people with
drawn vertebrae that the model was trained on, cut at every 4 mm, and from drawn spines.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bids_muscle.segmentation.shapes import (
    distance_mm,
    downwards,
    height_mm,
    middle_mm,
    tilt_deg,
    wedge_deg,
)

#: From so many times the height of a body on, what is in view of a sacrum cannot be a cut body;
#: below the second the size of the lowest body does not tell it either.
WHOLE, LEAST_VIEW = 1.2, 0.5
#: A lowest body below this share of the volume of the next one is a piece of something; it is one
#: too where its middle is nearer to that of S1 than this share of the distance of two bodies.
PIECE, PIECE_NEAR = 0.6, 0.5
#: L5 has less volume than this share of L4 (mean 0.90, SD 0.04; L4 has 0.94 to 1.12 of L3), and
#: end plates with at least this angle (7.6 to 15 degrees; L4 -1 to 14).
L5_SHARE, L5_WEDGE_DEG = 0.92, 6.0
#: The disc L4-L5 falls forward, by 5 to 25 degrees; L3-L4 by -5 to 8.
L45_TILT_DEG = 10.0
#: A lowest disc below this share of the median height of the next three may be one of the sacrum.
LOW_DISC = 0.75
#: Names from a sacrum that may be a cut body, but has all signs of one, are so likely right.
CUT_CERTAINTY = 0.8

OPEN = ', so the vertebrae cannot be counted from the sacrum'
IS_PIECE = (
    'the lowest body is incomplete or a part of the sacrum, for example cut by the edge of the '
    'image' + OPEN
)
NO_DISC = 'there is no disc between the lowest body and the sacrum' + OPEN
OF_SACRUM = (
    'the lowest disc is low and the spine bends less there than at the next disc, as between S1 '
    'and S2' + OPEN
)
MAY_BE_L5 = (
    'so little of the sacrum is in view that it may be L5, and the lowest body has neither the '
    'size and wedge shape of L5 nor a steep disc above it' + OPEN
)
CUT = 'the visible part of the sacrum is shorter than a vertebra, so the names are less certain'


def first_segment(
    sacrum: np.ndarray, above: np.ndarray, spacing_mm: Sequence[float], body_mm: float
) -> np.ndarray:
    """Return S1: what of the sacrum lies within the height of a body from its upper end plate."""
    depth = (np.argwhere(sacrum) * np.asarray(spacing_mm)) @ downwards(above, sacrum, spacing_mm)
    near = depth <= np.quantile(depth, 0.02) + body_mm
    first = np.zeros_like(sacrum)
    first[tuple(np.argwhere(sacrum)[near].T)] = True
    return first


def in_view(
    sacrum: np.ndarray, above: np.ndarray, spacing_mm: Sequence[float], body_mm: float
) -> float:
    """Return how long the part of the sacrum in view is, in heights of a body."""
    depth = (np.argwhere(sacrum) * np.asarray(spacing_mm)) @ downwards(above, sacrum, spacing_mm)
    return float(np.ptp(np.quantile(depth, [0.02, 0.98])) / body_mm)


def why_not_counted(
    sacrum: np.ndarray,
    bodies: Sequence[np.ndarray],
    discs: Sequence[np.ndarray] | None,
    spacing_mm: Sequence[float],
    body_mm: float,
) -> str | None:
    """Return why vertebrae cannot be counted from what was taken for a sacrum.

    Parameters
    ----------
    sacrum
        (X, Y, Z) mask in RAS+ order.
    bodies
        From below, the first next to the sacrum.
    discs
        Below each of the bodies, empty masks where there is none; None where the model knows no
        discs.
    spacing_mm
        Voxel size.
    body_mm
        Median height of a body.

    Returns
    -------
    str or None
        None where nothing is amiss.
    """
    first = first_segment(sacrum, bodies[0], spacing_mm, body_mm)
    places = [middle_mm(each, spacing_mm) for each in (first, *bodies[:2])]
    steps = [float(np.linalg.norm((b - a)[1:])) for a, b in pairwise(places)]
    share = np.count_nonzero(bodies[0]) / np.count_nonzero(bodies[1]) if len(bodies) > 1 else 1.0
    if share < PIECE or (len(steps) > 1 and steps[0] < PIECE_NEAR * steps[1]):
        return IS_PIECE
    if discs is not None and not discs[0].any():
        return NO_DISC
    seen = in_view(sacrum, bodies[0], spacing_mm, body_mm)
    if seen < WHOLE:
        like_l5 = (
            seen >= LEAST_VIEW
            and len(bodies) > 1
            and share < L5_SHARE
            and wedge_deg(bodies[0], bodies[1], spacing_mm) >= L5_WEDGE_DEG
        )
        steep = (
            discs is not None
            and len(discs) > 1
            and tilt_deg(discs[1], middle_mm(bodies[0], spacing_mm)[0], spacing_mm) >= L45_TILT_DEG
        )
        return None if like_l5 or steep else MAY_BE_L5
    if discs is not None and len(discs) > 2 and all(disc.any() for disc in discs[:3]):
        thick = [height_mm(disc, spacing_mm) for disc in discs[:4] if disc.any()]
        low = thick[0] < LOW_DISC * np.median(thick[1:])
        plane = middle_mm(bodies[0], spacing_mm)[0]
        tilts = [tilt_deg(disc, plane, spacing_mm) for disc in discs[:3]]
        if low and tilts[0] - tilts[1] < tilts[1] - tilts[2]:
            return OF_SACRUM
    return None


def disc_within(
    rest: np.ndarray, discs: Sequence[np.ndarray], sacrum: np.ndarray, spacing_mm: Sequence[float]
) -> bool:
    """Return whether a disc in the sacrum is as large as half of the median disc.

    Parameters
    ----------
    rest
        What of the discs lies between no two vertebrae.
    discs
        Those between vertebrae.
    sacrum
        The whole of it.
    spacing_mm
        Voxel size.
    """
    from scipy.ndimage import label

    sizes = [np.count_nonzero(disc) for disc in discs[:4] if disc.any()]
    parts, count = label(rest)
    if not sizes:
        return False
    found = np.bincount(parts.ravel(), minlength=count + 1)
    return any(
        found[n] > 0.5 * np.median(sizes) and distance_mm(parts == n, sacrum, spacing_mm) < 3.0
        for n in range(1, count + 1)
    )
