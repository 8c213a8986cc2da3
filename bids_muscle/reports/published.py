"""Published reference values: means of other studies, each with how comparable it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from bids_muscle.reports.outputs import MISSING
from bids_muscle.reports.page import format_value, heading
from bids_muscle.tables import parse_rows

if TYPE_CHECKING:
    import pandas as pd

    from bids_muscle.reports.outputs import Definitions

#: Source by its key in the table.
SOURCES = {
    'weber2021': 'Weber KA, et al. Scientific Reports 2021;11. doi:10.1038/s41598-021-95972-x',
    'wesselink2022': 'Wesselink EO, et al. 2022, networks for T2-weighted lumbar images',
    'si2023': 'Si F, et al. Quant Imaging Med Surg 2023;13:4526-4539. doi:10.21037/qims-22-1131',
    'sollmann2020': 'Sollmann N, et al. Regional variation in paraspinal muscle composition using '
    'chemical shift encoding-based water-fat MRI. Quant Imaging Med Surg. PMC7063279',
    'crawford2016': 'Crawford RJ, et al. AJNR Am J Neuroradiol 2016;37:742-748. '
    'doi:10.3174/ajnr.A4596',
}
_SEX = {'F': 'women', 'M': 'men', 'both': 'women and men'}


@cache
def published_values() -> tuple[dict[str, str], ...]:
    """Return the rows of ``data/norms/published.tsv``."""
    path = resources.files('bids_muscle') / 'data/norms/published.tsv'
    return tuple(parse_rows(path.read_text(encoding='utf-8').splitlines()))


def published_lines() -> list[str]:
    """Return the values as lines of text, and the sources behind them."""
    lines = [
        f'{row["region"]}: {row["muscle"]} ({row["side"]}), {row["measure"]}, {_who(row)}: '
        f'{row["mean"]} (SD {row["sd"]}), {row["source"]}, {row["comparability"]}: {row["remark"]}'
        for row in published_values()
    ]
    return [*lines, '', *(f'{key}: {text}' for key, text in SOURCES.items())]


def published_context(
    region: str, contrast: str, means: pd.DataFrame | None, definitions: Definitions
) -> dict[str, Any] | None:
    """Return what the cohort page shows of the values of a region, or None where there is none.

    Parameters
    ----------
    region, contrast
        Of the scans of the cohort.
    means
        Table of the analysis ``means``: the cohort's own, of both sexes; None without one.
    definitions
        Data dictionary of the measures.
    """
    own = {}
    if means is not None:
        kept = means[(means['region'] == region) & (means['contrast'] == contrast)]
        for row in kept.to_dict('records'):
            text = (
                f'{format_value(row["mean"])} (SD {format_value(row["sd"])}, n = {row["n"]:.0f})'
            )
            own[row['muscle'], row['measure']] = text
    measures = {measure for _, measure in own}
    rows = [
        {
            'muscle': row['muscle'],
            'side': row['side'],
            'measure': heading(row['measure'], definitions),
            'who': _who(row),
            'value': f'{row["mean"]} (SD {row["sd"]})',
            'own': own.get((row['muscle'], row['measure']), MISSING),
            **{key: row[key] for key in ('population', 'method', 'comparability', 'remark')},
            'source': row['source'],
        }
        for row in published_values()
        if row['region'] == region and row['measure'] in measures
    ]
    used = dict.fromkeys(row['source'] for row in rows)
    return {'rows': rows, 'sources': [(key, SOURCES[key]) for key in used]} if rows else None


def _who(row: dict[str, str]) -> str:
    """Return sex, age and number of the people of a row."""
    parts: Sequence[str] = [_SEX[row['sex']]]
    if row['age_mean'] != MISSING:
        parts = [*parts, f'age {row["age_mean"]} (SD {row["age_sd"]})']
    low, high = row['age_low'], row['age_high']
    if (low, high) != (MISSING, MISSING):
        below = f'below {high}' if low == MISSING else ''
        text = below or (f'above {low}' if high == MISSING else f'{low} to {high}')
        parts = [*parts, f'age {text}']
    if row['n'] != MISSING:
        parts = [*parts, f'n = {row["n"]}']
    return ', '.join(parts)
