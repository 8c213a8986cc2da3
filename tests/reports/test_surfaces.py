"""The muscles in 3-D: each where it is, the nearest in front, all to one scale."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.reports import panels as drawing
from bids_muscle.reports import surfaces

TABLE = load_label_table('lumbar')
#: Labels, and their place in the volume below.
RIGHT, LEFT, BACK, TOP = 1, 2, 3, 6


def muscles() -> nib.Nifti1Image:
    """Two cubes of 24 mm beside each other, a larger one behind them, one on top; thick slices."""
    numbers = np.zeros((90, 90, 24), np.uint8)
    numbers[60:84, 50:74, 4:10] = RIGHT
    numbers[6:30, 50:74, 4:10] = LEFT
    numbers[6:84, 10:34, 4:10] = BACK
    numbers[33:57, 50:74, 14:20] = TOP
    return nib.Nifti1Image(numbers, np.diag([1.0, 1.0, 4.0, 1.0]))


@pytest.fixture(scope='module')
def panels() -> dict[str, np.ndarray]:
    """Give the views by name; each pixel is the label of its colour, 0 where it is black."""
    sheet = Image.open(io.BytesIO(surfaces.draw_surfaces(muscles(), TABLE))).convert('RGB')
    picture = np.asarray(sheet).astype(float)
    high, wide = ((n + drawing.GAP_PX) // 2 for n in picture.shape[:2])
    present = np.array([RIGHT, LEFT, BACK, TOP])
    rgb = {label.index: label.rgb for label in TABLE}
    colours = np.array([rgb[label] for label in present], float)
    found = {}
    for place, name in enumerate(surfaces.VIEWS):
        row, column = divmod(place, 2)
        part = picture[row * high : row * high + high - drawing.GAP_PX]
        part = part[:, column * wide : column * wide + wide - drawing.GAP_PX]
        # Shading changes brightness, not hue.
        hue = part / np.maximum(np.linalg.norm(part, axis=2, keepdims=True), 1)
        like = hue @ (colours / np.linalg.norm(colours, axis=1, keepdims=True)).T
        labels = present[like.argmax(axis=2)]
        # Text is white: it has no hue.
        labels[(part.max(axis=2) < 60) | (np.ptp(part, axis=2) < 40)] = 0
        found[name] = labels
    return found


def middle(panel: np.ndarray, label: int) -> np.ndarray:
    where = np.argwhere(panel == label)
    assert len(where) > 200, label
    return np.median(where, axis=0)


def test_each_side_is_where_the_letters_say(panels: dict[str, np.ndarray]) -> None:
    front, behind, below = (
        panels[name] for name in ('from the front', 'from behind', 'from below')
    )
    assert middle(front, RIGHT)[1] < middle(front, TOP)[1] < middle(front, LEFT)[1]
    assert middle(front, TOP)[0] < middle(front, RIGHT)[0]
    assert middle(behind, TOP)[0] < middle(behind, BACK)[0]
    assert middle(below, RIGHT)[1] < middle(below, LEFT)[1]
    assert middle(below, LEFT)[0] < middle(below, BACK)[0]


def test_the_nearest_muscle_hides_the_others(panels: dict[str, np.ndarray]) -> None:
    front, behind = panels['from the front'], panels['from behind']
    at = tuple(middle(front, RIGHT).astype(int))
    assert front[at] == RIGHT
    # From behind, nothing of the two in front is seen but their edge.
    assert (behind == RIGHT).sum() < 0.02 * (front == RIGHT).sum()
    assert (behind == LEFT).sum() < 0.02 * (front == LEFT).sum()
    assert (behind == BACK).sum() > 2.5 * (front == RIGHT).sum()


def test_views_have_one_scale(panels: dict[str, np.ndarray]) -> None:
    """A cube of 24 mm is as wide from the front as from below, and as high as it is wide.

    At the edges of a cube, shading brings its hue near that of another.
    """
    front, below = panels['from the front'], panels['from below']
    sizes = []
    for panel, label in ((front, TOP), (below, RIGHT)):
        rows, columns = np.nonzero(panel == label)
        sizes += [np.ptp(np.percentile(each, [5, 95])) for each in (rows, columns)]
    assert max(sizes) / min(sizes) < 1.1


def test_no_muscle_and_the_same_bytes() -> None:
    empty = nib.Nifti1Image(np.zeros((8, 8, 2), np.uint8), np.eye(4))
    assert Image.open(io.BytesIO(surfaces.draw_surfaces(empty, TABLE))).width > 100
    one = np.zeros((8, 8, 1), np.uint8)
    one[3:6, 3:6] = RIGHT
    single = nib.Nifti1Image(one, np.eye(4))
    assert surfaces.draw_surfaces(single, TABLE) == surfaces.draw_surfaces(single, TABLE)
