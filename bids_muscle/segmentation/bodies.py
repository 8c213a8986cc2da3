"""Separation of the vertebral bodies of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: A body smaller than this, ml, or than this share of the median body, is none.
LEAST_BODY_ML, LEAST_SHARE = 2.0, 0.25
#: A pixel of a body this far from its outline, mm, lies in the core of the body, by which bodies
#: are separated.
CORE_MM = 5.5
#: Farthest from the middle of a core that those of its pieces in the plane lie, mm, and from which
#: share of the usual height on a piece is of several bodies.
STRAY_MM, TALL = 10.0, 1.4
#: Farthest that a pixel of a body lies from its core in the plane, mm; corners are farthest.
RIM_MM = 11.0
#: Least distance of two bodies, middle to middle, mm.
APART_MM = 18.0


def single_bodies(
    mask: np.ndarray, spacing_mm: Sequence[float], voxel_ml: float
) -> list[np.ndarray]:
    """Return single bodies from below; bridges between them are cut where they are thinnest.

    Parameters
    ----------
    mask
        (X, Y, Z) in RAS+ order, all vertebral bodies.
    spacing_mm
        Voxel size.
    voxel_ml
        Volume of a voxel.
    """
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
