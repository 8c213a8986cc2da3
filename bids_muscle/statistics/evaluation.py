"""Evaluation of label maps against a reference: one row per muscle, then summaries over people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.anatomy.labels import Label
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.statistics.agreement import agreement, half_width
from bids_muscle.statistics.overlap import BoundaryDistance, boundary_distance, overlap

if TYPE_CHECKING:
    import pandas as pd

#: How well outlines agree, in the order of Weber 2021, Table 4; then distances (Xia 2019).
ACCURACY = (
    'dice',
    'jaccard',
    'conformity',
    'sensitivity',
    'specificity',
    'precision',
    'volume_ratio',
    'mean_boundary_distance_mm',
    'hd95_mm',
)
#: Measures whose agreement is tested, with the ends of their columns.
MEASURES = {'mfi_ratio': 'pct', 'mfi': 'pct', 'volume': 'ml'}
#: What the kinds of MFI are measured in.
_IMAGES = {'mfi_ratio': 'there are no water and fat images', 'mfi': 'there is no fat fraction'}
#: Share of the slices from the first outline to the last that have one, up to which a reader
#: has left out the others.
MOST_OUTLINED = 2 / 3
#: Row of all labels together.
ALL = 'all'


def evaluation_dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each column of the tables: LongName, Description, Units."""
    return read_dictionary('evaluation')


