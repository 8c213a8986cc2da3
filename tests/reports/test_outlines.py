"""Outlines of the slice viewer are simplified as Douglas and Peucker do it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from skimage.measure import approximate_polygon, find_contours

from bids_muscle.reports.scroller import simplify


@pytest.mark.parametrize('tolerance', [0.3, 1.0])
def test_many_lines_at_once_are_each_line_alone(tolerance: float) -> None:
    noise = np.random.default_rng(0).random((60, 60))
    smooth = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3
    lines = find_contours(np.pad(smooth > 0.55, 1).astype(float), 0.5)
    assert len(lines) > 20
    kept = simplify(lines, tolerance)
    assert sum(map(len, kept)) < 0.9 * sum(map(len, lines))
    few = [approximate_polygon(line, tolerance) for line in lines]
    assert sum(map(len, kept)) < 1.05 * sum(map(len, few))
    for line, own in zip(lines, kept, strict=True):
        assert own[0] == 0 and own[-1] == len(line) - 1
        for start, end in pairwise(own):
            piece, chord = line[start : end + 1] - line[start], line[end] - line[start]
            share = np.clip(piece @ chord / max(chord @ chord, 1e-9), 0, 1)
            assert np.linalg.norm(piece - share[:, None] * chord, axis=1).max() <= tolerance


def test_nothing_to_simplify() -> None:
    assert simplify([], 0.3) == []
