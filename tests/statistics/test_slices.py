"""Areas and centroids slice by slice, on boxes whose truth is known."""

from __future__ import annotations

from math import isnan

import numpy as np
import pandas as pd
import pytest

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.statistics.evaluation import compare_maps
from bids_muscle.statistics.slices import SUMMARY, compare_slices, summarise_slices

LABELS = {1: load_label_table('lumbar').by_index[1]}
#: Pixels of 2 x 3 mm, slices 5 mm apart, and turned in the scanner.
AFFINE = np.array([[0, -3, 0, 7], [2, 0, 0, 1], [0, 0, 5, -4], [0, 0, 0, 1.0]])


def maps(shift: int, lacking: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return test and reference: 4 x 5 pixels on slices 1 to 4, the test moved along x."""
    reference = np.zeros((12, 9, 6), np.uint8)
    reference[2:6, 2:7, 1:5] = 1
    test = np.roll(reference, shift, axis=0)
    test[..., 5] = 1  # where the reader outlined nothing
    test[..., 1 : 1 + lacking] = 0
    return test, reference


def test_areas_and_centroids_of_each_outlined_slice() -> None:
    rows = compare_slices(*maps(1, lacking=1), LABELS, AFFINE)
    assert [row['slice'] for row in rows] == [1, 2, 3, 4]
    assert [row['position'] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [row['csa_reference_cm2'] for row in rows] == pytest.approx([20 * 0.06] * 4)
    assert [row['csa_test_cm2'] for row in rows] == pytest.approx([0, *[1.2] * 3])
    assert [row['dice'] for row in rows] == pytest.approx([0, *[0.75] * 3])
    # One pixel along the first axis, which is 2 mm long.
    assert isnan(rows[0]['centroid_error_mm'])
    assert [row['centroid_error_mm'] for row in rows[1:]] == pytest.approx([2] * 3)


def test_a_muscle_that_nobody_outlined_has_no_slices() -> None:
    test, reference = maps(1)
    test[8:11, 2:7, 1:5] = 2
    both = LABELS | {2: load_label_table('lumbar').by_index[2]}
    rows = compare_slices(test, reference, both, AFFINE)
    assert rows == compare_slices(*maps(1), LABELS, AFFINE)
    # Where it is outlined somewhere, other slices of it are errors.
    reference[8:11, 2:7, 2] = 2
    rows = compare_slices(test, reference, both, AFFINE)
    assert [row['dice'] for row in rows if row['index'] == 2] == pytest.approx([0, 1, 0, 0])


def test_means_are_over_scans_and_the_correlation_over_slices() -> None:
    slices, scans = [], []
    for number in range(3):
        test, reference = maps(number, lacking=number)
        name = {'participant_id': f'sub-{number}', 'scan': f's{number}'}
        slices += [name | row for row in compare_slices(test, reference, LABELS, AFFINE)]
        found = compare_maps(test, reference, LABELS, (2.0, 3.0, 5.0), 30.0)
        scans += [name | row for row in found]
    table = pd.DataFrame(scans)
    (row,) = summarise_slices(pd.DataFrame(slices), table).to_dict('records')
    assert set(row) == set(SUMMARY) <= set(read_dictionary('evaluation_slices'))
    assert (row['n_people'], row['n_scans'], row['n_slices']) == (3, 3, 12)
    assert row['dice_mean'] == pytest.approx(table['dice'].mean())
    assert row['csa_mae_mean_cm2'] == pytest.approx(np.mean([0, 1.2 / 4, 2.4 / 4]))
    assert row['centroid_error_mean_mm'] == pytest.approx(2)  # 0, 2 and 4 mm
    assert row['centroid_error_ci_mm'] == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert isnan(row['csa_r'])  # the reference has one area only
    # Scanned twice, the same people have the same intervals.
    twice = [
        pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(scan=lambda x: x['scan'] + 'b')])
        for rows in (slices, scans)
    ]
    (again,) = summarise_slices(*twice).to_dict('records')
    assert (again['n_people'], again['n_scans']) == (3, 6)
    for name in ('dice_ci', 'csa_mae_ci_cm2', 'centroid_error_ci_mm'):
        assert again[name] == pytest.approx(row[name])
