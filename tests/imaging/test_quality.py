"""Image quality figures of images with known faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from abdomen import ABDOMEN, AFFINE
from dixon_phantom import DixonPhantom, make_dixon

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.imaging.conform import make_image
from bids_muscle.imaging.quality import _shoulders_below, image_quality, quality_dictionary
from bids_muscle.phantom.artefacts import ghost
from bids_muscle.phantom.scanner import complex_noise

LUMBAR = load_label_table('lumbar')
MUSCLE = np.where(ABDOMEN.water == 85, 1, 0).astype(np.uint8)
SIGMA = 2.0


def assess(image: np.ndarray, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """Figures of a T2w image of the abdomen."""
    given = {
        'raw': {'T2w': make_image(image.astype(np.float32), AFFINE)},
        'corrected': {'T2w': make_image(image.astype(np.float32), AFFINE)},
        'body_mask': make_image(ABDOMEN.body.astype(np.uint8), AFFINE),
        'labels': make_image(MUSCLE, AFFINE),
    }
    return image_quality(**(given | changes), table=LUMBAR)


def noisy(signal: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.abs(signal + complex_noise(signal.shape, SIGMA, rng))


TOTAL = ABDOMEN.water + ABDOMEN.fat


def test_signal_to_noise_is_the_planted_one() -> None:
    figures, flags = assess(noisy(TOTAL))
    assert figures['snr_muscle'] == pytest.approx(100 / SIGMA, rel=0.03)
    assert list(figures) == list(quality_dictionary())
    assert flags == []


def test_masked_air_has_no_noise_to_tell() -> None:
    figures, _ = assess(noisy(TOTAL) * ABDOMEN.body)
    assert figures['snr_muscle'] is None
    assert figures['ghost_ratio'] is None


@pytest.mark.parametrize('axis', [0, 1])
def test_ghosts_along_either_axis(axis: int) -> None:
    still, _ = assess(noisy(TOTAL))
    order = (0, 1, 2) if axis == 1 else (1, 0, 2)
    moved = ghost(TOTAL.transpose(order).astype(np.float32), (3, 'scan')).transpose(order)
    ghosts, _ = assess(noisy(moved))
    assert still['ghost_ratio'] < 0.01
    assert ghosts['ghost_ratio'] > 0.03


def test_range_of_the_field_is_the_planted_one() -> None:
    corrected = {'T2w': make_image(TOTAL.astype(np.float32), AFFINE)}
    figures, _ = assess(TOTAL * ABDOMEN.field, corrected=corrected)
    low, high = np.percentile(ABDOMEN.field[ABDOMEN.body], [1, 99])
    assert figures['bias_range'] == pytest.approx(high / low, rel=0.01)


def test_clipped_empty_and_undefined() -> None:
    image = np.minimum(noisy(TOTAL), 100)
    image[:, :, 0] = 0
    image[0, 0, 1] = np.nan
    figures, flags = assess(image)
    assert figures['clipped_fraction'] > 0.1
    assert figures['n_empty_slices'] == 1
    assert figures['undefined_fraction'] == pytest.approx(1 / image.size, rel=1e-4)
    assert len(flags) == 2


def test_a_field_of_view_that_misses_the_spine() -> None:
    _, flags = assess(noisy(TOTAL), labels=make_image(np.zeros_like(MUSCLE), AFFINE))
    assert any('miss the spine' in flag for flag in flags)


def test_one_slice_and_one_that_is_all_nan() -> None:
    image = noisy(TOTAL)[:, :, :1]
    figures, _ = assess(
        image,
        body_mask=make_image(ABDOMEN.body[:, :, :1].astype(np.uint8), AFFINE),
        labels=make_image(MUSCLE[:, :, :1], AFFINE),
    )
    assert figures['snr_muscle'] > 0


@pytest.fixture(scope='module')
def scan() -> DixonPhantom:
    return make_dixon('lumbar', (72, 72, 12), bias=0)


def placed(scan: DixonPhantom, *flips: int) -> tuple[dict[str, Any], list[str]]:
    """Figures of the phantom with voxels turned round and the header left as it was."""

    def turn(data: np.ndarray) -> Any:
        return make_image(np.ascontiguousarray(np.flip(data, flips)), scan.affine)

    images = {'water': turn(scan.water), 'fat': turn(scan.fat)}
    body = turn((scan.water + scan.fat > 50).astype(np.uint8))
    swap = np.flip(scan.swap, flips)
    return image_quality(images, images, body, turn(scan.labels), LUMBAR, swap)


def test_front_and_top_are_told_from_the_muscles(scan: DixonPhantom) -> None:
    figures, flags = placed(scan)
    assert figures['front_plausible'] is True
    assert figures['up_plausible'] is not False
    assert not [flag for flag in flags if 'swapped' in flag or 'upside' in flag]
    figures, flags = placed(scan, 1)
    assert figures['front_plausible'] is False
    assert any('front and back' in flag for flag in flags)
    assert placed(scan, 2)[0]['up_plausible'] is not True
    assert figures['n_muscles_found'] == 8
    assert figures['swap_fraction'] > 0
    assert figures['fat_muscle_contrast'] > 0.2


@pytest.mark.parametrize(
    ('bottom_mm', 'top_mm', 'below'),
    [(230, 150, True), (150, 230, False), (125, 180, None), (220, 210, None), (120, 150, None)],
)
def test_shoulders_lie_below_the_neck(bottom_mm: int, top_mm: int, below: bool | None) -> None:
    body = np.zeros((250, 20, 12), bool)
    for k, width in enumerate(np.linspace(bottom_mm, top_mm, 12)):
        body[: int(width), :, k] = True
    body[:120, :, 5:7] = True
    assert _shoulders_below(1.0, body) is below


def test_an_affine_that_cannot_be_right(scan: DixonPhantom) -> None:
    sheared, huge = scan.affine.copy(), scan.affine @ np.diag([9, 1, 1, 1.0])
    sheared[0, 1] = 2
    for affine, word in ((sheared, 'not orthogonal'), (huge, 'impossible')):
        _, flags = assess(
            TOTAL,
            body_mask=make_image(ABDOMEN.body.astype(np.uint8), affine),
        )
        assert any(word in flag for flag in flags)
