"""The sheet of all slices and the outlines on it: every slice, every label, where it is."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageChops, ImageDraw

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.reports import scroller
from bids_muscle.reports import slices as cuts
from bids_muscle.reports.spine_figure import spine_figures

TABLE = load_label_table('lumbar')
SPACING = (1.0, 1.5, 8.0)
Volume = tuple[nib.Nifti1Image, np.ndarray, cuts.View]


@pytest.fixture
def volume() -> Volume:
    """Five slices with more and more of them bright; a ring, a voxel and a block of labels."""
    numbers = np.zeros((60, 40, 5), np.uint8)
    numbers[10:30, 10:25, 3] = 1
    numbers[15:20, 13:20, 3] = 0
    numbers[40, 20, 3] = 2
    numbers[5:9, 30:39, 1] = 7
    bright = np.arange(60)[:, None, None] < 10 * np.arange(1, 6)
    data = np.broadcast_to(np.where(bright, 100.0 * np.arange(1, 6), 0), (60, 40, 5))
    data = data.astype(np.float32)
    affine = np.diag([*SPACING, 1.0])
    view = cuts.View((3,), ((2, 58), (4, 40), (0, 5)))
    return nib.Nifti1Image(data, affine), numbers, view


def rasterise(path: str, size: tuple[int, int], subpixels: float) -> np.ndarray:
    """Fill an SVG path of straight lines by the even-odd rule."""
    whole = Image.new('1', size)
    for part in re.findall(r'M([^z]*)z', path):
        steps = np.array([int(n) for n in re.split(r'[ l]', part)]).reshape(-1, 2)
        points = np.cumsum(steps, axis=0) / subpixels - 0.5
        one = Image.new('1', size)
        ImageDraw.Draw(one).polygon([tuple(point) for point in points], fill=1)
        whole = ImageChops.logical_xor(whole, one)
    return np.asarray(whole)


def sheet_of(volume: Volume, plane: cuts.Plane) -> scroller.Sheet:
    background, _, view = volume
    return scroller.plan_sheet(plane, view, background.shape, SPACING)


def outlines_of(volume: Volume) -> dict[str, Any]:
    background, numbers, view = volume
    labels = nib.Nifti1Image(numbers, background.affine)
    sheets = [sheet_of(volume, plane) for plane in scroller.PLANES]
    return json.loads(scroller.trace_outlines(labels, view, sheets))


def test_each_slice_stands_in_its_place(volume: Volume) -> None:
    background, _, view = volume
    plan = sheet_of(volume, 'axial')
    content = scroller.draw_sheet(background, view, plan)
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert('L')).astype(int)
    # Superior first: the last slice of the volume has most that is bright. All are as bright.
    for place in range(5):
        row, column = divmod(place, plan.columns)
        tile = sheet[row * plan.height :, column * plan.width :][: plan.height, : plan.width]
        shown = np.arange(2, 58) < 10 * (5 - place)
        assert (tile > 128).mean() == pytest.approx(shown.mean(), abs=0.02)
        assert np.percentile(tile, 98) > 240
    assert plan.width / plan.height == pytest.approx(56 * SPACING[0] / (36 * SPACING[1]), rel=0.01)


@pytest.mark.parametrize(('plane', 'axis'), [('coronal', 1), ('sagittal', 0)])
def test_other_planes_show_the_slices_they_name(
    volume: Volume, plane: cuts.Plane, axis: int
) -> None:
    """The image is made bright in one slice: the sheet shows it where the layout says."""
    background, numbers, view = volume
    plan = sheet_of(volume, plane)
    assert plan.step * SPACING[axis] >= scroller.STEP_MM
    assert set(plan.slices) <= set(range(*view.box[axis]))
    assert len(plan.slices) == plan.count == len(outlines_of(volume)['planes'][plane]['slices'])
    data = np.full(numbers.shape, 10, np.float32)
    bright = plan.slices[3]
    np.moveaxis(data, axis, 0)[bright] = 200
    content = scroller.draw_sheet(nib.Nifti1Image(data, background.affine), view, plan)
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert('L')).astype(int)
    row, column = divmod(3, plan.columns)
    inside = np.zeros(sheet.shape, bool)
    inside[
        row * plan.height : (row + 1) * plan.height,
        column * plan.width : (column + 1) * plan.width,
    ] = True
    assert sheet[inside].min() > 150
    assert sheet[~inside].max() < 100


@pytest.mark.parametrize(
    ('plane', 'label', 'index'),
    [('axial', 1, 3), ('axial', 2, 3), ('axial', 7, 1), ('coronal', 1, 18), ('sagittal', 7, 7)],
)
def test_outlines_lie_on_the_voxels(
    volume: Volume, plane: cuts.Plane, label: int, index: int
) -> None:
    _, numbers, view = volume
    plan, content = sheet_of(volume, plane), outlines_of(volume)
    layout = content['planes'][plane]
    place = int(np.argmin(np.abs(np.array(plan.slices) - index)))
    path = layout['slices'][place]['paths'][str(label)]
    finer = 4
    size = layout['width'] * finer, layout['height'] * finer
    found = rasterise(path, size, content['subpixels'] / finer)
    true = cuts.cut(numbers == label, plane, plan.slices[place], view).astype(np.uint8)
    true = np.asarray(Image.fromarray(true).resize(size, Image.Resampling.NEAREST)) > 0
    dice = 2 * (found & true).sum() / (found.sum() + true.sum())
    # A single voxel, and a row of them, is drawn as the diamond inside it.
    assert dice > (0.97 if plane == 'axial' and label != 2 else 0.6)


def test_axial_slices_have_the_labels_they_show(volume: Volume) -> None:
    slices = outlines_of(volume)['planes']['axial']['slices']
    assert [sorted(each['paths']) for each in slices] == [[], ['1', '2'], [], ['7'], []]


def test_each_muscle_is_found_where_it_is_largest(volume: Volume) -> None:
    _, numbers, view = volume
    content = outlines_of(volume)
    assert content['muscles'] == {'1': [20, 17, 3], '2': [40, 20, 3], '7': [6, 34, 1]}
    assert content['first'][2] == 3
    assert content['unsure'] is None
    unsure = cuts.View(view.slices, view.box, 1)
    labels = nib.Nifti1Image(numbers, np.diag([*SPACING, 1.0]))
    assert json.loads(scroller.trace_outlines(labels, unsure, []))['unsure'] == [6, 34, 1]


def test_very_many_slices_still_make_one_sheet() -> None:
    for plane in scroller.PLANES:
        view = cuts.View((0,), ((0, 900), (0, 900), (0, 900)))
        plan = scroller.plan_sheet(plane, view, (900, 900, 900), (1.0, 1.0, 1.0))
        assert plan.count * plan.width * plan.height <= scroller.SHEET_PX[plane != 'axial']
        assert plan.width > 100
    tall = cuts.View((0,), ((0, 4), (0, 4000), (0, 2)))
    plan = scroller.plan_sheet('axial', tall, (4, 4000, 2), (1.0, 1.0, 1.0))
    assert max(plan.width, plan.height) <= scroller.SIDE_PX


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
    background, _, view = volume
    plan = sheet_of(volume, 'coronal')
    first = scroller.draw_sheet(background, view, plan)
    assert scroller.draw_sheet(background, view, plan) == first
    assert outlines_of(volume) == outlines_of(volume)


def test_a_sagittal_scan_shows_all_its_slices_and_goes_to_the_middle_of_each_body() -> None:
    """Seven thick slices; the body is largest in one beside the middle."""
    vertebrae, discs = np.zeros((7, 40, 60), np.uint8), np.zeros((7, 40, 60), np.uint8)
    vertebrae[2:5, 20:30, 30:45] = 24
    vertebrae[5, 18:32, 28:46] = 24
    discs[2:6, 20:30, 25:28] = 124
    affine = np.diag([6.0, 1.0, 1.0, 1.0])
    images = [nib.Nifti1Image(data, affine) for data in (vertebrae, vertebrae, discs)]
    figures = spine_figures(*images, pd.DataFrame(columns=['index', 'name', 'kind', 'height_mm']))
    content = json.loads(figures['outlines'])
    assert list(content['planes']) == ['sagittal', 'coronal', 'axial']
    slices = content['planes']['sagittal']['slices']
    # From right to left, as x falls in RAS+ order.
    drawn = [sorted(each['paths']) for each in slices]
    assert drawn == [[], ['124', '24'], ['124', '24'], ['124', '24'], ['124', '24'], [], []]
    assert content['muscles']['24'] == [5, 24, 36]
    assert content['unsure'] is None
    assert set(figures) == {'spine', 'outlines', 'sagittal', 'coronal', 'axial'}
    for plane, layout in content['planes'].items():
        sheet = Image.open(io.BytesIO(figures[plane]))
        assert sheet.width == layout['columns'] * layout['width']
