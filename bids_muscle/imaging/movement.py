"""How far the patient moved between two scans, from what both show near the spine.

Both scans are brought to the blur of the thicker slices along each axis, so that they show the
same. Then one is shifted over the other, and the shift with the greatest normalised mutual
information (Studholme 1999, doi:10.1016/S0031-3203(98)00091-0) is taken, whatever the contrasts.
It is averaged over parts along the spine, each with its own histogram, as coils are bright in one
place and dark in another; how much the answer changes when a part is left out says how well it
is known (jackknife).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

#: From this distance along an axis on, mm, the patient is taken to have moved: fat is displaced by
#: up to 2 mm by its chemical shift, along other axes in axial than in sagittal scans.
MOVED_MM = 5.0
#: Distance of the points that are compared, mm; steps of the first look are twice as long.
_GRID_MM = 2.0
#: Shifts are looked for this far, mm: less than the distance of two vertebrae, which look alike.
_REACH_MM = 24.0
#: What lies this near to a vertebra or disc moves with it, mm.
_NEAR_MM = 15.0
#: Intensities are compared in this many classes with equally many points.
_BINS = 12
#: Height of the parts, mm; there are at least two.
_PART_MM = 30.0
#: Fewest points that lie in both scans.
_LEAST_POINTS = 1000
#: A shift is not reported if its standard deviation is larger than this, mm, or if it is farther
#: than this from where most parts by themselves fit best.
_LARGEST_SD_MM, _APART_MM = 2.0, 8.0
#: The best shift shares so many times as much as any one farther from it than this, mm. On real
#: and simulated scans it was mostly above 1.14 where the shift was right, below 1.03 where not.
_LEAST_LEAD, _ELSEWHERE_MM = 1.08, 12.0

_OUTSIDE = 'the axial scan shows too little of the vertebrae'
_UNSURE = 'no shift of the images fits clearly best in all parts of the spine'
_FAR = f'the images fit best when shifted by {_REACH_MM:.0f} mm or more'
_WAYS = (('to the right', 'to the left'), ('to the front', 'to the back'), ('up', 'down'))


@dataclass(frozen=True)
class Movement:
    """How far the anatomy of one scan lies from where another one shows it.

    Parameters
    ----------
    shift_mm
        To the right, to anterior, to superior; None where it is not known.
    sd_mm
        Standard deviation of each, or None.
    reason
        Why it is not known, or None.
    """

    shift_mm: tuple[float, float, float] | None
    sd_mm: tuple[float, float, float] | None = None
    reason: str | None = None


def moved(shift_mm: Sequence[float]) -> str | None:
    """Return which way the patient moved; None where no way is as long as `MOVED_MM`.

    Examples
    --------
    >>> moved((8.2, -1.0, -12.4))
    '8 mm to the right, 12 mm down'
    """
    said = [
        f'{abs(way):.0f} mm {names[way < 0]}'
        for way, names in zip(shift_mm, _WAYS, strict=True)
        if abs(way) >= MOVED_MM
    ]
    return ', '.join(said) or None


def remarks(movement: Movement, source: str, frames: Sequence[str | None]) -> list[str]:
    """Return what makes it doubtful that muscles lie where their vertebrae seem to.

    Parameters
    ----------
    movement
        From :func:`find_movement`.
    source
        Name of the other scan.
    frames
        Frame of reference (DICOM's FrameOfReferenceUID) of both scans, None where not known.

    Examples
    --------
    >>> remarks(Movement((0.0, 1.0, 6.0), (1.0, 1.0, 1.0)), 'T2w', (None, None))
    ['the patient moved between the scans: the anatomy lies 6 mm up relative to T2w']
    """
    said = []
    if all(frames) and len(set(frames)) > 1:
        said.append(
            f'this scan and {source} have different frames of reference (FrameOfReferenceUID), so '
            'vertebrae and muscles may not match in position'
        )
    if movement.shift_mm is None:
        said.append(
            f'movement of the patient between this scan and {source} cannot be excluded: '
            f'{movement.reason}'
        )
    elif way := moved(movement.shift_mm):
        said.append(
            f'the patient moved between the scans: the anatomy lies {way} relative to {source}'
        )
    return said


def find_movement(
    scans: Sequence[Nifti1Image], other: Nifti1Image, spine: Nifti1Image
) -> Movement:
    """Find how far the anatomy of a scan lies from where another scan shows it.

    Parameters
    ----------
    scans
        Images of one scan on one grid, of any contrast and orientation.
    other
        The other scan, of any contrast and orientation.
    spine
        Label map of vertebrae in the world of the other scan; 0 where none is.

    Returns
    -------
    Movement
        No shift where too little of the spine is in both, where parts of the spine do not agree,
        or where the scans fit best at the end of the search.
    """
    overlap = _Overlap(scans, other, spine)
    if overlap.n_points < _LEAST_POINTS:
        return Movement(None, reason=_OUTSIDE)
    steps = np.arange(-overlap.reach, overlap.reach + 1, 2)
    coarse = np.array(list(product(steps, repeat=3)))
    scores, counts = overlap.similarity(coarse, sparse=True)
    # What is shared beyond nothing; unrelated images share 1.
    shared = _mean(scores, counts) - 1
    start = coarse[shared.argmax()]
    elsewhere = np.linalg.norm((coarse - start) * _GRID_MM, axis=1) > _ELSEWHERE_MM
    clear = shared.max() >= _LEAST_LEAD * shared[elsewhere].max()
    alone = coarse[scores.argmax(0)]
    fine = np.array(list(product(range(-2, 3), repeat=3)))
    for _ in range(2):
        scores, counts = overlap.similarity(start + fine)
        step = fine[_mean(scores, counts).argmax()]
        start = start + step
        if abs(step).max() < 2:
            break
    shift = (start - step + _peak(_mean(scores, counts))) * _GRID_MM
    n_parts = scores.shape[1]
    left_out = [
        _peak(_mean(np.delete(scores, k, 1), np.delete(counts, k, 1))) for k in range(n_parts)
    ]
    sd = _GRID_MM * np.sqrt((n_parts - 1) * np.var(left_out, axis=0))
    agree = np.linalg.norm(alone * _GRID_MM - shift, axis=1) <= _APART_MM
    if not clear or sd.max() > _LARGEST_SD_MM or 2 * agree.sum() < n_parts:
        return Movement(None, reason=_UNSURE)
    if abs(start).max() >= overlap.reach:
        return Movement(None, reason=_FAR)
    return Movement(_triple(shift), _triple(sd))


class _Overlap:
    """Points near the spine: their intensities in one scan and, shifted, in the other."""

    def __init__(
        self, scans: Sequence[Nifti1Image], other: Nifti1Image, spine: Nifti1Image
    ) -> None:
        from scipy.ndimage import distance_transform_edt

        self.reach = round(_REACH_MM / _GRID_MM)
        self.n_points = 0
        vertebrae = apply_affine(spine.affine, np.argwhere(np.asanyarray(spine.dataobj) > 0))
        if not len(vertebrae):
            return
        # The last look reaches four steps farther; the outermost voxels have half a width.
        margin = (self.reach + 4) * _GRID_MM + _NEAR_MM + _widths(spine) / 2
        low, high = vertebrae.min(0) - margin, vertebrae.max(0) + margin
        shape = np.ceil((high - low) / _GRID_MM).astype(int) + 1
        grid = np.diag([_GRID_MM, _GRID_MM, _GRID_MM, 1.0])
        grid[:3, 3] = low
        cut = [_cut(image, low, high) for image in (other, *scans)]
        if any(min(image.shape) == 0 for image in cut):
            return
        widths = np.maximum(_widths(cut[0]), _widths(cut[1]))
        (fixed, seen), *moving = (_sampled(_blurred(each, widths), grid, shape) for each in cut)
        labels, inside = _sampled(spine, grid, shape, order=0)
        far = distance_transform_edt(~(inside & (labels > 0)), sampling=_GRID_MM) > _NEAR_MM
        points = np.argwhere(~far & seen & moving[0][1])
        self.n_points = len(points)
        if not self.n_points:
            return
        at = tuple(points.T)
        self._strides = np.array([shape[1] * shape[2], shape[2], 1])
        self._places = points @ self._strides
        self._fixed = _classes(fixed, fixed[at])[at]
        self._moving = [
            np.where(known, _classes(data, data[at]), -1).ravel() for data, known in moving
        ]
        self._n_parts = max(2, round(np.ptp(points[:, 2]) * _GRID_MM / _PART_MM))
        self._part = np.empty(len(points), int)
        order = np.argsort(points[:, 2], kind='stable')
        self._part[order] = np.arange(len(points)) * self._n_parts // len(points)
        self._sparse = (points % 2 == 0).all(1)

    def similarity(
        self, shifts: np.ndarray, *, sparse: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return similarity and number of points, (shifts, parts), averaged over the images.

        Parameters
        ----------
        shifts
            (n, 3) in steps of the grid.
        sparse
            Whether every eighth point is enough.
        """
        taken = self._sparse if sparse else slice(None)
        places = self._places[taken]
        code = (self._part[taken] * _BINS + self._fixed[taken]) * _BINS
        scores, counts = np.zeros((2, len(shifts), self._n_parts))
        for moving in self._moving:
            for k, offset in enumerate(shifts @ self._strides):
                classes = moving[places + offset]
                known = classes >= 0
                joint = np.bincount(
                    (code + classes)[known], minlength=self._n_parts * _BINS**2
                ).reshape(self._n_parts, _BINS, _BINS)
                scores[k] += _normalised_information(joint) / len(self._moving)
                counts[k] = joint.sum((1, 2))
        # What is half outside of the scan says little about this shift.
        counts[counts < 0.5 * counts.max(0)] = 0
        return scores * (counts > 0), counts


def _normalised_information(joint: np.ndarray) -> np.ndarray:
    """Return (H(a) + H(b)) / H(a, b) of (n, bins, bins) histograms, 0 of empty ones."""
    shares = joint / np.maximum(joint.sum((1, 2)), 1)[:, None, None]
    both = _entropy(shares.reshape(len(joint), -1))
    return (_entropy(shares.sum(1)) + _entropy(shares.sum(2))) / np.maximum(both, 1e-9)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)


