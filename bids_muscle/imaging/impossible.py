"""What images of one scan cannot be: signed, copies of each other, swapped, without a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bids_muscle.errors import BadDataError
from bids_muscle.imaging.dixon import FatSource
from bids_muscle.tables import name_some

#: End of the warning about images, or parts of them, that were swapped and no longer are.
SWAPPED_BACK = 'They are swapped back.'
#: A voxel is clearly below 0 where it is so by this many times the 20th percentile of all (5 to 12
#: standard deviations of noise around 0, by how much air there is), but at least and at most by
#: these shares of the bright signal: splines that resampled an image go below 0 by a tenth.
_BELOW_NOISE, _LEAST, _MOST = 12.0, 0.15, 0.2
#: From this share of the voxels with signal on, an image is no magnitude image at all: phase has
#: one half, a real part up to as much.
_SIGNED = 0.2
#: Quantiles of a phase image lie this near those of an even spread, as a share of the range; those
#: of the least uneven of 45 real and simulated images do to 0.38.
_EVEN = 0.1
#: Up to this share they are single voxels at sharp edges of a resampled image, and stay.
_SINGLE = 0.0005
#: From this share of the body on, fat cannot be trusted: values that wrapped are the brightest.
_UNTRUSTED = 0.001
#: What is below this has wrapped from above 32767.
_WRAPPED = -20000.0
#: Images are copies where they agree to this share of the signal in all but that share of voxels.
_AGREE, _DIFFERENT = 0.02, 0.01
#: Highest values to which programs scale an image, where no scanner would end.
_FULL_SCALES = (1.0, 100.0, 255.0, 1000.0)
#: Those of 12, 15 and 16 bits: a scanner may clip there, but hardly one voxel in each image.
_FULL_RANGES = (4095.0, 32767.0, 65535.0)
#: The darkest voxels (this percentile) of an image have less than that share of its bright signal:
#: air, cortical bone and vessels. The darkest noise of many coils has a few per cent of it.
_DARKEST_PCT, _LIFTED = 0.1, 0.1
#: Voxels darker than this share of the bright signal say nothing of a ratio.
_DARK = 0.15
#: Where fat and water share a voxel the opposed phase falls below this share of the in-phase.
#: They are swapped where so many times more voxels, and that share of all, do the opposite: a
#: real scan has it 15 times more often as named (18 and 1 % of the tissue).
_LOSS, _MORE, _ENOUGH = 0.5, 3.0, 0.02


def exclude_lost_slices(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Set slices that one image lacks and another has to NaN: 0 would pass for no fat or water.

    Parameters
    ----------
    arrays
        (X, Y, Z) images by name, on one grid in canonical voxel order, NaN where undefined.

    Returns
    -------
    arrays
        The images.
    warnings
        Sentences for the report. Slices are numbered as in the tables, from 0 at the inferior end.
    """
    brightest = {name: np.nan_to_num(data).max(axis=(0, 1)) for name, data in arrays.items()}
    # Noise beside the body, which another image has masked, is no signal.
    bright = [each > _DARK * np.percentile(each, 90) for each in brightest.values()]
    cleaned, warnings = dict(arrays), []
    for name, data in arrays.items():
        empty = ~np.nan_to_num(data).any(axis=(0, 1))
        lost = np.flatnonzero(empty & np.any(bright, axis=0))
        if lost.size and not empty.all():
            cleaned[name] = data.copy()
            cleaned[name][..., lost] = np.nan
            warnings.append(
                f'The {name} image has no signal in {name_some([f"slice {k}" for k in lost])}, '
                'where another image has it. Nothing is computed from it there. Convert the scan '
                'again.'
            )
    return cleaned, tuple(warnings)


@dataclass(frozen=True, eq=False)
class Checked:
    """Images as they are used, and what is wrong with them.

    Parameters
    ----------
    arrays
        Images by contrast, NaN where undefined.
    doubt
        Why no number of fat can be trusted, or empty.
    warnings
        Sentences for the report.
    """

    arrays: dict[str, np.ndarray]
    doubt: str
    warnings: tuple[str, ...]


