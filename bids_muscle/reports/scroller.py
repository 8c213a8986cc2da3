"""Files of the slice viewer of a page: sheets of slices in three planes, outlines of labels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.reports import panels
from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    import nibabel as nib

    from bids_muscle.anatomy.labels import LabelTable

PLANES: tuple[cuts.Plane, ...] = ('axial', 'coronal', 'sagittal')
#: Width of a slice and pixels of a whole sheet at most, in the plane of the scan and in others,
#: so that a browser decodes it at once and in little memory, and a page stays below 6 MB.
TILE_WIDTH_PX = (448, 320)
SHEET_PX = (16_000_000, 6_000_000)
#: More pixels than this for the smallest side of a voxel show nothing more.
PIXELS_PER_VOXEL = 2
#: Slices of the other planes are at least this far apart.
STEP_MM = 2.0
#: WebP has no side longer than this.
SIDE_PX = 16_383
QUALITY = 78
THUMBNAIL_WIDTH_PX = 240
#: Outlines are simplified by at most this part of a voxel.
TOLERANCE_VOXELS = 0.3
#: Outlines are written in tenths of a pixel of the sheet, as whole numbers.
SUBPIXELS = 10


@dataclass(frozen=True)
class Sheet:
    """How the slices of a plane lie side by side, row by row.

    Parameters
    ----------
    plane
        Axial: from superior to inferior; coronal: from anterior; sagittal: from right to left.
    start, step, count
        Voxel number of the first slice across the plane; each next one is ``step`` lower.
    columns
        Slices in a row.
    width, height
        Size of a slice in pixels.
    """

    plane: cuts.Plane
    start: int
    step: int
    count: int
    columns: int
    width: int
    height: int

    @property
    def slices(self) -> list[int]:
        """Voxel numbers of the slices across the plane."""
        return [self.start - place * self.step for place in range(self.count)]


def plan_sheet(
    plane: cuts.Plane,
    view: cuts.View,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    main: cuts.Plane = 'axial',
) -> Sheet:
    """Lay out a sheet: all slices of the plane of the scan, or those of another in the view.

    Parameters
    ----------
    plane
        Which slices.
    view
        Which part of each slice is shown.
    shape, spacing_mm
        Of the volume, RAS+.
    main
        The plane of the scan.
    """
    across = cuts.ACROSS[plane]
    whole = plane == main
    low, high = (0, shape[across]) if whole else view.box[across]
    step = 1 if whole else max(math.ceil(STEP_MM / spacing_mm[across] - 0.01), 1)
    width_px, sheet_px = (limit[not whole] for limit in (TILE_WIDTH_PX, SHEET_PX))
    count = -(-(high - low) // step)
    axis = 1 if plane == 'sagittal' else 0
    wide_mm = (view.box[axis][1] - view.box[axis][0]) * spacing_mm[axis]
    enough = math.ceil(PIXELS_PER_VOXEL * wide_mm / min(spacing_mm))
    wide, high_px = cuts.panel_size(plane, view, spacing_mm, min(width_px, enough))
    # Smaller where there are very many.
    shrink = min(1.0, math.sqrt(sheet_px / (wide * high_px * count)), SIDE_PX / high_px)
    width, height = max(int(wide * shrink), 1), max(int(high_px * shrink), 1)
    columns = max(min(math.ceil(math.sqrt(count * height / width)), SIDE_PX // width), 1)
    return Sheet(plane, high - 1, step, count, columns, width, height)


def draw_sheet(background: nib.Nifti1Image, view: cuts.View, sheet: Sheet) -> bytes:
    """Draw the slices of a plane side by side.

    Parameters
    ----------
    background
        Image of shape (X, Y, Z), RAS+.
    view
        Which part of each slice is shown.
    sheet
        Where they go.

    Returns
    -------
    WebP.
    """
    from PIL import Image

    data = background.get_fdata(dtype=np.float32)
    size = sheet.width, sheet.height
    rows = -(-sheet.count // sheet.columns)
    (x0, x1), (y0, y1), _ = view.box
    window = panels.robust_window(data[x0:x1, y0:y1])
    picture = Image.new('L', (sheet.columns * sheet.width, rows * sheet.height))
    for number, index in enumerate(sheet.slices):
        part = cuts.cut(data, sheet.plane, index, view)
        if sheet.plane == 'axial':
            # Of its own for each slice: coils see the ends of a scan less.
            window = view.windows.get(index) or panels.robust_window(part)
        panel = panels.grey_panel(part, window, size)[:, :, 0]
        row, column = divmod(number, sheet.columns)
        picture.paste(Image.fromarray(panel), (column * sheet.width, row * sheet.height))
    return panels.to_webp(picture, QUALITY)


def trace_outlines(
    labels: nib.Nifti1Image,
    view: cuts.View,
    sheets: Sequence[Sheet],
    main: cuts.Plane = 'axial',
) -> bytes:
    """Trace the outline of each label in each slice of each plane.

    Parameters
    ----------
    labels
        Label numbers of shape (X, Y, Z), RAS+.
    view
        Which part of each slice is shown.
    sheets
        Where the slices are.
    main
        The plane of the scan.

    Returns
    -------
    bytes
        JSON: ``box``, the voxels shown along each axis; ``planes``, for each its layout and for
        each slice its title and an SVG path by label number, in tenths of a pixel; ``muscles``,
        by label number the voxel in the middle of its largest slice of the scan; ``first`` and
        ``unsure``, a voxel of the slice where all muscles are seen best, and least surely.
    """
    numbers = np.asarray(labels.dataobj).astype(np.int16)
    present = [int(label) for label in np.unique(numbers) if label > 0]
    across = cuts.ACROSS[main]
    best = int(np.argmax(cuts.muscle_share(numbers, across))) if present else None
    content = {
        'subpixels': SUBPIXELS,
        'box': view.box,
        'first': _middle(_main(numbers, best, across), best, view, across),
        'unsure': view.unsure
        if view.unsure is None
        else _middle(_main(numbers, view.unsure, across), view.unsure, view, across),
        'muscles': {str(label): _largest(numbers == label, view, across) for label in present},
        'planes': {sheet.plane: _trace_plane(labels, numbers, view, sheet) for sheet in sheets},
    }
    return (json.dumps(content, separators=(',', ':')) + '\n').encode('ascii')


def draw_thumbnail(
    background: nib.Nifti1Image, numbers: np.ndarray, table: LabelTable, view: cuts.View
) -> bytes:
    """Draw the slice that shows most of all muscles, small, with its outlines, as WebP.

    Parameters
    ----------
    background
        Image of shape (X, Y, Z), RAS+.
    numbers
        Label numbers of the same shape.
    table
        Labels and their colours.
    view
        What is shown.
    """
    from PIL import Image

    data = background.get_fdata(dtype=np.float32)
    share = cuts.muscle_share(numbers, 2)
    index = int(np.argmax(share)) if share.any() else view.slices[len(view.slices) // 2]
    # Drawn at double size: an outline of one pixel would be lost.
    size = cuts.panel_size('axial', view, background.header.get_zooms(), THUMBNAIL_WIDTH_PX * 2)
    picture = cuts.cut(data, 'axial', index, view)
    window = view.windows.get(index) or panels.robust_window(picture)
    panel = panels.grey_panel(picture, window, size)
    panel = panels.draw_labels(panel, cuts.cut(numbers, 'axial', index, view), table)
    small = Image.fromarray(panel).resize((size[0] // 2, max(size[1] // 2, 1)))
    return panels.to_webp(small, QUALITY)


def _trace_plane(
    labels: nib.Nifti1Image, numbers: np.ndarray, view: cuts.View, sheet: Sheet
) -> dict[str, Any]:
    pictures = [cuts.cut(numbers, sheet.plane, index, view) for index in sheet.slices]
    contours = list(_contours(pictures))
    kept = simplify([contour for *_, contour in contours], TOLERANCE_VOXELS)
    paths: list[dict[str, str]] = [{} for _ in pictures]
    for (place, label, contour), points in zip(contours, kept, strict=True):
        scale = np.array([sheet.height, sheet.width]) / pictures[place].shape * SUBPIXELS
        own = paths[place]
        own[str(label)] = own.get(str(label), '') + _path(contour[points], scale)
    return {
        'start': sheet.start,
        'step': sheet.step,
        'columns': sheet.columns,
        'width': sheet.width,
        'height': sheet.height,
        'slices': [
            {'title': cuts.slice_title(labels, view, index, sheet.plane), 'paths': own}
            for index, own in zip(sheet.slices, paths, strict=True)
        ],
    }


def _contours(pictures: Sequence[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield place, label and contour (N, 2) in voxels, from outer edge to outer edge."""
    from scipy.ndimage import find_objects
    from skimage.measure import find_contours

    for number, picture in enumerate(pictures):
        for label, box in enumerate(find_objects(picture), start=1):
            if box is None:
                continue
            mask = np.pad(picture[box] == label, 1).astype(np.float32)
            for contour in find_contours(mask, 0.5):
                # The centre of the first voxel lies half a voxel inside; the padding is one voxel.
                corner = np.array([each.start for each in box])
                yield number, label, contour + corner - 0.5


