"""Clean up of label maps: what hangs together as one set of muscles stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bids_muscle.errors import ModelError

#: Muscles whose outlines are closer than this belong to one body of muscles, mm.
BRIDGE_MM = 16.0
#: A piece of a muscle smaller than this share of its largest piece is dropped.
LEAST_SHARE = 0.1
#: Slices without any muscle that the scanner lost part no muscles, up to this height, mm; a single
#: one never does.
LOST_MM = 16.0
#: Of a label that the main group has less of than this share of what lies apart, the piece apart
#: may be the muscle.
APART_SHARE = 0.25
#: How far beyond the sides of the main group the middle of such a piece may lie, and how far in
#: front or behind, mm. A psoas lies beside the vertebra, in front of the back muscles, up to 50 mm
#: away at L5/S1; an arm lies farther to the side, the bowel farther in front.
BESIDE_MM, IN_FRONT_MM = 30.0, 70.0

#: Standard deviation of the Gaussian that smooths edges, mm.
SMOOTH_MM = 1.0


def postprocess(
    labels: np.ndarray,
    zooms_mm: Sequence[float],
    steps: Sequence[str] = ('muscles',),
    bridge_mm: float = BRIDGE_MM,
) -> np.ndarray:
    """Apply the steps that a model names to a label map, in their order.

    Parameters
    ----------
    labels
        Shape (x, y, slices), integers, 0 for background.
    zooms_mm
        Voxel size.
    steps
        ``'muscles'`` for :func:`keep_muscles`; ``'smooth'``, ``'fill'`` and ``'largest'`` for
        :func:`smooth_edges`, :func:`fill_holes` and :func:`largest_components` (Hess 2022);
        ``'largest-faces'`` for the latter where corners and edges do not hold voxels together.
    bridge_mm
        See :func:`keep_muscles`.

    Raises
    ------
    ModelError
        If a step is unknown.
    """
    functions = {
        'muscles': lambda label_map, zooms: keep_muscles(label_map, zooms, bridge_mm),
        'smooth': smooth_edges,
        'fill': lambda label_map, _: fill_holes(label_map),
        'largest': lambda label_map, _: largest_components(label_map),
        'largest-faces': lambda label_map, _: largest_components(label_map, corners=False),
    }
    for step in steps:
        if step not in functions:
            raise ModelError(
                f'The model asks for the post-processing {step!r}.',
                f'Use a model that asks for some of {", ".join(functions)}.',
            )
        labels = functions[step](labels, zooms_mm)
    return labels


def smooth_edges(labels: np.ndarray, zooms_mm: Sequence[float]) -> np.ndarray:
    """Smooth the outlines in plane: each pixel gets the label with the greatest share around it.

    Hess 2022 does not name the method; the share is that of a Gaussian of 1 mm.

    Examples
    --------
    >>> labels = np.zeros((20, 20, 1), np.uint8)
    >>> labels[5:15, 5:15], labels[10, 15], labels[2, 2] = 1, 1, 1
    >>> smooth = smooth_edges(labels, (0.8, 0.8, 4))
    >>> [int(smooth[x, y, 0]) for x, y in ((10, 10), (10, 14), (10, 15), (2, 2))]
    [1, 1, 0, 0]
    """
    from scipy.ndimage import gaussian_filter

    sigma = [SMOOTH_MM / zoom for zoom in zooms_mm[:2]]
    out = np.zeros_like(labels)
    for k in np.flatnonzero(labels.any((0, 1))):
        plane = labels[..., k]
        best = gaussian_filter((plane == 0).astype(np.float32), sigma, mode='nearest')
        for label in np.unique(plane[plane > 0]):
            share = gaussian_filter((plane == label).astype(np.float32), sigma, mode='nearest')
            out[..., k][share > best] = label
            best = np.maximum(best, share)
    return out


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Fill background that one label encloses in plane; other labels inside stay.

    Examples
    --------
    >>> labels = np.ones((5, 5, 1), np.uint8)
    >>> labels[2, 2], labels[2, 3] = 0, 2
    >>> fill_holes(labels)[2, :, 0].tolist()
    [1, 1, 1, 2, 1]
    """
    from scipy.ndimage import binary_fill_holes

    out = labels.copy()
    for k in np.flatnonzero(labels.any((0, 1))):
        plane = out[..., k]
        for label in np.unique(plane[plane > 0]):
            plane[binary_fill_holes(plane == label) & (plane == 0)] = label
    return out


def largest_components(labels: np.ndarray, corners: bool = True) -> np.ndarray:
    """Keep the largest piece of each label.

    Parameters
    ----------
    labels
        Shape (x, y, slices), integers, 0 for background.
    corners
        Whether voxels that touch at a corner or an edge hang together, or at a face alone.

    Examples
    --------
    >>> labels = np.zeros((9, 9, 1), np.uint8)
    >>> labels[:4, :4], labels[6:8, 6:8], labels[8, 0] = 1, 1, 2
    >>> cleaned = largest_components(labels)
    >>> int((cleaned == 1).sum()), int((cleaned == 2).sum())
    (16, 1)
    """
    from scipy.ndimage import label

    out = np.zeros_like(labels)
    for number in np.unique(labels[labels > 0]):
        # Without a structure, faces.
        pieces, _ = label(labels == number, structure=np.ones((3, 3, 3)) if corners else None)
        sizes = np.bincount(pieces.ravel())
        out[pieces == 1 + sizes[1:].argmax()] = number
    return out


