"""Tables, plots and pages of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.writer import read_tsv, write_bytes, write_text
from bids_muscle.dictionaries import read_dictionary
from bids_muscle.errors import MissingInputError
from bids_muscle.reports.evaluation_cells import (
    FIGURES,
    fixed,
    grouped,
    interval,
    mean_error,
    named,
    p_cell,
    write_figures,
    write_table,
)
from bids_muscle.reports.evaluation_plots import (
    NAMES,
    agreement_plots,
    dice_by_slice,
    dice_plot,
    level_dice,
    measure_plots,
    pairs_of,
)
from bids_muscle.reports.page import environment, webp_uri
from bids_muscle.reports.spine import DISC_HEIGHT_NOTE
from bids_muscle.statistics import spine
from bids_muscle.statistics.evaluation import (
    ACCURACY,
    ALL,
    agreements,
    evaluation_dictionary,
    people_of,
    summarise,
)
from bids_muscle.statistics.loads import compare_loads, once_each_disc
from bids_muscle.statistics.slices import summarise_slices

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Names of the tables, without extension.
ROWS, SUMMARY, AGREEMENT = 'evaluation', 'evaluation_summary', 'evaluation_agreement'
SLICES, SECTIONS = 'evaluation_slices', 'evaluation_sections'
LOADS = 'evaluation_loads'


@dataclass(frozen=True)
class Example:
    """A picture of test over reference.

    Parameters
    ----------
    name
        Of its file: ``'highest'``, ``'median'``, ``'lowest'`` or ``'only'``.
    caption
        What is shown.
    picture
        WebP.
    files
        What the caption links to, by text.
    """

    name: str
    caption: str
    picture: bytes
    files: Mapping[str, Path] = field(default_factory=dict)


def write_evaluation(
    table: pd.DataFrame,
    output: Path,
    title: str,
    left_out: Sequence[str] = (),
    *,
    slices: pd.DataFrame | None = None,
    loads: pd.DataFrame | None = None,
    examples: Sequence[Example] = (),
    spine_page: Path | None = None,
) -> Path:
    """Write an evaluation: tables with dictionaries, figures, and a self-contained page.

    Parameters
    ----------
    table
        Rows of :func:`~bids_muscle.statistics.evaluation.compare_maps` with the columns
        ``participant_id``, ``session_id`` and ``scan``.
    output
        Folder.
    title
        What was evaluated.
    left_out
        Sentences about what could not be evaluated.
    slices
        Rows of :func:`~bids_muscle.statistics.slices.compare_slices` with the same columns.
    loads
        Loads on the spine by both, for :func:`~bids_muscle.statistics.loads.compare_loads`.
    examples
        Pictures of test over reference.
    spine_page
        Page of the vertebrae and discs of the same datasets.

    Returns
    -------
    Path
        The page.
    """
    summary, agreed = summarise(table), agreements(table)
    for name, each in ((ROWS, table), (SUMMARY, summary), (AGREEMENT, agreed)):
        write_table(each, output / name, evaluation_dictionary())
    figures: dict[str, tuple[str, Figure]] = {'dice': ('Dice of each scan', dice_plot(table))}
    for measure, (name, figure) in agreement_plots(table).items():
        figures[f'agreement_{measure}'] = (f'{name}: correlation and Bland-Altman', figure)
    sections = None if slices is None else _write_sections(slices, table, output, figures)
    for example in examples:
        write_bytes(example.picture, output / FIGURES / f'example_{example.name}.webp')
    page = output / 'evaluation.html'
    context = {
        'title': title,
        'people': people_of(table).nunique(),
        'scans': table['scan'].nunique(),
        'left_out': left_out,
        'spine_page': spine_page.name if spine_page else None,
        'accuracy': _accuracy(summary),
        'headings': [evaluation_dictionary()[name]['LongName'] for name in ACCURACY],
        'agreement': _agreement(agreed),
        'measures': list(NAMES.values()),
        'sections': [] if sections is None else _sections(sections),
        **_loads_context(loads, output),
        'examples': [
            (
                example.caption,
                webp_uri(example.picture),
                [(text, os.path.relpath(path, output)) for text, path in example.files.items()],
            )
            for example in examples
        ],
        'pictures': write_figures(figures, output),
        'definitions': [
            (evaluation_dictionary()[n]['LongName'], evaluation_dictionary()[n]) for n in ACCURACY
        ],
    }
    write_text(environment().get_template('evaluation.html.j2').render(context), page)
    return page


def _write_sections(
    slices: pd.DataFrame,
    table: pd.DataFrame,
    output: Path,
    figures: dict[str, tuple[str, Figure]],
) -> pd.DataFrame:
    """Write what is measured slice by slice, and add its figures."""
    dictionary = read_dictionary(SLICES)
    sections = summarise_slices(slices, table)
    write_table(slices, output / SLICES, dictionary)
    write_table(sections, output / SECTIONS, dictionary)
    columns = ('csa_test_cm2', 'csa_reference_cm2')
    areas = pairs_of(slices.sort_values('index'), 'muscle', 'side', *columns)
    name = 'Area (cm²)'
    figures['slices_dice'] = ('Dice along the slices', dice_by_slice(slices))
    figures['areas'] = (
        'Cross-sectional area of each slice: correlation and Bland-Altman',
        measure_plots(areas, name),
    )
    return sections


def write_spine_evaluation(
    table: pd.DataFrame,
    output: Path,
    title: str,
    left_out: Sequence[str] = (),
    loads: pd.DataFrame | None = None,
) -> Path:
    """Write the evaluation of vertebrae and discs: two tables, figures, a self-contained page.

    Parameters
    ----------
    table
        Rows for :func:`~bids_muscle.statistics.spine.summarise_spines` with the columns
        ``participant_id``, ``session_id`` and ``scan``.
    output
        Folder.
    title
        What was evaluated.
    left_out
        Sentences about what could not be evaluated.
    loads
        As of :func:`write_evaluation`, where the page of the muscles does not show them.

    Returns
    -------
    Path
        The page, ``evaluation_spine.html``.
    """
    summary = spine.summarise_spines(table)
    write_table(table, output / 'evaluation_spine', spine.spine_dictionary())
    write_table(summary, output / 'evaluation_spine_summary', spine.spine_dictionary())
    figures = {'spine_dice': ('Dice by level', level_dice(table))}
    discs = table[table['kind'] == 'disc'].assign(all='all discs')
    for measure in ('height', 'mean_height'):
        columns = f'{measure}_test_mm', f'{measure}_reference_mm'
        pairs = pairs_of(spine.once_each_height(discs, columns), 'all', 'name', *columns)
        if pairs:
            name = spine.spine_dictionary()[f'{measure}_test_mm']['LongName'].removesuffix(
                ', test'
            )
            drawn = measure_plots(pairs, f'{name} (mm)')
            figures[f'disc_{measure}s'] = (f'{name}: correlation and Bland-Altman', drawn)
    page = output / 'evaluation_spine.html'
    context = {
        'title': title,
        'people': people_of(table).nunique(),
        'scans': table['scan'].nunique(),
        'left_out': left_out,
        'rows': _spine_cells(summary),
        'disc_height_note': DISC_HEIGHT_NOTE,
        'pictures': write_figures(figures, output),
        **_loads_context(loads, output),
    }
    write_text(environment().get_template('evaluation_spine.html.j2').render(context), page)
    return page


def _spine_cells(summary: pd.DataFrame) -> list[tuple[str, str, int, list[str]]]:
    """Return kind, level, n and what Tables 3 to 7 of Hess 2022 have."""
    return [
        (
            row['kind'],
            'all levels' if row['name'] == ALL else row['name'],
            row['n'],
            [
                mean_error(row['dice_mean'], row['dice_ci'], 3),
                mean_error(row['centroid_error_mean_mm'], row['centroid_error_ci_mm']),
                *(
                    cell
                    for name in ('height', 'mean_height')
                    for cell in (
                        mean_error(row[f'{name}_mae_mean_mm'], row[f'{name}_mae_ci_mm']),
                        fixed(row[f'{name}_r']),
                        p_cell(row[f'{name}_p']),
                    )
                ),
            ],
        )
        for row in summary.to_dict('records')
    ]


def read_evaluation(folder: Path) -> pd.DataFrame:
    """Read the rows of an evaluation.

    Raises
    ------
    MissingInputError
        If the folder has none.
    """
    path = folder / f'{ROWS}.tsv'
    text = ('participant_id', 'session_id', 'scan', 'name', 'muscle', 'side', 'reason')
    try:
        return read_tsv(path, text)
    except (OSError, ValueError) as error:
        raise MissingInputError(
            f'The evaluation {path} cannot be read: {error}.',
            'Name folders that bids_muscle-model evaluate has written.',
        ) from error


def _loads_context(loads: pd.DataFrame | None, output: Path) -> dict[str, Any]:
    """Write what two segmentations make of the loads, and return what a page shows of it."""
    if loads is None:
        return {'loads': [], 'load_pictures': []}
    by_level = compare_loads(loads)
    write_table(by_level, output / LOADS, read_dictionary(LOADS))
    figures = {}
    for task, part in once_each_disc(loads).groupby('task', sort=False):
        pairs = pairs_of(part, 'task', 'level', 'test_n', 'reference_n')
        if pairs:
            drawn = measure_plots(pairs, 'Compression (N)')
            figures[f'loads_{task}'] = f'Compression by level, {task}', drawn
    return {'loads': _loads(by_level), 'load_pictures': write_figures(figures, output)}


def _loads(table: pd.DataFrame) -> list[tuple[str, str, int, list[str]]]:
    """Return task, level, discs and what Table 8 of Hess 2022 has, one row per level."""
    return [
        (
            row['task'],
            row['level'],
            row['n'],
            [
                fixed(row['mean_test_n'], 0),
                fixed(row['mean_reference_n'], 0),
                fixed(row['pearson_r']),
                p_cell(row['pearson_p']),
                mean_error(row['mae_n'], row['mae_ci_n'], 0),
            ],
        )
        for row in table.to_dict('records')
    ]


def _sections(table: pd.DataFrame) -> list[tuple[str, int, int, list[str]]]:
    """Return muscle, participants, slices and what Tables 3 and 6 of Hess 2022 have."""
    return [
        (
            row['muscle'],
            row['n_people'],
            row['n_slices'],
            [
                mean_error(row['dice_mean'], row['dice_ci'], 3),
                fixed(row['csa_r']),
                p_cell(row['csa_p']),
                mean_error(row['csa_mae_mean_cm2'], row['csa_mae_ci_cm2']),
                mean_error(row['centroid_error_mean_mm'], row['centroid_error_ci_mm']),
            ],
        )
        for row in table.to_dict('records')
    ]


def _mean_se(row: Mapping[str, Any], people: int) -> str:
    """Return mean and SE, and n where it is not that of all; a failure with the median."""
    if row['n_failed']:
        median = fixed(row['median'], 2)
        return f'{fixed(row["mean"])} ({row["n_failed"]} failed; median {median})'
    text = mean_error(row['mean'], row['se'])
    return text if row['n'] in (0, people) else f'{text} (n = {row["n"]})'


def _accuracy(summary: pd.DataFrame) -> list[tuple[str, int, list[str]]]:
    """Lay out mean ± SE of the accuracy as Weber 2021, Table 4."""
    lines = []
    for muscle, sides in grouped(summary):
        for side, rows in sides:
            cells = {row['measure']: row for row in rows.to_dict('records')}
            people = int(cells['dice']['n'])
            values = [_mean_se(cells[name], people) for name in ACCURACY]
            lines.append((named(muscle, side), people, values))
    return lines


def _agreement(table: pd.DataFrame) -> list[tuple[str, list[str], list[str]]]:
    """Lay out MFI beside volume as Weber 2021, Table 2, and the ICC as its Table 3."""
    lines = []
    for muscle, sides in grouped(table):
        for side, rows in sides:
            by_measure = {row['measure']: row for row in rows.to_dict('records')}
            accuracy, reliability = [], []
            for measure in NAMES:
                row = by_measure[measure]
                accuracy += [
                    str(row['n']),
                    mean_error(row['mean_test'], row['se_test'], 1),
                    fixed(row['bias'], 1),
                    interval(row['loa_low'], row['loa_high'], 1),
                    fixed(row['mae'], 1),
                    fixed(row['rmse'], 1),
                    fixed(row['r_squared']),
                ]
                reliability += [
                    fixed(row['icc']),
                    interval(row['icc_ci_low'], row['icc_ci_high']),
                    p_cell(row['icc_p']),
                ]
            lines.append((named(muscle, side), accuracy, reliability))
    return lines
