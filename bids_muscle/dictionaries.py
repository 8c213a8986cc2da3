"""The data dictionaries of the tables that bids_muscle writes."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources


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
