"""A scan aligned with its atlas: transforms, what they carry over, and whether to trust them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.imaging.atlas import Atlas, classes_of
from bids_muscle.imaging.deformation import Warp, find_warp, painted
from bids_muscle.imaging.levels import Boundary, slice_probabilities
from bids_muscle.imaging.registration import Fit, find_affine, normalised, scan_points

#: Below this mean Dice of atlas muscles and segmented muscles an alignment is not trusted.
MIN_OVERLAP = 0.4
#: Volumes of people differ from their atlas by no more than this factor.
_MAX_GROWTH = 3.0
_MAX_TURN_DEG = 45.0
_MIN_HEIGHT_MM = 10.0
#: How far along the body the place of a scan is doubted, in what steps, mm.
_DOUBT_MM, _DOUBT_STEP_MM = 60.0, 3.0
#: Nats of a point to units of log probability. Points are not independent; chosen so that on
#: simulated people slices named with a confidence of p are right in a share of p.
_CERTAINTY = 60.0

#: (N, 3) mm in one world to (N, 3) mm in the other.
Mapped = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a scan lies in an atlas.

    Parameters
    ----------
    matrix
        (4, 4) from mm in the scan to mm in the atlas.
    contrasts
        Contrast of the scan and of the atlas that were compared.
    information_nats
        What a point of the scan tells about its place on average.
    overlap
        Mean Dice of the muscles of the atlas and those segmented, in the scan.
    shifts
        How far (mm) the scan may lie higher in the atlas, each with its probability.
    reasons
        Why it is not to be trusted; empty if it is.
    warp, inverse_warp
        From the atlas to where the affine leads, and back; None for an affine alone.
    """

    matrix: np.ndarray
    contrasts: tuple[str, str]
    information_nats: float
    overlap: float
    shifts: tuple[tuple[float, float], ...]
    reasons: tuple[str, ...]
    warp: Warp | None = None
    inverse_warp: Warp | None = None

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def to_atlas(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points of the scan, (N, 3) mm, into the atlas."""
        moved = apply_affine(self.matrix, points_mm)
        return self.inverse_warp(moved) if self.inverse_warp else moved

    def to_scan(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points of the atlas, (N, 3) mm, into the scan."""
        moved = self.warp(points_mm) if self.warp else points_mm
        return apply_affine(np.linalg.inv(self.matrix), moved)


def volume_factor(matrix: np.ndarray) -> float:
    """Return by what a volume measured in atlas space is divided to give that of the scan.

    An area in a plane is divided by the determinant of the two axes of the plane.

    Parameters
    ----------
    matrix
        (4, 4) from mm in the scan to mm in the atlas.

    Examples
    --------
    >>> float(volume_factor(np.diag([2.0, 1.0, 1.0, 1.0])))
    2.0
    """
    return float(abs(np.linalg.det(matrix[:3, :3])))


def align_scan(
    images: Mapping[str, Nifti1Image],
    labels: Nifti1Image,
    mask: Nifti1Image,
    atlas: Atlas,
    *,
    deformable: bool = False,
) -> Alignment:
    """Align a scan with an atlas.

    Parameters
    ----------
    images
        Without bias field, by contrast, canonical; that most like one of the atlas is used.
    labels
        Label map on their grid; may be empty, then the intensities alone lead.
    mask
        The body.
    atlas
        Of the region of the scan.
    deformable
        Add SyN (Avants et al. 2008, doi:10.1016/j.media.2007.06.004) after the affine.
    """
    own, other = atlas.nearest_contrast(images)
    classes = classes_of(np.asarray(labels.dataobj), atlas.table)
    inside = np.asarray(mask.dataobj) > 0
    points = scan_points(images[own], classes, inside)
    target = atlas.target(other)
    if len(points.classes) < 50:
        nowhere = ('the scan shows no body',)
        return Alignment(np.eye(4), (own, other), 0.0, 0.0, ((0.0, 1.0),), nowhere)
    matrix = find_affine(points, target)
    fit = Fit(points, target)
    found = Alignment(
        matrix=matrix,
        contrasts=(own, other),
        information_nats=fit.information(matrix),
        overlap=0.0,
        shifts=_doubts(fit, matrix, atlas, points.ras_mm.mean(axis=0)),
        reasons=(),
    )
    if deformable:
        found = deform(found, images[own], inside, classes, atlas)
    carried = classes_of(labels_in_scan(found, atlas, images[own]), atlas.table)
    found = replace(found, overlap=_mean_dice(carried, classes))
    return replace(found, reasons=tuple(_doubtful(found, classes, points.height_mm)))


def deform(
    found: Alignment, img: Nifti1Image, mask: np.ndarray, classes: np.ndarray, atlas: Atlas
) -> Alignment:
    """Add SyN to an affine alignment.

    Parameters
    ----------
    found
        The affine alignment.
    img, mask, classes
        (X, Y, Z) image of the scan, its body, and the position of its muscles in the label table
        plus 1.
    atlas
        The atlas.
    """
    scaled = normalised(np.asarray(img.dataobj, np.float32), mask).astype(np.float32)
    intensity = image_in_atlas(found, atlas, Nifti1Image(scaled, img.affine))
    muscles = image_in_atlas(found, atlas, Nifti1Image(classes, img.affine), order=0)
    seen = image_in_atlas(found, atlas, Nifti1Image(np.ones(classes.shape, np.uint8), img.affine))
    fixed = painted(
        np.asarray(atlas.images[found.contrasts[1]].dataobj),
        classes_of(atlas.labels, atlas.table),
    )
    moving = painted(np.asarray(intensity.dataobj), np.asarray(muscles.dataobj))
    # What the scan does not show must not be made to fit.
    unseen = np.asarray(seen.dataobj) == 0
    moving[unseen] = fixed[unseen]
    warp, inverse = find_warp(fixed, moving, atlas.affine)
    return replace(found, warp=warp, inverse_warp=inverse)


def _doubts(
    fit: Fit, matrix: np.ndarray, atlas: Atlas, centre: np.ndarray
) -> tuple[tuple[float, float], ...]:
    """Return how probable other heights are; the muscles stay in the middle of the atlas's."""
    place = apply_affine(matrix, centre)
    middle = _middle_line(atlas)
    shifts = np.arange(-_DOUBT_MM, _DOUBT_MM + 0.1, _DOUBT_STEP_MM)
    scores = []
    for shift in shifts:
        moved = np.eye(4)
        moved[:2, 3] = middle(place[2] + shift) - middle(place[2])
        moved[2, 3] = shift
        scores.append(fit.information(moved @ matrix))
    weights = np.exp(_CERTAINTY * (np.array(scores) - max(scores)))
    weights /= weights.sum()
    return tuple(
        (float(shift), float(weight))
        for shift, weight in zip(shifts, weights, strict=True)
        if weight > 1e-3
    )


def _middle_line(atlas: Atlas) -> Callable[[float], np.ndarray]:
    """Return x and y of the middle of the muscles of an atlas at a height, mm."""
    places = np.argwhere(atlas.probabilities.sum(axis=0) > 0.5)
    ras = apply_affine(atlas.affine, places)
    heights = np.unique(ras[:, 2])
    means = np.array([ras[ras[:, 2] == height, :2].mean(axis=0) for height in heights])
    return lambda z: np.array([np.interp(z, heights, means[:, axis]) for axis in range(2)])


def _doubtful(found: Alignment, classes: np.ndarray, height_mm: float) -> Iterator[str]:
    if not classes.any():
        yield 'no muscle was segmented that could confirm the place of the scan'
    elif found.overlap < MIN_OVERLAP:
        yield (
            f'the muscles of the atlas and of the scan overlap with a Dice of {found.overlap:.2f} '
            f'only, less than {MIN_OVERLAP}'
        )
    if height_mm < _MIN_HEIGHT_MM:
        yield f'the scan is {height_mm:.0f} mm high, too little to tell its place along the spine'
    growth = volume_factor(found.matrix)
    if not 1 / _MAX_GROWTH <= growth <= _MAX_GROWTH:
        yield f'the scan would have to grow {growth:.1f}-fold to fit'
    turn = _turn_deg(found.matrix)
    if turn > _MAX_TURN_DEG:
        yield f'the scan would have to be turned by {turn:.0f} degrees'


def _turn_deg(matrix: np.ndarray) -> float:
    from scipy.linalg import polar
    from scipy.spatial.transform import Rotation

    rotation, _ = polar(matrix[:3, :3])
    return float(np.rad2deg(Rotation.from_matrix(rotation).magnitude()))


def _mean_dice(one: np.ndarray, other: np.ndarray) -> float:
    """Mean Dice over the muscles that are in both or in either."""
    n = int(max(one.max(), other.max())) + 1
    same = np.bincount(one[one == other], minlength=n)
    sizes = np.bincount(one.ravel(), minlength=n) + np.bincount(other.ravel(), minlength=n)
    there = sizes[1:] > 0
    return float(np.mean(2 * same[1:][there] / sizes[1:][there])) if there.any() else 0.0


def resample(
    data: np.ndarray,
    affine: np.ndarray,
    shape: Sequence[int],
    onto: np.ndarray,
    mapping: Mapped,
    *,
    order: int,
) -> np.ndarray:
    """Bring an array onto another grid through a mapping of points.

    Parameters
    ----------
    data, affine
        (X, Y, Z) and its voxel index to mm.
    shape, onto
        The other grid and its affine.
    mapping
        From mm of the other grid to mm of the array.
    order
        1 for images, 0 for label maps.

    Returns
    -------
    numpy.ndarray
        Of the type of `data`, 0 where it does not reach.
    """
    from scipy import ndimage

    out = np.zeros(tuple(shape), data.dtype)
    to_voxel = np.linalg.inv(affine)
    plane = np.indices((shape[0], shape[1], 1)).reshape(3, -1).T
    for k in range(shape[2]):
        places = mapping(apply_affine(onto, plane + np.array([0, 0, k])))
        voxels = apply_affine(to_voxel, places).T
        out[:, :, k] = ndimage.map_coordinates(data, voxels, order=order).reshape(out.shape[:2])
    return out


def labels_in_scan(found: Alignment, atlas: Atlas, scan: Nifti1Image) -> np.ndarray:
    """Return the atlas's label map on the grid of the scan, (X, Y, Z) uint8."""
    return resample(atlas.labels, atlas.affine, scan.shape, scan.affine, found.to_atlas, order=0)


def template_in_scan(found: Alignment, atlas: Atlas, scan: Nifti1Image) -> np.ndarray:
    """Return the image of the atlas that was aligned, on the grid of the scan, (X, Y, Z)."""
    template = np.asarray(atlas.images[found.contrasts[1]].dataobj, np.float32)
    return resample(template, atlas.affine, scan.shape, scan.affine, found.to_atlas, order=1)


def image_in_atlas(
    found: Alignment, atlas: Atlas, img: Nifti1Image, *, order: int = 1
) -> Nifti1Image:
    """Return an image (order 1) or label map (order 0) of the scan on the grid of the atlas."""
    data, shape = np.asarray(img.dataobj), next(iter(atlas.images.values())).shape
    moved = resample(data, img.affine, shape, atlas.affine, found.to_scan, order=order)
    return Nifti1Image(moved, atlas.affine)


def itk_affine(matrix: np.ndarray) -> str:
    """Return an affine as a transform file of ITK, which resamples the scan onto the atlas.

    Parameters
    ----------
    matrix
        (4, 4) from RAS+ mm in the scan to RAS+ mm in the atlas. ITK wants the way back, in LPS+.
    """
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    back = flip @ np.linalg.inv(matrix) @ flip
    numbers = ' '.join(f'{value:.9g}' for value in (*back[:3, :3].ravel(), *back[:3, 3]))
    return (
        '#Insight Transform File V1.0\n#Transform 0\n'
        'Transform: AffineTransform_double_3_3\n'
        f'Parameters: {numbers}\nFixedParameters: 0 0 0\n'
    )


def itk_field(found: Alignment, atlas: Atlas) -> Nifti1Image:
    """Return the whole transform as a displacement field of ITK on the grid of the atlas."""
    shape = next(iter(atlas.images.values())).shape
    points = apply_affine(atlas.affine, np.indices(shape).reshape(3, -1).T)
    moved = (found.to_scan(points) - points) * (-1, -1, 1)
    field = Nifti1Image(moved.reshape(*shape, 1, 3).astype(np.float32), atlas.affine)
    field.header.set_intent('vector')
    return field


def level_probabilities(
    found: Alignment, atlas: Atlas, scan: Nifti1Image
) -> dict[str, np.ndarray]:
    """Return the probability of each vertebral level at each slice, by level.

    The spread between people comes from the atlas, the doubt about the place of the scan from
    :attr:`Alignment.shifts`. Empty where the alignment is not trusted.
    """
    if not found.trusted or not atlas.boundaries:
        return {}
    places = found.to_scan(np.array([each.ras_mm for each in atlas.boundaries]))
    scale = np.cbrt(volume_factor(found.matrix))
    boundaries = [
        Boundary(each.upper, each.lower, tuple(place.tolist()), each.sd_mm / scale)
        for each, place in zip(atlas.boundaries, places, strict=True)
    ]
    # A scan that lies higher in the atlas has its boundaries lower.
    shifts = [(-shift / scale, weight) for shift, weight in found.shifts]
    return slice_probabilities(boundaries, scan.affine, scan.shape[2], shifts)


def axial_slices(
    found: Alignment, atlas: Atlas, img: Nifti1Image, *, order: int = 1, size: int = 256
) -> Nifti1Image:
    """Resample to axial slices of `size` x `size` pixels of 1 mm in atlas space.

    The preprocessing of Xia et al. 2019: after bias correction and linear registration, each slice
    is an image of its own for a two-dimensional network. Slices are those of the atlas; the plane
    is centred on that of the atlas.

    Parameters
    ----------
    found
        The alignment.
    atlas
        The atlas.
    img
        Image (order 1) or label map (order 0) of the scan.

    Returns
    -------
    Nifti1Image
        (size, size, Z).
    """
    shape = next(iter(atlas.images.values())).shape
    height_mm = voxel_sizes(atlas.affine)[2]
    centre = apply_affine(atlas.affine, [(shape[0] - 1) / 2, (shape[1] - 1) / 2, 0])
    onto = np.diag([1.0, 1.0, height_mm, 1.0])
    onto[:3, 3] = centre - [(size - 1) / 2, (size - 1) / 2, 0]
    data = np.asarray(img.dataobj)
    moved = resample(data, img.affine, (size, size, shape[2]), onto, found.to_scan, order=order)
    return Nifti1Image(moved, onto)