def compare_maps(
    test: np.ndarray,
    reference: np.ndarray,
    labels: Mapping[int, Label],
    spacing_mm: tuple[float, float, float],
    voxel_mm3: float,
    fat_fraction: np.ndarray | None = None,
    water_fat: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """Compare two label maps of one scan.

    What nobody has outlined is no background: a label that the reference lacks has no accuracy,
    and of a reference with outlines on every n-th slice only these slices are compared.

    Parameters
    ----------
    test, reference
        (X, Y, Z) label maps on one grid, in RAS+ order.
    labels
        The labels that both have, by number.
    spacing_mm, voxel_mm3
        Voxel size along each axis, and volume of a voxel.
    fat_fraction
        (X, Y, Z) from 0 to 1, NaN where undefined; its mean is the MFI inside both outlines.
    water_fat
        (X, Y, Z) signals of water and fat; the ratio of their means is the MFI of Weber 2021.

    Returns
    -------
    list of dict
        A row per label with the columns of :data:`ACCURACY`, volume and MFI by test and
        reference, and ``reason`` where a value is missing.

    Raises
    ------
    GridMismatchError
        If the shapes differ.
    """
    rows = []
    # Discs have gaps between them; muscles that have a side go through.
    sided = [number for number, label in labels.items() if label.side in ('left', 'right')]
    between = _between_outlines(reference, sided)
    if between.any() and test.shape == reference.shape:
        test = np.where(between, 0, test)
    for number, found in overlap(test, reference, list(labels)).items():
        label = labels[number]
        mine, truth = test == number, reference == number
        drawn = bool(truth.any())
        distance = BoundaryDistance()
        if not between.any():
            distance = boundary_distance(mine, truth, spacing_mm)
        row: dict[str, Any] = {
            'index': number,
            'name': label.name,
            'muscle': label.muscle,
            'side': label.side,
            **{
                name: getattr(found, name) if drawn else np.nan
                for name in ACCURACY
                if hasattr(found, name)
            },
            'mean_boundary_distance_mm': distance.mean_mm,
            'hd95_mm': distance.hd95_mm,
            'volume_test_ml': np.count_nonzero(mine) * voxel_mm3 / 1000,
            'volume_reference_ml': np.count_nonzero(truth) * voxel_mm3 / 1000,
            'mfi_ratio_test_pct': _ratio_pct(water_fat, mine),
            'mfi_ratio_reference_pct': _ratio_pct(water_fat, truth),
            'mfi_test_pct': _mean_pct(fat_fraction, mine),
            'mfi_reference_pct': _mean_pct(fat_fraction, truth),
        }
        lacking = [name for name, mask in (('test', mine), ('reference', truth)) if not mask.any()]
        reason = f'not in the {" and the ".join(lacking)}' if lacking else None
        if reason is None and found.true_positive == 0:
            reason = 'no overlap, so conformity is minus infinity'
        if between.any() and drawn:
            few = 'outlined on some slices only, compared on these, so no distances'
            reason = f'{reason}; {few}' if reason else few
        rows.append({**row, 'reason': reason})
    return rows


def _between_outlines(reference: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Return (Z,) which slices lie between those that a reader has outlined.

    None where more than :data:`MOST_OUTLINED` of the slices from the first outline to the last
    have one: a stray voxel above a muscle makes no reference of single slices.
    """
    outlined = np.asarray(np.isin(reference, labels).any(axis=(0, 1)))
    places = np.flatnonzero(outlined)
    between = np.zeros_like(outlined)
    if places.size > 1 and places.size <= MOST_OUTLINED * (np.ptp(places) + 1):
        between[places[0] : places[-1]] = ~outlined[places[0] : places[-1]]
    return between


def _ratio_pct(water_fat: tuple[np.ndarray, np.ndarray] | None, mask: np.ndarray) -> float:
    """Mean fat over mean fat + mean water of the voxels that have both."""
    if water_fat is None:
        return np.nan
    water, fat = (image[mask].astype(np.float64) for image in water_fat)
    known = np.isfinite(water) & np.isfinite(fat)
    part, rest = fat[known].sum(), water[known].sum()
    return 100 * float(part / (part + rest)) if min(part, rest) >= 0 < part + rest else np.nan


def _mean_pct(fat_fraction: np.ndarray | None, mask: np.ndarray) -> float:
    """Mean of the fat fraction of the voxels that have one, as in the table of measures."""
    if fat_fraction is None:
        return np.nan
    known = fat_fraction[mask & np.isfinite(fat_fraction)]
    return 100 * float(np.clip(known, 0, 1).mean(dtype=np.float64)) if known.size else np.nan


def people_of(table: pd.DataFrame) -> pd.Series:
    """Return the person of each row; people of two datasets are two, whatever they are called.

    A training on several datasets puts theirs before the names of its scans.
    """
    return table['scan'].str.rpartition('/')[0] + '/' + table['participant_id']


def once_each(table: pd.DataFrame, test: str, reference: str) -> pd.DataFrame:
    """Return a row for each person and label: of the first scan that has both values.

    Limits of agreement, correlation and ICC take pairs for independent, which scans of one person
    are not. Means of a person's scans would agree better than a single scan does.

    Parameters
    ----------
    table
        Rows of :func:`compare_maps` of all scans with ``participant_id`` and ``scan``.
    test, reference
        Columns. A scan in which test or reference lacks the muscle has no value.
    """
    here = (table['volume_test_ml'] > 0) & (table['volume_reference_ml'] > 0)
    both = table[[test, reference]].where(here)
    rows = table.assign(**both, person=people_of(table), lacking=both.isna().any(axis=1))
    first = rows.sort_values('lacking', kind='stable').drop_duplicates(['person', 'index'])
    return first.sort_index()


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Describe each measure of accuracy over people, for each label and all together.

    Parameters
    ----------
    table
        Rows of :func:`compare_maps` of all scans with ``participant_id`` and ``scan``.

    Returns
    -------
    pandas.DataFrame
        Tidy: columns ``index``, ``muscle``, ``side``, ``measure``, ``n``, ``n_missing``,
        ``n_failed``, ``mean``, ``sd``, ``se``, ``ci``, ``median``, ``minimum``, ``maximum``,
        ``n_scans``, ``sd_scans``. Each person counts once, with the mean of their scans, since
        these are not independent; the last two columns are over scans. A
        conformity of minus infinity is a failure: it counts, so the mean is minus infinity too.
        The row of all labels is over the means of the scans.
    """
    import pandas as pd

    keys = ['index', 'muscle', 'side']
    table = table.assign(person=people_of(table))
    groups = [(key, rows.set_index('person')) for key, rows in table.groupby(keys, sort=True)]
    means = table.groupby(['person', 'scan'])[list(ACCURACY)].mean().droplevel('scan')
    rows = [
        {**dict(zip(keys, key, strict=True)), 'measure': name, **_describe(rows[name])}
        for key, rows in [*groups, (('n/a', ALL, ALL), means)]
        for name in ACCURACY
    ]
    return pd.DataFrame(rows)


def _describe(scans: pd.Series) -> dict[str, float]:
    values = scans.groupby(level=0).mean()
    known = values.dropna().to_numpy(dtype=float)
    n, failed = known.size, int(np.isneginf(known).sum())
    sd = float(known.std(ddof=1)) if n > 1 and not failed else np.nan
    return {
        'n': n,
        'n_missing': len(values) - n,
        'n_failed': failed,
        'mean': float(known.mean()) if n else np.nan,
        'sd': sd,
        'se': sd / sqrt(n) if n > 1 else np.nan,
        'ci': half_width(known),
        'median': float(np.median(known)) if n else np.nan,
        'minimum': float(known.min()) if n else np.nan,
        'maximum': float(known.max()) if n else np.nan,
        'n_scans': int(scans.count()),
        'sd_scans': np.nan if failed else float(scans.std()),
    }


def agreements(table: pd.DataFrame) -> pd.DataFrame:
    """Compare volume and MFI with the reference, for each label.

    Returns
    -------
    pandas.DataFrame
        Columns ``index``, ``muscle``, ``side``, ``measure`` and those of
        :class:`~bids_muscle.statistics.agreement.Agreement`. Each person counts once, see
        :func:`once_each`; one without any pair is missing.
    """
    import pandas as pd

    rows = []
    for measure, unit in MEASURES.items():
        names = [f'{measure}_{which}_{unit}' for which in ('test', 'reference')]
        people = once_each(table, *names)
        for (index, muscle, side), group in people.groupby(['index', 'muscle', 'side'], sort=True):
            test, reference = (group[name].to_numpy(dtype=float) for name in names)
            found = asdict(agreement(test, reference))
            if measure in _IMAGES and isnan(found['bias']) and not np.isfinite(test).any():
                found['reason'] = _IMAGES[measure]
            rows.append(
                {'index': index, 'muscle': muscle, 'side': side, 'measure': f'{measure}_{unit}'}
                | found
            )
    return pd.DataFrame(rows)
