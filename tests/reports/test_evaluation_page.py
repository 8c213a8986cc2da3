"""The page of an evaluation says the same in its tables and in its plots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.reports.evaluation import write_evaluation
from bids_muscle.reports.evaluation_plots import agreement_plots
from bids_muscle.statistics.evaluation import agreements, compare_maps

LABEL = load_label_table('lumbar').by_index[1]


def missed_in_one_of_five() -> pd.DataFrame:
    rows = []
    for scan in range(5):
        reference = np.zeros((12, 12, 3), np.uint8)
        reference[2 : 6 + scan, 3:8] = 1
        test = np.roll(reference, 1, axis=0) if scan else np.zeros_like(reference)
        test[2, 3, :scan] = 1
        (row,) = compare_maps(test, reference, {1: LABEL}, (1.0, 1.0, 4.0), 4.0)
        rows.append({'participant_id': f'sub-{scan}', 'session_id': None, 'scan': f'{scan}'} | row)
    return pd.DataFrame(rows)


def test_a_muscle_that_was_missed_is_in_no_plot_of_agreement() -> None:
    table = missed_in_one_of_five()
    volume = agreements(table).set_index('measure').loc['volume_ml']
    ((_, figure),) = agreement_plots(table).values()
    bland = figure.axes[1]
    points, *levels = (np.asarray(line.get_ydata(), dtype=float) for line in bland.get_lines())
    assert len(points) == volume['n'] == 4
    *drawn, zero = [level[0] for level in levels]
    assert zero == 0
    assert np.allclose(drawn, volume[['bias', 'loa_low', 'loa_high']].to_numpy(dtype=float))


def test_the_page_says_over_how_many_scans(tmp_path: Path) -> None:
    page = write_evaluation(missed_in_one_of_five(), tmp_path, 'Five scans').read_text()
    # Dice is 0 where the muscle was missed, conformity has no mean, distances are not known there.
    assert page.count('−∞ (1 failed; median') == 2
    assert page.count('(n = 4)') == 6


def test_the_lines_of_the_plots_are_those_of_weber() -> None:
    # Reference = 1 + 2 x test on both sides: best fit slope 2, through the origin steeper.
    table = pd.DataFrame(
        [
            {
                'index': index,
                'muscle': 'multifidus',
                'side': side,
                'volume_test_ml': float(ml),
                'volume_reference_ml': 1 + 2 * ml,
                **dict.fromkeys(('mfi_test_pct', 'mfi_reference_pct'), np.nan),
                **dict.fromkeys(('mfi_ratio_test_pct', 'mfi_ratio_reference_pct'), np.nan),
            }
            for index, side in ((1, 'right'), (2, 'left'))
            for ml in range(1, 6)
        ]
    )
    ((_, figure),) = agreement_plots(table).values()
    scatter, bland = figure.axes
    *sides, best, beta = scatter.get_lines()
    assert sorted(line.get_label() for line in sides) == ['left', 'right']
    assert best.get_linestyle() == '--'
    assert np.allclose(best.get_xydata(), [[1, 3], [5, 11]])
    slope = float(beta.get_ydata()[0]) / float(beta.get_xdata()[0])
    assert np.isclose(slope, 125 / 55) and beta.get_label().startswith('β = 2.27')
    assert 'test' in scatter.get_xlabel() and 'reference' in scatter.get_ylabel()
    assert np.isclose(bland.get_lines()[2].get_ydata()[0], -4)