def keep_muscles(
    labels: np.ndarray, zooms_mm: Sequence[float], bridge_mm: float = BRIDGE_MM
) -> np.ndarray:
    """Remove what lies apart from the muscles, judged over all muscles together.

    The main group of muscles is kept, that of the greatest size times the number of its labels,
    where parts nearer than `bridge_mm` in plane, or in touching slices, belong to one group; so
    neither a false patch larger than one true muscle nor an arm displaces it. Slices touch also
    where those between them are lost (:data:`LOST_MM`). A muscle may lie
    apart from all others, as a psoas does in a slice at L5/S1: of a label that the main group
    lacks, what lies apart is kept where anatomy lets it be (:data:`BESIDE_MM`). Where the main
    group is a single muscle, anatomy says nothing, and what it lacks is kept. Then, within each
    label, pieces below a tenth of its largest piece are dropped.

    Parameters
    ----------
    labels
        Shape (x, y, slices), integers, 0 for background.
    zooms_mm
        Voxel size.
    bridge_mm
        How far muscles of one group lie apart at most.

    Returns
    -------
    ndarray
        A cleaned copy.

    Examples
    --------
    >>> labels = np.zeros((60, 30, 1), np.uint8)
    >>> labels[5:15, 5:15], labels[17:27, 5:15], labels[55, 25] = 1, 2, 1
    >>> cleaned = keep_muscles(labels, (1, 1, 4))
    >>> int((cleaned > 0).sum()), int(cleaned[55, 25, 0])
    (200, 0)
    """
    from scipy.ndimage import find_objects

    if not labels.any():
        return labels.copy()
    box = tuple(slice(w.min(), w.max() + 1) for w in np.nonzero(labels))
    planes = _not_lost(np.any(labels[box], axis=(0, 1)), zooms_mm[2])
    inner = labels[box][..., planes]
    group = _groups(inner > 0, zooms_mm, bridge_mm)
    muscle, base = inner > 0, int(inner.max()) + 1
    pairs, counts = np.unique(group[muscle] * base + inner[muscle], return_counts=True)
    groups, numbers = np.divmod(pairs, base)
    main = (np.bincount(groups, counts) * np.bincount(groups)).argmax()
    has = dict(zip(numbers[groups == main], counts[groups == main], strict=True))
    around = muscle & (group == main)
    kept = np.where(around, inner, 0).astype(labels.dtype)
    for other, number, count in zip(groups, numbers, counts, strict=True):
        if other != main and has.get(number, 0) < APART_SHARE * count:
            piece = (group == other) & (inner == number)
            if len(has) == 1 or _belongs(piece, around, zooms_mm):
                kept[piece] = number
    for number, part in enumerate(find_objects(kept), start=1):
        if part is not None:
            _drop_specks(kept[part], number)
    out = np.zeros_like(labels)
    out[box][..., planes] = kept
    return out


def _not_lost(filled: np.ndarray, slice_mm: float) -> np.ndarray:
    """Return the slices with muscle, and one without it in each gap that is no lost slice."""
    known = np.flatnonzero(filled)
    empty = np.diff(known) - 1
    wide = known[:-1][(empty > 1) & (empty * slice_mm > LOST_MM)]
    return np.sort(np.concatenate([known, wide + 1]))


def _groups(muscle: np.ndarray, zooms_mm: Sequence[float], bridge_mm: float) -> np.ndarray:
    """Give each voxel the number of its group; 0 far from muscle."""
    from scipy.ndimage import distance_transform_edt, label

    radius = bridge_mm / 2
    pad = [int(np.ceil(radius / zoom)) + 1 for zoom in zooms_mm[:2]]
    padded = np.pad(muscle, [(pad[0],) * 2, (pad[1],) * 2, (0, 0)])
    near = np.stack(
        [
            distance_transform_edt(~plane, sampling=zooms_mm[:2]) <= radius
            if plane.any()
            else plane
            for plane in np.moveaxis(padded, 2, 0)
        ],
        axis=2,
    )
    numbers, _ = label(near, structure=np.ones((3, 3, 3)), output=np.int64)
    return numbers[pad[0] : -pad[0], pad[1] : -pad[1]]


def _belongs(piece: np.ndarray, main: np.ndarray, zooms_mm: Sequence[float]) -> bool:
    """Whether a piece lies beside the spine, as seen from the main group of muscles."""
    (low, high), (back, front) = (
        (zoom * where.min(), zoom * where.max())
        for where, zoom in zip(np.nonzero(main)[:2], zooms_mm, strict=False)
    )
    x, y = (
        zoom * where.mean() for where, zoom in zip(np.nonzero(piece)[:2], zooms_mm, strict=False)
    )
    beside = low - BESIDE_MM <= x <= high + BESIDE_MM
    return bool(beside and back - IN_FRONT_MM <= y <= front + IN_FRONT_MM)


def _drop_specks(labels: np.ndarray, number: int) -> None:
    """Set small pieces of one label to background, in place."""
    from scipy.ndimage import label

    pieces, count = label(labels == number, structure=np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        small = np.flatnonzero(sizes < LEAST_SHARE * sizes.max()) + 1
        labels[np.isin(pieces, small)] = 0
