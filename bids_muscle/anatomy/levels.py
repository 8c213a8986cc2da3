"""Vertebral levels of the axial slices of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Where levels may come from.
SOURCES = ('atlas', 'segmentation', 'file')


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

    def __post_init__(self) -> None:
        if np.shape(self.confidence) != (len(self.names),):
            raise ValueError('each slice has one name and one confidence')
        if self.source not in SOURCES:
            raise ValueError(f'levels come from one of {SOURCES}, not from {self.source!r}')
