"""What all pages share: the template environment, number formats, pictures as data URIs."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bids_muscle.dictionaries import MAIN_MEASURES
from bids_muscle.reports.figure_files import Packed
from bids_muscle.reports.outputs import MISSING, REASON, Definitions, number
from bids_muscle.reports.rows import StoredRows, cells_of, columns_of, of_one_table
from bids_muscle.segmentation.quality import UNUSABLE_DICE

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


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
    env.filters['headings'] = headings
    env.globals.update(
        inline_script=inline_script, content_policy=content_policy, unusable_dice=UNUSABLE_DICE
    )
    return env


#: Where the scans of a cohort belong in the data of a page; no text of a dataset is equal to it.
SCANS_HERE = secrets.token_hex(16)
#: With more links than this the menu of contents has no subsections.
_LONG_MENU = 24
_HEADING = re.compile(r'<h([23]) id="([^"]+)"[^>]*>(.*?)</h[23]>', re.DOTALL)


def headings(content: str) -> list[tuple[str, str, int]]:
    """Return the headings of a page that have an id: id, text and level, for a menu.

    Examples
    --------
    >>> headings('<h2 id="a">Dose &amp; time</h2><h3>no id</h3><h3 id="b">In <b>mg</b></h3>')
    [('a', 'Dose & time', 2), ('b', 'In mg', 3)]
    """
    found = [
        (anchor, html.unescape(re.sub('<[^>]*>', '', text)).strip(), int(level))
        for level, anchor, text in _HEADING.findall(content)
    ]
    found = [each for each in found if each[1]]
    return found if len(found) <= _LONG_MENU else [each for each in found if each[2] == 2]


@cache
def inline_script(names: str) -> Markup:
    """Return scripts of the templates, names separated by spaces, as in a page."""
    from markupsafe import Markup

    folder = resources.files('bids_muscle.reports') / 'templates'
    text = ''.join((folder / name).read_text(encoding='utf-8') for name in names.split())
    return Markup(text)  # noqa: S704 - our own files


@cache
def content_policy(script: str | None, *, served: bool = False) -> str:
    """Return the Content Security Policy of a page: this one script, no connection at all.

    Whatever text of a dataset might slip through, a browser does not run it. A page of the server
    may talk to the server.
    """
    allowed = "'none'"
    if script:
        digest = hashlib.sha256(inline_script(script).encode('utf-8')).digest()
        allowed = f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src 'self' data: file:; base-uri 'none'; form-action 'none'"
        + ("; connect-src 'self'" if served else '')
    )


def page_link(participant: str) -> str:
    """Return the address of a participant's page, as seen from the pages of the cohort."""
    return quote(f'sub-{participant}.html')


def data_uri(path: Path | Packed) -> str:
    """Return a PNG or WebP file as a data URI."""
    return _data_uri(path.read_bytes(), path.suffix.removeprefix('.'))


def webp_uri(content: bytes) -> str:
    """Return a WebP picture as a data URI."""
    return _data_uri(content, 'webp')


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,' + base64.b64encode(content).decode('ascii')


def format_value(text: str | float | None) -> str:
    """Return a number with three significant digits, a whole number or text as it is.

    Examples
    --------
    >>> [format_value(text) for text in ('12.3456', '0.01234', '1234.5', '29', 'n/a', None)]
    ['12.3', '0.0123', '1234', '29', 'n/a', 'n/a']
    """
    if text is None:
        return MISSING
    value = number(text) if isinstance(text, str) else text
    if value is None or str(text).lstrip('-').isdigit():
        return str(text)
    if abs(value) >= 100:
        return f'{value:.0f}'
    return f'{value:#.3g}'.rstrip('.') if value else '0'


def grouped_reasons(
    rows: Sequence[Mapping[str, str]], everything: str = 'all muscles'
) -> list[tuple[str, str]]:
    """Return why values are n/a or limited: each reason once, with the names that it concerns.

    Examples
    --------
    >>> rows = [{'name': 'L4', 'reason': 'cut'}, {'name': 'L5', 'reason': 'cut; small'}]
    >>> grouped_reasons(rows, 'all vertebrae and discs')
    [('all vertebrae and discs', 'cut'), ('L5', 'small')]
    """
    concerned: dict[str, list[str]] = {}
    for row in rows:
        reasons = row.get(REASON, MISSING)
        for reason in reasons.split('; ') if reasons not in ('', MISSING) else ():
            concerned.setdefault(reason, []).append(row['name'])
    return [
        (everything if len(names) == len(rows) > 1 else ', '.join(names), reason)
        for reason, names in concerned.items()
    ]


def main_measures(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Choose the measures shown first: those that have a value, of MFI and thresholds one each.

    Parameters
    ----------
    rows
        Rows of muscle tables. Where no measure has a value, all are shown, as n/a.

    Examples
    --------
    >>> main_measures([{'mfi_ratio_of_means_pct': 'n/a', 'volume_ml': '3', 'length_mm': '9'}])
    ('volume_ml',)
    """
    if isinstance(rows, StoredRows):
        return rows.main
    if not rows:
        return ()
    there = set(columns_of(rows))
    if not of_one_table(rows):
        there = there.union(*rows)
    present = [name for name in MAIN_MEASURES if name in there]
    _, *columns = zip(*cells_of(rows, ('name', *present)), strict=True)
    valued = [
        name
        for name, cells in zip(present, columns, strict=True)
        if any(number(cell) is not None for cell in set(cells))
    ]
    return first_measures(valued or present)


def first_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Return these measures, but of MFI and of thresholds the first one each.

    Examples
    --------
    >>> first_measures(['mfi_ratio_of_means_pct', 'mfi_mean_of_voxels_pct', 'volume_ml'])
    ('mfi_ratio_of_means_pct', 'volume_ml')
    """
    shown = list(names)
    for kind in ('mfi_', 'fat_'):
        for other in [name for name in shown if name.startswith(kind)][1:]:
            shown.remove(other)
    return tuple(shown)


def page_pieces(page: str, scans: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Give a page with the data of its scans, of which not all fit into memory at once.

    Parameters
    ----------
    page
        With :data:`SCANS_HERE` as the value of ``scans`` in its data.
    scans
        In their order.
    """
    from jinja2.utils import htmlsafe_json_dumps

    front, mark, back = page.partition(f'"{SCANS_HERE}"')
    if not mark:  # the page of a cohort without scans has no data
        yield page
        return
    yield f'{front}['
    for place, scan in enumerate(scans):
        yield f'{", " if place else ""}{htmlsafe_json_dumps(scan, sort_keys=True)}'
    yield f']{back}'


def heading(column: str, definitions: Definitions) -> str:
    """Return a column's name for people, with its unit; powers are raised.

    Examples
    --------
    >>> heading('csa_cm2', {'csa_cm2': {'LongName': 'Area', 'Units': 'cm^2'}})
    'Area (cm²)'
    """
    entry = definitions.get(column, {})
    name = str(entry.get('LongName', column))
    unit = str(entry.get('Units', '')).replace('^2', '²').replace('^3', '³')
    return f'{name} ({unit})' if unit not in ('', '1') else name
