"""Water, fat and fat fraction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bids_muscle.errors import BadDataError
from bids_muscle.imaging.dixon import (
    fat_fraction,
    noise_floor,
    scale_fat_fraction,
    water_fat_from_phases,
)

SIGNALS = hnp.arrays(np.float32, 20, elements=st.floats(0, 1000, width=32))


@given(SIGNALS, SIGNALS)
def test_phases_give_back_water_and_fat_up_to_exchange(water: np.ndarray, fat: np.ndarray) -> None:
    found_water, found_fat = water_fat_from_phases(water + fat, abs(water - fat))
    assert np.allclose(found_water, np.maximum(water, fat), atol=1e-3)
    assert np.allclose(found_fat, np.minimum(water, fat), atol=1e-3)


@given(SIGNALS, SIGNALS)
def test_any_two_magnitudes_keep_fat_within_half(inn: np.ndarray, opposed: np.ndarray) -> None:
    water, fat = water_fat_from_phases(inn, opposed)
    assert (fat >= 0).all()
    assert (fat <= water + 1e-3).all()
    assert np.allclose(water + fat, inn, atol=1e-3)


@given(SIGNALS, SIGNALS, st.floats(0, 100))
def test_fat_fraction_is_between_0_and_1_or_undefined(
    water: np.ndarray, fat: np.ndarray, floor: float
) -> None:
    fraction = fat_fraction(water - 10, fat - 10, floor)
    defined = np.isfinite(fraction)
    assert ((fraction[defined] >= 0) & (fraction[defined] <= 1)).all()
    assert np.array_equal(defined, (water - 10).astype(float) + (fat - 10) > floor)


def test_noise_floor_lies_between_air_and_tissue() -> None:
    rng = np.random.default_rng(1)
    total = rng.rayleigh(2, (40, 40, 5))
    mask = np.zeros(total.shape, bool)
    mask[10:30, 10:30] = True
    total[mask] += 300
    floor = noise_floor(total, mask)
    assert np.percentile(total[~mask], 97) < floor < 0.05 * 300 + 1
    total[~mask] = 0  # air masked by the scanner says nothing
    assert noise_floor(total, mask) == 0


def test_an_undefined_voxel_does_not_lift_the_noise_floor() -> None:
    rng = np.random.default_rng(1)
    total = rng.rayleigh(20, (40, 40, 5))
    mask = np.zeros(total.shape, bool)
    mask[10:30, 10:30] = True
    total[mask] = 300
    assert noise_floor(total, mask) == pytest.approx(0.05 * 300)
    total[0, 0, 0] = total[15, 15, 2] = np.nan
    assert noise_floor(total, mask) == pytest.approx(0.05 * 300)


@pytest.mark.parametrize('unit', [1.0, 100.0, 1000.0])
@pytest.mark.parametrize('subject', ['lean slab', 'much fat'])
def test_units_of_a_scanner_fat_fraction(unit: float, subject: str) -> None:
    rng = np.random.default_rng(2)
    share = 0.05 if subject == 'lean slab' else 0.6
    truth = np.where(rng.random(5000) < share, 0.93, 0.08) + rng.normal(0, 0.02, 5000)
    fraction, found = scale_fat_fraction(truth * unit)
    assert found == unit
    assert np.allclose(fraction, np.clip(truth, 0, 1), atol=1e-6)


@pytest.mark.parametrize('top', [0.0, 5.0, 20.0, 200.0, 4095.0])
def test_what_is_no_fat_fraction_is_refused(top: float) -> None:
    with pytest.raises(BadDataError, match='not a fat fraction'):
        scale_fat_fraction(np.linspace(0, top, 1000))
