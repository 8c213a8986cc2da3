"""The data dictionaries of the tables that bids_muscle writes."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

#: Columns of the muscle table that people look at first, in that order.
MAIN_MEASURES = (
    'mfi_ratio_of_means_pct',
    'mfi_mean_of_voxels_pct',
    'fat_kmeans2_pct',
    'fat_gmm2_pct',
    'fat_gmm3_pct',
    'fat_kmeans3_pct',
    'volume_ml',
    'mean_csa_cm2',
    'max_csa_cm2',
)


@cache
def read_dictionary(name: str) -> dict[str, dict[str, str]]:
    """Return the definition of each column: LongName, Description, Units, for some Source.

    Parameters
    ----------
    name
        File in ``data/dictionaries`` without ``.json``.
    """
    path = resources.files('bids_muscle') / f'data/dictionaries/{name}.json'
    definitions: dict[str, dict[str, str]] = json.loads(path.read_text(encoding='utf-8'))
    return definitions
