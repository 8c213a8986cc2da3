"""Fat-water swaps: regions where the reconstruction of a Dixon scan took fat for water.

A swap leaves water + fat untouched. Fat is brighter than muscle in gradient echoes, its T1 being
several times shorter, so that the logarithm of water + fat rises with the fat fraction where the
two are named rightly, and falls with it where they are swapped. At the border of a swap the fat
fraction jumps to its complement while water + fat goes on as before. Both signs are weighed in a
field of two states per voxel (Ising), whose state of least energy a minimum cut finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.imaging.mask import block_mean, enlarge

FloatArray = NDArray[np.float32]
_Pairs = list[tuple[tuple[slice, ...], tuple[slice, ...], FloatArray]]

#: In-plane voxel edge at which swaps are searched, mm.
_GRID_MM = 3.0
#: Signal below this share of the tissue's median (gas, cortical bone, metal, ghosts beside the
#: body) tells nothing.
_DARK = 0.3
#: The logarithm of fat's over water's brightness must differ from 0 by this to tell anything.
_MIN_CONTRAST = 0.15
#: Water and fat have fat fractions below the first and above the second of these.
_PURE = (0.3, 0.7)
#: A voxel is compared with those around it, within about this distance (standard deviation), so
#: that what is left of the bias field counts little.
_AROUND_MM = np.array([20.0, 20.0, 14.0])
#: Weights of what a voxel says, of what a pair of neighbours says, and of neighbours being alike:
#: the noise of neighbours is not independent, so that none of them counts fully.
_VOXEL, _PAIR, _ALIKE = 0.15, 0.25, 0.35
#: Cost of a voxel or pair that fits neither hypothesis.
_WORST = 4.5
#: How often the slopes are taken again at most, and from which change on.
_ROUNDS, _SAME_SLOPE = 3, 0.05
#: Energies are cut as whole numbers of this fraction.
_UNITS = 1000
#: A region is a swap if exchanging it lowers the energy by this, and by this for each of its
#: voxels: large parts whose brightness says little (wrapped skin, ghosts) fit either way.
#: Planted swaps of 40 ml and more gained 68 and more, 0.06 per voxel and more, but for one in a
#: hundred; nothing in scans without a swap gained both 23 and 0.05.
_MIN_GAIN, _MIN_GAIN_PER_VOXEL = 40.0, 0.03
#: ... and if its fat fractions lie this far from one half on average: a mixture stays a mixture
#: when it is swapped, and ghosts of fat make muscle one. Planted swaps had 0.19 and more, false
#: ones 0.10.
_MIN_PURITY = 0.18


@dataclass(frozen=True, eq=False)
class Swaps:
    """Where water and fat are swapped.

    Parameters
    ----------
    mask
        (X, Y, Z) bool.
    everywhere
        The scan as a whole is swapped, but for what `mask` leaves out.
    """

    mask: NDArray[np.bool_]
    everywhere: bool


def find_swaps(
    water: np.ndarray, fat: np.ndarray, body_mask: np.ndarray, spacing_mm: Sequence[float]
) -> Swaps | None:
    """Find fat-water swaps, regional and of the whole scan.

    Parameters
    ----------
    water, fat
        (X, Y, Z) signals without bias field, canonical voxel order; NaN where undefined.
    body_mask
        (X, Y, Z) bool.
    spacing_mm
        Voxel edges in mm.

    Returns
    -------
    Swaps or None
        None where swaps cannot be detected: fat and water are equally bright, or one of them is
        nearly absent.
    """
    shrink = np.maximum(1, np.round(_GRID_MM / np.asarray(spacing_mm))).astype(int)
    coarse = tuple(block_mean(_defined(image), shrink) for image in (water, fat))
    body = block_mean(body_mask.astype(np.float32), shrink) > 0.5
    if not body.any():
        return None
    scan = _describe(coarse[0], coarse[1], body, shrink * spacing_mm)
    levels = _levels(scan)
    contrasts = levels[:, 1] - levels[:, 0]
    contrasts = contrasts[np.isfinite(contrasts)]
    if not contrasts.size or np.median(np.abs(contrasts)) < _MIN_CONTRAST:
        return None
    everywhere = bool(np.median(contrasts) < 0)
    if everywhere and _rim_is_fat(scan.fraction, body):
        if contrasts.max() < np.median(np.abs(contrasts)) / 2:
            return None  # brightness and anatomy contradict each other
        everywhere = False  # a region so large that it rules most slices
    if everywhere:
        water, fat = fat, water
        scan = _describe(coarse[1], coarse[0], body, shrink * spacing_mm)
    regions, slope = _regions(scan)
    mask = enlarge(regions, shrink, body_mask.shape)
    if mask.any() and shrink.max() > 1:
        mask = _refine(mask, water, fat, body_mask, slope, shrink, np.asarray(spacing_mm))
    return Swaps((mask != everywhere) & body_mask, everywhere)


def _defined(image: np.ndarray) -> np.ndarray:
    """Return an image with 0 where it is undefined; most have no such voxel."""
    return image if np.isfinite(image).all() else np.nan_to_num(image)


def exchange(
    water: np.ndarray, fat: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange water and fat where the mask says so.

    Examples
    --------
    >>> water, fat = exchange(np.array([9, 1]), np.array([2, 8]), np.array([False, True]))
    >>> water.tolist(), fat.tolist()
    ([9, 8], [2, 1])
    """
    return np.where(mask, fat, water), np.where(mask, water, fat)


