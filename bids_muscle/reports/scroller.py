"""What a page needs to scroll through all axial slices: one sheet of slices, and the outlines."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    import nibabel as nib
    from PIL import Image

    from bids_muscle.anatomy.labels import LabelTable

TILE_WIDTH_PX = 448
#: A sheet has at most this many pixels, so that a browser decodes it at once and in little memory.
SHEET_PX = 24_000_000
#: WebP has no side longer than this.
SIDE_PX = 16_383
QUALITY = 82
THUMBNAIL_WIDTH_PX = 240
#: Outlines are simplified by at most this part of a voxel.
TOLERANCE_VOXELS = 0.3
#: Outlines are written in tenths of a pixel of the sheet, as whole numbers.
SUBPIXELS = 10


def draw_sheet(background: nib.Nifti1Image, view: cuts.View) -> tuple[bytes, tuple[int, int, int]]:
    """Draw all axial slices side by side, from superior to inferior, row by row.

    Parameters
    ----------
    background
        Image of shape (X, Y, Z), RAS+.
    view
        Which part of each slice is shown.

    Returns
    -------
    WebP, and the columns of the sheet and the width and height of one slice in pixels.
    """
    from PIL import Image

    data = background.get_fdata(dtype=np.float32)
    count = data.shape[2]
    width, height = _tile_size(view, background.header.get_zooms(), count)
    columns = min(math.ceil(math.sqrt(count * height / width)), SIDE_PX // width)
    rows = -(-count // columns)
    # One window for all slices: it is the same tissue.
    (x0, x1), (y0, y1), _ = view.box
    window = cuts.robust_window(data[x0:x1, y0:y1])
    sheet = Image.new('L', (columns * width, rows * height))
    for place, index in enumerate(reversed(range(count))):
        picture = cuts.cut(data, 'axial', index, view)
        panel = cuts.grey_panel(picture, window, (width, height))[:, :, 0]
        row, column = divmod(place, columns)
        sheet.paste(Image.fromarray(panel), (column * width, row * height))
    return _to_webp(sheet), (columns, width, height)


def trace_outlines(
    labels: nib.Nifti1Image, view: cuts.View, layout: tuple[int, int, int]
) -> bytes:
    """Trace the outline of each label in each axial slice.

    Parameters
    ----------
    labels
        Label numbers of shape (X, Y, Z), RAS+.
    view
        Which part of each slice is shown.
    layout
        Columns of the sheet, width and height of a slice, from :func:`draw_sheet`.

    Returns
    -------
    bytes
        JSON: the layout, which slice shows most of all muscles, and for each slice, from superior
        to inferior, its title and an SVG path by label number, in tenths of a pixel.
    """
    from scipy.ndimage import find_objects

    numbers = np.asarray(labels.dataobj).astype(np.int16)
    columns, width, height = layout
    slices = []
    for index in reversed(range(numbers.shape[2])):
        picture = cuts.cut(numbers, 'axial', index, view)
        scale = np.array([height / picture.shape[0], width / picture.shape[1]]) * SUBPIXELS
        paths = {
            str(label): _path(picture[box] == label, (box[0].start, box[1].start), scale)
            for label, box in enumerate(find_objects(picture), start=1)
            if box is not None
        }
        slices.append({'title': cuts.slice_title(labels, view, index), 'paths': paths})
    content = {
        'columns': columns,
        'width': width,
        'height': height,
        'subpixels': SUBPIXELS,
        'first': len(slices) - 1 - int(np.argmax(cuts.muscle_share(numbers, 2))),
        'slices': slices,
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
    panel = cuts.grey_panel(picture, cuts.robust_window(picture), size)
    panel = cuts.draw_labels(panel, cuts.cut(numbers, 'axial', index, view), table)
    small = Image.fromarray(panel).resize((size[0] // 2, max(size[1] // 2, 1)))
    return _to_webp(small)


def _tile_size(view: cuts.View, spacing_mm: tuple[float, ...], count: int) -> tuple[int, int]:
    """Return width and height of a slice in the sheet; smaller where there are very many."""
    width, height = cuts.panel_size('axial', view, spacing_mm, TILE_WIDTH_PX)
    shrink = min(1.0, math.sqrt(SHEET_PX / (width * height * count)), SIDE_PX / height)
    return max(int(width * shrink), 1), max(int(height * shrink), 1)


def _path(mask: np.ndarray, corner: tuple[int, int], scale: np.ndarray) -> str:
    """Return the outlines of a mask as an SVG path with whole relative steps."""
    from skimage.measure import approximate_polygon, find_contours

    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        polygon = approximate_polygon(contour, TOLERANCE_VOXELS)
        # The centre of the first voxel lies half a voxel inside; the padding is one voxel.
        points = np.rint((polygon + corner - 0.5) * scale).astype(int)[:-1, ::-1]
        steps = np.diff(points, axis=0)
        line = ' '.join(f'{x} {y}' for x, y in steps.tolist())
        parts.append(f'M{points[0][0]} {points[0][1]}l{line}z')
    return ''.join(parts)


def _to_webp(image: Image.Image) -> bytes:
    """Encode without metadata, so that the same picture is the same bytes."""
    stream = io.BytesIO()
    image.save(stream, 'WEBP', quality=QUALITY, method=4)
    return stream.getvalue()
