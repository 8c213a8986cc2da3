"""Outlines that have gone astray are named with the slice, and true muscles are not."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.anatomy.structures import for_region, model_table
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.outlines import outline_doubts
from bids_muscle.measurement.table import measure_scan
from bids_muscle.phantom.dataset import write_dataset

TABLE = load_label_table('lumbar')
N_SLICES, SLICE_MM = 30, 4.0


def slices(**changed: dict[int, float]) -> pd.DataFrame:
    """Areas of all muscles over 30 slices, 10 cm2 each; `changed` by name and slice."""
    rows = []
    for label in TABLE:
        areas = np.full(N_SLICES, 10.0)
        for where, area in changed.get(label.name.replace(' ', '_'), {}).items():
            areas[where] = area
        rows += [
            {
                'name': label.name,
                'muscle': label.muscle,
                'side': label.side,
                'slice': k,
                'csa_cm2': area,
                'volume_ml': area * SLICE_MM / 10,
                'z_ras_mm': k * SLICE_MM,
                'within_extent': True,
            }
            for k, area in enumerate(areas)
            if area > 0
        ]
    return pd.DataFrame(rows)


def all_slices(area: float) -> dict[int, float]:
    return dict.fromkeys(range(N_SLICES), area)


def test_what_is_even_needs_no_word() -> None:
    assert outline_doubts(slices(), TABLE) == []
    assert outline_doubts(slices().iloc[:0], TABLE) == []


def test_a_fifth_of_the_other_side_is_not_almost_missing() -> None:
    def missing(area: float) -> bool:
        doubts = outline_doubts(slices(left_psoas_major={3: area}), TABLE)
        return any('almost missing' in doubt for doubt in doubts)

    assert missing(1.99)
    assert not missing(2.0)


@pytest.mark.parametrize(
    ('area', 'jumps'), [(24.9, False), (25.1, True), (4.1, False), (3.9, True)]
)
def test_an_area_jumps_by_a_factor_of_two_and_a_half(area: float, jumps: bool) -> None:
    both = {f'{side}_psoas_major': {9: area} for side in ('left', 'right')}
    doubts = outline_doubts(slices(**both), TABLE)
    assert any('jumps in slice 9' in doubt for doubt in doubts) == jumps


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        (
            {'left_psoas_major': {3: 0, 4: 1}},
            'Psoas major is almost missing on one side in slices 3-4 (slice 3: left 0.0, right '
            '10.0 cm2). Check the segmentation there.',
        ),
        (
            {'left_psoas_major': all_slices(0)},
            'Left psoas major is missing, and right psoas major has 120 ml. Check the '
            'segmentation.',
        ),
        (
            {'right_multifidus': all_slices(3)},
            'The sides of multifidus differ 3.3-fold (left 120, right 36 ml). Check the '
            'segmentation.',
        ),
        (
            {f'{side}_quadratus_lumborum': all_slices(0) for side in ('left', 'right')},
            'Quadratus lumborum was not found on either side, though other muscles are seen over '
            '116 mm. Check the segmentation.',
        ),
        (
            {'right_psoas_major': {8: 9, 9: 3}},
            'The area of right psoas major jumps in slice 9 (slice 9: 3.0 cm2, beside it 9.0 and '
            '10.0). Check the segmentation there.',
        ),
        (
            {f'{side}_psoas_major': {9: 30} for side in ('left', 'right')},
            'The area of left psoas major jumps in slice 9 (slice 9: 30.0 cm2, beside it 10.0 and '
            '10.0). Check the segmentation there.',
        ),
        (
            {
                'left_multifidus': dict.fromkeys(range(12), 6.0),
                'left_erector_spinae': dict.fromkeys(range(12), 14.0),
            },
            'The border of multifidus with erector spinae on the left moves by more than a third '
            'of the smaller muscle at slice 12. Check the segmentation there.',
        ),
    ],
)
def test_each_kind_is_named_with_its_slice(
    changed: dict[str, dict[int, float]], said: str
) -> None:
    assert said in outline_doubts(slices(**changed), TABLE)


def test_small_pieces_and_ends_of_muscles_are_nothing() -> None:
    short = dict.fromkeys(range(15), 0.0)
    assert outline_doubts(slices(left_psoas_major=short, right_psoas_major=short), TABLE) == []
    small = all_slices(0.3)
    assert outline_doubts(slices(left_psoas_major=small, right_psoas_major=small), TABLE) == []
    earlier = {0: 0.0, 1: 0.0, 2: 0.5}  # 8 mm and a little
    assert outline_doubts(slices(left_psoas_major={0: 0.0, 1: 0.0}), TABLE) == []
    assert len(outline_doubts(slices(left_psoas_major=earlier), TABLE)) == 1
    lone = {k: 3.0 if k == 9 else 0.0 for k in range(N_SLICES)}
    assert outline_doubts(slices(left_psoas_major=lone, right_psoas_major=lone), TABLE) == []
    growing = {k: 1 + k for k in range(N_SLICES)}
    assert outline_doubts(slices(left_psoas_major=growing, right_psoas_major=growing), TABLE) == []


@pytest.mark.parametrize('region', ['lumbar', 'cervical'])
def test_true_outlines_of_simulated_people_raise_nothing(tmp_path: Path, region: str) -> None:
    folder = write_dataset(
        tmp_path / 'bids',
        participants=2,
        regions=(region,),
        contrasts=('t2w',),
        shape=(128, 96, 16),
        voxel_mm=(2.0, 2.0, 8.0),
        seed=11,
    )
    table = load_label_table(region)
    maps = sorted(
        folder.glob(f'derivatives/truth/sub-*/anat/*_seg-{table.segmentation}_dseg.nii.gz')
    )
    assert len(maps) == 2
    for path in maps:
        image = nib.as_closest_canonical(nib.load(path))
        assert (
            outline_doubts(measure_scan(image, table, ScanImages(contrast='T2w')).slices, table)
            == []
        )


def test_what_a_model_has_no_class_for_is_not_missing() -> None:
    lacking = [label.index for label in TABLE if label.name == 'left psoas major']
    found = slices(left_psoas_major=all_slices(0))
    assert any('missing' in sentence for sentence in outline_doubts(found, TABLE))
    assert outline_doubts(found, TABLE, lacking) == []
    # Nor is what lies elsewhere in a table of its own.
    table = for_region(model_table({5121: 'left psoas', 7132: 'right sartorius'}), 'lumbar')
    assert table is not None
    assert outline_doubts(slices(), table) == []
