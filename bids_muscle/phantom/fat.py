"""Where the fat lies inside a muscle: streaks, fascia, medial and dorsal accumulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.anatomy import Anatomy
from bids_muscle.phantom.person import Person, generator

Array = NDArray[np.float64]
ByteArray = NDArray[np.uint8]

#: Spacing of the pattern (z, x, y): streaks run along the muscle, so it is coarse along z.
PATTERN_MM = np.array([3.0, 1.0, 1.0])

#: Fat share of a streak, and how sharply it ends, in ranks of 0 to 1.
STREAK_FAT = 0.8
STREAK_EDGE = 0.06


@dataclass(frozen=True)
class FatPattern:
    """Order in which the places of the body fill with fat.

    Parameters
    ----------
    rank
        (Z, X, Y) 0 to 255. In a muscle, the higher the rank, the earlier the place fills with
        fat; elsewhere it is the texture of the tissue.
    origin_mm
        World position (z, x, y) of the centre of cell 0; the spacing is :data:`PATTERN_MM`.
    """

    rank: ByteArray
    origin_mm: Array


def make_pattern(anatomy: Anatomy, person: Person) -> FatPattern:
    """Draw the fat pattern of one person; the same in all sessions.

    Parameters
    ----------
    anatomy
        Fine anatomy of that person.

    Notes
    -----
    The score of a place adds thin sheets (zero sets of smooth noise that is long along the
    fibres), the closeness of the muscle's border, and an accumulation towards the spine and the
    back, as on MR images of the lumbar multifidus (Kjaer 2007, Crawford 2017).
    """
    from scipy import ndimage

    rng = generator(person.shape_seed, anatomy.region, 'fat')
    shape = np.array(anatomy.classes.shape)
    counts = np.maximum(np.round(shape * anatomy.spacing_mm / PATTERN_MM), 1).astype(int)
    z, x, y = (
        np.minimum((np.arange(n) * step / fine).astype(int), size - 1)
        for n, step, fine, size in zip(counts, PATTERN_MM, anatomy.spacing_mm, shape, strict=True)
    )
    muscle = anatomy.muscle_index[anatomy.classes[np.ix_(z, x, y)]]
    rank = _texture(counts, rng)
    if not muscle.any():
        return FatPattern(rank, anatomy.origin_mm)
    box = ndimage.find_objects((muscle > 0).astype(int))[0]
    inside = muscle[box]
    score = _streaks(inside.shape, rng)
    depth = np.zeros(inside.shape, np.float32)
    for index in np.unique(inside[inside > 0]):
        own = inside == index
        window = ndimage.find_objects(own.astype(int))[0]
        distance = ndimage.distance_transform_edt(own[window], sampling=PATTERN_MM * (0.5, 1, 1))
        depth[window] = np.where(own[window], distance, depth[window])
    score += 0.7 * np.exp(-np.maximum(depth - 0.5, 0) / 2.0)
    grid = [
        start.start * step + first + np.arange(n) * step
        for start, step, first, n in zip(
            box, PATTERN_MM, anatomy.origin_mm, inside.shape, strict=True
        )
    ]
    midline = np.interp(grid[0], anatomy.spine.centre_mm[::-1], anatomy.spine.shift_mm[::-1, 0])
    lateral = np.abs(grid[1][None, :] - midline[:, None])[:, :, None].astype(np.float32)
    dorsal = np.clip((-grid[2] - 30) / 40, 0, 1)[None, None, :].astype(np.float32)
    score += 0.6 * np.exp(-lateral / 14) * (grid[2] < -20) + 0.25 * dorsal
    caudal = np.linspace(0.3, 0, inside.shape[0], dtype=np.float32)[:, None, None]
    score += caudal
    for index in np.unique(inside[inside > 0]):
        own = inside == index
        values = score[own]
        order = np.argsort(np.argsort(values, kind='stable'), kind='stable')
        rank[box][own] = (order * 255 / max(values.size - 1, 1)).astype(np.uint8)
    return FatPattern(rank, anatomy.origin_mm)


def _texture(counts: NDArray[np.int_], rng: np.random.Generator) -> ByteArray:
    """Smooth noise, ranked 0 to 255 around 128, from one periodic tile."""
    from scipy import ndimage

    def noise(sigma: tuple[float, float, float]) -> NDArray[np.float32]:
        field = rng.standard_normal((24, 128, 128), dtype=np.float32)
        field = ndimage.gaussian_filter(field, sigma, mode='wrap')
        return np.asarray(field / field.std())

    # Fine grain, slow drift, and thin septa where a second noise crosses zero.
    tile = 0.5 * noise((1.0, 0.9, 0.9)) + 0.5 * noise((4, 11, 11))
    tile -= 1.6 * np.exp(-((noise((3, 5, 5)) / 0.1) ** 2))
    tile = np.clip(128 + 50 * (tile - tile.mean()) / tile.std(), 0, 255).astype(np.uint8)
    index = [np.arange(n) % size for n, size in zip(counts, tile.shape, strict=True)]
    return np.ascontiguousarray(tile[np.ix_(*index)])


def _streaks(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Thin curved sheets that are long along z and patchy; values about 0 to 1."""
    from scipy import ndimage

    def noise(sigma: tuple[float, float, float]) -> NDArray[np.float32]:
        field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
        return np.asarray(field / field.std())

    sheets = np.exp(-((noise((3.5, 3.2, 3.2)) / 0.28) ** 2))
    patches = 1 / (1 + np.exp(-1.6 * noise((3.0, 7.0, 7.0))))
    speckle = 0.16 * noise((1.5, 0.8, 0.8))
    return np.asarray(sheets * patches + speckle, np.float32)


def fat_by_rank(histogram: Array, mean_fat: float) -> Array:
    """Return the fat share at every rank so that the muscle's mean is as planted.

    Parameters
    ----------
    histogram
        (256,) number of fine cells of the muscle at every rank.
    mean_fat
        Mean fat share of the muscle, 0 to 1.

    Returns
    -------
    (256,) fat share, increasing with rank.

    Examples
    --------
    >>> fat = fat_by_rank(np.ones(256), 0.2)
    >>> round(float(fat.mean()), 6), bool((np.diff(fat) >= 0).all())
    (0.2, True)
    """
    weight = histogram / histogram.sum()
    rank = (np.arange(256) + 0.5) / 256
    diffuse = 0.4 * mean_fat

    def profile(threshold: float) -> Array:
        streak = 1 / (1 + np.exp(-(rank - threshold) / STREAK_EDGE))
        return diffuse * (0.4 + 1.2 * rank) + (1 - 1.6 * diffuse) * STREAK_FAT * streak

    low, high = -2.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if weight @ profile(middle) > mean_fat else (low, middle)
    fat = profile((low + high) / 2)
    # What the bisection leaves (a fully fatty muscle reaches the ceiling of the profile).
    return np.asarray(np.clip(fat * mean_fat / (weight @ fat), 0, 1)) if mean_fat else fat * 0
