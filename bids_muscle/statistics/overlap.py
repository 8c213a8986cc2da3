"""How well two label maps agree, voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np

from bids_muscle.errors import GridMismatchError


@dataclass(frozen=True)
class Overlap:
    """Counts of agreement of one label, and the measures made of them.

    A measure whose denominator is 0 is NaN: a label that is in neither map has no Dice.

    Parameters
    ----------
    true_positive, false_positive, false_negative, true_negative
        Numbers of voxels; the reference is the truth.

    Examples
    --------
    >>> found = Overlap(8, 2, 2, 88)
    >>> found.dice, found.conformity, found.volume_ratio
    (0.8, 0.5, 1.0)
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def dice(self) -> float:
        """Dice coefficient, 2 TP / (2 TP + FP + FN)."""
        both = 2 * self.true_positive
        return _ratio(both, both + self.false_positive + self.false_negative)

    @property
    def jaccard(self) -> float:
        """Jaccard index, TP / (TP + FP + FN)."""
        union = self.true_positive + self.false_positive + self.false_negative
        return _ratio(self.true_positive, union)

    @property
    def conformity(self) -> float:
        """Conformity coefficient, 1 - (FP + FN) / TP.

        It is minus infinity where Dice is 0: nothing overlaps, or one of the maps lacks the label.
        """
        wrong = self.false_positive + self.false_negative
        if self.true_positive == 0:
            return -inf if wrong else nan
        return 1 - wrong / self.true_positive

    @property
    def sensitivity(self) -> float:
        """True positive rate, TP / (TP + FN)."""
        return _ratio(self.true_positive, self._reference)

    @property
    def specificity(self) -> float:
        """True negative rate, TN / (TN + FP); it grows with the field of view."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """Positive predictive value, TP / (TP + FP)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def volume_ratio(self) -> float:
        """Volume of the test over that of the reference (Weber 2021: above 1, test is larger)."""
        return _ratio(self.true_positive + self.false_positive, self._reference)

    @property
    def _reference(self) -> int:
        return self.true_positive + self.false_negative


def overlap(test: np.ndarray, reference: np.ndarray, labels: Sequence[int]) -> dict[int, Overlap]:
    """Count agreement and disagreement of each label.

    Parameters
    ----------
    test, reference
        Label maps of one shape on one grid, whole numbers.
    labels
        Numbers to compare.

    Returns
    -------
    dict
        Overlap by label.

    Raises
    ------
    GridMismatchError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> overlap(np.array([1, 1, 2, 0]), np.array([1, 2, 2, 0]), [1, 2])[1].precision
    0.5
    """
    if test.shape != reference.shape:
        raise GridMismatchError(
            f'Label maps have different shapes, {test.shape} and {reference.shape}.',
            'Use label maps on the same grid.',
        )
    result = {}
    for label in labels:
        mine, truth = test == label, reference == label
        both = int(np.count_nonzero(mine & truth))
        n_mine, n_truth = int(np.count_nonzero(mine)), int(np.count_nonzero(truth))
        result[label] = Overlap(
            true_positive=both,
            false_positive=n_mine - both,
            false_negative=n_truth - both,
            true_negative=mine.size - n_mine - n_truth + both,
        )
    return result


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else nan


@dataclass(frozen=True)
class BoundaryDistance:
    """How far two outlines are from each other, mm; NaN where a map lacks the label.

    Parameters
    ----------
    mean_mm
        Mean over both directions of the mean distance to the nearest border voxel of the other
        (Xia 2019 gives no formula; this is the symmetric average surface distance).
    hd95_mm
        The greater 95th percentile of the two directions (95 % Hausdorff distance).
    """

    mean_mm: float = nan
    hd95_mm: float = nan


def boundary_distance(
    test: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> BoundaryDistance:
    """Measure the distance between the borders of two masks.

    A border voxel is one with a face on a voxel outside the mask. The edge of the field of view is
    no border, since nobody knows where the muscle ends there.

    Parameters
    ----------
    test, reference
        Masks of one shape.
    spacing_mm
        Voxel size along each axis.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.zeros((9, 9), bool)
    >>> a[2:5, 2:5] = True
    >>> boundary_distance(np.roll(a, 2, axis=0), a, (1.0, 1.0)).hd95_mm
    2.0
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    either = test | reference
    if not (test.any() and reference.any()):
        return BoundaryDistance()
    # Only the surroundings matter, one voxel of background included.
    box = tuple(
        slice(max(int(where.min()) - 1, 0), int(where.max()) + 2) for where in np.nonzero(either)
    )
    borders = [
        mask[box] & ~binary_erosion(mask[box], border_value=1) for mask in (test, reference)
    ]
    if not all(border.any() for border in borders):
        return BoundaryDistance()
    directed = [
        distance_transform_edt(~there, sampling=spacing_mm)[here]
        for here, there in (borders, borders[::-1])
    ]
    return BoundaryDistance(
        mean_mm=float(np.mean([each.mean() for each in directed])),
        hd95_mm=float(max(np.percentile(each, 95) for each in directed)),
    )
