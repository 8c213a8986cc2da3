"""Pictures: which slices, which side is which, no stretching, the same bytes."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.imaging.levels import slice_level_rows, through_middle
from bids_muscle.reports import panels
from bids_muscle.reports import slices as cuts
from bids_muscle.reports.figures import (
    BAR_WIDTH_PX,
    FigureImages,
    draw_bias,
    draw_fat_fraction,
    scan_figures,
)

TABLE = load_label_table('lumbar')
Volumes = dict[str, nib.Nifti1Image]


def draw(volumes: Volumes, **changed: object) -> dict[str, bytes]:
    """Draw a scan without bias correction."""
    water = volumes['water']
    images = FigureImages(
        raw={'water': water},
        corrected={'water': water},
        body_mask=volumes['body'],
        labels=volumes['labels'],
        fat_fraction=volumes['fraction'],
    )
    return scan_figures(replace(images, **changed), TABLE)


def pixels(picture: bytes) -> np.ndarray:
    """Return a picture as an RGB array."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert('RGB')).astype(int)


def centre_of(picture: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Return the mean (row, column) of the pixels of about this colour, as WebP keeps it."""
    where = np.argwhere((np.abs(picture - np.array(rgb)) < 30).all(axis=2))
    assert len(where), f'nothing is drawn in {rgb}'
    return where.mean(axis=0)


def test_the_field_is_above_one_where_it_was_bright() -> None:
    """Twice as bright on the right before the correction: orange there, violet on the left."""
    after = np.full((40, 30, 3), 100, np.float32)
    before = after.copy()
    before[20:], before[:20] = 170, 60
    body = nib.Nifti1Image(np.ones(after.shape, np.uint8), np.eye(4))
    images = [nib.Nifti1Image(each, np.eye(4)) for each in (before, after)]
    view = cuts.View((1,), ((0, 40), (0, 30), (0, 3)))
    picture = pixels(draw_bias(*images, body, view)['bias'])[:, : cuts.PANEL_WIDTH_PX]
    middle = picture[100:200]
    right, left = middle[:, 60:180].mean(axis=(0, 1)), middle[:, 260:380].mean(axis=(0, 1))
    assert right[0] > right[2] + 60
    assert left[2] > left[0]


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 50), min_size=n, max_size=n).filter(any),
            min_size=1,
            max_size=4,
        )
    ),
    st.integers(1, 9),
    st.data(),
)
def test_slices_tell_most(areas: list[list[int]], count: int, data: st.DataObject) -> None:
    values = np.array(areas)
    covered = np.flatnonzero(values.any(axis=0))
    unsure = data.draw(st.sampled_from(covered.tolist()))
    chosen = cuts.choose_slices(values, count, unsure)
    assert list(chosen) == sorted(set(chosen), reverse=True)
    assert len(chosen) == min(count, covered.size)
    assert set(chosen) <= set(covered.tolist())
    share = (values / values.max(axis=1, keepdims=True)).sum(axis=0)
    if count != 2:
        assert share[list(chosen)].max() == share.max()
    if count >= 2:
        assert {covered[0], covered[-1]} <= set(chosen)
    if count >= 4:
        assert unsure in chosen
    if count >= 4 + len(values):
        # Each muscle is shown about as large as it gets.
        assert (values[:, list(chosen)].max(axis=1) >= 0.9 * values.max(axis=1)).all()


def test_a_tilted_slice_has_one_height_on_the_page_and_in_the_table() -> None:
    """Marks of levels are given by it; the muscles lie far behind the middle of the image."""
    turn = np.radians(25)
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[1:3, 1:3] = [
        [np.cos(turn), -4 * np.sin(turn)],
        [np.sin(turn), 4 * np.cos(turn)],
    ]
    image = nib.Nifti1Image(np.zeros((60, 100, 5), np.uint8), affine)
    view = cuts.View((4, 2), ((10, 50), (0, 30), (0, 5)))
    unknown = SliceLevels((None,) * 5, np.zeros(5), 'atlas')
    rows = slice_level_rows(unknown, {}, through_middle(affine, image.shape))
    for index in view.slices:
        height = round(float(str(rows[index]['z_mm'])))
        assert cuts.slice_title(image, view, index) == f'slice {index}, z {height:+d} mm'


def test_the_least_sure_slice_is_one_with_muscle() -> None:
    numbers = np.zeros((10, 10, 6), np.uint8)
    numbers[2:8, 2:8, 1:5] = 1
    numbers[2, 2, 5] = 1
    confidence = np.full(numbers.shape, 90.0)
    confidence[:, :, 0] = 5  # no muscle there
    confidence[:, :, 5] = 10  # next to none
    confidence[:, :, 3] = 70
    assert cuts.least_sure_slice(numbers, confidence) == 3
    assert cuts.least_sure_slice(np.zeros_like(numbers), confidence) is None


def test_one_long_muscle_does_not_take_all_slices() -> None:
    numbers = np.zeros((20, 4, 60), np.uint8)
    numbers[0:2] = 11
    for label in range(1, 10):
        numbers[2 * label, :, 45:55] = label
    chosen = cuts.choose_slices(cuts.muscle_areas(numbers, 2), 6)
    assert {0, 59} <= set(chosen)
    assert sum(45 <= k < 55 for k in chosen) >= 3


def test_right_is_on_the_left_and_anterior_on_top(volumes: Volumes) -> None:
    picture = pixels(draw(volumes)['segmentation'])
    panel = picture[:, : cuts.PANEL_WIDTH_PX][: picture.shape[0] // 2]
    right, left = centre_of(panel, TABLE.by_index[1].rgb), centre_of(panel, TABLE.by_index[2].rgb)
    psoas = centre_of(panel, TABLE.by_index[5].rgb)
    assert right[1] < left[1]
    assert psoas[0] < right[0]


def test_superior_is_on_top_of_the_extent(volumes: Volumes) -> None:
    labels = np.asarray(volumes['labels'].dataobj).copy()
    labels[:, :, 3:] = np.where(labels[:, :, 3:] == 1, 3, labels[:, :, 3:])
    changed = nib.Nifti1Image(labels, volumes['labels'].affine)
    picture = pixels(draw(volumes, labels=changed)['extent'])
    above, below = (
        centre_of(picture, TABLE.by_index[3].rgb),
        centre_of(picture, TABLE.by_index[1].rgb),
    )
    assert above[0] < below[0]


def test_a_millimetre_is_square_in_every_plane(volumes: Volumes) -> None:
    view = cuts.View((0,), ((0, 60), (0, 44), (0, 6)))
    spacing = (2.0, 2.0, 8.0)
    assert cuts.panel_size('axial', view, spacing, 600) == (600, 440)
    assert cuts.panel_size('coronal', view, spacing, 600) == (600, 240)
    assert cuts.panel_size('sagittal', view, spacing, 440) == (440, 240)


def test_outlines_stay_inside_the_label() -> None:
    labels = np.zeros((20, 20), int)
    labels[5:15, 5:15] = 1
    bare = np.zeros((200, 200, 3), np.uint8)
    drawn = panels.draw_labels(bare, labels, TABLE)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 149, 50, 149)


def test_grey_levels_ignore_a_few_bright_voxels() -> None:
    values = np.concatenate([np.linspace(0, 100, 1000), [1e6]])
    assert panels.robust_window(values)[1] < 110


def test_fat_fraction_colours_follow_the_scale(volumes: Volumes) -> None:
    affine = volumes['labels'].affine
    from matplotlib import colormaps

    view = cuts.View((2,), tuple((0, n) for n in volumes['labels'].shape))
    for fraction in (0.0, 0.5, 1.0):
        flat = nib.Nifti1Image(np.full(volumes['labels'].shape, fraction, np.float32), affine)
        picture = pixels(draw_fat_fraction(flat, np.zeros(flat.shape, int), TABLE, view))
        colour = np.round(np.array(colormaps['inferno'](fraction)[:3]) * 255)
        sheet = picture[:, :-BAR_WIDTH_PX]
        share = (np.abs(sheet - colour) <= 12).all(axis=2).mean()
        assert share > 0.7, fraction


def test_undefined_fat_fraction_is_black(volumes: Volumes) -> None:
    flat = np.full(volumes['labels'].shape, np.nan, np.float32)
    picture = pixels(
        draw(volumes, fat_fraction=nib.Nifti1Image(flat, volumes['labels'].affine))['fatfraction']
    )
    assert (picture[:, :-BAR_WIDTH_PX].max(axis=2) < 12).mean() > 0.7


def test_bias_is_drawn_only_where_it_was_removed(
    volumes: Volumes, figures: dict[str, bytes]
) -> None:
    assert 'bias' in figures
    assert set(draw(volumes, fat_fraction=None)) == {
        'slices',
        'segmentation',
        'extent',
        'surfaces',
        'axial',
        'coronal',
        'sagittal',
        'outlines',
        'thumbnail',
    }


def test_the_unsure_slice_is_named_and_the_atlas_is_drawn(
    volumes: Volumes, figures: dict[str, bytes]
) -> None:
    assert json.loads(figures['outlines'])['unsure'][2] == 2
    assert json.loads(draw(volumes)['outlines'])['unsure'] is None
    assert pixels(figures['alignment']).shape == pixels(figures['template']).shape
    assert pixels(figures['segmentation']).shape == pixels(figures['slices']).shape
    assert pixels(figures['uncorrected']).shape == pixels(figures['corrected']).shape


def test_histograms_count_each_voxel_of_a_muscle_once(volumes: Volumes) -> None:
    fraction = volumes['fraction'].get_fdata()
    numbers = np.asarray(volumes['labels'].dataobj)
    fraction[numbers == 1] = 0.31
    fraction[numbers == 2] = 1.7
    fraction[numbers == 3] = np.nan
    image = nib.Nifti1Image(fraction, volumes['labels'].affine)
    counts = json.loads(draw(volumes, fat_fraction=image)['histograms'])
    assert counts['1'][int(0.31 * len(counts['1']))] == sum(counts['1']) == (numbers == 1).sum()
    assert counts['2'][-1] == (numbers == 2).sum()
    assert sum(counts['3']) == 0


def test_same_images_same_bytes(volumes: Volumes, figures: dict[str, bytes]) -> None:
    again = draw(volumes)
    assert {name: again[name] for name in again} == draw(volumes)
    assert figures['extent'] == again['extent']


@pytest.mark.parametrize('depth', [1, 2])
def test_one_slice_is_enough(volumes: Volumes, depth: int) -> None:
    few = {name: image.slicer[:, :, :depth] for name, image in volumes.items()}
    assert draw(few)['extent']


def test_no_muscle_shows_the_body(volumes: Volumes) -> None:
    empty = nib.Nifti1Image(np.zeros(volumes['labels'].shape, np.uint8), np.diag([2, 2, 8, 1.0]))
    figures = draw(volumes, labels=empty)
    assert figures['segmentation'] == figures['slices']
