"""Evaluation slice by slice: areas and centroids of muscles (Hess 2022, Table 6, Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.anatomy.labels import Label
from bids_muscle.statistics.agreement import correlation, half_width
from bids_muscle.statistics.evaluation import people_of

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the summary.
SUMMARY = (
    'muscle',
    'n_people',
    'n_scans',
    'n_slices',
    'dice_mean',
    'dice_ci',
    'csa_r',
    'csa_p',
    'csa_mae_mean_cm2',
    'csa_mae_ci_cm2',
    'centroid_error_mean_mm',
    'centroid_error_ci_mm',
)


def compare_slices(
    test: np.ndarray, reference: np.ndarray, labels: Mapping[int, Label], affine: np.ndarray
) -> list[dict[str, Any]]:
    """Compare two label maps of one scan on each axial slice that the reference outlines.

    Parameters
    ----------
    test, reference
        (X, Y, Z) label maps on one grid, in RAS+ order, the slices along the third axis.
    labels
        The labels that both have, by number.
    affine
        (4, 4) of the grid, mm.

    Returns
    -------
    list of dict
        A row per slice and label that one of the maps has there: ``slice``, ``position`` (0 for
        the lowest slice with an outline, 1 for the highest), ``dice``, ``csa_test_cm2``,
        ``csa_reference_cm2`` and ``centroid_error_mm``. Slices without any outline in the
        reference do not count, nor does a label that it lacks altogether: a reader may have
        outlined some slices, or some muscles, only.
    """
    pixel_cm2 = float(np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1]))) / 100
    outlined = np.flatnonzero(np.isin(reference, list(labels)).any(axis=(0, 1)))
    drawn = {number: label for number, label in labels.items() if (reference == number).any()}
    rows = []
    for place in outlined:
        position = (place - outlined[0]) / max(outlined[-1] - outlined[0], 1)
        for number, label in drawn.items():
            mine, truth = test[..., place] == number, reference[..., place] == number
            areas = np.count_nonzero(mine), np.count_nonzero(truth)
            if not any(areas):
                continue
            both = [np.argwhere(mask) for mask in (mine, truth)]
            apart = np.nan
            if all(areas):
                step = both[0].mean(axis=0) - both[1].mean(axis=0)
                apart = float(np.linalg.norm(affine[:3, :2] @ step))
            rows.append(
                {
                    'index': number,
                    'name': label.name,
                    'muscle': label.muscle,
                    'side': label.side,
                    'slice': int(place),
                    'position': float(position),
                    'dice': 2 * np.count_nonzero(mine & truth) / sum(areas),
                    'csa_test_cm2': areas[0] * pixel_cm2,
                    'csa_reference_cm2': areas[1] * pixel_cm2,
                    'centroid_error_mm': apart,
                }
            )
    return rows


def summarise_slices(slices: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Describe area and centroid by muscle, both sides together (Hess 2022, Tables 3 and 6).

    Parameters
    ----------
    slices
        Rows of :func:`compare_slices` of all scans with ``participant_id`` and ``scan``.
    table
        Rows of :func:`~bids_muscle.statistics.evaluation.compare_maps` of the same scans.

    Returns
    -------
    pandas.DataFrame
        Dice is volumetric. Pearson's r is over slices and sides, as the p of the paper speak for;
        Dice, error of the area and of the centroid are means of scans, then over people with half
        the width of their 95 % interval, since slices and scans of one person are no independent
        observations.
    """
    import pandas as pd

    who = people_of(table).groupby(table['scan']).first()
    rows = []
    for muscle in dict.fromkeys(slices.sort_values('index')['muscle']):
        part = slices[slices['muscle'] == muscle]
        test, truth = part['csa_test_cm2'], part['csa_reference_cm2']
        r, p = correlation(test.to_numpy(dtype=float), truth.to_numpy(dtype=float))
        row: dict[str, Any] = {
            'muscle': muscle,
            'n_people': people_of(part).nunique(),
            'n_scans': part['scan'].nunique(),
            'n_slices': len(part),
            'csa_r': float(r),
            'csa_p': float(p),
        }
        for name, unit, values in (
            ('dice', '', table[table['muscle'] == muscle].set_index('scan')['dice']),
            ('csa_mae', '_cm2', (test - truth).abs().set_axis(part['scan'])),
            ('centroid_error', '_mm', part.set_index('scan')['centroid_error_mm']),
        ):
            by_scan = values.groupby(level=0).mean().dropna()
            means = by_scan.groupby(who).mean().to_numpy(dtype=float)
            row[f'{name}_mean{unit}'] = float(means.mean()) if means.size else np.nan
            row[f'{name}_ci{unit}'] = half_width(means)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(SUMMARY))
