"""The fat inside the muscles: as much as planted, in streaks, near spine and fascia."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bids_muscle.phantom.anatomy import Anatomy
from bids_muscle.phantom.fat import fat_by_rank, make_pattern
from bids_muscle.phantom.person import Person
from bids_muscle.phantom.protocol import fat_phasor, fat_share, muscle_signals, sequence_for
from bids_muscle.phantom.render import ScanGrid, sample_grid
from bids_muscle.phantom.tissues import load_tissues


@given(
    mean=st.floats(0.001, 0.95),
    weights=st.lists(st.integers(0, 1000), min_size=256, max_size=256).filter(any),
)
def test_fat_by_rank_has_the_planted_mean(mean: float, weights: list[int]) -> None:
    histogram = np.array(weights, float)
    fat = fat_by_rank(histogram, mean)
    assert ((fat >= 0) & (fat <= 1)).all()
    assert (np.diff(fat) >= -1e-12).all()
    if mean < 0.7:
        assert histogram @ fat / histogram.sum() == pytest.approx(mean, abs=1e-6)


@given(mfi=st.floats(0.001, 0.999), tesla=st.sampled_from([1.5, 3.0]))
def test_a_muscle_with_the_fat_share_of_an_mfi_shows_this_mfi(mfi: float, tesla: float) -> None:
    water, fat = muscle_signals(tesla)
    share = fat_share(mfi, tesla)
    assert share * fat / (share * fat + (1 - share) * water) == pytest.approx(mfi, rel=1e-9)


def test_pattern_is_smooth_along_the_fibres_and_fuller_near_the_spine(
    lumbar: Anatomy, person: Person
) -> None:
    pattern = make_pattern(lumbar, person)
    voxel = np.diag([-1.5, 1.5, 3.0, 1.0])
    voxel[:3, 3] = (75, -90, -30)
    samples = sample_grid(lumbar, pattern, ScanGrid((100, 60, 20), voxel))
    rank = (samples.index % 256).mean(axis=1).T.reshape(100, 60, 20)
    multifidus = samples.labels == 1
    core = ndimage.binary_erosion(multifidus, iterations=2)
    up = np.abs(np.diff(rank, axis=2))[core[..., 1:]].mean()
    across = np.abs(np.diff(rank, axis=0))[core[1:]].mean()
    assert up / 3.0 < 0.7 * across / 1.5
    x = np.broadcast_to((75 - 1.5 * np.arange(100))[:, None, None], rank.shape)
    medial = multifidus & (np.abs(x) < 10)
    assert rank[medial].mean() > rank[multifidus & ~medial].mean() + 10


def test_relaxation_and_chemical_shift() -> None:
    tissues = load_tissues(3.0)
    t1w, t2w = sequence_for('t1w', 3.0), sequence_for('t2w', 3.0)
    assert t1w.signal(tissues['fat']) > t1w.signal(tissues['muscle']) > t1w.signal(tissues['csf'])
    assert t2w.signal(tissues['csf']) > t2w.signal(tissues['fat']) > t2w.signal(tissues['muscle'])
    # Half and one period of the main peak, 434 Hz at 3 T.
    assert fat_phasor(1.15, 3.0).real < -0.6
    assert fat_phasor(2.30, 3.0).real > 0.6
    assert fat_phasor(4.60, 1.5).real == pytest.approx(fat_phasor(2.30, 3.0).real)
    assert load_tissues(1.5)['muscle'].t1_ms < tissues['muscle'].t1_ms
