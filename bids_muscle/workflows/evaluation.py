"""Evaluate one derivatives dataset against another, and compare evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_muscle.dataset.label_maps import MOST_APART, LabelMap, find_label_maps, pair_maps
from bids_muscle.dataset.names import name_ending, read_entities
from bids_muscle.dataset.writer import read_tsv
from bids_muscle.errors import BidsMuscleError, NothingSelectedError, UsageError
from bids_muscle.reports.comparison import write_comparison
from bids_muscle.reports.evaluation import (
    Example,
    read_evaluation,
    write_evaluation,
    write_spine_evaluation,
)
from bids_muscle.reports.overlay import draw_overlay
from bids_muscle.statistics.evaluation import compare_maps, people_of
from bids_muscle.statistics.slices import compare_slices
from bids_muscle.tables import name_some
from bids_muscle.workflows.evaluation_maps import (
    FIRST_OTHER,
    Pair,
    leave_out,
    other_files,
    read_pair,
    scan_columns,
    stem_of,
    table_of,
    unreadable,
)
from bids_muscle.workflows.evaluation_spine import compare_spines

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    predictions: Path,
    reference: Path,
    output: Path,
    seg: str | None = None,
    raters: Sequence[str] = ('', ''),
) -> tuple[Path, list[str]]:
    """Compare the label maps of two derivatives datasets and write tables, plots and a page.

    Parameters
    ----------
    predictions, reference
        Derivatives datasets; maps are paired by their names, muscles by the names in the lookup
        tables.
    output
        Folder.
    seg
        The ``seg`` entity of the references, or None for all maps with a muscle that is known.
    raters
        Raters whose corrections are the predictions and the references; empty for all maps.

    Returns
    -------
    page
        Path of the page.
    left_out
        Sentences about maps that could not be evaluated.

    Raises
    ------
    NothingSelectedError
        If no pair could be evaluated.
    """
    import pandas as pd

    # Maps of other structures are no candidates; vertebrae and discs have tables of their own.
    maps = find_label_maps(predictions, predicted=True, rater=raters[0])
    readable = [each for each in maps if table_of(each) is not None]
    truths = find_label_maps(reference, seg, rater=raters[1])
    wanted = [each for each in truths if table_of(each) is not None]
    pairs, alone = pair_maps(readable, wanted)
    left_out = unreadable(truths, wanted)
    leave_out(alone, maps, left_out)
    pairs = other_files(pairs, left_out)
    rows: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    lacking = Counter[str]()
    nameless: dict[str, tuple[int, ...]] = {}
    apart_mm: dict[str, float] = {}
    for mine, truth in pairs:
        try:
            opened = read_pair(mine, truth)
            both = _evaluate_pair(mine, truth, opened)
        except BidsMuscleError as error:
            left_out.append(f'{truth.path.name}: {error}')
        else:
            rows += both[0]
            slices += both[1]
            lacking.update(opened.lacking)
            if opened.unnamed:
                nameless[truth.path.name] = opened.unnamed
            if opened.apart_mm > MOST_APART * min(opened.spacing_mm):
                apart_mm[truth.path.name] = opened.apart_mm
    # Each scan numbers what the label table does not know by itself.
    others = sorted({row['name'] for row in rows if row['index'] >= FIRST_OTHER})
    for row in (*rows, *slices):
        if row['name'] in others:
            row['index'] = FIRST_OTHER + others.index(row['name'])
    left_out += [
        f'{name}: the lookup tables of the predictions do not name it; {count} label maps of the '
        'reference have it.'
        for name, count in lacking.items()
    ]
    left_out += _doubts(nameless, apart_mm)
    names = (folder.absolute().name for folder in (predictions, reference))
    pair = (rater or name for rater, name in zip(raters, names, strict=True))
    title = f'Evaluation: {" against ".join(pair)}'
    spines = compare_spines(maps, truths, left_out)
    loads = _paired_loads(predictions, reference)
    spine_page = None
    if not spines.empty:
        spine_page = write_spine_evaluation(
            spines, output, title, left_out, None if rows else loads
        )
    if not rows and spine_page:
        return spine_page, left_out
    if not rows:
        raise NothingSelectedError(
            f'No label map in {predictions} could be compared with one in {reference}. '
            + ' '.join(left_out[:3]),
            'Both need dseg files of the same scans, with lookup tables that name the muscles.',
        )
    table = pd.DataFrame(rows)
    page = write_evaluation(
        table,
        output,
        title,
        left_out,
        slices=pd.DataFrame(slices),
        loads=loads,
        examples=_draw_examples(table, pairs, predictions),
        spine_page=spine_page,
    )
    return page, left_out


def _doubts(nameless: Mapping[str, Sequence[int]], apart_mm: Mapping[str, float]) -> Iterator[str]:
    """Say what may be wrong with pairs that were compared, by the names of their references."""
    if nameless:
        numbers = sorted({number for each in nameless.values() for number in each})
        yield (
            f'{name_some(map(str, numbers))}: the lookup tables do not name these numbers of '
            f'{len(nameless)} pairs (first {next(iter(nameless))}). They count as background.'
        )
    if apart_mm:
        farthest = max(apart_mm, key=lambda name: apart_mm[name])
        yield (
            f'{len(apart_mm)} references lie beside the predictions, as the headers tell, up to '
            f'{apart_mm[farthest]:.1f} mm ({farthest}). They are compared voxel by voxel.'
        )


def compare_models(
    folders: Sequence[Path], output: Path, factors: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Compare the evaluations in several folders; the models are named after these."""
    import pandas as pd

    tables = []
    for table in map(read_evaluation, folders):
        tables.append(table.assign(participant_id=people_of(table)))
    plain = [table.assign(scan=table['scan'].str.rpartition('/')[2]) for table in tables]
    keys = ['scan', 'index']
    if not any(table.duplicated(keys).any() for table in plain):
        # Where one evaluation tells the dataset of a scan, it holds for all.
        told = pd.concat(plain).sort_values('participant_id', key=_lacks_dataset, kind='stable')
        who = told.drop_duplicates('scan').set_index('scan')['participant_id']
        tables = [table.assign(participant_id=table['scan'].map(who)) for table in plain]
    evaluations: dict[str, pd.DataFrame] = dict(zip(_short_names(folders), tables, strict=True))
    return write_comparison(evaluations, output, factors)