def _mean(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return (scores * counts).sum(1) / np.maximum(counts.sum(1), 1)


def _peak(scores: np.ndarray) -> np.ndarray:
    """Return where the maximum of 5 x 5 x 5 samples lies against the middle one.

    Between samples it is that of the parabola through three of them.
    """
    cube = scores.reshape(5, 5, 5)
    top = np.array(np.unravel_index(int(cube.argmax()), cube.shape))
    place = top - 2.0
    for axis in range(3):
        if 0 < top[axis] < 4:
            line = np.moveaxis(cube, axis, 0)[:, *np.delete(top, axis)]
            left, middle, right = line[top[axis] - 1 : top[axis] + 2]
            bend = left - 2 * middle + right
            place[axis] += 0.5 * (left - right) / bend if bend < 0 else 0
    return place


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.round(values, 2).tolist()
    return x, y, z


def _widths(image: Nifti1Image) -> np.ndarray:
    """Return the width of a voxel along each world axis, mm."""
    return np.abs(image.affine[:3, :3]).max(1)


def _cut(image: Nifti1Image, low: np.ndarray, high: np.ndarray) -> Nifti1Image:
    """Return the part of an image that holds a box of the world, mm."""
    corners = np.array(list(product(*zip(low, high, strict=True))))
    at = apply_affine(np.linalg.inv(image.affine), corners)
    first = np.clip(np.floor(at.min(0)).astype(int), 0, image.shape)
    last = np.clip(np.ceil(at.max(0)).astype(int) + 1, 0, image.shape)
    box = tuple(slice(a, max(a, b)) for a, b in zip(first, last, strict=True))
    origin = image.affine.copy()
    origin[:3, 3] = apply_affine(image.affine, first)
    return Nifti1Image(np.asarray(image.dataobj[box], np.float32), origin)


def _blurred(image: Nifti1Image, widths_mm: np.ndarray) -> Nifti1Image:
    """Blur an image as if its voxels had these widths along the world axes."""
    from scipy.ndimage import gaussian_filter

    own = voxel_sizes(image.affine)
    wanted = np.maximum(widths_mm[np.abs(image.affine[:3, :3]).argmax(0)], _GRID_MM)
    # A box of this width has a variance of its square / 12.
    sigma = np.sqrt(np.maximum(wanted**2 - own**2, 0) / 12) / own
    data = np.nan_to_num(np.asarray(image.dataobj))
    return Nifti1Image(gaussian_filter(data, sigma, mode='nearest'), image.affine)


def _sampled(
    image: Nifti1Image, grid: np.ndarray, shape: np.ndarray, order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image on a grid, and where the grid lies in it."""
    from scipy.ndimage import affine_transform

    to_voxel = np.linalg.inv(image.affine) @ grid
    data = affine_transform(
        np.asanyarray(image.dataobj),
        to_voxel,
        output_shape=tuple(shape),
        order=order,
        mode='nearest',
    )
    at = apply_affine(to_voxel, np.moveaxis(np.indices(shape.tolist()), 0, -1))
    return data, ((at >= -0.5) & (at <= np.array(image.shape) - 0.5)).all(-1)


def _classes(data: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Return the class of each value; the edges part the typical values in equal numbers."""
    edges = np.quantile(typical, np.arange(1, _BINS) / _BINS)
    return np.searchsorted(edges, data)
