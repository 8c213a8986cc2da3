"""What all pages share: the template environment, number formats, pictures as data URIs."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bids_muscle.reports.outputs import MISSING, Definitions, number

if TYPE_CHECKING:
    import jinja2

#: Measures in the order in which people look at them; a page shows those that a table has.
MAIN_MEASURES = (
    'mfi_ratio_of_means_pct',
    'mfi_pct',
    'volume_ml',
    'mean_csa_cm2',
    'max_csa_cm2',
)


@cache
def environment() -> jinja2.Environment:
    """Return the template environment: autoescape on, an unknown name is an error."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader('bids_muscle.reports', 'templates'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters['value'] = format_value
    env.filters['tick'] = lambda tick: f'{tick:g}'
    env.filters['href'] = quote
    return env


def data_uri(path: Path) -> str:
    """Return a PNG file as a data URI."""
    return 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode('ascii')


def format_value(text: str | float | None) -> str:
    """Return a number with three or four significant digits, anything else as it is.

    Examples
    --------
    >>> [format_value(text) for text in ('12.3456', '0.01234', '1234.5', 'n/a', None)]
    ['12.3', '0.0123', '1234', 'n/a', 'n/a']
    """
    if text is None:
        return MISSING
    value = number(text) if isinstance(text, str) else text
    if value is None:
        return str(text)
    if abs(value) >= 100:
        return f'{value:.0f}'
    return f'{value:#.3g}'.rstrip('.') if value else '0'


def main_measures(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Choose the measures shown first; all of a table's where it has none of the usual ones.

    Examples
    --------
    >>> main_measures(('voxels', 'volume_ml'))
    ('volume_ml',)
    """
    return tuple(name for name in MAIN_MEASURES if name in columns) or columns


def heading(column: str, definitions: Definitions) -> str:
    """Return a column's name for people, with its unit.

    Examples
    --------
    >>> heading('volume_ml', {'volume_ml': {'LongName': 'Muscle volume', 'Units': 'ml'}})
    'Muscle volume (ml)'
    """
    entry = definitions.get(column, {})
    name = str(entry.get('LongName', column))
    return f'{name} ({entry["Units"]})' if entry.get('Units') else name
