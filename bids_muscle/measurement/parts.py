"""Parts of one body, each an image of its own, put together on one grid to be measured as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.errors import BadDataError
from bids_muscle.imaging.levels import VERTEBRAE

#: No vertebra with its disc is higher than this, mm: more of one level means two vertebrae.
MAX_LEVEL_MM = 55.0
#: Least number of muscle voxels for the intensity scale of a part.
_MIN_SCALED = 100
#: Muscle without much fat, for the scale of a part: this percentile of its brightness.
_LEAN_PCT = 25.0
#: More voxels than this say that the headers put the parts far from each other.
_MAX_VOXELS = 400e6
#: Signals that share a scale, and how much that may differ before it is made the same.
_ONE_SCALE = ((('water', 'fat'), 1.5), (('intensity',), 1.0))
_BOX = np.array(list(np.ndindex(2, 2, 2)))


@dataclass(frozen=True)
class Part:
    """One part.

    Parameters
    ----------
    labels
        (X, Y, Z) label map.
    signals
        Images on the grid of `labels` by name, as
        :func:`bids_muscle.measurement.table.measure_scan` takes them, and ``swap``.
    levels
        Vertebral level of each axial slice, or None.
    """

    labels: Nifti1Image
    signals: Mapping[str, Nifti1Image]
    levels: SliceLevels | None = None


@dataclass(frozen=True)
class Joined:
    """All parts on one grid.

    Parameters
    ----------
    labels
        (X, Y, Z) label map, RAS+; where parts overlap, that of the part that reaches deeper.
    signals
        Images by name, NaN where there is none.
    covered
        (X, Y, Z) voxels that some part has.
    levels
        Vertebral level of each slice; None where no part has any, or they contradict each other.
    gap_mm
        Height of the slices between the parts that no part has.
    warnings
        Sentences for the report.
    """

    labels: Nifti1Image
    signals: Mapping[str, Nifti1Image]
    covered: np.ndarray
    levels: SliceLevels | None
    gap_mm: float
    warnings: tuple[str, ...] = ()


def join_parts(parts: Sequence[Part]) -> Joined:
    """Put parts on the grid of the finest of them, extended to where all of them reach.

    Nothing is interpolated: each voxel takes the nearest one of the part in which it lies deepest
    along the spine, so that an overlap counts once, split in its middle. Each part may have its
    own receiver gain, so signals are brought to one scale by the brightness of the muscles; those
    of water and fat only where it differs by half or more, as it varies within one image, too.

    Parameters
    ----------
    parts
        At least one; all have signals of the same names.

    Raises
    ------
    BadDataError
        If their headers put the parts too far from each other.
    """
    ordered = [_in_ras_order(part) for part in parts]
    finest = min(ordered, key=lambda part: float(np.prod(voxel_sizes(part.affine))))
    affine, shape = _common_grid(ordered, finest.affine)
    labels = np.zeros(shape, np.int16)
    covered = np.zeros(shape, bool)
    names = list(parts[0].signals)
    signals = {name: np.full(shape, np.nan, np.float32) for name in names}
    scales = _scales(ordered)
    for k in range(shape[2]):
        owner, indices = _owners(ordered, affine, shape, k)
        for number, part in enumerate(ordered):
            here = owner == number
            if here.any():
                source = tuple(indices[number][:, here])
                covered[..., k][here] = True
                labels[..., k][here] = part.labels[source]
                for name in names:
                    value = part.signals[name][source] * scales[number].get(name, 1.0)
                    signals[name][..., k][here] = value
    levels, warnings = _join_levels(ordered, affine, shape[2])
    imaged = covered.any(axis=(0, 1))
    return Joined(
        labels=Nifti1Image(labels, affine),
        signals={name: Nifti1Image(data, affine) for name, data in signals.items()},
        covered=covered,
        levels=levels,
        gap_mm=float(np.count_nonzero(~imaged) * voxel_sizes(affine)[2]),
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Ordered:
    """A part as arrays in RAS+ voxel order."""

    affine: np.ndarray
    labels: np.ndarray
    signals: Mapping[str, np.ndarray]
    levels: SliceLevels | None


def _in_ras_order(part: Part) -> _Ordered:
    order = io_orientation(part.labels.affine)
    return _Ordered(
        part.labels.affine @ inv_ornt_aff(order, part.labels.shape),
        apply_orientation(np.asanyarray(part.labels.dataobj), order),
        {
            name: apply_orientation(np.asanyarray(image.dataobj), order)
            for name, image in part.signals.items()
        },
        part.levels,
    )


def _common_grid(
    parts: Sequence[_Ordered], affine: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the affine and shape of the grid that reaches as far as all parts do."""
    inverse = np.linalg.inv(affine)
    corners = np.concatenate(
        [apply_affine(inverse @ part.affine, _BOX * part.labels.shape - 0.5) for part in parts]
    )
    # Hundredths of a voxel are rounding of headers.
    low = np.floor(corners.min(axis=0) + 0.51).astype(int)
    shape = np.ceil(corners.max(axis=0) - 0.51).astype(int) - low + 1
    if np.prod(shape, dtype=float) > _MAX_VOXELS:
        raise BadDataError(
            'The parts are too far apart, by their headers, to be joined.',
            'Correct the positions in the headers.',
        )
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, low)
    return moved, tuple(shape.tolist())