def check_images(
    arrays: Mapping[str, np.ndarray],
    source: FatSource | None,
    *,
    echoes: Sequence[np.ndarray] = (),
    fix_swaps: bool = False,
) -> Checked:
    """Check the images of a scan against each other.

    Parameters
    ----------
    arrays
        Magnitudes, or a fat fraction, by contrast, on one grid; NaN where undefined.
    source
        Images that the fat fraction is taken from.
    echoes
        Images that water and fat are fitted to.
    fix_swaps
        Swap in- and opposed-phase where they are swapped.

    Raises
    ------
    BadDataError
        If an image has both signs throughout.
    """
    cleaned: dict[str, np.ndarray] = {}
    warnings: list[str] = []
    for name, data in arrays.items():
        cleaned[name], found = _without_negatives(name, data)
        warnings += found
    used = set(source.value) if source else set()
    if source is FatSource.ECHOES:
        used |= {'inphase', 'opposedphase'}
    doubts, copies = _copies(cleaned, used)
    warnings += copies
    if source is FatSource.SCANNER and _is_level(cleaned['fatfraction']):
        doubts.append('the fat fraction image has one value in all tissue')
        warnings.append('The fat fraction image has one value in all tissue: fat is not measured.')
    if any(np.array_equal(one, other) for one, other in combinations(echoes, 2)):
        doubts.append('two echoes are copies of each other')
        warnings.append('Two echoes are copies of each other: fat is not measured.')
    measured = list(echoes) or [cleaned[name] for name in cleaned if name in used]
    if len(measured) > 1 and all(map(_is_lifted, measured)):
        doubts.append('no voxel of the images is dark, as if a constant had been added to them')
        warnings.append(
            'No voxel of the images that fat is computed from is dark, not even air or bone, as '
            'if a constant had been added: fat is not measured. Convert them again.'
        )
    if not copies and (top := _own_scale(measured)):
        doubts.append('each of the images is scaled to its own maximum')
        warnings.append(
            f'The highest value of each image is {top:g}, so each was scaled to its own maximum: '
            'fat is not measured. Convert them again without scaling.'
        )
    if not copies and phases_exchanged(cleaned):
        what = 'In- and opposed-phase images are swapped: the in-phase image has the signal loss'
        if fix_swaps and source is not FatSource.ECHOES:
            cleaned['inphase'], cleaned['opposedphase'] = (
                cleaned[name] for name in ('opposedphase', 'inphase')
            )
            warnings.append(f'{what}. {SWAPPED_BACK}')
        else:
            remedy = (
                'correct EchoTime in the sidecars'
                if source is FatSource.ECHOES
                else '--fix-swaps swaps them back'
            )
            if {'inphase', 'opposedphase'} <= used:
                doubts.append(f'in- and opposed-phase images are swapped; {remedy}')
                remedy = f'fat is not measured; {remedy}'
            warnings.append(f'{what}; {remedy}.')
    return Checked(cleaned, doubts[0] if doubts else '', tuple(warnings))