@dataclass(frozen=True, eq=False)
class _Scan:
    """Fat fraction, brightness (logarithm of water + fat), and where both are known."""

    fraction: FloatArray
    brightness: FloatArray
    body: NDArray[np.bool_]
    known: NDArray[np.bool_]
    spacing_mm: np.ndarray


def _describe(
    water: np.ndarray, fat: np.ndarray, body: np.ndarray, spacing_mm: np.ndarray
) -> _Scan:
    from scipy import ndimage

    total = water + fat
    dark = _DARK * _tissue_level(total[body])
    # The skin shares its voxels with air.
    known = ndimage.binary_erosion(body, np.ones((3, 3, 1))) & (total > max(dark, 0))
    brightness = np.log(np.maximum(total, max(dark, 1e-6))).astype(np.float32)
    fraction = np.clip(fat / np.maximum(total, 1e-6), 0, 1).astype(np.float32)
    return _Scan(fraction, brightness, body, known, spacing_mm)


def _levels(scan: _Scan, exchanged: NDArray[np.bool_] | None = None) -> np.ndarray:
    """Median brightness of water and of fat by slice, (Z, 2); NaN where there is too little."""
    fraction = scan.fraction
    if exchanged is not None:
        fraction = np.where(exchanged, 1 - fraction, fraction)
    levels = np.full((fraction.shape[2], 2), np.nan)
    for k in range(fraction.shape[2]):
        pure = fraction[:, :, k] < _PURE[0], fraction[:, :, k] > _PURE[1]
        for column, tissue in enumerate(pure):
            values = scan.brightness[:, :, k][tissue & scan.known[:, :, k]]
            if values.size >= 20:
                levels[k, column] = np.median(values)
    return levels


def _tissue_level(signal: np.ndarray) -> float:
    """Median signal of tissue: what is dark beside bright tissue, be it most, is left out."""
    level = float(np.percentile(signal, 95))
    for _ in range(5):
        level = float(np.median(signal[signal >= _DARK * level]))
    return level


def _rim_is_fat(fraction: np.ndarray, body: np.ndarray) -> bool:
    from scipy import ndimage

    flat = np.ones((3, 3, 1))
    rim = ndimage.binary_erosion(body, flat) & ~ndimage.binary_erosion(body, flat, iterations=4)
    return bool(rim.any() and np.median(fraction[rim]) > 0.5)


def _slopes(levels: np.ndarray) -> FloatArray:
    """Brightness of fat over water by slice.

    The contrast fades at the ends of a slab. Only its size counts: a slice that is swapped as a
    whole has it with the other sign.
    """
    size = np.abs(levels[:, 1] - levels[:, 0])
    size = np.minimum(size, 1.5 * np.nanmedian(size))
    return np.nan_to_num(size).astype(np.float32)


def _energy(scan: _Scan, slope: FloatArray) -> tuple[FloatArray, _Pairs]:
    """Return what favours +1 (as named) over -1 (swapped): per voxel, and per pair the product.

    Each is half the difference of the costs of the two hypotheses, a truncated square of the
    distance between the brightness and the one that the fat fraction predicts.
    """

    def cost(residual: np.ndarray, sd: float) -> np.ndarray:
        return np.minimum((residual / sd) ** 2 / 2, _WORST)

    fraction, brightness = scan.fraction, scan.brightness
    rest, lean = _beside_those_around(scan, slope)
    nearest = np.minimum(np.abs(rest - lean), np.abs(rest + lean))[scan.known]
    spread = max(1.4826 * float(np.median(nearest)), 0.1)
    field = _VOXEL / 2 * scan.known * (cost(rest + lean, spread) - cost(rest - lean, spread))
    pairs: _Pairs = []
    for axis in range(3):
        before, after = (
            tuple(part if each == axis else slice(None) for each in range(3))
            for part in (slice(None, -1), slice(1, None))
        )
        step = brightness[before] - brightness[after]
        local = np.minimum(slope[before[2]], slope[after[2]])
        same = local * (fraction[before] - fraction[after])
        exchanged = local * (fraction[before] + fraction[after] - 1)
        # Neighbours share the field that is left, so that a pair is more sensitive.
        as_named, both, second, first = (
            cost(residual, spread / 1.5)
            for residual in (step - same, step + same, step - exchanged, step + exchanged)
        )
        weight = _PAIR / 4 * (scan.known[before] & scan.known[after])
        field[before] += weight * (both + first - as_named - second)
        field[after] += weight * (both + second - as_named - first)
        alike = weight * (first + second - as_named - both)
        alike += _ALIKE * (scan.body[before] & scan.body[after])
        pairs.append((before, after, np.maximum(alike, 0).astype(np.float32)))
    return field.astype(np.float32), pairs


