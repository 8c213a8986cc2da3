"""The page that sets the tables and figures of a paper beside those of its repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from math import isnan
from pathlib import Path
from typing import Any

from bids_muscle.dataset.writer import read_tsv, write_text
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.reports.outputs import MISSING
from bids_muscle.reports.page import data_uri, environment
from bids_muscle.reports.statistics import statistics_context
from bids_muscle.statistics.cohort import CohortAnalysis
from bids_muscle.tables import read_rows

#: Columns of the tables that are text.
_TEXT = (
    'muscle', 'side', 'measure', 'name', 'kind', 'model', 'effect', 'level', 'other_level',
    'within', 'outcome', 'task', 'contrast', 'variable', 'region', 'reason',
)  # fmt: skip


def write_reproduction(
    shown: Mapping[str, Any],
    output: Path,
    lacking: Mapping[str, str],
    remarks: Sequence[str],
    analyses: Mapping[str, CohortAnalysis],
) -> Path:
    """Write the page of an experiment.

    Parameters
    ----------
    shown
        ``name``, ``title``, ``scale``, ``data``, ``arms``, ``tables`` and ``figures``, as in the
        description of the paper.
    output
        Folder of the experiment.
    lacking
        What label maps the data lack, by ``seg``.
    remarks
        Sentences about the data.
    analyses
        Statistics of the cohort.

    Returns
    -------
    Path
        The page, ``reproduction.html``; its tables are in ``reproduction.md``, too.
    """
    printed = _printed(shown['name'])
    tables = [_table(each, output, printed, lacking) for each in shown['tables']]
    figures = [
        (*_heading(each), data_uri(path) if (path := output / each['file']).is_file() else None)
        for each in shown['figures']
    ]
    definitions = read_dictionary('group_muscles') | read_dictionary('morph')
    places = dict.fromkeys(
        (finding.region, finding.contrast)
        for analysis in analyses.values()
        for finding in analysis.findings
    )
    context = {
        **shown,
        'title': f'Repetition of {shown["title"]}',
        'tables': tables,
        'figures': figures,
        'remarks': remarks,
        'lacking': list(lacking.values()),
        'pages': sorted(
            path.relative_to(output).as_posix()
            for path in (*output.glob('evaluation/*/*.html'), *output.glob('comparison/*/*.html'))
        ),
        'statistics': [
            (f'{region}, {contrast}', statistics_context(analyses, region, contrast, definitions))
            for region, contrast in places
        ],
    }
    pages = [output / f'reproduction.{ending}' for ending in ('html', 'md')]
    for page in pages:
        write_text(environment().get_template(f'{page.name}.j2').render(context), page)
    return pages[0]


def _printed(name: str) -> dict[str, dict[tuple[str, str], str]]:
    """Read the numbers of a paper: by table, then by row and column."""
    path = Path(str(resources.files('bids_muscle') / f'data/papers/{name}.tsv'))
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in read_rows(path):
        found.setdefault(row['table'], {})[row['row'], row['column']] = row['value']
    return found


def _heading(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Return number and rest of a title, such as 'Table 1' and what it shows."""
    number, _, rest = spec['title'].partition('. ')
    return number, rest


def _table(
    spec: Mapping[str, Any],
    output: Path,
    printed: Mapping[str, Mapping[tuple[str, str], str]],
    lacking: Mapping[str, str],
) -> dict[str, Any]:
    """Return headings and rows of a table; each cell is ours and the paper's."""
    theirs = printed.get(spec['number'], {})
    headings = [column['heading'] for column in spec['columns']]
    headings += [each for each in dict.fromkeys(c for _, c in theirs) if each not in headings]
    path, reason = output / spec['file'], ''
    ours: dict[tuple[str, str], str] = {}
    unknown: list[str] = []
    if path.is_file():
        rows = read_tsv(path, _TEXT).to_dict('records')
        ours = fill(spec, rows)
        shown = [row for row in _chosen(spec, rows) if any(_fits(c, row) for c in spec['columns'])]
        given = {row.get('reason') for row in shown}
        unknown = sorted(text for text in given if isinstance(text, str))
    elif spec.get('needs') in lacking:
        reason = f'The data have no label map of {lacking[spec["needs"]]}.'
    else:
        reason = f'{spec["file"]} was not made.'
    names = dict.fromkeys([row for row, _ in theirs] + [row for row, _ in ours])
    return {
        **dict(zip(('heading', 'about'), _heading(spec), strict=True)),
        'file': spec['file'] if not reason else '',
        'reason': reason,
        'unknown': unknown,
        'headings': headings,
        'rows': [
            (
                name,
                [
                    (ours.get((name, each), MISSING), theirs.get((name, each), ''))
                    for each in headings
                ],
            )
            for name in names
        ],
    }


def fill(spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Fill the cells of a table from the rows of a file.

    Parameters
    ----------
    spec
        ``row`` and the ``cell`` of each of ``columns`` are format strings, of several cells the
        first without a missing value counts; ``where`` of a column and ``only`` of the table
        choose rows; ``rename`` says what values are called.
    rows
        Of the file.

    Returns
    -------
    dict
        Text by name of the row and heading.

    Examples
    --------
    >>> spec = {
    ...     'row': '{muscle}',
    ...     'columns': [{'heading': 'Dice', 'where': {'measure': 'dice'}, 'cell': ['{mean:.2f}']}],
    ... }
    >>> rows = [{'muscle': 'psoas', 'measure': 'dice', 'mean': 0.912}]
    >>> fill(spec, rows)
    {('psoas', 'Dice'): '0.91'}
    """
    rename = spec.get('rename', {})
    cells: dict[tuple[str, str], str] = {}
    for row in _chosen(spec, rows):
        named = {k: rename.get(v, v) if isinstance(v, str) else v for k, v in row.items()}
        name = spec['row'].format_map(named).strip()
        for column in spec['columns']:
            if _fits(column, row):
                cells[name, column['heading']] = _cell(column['cell'], row)
    return cells


def _chosen(spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    only = spec.get('only', {})
    return [row for row in rows if all(row.get(key) in values for key, values in only.items())]


def _fits(column: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(row.get(key) == value for key, value in column.get('where', {}).items())


class _Number(float):
    """A number whose format ``p`` is that of a probability."""

    def __format__(self, spec: str) -> str:
        if spec != 'p':
            return super().__format__(spec)
        return '<0.001' if self < 0.001 else f'{float(self):.3f}'


def _cell(formats: Sequence[str], row: Mapping[str, Any]) -> str:
    known = {
        key: _Number(value) if isinstance(value, float) else value
        for key, value in row.items()
        if value is not None and not (isinstance(value, float) and isnan(value))
    }
    for text in formats:
        try:
            return text.format_map(known)
        except KeyError:
            continue
    return MISSING
