"""Parts of one body are measured as the whole they were cut from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.errors import BadDataError
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.parts import Joined, Part, join_parts
from bids_muscle.measurement.table import Measures, measure_scan

TABLE = load_label_table('lumbar')
SHAPE = (48, 40, 60)
AFFINE = np.array([[2.0, 0, 0, -48], [0, 2.0, 0, -40], [0, 0, 4, 100], [0, 0, 0, 1.0]])
LEVELS = SliceLevels(
    (None,) * 4 + ('L5',) * 9 + ('L4',) * 9 + ('L3',) * 9 + ('L2',) * 9 + (None,) * 20,
    np.array([0.0] * 4 + [0.9] * 36 + [0.0] * 20),
    'atlas',
)


def tilted(angle: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(0, 0, angle)
    return turn @ AFFINE


def scene(affine: np.ndarray, shape: Sequence[int]) -> Part:
    """Two leaning muscles whose fat grows downwards, seen on any grid."""
    grid = np.moveaxis(np.array(np.meshgrid(*map(np.arange, shape), indexing='ij')), 0, -1)
    x, y, z = np.moveaxis(nib.affines.apply_affine(affine, grid), -1, 0)
    numbers = np.zeros(shape, np.uint8)
    for index, (side, width) in enumerate([(-20, 14), (20, 11)], start=1):
        lean = side + (z - 220) * 0.05
        inside = ((x - lean) / width) ** 2 + (y / 18) ** 2 < 1
        numbers[inside & (z > 125) & (z < 315)] = index
    fraction = np.clip(0.4 - (z - 125) / 600 + 0.1 * np.sin(x / 7), 0, 1)
    bright = 1 + 0.2 * np.cos(y / 15)
    signals = {
        'water': (1 - fraction) * 100 * bright,
        'fat': fraction * 100 * bright,
        'fat fraction': fraction,
    }
    return Part(
        nib.Nifti1Image(numbers, affine),
        {name: nib.Nifti1Image(data.astype(np.float32), affine) for name, data in signals.items()},
    )


def cut(low: int, high: int, affine: np.ndarray = AFFINE, gain: float = 1.0) -> Part:
    """Slices of the whole, as an image of its own."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ [0, 0, low] + affine[:3, 3]
    part = scene(moved, (*SHAPE[:2], high - low))
    signals = {
        name: image if name == 'fat fraction' else scaled(image, gain)
        for name, image in part.signals.items()
    }
    levels = SliceLevels(LEVELS.names[low:high], LEVELS.confidence[low:high], 'atlas')
    return Part(part.labels, signals, levels)


def scaled(image: nib.Nifti1Image, gain: float) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(image.dataobj) * np.float32(gain), image.affine)


def measured(joined: Joined | Part) -> Measures:
    signals = {name.replace(' ', '_'): image for name, image in joined.signals.items()}
    return measure_scan(
        joined.labels,
        TABLE,
        ScanImages(contrast='dixon', **signals),
        levels=joined.levels,
        covered=getattr(joined, 'covered', None),
    )


def muscles(measures: Measures) -> pd.DataFrame:
    return measures.muscles.set_index('index').loc[[1, 2]]


WHOLE = measured(cut(0, 60))
COMPARED = [
    'volume_ml', 'mean_csa_cm2', 'max_csa_cm2', 'length_mm', 'mfi_ratio_of_means_pct',
    'mfi_mean_of_voxels_pct', 'mfi_p50_pct', 'volume_asymmetry_pct', 'z_ras_mm', 'obliquity_deg',
]  # fmt: skip

CUTS: dict[str, list[Any]] = {
    'abutting': [cut(0, 30), cut(30, 60)],
    'upper first': [cut(30, 60), cut(0, 30)],
    'overlap of 10 %': [cut(0, 33), cut(30, 60)],
    'overlap of 40 %': [cut(0, 38), cut(23, 60)],
    'three parts': [cut(0, 22), cut(20, 42), cut(40, 60)],
    'other gains': [cut(0, 30, gain=0.3), cut(30, 60, gain=2.0)],
    'parts without muscle': [cut(0, 5), cut(5, 30), cut(28, 55), cut(55, 60)],
}


