"""Fat in T1w and T2w images by thresholds: k-means (Xia 2019) and Gaussian mixtures.

Xia 2019 fits each slice by itself. That splits the noise of a slice without fat into halves; here
slices are brought to one brightness first (:mod:`~bids_muscle.measurement.brightness`) and fitted
together, so that each slice has a threshold that suits its brightness.

Thresholds see streaks of fat that fill voxels. Fat spread finely between fibres raises the signal
of every voxel a little and stays unseen. These numbers are another quantity than MFI of Dixon
images and must never share a column with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan

import numpy as np

from bids_muscle.measurement.fat import MAX_EXCLUDED
from bids_muscle.measurement.methods import DEFAULT_THRESHOLD, Threshold

#: Fewer voxels than this do not show their distribution.
MIN_VOXELS = 50
#: Percentiles beyond which values are set to the percentile before the fit.
WINSOR_PCT = (0.5, 99.5)
#: Log likelihood per voxel that two Gaussians must gain over one. Pure muscle gains less
#: than 0.002, pure Rayleigh noise less than 0.05; muscles with visible fat gain 0.4 to 0.7. Below
#: 0.1 shares of simulated muscles are wrong by 30 points, above it by 8 at most.
MIN_GAIN = 0.1
#: Up to this many grey levels, those of a 12-bit image, the histogram is exact; else it has so
#: many bins.
_MAX_LEVELS, _BINS = 4096, 1024
_MAX_ITERATIONS = 1000
#: Change of the mean log likelihood per voxel that ends the fit.
_TOLERANCE = 1e-7
#: Standard deviation of a class is at least this share of that of all voxels, so that no class
#: shrinks onto a single grey level.
_MIN_SD = 0.05


@dataclass(frozen=True)
class ThresholdedFat:
    """Fat of one muscle by thresholds; with three classes the middle one is undecided.

    Parameters
    ----------
    method
        What was fitted.
    n_voxels
        Voxels with a finite value.
    n_excluded, n_winsorised
        Voxels without one; voxels beyond the percentiles, whose values were limited for the fit.
    muscle_pct, undecided_pct, fat_pct
        Shares of the voxels; they add up to 100. With two classes nothing is undecided.
    fat_weighted_pct
        Sum of the probabilities of being fat over the voxels; smoother than `fat_pct`. NaN for
        k-means, which has none.
    muscle_max, fat_min
        Muscle is up to the first, fat is above the second, in the unit of the image. With two
        classes they are the same.
    gain
        Log likelihood per voxel that two Gaussians gain over one: how much there is to tell apart.
    muscle_mean, fat_mean
        Mean brightness of the voxels up to `fat_min` and above it.
    reason
        Why values are missing.
    probability
        (N,) probability of each voxel to be fat, 0 or 1 for k-means; NaN where it is not known.
    """

    method: Threshold
    n_voxels: int
    n_excluded: int
    n_winsorised: int = 0
    muscle_pct: float = nan
    undecided_pct: float = nan
    fat_pct: float = nan
    fat_weighted_pct: float = nan
    muscle_max: float = nan
    fat_min: float = nan
    gain: float = nan
    muscle_mean: float = nan
    fat_mean: float = nan
    reason: str | None = None
    probability: np.ndarray = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Mixture:
    """Gaussian mixture in the order of its means.

    Parameters
    ----------
    weights, means, sds
        (k,) parameters.
    log_likelihood
        Mean per voxel.
    """

    weights: np.ndarray
    means: np.ndarray
    sds: np.ndarray
    log_likelihood: float

    def log_joint(self, levels: np.ndarray) -> np.ndarray:
        """Return the logarithm of weight x density, (k, n)."""
        z = (levels - self.means[:, None]) / self.sds[:, None]
        return np.log(self.weights / self.sds)[:, None] - 0.5 * (z**2 + np.log(2 * np.pi))

    def fat_probability(self, levels: np.ndarray) -> np.ndarray:
        """Return the probability of the brightest class (n,); what is darker than muscle has 0."""
        joint = np.exp(self.log_joint(levels))
        return np.where(levels > self.means[0], joint[-1] / joint.sum(axis=0), 0)

    def boundary(self, lower: int) -> float:
        """Return where the next class becomes likelier, between the means of both.

        NaN if one of them is likelier all the way.
        """
        from scipy.optimize import brentq

        def lead(level: float) -> float:
            joint = self.log_joint(np.array([level]))[:, 0]
            return float(joint[lower + 1] - joint[lower])

        low, high = self.means[lower], self.means[lower + 1]
        if lead(low) >= 0 or lead(high) <= 0:
            return nan
        return float(brentq(lead, low, high, xtol=1e-9 * (high - low)))


def threshold_fat(
    values: np.ndarray, method: Threshold = DEFAULT_THRESHOLD, *, fat_suppressed: bool = False
) -> ThresholdedFat:
    """Split the voxels of one muscle into muscle and fat.

    Parameters
    ----------
    values
        (N,) intensities of the muscle in an image without bias field, where fat is bright.
    method
        ``'kmeans2'``, ``'kmeans3'``, ``'gmm2'`` or ``'gmm3'``.
    fat_suppressed
        Whether fat is dark in the image, as with STIR, SPIR or a water image.

    Returns
    -------
    ThresholdedFat
        What cannot be trusted is NaN, and ``reason`` says why.

    Notes
    -----
    The fit takes the histogram of the values, limited to their 0.5 and 99.5 percentiles, so that
    a vessel or a bright spot is no class of its own. It is exact for images of whole numbers and
    depends on nothing else: no random start. Boundaries lie between the means, so that a dark
    voxel is never fat, however wide the distribution of fat.
    """
    values = np.asarray(values).ravel()
    defined = np.isfinite(values)
    finite = values[defined].astype(np.float64)
    counted = {'n_voxels': finite.size, 'n_excluded': values.size - finite.size}
    n_classes = int(method[-1])

    def refused(reason: str, gain: float = nan) -> ThresholdedFat:
        unknown = np.full(values.shape, nan)
        return ThresholdedFat(method, **counted, gain=gain, reason=reason, probability=unknown)

    if fat_suppressed:
        return refused('fat is dark in a fat-suppressed image, so thresholds cannot find it')
    if finite.size < MIN_VOXELS:
        return refused(f'only {finite.size} voxels, too few for thresholds')
    if counted['n_excluded'] > MAX_EXCLUDED * values.size:
        return refused(
            f'{counted["n_excluded"]} of {values.size} voxels have no value, so no thresholds'
        )
    low, high = np.percentile(finite, WINSOR_PCT, method='inverted_cdf')
    counted['n_winsorised'] = int(np.count_nonzero((finite < low) | (finite > high)))
    limited = np.clip(finite, low, high)
    levels, counts = _histogram(limited)
    if levels.size < 2 * n_classes:
        return refused(f'only {levels.size} grey levels, too few for thresholds')
    # Around 0 with spread 1: neither unit nor offset of the image changes the fit.
    centre = float(np.average(levels, weights=counts))
    spread = float(np.sqrt(np.average((levels - centre) ** 2, weights=counts)))
    levels = (levels - centre) / spread
    halves = fit_mixture(levels, counts, kmeans_cuts(levels, counts, 2))
    gain = halves.log_likelihood + 0.5 * (1 + float(np.log(2 * np.pi)))
    if gain < MIN_GAIN:
        return refused('fat and muscle are not separable by brightness', gain)
    cuts = kmeans_cuts(levels, counts, n_classes)
    weighted, mixture = nan, None
    if method.startswith('gmm'):
        mixture = halves if n_classes == 2 else fit_mixture(levels, counts, cuts)
        cuts = np.array([mixture.boundary(i) for i in range(n_classes - 1)])
        if np.isnan(cuts[-1]):
            return refused('the fat class lies within the neighbouring class', gain)
        fat = mixture.fat_probability(levels)
        weighted = 100 * float(np.average(fat, weights=counts))
    muscle_max, fat_min = (float(cuts[i] * spread + centre) for i in (0, -1))
    probability = np.full(values.shape, nan)
    if mixture is None:
        probability[defined] = finite > fat_min
    else:
        probability[defined] = mixture.fat_probability((limited - centre) / spread)
    bright = finite > fat_min
    fat_pct = 100 * float(np.mean(bright))
    muscle_pct = nan if np.isnan(muscle_max) else 100 * float(np.mean(finite <= muscle_max))
    return ThresholdedFat(
        method,
        **counted,
        muscle_pct=muscle_pct,
        undecided_pct=100 - fat_pct - muscle_pct if n_classes > 2 else 0.0,
        fat_pct=fat_pct,
        fat_weighted_pct=weighted,
        muscle_max=muscle_max,
        fat_min=fat_min,
        gain=gain,
        muscle_mean=float(finite[~bright].mean()),
        fat_mean=float(finite[bright].mean()),
        reason='the muscle class and the undecided class lie within each other'
        if np.isnan(muscle_pct)
        else None,
        probability=probability,
    )


def kmeans_cuts(levels: np.ndarray, counts: np.ndarray, n_classes: int) -> np.ndarray:
    """Find the best k-means of a histogram, by trying all boundaries.

    Parameters
    ----------
    levels, counts
        (n,) grey levels in ascending order, and their voxels.
    n_classes
        2 or 3.

    Returns
    -------
    (n_classes - 1,) boundaries, half way between the means of neighbouring classes.

    Notes
    -----
    The least sum of squares within classes is the largest sum of (sum of a class)^2 / voxels.
    """
    voxels = np.concatenate([[0], np.cumsum(counts)]).astype(float)
    sums = np.concatenate([[0], np.cumsum(counts * levels)])

    def gain(start: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
        return (sums[stop] - sums[start]) ** 2 / (voxels[stop] - voxels[start])

    n = levels.size
    if n_classes == 2:
        at = np.arange(1, n)
        edges = [0, int(at[np.argmax(gain(0, at) + gain(at, n))]), n]
    else:
        best, edges = -np.inf, [0, 1, 2, n]
        for first in range(1, n - 1):
            at = np.arange(first + 1, n)
            total = gain(first, at) + gain(at, n)
            second = int(np.argmax(total))
            if total[second] + gain(0, first) > best:
                best = float(total[second] + gain(0, first))
                edges = [0, first, int(at[second]), n]
    means = np.diff(sums[edges]) / np.diff(voxels[edges])
    return (means[:-1] + means[1:]) / 2


def fit_mixture(levels: np.ndarray, counts: np.ndarray, cuts: np.ndarray) -> Mixture:
    """Fit a Gaussian mixture to a histogram by expectation maximisation.

    Parameters
    ----------
    levels, counts
        (n,) standardised grey levels in ascending order, and their voxels.
    cuts
        (k - 1,) boundaries of the classes to start from.

    Notes
    -----
    Dempster AP, Laird NM, Rubin DB. J R Stat Soc B 1977;39:1-38.
    """
    share = counts / counts.sum()
    member = (np.searchsorted(cuts, levels) == np.arange(cuts.size + 1)[:, None]) * 1.0
    mixture, last = _maximise(member, levels, share, nan), -np.inf
    for _ in range(_MAX_ITERATIONS):
        joint = mixture.log_joint(levels)
        total = np.logaddexp.reduce(joint, axis=0)
        likelihood = float(share @ total)
        mixture = _maximise(np.exp(joint - total), levels, share, likelihood)
        if likelihood - last < _TOLERANCE:
            break
        last = likelihood
    order = np.argsort(mixture.means, kind='stable')
    return Mixture(
        mixture.weights[order], mixture.means[order], mixture.sds[order], mixture.log_likelihood
    )


def _maximise(
    member: np.ndarray, levels: np.ndarray, share: np.ndarray, likelihood: float
) -> Mixture:
    """Return the mixture that suits the memberships (k, n) best."""
    mass = member * share
    weights = np.maximum(mass.sum(axis=1), 1e-12)
    means = mass @ levels / weights
    variances = (mass * (levels - means[:, None]) ** 2).sum(axis=1) / weights
    return Mixture(weights, means, np.sqrt(np.maximum(variances, _MIN_SD**2)), likelihood)


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return grey levels and their voxels; the mean of each bin where there are too many."""
    levels, counts = np.unique(values, return_counts=True)
    if levels.size <= _MAX_LEVELS:
        return levels, counts
    width = (levels[-1] - levels[0]) / _BINS
    index = np.minimum(((levels - levels[0]) / width).astype(int), _BINS - 1)
    voxels = np.bincount(index, counts, _BINS)
    sums = np.bincount(index, counts * levels, _BINS)
    used = voxels > 0
    return sums[used] / voxels[used], voxels[used]
