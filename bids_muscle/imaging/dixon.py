"""Water, fat and fat fraction from Dixon images (Weber et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np

from bids_muscle.errors import BadDataError

#: A signal below this many times the background's level is noise, not tissue.
_ABOVE_BACKGROUND = 3.0


class FatSource(Enum):
    """Images that a fat fraction is taken from, the best first; the values are contrasts."""

    WATER_AND_FAT = ('water', 'fat')
    SCANNER = ('fatfraction',)
    ECHOES = ('echoes',)
    PHASES = ('inphase', 'opposedphase')


def fat_source(contrasts: Iterable[str]) -> FatSource | None:
    """Decide from which images of a scan its fat fraction is taken.

    Parameters
    ----------
    contrasts
        Contrasts of the images of the scan, and ``'echoes'`` where several echoes can be fitted.

    Returns
    -------
    FatSource or None
        None where there is no fat fraction.

    Examples
    --------
    >>> fat_source(['fatfraction', 'inphase', 'opposedphase'])
    <FatSource.SCANNER: ('fatfraction',)>
    >>> fat_source(['T2w']) is None
    True
    """
    given = set(contrasts)
    return next((source for source in FatSource if given.issuperset(source.value)), None)


def water_fat_from_phases(
    in_phase: np.ndarray, opposed_phase: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Separate water and fat from two-point magnitude images.

    W = (IP + OP) / 2 and F = (IP - OP) / 2. The magnitude OP is abs(W - F), so that where fat
    dominates the two are swapped: the fat fraction computed from them never exceeds 50 %.
    Where noise or motion make OP exceed IP, fat is set to 0 and water to IP.

    Parameters
    ----------
    in_phase, opposed_phase
        Magnitudes of one shape; NaN where undefined.

    Returns
    -------
    water, fat
        float32 arrays with water + fat = `in_phase`; NaN where one of the two phases is.

    Examples
    --------
    >>> import numpy as np
    >>> water, fat = water_fat_from_phases(np.array([10.0, 10, 10]), np.array([6.0, 6, 12]))
    >>> water.tolist(), fat.tolist()  # the second voxel had 2 of water and 8 of fat
    ([8.0, 8.0, 10.0], [2.0, 2.0, 0.0])
    """
    total = np.maximum(np.asarray(in_phase, np.float32), 0)
    fat = np.maximum((total - np.abs(opposed_phase)) / 2, 0).astype(np.float32)
    return total - fat, fat


def fat_fraction(water: np.ndarray, fat: np.ndarray, noise_floor: float) -> np.ndarray:
    """Divide fat by fat and water, voxel by voxel.

    Parameters
    ----------
    water, fat
        Signals of one shape; single negative values (noise) are allowed.
    noise_floor
        Voxels with ``water + fat`` at or below this have no fat fraction; at least 0.

    Returns
    -------
    numpy.ndarray
        float32 clipped to 0..1, NaN where undefined: also where water or fat is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> fat_fraction(np.array([3.0, 0, -29.9]), np.array([1.0, 0, 30]), 0.5).tolist()
    [0.25, nan, nan]
    """
    total = np.asarray(water, np.float64) + fat
    fraction = np.full(total.shape, np.nan, np.float32)
    defined = (total > max(noise_floor, 0.0)) & np.isfinite(total)
    np.divide(fat, total, out=fraction, where=defined, casting='same_kind')
    return np.clip(fraction, 0, 1)


def noise_floor(total: np.ndarray, body_mask: np.ndarray) -> float:
    """Estimate below which water + fat is noise.

    Parameters
    ----------
    total
        Water + fat, NaN where undefined.
    body_mask
        Bool of the same shape.

    Returns
    -------
    float
        Three times the median signal of the air, voxels of exactly 0 left out (scanners and
        other programs mask the air); 0 where there is too little air to tell. The floor never
        exceeds a twentieth of the body's median signal.
    """
    air = total[~body_mask & (total > 0)]
    body = total[body_mask & np.isfinite(total)]
    if air.size < 100 or not body.size:
        return 0.0
    limit = 0.05 * float(np.median(body))
    return min(_ABOVE_BACKGROUND * float(np.median(air)), max(limit, 0.0))


def scale_fat_fraction(stored: np.ndarray) -> tuple[np.ndarray, float]:
    """Bring a scanner's fat fraction to 0..1, whatever unit it is stored in.

    Scanners store 0-1, 0-100 (%) or 0-1000 (per mille). Which one is read off the 99th percentile
    of the voxels above 0: subcutaneous fat and marrow take up more than that share of any slab.

    Parameters
    ----------
    stored
        Values as stored, NaN where undefined.

    Returns
    -------
    fraction
        float32 clipped to 0..1, NaN where undefined.
    unit
        What 100 % fat is in the stored image: 1, 100 or 1000.

    Raises
    ------
    BadDataError
        If the values fit none of these units.

    Examples
    --------
    >>> import numpy as np
    >>> scale_fat_fraction(np.array([0.0, 120, 850, 980]))[1]
    1000.0
    """
    positive = stored[stored > 0]
    top = float(np.percentile(positive, 99)) if positive.size else 0.0
    # Fat reads 80 to 110 % on real scanners; noise may exceed it.
    for unit in (1.0, 100.0, 1000.0):
        if 0.3 * unit <= top <= 1.25 * unit:
            return np.clip(stored / unit, 0, 1).astype(np.float32), unit
    raise BadDataError(
        f'The fat fraction image has a 99th percentile of {top:g}, which is not a fat fraction '
        'in 0-1, 0-100 or 0-1000.',
        'Check the image and its scaling, or exclude it with --bids-filter-file.',
    )