@pytest.mark.parametrize('name', CUTS)
def test_the_join_is_the_whole(name: str) -> None:
    joined = join_parts(CUTS[name])
    assert joined.labels.shape == SHAPE
    np.testing.assert_allclose(joined.labels.affine, AFFINE)
    found = measured(joined)
    assert joined.gap_mm == 0
    relative = 0.01 if name in ('other gains',) else 1e-4
    for column in COMPARED:
        assert muscles(found)[column].to_list() == pytest.approx(
            muscles(WHOLE)[column].to_list(), rel=relative
        ), column
    assert not muscles(found)['truncated'].any()
    assert muscles(found)['levels'].to_list() == muscles(WHOLE)['levels'].to_list()
    for table, of_whole in ((found.slices, WHOLE.slices), (found.levels, WHOLE.levels)):
        assert table['csa_cm2'].to_list() == pytest.approx(
            of_whole['csa_cm2'].to_list(), nan_ok=True
        )
        assert table['volume_ml'].sum() == pytest.approx(of_whole['volume_ml'].sum())


def test_the_parts_alone_are_cut_at_their_border() -> None:
    for part in CUTS['abutting']:
        assert muscles(measured(part))['truncated'].all()


def of_grid(affine: np.ndarray, shape: tuple[int, int, int]) -> Part:
    return scene(affine, shape)


def test_a_part_of_another_voxel_size_or_direction() -> None:
    lower = cut(0, 32)
    fine = np.diag([1.4, 1.4, 3.0, 1.0])
    fine[:3, 3] = [-50, -42, 216]
    coarse = np.diag([2.5, 2.5, 8.0, 1.0])
    coarse[:3, 3] = [-50, -45, 221]
    turned = tilted(0)
    turned[:3, :3] = nib.eulerangles.euler2mat(0, np.deg2rad(8), 0) @ AFFINE[:3, :3]
    turned[:3, 3] = [-60, -40, 222]
    for affine, shape in (
        (fine, (72, 62, 42)),
        (coarse, (40, 36, 16)),
        (turned, (60, 44, 34)),
    ):
        other = scene(affine, shape)
        joined = join_parts([Part(lower.labels, lower.signals), other])
        found = muscles(measured(joined))
        expected = muscles(WHOLE)
        for column in ('volume_ml', 'mfi_ratio_of_means_pct', 'mfi_mean_of_voxels_pct'):
            assert found[column].to_list() == pytest.approx(expected[column].to_list(), rel=0.02)
        assert not found['truncated'].any()


@pytest.mark.parametrize('order', [(2, 0, 1), (1, 2, 0)])
def test_a_part_stored_in_another_order(order: tuple[int, int, int]) -> None:
    low, high = cut(0, 30), cut(30, 60)
    codes = np.column_stack([order, (1, -1, -1)])
    stored = Part(
        low.labels.as_reoriented(codes),
        {name: image.as_reoriented(codes) for name, image in low.signals.items()},
        low.levels,
    )
    found = measured(join_parts([stored, high]))
    assert muscles(found)['volume_ml'].to_list() == pytest.approx(
        muscles(WHOLE)['volume_ml'].to_list()
    )


def test_a_gap_cuts_the_muscle_and_its_level() -> None:
    joined = join_parts([cut(0, 17), cut(20, 60)])
    assert joined.gap_mm == 12
    found = measured(joined)
    assert muscles(found)['truncated'].all()
    missing = 1 - muscles(found)['volume_ml'] / muscles(WHOLE)['volume_ml']
    assert missing.to_list() == pytest.approx([3 / 47.5] * 2, abs=0.01)
    level = found.levels[found.levels['level'] == 'L4']
    assert level['csa_cm2'].isna().all()
    assert level['reason'].str.contains('edge of the image').all()


def test_the_edge_of_the_narrower_part_cuts() -> None:
    lower = cut(0, 30)
    narrow = AFFINE.copy()
    narrow[:3, 3] = [0, -40, 220]
    joined = join_parts([Part(lower.labels, lower.signals), scene(narrow, (24, 40, 30))])
    assert muscles(measured(joined))['truncated'].to_list() == [True, False]


def test_levels_that_contradict_each_other_are_not_given() -> None:
    low, high = cut(0, 30), cut(30, 60)
    assert low.levels is not None
    shifted = SliceLevels(('L5',) * 30, np.full(30, 0.9), 'atlas')
    joined = join_parts([low, Part(high.labels, high.signals, shifted)])
    assert joined.levels is None
    assert 'contradict' in joined.warnings[0]


def test_parts_at_no_sensible_distance_are_refused() -> None:
    far = AFFINE.copy()
    far[2, 3] = 1e7
    with pytest.raises(BadDataError, match='too far'):
        join_parts([cut(0, 30), scene(far, (4, 4, 4))])
