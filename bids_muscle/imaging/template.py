"""Making an atlas: people aligned with their average, which is then made anew.

First by affines, then by SyN with an update of the shape, as the template building of ANTs does
(Avants et al. 2010, doi:10.1016/j.neuroimage.2009.09.062).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import BadDataError
from bids_muscle.imaging.alignment import Alignment, Mapped, deform, resample
from bids_muscle.imaging.atlas import Atlas, classes_of
from bids_muscle.imaging.deformation import Warp
from bids_muscle.imaging.levels import Boundary
from bids_muscle.imaging.registration import Target, find_affine, normalised, scan_points

#: A height belongs to the atlas where at least this share of the people was scanned.
_LEAST_SHARE = 0.5
#: The height of a boundary is never better known than this, mm.
_LEAST_SD_MM = 1.5


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One labelled scan, everything in canonical voxel order on one grid.

    Parameters
    ----------
    images
        Without bias field, by contrast.
    labels
        (X, Y, Z) numbers of the label table.
    mask
        (X, Y, Z) bool, the body.
    boundaries
        Where vertebrae meet, in the world of the scan; may be empty.
    """

    images: Mapping[str, Nifti1Image]
    labels: np.ndarray
    mask: np.ndarray
    boundaries: tuple[Boundary, ...] = ()

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel index to RAS+ mm."""
        return np.asarray(next(iter(self.images.values())).affine)


def build_atlas(
    cases: Sequence[LabelledScan],
    region: str,
    name: str,
    *,
    spacing_mm: float = 2.5,
    rounds: int = 2,
    deformable_rounds: int = 0,
) -> Atlas:
    """Average labelled scans.

    The person whose muscles are of median volume is the first target; in each round every scan is
    aligned with the target by an affine, the mean of all affines is taken out, so that the atlas
    has the mean size and posture, and the average is the next target. In the deformable rounds
    SyN follows the affine, and the mean of all displacements is taken out, so that the atlas has
    the mean shape. The spread of the levels is always what an affine leaves, since scans are
    aligned by an affine unless asked otherwise.

    Parameters
    ----------
    cases
        At least two.
    region, name
        Of the atlas.
    spacing_mm
        Voxel edge.
    rounds, deformable_rounds
        Number of averages with affines, and of those with SyN after that.

    Raises
    ------
    BadDataError
        If there are fewer than two scans, or one has no muscle.
    """
    table = load_label_table(region)
    if len(cases) < 2 or not all(
        np.isin(case.labels, list(table.by_index)).any() for case in cases
    ):
        raise BadDataError(
            f'An atlas needs at least two scans with {region} muscles in their label maps.',
            'Check --seg and the label maps.',
        )
    volumes = [np.count_nonzero(case.labels) * _voxel_mm3(case.affine) for case in cases]
    first = cases[int(np.argsort(volumes, kind='stable')[len(cases) // 2])]
    grid = _grid(first, spacing_mm)
    places = [_Place(np.eye(4))]
    atlas = _average([first], places, grid, region, name)
    for _ in range(rounds):
        places = [_Place(matrix) for matrix in _without_mean(_align(cases, atlas))]
        atlas = _average(cases, places, grid, region, name)
    for _ in range(deformable_rounds):
        places = _deformed(cases, places, atlas)
        atlas = _average(cases, places, grid, region, name)
    return atlas


@dataclass(frozen=True, eq=False)
class _Place:
    """How a scan lies in the atlas: an affine, and after that SyN without the mean of all."""

    matrix: np.ndarray
    found: Alignment | None = None
    mean: Warp | None = None

    @property
    def to_scan(self) -> Mapped:
        """From mm in the atlas to mm in the scan."""
        if self.found is None or self.mean is None:
            back = np.linalg.inv(self.matrix)
            return lambda points: apply_affine(back, points)
        found, mean = self.found, self.mean
        return lambda points: found.to_scan(2 * points - mean(points))

    def to_atlas(self, points_mm: np.ndarray) -> np.ndarray:
        """From mm in the scan to mm in the atlas."""
        if self.found is None or self.mean is None:
            return apply_affine(self.matrix, points_mm)
        return self.mean(self.found.to_atlas(points_mm))


def _deformed(
    cases: Sequence[LabelledScan], places: Sequence[_Place], atlas: Atlas
) -> list[_Place]:
    found = []
    for case, place in zip(cases, places, strict=True):
        contrasts = atlas.nearest_contrast(case.images)
        stiff = Alignment(place.matrix, contrasts, 0.0, 0.0, ((0.0, 1.0),), ())
        classes = classes_of(case.labels, atlas.table)
        found.append(deform(stiff, case.images[contrasts[0]], case.mask, classes, atlas))
    moved = [each.warp.displacement_mm for each in found if each.warp]
    mean = Warp(np.mean(moved, axis=0), atlas.affine)
    return [_Place(place.matrix, each, mean) for place, each in zip(places, found, strict=True)]


def _voxel_mm3(affine: np.ndarray) -> float:
    return float(np.prod(voxel_sizes(affine)))


def _grid(case: LabelledScan, spacing_mm: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Upright grid about the body of a scan, with its centre at 0 mm."""
    inside = apply_affine(case.affine, np.argwhere(case.mask))
    low, high = inside.min(axis=0) - 2 * spacing_mm, inside.max(axis=0) + 2 * spacing_mm
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1])
    affine[:3, 3] = low
    return shape, affine


