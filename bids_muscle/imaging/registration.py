"""Affine alignment of a scan to an atlas, from what its points tell about their place.

Every point of the scan has an intensity and, after segmentation, a muscle. How much both tell
about the place of the point in the atlas is measured in nats (natural units of information) and
averaged over the points: the mutual information of the intensities (Wells et al. 1996,
doi:10.1016/S1361-8415(01)80004-9), which any contrast has, plus the mean of log P(muscle | place)
/ P(muscle), P from the atlas. A point beyond the end of the atlas tells nothing. People differ
more in girth than in the height of their vertebrae, so that a height far from the atlas's costs.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

#: Distance of the points that are compared, mm, and their number at most.
_GRID_MM = 3.0
_MAX_POINTS = 6_000
#: Every so many-th point is enough to choose among starts.
_ROUGH = 4
#: Distance between starts along the body; those that are refined lie this far apart, mm, as the
#: points of the scan go on average.
_START_MM = 6.0
_APART_MM = 20.0
_REFINED = 3
#: Without muscles the best start is often far from the best place.
_REFINED_BLIND = 30
#: How far before the middle of the atlas's body that of the scan may lie, without muscles.
_FORWARD_MM = (-40.0, 0.0, 40.0)
#: Below this height a scan says little about lengths along the body: one scale for all axes.
SHORT_MM = 70.0
#: Intensities are compared in this many classes.
_BINS = 16
#: Points up to this distance across the spine say how far a scan reaches along it, mm.
_NEAR_MM = 25.0
#: Usual relative difference of people's vertebral height from the atlas's, and of stretch along
#: one axis against another.
_HEIGHT_SD, _STRETCH_SD = 0.08, 0.15
#: No place excludes a muscle altogether: the segmentation may be wrong.
_LEAST_PROBABILITY = 0.01


@dataclass(frozen=True, eq=False)
class Target:
    """What a scan is compared with: an atlas as arrays.

    Parameters
    ----------
    affine
        (4, 4) voxel index to RAS+ mm.
    intensity
        (X, Y, Z) 0 to 1, 0 outside the body.
    probabilities
        (n + 1, X, Y, Z) of no muscle and of each of the n muscles.
    certainty
        Nats of a point to units of log probability: points are not independent.
    """

    affine: np.ndarray
    intensity: np.ndarray
    probabilities: np.ndarray
    certainty: float


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a scan that are compared with an atlas.

    Parameters
    ----------
    ras_mm
        (N, 3) place in the scan.
    intensity
        (N,) 0 to 1.
    classes
        (N,) 0 where there is no muscle, else the position of the muscle in the label table plus 1.
    """

    ras_mm: np.ndarray
    intensity: np.ndarray
    classes: np.ndarray

    @property
    def height_mm(self) -> float:
        """Extent along the body."""
        return float(np.ptp(self.ras_mm[:, 2]))


