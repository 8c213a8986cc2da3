"""The body mask on an analytic body."""

from __future__ import annotations

import numpy as np
import pytest
from abdomen import ABDOMEN, SPACING_MM

from bids_muscle.imaging.mask import body_mask
from bids_muscle.statistics.overlap import overlap


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return overlap(found.astype(int), truth.astype(int), [1])[1].dice


@pytest.mark.parametrize('contrast', ['water', 'fat', 'inphase', 'opposedphase'])
@pytest.mark.parametrize('air', ['noise', 'zero'])
def test_any_contrast_with_and_without_air_signal(contrast: str, air: str) -> None:
    image = {
        'water': ABDOMEN.water,
        'fat': ABDOMEN.fat,
        'inphase': ABDOMEN.water + ABDOMEN.fat,
        'opposedphase': abs(ABDOMEN.water - ABDOMEN.fat),
    }[contrast]
    if air == 'noise':
        image = np.hypot(image, ABDOMEN.air_noise())
    # Water-only subcutaneous fat is twenty times darker than muscle: its rim may be lost.
    assert dice(body_mask(image, SPACING_MM), ABDOMEN.body) > 0.95


@pytest.mark.parametrize('air', [0.0, 1.0])
@pytest.mark.parametrize('lost', [[5], [3, 4, 5], [0, 1, 9]])
@pytest.mark.parametrize('slice_mm', [3.0, 4.0, 10.0])
def test_lost_slices_do_not_part_the_body(lost: list[int], slice_mm: float, air: float) -> None:
    image = np.hypot(ABDOMEN.water + ABDOMEN.fat, air * ABDOMEN.air_noise())
    image[..., lost] = 0
    found = body_mask(image, (*SPACING_MM[:2], slice_mm), bright_skin=True)
    assert not found[..., lost].any()
    there = np.setdiff1d(np.arange(image.shape[2]), lost)
    assert dice(found[..., there], ABDOMEN.body[..., there]) > 0.95


def test_strong_coil_fall_off() -> None:
    field = ABDOMEN.field**3
    assert field[ABDOMEN.body].max() > 8 * field[ABDOMEN.body].min()
    image = np.hypot((ABDOMEN.water + ABDOMEN.fat) * field, ABDOMEN.air_noise())
    assert dice(body_mask(image, SPACING_MM), ABDOMEN.body) > 0.95


def test_strong_ghosts_are_no_body_and_a_fall_off_is_no_ghost() -> None:
    image = ABDOMEN.water + ABDOMEN.fat
    wide = np.pad(image, ((0, 0), (30, 30), (0, 0)))
    body = np.pad(ABDOMEN.body, ((0, 0), (30, 30), (0, 0)))
    air = np.pad(ABDOMEN.air_noise(), ((0, 0), (30, 30), (0, 0)), mode='wrap')
    ghosts = 0.25 * (np.roll(wide, 45, axis=1) + np.roll(wide, -45, axis=1))
    ghosted = np.hypot(wide + ghosts, air)
    assert dice(body_mask(ghosted, SPACING_MM), body) < 0.9
    assert dice(body_mask(ghosted, SPACING_MM, bright_skin=True), body) > 0.95
    clean = np.hypot(image * ABDOMEN.field**3, ABDOMEN.air_noise())
    same = body_mask(clean, SPACING_MM, bright_skin=True)
    assert np.array_equal(same, body_mask(clean, SPACING_MM))


def test_scale_does_not_matter() -> None:
    image = np.hypot(ABDOMEN.water, ABDOMEN.air_noise())
    assert np.array_equal(body_mask(image, SPACING_MM), body_mask(1000 * image, SPACING_MM))


def test_a_hole_is_body_and_a_separate_arm_is_not() -> None:
    image = ABDOMEN.water + ABDOMEN.fat
    image[30:50, 26:40] = 0  # bowel gas
    image[:2, 25:35] = 60  # an arm wrapped into the field of view
    mask = body_mask(image, SPACING_MM)
    assert mask[30:50, 26:40].all()
    assert not mask[:1].any()


@pytest.mark.parametrize('image', [np.zeros((9, 9, 3)), np.ones((9, 9, 3)), -np.ones((9, 9, 3))])
def test_without_air_all_is_body(image: np.ndarray) -> None:
    assert body_mask(image, SPACING_MM).all()


@pytest.mark.parametrize('shape', [(1, 50, 50), (50, 50, 1), (2, 3, 4)])
def test_thin_volumes(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).random(shape)
    assert body_mask(image, (1, 1, 1)).shape == shape
