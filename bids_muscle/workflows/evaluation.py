"""Evaluate one derivatives dataset against another, and compare evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import REGIONS, LabelTable, load_label_table
from bids_muscle.anatomy.levels import level_of
from bids_muscle.dataset.label_maps import LabelMap, find_label_maps, pair_maps
from bids_muscle.dataset.names import name_ending
from bids_muscle.dataset.writer import read_tsv
from bids_muscle.errors import (
    BidsMuscleError,
    GridMismatchError,
    NothingSelectedError,
    UsageError,
)
from bids_muscle.imaging.conform import voxel_sizes
from bids_muscle.reports.evaluation import (
    read_evaluation,
    write_comparison,
    write_evaluation,
    write_spine_evaluation,
)
from bids_muscle.reports.overlay import draw_overlay
from bids_muscle.statistics.evaluation import compare_maps

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
    found = [each for each in maps if _table_of(each) is not None]
    truths = find_label_maps(reference, seg, rater=raters[1])
    wanted = [each for each in truths if _table_of(each) is not None]
    pairs, alone = pair_maps(found, wanted)
    left_out = [f'{each.path.name}: {reason}.' for each, reason in alone]
    rows: list[dict[str, Any]] = []
    for mine, truth in pairs:
        try:
            rows += _evaluate_pair(mine, truth)
        except BidsMuscleError as error:
            left_out.append(f'{truth.path.name}: {error}')
    names = (folder.absolute().name for folder in (predictions, reference))
    pair = (rater or name for rater, name in zip(raters, names, strict=True))
    title = f'Evaluation: {" against ".join(pair)}'
    spines = _paired_spines(maps, truths, left_out)
    spine_page = write_spine_evaluation(spines, output, title) if not spines.empty else None
    if not rows and spine_page:
        return spine_page, left_out
    if not rows:
        raise NothingSelectedError(
            f'No label map in {predictions} could be compared with one in {reference}. '
            + ' '.join(left_out[:3]),
            'Both need dseg files of the same scans, with lookup tables that name the muscles.',
        )
    table, loads = pd.DataFrame(rows), _paired_loads(predictions, reference)
    examples = _draw_examples(table, pairs)
    return write_evaluation(table, output, title, left_out, loads, examples), left_out


def compare_models(
    folders: Sequence[Path], output: Path, factors: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Compare the evaluations in several folders; the models are named after these."""
    tables = [read_evaluation(folder) for folder in folders]
    # A training that had several datasets puts theirs before the names of its scans.
    plain = [table.assign(scan=table['scan'].str.rpartition('/')[2]) for table in tables]
    keys = ['scan', 'index']
    if not any(table.duplicated(keys).any() for table in plain):
        tables = plain
    evaluations: dict[str, pd.DataFrame] = dict(zip(_short_names(folders), tables, strict=True))
    return write_comparison(evaluations, output, factors)


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


def scan_columns(entities: Mapping[str, str], stem: str) -> dict[str, str | None]:
    """Return the columns that say of which scan a row is."""
    session = entities.get('ses')
    return {
        'participant_id': f'sub-{entities["sub"]}',
        'session_id': f'ses-{session}' if session else None,
        'scan': stem,
    }


def _paired_loads(predictions: Path, reference: Path) -> pd.DataFrame | None:
    """Return the compression of each disc by both datasets, None where they share no table."""
    import pandas as pd

    parts = []
    for path in sorted(reference.glob(f'sub-*/**/*{name_ending("loads")}')):
        mine = predictions / path.relative_to(reference)
        if mine != path and mine.is_file():
            test, truth = (
                read_tsv(each)[['task', 'level', 'compression_n']].rename(
                    columns={'compression_n': name}
                )
                for each, name in ((mine, 'test_n'), (path, 'reference_n'))
            )
            parts.append(test.merge(truth, on=['task', 'level']))
    return pd.concat(parts, ignore_index=True) if parts else None


def _paired_spines(
    found: Sequence[LabelMap], wanted: Sequence[LabelMap], left_out: list[str]
) -> pd.DataFrame:
    """Compare vertebrae and discs of two datasets; what cannot be compared is in `left_out`."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for seg in ('vertebrae', 'discs'):
        mine, theirs = (
            [each for each in maps if each.entities.get('seg') == seg] for maps in (found, wanted)
        )
        pairs, alone = pair_maps(mine, theirs)
        left_out += [f'{each.path.name}: {reason}.' for each, reason in alone]
        for one, truth in pairs:
            try:
                rows += _spine_rows(one, truth, seg)
            except BidsMuscleError as error:
                left_out.append(f'{truth.path.name}: {error}')
    return pd.DataFrame(rows)


def _spine_rows(mine: LabelMap, truth: LabelMap, seg: str) -> list[dict[str, Any]]:
    """Return a row for each vertebra or disc of the reference that has a name."""
    from bids_muscle.measurement.spine import measure_spine

    kind = 'vertebra' if seg == 'vertebrae' else 'disc'
    images = _on_one_grid(mine, truth)
    # In voxels both lie on one grid; places are compared on that of the reference.
    affine = images[1].affine
    data = [np.rint(np.asarray(image.dataobj)).astype(np.int32) for image in images]
    measured = []
    for numbers, label_map in zip(data, (mine, truth), strict=True):
        given = (nib.Nifti1Image(numbers, affine), label_map.names)
        table = measure_spine(*((given, None) if kind == 'vertebra' else (None, given)))
        measured.append(table[table['kind'] == kind].set_index('name').to_dict('index'))
    stem = _stem(truth)
    codes = {name: number for number, name in mine.names.items()}
    rows = []
    for number, name in truth.names.items():
        there = data[1] == number
        parts = name.split('-')
        if not there.any() or len(parts) != 1 + (kind == 'disc') or not all(map(level_of, parts)):
            continue
        test = data[0] == codes[name] if name in codes else np.zeros_like(there)
        both = [table.get(name, {}) for table in measured]
        places = [
            np.array([each.get(f'{axis}_ras_mm', np.nan) for axis in 'xyz']) for each in both
        ]
        rows.append(
            {
                **scan_columns(truth.entities, stem),
                'kind': kind,
                'name': name,
                'dice': 2 * np.count_nonzero(test & there) / (test.sum() + there.sum()),
                'centroid_error_mm': float(np.linalg.norm(places[0] - places[1])),
                'height_test_mm': both[0].get('height_mm', np.nan),
                'height_reference_mm': both[1].get('height_mm', np.nan),
                'reason': None if test.any() else 'not in the test',
            }
        )
    return rows


def _table_of(label_map: LabelMap) -> LabelTable | None:
    """Return the label table that knows most of a map's muscles."""
    tables = [load_label_table(region) for region in REGIONS]
    if not label_map.names:
        seg = label_map.entities.get('seg')
        return next((table for table in tables if table.segmentation == seg), None)
    best = max(tables, key=lambda table: len(label_map.codes(table)))
    return best if label_map.codes(best) else None


