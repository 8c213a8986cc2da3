"""How good a segmentation is likely to be, from the probabilities alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

#: Outlines with a predicted Dice below the first are worth a look; those below the second are not
#: used without a person. On five scans of three real people who were in no training (70 muscles of
#: the neck, outlined by eye) the second finds 24, of which none had a Dice above 0.6 and the mean
#: was 0.30.
DOUBTFUL_DICE, UNUSABLE_DICE = 0.75, 0.6
#: A bad outline in a part with less than this share of a muscle leaves the joined muscle usable:
#: were all of it wrong, the Dice of the whole would be less by about this share.
LEAST_PART = 0.1


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


def predicted_dice(
    agreement: Mapping[int, float], calibration: Mapping[str, float] | None
) -> dict[int, float]:
    """Predict the Dice of each label with the outline of a reader.

    Parameters
    ----------
    agreement
        From :func:`expected_dice`; networks are too sure of themselves, so it is calibrated.
    calibration
        ``quality`` of the model card: ``intercept`` and ``slope`` of a straight line between the
        logits of the agreement and of the true Dice, fitted by benchmarks/quality_calibration.py;
        None where the model was not calibrated.

    Returns
    -------
    dict
        By number of the label map; empty without a calibration.

    Examples
    --------
    >>> predicted_dice({1: 0.9}, {'intercept': 0, 'slope': 1})
    {1: 0.9}
    >>> predicted_dice({1: 0.9}, None)
    {}
    """
    if calibration is None:
        return {}
    intercept, slope = calibration['intercept'], calibration['slope']
    return {
        label: round(1 / (1 + math.exp(-intercept - slope * logit(value))), 3)
        for label, value in agreement.items()
    }


def logit(share: float) -> float:
    """Return the logarithm of the odds, of a share held within 0.001 and 0.999.

    Examples
    --------
    >>> logit(0.5)
    0.0
    """
    share = min(max(share, 0.001), 0.999)
    return math.log(share / (1 - share))