def scan_points(
    intensity: Nifti1Image, classes: np.ndarray, mask: np.ndarray, *, seed: int = 0
) -> Points:
    """Take points from the body of a scan.

    Parameters
    ----------
    intensity
        (X, Y, Z) image without bias field, canonical.
    classes
        (X, Y, Z) 0 to n as in :class:`Points`.
    mask
        (X, Y, Z) bool, the body.
    seed
        Which points are taken, where there are more than needed.
    """
    from scipy import ndimage

    step = np.maximum(1, np.round(_GRID_MM / voxel_sizes(intensity.affine))).astype(int)
    data = np.asarray(intensity.dataobj, np.float32)
    smooth = ndimage.uniform_filter(np.where(mask, np.maximum(data, 0), 0), tuple(step))
    first = np.minimum((step - 1) // 2, np.array(mask.shape) - 1)
    taken = tuple(slice(f, None, s) for f, s in zip(first, step, strict=True))
    inside = np.argwhere(mask[taken] | (classes[taken] > 0)) * step + first
    if len(inside) > _MAX_POINTS:
        pick = np.random.default_rng(seed).choice(len(inside), _MAX_POINTS, replace=False)
        inside = inside[np.sort(pick)]
    where = tuple(inside.T)
    return Points(
        apply_affine(intensity.affine, inside), normalised(smooth, mask)[where], classes[where]
    )


def normalised(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scale intensities so that bright tissue is 1 and what is outside the body 0."""
    bright = np.percentile(data[mask], 99) if mask.any() else 0
    return np.where(mask, np.clip(data / bright, 0, 1), 0) if bright > 0 else np.zeros(data.shape)


class PointMatch:
    """How well an affine brings the points of a scan to their places in an atlas."""

    def __init__(self, points: Points, target: Target) -> None:
        self.certainty = target.certainty
        self._points = points
        self._ras = np.ascontiguousarray(points.ras_mm.T)
        self._bins = _binned(points.intensity)
        share = np.bincount(points.classes, minlength=len(target.probabilities))
        prior = np.maximum(share / max(len(points.classes), 1), 1e-6)
        self._log_prior = np.log(prior)[points.classes]
        self._depth = target.intensity.shape[2]
        self._to_voxel = np.linalg.inv(target.affine)
        self._intensity = _Lookup(target.intensity[None], (0.0,))
        outside = [1.0, *[0.0] * (len(target.probabilities) - 1)]
        self._probabilities = _Lookup(target.probabilities, outside)

    def of_some(self, step: int) -> PointMatch:
        """Return the same of every so many-th point."""
        points = self._points
        few = copy.copy(self)
        few._points = Points(
            points.ras_mm[::step], points.intensity[::step], points.classes[::step]
        )
        few._ras = np.ascontiguousarray(self._ras[:, ::step])
        few._bins, few._log_prior = self._bins[::step], self._log_prior[::step]
        return few

    def shows(self, matrix: np.ndarray, place_mm: np.ndarray, edge_mm: float) -> bool:
        """Return whether the scan reaches farther than a place of the atlas, up and down.

        Parameters
        ----------
        matrix
            (4, 4) from mm in the scan to mm in the atlas.
        place_mm
            (3,) in the atlas.
        edge_mm
            By how much it is to reach farther.
        """
        placed = apply_affine(matrix, self._points.ras_mm)
        near = np.linalg.norm(placed[:, :2] - place_mm[:2], axis=1) < _NEAR_MM
        heights = placed[near, 2] - place_mm[2]
        return bool(len(heights) and heights.min() < -edge_mm and heights.max() > edge_mm)

    def score(self, matrix: np.ndarray) -> float:
        """Return the information, less where people are seldom so tall or so stretched.

        Parameters
        ----------
        matrix
            (4, 4) from mm in the scan to mm in the atlas.
        """
        return self.information(matrix) + log_prior(matrix) / self.certainty

    def information(self, matrix: np.ndarray) -> float:
        """Return what a point tells about its place, in nats; more is better.

        Parameters
        ----------
        matrix
            (4, 4) from mm in the scan to mm in the atlas.
        """
        onto = self._to_voxel @ matrix
        at = onto[:3, :3] @ self._ras + onto[:3, 3:]
        inside = (at[2] > -0.5) & (at[2] < self._depth - 0.5)
        n_inside = np.count_nonzero(inside)
        if n_inside < 50:
            return 0.0
        at, classes = at[:, inside], self._points.classes[inside]
        at[2] = np.clip(at[2], 0, self._depth - 1)
        corners = self._intensity.corners(at)
        seen = self._intensity(corners, 0)
        total = n_inside * _mutual_information(self._bins[inside], _binned(seen))
        # Where no muscle was segmented at all, that says nothing about where muscles are.
        if self._points.classes.any():
            expected = np.clip(self._probabilities(corners, classes), _LEAST_PROBABILITY, 1)
            total += float((np.log(expected) - self._log_prior[inside]).sum())
        return total / len(inside)


class _Lookup:
    """Values between the voxels of volumes on one grid, linearly; many points at once.

    ndimage.map_coordinates takes three times as long, as it starts anew for each volume.

    Parameters
    ----------
    volumes
        (n, X, Y, Z).
    outside
        Value of each volume beyond its edge.
    """

    def __init__(self, volumes: np.ndarray, outside: Sequence[float]) -> None:
        self._shape = np.array(volumes.shape[1:])[:, None]
        padded = np.empty((len(volumes), *(n + 2 for n in volumes.shape[1:])), np.float32)
        for own, volume, value in zip(padded, volumes, outside, strict=True):
            own[:] = value
            own[1:-1, 1:-1, 1:-1] = volume
        self._values = padded.ravel()
        self._size = np.int32(padded[0].size)
        _, rows, columns = padded.shape[1:]
        self._steps = np.array([rows * columns, columns, 1], np.int32)
        x, y, z = np.ix_(*np.outer(self._steps, (0, 1)))
        self._offsets = (x + y + z)[..., None]

    def corners(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the eight voxels about each point, (2, 2, 2, N), and where it lies among them.

        Parameters
        ----------
        at
            (3, N) voxel indices.
        """
        inside = np.clip(at + 1, 0, self._shape + 0.999).astype(np.float32)
        lower = inside.astype(np.int32)
        first = lower[0] * self._steps[0] + lower[1] * self._steps[1] + lower[2]
        return self._offsets + first, inside - lower

    def __call__(
        self, corners: tuple[np.ndarray, np.ndarray], volume: np.ndarray | int
    ) -> np.ndarray:
        """Return the value of a volume, or of one for each point, (N,)."""
        where, share = corners
        values = self._values.take(where + np.asarray(volume, np.int32) * self._size)
        for each in share:
            values = values[0] + each * (values[1] - values[0])
        return values


def log_prior(matrix: np.ndarray) -> float:
    """Return how usual the size of a person is, as a log probability; 0 is that of the atlas.

    The tails are those of Cauchy's distribution: children are far from the atlas.

    Parameters
    ----------
    matrix
        (4, 4) from mm in the scan to mm in the atlas.

    Examples
    --------
    >>> [round(log_prior(np.diag([1, 1, z, 1])), 1) for z in (1.1, 0.7)]
    [-1.2, -4.9]
    """
    height = np.log(np.linalg.norm(np.linalg.inv(matrix[:3, :3])[:, 2]))
    return float(
        -np.log1p((height / _HEIGHT_SD) ** 2)
        - np.log1p((np.log(stretch_of(matrix)) / _STRETCH_SD) ** 2)
    )


def stretch_of(matrix: np.ndarray) -> float:
    """Return by how much more an affine stretches along one axis than along another.

    Examples
    --------
    >>> round(stretch_of(np.diag([1.0, 1.5, 1.2, 1.0])), 2)
    1.5
    """
    sizes = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return float(sizes[0] / sizes[-1])


def _binned(values: np.ndarray) -> np.ndarray:
    return np.clip(values * _BINS, 0, _BINS - 1).astype(int)


def _mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    joint = np.bincount(a * _BINS + b, minlength=_BINS**2).reshape(_BINS, _BINS) / a.size
    return _entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint.ravel())


def _entropy(shares: np.ndarray) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def find_affine(points: Points, target: Target) -> np.ndarray:
    """Find the affine that tells most about the places of the points.

    Starts lie every 6 mm along the atlas, each with the muscles (or without any, the bodies) of
    the scan and of that part of the atlas on each other; the best three (without muscles 30) that
    lie apart are refined by Powell's method with one scale for all axes and a quarter of the
    points; the best of these with all points, for scans of more than `SHORT_MM` with all twelve
    parameters.

    Returns
    -------
    numpy.ndarray
        (4, 4) from mm in the scan to mm in the atlas.
    """
    fit = PointMatch(points, target)
    rough = fit.of_some(_ROUGH)
    starts = sorted(_starts(points, target), key=rough.score, reverse=True)
    centre = points.ras_mm.mean(axis=0)
    some = points.ras_mm[::20]
    most = _REFINED if points.classes.any() else _REFINED_BLIND
    chosen: list[np.ndarray] = []
    for matrix in starts:
        steps = [apply_affine(other - matrix, some) for other in chosen]
        apart = min((np.linalg.norm(step, axis=1).mean() for step in steps), default=np.inf)
        if len(chosen) < most and apart >= _APART_MM:
            chosen.append(matrix)
    refined = [_refine(rough, start, centre, 7) for start in chosen]
    best = max(refined, key=fit.score)
    return _refine(fit, best, centre, 12 if points.height_mm > SHORT_MM else 7)


def _starts(points: Points, target: Target) -> list[np.ndarray]:
    """Affines that put the muscles of the scan on those of the atlas, at all heights.

    Without muscles the body must do. The field of view may cut it, so that neither its width
    nor its middle tells: the size of the atlas and places before and behind are tried too.
    """
    muscles = points.classes > 0
    segmented = muscles.sum() >= 50
    own = points.ras_mm[muscles] if segmented else points.ras_mm
    known = target.probabilities[0] < 0.5 if segmented else target.intensity > 0.05
    atlas = apply_affine(target.affine, np.argwhere(known))
    half = points.height_mm / 2
    middle = own.mean(axis=0)
    middle[2] = (points.ras_mm[:, 2].min() + points.ras_mm[:, 2].max()) / 2
    low, high = atlas[:, 2].min(), atlas[:, 2].max()
    starts = []
    for height in np.arange(low, high + _START_MM, _START_MM):
        there = atlas[np.abs(atlas[:, 2] - height) <= half + _START_MM]
        if len(there) < 50:
            continue
        x, y = there[:, :2].mean(axis=0)
        fitted = float(np.clip(_spread(there) / _spread(own), 0.7, 1.4))
        for scale, forward in itertools.product(
            (fitted,) if segmented else (fitted, 1.0),
            (0.0,) if segmented else _FORWARD_MM,
        ):
            matrix = np.diag([scale, scale, scale, 1])
            matrix[:3, 3] = [x, y + forward, height] - scale * middle
            starts.append(matrix)
    return starts


def _spread(points_mm: np.ndarray) -> float:
    return float(np.sqrt(points_mm[:, :2].var(axis=0).sum()))


def _refine(fit: PointMatch, start: np.ndarray, centre: np.ndarray, n_free: int) -> np.ndarray:
    """Improve an affine by Powell's method, over steps of about 1 mm at the edge of the body."""
    from scipy import optimize

    def matrix(steps: np.ndarray) -> np.ndarray:
        return start @ step_matrix(steps, centre)

    result = optimize.minimize(
        lambda steps: -fit.score(matrix(steps)),
        np.zeros(n_free),
        method='Powell',
        options={'xtol': 0.1, 'ftol': 1e-4, 'maxiter': 6},
    )
    return matrix(result.x)


def step_matrix(steps: Sequence[float] | np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the affine of small steps about a centre.

    Parameters
    ----------
    steps
        Shift (3), rotation about the three axes (3), growth along all axes (1); or instead of that
        growth along each axis (3) and shear (3). Each step moves a point 100 mm from the centre by
        about 1 mm.
    centre
        (3,) mm.

    Examples
    --------
    >>> step_matrix([1, 0, 0, 0, 0, 0, 0], np.zeros(3))[:3, 3]
    array([1., 0., 0.])
    """
    from scipy.spatial.transform import Rotation

    shift, turn, rest = np.asarray(steps[:3]), steps[3:6], np.asarray(steps[6:]) / 100
    stretch = np.eye(3)
    if len(rest) == 1:
        stretch *= np.exp(rest[0])
    else:
        stretch[np.diag_indices(3)] = np.exp(rest[:3])
        stretch[np.triu_indices(3, 1)] = rest[3:]
    linear = Rotation.from_rotvec(np.asarray(turn) / 100).as_matrix() @ stretch
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre + shift - linear @ centre
    return matrix
