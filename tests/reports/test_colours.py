"""Neighbours in a label map have colours that differ, for the colour-blind too."""

from __future__ import annotations

from importlib import resources

import nibabel as nib
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from bids_muscle.anatomy.labels import LabelTable, load_label_table
from bids_muscle.reports.spine_figure import spine_labels

#: Linear RGB as people without green or red cones see it (Machado 2009, severity 1).
VISION = {
    'normal': np.eye(3),
    'deuteranopia': np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    'protanopia': np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
#: Least CIEDE2000 between neighbours.
LEAST = {'normal': 20.0, 'deuteranopia': 14.5, 'protanopia': 14.5}
#: Muscles at most this far apart in a slice of the atlas are neighbours.
REACH_MM = 6.0


def seen_by(rgb: np.ndarray, vision: str) -> np.ndarray:
    """Return sRGB colours, 0 to 1, as CIELAB of a kind of vision; shape (colours, 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0, 1)
    back = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(back[None])[0]


def neighbours(region: str) -> set[tuple[int, int]]:
    """Return pairs of labels that lie close to each other in the atlas, and the two sides."""
    name = f'tpl-phantom{region}'
    folder = resources.files('bids_muscle') / 'data/atlas' / name
    image = nib.load(str(folder / f'{name}_seg-{region}muscles_dseg.nii.gz'))
    numbers = np.asarray(image.dataobj)
    pairs = {(odd, odd + 1) for odd in range(1, int(numbers.max()), 2)}
    for axis in (0, 1):
        for step in range(1, round(REACH_MM / image.header.get_zooms()[axis]) + 1):
            moved = np.moveaxis(numbers, axis, 0)
            one, other = moved[:-step], moved[step:]
            close = (one > 0) & (other > 0) & (one != other)
            pairs |= {tuple(sorted(p)) for p in np.stack([one[close], other[close]], 1).tolist()}
    return pairs


def check(table: LabelTable, pairs: set[tuple[int, int]]) -> None:
    colours = {label.index: np.array(label.rgb) / 255 for label in table}
    for vision, least in LEAST.items():
        one, other = (seen_by(np.array([colours[p[k]] for p in pairs]), vision) for k in (0, 1))
        found = dict(zip(pairs, deltaE_ciede2000(one, other).round(1).tolist(), strict=True))
        assert {pair: value for pair, value in found.items() if value < least} == {}, vision


@pytest.mark.parametrize('region', ['lumbar', 'cervical'])
def test_neighbouring_muscles_differ(region: str) -> None:
    pairs = neighbours(region)
    assert len(pairs) > 8
    check(load_label_table(region), pairs)


def test_neighbouring_vertebrae_and_discs_differ() -> None:
    bodies = range(15, 25)
    table = spine_labels({number: str(number) for k in bodies for number in (k, k + 100)})
    pairs = {(k, k + 1) for k in bodies[:-1]} | {(k + 100, k + 101) for k in bodies[:-1]}
    pairs |= {(k, k + 100) for k in bodies} | {(k + 1, k + 100) for k in bodies[:-1]}
    check(table, pairs)
