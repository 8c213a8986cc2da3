"""The spine of a sagittal scan as a picture with names and heights, and its colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.anatomy.labels import SPINE, Label, LabelTable
from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    import nibabel as nib
    import pandas as pd

#: Colours of vertebrae in turn, and of discs; told apart by the colour-blind.
VERTEBRAE_COLOURS = ('#E69F00', '#009E73', '#CC79A7', '#F0E442')
DISC_COLOURS = ('#56B4E9', '#D55E00')
HEIGHT_PX = 620


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
    grey = cuts.grey_panel(plane[::-1, ::-1].T, cuts.robust_window(plane), (width, HEIGHT_PX))
    seen = numbers[middle][::-1, ::-1].T
    names = {int(row['index']): row['name'] for _, row in table.dropna(subset='index').iterrows()}
    panel = cuts.draw_labels(grey, seen, spine_labels(names), opacity=0.25, line_px=1)
    picture = Image.fromarray(panel)
    scale = width / seen.shape[1], HEIGHT_PX / seen.shape[0]
    draw = ImageDraw.Draw(picture)
    for _, row in table.iterrows():
        at = np.argwhere(seen == row['index'])
        if not len(at):
            continue
        y, x = (at.mean(0) + 0.5) * (scale[1], scale[0])
        if row['kind'] == 'vertebra':
            cuts.write(picture, (x, y), str(row['name']), anchor='mm')
        elif np.isfinite(row['height_mm']):
            edge = (at[:, 1].min() - 1) * scale[0]
            draw.line([(edge - 12, y), (edge, y)], fill='white')
            text = f'{row["name"]} {row["height_mm"]:.1f} mm'
            cuts.write(picture, (edge - 15, y), text, anchor='rm')
    x_mm = float(image.affine[0] @ [middle, plane.shape[0] / 2, plane.shape[1] / 2, 1])
    cuts.write(picture, (5, 3), f'x {round(x_mm):+d} mm')
    cuts.write(picture, (5, HEIGHT_PX / 2), 'A', anchor='lm')
    cuts.write(picture, (width - 5, HEIGHT_PX / 2), 'P', anchor='rm')
    cuts.write(picture, (width / 2, 3), 'S', anchor='ma')
    cuts.write(picture, (width / 2, HEIGHT_PX - 3), 'I', anchor='md')
    return cuts.to_webp(picture)
