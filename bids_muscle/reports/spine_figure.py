"""Figures of the spine in a sagittal scan, and the colours of its vertebrae and discs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.anatomy.labels import SPINE, Label, LabelTable
from bids_muscle.reports import panels, scroller
from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    import nibabel as nib
    import pandas as pd

#: Colours of vertebrae in turn, and of discs; neighbours differ for the colour-blind, too.
VERTEBRAE_COLOURS = ('#E69300', '#00876A', '#FFF36B')
DISC_COLOURS = ('#56B4E9', '#0072B2')
HEIGHT_PX = 620
#: What the slice viewer shows in front of the spine and behind it.
MARGIN_MM = 60.0
#: Planes of the slice viewer, that of the scan first.
PLANES: tuple[cuts.Plane, ...] = ('sagittal', 'coronal', 'axial')


def spine_labels(names: Mapping[int, str]) -> LabelTable:
    """Return the label table of a map of vertebrae or discs.

    Examples
    --------
    >>> [label.name for label in spine_labels({24: 'L5', 23: 'L4'})]
    ['L4', 'L5']
    """
    return LabelTable(
        SPINE,
        tuple(
            Label(number, name, name, name.replace(' ', ''), 'middle', _colour(number))
            for number, name in sorted(names.items())
        ),
    )


def _colour(number: int) -> str:
    colours = VERTEBRAE_COLOURS if number <= 100 else DISC_COLOURS
    return colours[number % len(colours)]


def spine_figures(
    image: nib.Nifti1Image,
    vertebrae: nib.Nifti1Image,
    discs: nib.Nifti1Image,
    table: pd.DataFrame,
) -> dict[str, bytes]:
    """Draw all figures of a sagittal scan. Parameters as in :func:`draw_spine`.

    Returns
    -------
    dict
        Files by name, which is their ``desc`` entity: ``spine``, the picture with names;
        ``sagittal``, ``coronal``, ``axial`` and ``outlines`` for the slice viewer.
    """
    numbers = np.maximum(np.asarray(vertebrae.dataobj), np.asarray(discs.dataobj))
    spacing = image.header.get_zooms()[:3]
    x_size, y_size, z_size = numbers.shape
    where = np.flatnonzero(numbers.any(axis=(0, 2)))
    margin = round(MARGIN_MM / spacing[1])
    front_back = (0, y_size)
    if where.size:
        front_back = max(int(where[0]) - margin, 0), min(int(where[-1]) + 1 + margin, y_size)
    view = cuts.View((z_size // 2,), ((0, x_size), front_back, (0, z_size)))
    sheets = [
        scroller.plan_sheet(plane, view, numbers.shape, spacing, PLANES[0]) for plane in PLANES
    ]
    labels = type(image)(numbers, image.affine)
    return {
        'spine': draw_spine(image, vertebrae, discs, table),
        'outlines': scroller.trace_outlines(labels, view, sheets, PLANES[0]),
        **{str(sheet.plane): scroller.draw_sheet(image, view, sheet) for sheet in sheets},
    }


def draw_spine(
    image: nib.Nifti1Image,
    vertebrae: nib.Nifti1Image,
    discs: nib.Nifti1Image,
    table: pd.DataFrame,
) -> bytes:
    """Draw the slice through the middle of the spine: WebP with names and disc heights.

    Parameters
    ----------
    image, vertebrae, discs
        (X, Y, Z) in RAS+ order, one grid.
    table
        From :func:`~bids_muscle.measurement.spine.measure_spine`.
    """
    from PIL import Image, ImageDraw

    numbers = np.maximum(np.asarray(vertebrae.dataobj), np.asarray(discs.dataobj))
    where = np.nonzero(numbers)[0]
    middle = int(np.median(where)) if where.size else numbers.shape[0] // 2
    zooms = image.header.get_zooms()[:3]
    plane = np.asarray(image.dataobj[middle], np.float32)
    width = max(round(HEIGHT_PX * plane.shape[0] * zooms[1] / (plane.shape[1] * zooms[2])), 1)
    # On screen the front is on the left, and rows run downwards.
    grey = panels.grey_panel(plane[::-1, ::-1].T, panels.robust_window(plane), (width, HEIGHT_PX))
    seen = numbers[middle][::-1, ::-1].T
    names = {int(row['index']): row['name'] for _, row in table.dropna(subset='index').iterrows()}
    panel = panels.draw_labels(grey, seen, spine_labels(names), opacity=0.25, line_px=1)
    picture = Image.fromarray(panel)
    scale = width / seen.shape[1], HEIGHT_PX / seen.shape[0]
    draw = ImageDraw.Draw(picture)
    for _, row in table.iterrows():
        at = np.argwhere(seen == row['index'])
        if not len(at):
            continue
        y, x = (at.mean(0) + 0.5) * (scale[1], scale[0])
        if row['kind'] == 'vertebra':
            panels.write(picture, (x, y), str(row['name']), anchor='mm')
        elif np.isfinite(row['height_mm']):
            edge = (at[:, 1].min() - 1) * scale[0]
            draw.line([(edge - 12, y), (edge, y)], fill='white')
            text = f'{row["name"]} {row["height_mm"]:.1f} mm'
            panels.write(picture, (edge - 15, y), text, anchor='rm')
    x_mm = float(image.affine[0] @ [middle, plane.shape[0] / 2, plane.shape[1] / 2, 1])
    panels.write(picture, (5, 3), f'x {round(x_mm):+d} mm')
    panels.write(picture, (5, HEIGHT_PX / 2), 'A', anchor='lm')
    panels.write(picture, (width - 5, HEIGHT_PX / 2), 'P', anchor='rm')
    panels.write(picture, (width / 2, 3), 'S', anchor='ma')
    panels.write(picture, (width / 2, HEIGHT_PX - 3), 'I', anchor='md')
    return panels.to_webp(picture)
