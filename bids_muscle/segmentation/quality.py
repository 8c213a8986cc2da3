"""How good a segmentation is likely to be, from the probabilities alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def expected_dice(
    labels: np.ndarray, confidence: np.ndarray, expected: np.ndarray, numbers: Sequence[int]
) -> dict[int, float]:
    """Dice of each label with the truth if the probabilities were right.

    With n voxels labelled, of which by their probabilities t are right, and m voxels of the muscle
    in all, it is 2 t / (n + m). Views, folds and images that disagree lower the probabilities of
    their mean, and with them this number.
    """
    sums = np.bincount(labels.ravel(), weights=confidence.ravel() / 100, minlength=256)
    counts = np.bincount(labels.ravel(), minlength=256)
    inside = np.bincount(numbers, weights=expected, minlength=256)
    return {
        int(n): float(2 * sums[n] / (counts[n] + inside[n]))
        for n in np.flatnonzero(counts)
        if n != 0
    }
