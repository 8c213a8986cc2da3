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
    ((_, figure),) = agreement_plots(table)
    bland = figure.axes[1]
    points, *levels = (np.asarray(line.get_ydata(), dtype=float) for line in bland.get_lines())
    assert len(points) == volume['n'] == 4
    *drawn, zero = [level[0] for level in levels]
    assert zero == 0
    assert np.allclose(drawn, volume[['bias', 'loa_low', 'loa_high']].to_numpy(dtype=float))


def test_the_page_says_over_how_many_scans(tmp_path: Path) -> None:
    page = write_evaluation(missed_in_one_of_five(), tmp_path, 'Five scans').read_text()
    # Dice is 0 where the muscle was missed, distances are not known there.
    assert page.count('(n = 4)') == 8
