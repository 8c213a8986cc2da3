"""One muscle of a scan with all that was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bids_muscle.anatomy.labels import Label
from bids_muscle.measurement.fat import Fat
from bids_muscle.measurement.methods import DEFAULT_THRESHOLD
from bids_muscle.measurement.size import Size
from bids_muscle.measurement.thresholds import ThresholdedFat

#: Fewer voxels than this say nothing about a muscle.
MIN_VOXELS = 10
#: Extent of a muscle that is measured wherever the scan shows it.
SCAN = 'scan'


@dataclass(frozen=True)
class Muscle:
    """One muscle that is there.

    Parameters
    ----------
    label
        Which one.
    voxels
        (N, 3) indices of its voxels, in RAS+ order.
    size
        Its size, wherever it is.
    values
        (N,) signals by name.
    beside
        (S,) where each of its slices lies: 0 within the levels at which it is measured, 1 above,
        -1 below them.
    part
        Size of what lies within, or None where nothing does.
    extent
        These levels, such as ``'T12-S1'``, or ``'scan'`` where it is measured wherever it is.
    fat
        Fat of what lies within, by fat and water, or None.
    eroded
        The same without the outermost pixels, or None.
    n_swapped
        Voxels with fat and water swapped, None where nobody looked.
    thresholded
        Fat by each of the thresholds, or none.
    reasons
        Why values are missing or limited.
    """

    label: Label
    voxels: np.ndarray
    size: Size
    values: Mapping[str, np.ndarray]
    beside: np.ndarray
    part: Size | None
    extent: str = SCAN
    fat: Fat | None = None
    eroded: Fat | None = None
    n_swapped: int | None = None
    thresholded: tuple[ThresholdedFat, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def within(self) -> np.ndarray:
        """(N,) which voxels lie within the levels at which it is measured."""
        inside: np.ndarray = (self.beside == 0)[
            np.searchsorted(self.size.slices, self.voxels[:, 2])
        ]
        return inside

    @property
    def main(self) -> ThresholdedFat | None:
        """The main threshold: the chosen one, else the default."""
        by_name = {each.method: each for each in self.thresholded}
        return by_name.get(DEFAULT_THRESHOLD) or next(iter(self.thresholded), None)

    @property
    def fat_content(self) -> np.ndarray | None:
        """(N,) fat fraction, or probability of being fat; None where neither is known.

        Thresholds know none beyond the levels at which the muscle is measured.
        """
        if self.fat is not None:
            return self.values['fat fraction']
        if self.main is None:
            return None
        found = np.full(len(self.voxels), np.nan)
        found[self.within] = self.main.probability
        return found