def _main(numbers: np.ndarray, index: int | None, across: int) -> np.ndarray:
    """Return where the structure is that is largest in a slice of the scan."""
    if index is None:
        return numbers > 0
    counts = np.bincount(np.take(numbers, index, axis=across).ravel(), minlength=2)
    return numbers == 1 + int(np.argmax(counts[1:]))


def _largest(mask: np.ndarray, view: cuts.View, across: int) -> list[int]:
    within = tuple(axis for axis in range(3) if axis != across)
    return _middle(mask, int(np.argmax(mask.sum(axis=within))), view, across)


def _middle(mask: np.ndarray, index: int | None, view: cuts.View, across: int) -> list[int]:
    """Return the middle of a mask in a slice of the scan, of the view where it is empty there."""
    middle = [(low + high) // 2 for low, high in view.box]
    if index is None:
        # Without a structure the first slice that is shown is one in the middle.
        return [*middle[:2], view.slices[0]] if across == 2 else middle
    where = np.argwhere(np.take(mask, index, axis=across))
    if where.size:
        middle = where.mean(axis=0).round().astype(int).tolist()
        middle.insert(across, index)
    middle[across] = index
    return middle


def _path(contour: np.ndarray, scale: np.ndarray) -> str:
    """Return a closed contour as an SVG path with whole relative steps."""
    points = np.rint(contour * scale).astype(int)[:-1, ::-1]
    steps = np.diff(points, axis=0)
    line = ' '.join(f'{x} {y}' for x, y in steps.tolist())
    return f'M{points[0][0]} {points[0][1]}l{line}z'


def simplify(lines: Sequence[np.ndarray], tolerance: float) -> list[np.ndarray]:
    """Return which points of lines are enough (Douglas and Peucker 1973), of all lines at once.

    Parameters
    ----------
    lines
        Each of shape (N, 2), at least two points; closed where the last point is the first.
    tolerance
        Farthest that a point left out lies from the line.

    Returns
    -------
    list of numpy.ndarray
        Positions of the kept points, in order.

    Examples
    --------
    >>> [kept.tolist() for kept in simplify([np.array([[0, 0], [1, 0.1], [2, 0], [2, 5.0]])], 0.3)]
    [[0, 2, 3]]
    """
    if not lines:
        return []
    points = np.concatenate(lines)
    ends = np.cumsum([len(line) for line in lines])
    kept = np.zeros(len(points), bool)
    kept[ends - 1] = kept[ends[:-1]] = kept[0] = True
    while True:
        corners = np.flatnonzero(kept)
        first = np.repeat(corners[:-1], np.diff(corners))
        last = np.repeat(corners[1:], np.diff(corners))
        away = _from_chord(points[: len(first)], points[first], points[last])
        starts = corners[:-1]
        farthest = np.maximum.reduceat(away, starts)
        far = (away == np.repeat(farthest, np.diff(corners))) & (away > tolerance)
        # One point of each piece, the first of those that are equally far.
        new = np.flatnonzero(far)
        if not new.size:
            break
        kept[new[np.unique(first[new], return_index=True)[1]]] = True
    cut = np.split(kept, ends[:-1])
    return [np.flatnonzero(each) for each in cut]


def _from_chord(points: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the distance of points from the straight pieces between two others."""
    chord, offset = last - first, points - first
    length = (chord**2).sum(1)
    share = np.divide((offset * chord).sum(1), length, out=np.zeros(len(length)), where=length > 0)
    return np.linalg.norm(offset - np.clip(share, 0, 1)[:, None] * chord, axis=1)
