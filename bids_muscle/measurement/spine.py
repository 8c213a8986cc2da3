"""Vertebrae and discs from their label maps: heights, centroids, lordosis (Hess 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from bids_muscle.errors import BadDataError
from bids_muscle.measurement.rows import morph_dictionary

if TYPE_CHECKING:
    import pandas as pd

#: Fewer voxels than this have no shape.
MIN_VOXELS = 10

#: The discs between which lordosis is measured.
_LORDOSIS = ('T12-L1', 'L5-S1')
#: The end plates between which Cobb's angle is measured, and the discs at them.
_PLATES = (('L1', 'T12-L1'), ('S1', 'L5-S1'))
#: Pixels of a vertebra this near to a disc, mm, are its end plate.
PLATE_MM = 3.0
#: Farther than this, mm, no muscle of the back or flank lies from the vertebra of its level.
NEAR_MM = 130.0
_NOT_TOGETHER = (
    'lies {:.0f} mm from the vertebra in the axial plane, so the scans have different frames of '
    'reference, or the patient moved between them'
)
#: From this distance, mm, between the middle of the muscles and that of the vertebrae on, the
#: patient is taken to have moved, where the images do not tell.
ASIDE_MM = 10.0
_ASIDE = (
    'the muscles lie {:.0f} mm to the {} of the vertebrae, so the patient moved between the '
    'scans, or the spine is curved'
)
_TOUCHES = 'reaches the edge of the image, so it may be incomplete'
#: What is cut at its sides, as by the end of a sagittal slab, keeps its height; this does not.
CUT = 'reaches the upper or lower edge of the image, so its centroid may be wrong'


@dataclass(frozen=True)
class Rectangle:
    """The rectangle of least area around a shape.

    Parameters
    ----------
    short_mm, long_mm
        Its sides.
    angle_deg
        Angle of its long side to the first axis, -90 to 90.
    """

    short_mm: float
    long_mm: float
    angle_deg: float


@dataclass(frozen=True, eq=False)
class _NamedLabels:
    """Numbers of a label map in RAS+ order, their affine and their names."""

    numbers: np.ndarray
    affine: np.ndarray
    names: Mapping[int, str]


def measure_spine(
    vertebrae: tuple[Nifti1Image, Mapping[int, str]] | None,
    discs: tuple[Nifti1Image, Mapping[int, str]] | None,
    *,
    confidence: Mapping[int, float] | None = None,
    reasons: Mapping[int, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Measure the vertebrae and discs of one scan.

    Parameters
    ----------
    vertebrae, discs
        (X, Y, Z) label map in any orientation and the names of its labels; None where there is
        no such map. A label without a name is called by its number.
    confidence, reasons
        By number, how sure a label and its name are, and what is known to be wrong with it.

    Returns
    -------
    pandas.DataFrame
        One row per vertebra and disc, each from superior to inferior, one for the lordosis
        where both its discs are there, and one for Cobb's angle where L1 and S1 are too.
        Columns as in ``dictionary('morph_spine')``.

    Raises
    ------
    BadDataError
        If a label map holds numbers that are not whole.
    """
    import pandas as pd

    maps = {
        kind: _NamedLabels(*_oriented(kind, label_map[0]), label_map[1])
        for kind, label_map in (('vertebra', vertebrae), ('disc', discs))
        if label_map is not None
    }
    rows = [row for kind, label_map in maps.items() for row in _rows(kind, label_map)]
    for row in rows:
        row['confidence'] = (confidence or {}).get(row['index'])
        known = [*(reasons or {}).get(row['index'], ()), row['reason']]
        row['reason'] = '; '.join(each for each in known if each) or None
    by_name = {row['name']: row for row in rows if row['kind'] == 'disc'}
    if all(name in by_name for name in _LORDOSIS):
        upper, lower = (by_name[name].get('tilt_deg', np.nan) for name in _LORDOSIS)
        unknown = None if np.isfinite(upper - lower) else 'the tilt of a disc is not known'
        rows.append(
            {'kind': 'lordosis', 'name': 'L1-S1', 'tilt_deg': lower - upper, 'reason': unknown}
        )
    if len(maps) == 2 and {name for name, _ in _PLATES} <= {row['name'] for row in rows}:
        upper, lower = (_plate_tilt(maps['vertebra'], maps['disc'], *pair) for pair in _PLATES)
        cobb = lower - upper
        unknown = None if np.isfinite(cobb) else 'an end plate or its disc is missing'
        rows.append({'kind': 'cobb', 'name': 'L1-S1', 'tilt_deg': cobb, 'reason': unknown})
    return pd.DataFrame(rows, columns=list(morph_dictionary('morph_spine')))


