"""Making an atlas: people aligned with their average, which is then made anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import BadDataError
from bids_muscle.imaging.atlas import Atlas, classes_of
from bids_muscle.imaging.levels import Boundary
from bids_muscle.imaging.registration import Target, find_affine, normalised, scan_points

#: A height belongs to the atlas where at least this share of the people was scanned.
_LEAST_SHARE = 0.5
#: The height of a boundary is never better known than this, mm.
_LEAST_SD_MM = 1.5


@dataclass(frozen=True, eq=False)
class Case:
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
    cases: Sequence[Case], region: str, name: str, *, spacing_mm: float = 2.5, rounds: int = 2
) -> Atlas:
    """Average labelled scans.

    The person whose muscles are of median volume is the first target; in each round every scan is
    aligned with the target by an affine, the mean of all affines is taken out, so that the atlas
    has the mean size and posture, and the average is the next target. What an affine leaves of
    the differences between people is what the probabilities and the spread of the levels show.

    Parameters
    ----------
    cases
        At least two.
    region, name
        Of the atlas.
    spacing_mm
        Voxel edge.
    rounds
        Number of averages.

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
    atlas = _average([first], [np.eye(4)], grid, region, name)
    for _ in range(rounds):
        matrices = _without_mean(_align(cases, atlas))
        atlas = _average(cases, matrices, grid, region, name)
    return atlas


def _voxel_mm3(affine: np.ndarray) -> float:
    return float(np.prod(voxel_sizes(affine)))


def _grid(case: Case, spacing_mm: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Upright grid about the body of a scan, with its centre at 0 mm."""
    inside = apply_affine(case.affine, np.argwhere(case.mask))
    low, high = inside.min(axis=0) - 2 * spacing_mm, inside.max(axis=0) + 2 * spacing_mm
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing_mm))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1])
    affine[:3, 3] = low
    return shape, affine


def _align(cases: Sequence[Case], atlas: Atlas) -> list[np.ndarray]:
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
    cases: Sequence[Case],
    matrices: Sequence[np.ndarray],
    grid: tuple[tuple[int, ...], np.ndarray],
    region: str,
    name: str,
) -> Atlas:
    from scipy import ndimage

    shape, affine = grid
    table = load_label_table(region)
    counts = np.zeros((len(table), *shape), np.float32)
    seen = np.zeros(shape, np.float32)
    images: dict[str, list[np.ndarray]] = {}
    for case, matrix in zip(cases, matrices, strict=True):
        # Voxel of the atlas -> voxel of the scan.
        back = np.linalg.inv(matrix @ case.affine) @ affine
        classes = classes_of(case.labels, table)

        def moved(
            data: np.ndarray, order: int, cval: float, back: np.ndarray = back
        ) -> np.ndarray:
            return ndimage.affine_transform(data, back, output_shape=shape, order=order, cval=cval)

        here = moved(classes, 0, -1)
        seen += here >= 0
        for position in range(len(table)):
            counts[position] += here == position + 1
        for contrast, img in case.images.items():
            scaled = normalised(np.asarray(img.dataobj, np.float32), case.mask)
            images.setdefault(contrast, []).append(moved(scaled.astype(np.float32), 1, 0.0))
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
        boundaries=_mean_boundaries(cases, matrices),
    )


def _mean_boundaries(
    cases: Sequence[Case], matrices: Sequence[np.ndarray]
) -> tuple[Boundary, ...]:
    places: dict[tuple[str, str], list[np.ndarray]] = {}
    for case, matrix in zip(cases, matrices, strict=True):
        for each in case.boundaries:
            place = apply_affine(matrix, each.ras_mm)
            places.setdefault((each.upper, each.lower), []).append(place)
    found = []
    for (upper, lower), seen in places.items():
        x, y, z = np.mean(seen, axis=0).tolist()
        spread = float(np.std([place[2] for place in seen], ddof=1)) if len(seen) > 1 else 0.0
        found.append(Boundary(upper, lower, (x, y, z), max(spread, _LEAST_SD_MM)))
    return tuple(sorted(found, key=lambda each: -each.ras_mm[2]))
