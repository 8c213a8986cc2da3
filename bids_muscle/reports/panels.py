"""Draw slices as panels: grey levels, colour maps, outlines of labels, titles, montages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.reports.slices import EDGES

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    from bids_muscle.anatomy.labels import LabelTable

#: A muscle is at most this part of white.
MUSCLE_HEADROOM = 1.5
FILL_OPACITY = 0.16
GAP_PX = 4
TEXT_PX = 15
#: Of WebP: thin lines and numbers stay sharp.
QUALITY = 90


def robust_window(values: np.ndarray) -> tuple[float, float]:
    """Return the grey levels shown as black and white: percentiles 1 and 99.5.

    Examples
    --------
    >>> robust_window(np.zeros(5))
    (0.0, 1.0)
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, [1, 99.5])
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def muscle_window(picture: np.ndarray, muscle: np.ndarray) -> tuple[float, float]:
    """Return the grey levels of an axial slice: no muscle is white, however bright its coil is.

    Parameters
    ----------
    picture
        The slice.
    muscle
        Where muscles are; same shape.

    Examples
    --------
    >>> picture = np.array([0.0, 100, 100, 100])
    >>> muscle_window(picture, picture > 0)
    (3.0, 150.0)
    """
    low, high = robust_window(picture)
    inside = picture[muscle & np.isfinite(picture)]
    if inside.size:
        high = max(high, MUSCLE_HEADROOM * float(np.percentile(inside, 95)))
    return low, high


def grey_panel(
    picture: np.ndarray, window: tuple[float, float], size: tuple[int, int]
) -> np.ndarray:
    """Return a picture as RGB, shape (rows, columns, 3), uint8."""
    low, high = window
    scaled = np.clip((np.nan_to_num(picture.astype(np.float32)) - low) / (high - low), 0, 1)
    grey = (np.clip(_resize(scaled, size, smooth=True), 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def colour_panel(
    picture: np.ndarray, window: tuple[float, float], size: tuple[int, int], colours: str
) -> np.ndarray:
    """Return a picture in a matplotlib colour map as RGB; values that are not finite are black."""
    from matplotlib import colormaps

    low, high = window
    known = np.isfinite(picture)
    scaled = np.where(known, (np.clip(picture, low, high) - low) / (high - low), 0)
    inside = _resize(known.astype(np.float32), size) >= 0.5
    # Nearest neighbour: a map of numbers is shown as it is.
    levels = _resize(scaled.astype(np.float32), size, nearest=True)
    rgb = (colormaps[colours](levels)[:, :, :3] * 255).round().astype(np.uint8)
    return rgb * inside[:, :, None]


def draw_labels(
    panel: np.ndarray,
    labels: np.ndarray,
    table: LabelTable,
    *,
    opacity: float = FILL_OPACITY,
    line_px: int = 2,
    colour: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Draw every label as a filled outline that lies inside the label.

    Parameters
    ----------
    panel
        RGB picture, uint8.
    labels
        Label numbers of the slice at its own resolution.
    table
        Labels and their colours.
    opacity
        Opacity of the fill, 0 to 1.
    line_px
        Thickness of the outline.
    colour
        One colour for all outlines in place of those of the table.
    """
    from scipy.ndimage import binary_erosion, find_objects

    size = panel.shape[1], panel.shape[0]
    drawn = panel.astype(np.float32)
    for label in table:
        mask = labels == label.index
        if not mask.any():
            continue
        whole = _resize(mask.astype(np.float32), size) >= 0.5
        box = next(iter(find_objects(whole.view(np.uint8))), None)
        if box is None:
            continue
        inside, part = whole[box], drawn[box]
        rgb = np.array(colour or label.rgb, np.float32)
        edge = inside & ~binary_erosion(inside, iterations=line_px)
        part[inside] = (1 - opacity) * part[inside] + opacity * rgb
        part[edge] = rgb
    return drawn.round().astype(np.uint8)


def annotate(panel: np.ndarray, view: str, title: str) -> Image.Image:
    """Write a title and the letters of the patient's directions, if known, on a panel."""
    from PIL import Image

    image = Image.fromarray(panel)
    width, height = image.size
    left, right, top, bottom = EDGES.get(view, (' ',) * 4)
    write(image, (5, 3), title)
    write(image, (5, height / 2), left, anchor='lm')
    write(image, (width - 5, height / 2), right, anchor='rm')
    write(image, (width / 2, 3), top, anchor='ma')
    write(image, (width / 2, height - 3), bottom, anchor='md')
    return image


def write(image: Image.Image, at: tuple[float, float], text: str, *, anchor: str = 'la') -> None:
    """Write white text with a black rim, readable on any grey level."""
    from PIL import ImageDraw

    ImageDraw.Draw(image).text(
        at, text, fill='white', font=_font(), anchor=anchor, stroke_width=2, stroke_fill='black'
    )


def montage(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put panels side by side in rows on black."""
    from PIL import Image

    columns = min(columns, len(panels))
    width = max(panel.width for panel in panels)
    height = max(panel.height for panel in panels)
    rows = -(-len(panels) // columns)
    sheet = Image.new(
        'RGB', (columns * (width + GAP_PX) - GAP_PX, rows * (height + GAP_PX) - GAP_PX)
    )
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        sheet.paste(panel, (column * (width + GAP_PX), row * (height + GAP_PX)))
    return sheet


def to_webp(image: Image.Image, quality: int = QUALITY) -> bytes:
    """Encode without metadata, so that the same picture is the same bytes."""
    stream = io.BytesIO()
    # Method 4, the default, takes 2.4 times as long for files 3 to 7 % smaller.
    image.save(stream, 'WEBP', quality=quality, method=2)
    return stream.getvalue()


def _resize(
    picture: np.ndarray, size: tuple[int, int], *, smooth: bool = False, nearest: bool = False
) -> np.ndarray:
    from PIL import Image

    method = Image.Resampling.BILINEAR
    if smooth:
        method = Image.Resampling.BICUBIC
    if nearest:
        method = Image.Resampling.NEAREST
    source = Image.fromarray(np.ascontiguousarray(picture, np.float32))
    return np.asarray(source.resize(size, method))


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(TEXT_PX)
