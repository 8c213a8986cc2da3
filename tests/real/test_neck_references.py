"""The outlines by eye of real necks make label maps that can be anatomy."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bids_muscle.anatomy.labels import load_label_table

ROOT = Path(__file__).parents[2]
LABELS = load_label_table('cervical')
#: Wide limits of the area of one side between C2 and T1, mm2: a slip of the reader, not a norm.
AREAS_MM2 = {
    'MFSS': (60, 480),
    'LC': (35, 220),
    'SPCap': (60, 340),
    'SSCap': (60, 480),
    'SCM': (70, 650),
    'TR': (10, 1200),
    'LS': (60, 620),
}


def load_benchmark() -> ModuleType:
    path = ROOT / 'benchmarks/neck_references.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


neck = load_benchmark()
OUTLINES = neck.read_outlines()
PEOPLE = sorted({outline.participant for outline in OUTLINES})


def square(label: int, low: float, high: float, slice_: int = 0) -> object:
    corners = ((low, 2), (high, 2), (high, 8), (low, 8))
    return neck.Outline('sub-x', 'x.nii.gz', 1, slice_, label, corners)


def test_a_voxel_in_two_outlines_goes_to_the_one_it_is_deeper_in() -> None:
    made = neck.rasterise([square(1, 1, 8), square(2, 6, 14)], (16, 11, 1))
    row = made.labels[:, 5, 0]
    assert row[4] == 1 and row[10] == 2
    assert row[6] == 1 and row[8] == 2
    swapped = neck.rasterise([square(2, 6, 14), square(1, 1, 8)], (16, 11, 1))
    assert np.array_equal(made.labels, swapped.labels)


def test_a_muscle_that_was_not_looked_for_is_not_scored() -> None:
    absent = neck.Outline('sub-x', 'x.nii.gz', 1, 1, 1, ())
    made = neck.rasterise([square(1, 2, 8), absent, square(2, 10, 14, 2)], (16, 11, 3))
    assert list(made.slices(1)) == [0, 1]
    assert list(made.slices(2)) == [2]
    found = made.labels.copy()
    found[:, :, 2] = 1
    assert neck.score(found, made)[1] == 1.0
    found[:, :, 1] = 1
    assert neck.score(found, made)[1] < 0.4
    assert np.isnan(neck.score(found, made)[3])


@pytest.fixture(scope='module', params=PEOPLE)
def person(request: pytest.FixtureRequest, real_data: Path) -> tuple:
    path = neck.image_path(real_data / 'neck', request.param, OUTLINES)
    image = nib.as_closest_canonical(nib.load(path))
    reference = neck.references(OUTLINES, {request.param: image.shape})[request.param]
    return image, reference


def drawn(reference: Any, label: int) -> np.ndarray:
    """Slices with an outline of the muscle, without those in which it was looked for in vain."""
    return np.flatnonzero(np.any(reference.labels == label, axis=(0, 1)))


def test_outlines_are_inside_the_body(person: tuple) -> None:
    image, reference = person
    data = image.get_fdata()
    for index in np.flatnonzero(reference.labels.any(axis=(0, 1))):
        plane = gaussian_filter(data[:, :, index], 1)
        inside = plane[reference.labels[:, :, index] > 0]
        noise = np.percentile(plane[:12, -12:], 95)
        assert np.mean(inside > noise) > 0.999, index


def test_left_is_left(person: tuple) -> None:
    image, reference = person
    for left, right in ((label.index, LABELS.mirrored[label.index]) for label in LABELS):
        if LABELS.by_index[left].side != 'left':
            continue
        for index in set(reference.slices(left)) & set(reference.slices(right)):
            plane = reference.labels[:, :, index]
            if not {left, right} <= set(np.unique(plane)):
                continue
            world = [
                nib.affines.apply_affine(
                    image.affine, [*np.argwhere(plane == side).mean(0), index]
                )
                for side in (left, right)
            ]
            assert world[0][0] < world[1][0]


def test_areas_are_those_of_muscles(person: tuple) -> None:
    image, reference = person
    pixel_mm2 = float(np.prod(image.header.get_zooms()[:2]))
    for label in LABELS:
        low, high = AREAS_MM2[label.abbreviation]
        for index in drawn(reference, label.index):
            area = np.sum(reference.labels[:, :, index] == label.index) * pixel_mm2
            assert low < area < high, (label.name, int(index), area)


def test_neighbouring_slices_follow_each_other(person: tuple) -> None:
    """The middle of a muscle moves less than 1.5 mm per mm; its area does not jump fourfold."""
    image, reference = person
    zooms = np.array(image.header.get_zooms())
    for label in LABELS:
        for one, two in pairwise(drawn(reference, label.index)):
            masks = [reference.labels[:, :, k] == label.index for k in (one, two)]
            middles = [np.argwhere(mask).mean(0) * zooms[:2] for mask in masks]
            moved_mm = float(np.linalg.norm(middles[1] - middles[0]))
            assert moved_mm < 1.5 * (two - one) * zooms[2], (label.name, int(one), moved_mm)
            ratio = masks[0].sum() / masks[1].sum()
            assert 1 / 4 < ratio < 4, (label.name, int(one), ratio)


def test_every_muscle_of_both_sides_is_outlined(person: tuple) -> None:
    _, reference = person
    for label in LABELS:
        assert len(drawn(reference, label.index)) >= 4, label.name