def _align(cases: Sequence[LabelledScan], atlas: Atlas) -> list[np.ndarray]:
    targets: dict[str, Target] = {}
    matrices = []
    for case in cases:
        own, other = atlas.nearest_contrast(case.images)
        if other not in targets:
            targets[other] = atlas.target(other)
        points = scan_points(case.images[own], classes_of(case.labels, atlas.table), case.mask)
        matrices.append(find_affine(points, targets[other]))
    return matrices


def _without_mean(matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    from scipy.linalg import expm, logm

    mean = np.mean([np.real(logm(matrix)) for matrix in matrices], axis=0)
    return [expm(-mean) @ matrix for matrix in matrices]


def _average(
    cases: Sequence[LabelledScan],
    places: Sequence[_Place],
    grid: tuple[tuple[int, ...], np.ndarray],
    region: str,
    name: str,
) -> Atlas:
    shape, affine = grid
    table = load_label_table(region)
    counts = np.zeros((len(table), *shape), np.float32)
    seen = np.zeros(shape, np.float32)
    images: dict[str, list[np.ndarray]] = {}
    for case, place in zip(cases, places, strict=True):

        def moved(
            data: np.ndarray, order: int, case: LabelledScan = case, place: _Place = place
        ) -> np.ndarray:
            return resample(data, case.affine, shape, affine, place.to_scan, order=order)

        here = moved(classes_of(case.labels, table) + 1, 0)  # 0 where nothing was scanned
        seen += here > 0
        for position in range(len(table)):
            counts[position] += here == position + 2
        for contrast, img in case.images.items():
            scaled = normalised(np.asarray(img.dataobj, np.float32), case.mask)
            images.setdefault(contrast, []).append(moved(scaled.astype(np.float32), 1))
    # Only heights at which most people were scanned; in the plane, what nobody saw is air.
    share = seen.max(axis=(0, 1)) / len(cases)
    heights = np.flatnonzero(share >= _LEAST_SHARE)
    keep = slice(int(heights[0]), int(heights[-1]) + 1)
    cut = affine.copy()
    cut[:3, 3] = apply_affine(affine, [0, 0, keep.start])
    return Atlas(
        name=name,
        region=region,
        images={
            contrast: Nifti1Image(np.mean(each, axis=0)[:, :, keep].astype(np.float32), cut)
            for contrast, each in images.items()
        },
        probabilities=(counts / np.maximum(seen, 1))[..., keep],
        boundaries=_mean_boundaries(cases, places),
    )


def _mean_boundaries(
    cases: Sequence[LabelledScan], places: Sequence[_Place]
) -> tuple[Boundary, ...]:
    points: dict[tuple[str, str], list[np.ndarray]] = {}
    heights: dict[tuple[str, str], list[float]] = {}
    for case, place in zip(cases, places, strict=True):
        for boundary in case.boundaries:
            ras_mm = np.array([boundary.ras_mm])
            points.setdefault((boundary.upper, boundary.lower), []).append(
                place.to_atlas(ras_mm)[0]
            )
            stiff = apply_affine(place.matrix, ras_mm)[0]
            heights.setdefault((boundary.upper, boundary.lower), []).append(stiff[2])
    boundaries = []
    for (upper, lower), seen in points.items():
        x, y, z = np.mean(seen, axis=0).tolist()
        spread = float(np.std(heights[upper, lower], ddof=1)) if len(seen) > 1 else 0.0
        boundaries.append(Boundary(upper, lower, (x, y, z), max(spread, _LEAST_SD_MM)))
    return tuple(sorted(boundaries, key=lambda boundary: -boundary.ras_mm[2]))
