"""Statistics of the cohort of an experiment, from the label maps of its network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.label_maps import find_label_maps
from bids_muscle.dataset.participants import read_participants
from bids_muscle.measurement.thresholds import threshold_fat
from bids_muscle.reports.evaluation import read_evaluation
from bids_muscle.statistics.cohort import AnalysisPlan, CohortAnalysis, analyse
from bids_muscle.tables import MISSING
from bids_muscle.workflows.paper_slices import DISCS

if TYPE_CHECKING:
    import pandas as pd


def muscle_fat(cohort: Path, data: Path) -> dict[str, CohortAnalysis]:
    """Analyse MFI at the first session by muscle, sex, age and BMI (Weber 2021).

    Parameters
    ----------
    cohort
        Evaluation of all participants; the MFI is that within the outlines of the network.
    data
        BIDS dataset with ``participants.tsv``.
    """
    table = read_evaluation(cohort).rename(
        columns={'mfi_ratio_test_pct': 'mfi_ratio_of_means_pct', 'volume_test_ml': 'volume_ml'}
    )
    table = table.assign(region='cervical', contrast='dixon', reason=None)
    columns = ('participant_id', 'session_id', 'region', 'contrast', 'muscle', 'side', 'reason')
    wanted = [*columns, 'mfi_ratio_of_means_pct']
    return analyse(
        _with_people(table[wanted], data),
        AnalysisPlan(measures=('mfi_ratio_of_means_pct',), harmonise_sites=False),
    )


def slice_fat(cohort: Path, data: Path) -> dict[str, CohortAnalysis]:
    """Analyse fat by k-means and area of each muscle and side at each level (Xia 2019).

    Parameters
    ----------
    cohort
        Label maps of all participants, with the slices beside them.
    data
        BIDS dataset with ``participants.tsv``.
    """
    import pandas as pd

    table = load_label_table('lumbar')
    levels = {disc.replace('-', ''): disc for disc in DISCS}
    rows: list[dict[str, Any]] = []
    for folder in sorted(path for path in cohort.glob('*/') if any(path.glob('sub-*'))):
        for label_map in find_label_maps(folder):
            stem = '_'.join(f'{k}-{v}' for k, v in label_map.scan_entities.items())
            image, drawn = (
                nib.as_closest_canonical(nib.load(path))
                for path in (
                    label_map.path.with_name(f'{stem}_desc-preproc_T2w.nii.gz'),
                    label_map.path,
                )
            )
            values, numbers = np.asarray(image.dataobj), np.asarray(drawn.dataobj)
            pixel_cm2 = float(np.prod(drawn.header.get_zooms()[:2])) / 100
            for code, number in label_map.codes(table).items():
                mask = numbers == code
                fat = threshold_fat(values[mask], 'kmeans2')
                rows.append(
                    {
                        'participant_id': f'sub-{label_map.entities["sub"]}',
                        'session_id': label_map.entities.get('ses'),
                        'region': 'lumbar',
                        'contrast': levels[label_map.entities['acq']],
                        # Left and right are muscles of their own in the paper.
                        'muscle': table.by_index[number].name,
                        'side': 'unsided',
                        'reason': None,
                        'fat_kmeans2_pct': fat.fat_pct,
                        'csa_cm2': np.count_nonzero(mask) * pixel_cm2,
                    }
                )
    return analyse(
        _with_people(pd.DataFrame(rows), data),
        AnalysisPlan(
            measures=('fat_kmeans2_pct', 'csa_cm2'), covariates=('age',), harmonise_sites=False
        ),
    )


def _with_people(table: pd.DataFrame, data: Path) -> pd.DataFrame:
    """Add the columns of participants.tsv."""
    import pandas as pd

    people = read_participants(data, list_participants(data)).rows
    frame = pd.DataFrame.from_dict(
        {f'sub-{label}': dict(row) for label, row in people.items()}, orient='index'
    )
    table = table.assign(session_id=table['session_id'].fillna(MISSING))
    return table.join(frame, on='participant_id')


#: What ``statistics`` in the description of a paper may be.
STATISTICS: dict[str, Callable[[Path, Path], dict[str, CohortAnalysis]]] = {
    'muscle_fat': muscle_fat,
    'slice_fat': slice_fat,
}
