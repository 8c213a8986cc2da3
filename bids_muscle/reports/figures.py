"""The pictures of a scan: segmentation, atlas, fat fraction, bias field. Images in, files out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.reports import panels, scroller, surfaces
from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    import nibabel as nib
    from PIL import Image

    from bids_muscle.anatomy.labels import LabelTable

#: Contrasts from the one that shows muscles best to the one that shows them least.
BACKGROUNDS = ('water', 'T2w', 'T1w', 'PDw', 'inphase', 'opposedphase', 'fat', 'fatfraction')
SLICES = 9
COLUMNS = 3
BIAS_SLICES = 3
HISTOGRAM_BINS = 25
#: The bias field is shown from half to double, on a logarithmic scale.
FIELD_RANGE = 2.0
FRACTION_COLOURS = 'inferno'
FIELD_COLOURS = 'PuOr_r'
BAR_WIDTH_PX = 74


@dataclass(frozen=True, kw_only=True)
class FigureImages:
    """The images of a scan that its pictures show, all (X, Y, Z), RAS+, on one grid.

    Parameters
    ----------
    raw
        Images by contrast before bias correction.
    corrected
        The same images after bias correction; the same objects' data where none was done.
    body_mask
        Non-zero inside the body.
    labels
        Label numbers.
    fat_fraction
        Fat fraction 0 to 1, NaN where undefined.
    confidence
        Probability of the label of each voxel.
    """

    raw: Mapping[str, nib.Nifti1Image]
    corrected: Mapping[str, nib.Nifti1Image]
    body_mask: nib.Nifti1Image
    labels: nib.Nifti1Image
    fat_fraction: nib.Nifti1Image | None = None
    confidence: nib.Nifti1Image | None = None


def scan_figures(
    images: FigureImages,
    table: LabelTable,
    atlas: tuple[nib.Nifti1Image, nib.Nifti1Image] | None = None,
    levels: Mapping[int, str] | None = None,
    *,
    brief: bool = False,
) -> dict[str, bytes]:
    """Draw all pictures of one scan.

    Parameters
    ----------
    images
        Its images.
    table
        Labels and their colours.
    atlas
        Image and label numbers of the aligned atlas, same grid.
    levels
        Vertebral level by axial slice, where it is known.
    brief
        Only ``slices``, ``segmentation``, ``extent``, ``thumbnail`` and ``histograms``.

    Returns
    -------
    dict
        Files by name, which is their ``desc`` entity. WebP: ``slices`` and ``segmentation`` (the
        same slices without and with the labels), ``extent``, ``surfaces`` (the muscles in 3-D),
        ``axial``, ``coronal`` and ``sagittal`` (sheets of all slices), ``thumbnail``;
        with a fat fraction ``fatfraction``; with an atlas ``alignment`` (its labels on the scan)
        and ``template`` (its image and labels); where a bias field was removed ``uncorrected``,
        ``corrected`` and ``bias``, the field. JSON: ``outlines`` of all slices, and with a fat
        fraction ``histograms`` of it by muscle.
    """
    contrast = next(name for name in BACKGROUNDS if name in images.corrected)
    raw, background = images.raw[contrast], images.corrected[contrast]
    numbers = _labels(images.labels)
    spacing = background.header.get_zooms()[:3]
    unsure = None
    if images.confidence:
        unsure = cuts.least_sure_slice(numbers, _data(images.confidence))
    body = np.asarray(images.body_mask.dataobj) > 0
    view = replace(
        cuts.plan_view(numbers, body, spacing, SLICES, unsure), levels=dict(levels or {})
    )
    view = replace(view, windows=_windows(_data(background), numbers, view))
    figures: dict[str, bytes] = {
        'slices': draw_slices(background, None, table, view),
        'segmentation': draw_slices(background, numbers, table, view),
        'extent': draw_extent(background, numbers, table, view),
        'thumbnail': scroller.draw_thumbnail(background, numbers, table, view),
    }
    if images.fat_fraction is not None:
        figures['histograms'] = count_fractions(images.fat_fraction, numbers)
    if brief:
        return figures
    sheets = [
        scroller.plan_sheet(plane, view, numbers.shape, spacing) for plane in scroller.PLANES
    ]
    figures |= {
        'surfaces': surfaces.draw_surfaces(images.labels, table),
        **{str(sheet.plane): scroller.draw_sheet(background, view, sheet) for sheet in sheets},
        'outlines': scroller.trace_outlines(images.labels, view, sheets),
    }
    if atlas is not None:
        template, carried = atlas[0], _labels(atlas[1])
        figures['alignment'] = draw_slices(background, carried, table, view)
        bare = replace(view, windows={})
        figures['template'] = draw_slices(template, carried, table, bare, 'atlas, ')
    if images.fat_fraction is not None:
        figures['fatfraction'] = draw_fat_fraction(images.fat_fraction, numbers, table, view)
    before, after = np.nan_to_num(_data(raw)), _data(background)
    if not np.array_equal(before, after):
        figures |= draw_bias(raw, background, images.body_mask, view)
    return figures


def draw_slices(
    background: nib.Nifti1Image,
    numbers: np.ndarray | None,
    table: LabelTable,
    view: cuts.View,
    name: str = '',
) -> bytes:
    """Draw axial slices, with the labels as outlines where ``numbers`` is given.

    Parameters
    ----------
    background
        Image of shape (X, Y, Z), RAS+.
    numbers
        Label numbers of the same shape, or None for the bare slices.
    table
        Labels and their colours.
    view
        What is shown.
    name
        What the titles begin with.
    """
    data = _data(background)
    size = cuts.panel_size('axial', view, background.header.get_zooms(), cuts.PANEL_WIDTH_PX)
    drawn = []
    for index in view.slices:
        picture = cuts.cut(data, 'axial', index, view)
        # Grey levels of its own for each slice: coils see the ends of a scan less.
        window = view.windows.get(index) or panels.robust_window(picture)
        panel = panels.grey_panel(picture, window, size)
        if numbers is not None:
            panel = panels.draw_labels(panel, cuts.cut(numbers, 'axial', index, view), table)
        title = name + cuts.slice_title(background, view, index, break_='\n')
        drawn.append(panels.annotate(panel, 'axial', title))
    return panels.to_webp(panels.montage(drawn, COLUMNS))


def draw_extent(
    background: nib.Nifti1Image, numbers: np.ndarray, table: LabelTable, view: cuts.View
) -> bytes:
    """Draw a coronal and a sagittal slice through the muscles, with the axial slices as lines.

    Both go where there is most to see of all muscles. Parameters as in :func:`draw_slices`.
    """
    from PIL import Image, ImageDraw

    data = _data(background)
    spacing = background.header.get_zooms()
    bottom, top = view.box[2]
    window = _window(data, view)
    drawn: list[Image.Image] = []
    width_mm = [(high - low) * mm for (low, high), mm in zip(view.box, spacing, strict=False)]
    widths = {
        'coronal': round(2 * cuts.PANEL_WIDTH_PX * width_mm[0] / (width_mm[0] + width_mm[1])),
        'sagittal': round(2 * cuts.PANEL_WIDTH_PX * width_mm[1] / (width_mm[0] + width_mm[1])),
    }
    for plane in ('coronal', 'sagittal'):
        across = cuts.ACROSS[plane]
        index = int(np.argmax(cuts.muscle_share(numbers, across)))
        if not numbers.any():
            index = data.shape[across] // 2
        size = cuts.panel_size(plane, view, spacing, widths[plane])
        panel = panels.grey_panel(cuts.cut(data, plane, index, view), window, size)
        panel = panels.draw_labels(panel, cuts.cut(numbers, plane, index, view), table)
        image = panels.annotate(panel, plane, plane)
        draw = ImageDraw.Draw(image)
        free = 0.0
        for k in view.slices:
            row = round((top - k - 0.5) / (top - bottom) * size[1])
            for start in (20, size[0] - 44):
                draw.line([(start, row), (start + 24, row)], fill='white')
            if k in view.levels and row >= free:
                panels.write(image, (48, row), view.levels[k], anchor='lm')
                free = row + panels.TEXT_PX
        drawn.append(image)
    sheet = Image.new('RGB', (sum(p.width for p in drawn) + panels.GAP_PX, drawn[0].height))
    sheet.paste(drawn[0], (0, 0))
    sheet.paste(drawn[1], (drawn[0].width + panels.GAP_PX, 0))
    return panels.to_webp(sheet)


def draw_fat_fraction(
    fat_fraction: nib.Nifti1Image, numbers: np.ndarray, table: LabelTable, view: cuts.View
) -> bytes:
    """Draw the fat fraction on the slices of the segmentation, 0 to 100 %, muscles outlined.

    Parameters
    ----------
    fat_fraction
        Fat fraction 0 to 1 of shape (X, Y, Z), RAS+; NaN is black.
    numbers
        Label numbers of the same shape.
    table
        Labels.
    view
        What is shown.
    """
    data = _data(fat_fraction)
    size = cuts.panel_size('axial', view, fat_fraction.header.get_zooms(), cuts.PANEL_WIDTH_PX)
    drawn = []
    for index in view.slices:
        picture = cuts.cut(data, 'axial', index, view)
        panel = panels.colour_panel(picture, (0, 1), size, FRACTION_COLOURS)
        panel = panels.draw_labels(
            panel,
            cuts.cut(numbers, 'axial', index, view),
            table,
            opacity=0,
            line_px=1,
            colour=(255, 255, 255),
        )
        drawn.append(panels.annotate(panel, 'axial', cuts.slice_title(fat_fraction, view, index)))
    ticks = {fraction / 100: f'{fraction} %' for fraction in (0, 25, 50, 75, 100)}
    return panels.to_webp(_with_bar(panels.montage(drawn, COLUMNS), FRACTION_COLOURS, ticks))


def count_fractions(fat_fraction: nib.Nifti1Image, numbers: np.ndarray) -> bytes:
    """Count the voxels of each muscle by their fat fraction.

    Parameters
    ----------
    fat_fraction
        Fat fraction 0 to 1 of shape (X, Y, Z); what is not finite does not count.
    numbers
        Label numbers of the same shape.

    Returns
    -------
    bytes
        JSON: counts by label number, in bins of equal width from 0 to 1.
    """
    data = _data(fat_fraction)
    counts = {}
    for label in np.unique(numbers[numbers > 0]).tolist():
        values = data[numbers == label]
        known = np.clip(values[np.isfinite(values)], 0, 1)
        counts[str(label)] = np.histogram(known, HISTOGRAM_BINS, (0, 1))[0].tolist()
    return (json.dumps(counts, separators=(',', ':')) + '\n').encode('ascii')


def draw_bias(
    before: nib.Nifti1Image,
    after: nib.Nifti1Image,
    body_mask: nib.Nifti1Image,
    view: cuts.View,
) -> dict[str, bytes]:
    """Draw slices before and after bias correction, and the field between them.

    Parameters
    ----------
    before, after
        The image of shape (X, Y, Z), RAS+, before and after correction.
    body_mask
        Non-zero inside the body; the view is widened to it, since the field is largest there.
    view
        What is shown.

    Returns
    -------
    dict
        ``uncorrected`` and ``corrected``, which lie on each other, and ``bias``.
    """
    body = np.asarray(body_mask.dataobj) > 0
    spacing = before.header.get_zooms()
    shown = cuts.plan_view(np.zeros(body.shape, np.uint8), body, spacing[:3], 1).box
    middle = np.linspace(0, len(view.slices) - 1, min(BIAS_SLICES + 2, len(view.slices)))
    picks = [view.slices[round(k)] for k in (middle[1:-1] if middle.size > 2 else middle)]
    wide = cuts.View(tuple(picks), shown, levels=view.levels)
    size = cuts.panel_size('axial', wide, spacing, cuts.PANEL_WIDTH_PX)
    titles = [cuts.slice_title(before, wide, index) for index in picks]
    first, second = _data(before), _data(after)
    with np.errstate(divide='ignore', invalid='ignore'):
        field = np.where(body & (second > 0) & (first > 0), np.log2(first / second), np.nan)
    figures = {}
    for name, title, data in (
        ('uncorrected', 'before', first),
        ('corrected', 'after', second),
    ):
        window = panels.robust_window(data[body] if body.any() else data)
        drawn = [
            panels.annotate(
                panels.grey_panel(cuts.cut(data, 'axial', index, wide), window, size),
                'axial',
                f'{title}, {place}',
            )
            for index, place in zip(picks, titles, strict=True)
        ]
        figures[name] = panels.to_webp(panels.montage(drawn, COLUMNS))
    limit = float(np.log2(FIELD_RANGE))
    drawn = [
        panels.annotate(
            panels.colour_panel(
                cuts.cut(field, 'axial', index, wide), (-limit, limit), size, FIELD_COLOURS
            ),
            'axial',
            f'field, {place}',
        )
        for index, place in zip(picks, titles, strict=True)
    ]
    ticks = {0.0: '0.5', 0.25: '0.7', 0.5: '1', 0.75: '1.4', 1.0: '2'}
    sheet = _with_bar(panels.montage(drawn, COLUMNS), FIELD_COLOURS, ticks)
    return {**figures, 'bias': panels.to_webp(sheet)}


def _with_bar(sheet: Image.Image, colours: str, ticks: Mapping[float, str]) -> Image.Image:
    """Add a colour bar at the right; ticks by position, 0 (bottom) to 1 (top)."""
    from matplotlib import colormaps
    from PIL import Image

    top, height = 14, max(min(sheet.height, 420) - 28, 20)
    ramp = (colormaps[colours](np.linspace(1, 0, height))[:, None, :3] * 255).round()
    whole = Image.new('RGB', (sheet.width + BAR_WIDTH_PX, sheet.height))
    whole.paste(sheet, (0, 0))
    bar = np.repeat(ramp.astype(np.uint8), 16, axis=1)
    whole.paste(Image.fromarray(bar), (sheet.width + 8, top))
    for position, text in ticks.items():
        at = sheet.width + 29, top + (1 - position) * height
        panels.write(whole, at, text, anchor='lm')
    return whole


def _labels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj).astype(np.int16)


def _windows(
    data: np.ndarray, numbers: np.ndarray, view: cuts.View
) -> dict[int, tuple[float, float]]:
    """Grey levels of every axial slice."""
    return {
        index: panels.muscle_window(
            cuts.cut(data, 'axial', index, view), cuts.cut(numbers, 'axial', index, view) > 0
        )
        for index in range(data.shape[2])
    }


def _data(image: nib.Nifti1Image) -> np.ndarray:
    return image.get_fdata(dtype=np.float32)


def _window(data: np.ndarray, view: cuts.View) -> tuple[float, float]:
    """Grey levels from the shown part of the shown slices."""
    (x0, x1), (y0, y1), _ = view.box
    return panels.robust_window(data[x0:x1, y0:y1, list(view.slices)])
