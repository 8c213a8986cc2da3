"""Atlases, alignment and levels, on people of boxes whose place in the atlas is known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from boxes import align, body, box_atlas, levels_of, moved
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from bids_muscle.anatomy.labels import REGIONS
from bids_muscle.errors import BadDataError, MissingInputError, SegmentationError
from bids_muscle.imaging import alignment
from bids_muscle.imaging.atlas import (
    CARD,
    Atlas,
    atlas_files,
    classes_of,
    find_atlas,
    read_atlas,
)
from bids_muscle.imaging.itk import itk_affine
from bids_muscle.imaging.registration import log_prior, step_matrix
from bids_muscle.imaging.template import LabelledScan, build_atlas
from bids_muscle.segmentation.atlas_space import axial_slices, segment_in_atlas
from bids_muscle.segmentation.model import Model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.statistics.overlap import overlap


@pytest.fixture(scope='module')
def atlas() -> Atlas:
    return box_atlas()


def test_average_has_the_levels_and_the_muscles_of_its_people(atlas: Atlas) -> None:
    assert [(b.upper, b.lower) for b in atlas.boundaries] == [
        ('L2', 'L3'),
        ('L3', 'L4'),
        ('L4', 'L5'),
    ]
    gaps = -np.diff([each.ras_mm[2] for each in atlas.boundaries])
    assert gaps == pytest.approx([40, 40], rel=0.08)
    assert set(np.unique(atlas.labels)) == {0, 1, 2, 5, 6}
    # Right is where x grows in the scanner, as the person was drawn.
    right, left = (np.argwhere(atlas.labels == index).mean(axis=0) for index in (1, 2))
    assert right[0] > left[0]


def bent(case: LabelledScan, voxels: float) -> LabelledScan:
    """Sway the muscles of a person back and forth along the body, by at most so many voxels."""
    labels = case.labels.copy()
    for k in range(labels.shape[2]):
        labels[:, :, k] = np.roll(case.labels[:, :, k], round(voxels * np.sin(k / 6)), axis=1)
    return replace(case, labels=labels)


def test_deformable_rounds_make_a_sharp_average_of_the_mean_shape() -> None:
    people = [bent(body(1.0), sway) for sway in (-3, 0, 3)]
    stiff, soft = (
        build_atlas(people, 'lumbar', 'boxes', spacing_mm=4, rounds=1, deformable_rounds=n)
        for n in (0, 1)
    )

    def sharpness(atlas: Atlas) -> float:
        return float((atlas.probabilities**2).sum() / atlas.probabilities.sum())

    assert sharpness(soft) > sharpness(stiff) + 0.1

    def middle_y(atlas: Atlas, height_mm: float) -> float:
        places = apply_affine(atlas.affine, np.argwhere(np.isin(atlas.labels, (1, 2))))
        return float(places[np.abs(places[:, 2] - height_mm) < 6, 1].mean())

    # Those who sway forwards and backwards cancel out, whoever was the first target.
    for height in (-60.0, -20.0, 20.0):
        assert middle_y(soft, height) == pytest.approx(-45, abs=3)
    for one, other in zip(soft.boundaries, stiff.boundaries, strict=True):
        assert one.ras_mm == pytest.approx(other.ras_mm, abs=4)
        assert one.sd_mm == other.sd_mm


def test_an_atlas_is_read_back_and_a_changed_file_is_found(atlas: Atlas, tmp_path: Path) -> None:
    folder = tmp_path / 'tpl-boxes'
    folder.mkdir()
    for name, content in atlas_files(atlas, {}).items():
        (folder / name).write_bytes(content)
    again = read_atlas(folder)
    assert np.abs(again.probabilities - atlas.probabilities).max() <= 0.005
    assert [b.upper for b in again.boundaries] == [b.upper for b in atlas.boundaries]
    assert find_atlas(tmp_path, 'lumbar') == folder
    assert find_atlas(tmp_path, 'cervical') != folder
    (folder / 'tpl-boxes_levels.tsv').write_text('changed')
    with pytest.raises(BadDataError, match='not the file that belongs'):
        read_atlas(folder)
    (folder / CARD).write_text(json.dumps({'Region': 'elbow'}))
    with pytest.raises(BadDataError, match='does not describe an atlas'):
        find_atlas(folder, 'lumbar')
    with pytest.raises(MissingInputError, match='There is no atlas in'):
        find_atlas(tmp_path / 'nowhere', 'lumbar')


@pytest.mark.parametrize('region', REGIONS)
def test_packaged_atlases_are_whole(region: str) -> None:
    packaged = read_atlas(find_atlas(None, region))
    assert packaged.region == region
    assert set(packaged.images) >= {'water', 'fat', 'T2w'}
    assert len(packaged.boundaries) >= 6
    heights = [each.ras_mm[2] for each in packaged.boundaries]
    assert heights == sorted(heights, reverse=True)
    assert set(np.unique(packaged.labels)) == {0, *packaged.table.by_index}


def test_a_scan_elsewhere_in_the_scanner_finds_its_place(atlas: Atlas) -> None:
    person = body(1.0)
    away = moved(person, step_matrix([80, -150, 300, 5, 4, 8, 0], np.zeros(3)))
    found = align(away, atlas)
    assert found.trusted
    assert found.overlap > 0.75
    assert alignment.volume_factor(found.matrix) == pytest.approx(1, abs=0.15)
    names = levels_of(away, found, atlas)
    # Slices are 4 mm; the discs of the person lie at -40, 0 and 40 mm.
    assert names[22:28] == ('L3',) * 6
    assert names[12:18] == ('L4',) * 6
    again = align(away, atlas)
    assert np.array_equal(again.matrix, found.matrix)


def test_a_few_slices_are_placed_with_the_doubt_that_they_leave(atlas: Atlas) -> None:
    away = moved(body(1.0), step_matrix([10, 0, 120, 0, 0, 0, 0], np.zeros(3)), slice(21, 27))
    found = align(away, atlas)
    assert found.trusted
    assert set(levels_of(away, found, atlas)) <= {'L3', 'L2', None}
    spread = np.sqrt(sum(weight * shift**2 for shift, weight in found.shifts))
    whole = align(body(1.0), atlas)
    assert spread > np.sqrt(sum(weight * shift**2 for shift, weight in whole.shifts))


def test_intensities_alone_find_the_place_in_a_small_field_of_view(atlas: Atlas) -> None:
    whole = moved(body(1.0), step_matrix([30, -40, 50, 3, 2, 4, 0], np.zeros(3)), slice(4, 24))
    (img,) = whole.images.values()
    box = slice(10, 50), slice(4, 38)
    affine = img.affine.copy()
    affine[:3, 3] = apply_affine(affine, [10, 4, 0])
    mask = whole.mask[box]
    # Another contrast, and a field of view that cuts the body on all sides.
    inverted = np.where(mask, 1.2 - np.asarray(img.dataobj)[box], 0).astype(np.float32)
    case = LabelledScan(
        {'T2w': nib.Nifti1Image(inverted, affine)}, np.zeros(mask.shape, np.uint8), mask
    )
    found = align(case, atlas)
    carried = alignment.labels_in_scan(found, atlas, case.images['T2w'])
    true = whole.labels[box]
    assert min(each.dice for each in overlap(carried, true, [1, 2, 5, 6]).values()) > 0.6
    assert not found.trusted


def test_levels_no_person_has_are_refused(atlas: Atlas) -> None:
    person = body(1.0)
    found = align(person, atlas)

    def reasons(matrix: np.ndarray, overlap: float = 0.7) -> list[str]:
        changed = replace(found, matrix=matrix @ found.matrix, overlap=overlap)
        classes = classes_of(person.labels, atlas.table)
        return [
            *alignment._doubtful(changed, classes, 160.0, 0.4),
            *alignment._odd_levels(changed, atlas),
        ]

    assert reasons(np.eye(4)) == []
    assert any('(Dice 0.20' in each for each in reasons(np.eye(4), 0.2))
    # 1.37 times taller and 0.87 times narrower, as a real scan was made to fit.
    assert any('stretched 1.6 times' in each for each in reasons(np.diag([1.15, 1.15, 0.73, 1])))
    # The levels of these people are 40 mm high.
    for scales, height_mm in (((0.8, 0.8, 0.8), 50), ((2.5, 2.5, 2.5), 16), ((-1, 1, -1), -40)):
        (found_mm,) = re.findall(
            r'would be (-?\d+) mm high', ' '.join(reasons(np.diag([*scales, 1])))
        )
        assert int(found_mm) == pytest.approx(height_mm, rel=0.04, abs=0.6)


def test_a_place_that_gives_no_slice_a_level_is_not_trusted(atlas: Atlas) -> None:
    borders = tuple(replace(each, sd_mm=60.0) for each in atlas.boundaries)
    found = align(body(1.0), replace(atlas, boundaries=borders))
    assert found.reasons == (alignment._NO_LEVEL,)
    # An atlas without levels gives none, and that says nothing about the alignment.
    assert align(body(1.0), replace(atlas, boundaries=())).trusted


def test_a_usual_size_is_likelier_than_a_stretch_or_a_child() -> None:
    usual, taller, child, stretched = (
        log_prior(np.diag([*scales, 1.0]))
        for scales in ((1.0, 1.0, 1.0), (1.0, 1.0, 0.95), (1.5, 1.5, 1.5), (1.2, 1.2, 0.8))
    )
    assert usual == pytest.approx(0)
    assert usual > taller > child > stretched
    # A child is far from an atlas of adults, but nats of six thousand points say more.
    assert child > -5


def test_what_cannot_be_aligned_says_why_and_names_no_level(atlas: Atlas) -> None:
    person = body(1.0)
    empty = replace(person, labels=np.zeros_like(person.labels))
    single = moved(person, np.eye(4), slice(20, 21))
    nothing = replace(empty, mask=np.zeros_like(empty.mask))
    elsewhere = replace(person, labels=np.roll(person.labels[:, ::-1], 18, axis=0))
    for case, reason in (
        (empty, 'no muscle was segmented'),
        (single, 'mm high'),
        (nothing, 'no body'),
        # To fit, it would have to be a giant.
        (elsewhere, 'mm high from disc to disc, not 18 to 45'),
    ):
        found = align(case, atlas)
        assert any(reason in each for each in found.reasons), (reason, found.reasons)
        assert set(levels_of(case, found, atlas)) == {None}


def test_syn_improves_on_the_affine_and_its_inverse_undoes_it(atlas: Atlas) -> None:
    case = bent(body(1.0), 3)
    stiff, soft = align(case, atlas), align(case, atlas, deformable=True)
    assert soft.overlap > stiff.overlap + 0.02
    points = np.array([[15.0, -40.0, 0.0], [-40.0, -10.0, 20.0]])
    assert soft.to_scan(soft.to_atlas(points)) == pytest.approx(points, abs=1.5)


def test_volumes_in_atlas_space_are_corrected_for_the_scaling(atlas: Atlas) -> None:
    case = moved(body(1.0), np.diag([1.1, 1.1, 1.1, 1.0]))
    found = align(case, atlas)
    labels = nib.Nifti1Image(case.labels, case.affine)
    there = alignment.image_in_atlas(found, atlas, labels, order=0)
    own_mm3 = np.count_nonzero(case.labels) * abs(np.linalg.det(case.affine[:3, :3]))
    there_mm3 = np.count_nonzero(there.dataobj) * abs(np.linalg.det(there.affine[:3, :3]))
    corrected = there_mm3 / alignment.volume_factor(found.matrix)
    assert corrected == pytest.approx(own_mm3, rel=0.04)
    assert abs(there_mm3 / own_mm3 - 1) > 0.1


def test_slices_of_xia_are_one_millimetre_and_upright(atlas: Atlas) -> None:
    case = body(1.0)
    found = align(case, atlas)
    labels = nib.Nifti1Image(case.labels, case.affine)
    slices = axial_slices(found, atlas, labels, order=0)
    assert slices.shape[:2] == (256, 256)
    assert np.allclose(np.diag(slices.affine)[:2], 1)
    assert set(np.unique(slices.dataobj)) == {0, 1, 2, 5, 6}


def painter(spacing_mm: float | None) -> Predictor:
    """Return a model that takes a tenth of the brightness for the class."""

    class Painter(torch.nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            classes = torch.arange(5)[None, :, None, None]
            return -50 * (windows / 10 - classes).abs()

    return Predictor(
        Model(
            networks=(Painter(),),
            spatial_dims=2,
            numbers=(0, 1, 2, 5, 6),
            mirrored=None,
            spacing_mm=(spacing_mm, spacing_mm, None),
            normalize=lambda planes: planes,
            patch_px=(256, 256, 1),
            pad_value=0.0,
            postprocess=(),
        )
    )


def test_a_model_in_atlas_space_labels_the_voxels_of_the_scan(atlas: Atlas) -> None:
    case = moved(body(1.05), step_matrix([40, -20, 90, 4, 3, 6, 0], np.zeros(3)), slice(8, 34))
    classes = np.searchsorted([0, 1, 2, 5, 6], case.labels)
    images = {'water': nib.Nifti1Image(10 * classes.astype(np.float32), case.affine)}
    mask = nib.Nifti1Image(case.mask.astype(np.uint8), case.affine)
    found = segment_in_atlas(painter(1.0), painter(None), images, mask, atlas)
    labels = np.asarray(found.labels.dataobj)
    assert np.array_equal(found.labels.affine, case.affine)
    # Brightness between two muscles would be a third one, so the rims differ.
    for number, each in overlap(labels, case.labels, [1, 2, 5, 6]).items():
        assert each.dice > 0.85, number
    # In the atlas the person is of another size; the volume is that of the person.
    assert np.count_nonzero(labels) == pytest.approx(np.count_nonzero(case.labels), rel=0.12)
    single, alone = images['water'].slicer[:, :, 10:11], mask.slicer[:, :, 10:11]
    with pytest.raises(SegmentationError, match='not trusted: the scan is only 9 mm high'):
        segment_in_atlas(painter(1.0), painter(None), {'water': single}, alone, atlas)


def test_transform_file_is_what_ants_reads(atlas: Atlas, tmp_path: Path) -> None:
    import ants

    matrix = step_matrix([10, -20, 30, 5, 4, 8, 9], np.zeros(3))
    path = tmp_path / 'xfm.txt'
    path.write_text(itk_affine(matrix))
    point = np.array([12.0, -30.0, 41.0])
    lps = ants.apply_ants_transform_to_point(ants.read_transform(str(path)), point * (-1, -1, 1))
    back = apply_affine(np.linalg.inv(matrix), point)
    assert np.asarray(lps) * (-1, -1, 1) == pytest.approx(back, abs=1e-4)


@given(st.lists(st.floats(-10, 10), min_size=12, max_size=12))
@settings(max_examples=30)
def test_steps_are_about_a_millimetre_and_leave_the_centre(steps: list[float]) -> None:
    centre = np.array([5.0, 6.0, 7.0])
    matrix = step_matrix(steps, centre)
    assert apply_affine(matrix, centre) == pytest.approx(centre + steps[:3])
    assert np.linalg.det(matrix[:3, :3]) > 0


def test_classes_follow_the_table(atlas: Atlas) -> None:
    numbers = np.array([0, 1, 8, 99, -3])
    assert classes_of(numbers, atlas.table).tolist() == [0, 1, 8, 0, 0]
