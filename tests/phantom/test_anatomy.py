"""The bodies: complete, on the right side, of published size, different from each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_muscle.errors import UsageError
from bids_muscle.phantom.anatomy import Anatomy, build_anatomy
from bids_muscle.phantom.person import Person
from bids_muscle.phantom.shapes import closed_spline, inset, load_atlas
from bids_muscle.phantom.truth import true_level_rows

#: Weber 2021, Table 2: mean of left and right in ml, over the levels of Table 1.
WEBER_ML = {
    'multifidus and semispinalis cervicis': (18.2, ('C4', 'C5', 'C6')),
    'longus colli and capitis': (7.9, ('C3', 'C4', 'C5', 'C6')),
    'semispinalis capitis': (14.1, ('C3', 'C4', 'C5')),
    'splenius capitis': (8.7, ('C3', 'C4', 'C5')),
    'levator scapulae': (7.6, ('C5', 'C6')),
    'sternocleidomastoid': (16.6, ('C4', 'C5', 'C6')),
    'trapezius': (3.8, ('C6',)),
}


def circle(radius: float, corners: int = 12) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))


@pytest.mark.parametrize('turn', [1, -1])
def test_spline_and_inset_of_a_circle(turn: int) -> None:
    polygon = closed_spline(circle(10)[::turn])
    assert area(polygon) == pytest.approx(np.pi * 100, rel=0.01)
    assert area(inset(polygon, 2.0)) == pytest.approx(np.pi * 64, rel=0.02)


@pytest.mark.parametrize('region', ['cervical', 'lumbar'])
def test_outlines_are_consistent(region: str) -> None:
    for structure in load_atlas(region).structures:
        assert (np.diff(structure.levels) > 0).all(), structure.name
        assert structure.outlines.shape[0] == structure.levels.size


def test_unknown_region() -> None:
    with pytest.raises(UsageError, match='thoracic'):
        load_atlas('thoracic')


@pytest.mark.parametrize('region', ['cervical', 'lumbar'])
def test_every_muscle_is_there_on_its_side(region: str, request: pytest.FixtureRequest) -> None:
    anatomy: Anatomy = request.getfixturevalue(region)
    labels = anatomy.muscle_index[anatomy.classes]
    x = anatomy.origin_mm[1] + np.arange(labels.shape[1]) * anatomy.spacing_mm[1]
    for label in anatomy.table:
        columns = (labels == label.index).any(axis=(0, 2))
        assert columns.any(), label.name
        side = -1 if label.side == 'left' else 1
        # Scoliosis may carry a medial muscle a little across the middle, never mostly.
        weight = (labels == label.index).sum(axis=(0, 2))
        assert (weight * x * side).sum() > 0
        assert weight[x * side < -12].sum() == 0, label.name


def test_parts_of_the_spine_follow_each_other(lumbar: Anatomy) -> None:
    labels = lumbar.spine_index[lumbar.classes]
    heights = [
        np.argwhere(labels == index).mean(axis=0)[0]
        for index in (1, 101, 2, 102, 3, 103, 4, 104, 5, 105, 6, 106, 7)
    ]
    assert (np.diff(heights) < 0).all()
    assert set(np.unique(labels)) == {0, *range(1, 8), *range(101, 107)}


def test_neck_muscles_have_published_volumes(person: Person) -> None:
    """Mean of a few people, as many women as in the sample of Weber 2021."""
    people = [
        replace(person, sex=sex, height_cm=height, shape_seed=seed)
        for seed, (sex, height) in enumerate([('F', 162), ('F', 168), ('M', 178)])
    ]
    rows = [
        row
        for who in people
        for row in true_level_rows(build_anatomy('cervical', who, slice_mm=3.0))
    ]
    for muscle, (published_ml, levels) in WEBER_ML.items():
        ml = sum(
            float(row['volume_ml'])
            for row in rows
            if str(row['name']).split(' ', 1)[1] == muscle and row['level'] in levels
        ) / (2 * len(people))
        assert ml == pytest.approx(published_ml, rel=0.25), muscle


def tissue_share(anatomy: Anatomy, tissue: str) -> float:
    numbers = [n for n, item in enumerate(anatomy.legend) if item.tissue == tissue]
    body = (anatomy.classes > 0).sum()
    return float(np.isin(anatomy.classes, numbers).sum() / body)


def test_bodies_follow_weight_sex_and_age(person: Person) -> None:
    def build(**changes: object) -> Anatomy:
        return build_anatomy('lumbar', replace(person, **changes), in_plane_mm=2.0, slice_mm=6.0)  # type: ignore[arg-type]

    def muscle_cells(anatomy: Anatomy) -> int:
        return int((anatomy.muscle_index[anatomy.classes] > 0).sum())

    slim, heavy = build(bmi=19.0), build(bmi=36.0)
    assert tissue_share(heavy, 'subcutaneous_fat') > 1.5 * tissue_share(slim, 'subcutaneous_fat')
    assert muscle_cells(build(sex='M')) > 1.1 * muscle_cells(build(sex='F'))
    young, old = build(age_years=25.0), build(age_years=80.0)
    assert young.spine.disc_height_mm.sum() > old.spine.disc_height_mm.sum()
    assert muscle_cells(young) > muscle_cells(old)


def test_two_people_differ_and_one_person_does_not(person: Person, lumbar: Anatomy) -> None:
    again = build_anatomy('lumbar', person, in_plane_mm=1.0, slice_mm=2.5)
    assert np.array_equal(again.classes, lumbar.classes)
    other = build_anatomy('lumbar', replace(person, shape_seed=12), in_plane_mm=1.0, slice_mm=2.5)
    assert (other.spine.centre_mm != lumbar.spine.centre_mm).any()
