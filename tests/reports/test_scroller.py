"""The sheet of all slices and the outlines on it: every slice, every label, where it is."""

from __future__ import annotations

import io
import json
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.reports import scroller
from bids_muscle.reports import slices as cuts

TABLE = load_label_table('lumbar')
SPACING = (1.0, 1.5, 8.0)
Volume = tuple[nib.Nifti1Image, np.ndarray, cuts.View]


@pytest.fixture
def volume() -> Volume:
    """Five slices of different grey; a ring, a voxel and a block of other labels in one."""
    numbers = np.zeros((60, 40, 5), np.uint8)
    numbers[10:30, 10:25, 3] = 1
    numbers[15:20, 13:20, 3] = 0
    numbers[40, 20, 3] = 2
    numbers[5:9, 30:39, 1] = 7
    data = np.broadcast_to(np.arange(5, dtype=np.float32) * 50, (60, 40, 5))
    affine = np.diag([*SPACING, 1.0])
    view = cuts.View((3,), ((2, 58), (4, 40), (0, 5)))
    return nib.Nifti1Image(data, affine), numbers, view


def rasterise(path: str, size: tuple[int, int], subpixels: int) -> np.ndarray:
    """Fill an SVG path of straight lines by the even-odd rule."""
    whole = Image.new('1', size)
    for part in re.findall(r'M([^z]*)z', path):
        steps = np.array([int(n) for n in re.split(r'[ l]', part)]).reshape(-1, 2)
        points = np.cumsum(steps, axis=0) / subpixels - 0.5
        one = Image.new('1', size)
        ImageDraw.Draw(one).polygon([tuple(point) for point in points], fill=1)
        whole = ImageChops.logical_xor(whole, one)
    return np.asarray(whole)


def test_each_slice_stands_in_its_place(volume: Volume) -> None:
    background, _, view = volume
    content, (columns, width, height) = scroller.draw_sheet(background, view)
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert('L')).astype(int)
    # Superior first: the brightest slice is the last one of the volume.
    greys = []
    for place in range(5):
        row, column = divmod(place, columns)
        tile = sheet[row * height :, column * width :][:height, :width]
        assert tile.std() < 2
        greys.append(tile.mean())
    assert greys == sorted(greys, reverse=True)
    assert greys[0] > 250
    assert width / height == pytest.approx(56 * SPACING[0] / (36 * SPACING[1]), rel=0.01)


def test_outlines_lie_on_the_voxels(volume: Volume) -> None:
    background, numbers, view = volume
    _, layout = scroller.draw_sheet(background, view)
    labels = nib.Nifti1Image(numbers, background.affine)
    content = json.loads(scroller.trace_outlines(labels, view, layout))
    size = layout[1:]
    assert content['first'] == 1
    assert [sorted(each['paths']) for each in content['slices']] == [[], ['1', '2'], [], ['7'], []]
    for place, label in ((1, 1), (1, 2), (3, 7)):
        path = content['slices'][place]['paths'][str(label)]
        found = rasterise(path, size, content['subpixels'])
        true = cuts.cut(numbers == label, 'axial', 4 - place, view).astype(np.uint8)
        true = np.asarray(Image.fromarray(true).resize(size, Image.Resampling.NEAREST)) > 0
        dice = 2 * (found & true).sum() / (found.sum() + true.sum())
        # A single voxel is drawn as the diamond inside it.
        assert dice > (0.6 if label == 2 else 0.97), label


def test_very_many_slices_still_make_one_sheet() -> None:
    view = cuts.View((0,), ((0, 400), (0, 300), (0, 900)))
    width, height = scroller._tile_size(view, (1.0, 1.0, 1.0), 900)
    assert 900 * width * height <= scroller.SHEET_PX
    assert width > 150
    tall = cuts.View((0,), ((0, 4), (0, 4000), (0, 2)))
    assert max(scroller._tile_size(tall, (1.0, 1.0, 1.0), 2)) <= scroller.SIDE_PX


def test_the_thumbnail_shows_the_slice_with_most_muscle(volume: Volume) -> None:
    background, numbers, view = volume
    content = scroller.draw_thumbnail(background, numbers, TABLE, view)
    image = Image.open(io.BytesIO(content)).convert('RGB')
    assert image.width == scroller.THUMBNAIL_WIDTH_PX
    assert len(content) < 20_000
    # Slice 3 holds label 1, which is light blue; slice 1 holds yellow.
    red, _, blue = (np.asarray(image)[:, :, k].astype(int) for k in range(3))
    assert (blue - red).max() > 60
    assert (red - blue).max() < 60


def test_same_images_same_bytes(volume: Volume) -> None:
    background, numbers, view = volume
    labels = nib.Nifti1Image(numbers, background.affine)
    first, layout = scroller.draw_sheet(background, view)
    assert scroller.draw_sheet(background, view)[0] == first
    again = scroller.trace_outlines(labels, view, layout)
    assert scroller.trace_outlines(labels, view, layout) == again
