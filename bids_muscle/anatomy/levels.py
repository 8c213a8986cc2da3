"""Vertebral levels of the axial slices of a scan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Vertebrae from top to bottom.
VERTEBRAE = (
    *(f'C{n}' for n in range(1, 8)),
    *(f'T{n}' for n in range(1, 13)),
    *(f'L{n}' for n in range(1, 6)),
    'S1',
)
#: Vertebrae that few people have, by those above and below; they are no level of their own.
EXTRA = {('T12', 'L1'): 'T13', ('L5', 'S1'): 'L6'}
#: What axial scans of a region can show of them; scans of other regions any.
_SHOWN = {
    'cervical': VERTEBRAE[: VERTEBRAE.index('T7')],
    'lumbar': VERTEBRAE[VERTEBRAE.index('T7') :],
    'pelvis': VERTEBRAE[VERTEBRAE.index('L1') :],
    'thigh': (),
    'leg': (),
}
#: Where levels may come from.
SOURCES = ('atlas', 'segmentation', 'file')


def level_of(name: str) -> str | None:
    """Return the vertebra that a name in a lookup table means, or None.

    Examples
    --------
    >>> level_of('L4'), level_of('vertebra_l4'), level_of('L4-L5'), level_of('sacrum')
    ('L4', 'L4', None, None)
    """
    level = vertebra_of(name)
    return level if level in VERTEBRAE else None


def vertebra_of(name: str) -> str | None:
    """Return the vertebra that a name means as :func:`level_of` does, those of few people too.

    Examples
    --------
    >>> vertebra_of('vertebra L6'), level_of('vertebra L6')
    ('L6', None)
    """
    match = re.fullmatch(r'(?:vertebrae?[ _-]*)?([CTLS]\d+)', name.strip(), re.IGNORECASE)
    return match[1].upper() if match else None


def levels_shown(region: str) -> tuple[str, ...]:
    """Return the vertebrae that an axial scan of a body region can show, from top to bottom.

    Examples
    --------
    >>> levels_shown('cervical')[-1], levels_shown('lumbar')[0], levels_shown('thigh')
    ('T6', 'T7', ())
    """
    return _SHOWN.get(region, VERTEBRAE)


def disc_of(name: str) -> str | None:
    """Return the disc that a name in a lookup table means, or None.

    Examples
    --------
    >>> disc_of('L4-L5'), disc_of('disc_l5_s1'), disc_of('L4'), disc_of('L3-L5')
    ('L4-L5', 'L5-S1', None, None)
    """
    match = re.fullmatch(
        r'(?:discs?[ _-]*)?([CTLS]\d+)[_-]?([CTLS]\d+)', name.strip(), re.IGNORECASE
    )
    upper, lower = (level_of(part) for part in match.groups()) if match else (None, None)
    if upper is None or lower is None or VERTEBRAE.index(lower) != VERTEBRAE.index(upper) + 1:
        return None
    return f'{upper}-{lower}'


@dataclass(frozen=True)
class SliceLevels:
    """The vertebral level of each axial slice.

    Parameters
    ----------
    names
        One entry per slice along the third axis of the image in RAS+ voxel order, from inferior
        to superior: ``'L4'``, or None where the level is not known.
    confidence
        (n_slices,) probability of each name, 0 to 1; 0 where there is no name.
    source
        ``'atlas'``, ``'segmentation'`` or ``'file'``.
    shares
        (n_slices,) probability of each level, by its name; empty where only `names` are known.

    Raises
    ------
    ValueError
        If names and confidence differ in length, or the source is unknown.

    Examples
    --------
    >>> levels = SliceLevels(('L5', 'L4', None), np.array([0.9, 0.8, 0.0]), 'atlas')
    >>> levels.names[1]
    'L4'
    """

    names: tuple[str | None, ...]
    confidence: np.ndarray
    source: str
    shares: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.shape(self.confidence) != (len(self.names),):
            raise ValueError('each slice has one name and one confidence')
        if self.source not in SOURCES:
            raise ValueError(f'levels come from one of {SOURCES}, not from {self.source!r}')

    def beside(self, upper: str, lower: str) -> NDArray[np.int8] | None:
        """Return which slices lie at the levels from `upper` to `lower`.

        Returns
        -------
        numpy.ndarray or None
            (n_slices,) 0 where the slice lies at these levels, 1 above, -1 below them; None where
            it is not known where they end, as where the scan goes on beyond the known levels.

        Notes
        -----
        A slice beyond the outermost level lies above or below only if this level is the last of
        those asked for or farther out. Marks of a person (``'file'``) do not say where the
        outermost marked level ends, so there it must be farther out. Where the levels asked for
        end between two known ones that are not neighbours, it is not known where.

        Examples
        --------
        >>> levels = SliceLevels((None, 'L5', 'L4', None, 'L3'), np.ones(5), 'file')
        >>> levels.beside('L4', 'L4')
        array([-1, -1,  0,  0,  1], dtype=int8)
        >>> levels.beside('T12', 'L5') is None
        True
        """
        named = [name for name in VERTEBRAE if name in self.names]
        shares = self.shares or {
            name: np.array([each == name for each in self.names], float) for name in named
        }
        if not shares:
            return None
        places = np.array([VERTEBRAE.index(name) for name in shares])
        first, last = VERTEBRAE.index(upper), VERTEBRAE.index(lower)
        sides = np.sign((places < first) * 1 - (places > last))
        if ((np.diff(places) > 1) & (np.diff(sides) != 0)).any():
            return None
        table = np.stack(list(shares.values()))
        by_side = np.stack([table[sides == side].sum(axis=0) for side in (-1, 0, 1)])
        with_level = np.flatnonzero(table.sum(axis=0) >= 0.5)
        if not with_level.size:
            return None
        slices = np.arange(table.shape[1])
        nearest = with_level[np.abs(with_level[:, None] - slices).argmin(axis=0)]
        own_side = (by_side.argmax(axis=0) - 1)[nearest].astype(np.int8)
        unfinished = self.source == 'file'
        for side, beyond, finished in (
            (1, slices > with_level[-1], places.min() <= first - unfinished),
            (-1, slices < with_level[0], places.max() >= last + unfinished),
        ):
            if beyond.any() and not finished:
                return None
            own_side[beyond] = side
        return own_side