def _without_negatives(name: str, data: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Set magnitudes that are clearly below 0 to NaN; noise around 0 counts as it is."""
    if name == 'fatfraction':
        return data, []
    if _is_uniform(data):
        raise BadDataError(
            f'The {name} image is a phase image: its values are spread evenly over their range.',
            'Use the magnitude image, or exclude it with --bids-filter-file.',
        )
    if not np.nanmin(data) < 0:
        return data, []
    size = np.abs(data[np.isfinite(data) & (data != 0)])
    noise, bright = np.percentile(size, [20, 99])
    limit = float(np.clip(_BELOW_NOISE * noise, _LEAST * bright, _MOST * bright))
    below = data < -limit
    n_below = int(np.count_nonzero(below))
    n_signal = np.count_nonzero(size > limit)
    if n_below > _SIGNED * n_signal:
        raise BadDataError(
            f'The {name} image has negative values ({n_below} voxels are far below 0): it is a '
            'phase, real or imaginary image, or its values have wrapped.',
            'Use the magnitude image, convert the scan again, or exclude it with '
            '--bids-filter-file.',
        )
    if n_below <= _SINGLE * n_signal:
        return data, []
    wrapped = ': values above 32767 have wrapped' if np.nanmin(data) < _WRAPPED else ''
    warning = (
        f'The {name} image has {n_below} voxels far below 0, impossible for a magnitude{wrapped}. '
        'They are excluded. Convert the scan again.'
    )
    return np.where(below, np.float32(np.nan), data), [warning]


def _is_uniform(data: np.ndarray) -> bool:
    """Return whether all values are equally frequent, as the phase of noise and of tissue is.

    Phase fills its whole range, from 0 or from below it on; a tissue that a coil shades evenly
    does not.
    """
    values = data[np.isfinite(data) & (data != 0)]
    shares = np.array([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    places = np.quantile(values, shares)
    even = places[0] + shares * (places[-1] - places[0])
    close = np.abs(places - even).max() < _EVEN * (places[-1] - places[0])
    return bool(close and places[0] < _EVEN * places[-1])


def doubt_negatives(
    raw: Mapping[str, np.ndarray], used: Mapping[str, np.ndarray], body: NDArray[np.bool_]
) -> str:
    """Return why fat cannot be trusted where voxels far below 0 lie in the body, or nothing.

    Parameters
    ----------
    raw, used
        Images before and after :func:`check_images`.
    body
        The body.
    """
    # Sums, since two images may have been swapped.
    undefined = [
        sum(int(np.count_nonzero(np.isnan(images[name]) & body)) for name in raw)
        for images in (raw, used)
    ]
    lost = undefined[1] - undefined[0]
    if lost > _UNTRUSTED * np.count_nonzero(body):
        return f'{lost} voxels inside the body are far below 0'
    return ''


def _copies(arrays: Mapping[str, np.ndarray], used: set[str]) -> tuple[list[str], list[str]]:
    """Find images that are copies of each other, up to a constant factor."""
    doubts, warnings = [], []
    for first, second in combinations(arrays, 2):
        factor = _constant_ratio(arrays[first], arrays[second])
        if factor is None:
            continue
        what = (
            f'the {second} image is a copy of the {first} image'
            if abs(factor - 1) < _AGREE
            else f'the {second} image is {factor:.3g} times the {first} image in all voxels'
        )
        doubted = bool({first, second} & used)
        doubts += [what] if doubted else []
        warnings.append(
            f'{what[0].upper()}{what[1:]}. One of them does not match its name. '
            + ('Fat is not measured. ' if doubted else '')
            + 'Convert the scan again.'
        )
    return doubts, warnings


def _own_scale(images: Sequence[np.ndarray]) -> float | None:
    """Return the highest value of each image where each has been scaled to it, else None.

    Fractions of water and fat may both reach 1, but add up to it.
    """
    if len(images) < 2:
        return None
    tops = [float(np.nanmax(data)) for data in images]
    for full in (*_FULL_SCALES, *_FULL_RANGES):
        if not np.allclose(tops, full, rtol=1e-5):
            continue
        at_top = [np.count_nonzero(data == top) for data, top in zip(images, tops, strict=True)]
        if full in _FULL_SCALES or max(at_top) == 1:
            return full if np.nanmax(sum(images)) > 1.1 * full else None
    return None


def _is_lifted(data: np.ndarray) -> bool:
    dark, bright = np.nanpercentile(data, [_DARKEST_PCT, 99])
    return bool(dark > _LIFTED * bright)


def _is_level(fraction: np.ndarray) -> bool:
    low, high = np.percentile(fraction[fraction > 0], [5, 95])
    return bool(high - low < _AGREE * high)


def _constant_ratio(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the factor between two images where it is the same in all tissue, else None."""
    defined = np.isfinite(first) & np.isfinite(second)
    if not defined.any():
        return None
    tops = [max(float(np.percentile(data[defined], 99)), 0.0) for data in (first, second)]
    defined &= (first > _DARK * tops[0]) | (second > _DARK * tops[1])
    a, b = (data[defined].astype(np.float64) for data in (first, second))
    if not a.size or not np.median(a) > 0 or not np.median(b) > 0:
        return None
    factor = float(np.median(b) / np.median(a))
    # Whole numbers are rounded, so that a factor is met to one unit only.
    unit = 1.0 if np.array_equal(b, np.rint(b)) else 0.0
    differ = np.abs(b - factor * a) > _AGREE * factor * a + unit
    return factor if np.mean(differ) < _DIFFERENT else None


def phases_exchanged(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether in- and opposed-phase are swapped, by the location of signal loss.

    Fat and water cancel each other where they share a voxel: around each muscle and organ, in
    marrow. That half of the signal is missing in the in-phase image happens for noise and flow
    only; T2* takes far less. How much fat a person has does not matter.
    """
    if not {'inphase', 'opposedphase'} <= arrays.keys():
        return False
    one, other = arrays['inphase'], arrays['opposedphase']
    brighter = np.nan_to_num(np.maximum(one, other))  # 0 where one of them is undefined
    tissue = brighter > _DARK * np.percentile(brighter, 99)
    if not tissue.any():
        return False
    lost = np.mean(other[tissue] < _LOSS * one[tissue])
    gained = np.mean(one[tissue] < _LOSS * other[tissue])
    return bool(gained > _ENOUGH and gained > _MORE * lost)