def join_levels(
    spines: Mapping[str, pd.DataFrame],
    muscles: Mapping[str, pd.DataFrame],
    movements: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Join the vertebrae of a session with the muscles at their levels.

    Parameters
    ----------
    spines
        Tables of :func:`measure_spine` by the name of the scan; the first that names a vertebra
        gives its place, and before all others that from which a scan of muscles has its levels.
    muscles
        Tables of levels of :func:`~bids_muscle.measurement.table.measure_scan` by the name of the
        scan; their places are in the world coordinates of the spines.
    movements
        By the name of the scan of muscles, ``MovementSpine``, from which scan it has its levels,
        ``MovementMm``, how far it lies from that
        (:func:`~bids_muscle.imaging.movement.find_movement`), and ``MovementRemarks``, sentences
        about that. Without them it is compared whether the muscles lie beside the vertebrae.

    Returns
    -------
    pandas.DataFrame
        One row per level, scan, muscle and side, from superior to inferior; empty where no level
        is in both. Columns as in ``dictionary('morph_joined')``.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for scan, table in muscles.items():
        movement = movements.get(scan, {})
        source = movement.get('MovementSpine')
        bones = _bones(dict(sorted(spines.items(), key=lambda each: each[0] != source)))
        here = []
        for row in table[table['side'] != 'both'].to_dict('records'):
            bone = bones.get(row['level'])
            if bone is None:
                continue
            reasons = [each for each in (row['reason'], bone['reason']) if isinstance(each, str)]
            away = away_mm(row | bone)
            reasons += [_NOT_TOGETHER.format(away)] if away > NEAR_MM else []
            here.append({**row, **bone, 'scan': scan, 'reason': '; '.join(reasons) or None})
        for spine in dict.fromkeys(row['spine_scan'] for row in here):
            beside = [row for row in here if row['spine_scan'] == spine]
            _tell_movement(beside, movement if spine == source else {})
        rows += here
    # A vertebra too small to have a place comes last.
    rows.sort(key=lambda row: -np.nan_to_num(row['vertebra_z_ras_mm'], nan=-np.inf))
    return pd.DataFrame(rows, columns=list(morph_dictionary('morph_joined')))


def _bones(spines: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Return the place of each vertebra by its name, from the first table that has it."""
    bones: dict[str, dict[str, Any]] = {}
    for scan, spine in spines.items():
        heights = spine[spine['kind'] == 'disc'].set_index('name')['height_mm']
        below = {name.split('-')[0]: height for name, height in heights.items()}
        for row in spine[spine['kind'] == 'vertebra'].to_dict('records'):
            bones.setdefault(
                row['name'],
                {
                    'spine_scan': scan,
                    'vertebra_confidence': row['confidence'],
                    **{f'vertebra_{axis}_ras_mm': row[f'{axis}_ras_mm'] for axis in 'xyz'},
                    'disc_height_mm': below.get(row['name'], np.nan),
                    'reason': row['reason'],
                },
            )
    return bones


def _tell_movement(rows: Sequence[dict[str, Any]], movement: Mapping[str, Any]) -> None:
    """Add to rows of one scan of muscles and one of vertebrae how the one lies to the other."""
    remarks = list(movement.get('MovementRemarks', ()))
    shift_mm = movement.get('MovementMm')
    aside = aside_mm(rows)
    if shift_mm is None and abs(aside) > ASIDE_MM:
        remarks.append(_ASIDE.format(abs(aside), 'right' if aside > 0 else 'left'))
    for row in rows:
        row |= {
            f'moved_{axis}_ras_mm': shift_mm[k] if shift_mm else np.nan
            for k, axis in enumerate('xyz')
        }
        row['reason'] = '; '.join(each for each in (row['reason'], *remarks) if each) or None


def away_mm(row: Mapping[str, Any]) -> float:
    """Return how far a muscle lies from its vertebra in the horizontal plane.

    Parameters
    ----------
    row
        With the columns of places of the dictionary ``morph_joined``, mm.
    """
    return float(
        np.hypot(*(row[f'{axis}_ras_mm'] - row[f'vertebra_{axis}_ras_mm'] for axis in 'xy'))
    )


def aside_mm(rows: Iterable[Mapping[str, Any]]) -> float:
    """Return how far to the right of the vertebrae the middle of muscles and their pairs lies.

    Parameters
    ----------
    rows
        As for :func:`away_mm`, with muscle, side and level.

    Returns
    -------
    float
        The median over levels and muscles, mm; 0 without pairs that have a place.
    """
    sides: dict[tuple[Any, Any], dict[str, float]] = {}
    for row in rows:
        place = row['x_ras_mm'] - row['vertebra_x_ras_mm']
        if np.isfinite(place):
            sides.setdefault((row['level'], row['muscle']), {})[row['side']] = place
    middles = [(pair['left'] + pair['right']) / 2 for pair in sides.values() if len(pair) == 2]
    return float(np.median(middles)) if middles else 0.0


def smallest_rectangle(pixels: np.ndarray, spacing_mm: tuple[float, float]) -> Rectangle:
    """Return the rectangle of least area around the corners of some pixels.

    One side of it lies along a side of the convex hull, so that these are all that is tried.

    Parameters
    ----------
    pixels
        (N, 2) indices, at least one.
    spacing_mm
        Size of a pixel along each axis.

    Examples
    --------
    >>> smallest_rectangle(np.argwhere(np.ones((10, 3))), (1.0, 2.0))
    Rectangle(short_mm=6.0, long_mm=10.0, angle_deg=0.0)
    """
    from scipy.spatial import ConvexHull

    corners = (pixels[:, None] + np.array([(a, b) for a in (0, 1) for b in (0, 1)])).reshape(-1, 2)
    points = np.unique(corners, axis=0) * np.asarray(spacing_mm)
    hull = points[ConvexHull(points).vertices]
    edges = np.roll(hull, -1, axis=0) - hull
    along = edges / np.linalg.norm(edges, axis=1)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    sides = np.stack([np.ptp(hull @ axes.T, axis=0) for axes in (along, across)], axis=1)
    # Of rectangles of one area, the one nearest to the axes, whatever the order of the corners.
    area = np.round(sides.prod(axis=1), 9)
    slant = np.round(np.abs(along).min(axis=1), 9)
    best = int(np.lexsort((slant, area))[0])
    long = int(np.argmax(sides[best]))
    direction = (along, across)[long][best]
    direction = direction if direction[0] > 0 else -direction
    angle = float(np.degrees(np.arctan2(direction[1], direction[0])))
    return Rectangle(float(sides[best].min()), float(sides[best].max()), round(angle, 9))


def _oriented(kind: str, labels: Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a label map in RAS+ order, and their affine."""
    data = np.asanyarray(labels.dataobj)
    numbers = np.rint(data).astype(np.int32)
    if not np.array_equal(numbers, data):
        raise BadDataError(
            f'The label map {labels.get_filename() or kind} has numbers that are not whole.',
            'Resample label maps with nearest neighbour, and store them as integers.',
        )
    order = io_orientation(labels.affine)
    affine = labels.affine @ inv_ornt_aff(order, labels.shape)
    return apply_orientation(numbers, order), affine


def _rows(kind: str, label_map: _NamedLabels) -> list[dict[str, Any]]:
    rows = [
        _row(
            kind,
            int(index),
            label_map.names.get(int(index), f'label {index}'),
            label_map.numbers,
            label_map.affine,
        )
        for index in np.unique(label_map.numbers[label_map.numbers > 0])
    ]
    return sorted(rows, key=lambda row: (-row.get('z_ras_mm', -np.inf), row['index']))


def _row(
    kind: str, index: int, name: str, numbers: np.ndarray, affine: np.ndarray
) -> dict[str, Any]:
    from scipy.ndimage import binary_fill_holes, label

    inside = numbers == index
    row: dict[str, Any] = {
        'kind': kind,
        'index': index,
        'name': name,
        'n_voxels': int(np.count_nonzero(inside)),
    }
    # The largest component, connected by faces, edges and corners, as Hess 2022 leaves only one.
    parts, _ = label(inside, np.ones((3, 3, 3)))
    inside = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    voxels = np.argwhere(inside)
    if len(voxels) < MIN_VOXELS:
        return row | {'reason': f'only {len(voxels)} voxels in one piece, too few to measure'}
    middle = voxels.mean(axis=0)
    x, y, z = affine[:3, :3] @ middle + affine[:3, 3]
    row |= {
        'volume_ml': row['n_voxels'] * abs(float(np.linalg.det(affine[:3, :3]))) / 1000,
        'x_ras_mm': float(x),
        'y_ras_mm': float(y),
        'z_ras_mm': float(z),
        'x_lps_mm': float(-x),
        'y_lps_mm': float(-y),
        'z_lps_mm': float(z),
    }
    edge = (voxels.min(axis=0) == 0) | (voxels.max(axis=0) == np.subtract(inside.shape, 1))
    reasons = [CUT if edge[2] else _TOUCHES] if edge.any() else []
    if kind == 'disc':
        plane = binary_fill_holes(inside[round(middle[0])])
        pixels = np.argwhere(plane)
        if len(pixels):
            spacing = voxel_sizes(affine)[1:]
            rectangle = smallest_rectangle(pixels, (float(spacing[0]), float(spacing[1])))
            row |= {
                'height_mm': rectangle.short_mm,
                'mean_height_mm': len(pixels) * float(spacing.prod()) / rectangle.long_mm,
                'depth_mm': rectangle.long_mm,
                'tilt_deg': _tilt(rectangle, affine),
            }
        else:
            reasons.append('its centroid lies outside the label, so it has no central slice')
    return row | {'reason': '; '.join(reasons) or None}


def _plate_tilt(bone: _NamedLabels, soft: _NamedLabels, vertebra: str, disc: str) -> float:
    """Return the angle of the end plate of a vertebra at a disc; see :func:`_tilt`.

    The line with the least distance from the pixels of the vertebra that are near the disc, on
    the slice through the centroid of the disc; NaN where there are too few.
    """
    from scipy.ndimage import distance_transform_edt

    spacing = voxel_sizes(bone.affine)[1:]
    masks = [
        np.isin(given.numbers, [index for index, name in given.names.items() if name == wanted])
        for given, wanted in ((bone, vertebra), (soft, disc))
    ]
    if bone.numbers.shape != soft.numbers.shape or not masks[1].any():
        return np.nan
    middle = round(np.nonzero(masks[1])[0].mean())
    away = distance_transform_edt(~masks[1][middle], sampling=spacing)
    points = np.argwhere(masks[0][middle] & (away <= PLATE_MM)) * spacing
    if len(points) < MIN_VOXELS:
        return np.nan
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    along = axes[0] if axes[0][0] > 0 else -axes[0]
    angle = float(np.degrees(np.arctan2(along[1], along[0])))
    return _tilt(Rectangle(0.0, 0.0, angle), bone.affine)


def _tilt(found: Rectangle, affine: np.ndarray) -> float:
    """Return the angle of the long side against anterior, positive where it falls forward."""
    angle = np.radians(found.angle_deg)
    forward, up = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (1, 2))
    along = np.cos(angle) * forward + np.sin(angle) * up
    return float(np.degrees(np.arctan2(-along[2], along[1]))) + 0.0  # no minus zero
