"""The page of an evaluation says the same in its tables and in its plots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.reports.evaluation import write_evaluation
from bids_muscle.reports.evaluation_plots import agreement_plots
from bids_muscle.statistics.evaluation import ACCURACY, agreements, compare_maps
from bids_muscle.workflows.evaluation import compare_models

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
                'participant_id': f'sub-{ml}',
                'scan': f'sub-{ml}',
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


def evaluation(folder: Path, scans: pd.DataFrame) -> Path:
    """Write the rows of an evaluation of one muscle: ``scan``, ``dice`` and a distance."""
    names = scans['scan'].str.rpartition('/')[2]
    measures = dict.fromkeys([*ACCURACY, 'mfi_test_pct', 'mfi_reference_pct'], 0.5)
    measures |= dict.fromkeys(['mfi_ratio_test_pct', 'mfi_ratio_reference_pct'], 0.5)
    rows = scans.assign(
        **{name: value for name, value in measures.items() if name not in scans},
        participant_id=names.str.partition('_')[0],
        index=1,
        name='left psoas',
        muscle='psoas',
        side='left',
        volume_test_ml=1 + scans['dice'],
        volume_reference_ml=1.0 + np.arange(len(scans)),
        reason=None,
    )
    folder.mkdir(parents=True)
    rows.to_csv(folder / 'evaluation.tsv', sep='\t', index=False, na_rep='n/a')
    return folder


def compared(folders: list[Path], output: Path) -> pd.DataFrame:
    page = compare_models(folders, output)
    table = pd.read_csv(page.parent / 'comparison_pairs.tsv', sep='\t', na_values='n/a')
    return table[table['within'] == 'left psoas'].set_index('outcome')


def visits(prefixes: list[str], n: int, sessions: int, seed: int) -> pd.DataFrame:
    """Return scans whose Dice differs more between people than between their sessions."""
    rng = np.random.default_rng(seed)
    scans = [
        (f'{prefix}sub-{who}_ses-{session}_T1w', dice + rng.normal(0, 0.002))
        for prefix in prefixes
        for who, dice in enumerate(rng.normal(0.9, 0.03, n))
        for session in range(sessions)
    ]
    frame = pd.DataFrame(scans, columns=['scan', 'dice'])
    return frame.assign(mean_boundary_distance_mm=1 - frame['dice'])


def test_models_are_compared_over_people_and_not_over_scans(tmp_path: Path) -> None:
    good, fair = (visits([''], 6, 4, seed) for seed in (0, 1))
    # A distance that one model lacks in one scan counts for neither model.
    good.loc[5, 'mean_boundary_distance_mm'] = np.nan
    folders = [evaluation(tmp_path / 'good', good), evaluation(tmp_path / 'fair', fair)]
    found = compared(folders, tmp_path / 'out')
    assert found['n'].tolist() == [6, 6]
    for name in ('dice', 'mean_boundary_distance_mm'):
        both = good.merge(fair, on='scan').dropna(subset=f'{name}_x')
        own = both.groupby(both['scan'].str[:5]).mean(numeric_only=True)
        test = stats.ttest_rel(own[f'{name}_x'], own[f'{name}_y'])
        assert abs(found.loc[name, 't']) == pytest.approx(abs(test.statistic))
        assert found.loc[name, 'p'] == pytest.approx(test.pvalue)
    page = (tmp_path / 'out/comparison.html').read_text()
    assert '24 of 6 participants' in page
    anova = pd.read_csv(tmp_path / 'out/comparison_anova.tsv', sep='\t')
    assert set(anova['n']) == {6}
    for name in ('summary', 'agreement'):
        table = pd.read_csv(tmp_path / f'out/comparison_{name}.tsv', sep='\t')
        assert set(table['n']) == {6}


def test_people_of_two_datasets_are_two(tmp_path: Path) -> None:
    """Also where another evaluation of the same scans does not tell the dataset."""
    named = visits(['a/', 'b/'], 5, 1, 0)
    place = named['scan'].str.startswith('b/')
    named['scan'] = named['scan'].str.replace('T1w', 'T2w').where(place, named['scan'])
    plain = named.assign(
        scan=named['scan'].str.partition('/')[2], dice=visits(['a/', 'b/'], 5, 1, 1)['dice']
    )
    for name, first, second in (('x', named, plain), ('y', plain, named)):
        folders = [
            evaluation(tmp_path / name / 'one', first),
            evaluation(tmp_path / name / 'other', second),
        ]
        assert set(compared(folders, tmp_path / name / 'out')['n']) == {10}
    same = named.assign(scan=named['scan'].str.replace('T2w', 'T1w'))
    again = same.assign(dice=plain['dice'])
    folders = [evaluation(tmp_path / 'z/one', same), evaluation(tmp_path / 'z/other', again)]
    assert set(compared(folders, tmp_path / 'z/out')['n']) == {10}