def _lacks_dataset(participants: pd.Series) -> pd.Series:
    return participants.str.startswith('/')


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return as much of the end of each path as tells it from the others.

    Raises
    ------
    UsageError
        If a folder is given twice.

    Examples
    --------
    >>> _short_names([Path('/a/x/validation'), Path('/b/x/validation')])
    ['a/x/validation', 'b/x/validation']
    """
    paths = [folder.absolute().parts[1:] for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        names = ['/'.join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    raise UsageError(
        'A folder is given twice, so a model would be compared with itself.',
        'Name each evaluation once.',
    )


def _paired_loads(predictions: Path, reference: Path) -> pd.DataFrame | None:
    """Return the compression of each disc by both datasets, None where they share no table."""
    import pandas as pd

    parts = []
    for path in sorted(reference.glob(f'sub-*/**/*{name_ending("loads")}')):
        mine = predictions / path.relative_to(reference)
        if mine != path and mine.is_file():
            test, truth = (
                read_tsv(table)[['task', 'level', 'compression_n']].rename(
                    columns={'compression_n': name}
                )
                for table, name in ((mine, 'test_n'), (path, 'reference_n'))
            )
            person = f'sub-{read_entities(path)["sub"]}'
            parts.append(test.merge(truth, on=['task', 'level']).assign(participant_id=person))
    return pd.concat(parts, ignore_index=True) if parts else None


def _evaluate_pair(
    mine: LabelMap, truth: LabelMap, pair: Pair
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of a scan: of each label, and of each label on each slice."""
    scan = scan_columns(truth.entities, stem_of(truth))
    rows = compare_maps(
        pair.test,
        pair.reference,
        pair.table.by_index,
        pair.spacing_mm,
        float(abs(np.linalg.det(pair.affine[:3, :3]))),
        _published(mine, 'fatfrac', pair.test.shape),
        _water_fat(mine, pair.test.shape),
    )
    slices = compare_slices(pair.test, pair.reference, pair.table.by_index, pair.affine)
    return [scan | row for row in rows], [scan | row for row in slices]


def _draw_examples(
    table: pd.DataFrame, pairs: Sequence[tuple[LabelMap, LabelMap]], predictions: Path
) -> list[Example]:
    """Draw the scans with the highest, the median and the lowest mean Dice over labels."""
    dice = (
        table.groupby('scan')['dice'].mean().dropna().sort_values(ascending=False, kind='stable')
    )
    places = {0: 'Highest', len(dice) // 2: 'Median', len(dice) - 1: 'Lowest'}
    by_name = {stem_of(truth): (mine, truth) for mine, truth in pairs}
    drawn = []
    for position in sorted(places if len(dice) > 1 else {0}.intersection(range(len(dice)))):
        scan = dice.index[position]
        mine, truth = by_name[scan]
        pair = read_pair(mine, truth)
        water = _published(mine, 'desc-preproc_*', pair.test.shape, 'water')
        ground = _published(mine, 'desc-preproc_*', pair.test.shape) if water is None else water
        content = draw_overlay(ground, pair.test, pair.reference, pair.table, pair.spacing_mm)
        which = places[position] if len(dice) > 1 else 'Only'
        page = predictions / f'sub-{truth.entities["sub"]}.html'
        files = {'page of the participant': page} if page.is_file() else {}
        drawn.append(
            Example(
                name=which.lower(),
                caption=f'{which} mean Dice {dice.iloc[position]:.2f}: {scan}',
                picture=content,
                files=files | {'test': mine.path, 'reference': truth.path},
            )
        )
    return drawn


def _water_fat(
    label_map: LabelMap, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    water, fat = (
        _published(label_map, 'desc-preproc_*', shape, contrast) for contrast in ('water', 'fat')
    )
    return None if water is None or fat is None else (water, fat)


def _published(
    label_map: LabelMap, ending: str, shape: tuple[int, ...], contrast: str = ''
) -> np.ndarray | None:
    """Read an image that bids_muscle has published beside a label map, RAS+ order.

    `contrast` ends the label of ``acq``, as in the names of preprocessed images.
    """
    entities = label_map.scan_entities
    if contrast:
        entities['acq'] = entities.get('acq', '') + contrast
    stem = '_'.join(f'{key}-{value}' for key, value in entities.items())
    path = next(label_map.path.parent.glob(f'{stem}_{ending}.nii.gz'), None)
    if path is None:
        return None
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, dtype=np.float32) if image.shape == shape else None
