"""A trunk that is fitted to a scan keeps what the scan shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bids_muscle.spinal_loads.base import JOINTS, VERTEBRAE, Array, base_trunk
from bids_muscle.spinal_loads.person import FittedTrunk, MuscleSection, crossing, fit_trunk

#: OpenSim's axes (forward, up, right) in NIfTI's (right, anterior, superior).
TO_RAS = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
SCANNER = np.array([3.0, -20.0, 55.0])
MUSCLES = ('multifidus', 'erector spinae', 'psoas major', 'quadratus lumborum')


def scanned(rotation: Rotation | None = None, scale: float = 1.0) -> dict[str, dict[str, Array]]:
    """Return the vertebrae and discs of the base trunk as a scanner sees them, RAS mm."""
    base = base_trunk()
    turn = rotation or Rotation.identity()

    def place(point: Array) -> Array:
        return turn.apply(scale * TO_RAS @ point) + SCANNER

    return {
        'vertebrae': {name: place(base.frames[name].origin_mm) for name in VERTEBRAE},
        'discs': {name: place(base.joints_mm[k]) for k, name in enumerate(JOINTS)},
    }


def muscle_sections(person: FittedTrunk, level: str) -> dict[tuple[str, str], tuple[Array, float]]:
    """Centroid, in the axes of the vertebra, and area of each muscle at a level of the model."""
    found: dict[tuple[str, str], list[tuple[Array, float]]] = {}
    for each in person.trunk.fascicles:
        if crossed := crossing(each, person.trunk.frames[level]):
            found.setdefault((each.muscle, each.side), []).append(crossed)
    return {
        key: (
            np.average([point for point, _ in each], axis=0, weights=[area for _, area in each]),
            sum(area for _, area in each),
        )
        for key, each in found.items()
    }


@given(axis=st.sampled_from('xy'), angle=st.floats(-0.4, 0.4))
@settings(max_examples=10, deadline=None)
def test_how_the_person_lay_in_the_scanner_does_not_matter(axis: str, angle: float) -> None:
    seen = scanned(Rotation.from_euler(axis, angle))
    person = fit_trunk(1.75, seen['vertebrae'], seen['discs'], {})
    # A turn to the side of a spine that leans back by 8 degrees leaves a small twist.
    np.testing.assert_allclose(person.trunk.joints_mm, base_trunk().joints_mm, atol=2.5)
    top = person.trunk.joints_mm[-1]
    np.testing.assert_allclose(top, base_trunk().joints_mm[-1], atol=1e-6)


def test_the_base_is_fitted_to_itself() -> None:
    person = fit_trunk(1.75, **_ras(scanned()), sections={})
    for mine, base in zip(person.trunk.fascicles, base_trunk().fascicles, strict=True):
        np.testing.assert_allclose(mine.points_mm, base.points_mm, atol=1e-6)
        assert mine.area_mm2 == pytest.approx(base.area_mm2)


def test_a_smaller_person_has_smaller_lever_arms_and_areas() -> None:
    person = fit_trunk(1.4, **_ras(scanned(scale=0.8)), sections={})
    for mine, base in zip(person.trunk.fascicles, base_trunk().fascicles, strict=True):
        np.testing.assert_allclose(mine.points_mm, 0.8 * base.points_mm, atol=1e-6)
        assert mine.area_mm2 == pytest.approx(0.64 * base.area_mm2)


def test_the_tilt_of_the_sacrum_turns_with_the_spine() -> None:
    # A turn about the axis to the right lifts the front: a disc 25 degrees down is seen 13 down.
    seen = scanned(Rotation.from_euler('x', np.radians(12)))
    person = fit_trunk(1.75, seen['vertebrae'], seen['discs'], {}, sacral_tilt_deg=13.0)
    forward, up, _ = person.trunk.sacral_axes.T
    assert np.degrees(np.arctan2(-forward[1], forward[0])) == pytest.approx(25)
    assert up[0] > 0


def test_missing_discs_are_found_between_the_vertebrae() -> None:
    seen = scanned()
    person = fit_trunk(1.75, seen['vertebrae'], {}, {})
    np.testing.assert_allclose(person.trunk.joints_mm, base_trunk().joints_mm, atol=8)


def test_areas_and_places_of_the_scan_are_those_of_the_model() -> None:
    """Everything half as large again, 6 mm further back and 4 mm further out."""
    base = fit_trunk(1.75, **_ras(scanned()), sections={})
    sections, wanted = {}, {}
    for level in VERTEBRAE:
        frame = base.trunk.frames[level]
        for (muscle, side), (point, area) in muscle_sections(base, level).items():
            if muscle not in MUSCLES:
                continue
            moved = point + np.array([-6.0, 0.0, 4.0 if side == 'right' else -4.0])
            wanted[muscle, side, level] = moved, 1.5 * area
            world = TO_RAS @ frame.world(moved) + SCANNER
            sections[muscle, side, level] = MuscleSection(1.5 * area, world)
    person = fit_trunk(1.75, **_ras(scanned()), sections=sections)
    assert person.imaged == pytest.approx(dict.fromkeys(MUSCLES, 1.5), rel=0.01)
    for level in VERTEBRAE:
        found = muscle_sections(person, level)
        for (muscle, side), (point, _) in found.items():
            if muscle in MUSCLES:
                np.testing.assert_allclose(
                    point[[0, 2]], wanted[muscle, side, level][0][[0, 2]], atol=4.5
                )
    # Muscles that no scan of the back shows are as much larger as those that it shows.
    rectus = [
        each.area_mm2 for each in person.trunk.fascicles if each.muscle == 'rectus abdominis'
    ]
    assert rectus == pytest.approx([1.5 * 640] * 2, rel=0.01)


def test_a_muscle_seen_on_one_side_only_stays_that_of_the_base() -> None:
    section = {('multifidus', 'right', 'L4'): MuscleSection(5000.0, None)}
    person = fit_trunk(1.75, **_ras(scanned()), sections=section)
    assert person.imaged == {}
    areas = [each.area_mm2 for each in person.trunk.fascicles]
    assert areas == pytest.approx([each.area_mm2 for each in base_trunk().fascicles])


def _ras(seen: dict[str, dict[str, Array]]) -> dict[str, dict[str, Array]]:
    return {f'{kind}_ras_mm': places for kind, places in seen.items()}