def _on_one_grid(mine: LabelMap, truth: LabelMap) -> list[nib.Nifti1Image]:
    """Open both maps in RAS+ order; raise if they are not on the same grid."""
    images = [nib.as_closest_canonical(nib.load(each.path)) for each in (mine, truth)]
    zooms, other = (voxel_sizes(image.affine) for image in images)
    if images[0].shape != images[1].shape or not np.allclose(zooms, other, rtol=0.02):
        raise GridMismatchError(
            f'{mine.path} and {truth.path} are not on the same grid.',
            'Resample one of them, or segment the scan that the reference was drawn on.',
        )
    return images


def _read_pair(
    mine: LabelMap, truth: LabelMap
) -> tuple[LabelTable, set[int], list[nib.Nifti1Image]]:
    """Open both maps in the numbers of a label table of the package, RAS+ order.

    Returns
    -------
    table
        The label table.
    shared
        Numbers of the labels that both maps can have.
    images
        Test and reference.
    """
    table = _table_of(truth)
    assert table is not None  # noqa: S101 - others were left out before
    codes = mine.codes(table), truth.codes(table)
    images = [
        nib.Nifti1Image(_translated(np.asarray(image.dataobj), code), image.affine)
        for image, code in zip(_on_one_grid(mine, truth), codes, strict=True)
    ]
    return table, set(codes[0].values()) & set(codes[1].values()), images


def _evaluate_pair(mine: LabelMap, truth: LabelMap) -> list[dict[str, Any]]:
    table, shared, images = _read_pair(mine, truth)
    zooms = voxel_sizes(images[0].affine)
    test, reference = (np.asarray(image.dataobj) for image in images)
    rows = compare_maps(
        test,
        reference,
        {number: table.by_index[number] for number in sorted(shared)},
        (float(zooms[0]), float(zooms[1]), float(zooms[2])),
        float(abs(np.linalg.det(images[1].affine[:3, :3]))),
        _published(mine, 'fatfrac', test.shape),
        _water_fat(mine, test.shape),
    )
    return [{**scan_columns(truth.entities, _stem(truth)), **row} for row in rows]


def _stem(label_map: LabelMap) -> str:
    return label_map.path.name.split('.')[0].removesuffix('_dseg')


def _draw_examples(
    table: pd.DataFrame, pairs: Sequence[tuple[LabelMap, LabelMap]]
) -> list[tuple[str, bytes]]:
    """Draw the scans with the highest, the median and the lowest mean Dice over labels."""
    dice = (
        table.groupby('scan')['dice'].mean().dropna().sort_values(ascending=False, kind='stable')
    )
    places = {0: 'Highest', len(dice) // 2: 'Median', len(dice) - 1: 'Lowest'}
    by_name = {_stem(truth): (mine, truth) for mine, truth in pairs}
    drawn = []
    for place in sorted(places if len(dice) > 1 else {0}.intersection(range(len(dice)))):
        scan = dice.index[place]
        mine, truth = by_name[scan]
        labels, shared, images = _read_pair(mine, truth)
        test, reference = (
            np.where(np.isin(image.dataobj, list(shared)), image.dataobj, 0) for image in images
        )
        water = _published(mine, 'desc-preproc_*', test.shape, 'water')
        ground = _published(mine, 'desc-preproc_*', test.shape) if water is None else water
        zooms = voxel_sizes(images[1].affine)
        content = draw_overlay(
            ground, test, reference, labels, (float(zooms[0]), float(zooms[1]), float(zooms[2]))
        )
        what = f'{places[place]} mean Dice' if len(dice) > 1 else 'Mean Dice'
        drawn.append((f'{what} {dice.iloc[place]:.2f}: {scan}', content))
    return drawn


def _translated(data: np.ndarray, codes: Mapping[int, int]) -> np.ndarray:
    """Bring the numbers of a map to those of the label table; others become background."""
    out = np.zeros(data.shape, dtype=np.uint8)
    for code, label in codes.items():
        out[data == code] = label
    return out


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
