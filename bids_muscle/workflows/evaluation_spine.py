"""Vertebrae and discs of two derivatives datasets, paired and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_muscle.dataset.label_maps import LabelMap, pair_maps
from bids_muscle.errors import BidsMuscleError
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.workflows.evaluation_maps import (
    kind_of,
    leave_out,
    on_one_grid,
    other_files,
    scan_columns,
    stem_of,
)

if TYPE_CHECKING:
    import pandas as pd

#: Value of the ``seg`` entity of the maps of bids_muscle, by kind of structure.
_SEGMENTATIONS = {'vertebra': 'vertebrae', 'disc': 'discs'}


def compare_spines(
    readable: Sequence[LabelMap], wanted: Sequence[LabelMap], left_out: list[str]
) -> pd.DataFrame:
    """Compare the vertebrae and discs of two datasets.

    Parameters
    ----------
    readable, wanted
        All label maps of the predictions and of the references. A map may have both kinds, as
        ``seg-lumbarspine`` of the phantom has.
    left_out
        Sentences about maps that cannot be compared are appended.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for kind in _SEGMENTATIONS:
        mine = _with_kind(readable, kind)
        if not mine:
            continue
        pairs, alone = pair_maps(mine, _with_kind(wanted, kind))
        leave_out(alone, mine, left_out)
        for one, truth in other_files(pairs, left_out):
            try:
                rows += _spine_rows(one, truth, kind)
            except BidsMuscleError as error:
                left_out.append(f'{truth.path.name}: {error}')
    return pd.DataFrame(rows)


def _with_kind(maps: Sequence[LabelMap], kind: str) -> list[LabelMap]:
    """Return the maps with structures of a kind; of one scan those named after it, if any."""
    named = [each for each in maps if kind in map(kind_of, each.names.values())]
    own = [each for each in named if each.entities.get('seg') == _SEGMENTATIONS[kind]]
    scans = [each.scan_entities for each in own]
    return own + [each for each in named if each.scan_entities not in scans]


def _spine_rows(mine: LabelMap, truth: LabelMap, kind: str) -> list[dict[str, Any]]:
    """Return a row for each vertebra or disc of the reference that has a name."""
    from bids_muscle.measurement.spine import measure_spine

    images = on_one_grid(mine, truth)
    # In voxels both lie on one grid; places are compared on that of the reference.
    affine = images[1].affine
    data = [
        whole_numbers(image, each.path) for image, each in zip(images, (mine, truth), strict=True)
    ]
    codes, measured = [], []
    for numbers, label_map in zip(data, (mine, truth), strict=True):
        names = {k: name for k, name in label_map.names.items() if kind_of(name) == kind}
        codes.append({name: number for number, name in names.items()})
        own = np.where(np.isin(numbers, list(names)), numbers, 0)
        given = (nib.Nifti1Image(own, affine), names)
        table = measure_spine(*((given, None) if kind == 'vertebra' else (None, given)))
        measured.append(table.set_index('name').to_dict('index'))
    rows = []
    for name, number in codes[1].items():
        there = data[1] == number
        if not there.any():
            continue
        test = data[0] == codes[0][name] if name in codes[0] else np.zeros_like(there)
        both = [table.get(name, {}) for table in measured]
        places = [
            np.array([each.get(f'{axis}_ras_mm', np.nan) for axis in 'xyz']) for each in both
        ]
        rows.append(
            {
                **scan_columns(truth.entities, stem_of(truth)),
                'kind': kind,
                'name': name,
                'dice': 2 * np.count_nonzero(test & there) / (test.sum() + there.sum()),
                'centroid_error_mm': float(np.linalg.norm(places[0] - places[1])),
                **{
                    f'{measure}_{which}_mm': each.get(f'{measure}_mm', np.nan)
                    for measure in ('height', 'mean_height')
                    for which, each in zip(('test', 'reference'), both, strict=True)
                },
                'reason': None if test.any() else 'not in the test',
            }
        )
    return rows
