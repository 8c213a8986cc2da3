"""A scan aligned with its atlas: transforms, what they carry over, and whether to trust them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine

from bids_muscle.anatomy.levels import VERTEBRAE
from bids_muscle.imaging.atlas import Atlas, classes_of
from bids_muscle.imaging.counting import Count, count_discs
from bids_muscle.imaging.deformation import Warp, find_warp, painted
from bids_muscle.imaging.levels import Boundary, likeliest, slice_probabilities
from bids_muscle.imaging.registration import (
    PointMatch,
    find_affine,
    normalised,
    scan_points,
    stretch_of,
)

#: Below this mean Dice of atlas muscles and segmented muscles an alignment is not trusted. By
#: muscles alone real necks have 0.32 to 0.47 and levels up to half a vertebra off.
MIN_OVERLAP = {'lumbar': 0.4, 'cervical': 0.5}
#: The same where discs were seen: they say where levels meet, muscles only which ones.
MIN_OVERLAP_COUNTED = {'lumbar': 0.4, 'cervical': 0.3}
#: Volumes of people differ from their atlas by no more than this factor.
_MAX_GROWTH = 3.0
_MAX_TURN_DEG = 45.0
_MIN_HEIGHT_MM = 10.0
#: From this ratio of the stretches along two axes on, a scan was made to fit something else; real
#: scans aligned to within half a level have 1.0 to 1.25.
_MAX_STRETCH = 1.4
#: Heights of a level (a vertebra and a disc), mm, from children to tall people.
_LEVEL_MM = {'C': (9.0, 25.0), 'T': (10.0, 40.0), 'L': (18.0, 45.0)}
#: Standard deviation of a border of levels about the disc of a real person, as a share of the
#: height of a level: with it, slices of real backs are right as often as their confidence says
#: (tests/real/borders.tsv).
_MISFIT = 0.3
_NO_LEVEL = 'its position along the spine is too uncertain to assign levels to slices'
#: How far along the body the place of a scan is doubted, in what steps, mm.
_DOUBT_MM, _DOUBT_STEP_MM = 60.0, 3.0

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
    counts
        Ways to name the discs that were seen, the most probable first, whose affine is `matrix`;
        empty where there were too few.
    """

    matrix: np.ndarray
    contrasts: tuple[str, str]
    information_nats: float
    overlap: float
    shifts: tuple[tuple[float, float], ...]
    reasons: tuple[str, ...]
    warp: Warp | None = None
    inverse_warp: Warp | None = None
    counts: tuple[Count, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether no check found a reason against it."""
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
    discs_mm: np.ndarray | None = None,
    support: np.ndarray | None = None,
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
    discs_mm
        (N, 3) middles of the discs that are seen in the scan; the levels then meet at these.
    support
        (N,) share of the views of the scan that see each disc; None for all.
    deformable
        Add SyN (Avants et al. 2008, doi:10.1016/j.media.2007.06.004) after the affine.
    """
    own, atlas_contrast = atlas.nearest_contrast(images)
    classes = classes_of(np.asarray(labels.dataobj), atlas.table)
    inside = np.asarray(mask.dataobj) > 0
    points = scan_points(images[own], classes, inside)
    target = atlas.target(atlas_contrast)
    if len(points.classes) < 50:
        nowhere = ('the scan shows no body',)
        return Alignment(np.eye(4), (own, atlas_contrast), 0.0, 0.0, ((0.0, 1.0),), nowhere)
    matrix = find_affine(points, target)
    fit, centre = PointMatch(points, target), points.ras_mm.mean(axis=0)
    counts: tuple[Count, ...] = ()
    if discs_mm is not None:
        spread_mm = _misfit_mm(matrix, atlas)
        # Water and fat together say more surely which names are right than either.
        fits = [fit]
        for name in images:
            if name in atlas.images and name != own:
                intensity = np.asarray(atlas.images[name].dataobj)
                seen = scan_points(images[name], classes, inside)
                fits.append(PointMatch(seen, replace(target, intensity=intensity)))
        seen_in = np.ones(len(discs_mm)) if support is None else support
        counts = count_discs(fits, matrix, atlas.boundaries, discs_mm, seen_in, centre, spread_mm)
    if counts:
        matrix = counts[0].matrix
    alignment = Alignment(
        matrix=matrix,
        contrasts=(own, atlas_contrast),
        information_nats=fit.information(matrix),
        overlap=0.0,
        shifts=((0.0, 1.0),) if counts else _doubts(fit, matrix, atlas, centre),
        reasons=(),
        counts=counts,
    )
    if deformable:
        alignment = deform(alignment, images[own], inside, classes, atlas)
    carried = classes_of(labels_in_scan(alignment, atlas, images[own]), atlas.table)
    alignment = replace(alignment, overlap=_mean_dice(carried, classes))
    least = MIN_OVERLAP_COUNTED if counts else MIN_OVERLAP
    reasons = (
        *_doubtful(alignment, classes, points.height_mm, least[atlas.region]),
        *_odd_levels(alignment, atlas),
    )
    alignment = replace(alignment, reasons=reasons)
    shares = level_probabilities(alignment, atlas, labels)
    if shares and not any(likeliest(shares, labels.shape[2], 'atlas').names):
        alignment = replace(alignment, reasons=(_NO_LEVEL,))
    return alignment


def deform(
    alignment: Alignment, img: Nifti1Image, mask: np.ndarray, classes: np.ndarray, atlas: Atlas
) -> Alignment:
    """Add SyN to an affine alignment.

    Parameters
    ----------
    alignment
        The affine alignment.
    img, mask, classes
        (X, Y, Z) image of the scan, its body, and the position of its muscles in the label table
        plus 1.
    atlas
        The atlas.
    """
    scaled = normalised(np.asarray(img.dataobj, np.float32), mask).astype(np.float32)
    intensity = image_in_atlas(alignment, atlas, Nifti1Image(scaled, img.affine))
    muscles = image_in_atlas(alignment, atlas, Nifti1Image(classes, img.affine), order=0)
    seen = image_in_atlas(
        alignment, atlas, Nifti1Image(np.ones(classes.shape, np.uint8), img.affine)
    )
    fixed = painted(
        np.asarray(atlas.images[alignment.contrasts[1]].dataobj),
        classes_of(atlas.labels, atlas.table),
    )
    moving = painted(np.asarray(intensity.dataobj), np.asarray(muscles.dataobj))
    # What the scan does not show must not be made to fit.
    unseen = np.asarray(seen.dataobj) == 0
    moving[unseen] = fixed[unseen]
    warp, inverse = find_warp(fixed, moving, atlas.affine)
    return replace(alignment, warp=warp, inverse_warp=inverse)


def _doubts(
    fit: PointMatch, matrix: np.ndarray, atlas: Atlas, centre: np.ndarray
) -> tuple[tuple[float, float], ...]:
    """Return how probable other heights are; the muscles stay in the middle of the atlas's."""
    centre_mm = apply_affine(matrix, centre)
    middle = _middle_line(atlas)
    shifts = np.arange(-_DOUBT_MM, _DOUBT_MM + 0.1, _DOUBT_STEP_MM)
    scores = []
    for shift in shifts:
        moved = np.eye(4)
        moved[:2, 3] = middle(centre_mm[2] + shift) - middle(centre_mm[2])
        moved[2, 3] = shift
        scores.append(fit.information(moved @ matrix))
    weights = np.exp(fit.certainty * (np.array(scores) - max(scores)))
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


def _doubtful(
    alignment: Alignment, classes: np.ndarray, height_mm: float, least: float
) -> Iterator[str]:
    if not classes.any():
        yield 'no muscle was segmented, so the position of the scan cannot be confirmed'
    elif alignment.overlap < least:
        yield (
            'the overlap between the muscles of the atlas and the scan is too low (Dice '
            f'{alignment.overlap:.2f}, less than {least})'
        )
    if height_mm < _MIN_HEIGHT_MM:
        yield (
            f'the scan is only {height_mm:.0f} mm high, too low to find its position along the '
            'spine'
        )
    growth = volume_factor(alignment.matrix)
    if not 1 / _MAX_GROWTH <= growth <= _MAX_GROWTH:
        yield f'the scan would have to be scaled {growth:.1f}-fold'
    stretch = stretch_of(alignment.matrix)
    if stretch > _MAX_STRETCH:
        yield f'the scan would have to be stretched {stretch:.1f} times more along one axis'
    turn = _turn_deg(alignment.matrix)
    if turn > _MAX_TURN_DEG:
        yield f'the scan would have to be rotated by {turn:.0f} degrees'


def _odd_levels(found: Alignment, atlas: Atlas) -> Iterator[str]:
    """Return which level would be too high or too low for a person, or upside down."""
    borders = _borders(found, atlas)
    for above, below in pairwise(borders):
        low, high = _LEVEL_MM[above.lower[0]]
        way = np.subtract(above.ras_mm, below.ras_mm)
        height = float(np.copysign(np.linalg.norm(way), way[2]))
        if not low <= height <= high:
            yield (
                f'{above.lower} would be {height:.0f} mm high from disc to disc, not {low:.0f} to '
                f'{high:.0f}'
            )
            return


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
    mapping: Mapped | np.ndarray,
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
        From mm of the other grid to mm of the array; an affine as its matrix (4, 4), which is
        faster.
    order
        1 for images, 0 for label maps.

    Returns
    -------
    numpy.ndarray
        Of the type of `data`, 0 where it does not reach.
    """
    from scipy import ndimage

    to_voxel = np.linalg.inv(affine)
    if not callable(mapping):
        return ndimage.affine_transform(
            data, to_voxel @ mapping @ onto, output_shape=tuple(shape), order=order
        )
    out = np.zeros(tuple(shape), data.dtype)
    plane = np.indices((shape[0], shape[1], 1)).reshape(3, -1).T
    for k in range(shape[2]):
        places = mapping(apply_affine(onto, plane + np.array([0, 0, k])))
        voxels = apply_affine(to_voxel, places).T
        out[:, :, k] = ndimage.map_coordinates(data, voxels, order=order).reshape(out.shape[:2])
    return out


def labels_in_scan(found: Alignment, atlas: Atlas, scan: Nifti1Image) -> np.ndarray:
    """Return the atlas's label map on the grid of the scan, (X, Y, Z) uint8."""
    way = found.to_atlas if found.inverse_warp else found.matrix
    return resample(atlas.labels, atlas.affine, scan.shape, scan.affine, way, order=0)


def template_in_scan(found: Alignment, atlas: Atlas, scan: Nifti1Image) -> np.ndarray:
    """Return the image of the atlas that was aligned, on the grid of the scan, (X, Y, Z)."""
    template = np.asarray(atlas.images[found.contrasts[1]].dataobj, np.float32)
    way = found.to_atlas if found.inverse_warp else found.matrix
    return resample(template, atlas.affine, scan.shape, scan.affine, way, order=1)


def image_in_atlas(
    found: Alignment, atlas: Atlas, img: Nifti1Image, *, order: int = 1
) -> Nifti1Image:
    """Return an image (order 1) or label map (order 0) of the scan on the grid of the atlas."""
    data, shape = np.asarray(img.dataobj), next(iter(atlas.images.values())).shape
    way = found.to_scan if found.warp else np.linalg.inv(found.matrix)
    moved = resample(data, img.affine, shape, atlas.affine, way, order=order)
    return Nifti1Image(moved, atlas.affine)


def level_probabilities(
    found: Alignment, atlas: Atlas, scan: Nifti1Image
) -> dict[str, np.ndarray]:
    """Return the probability of each vertebral level at each slice, by level.

    The spread between people comes from the atlas and from real scans (`_MISFIT`), the doubt about
    the place of the scan from :attr:`Alignment.shifts`. Empty where the alignment is not trusted.
    """
    if not found.trusted or not atlas.boundaries:
        return {}
    if found.counts:
        return _counted(found.counts, scan)
    # A scan that lies higher in the atlas has its borders lower.
    scale = np.cbrt(volume_factor(found.matrix))
    shifts = [(-shift / scale, weight) for shift, weight in found.shifts]
    return slice_probabilities(_borders(found, atlas), scan.affine, scan.shape[2], shifts)


def _borders(alignment: Alignment, atlas: Atlas) -> list[Boundary]:
    """Return the borders of the levels in the scan from top to bottom, with their doubt.

    How people in the atlas differ is not all: muscles do not tell more exactly where vertebrae
    are.
    """
    if not atlas.boundaries:
        return []
    if alignment.counts:
        return list(alignment.counts[0].boundaries)
    places = alignment.to_scan(np.array([border.ras_mm for border in atlas.boundaries]))
    scale = np.cbrt(volume_factor(alignment.matrix))
    misfit = _misfit_mm(alignment.matrix, atlas)
    return [
        Boundary(
            border.upper,
            border.lower,
            tuple(ras_mm.tolist()),
            float(np.hypot(border.sd_mm / scale, misfit)),
        )
        for border, ras_mm in zip(atlas.boundaries, places, strict=True)
    ]


def _misfit_mm(matrix: np.ndarray, atlas: Atlas) -> float:
    """Return how far real vertebrae are from where muscles put them, as a standard deviation."""
    if len(atlas.boundaries) < 2:
        return 0.0
    places = apply_affine(
        np.linalg.inv(matrix), np.array([each.ras_mm for each in atlas.boundaries])
    )
    return _MISFIT * float(np.linalg.norm(np.diff(places, axis=0), axis=1).mean())


def _counted(counts: Sequence[Count], scan: Nifti1Image) -> dict[str, np.ndarray]:
    """Return the probability of each level at each slice over all ways to name the discs."""
    total: dict[str, np.ndarray] = {}
    for count in counts:
        shares = slice_probabilities(count.boundaries, scan.affine, scan.shape[2])
        for name, share in shares.items():
            total[name] = total.get(name, 0.0) + count.probability * share
    return {name: total[name] for name in VERTEBRAE if name in total}