def _beside_those_around(scan: _Scan, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Brightness, and the one that the fat fraction predicts, each less its mean around.

    Where all is fat or all is water this tells nothing, whatever darkens it: a saturation band,
    what is left of the bias field.
    """
    from scipy import ndimage

    sigma = _AROUND_MM / scan.spacing_mm
    weight = np.maximum(ndimage.gaussian_filter(scan.known.astype(np.float32), sigma), 1e-3)
    rest, lean = (
        values - ndimage.gaussian_filter(np.where(scan.known, values, 0), sigma) / weight
        for values in (scan.brightness, slope * scan.fraction)
    )
    return rest, lean


def _solve(field: FloatArray, pairs: _Pairs, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which free voxels are swapped in the state of least energy, by a minimum cut.

    Exact, since no pair prefers to differ (Greig et al. 1989,
    doi:10.1111/j.2517-6161.1989.tb01764.x).
    """
    from scipy import sparse
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    n_free = np.count_nonzero(free)
    number = np.full(free.shape, -1)
    number[free] = np.arange(n_free)
    ends, capacities = [], []
    for before, after, coupling in pairs:
        both = free[before] & free[after] & (coupling > 0)
        ends.append(np.stack([number[before][both], number[after][both]]))
        capacities.append(coupling[both])
    first, second = np.concatenate(ends, axis=1)
    between = np.concatenate(capacities)
    # Flow comes from where voxels are rightly named, and ends where they are swapped.
    own = field[free]
    nodes, source, sink = np.arange(n_free), n_free, n_free + 1
    start = np.concatenate([first, second, np.full(n_free, source), nodes])
    end = np.concatenate([second, first, nodes, np.full(n_free, sink)])
    size = np.concatenate([between, between, np.maximum(own, 0), np.maximum(-own, 0)])
    graph = sparse.csr_array(
        (np.rint(size * _UNITS).astype(np.int32), (start, end)), shape=(n_free + 2, n_free + 2)
    )
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    named = breadth_first_order(left, source, return_predecessors=False)
    exchanged = free.copy()
    exchanged[free] = ~np.isin(nodes, named)
    return exchanged


def _regions(scan: _Scan) -> tuple[NDArray[np.bool_], FloatArray]:
    """Find connected regions that fit much better swapped; also the slope of each slice.

    A region that fills much of a slice hides how bright fat is there, so that the slopes are
    taken again with the regions found first swapped.
    """
    from scipy import ndimage

    if not scan.known.any():
        return np.zeros(scan.body.shape, bool), np.zeros(scan.body.shape[2], np.float32)
    slope = _slopes(_levels(scan))
    for _ in range(_ROUNDS):
        field, pairs = _energy(scan, slope)
        exchanged = _solve(field, pairs, scan.body)
        last, slope = slope, _slopes(_levels(scan, exchanged))
        if np.abs(slope - last).max() < _SAME_SLOPE:
            break
    parts, n_parts = ndimage.label(exchanged)
    gain = -np.bincount(parts.ravel(), field.ravel(), n_parts + 1)
    for before, after, coupling in pairs:
        a, b = parts[before], parts[after]
        cut = a != b
        for side in (a[cut], b[cut]):
            gain -= np.bincount(side, coupling[cut], n_parts + 1)
    sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)
    purity = np.bincount(parts.ravel(), np.abs(scan.fraction - 0.5).ravel(), n_parts + 1)
    swap = (gain > _MIN_GAIN) & (gain > _MIN_GAIN_PER_VOXEL * sizes)
    swap &= purity > _MIN_PURITY * sizes
    swap[0] = False
    return np.asarray(swap[parts]), slope


def _refine(
    mask: np.ndarray,
    water: np.ndarray,
    fat: np.ndarray,
    body_mask: np.ndarray,
    slope: FloatArray,
    shrink: np.ndarray,
    spacing_mm: np.ndarray,
) -> NDArray[np.bool_]:
    """Find the border of the regions again in full resolution, as far as one coarse voxel away."""
    from scipy import ndimage

    width = np.where(shrink > 1, 2 * shrink, 0)
    box = tuple(
        slice(max(part.start - 2 * wide - 1, 0), part.stop + 2 * wide + 1)
        for part, wide in zip(ndimage.find_objects(mask.astype(np.uint8))[0], width, strict=True)
    )
    fine = _describe(
        np.nan_to_num(water[box]), np.nan_to_num(fat[box]), body_mask[box], spacing_mm
    )
    # Thin slices were thinned out as well.
    slices = np.arange(mask.shape[2])[box[2]] // shrink[2]
    field, pairs = _energy(fine, slope[np.minimum(slices, len(slope) - 1)])
    inside = mask[box]
    near = ndimage.maximum_filter(inside, 1 + width) & ~ndimage.minimum_filter(inside, 1 + width)
    state = np.where(inside, -1, 1)
    for before, after, coupling in pairs:  # what is beyond the border stays as it is
        field[before] += coupling * state[after] * ~near[after]
        field[after] += coupling * state[before] * ~near[before]
    refined = mask.copy()
    refined[box] = np.where(near, _solve(field, pairs, near), inside)
    return refined