def _owners(
    parts: Sequence[_Ordered], affine: np.ndarray, shape: tuple[int, ...], k: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return for a slice the part that each voxel is taken from, -1 for none, and its indices."""
    plane = np.stack(np.meshgrid(*map(np.arange, shape[:2]), [k], indexing='ij'), axis=-1)[:, :, 0]
    owner, deepest = np.full(shape[:2], -1), np.full(shape[:2], -np.inf)
    indices = []
    for number, part in enumerate(parts):
        position = apply_affine(np.linalg.inv(part.affine) @ affine, plane)
        index = np.floor(position + 0.5).astype(int)
        size = np.array(part.labels.shape)
        inside = ((index >= 0) & (index < size)).all(axis=-1)
        height = position[..., 2]
        depth = np.minimum(height + 0.5, size[2] - 0.5 - height) * voxel_sizes(part.affine)[2]
        better = inside & (depth > deepest)
        owner[better], deepest[better] = number, depth[better]
        indices.append(np.moveaxis(index, -1, 0))
    return owner, indices


def _scales(parts: Sequence[_Ordered]) -> list[dict[str, float]]:
    """Return what the signals of each part are multiplied with."""
    scales: list[dict[str, float]] = [{} for _ in parts]
    for names, tolerated in _ONE_SCALE:
        if set(names) <= set(parts[0].signals):
            found = [_brightness(part, names) for part in parts]
            wanted = next(filter(None, found), None)
            for each, own in zip(scales, found, strict=True):
                ratio = wanted / own if own and wanted else 1.0
                same = 1 / tolerated < ratio < tolerated
                each.update(dict.fromkeys(names, 1.0 if same else ratio))
    return scales


def _brightness(part: _Ordered, names: Sequence[str]) -> float | None:
    inside = part.labels > 0
    values = np.sum([part.signals[name][inside].astype(float) for name in names], axis=0)
    values = values[np.isfinite(values)]
    level = float(np.percentile(values, _LEAN_PCT)) if values.size >= _MIN_SCALED else 0.0
    return level if level > 0 else None


def _join_levels(
    parts: Sequence[_Ordered], affine: np.ndarray, n_slices: int
) -> tuple[SliceLevels | None, tuple[str, ...]]:
    """Give each slice the level of the part in which it lies deepest."""
    names: list[str | None] = [None] * n_slices
    confidence, deepest = np.zeros(n_slices), np.full(n_slices, -np.inf)
    sources = []
    for part in (part for part in parts if part.levels):
        levels, n = part.levels, part.labels.shape[2]
        assert levels is not None  # noqa: S101 - filtered above
        sources.append(levels.source)
        middle = (np.array(part.labels.shape[:2]) - 1) / 2
        ends = [apply_affine(part.affine, [*middle, k]) for k in (0, 1)]
        zero, one = (apply_affine(np.linalg.inv(affine), end)[2] for end in ends)
        places = (np.arange(n_slices) - zero) / (one - zero)
        depth = np.minimum(places + 0.5, n - 0.5 - places) * voxel_sizes(part.affine)[2]
        for k in np.flatnonzero((depth > 0) & (depth > deepest)):
            at = min(int(places[k] + 0.5), n - 1)
            names[k], confidence[k] = levels.names[at], levels.confidence[at]
        deepest = np.maximum(deepest, depth)
    if not any(names):
        return None, ()
    if _contradict(names, voxel_sizes(affine)[2]):
        return None, (
            'The vertebral levels of the parts contradict each other. No levels are given.',
        )
    return SliceLevels(tuple(names), confidence, sources[0]), ()


def _contradict(names: Sequence[str | None], spacing_mm: float) -> bool:
    """Whether levels do not follow each other from below, or one is higher than any is.

    Examples
    --------
    >>> _contradict(['L5', 'L4', None, 'L4', 'L3'], 5), _contradict(['L5', 'L4', 'L5'], 5)
    (False, True)
    """
    numbered = [(k, VERTEBRAE.index(name)) for k, name in enumerate(names) if name in VERTEBRAE]
    levels = [level for _, level in numbered]
    if levels != sorted(levels, reverse=True):
        return True
    heights = {
        level: (
            max(k for k, each in numbered if each == level)
            - min(k for k, each in numbered if each == level)
            + 1
        )
        for level in set(levels)
    }
    return max(heights.values(), default=0) * spacing_mm > MAX_LEVEL_MM
