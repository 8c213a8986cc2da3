"""A test segmentation drawn over its reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_muscle.reports import panels
from bids_muscle.reports import slices as cuts

if TYPE_CHECKING:
    from bids_muscle.anatomy.labels import LabelTable

SLICES = 3
WHITE = (255, 255, 255)


def slice_dice(test: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the Dice of all labels together in each axial slice, NaN where there is none.

    Parameters
    ----------
    test, reference
        Label numbers of shape (X, Y, Z), 0 where there is no label.

    Examples
    --------
    >>> test, reference = np.array([[[1, 0, 2], [1, 0, 2]]]), np.array([[[1, 0, 1], [0, 0, 2]]])
    >>> slice_dice(test, reference).round(2)
    array([0.67,  nan, 0.5 ])
    """
    both = ((test == reference) & (test > 0)).sum(axis=(0, 1))
    total = (test > 0).sum(axis=(0, 1)) + (reference > 0).sum(axis=(0, 1))
    return np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)


def draw_overlay(
    image: np.ndarray | None,
    test: np.ndarray,
    reference: np.ndarray,
    table: LabelTable,
    spacing_mm: tuple[float, float, float],
) -> bytes:
    """Draw three axial slices: test in colours, reference as white lines. WebP.

    Parameters
    ----------
    image
        (X, Y, Z) in RAS+ order; None for a black ground.
    test, reference
        Label numbers of the same shape.
    table
        Labels and their colours.
    spacing_mm
        Voxel size along the three axes.
    """
    data = np.zeros(test.shape, np.float32) if image is None else image
    dice = slice_dice(test, reference)
    area = (reference > 0).sum(axis=(0, 1))
    # At its ends every muscle has a low Dice.
    judged = np.where((area >= cuts.LITTLE * area.max()) & (area > 0), dice, np.inf)
    worst = int(np.argmin(judged)) if np.isfinite(judged).any() else None
    shown = np.where(reference > 0, reference, test)
    view = cuts.plan_view(shown, shown > 0, spacing_mm, SLICES, worst)
    best = int(np.argmax(cuts.muscle_share(shown, 2))) if shown.any() else view.slices[0]
    picks = list(dict.fromkeys([best, *([] if worst is None else [worst]), *view.slices]))[:SLICES]
    size = cuts.panel_size('axial', view, spacing_mm, cuts.PANEL_WIDTH_PX)
    drawn = []
    for index in sorted(picks, reverse=True):
        picture = cuts.cut(data, 'axial', index, view)
        mine, truth = (cuts.cut(each, 'axial', index, view) for each in (test, reference))
        panel = panels.grey_panel(picture, panels.muscle_window(picture, truth > 0), size)
        panel = panels.draw_labels(panel, mine, table, opacity=0.3)
        panel = panels.draw_labels(panel, truth, table, opacity=0, line_px=1, colour=WHITE)
        title = f'slice {index}' + (
            f', Dice {dice[index]:.2f}' if np.isfinite(dice[index]) else ''
        )
        drawn.append(panels.annotate(panel, 'axial', title))
    return panels.to_webp(panels.montage(drawn, SLICES))
