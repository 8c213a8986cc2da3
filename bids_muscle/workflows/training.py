"""Train by a recipe on BIDS datasets: cases, folds, predictions of people held out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.label_maps import LabelMap, candidate_scans, find_label_maps
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.dataset.writer import write_image
from bids_muscle.durations import duration
from bids_muscle.errors import (
    BadDataError,
    MissingInputError,
    ModelError,
    SegmentationError,
    UsageError,
)
from bids_muscle.imaging.conform import load_image, voxel_sizes
from bids_muscle.reports.evaluation import read_evaluation, write_evaluation
from bids_muscle.segmentation.bundle import ModelBundle, update_card
from bids_muscle.segmentation.model_card import write_model_card
from bids_muscle.segmentation.training.checks import check_recipe
from bids_muscle.segmentation.training.folds import split_participants
from bids_muscle.segmentation.training.recipe import Recipe, Source
from bids_muscle.segmentation.training.sources import (
    PlaneSet,
    TrainingCase,
    dataset_of,
    find_cases,
    participant_key,
    recode,
)
from bids_muscle.segmentation.training.volumes import VolumeSet, load_data
from bids_muscle.statistics.evaluation import compare_maps
from bids_muscle.workflows.evaluation_maps import scan_columns

#: Folder of the evaluation of people held out.
VALIDATION = 'validation'


@dataclass(frozen=True)
class TrainingRun:
    """How a training is run, apart from its recipe.

    Parameters
    ----------
    data
        Folders that hold the sources; BIDS datasets for sources of kind ``'bids'``.
    output
        Folder of the bundle, or of one bundle per fold.
    folds
        Folds of the cross-validation, or 0 to train on everybody.
    fold
        Train this fold only, or None for all.
    device, workers
        See :func:`~bids_muscle.segmentation.training.trainer.train`.
    """

    data: tuple[Path, ...]
    output: Path
    folds: int = 0
    fold: int | None = None
    device: str = 'cpu'
    workers: int = 0


def train_recipe(
    recipe: Recipe, run: TrainingRun, report: Callable[[str], None] = print
) -> list[ModelBundle]:
    """Train a model, or one per fold; what was trained before goes on where it ended.

    Each fold is written to ``fold-<i>`` with its model, its card and, in ``validation``, label
    maps of the people held out and their evaluation. Once all folds are there, ``validation`` of
    the output folder evaluates all people.

    Raises
    ------
    MissingInputError, BadDataError
        If a source is missing or lacks what the recipe asks for.
    DeviceError
        If the device is not there.
    UsageError
        If the recipe contradicts itself, or the folds do not fit the participants.
    """
    from bids_muscle.segmentation.compute import check_device
    from bids_muscle.segmentation.training.trainer import train

    check_device(run.device)
    check_recipe(recipe)
    if run.fold is not None and not 0 <= run.fold < run.folds:
        raise UsageError(
            f'The fold {run.fold} does not exist: there are {run.folds} folds.',
            'Use --folds K and --fold with a number from 0 to K - 1.',
        )
    cases = find_all_cases(recipe, run.data)
    report(_learned(recipe, cases))
    people = [case.participant for case in cases if case.images and case.participant]
    splits = split_participants(people, run.folds, recipe.seed) if run.folds else []
    sets = _load(recipe, cases, run.output / 'cache', report)
    if not splits:
        bundle = train(
            recipe, sets, run.output, device=run.device, workers=run.workers, report=report
        )
        return [_finish(bundle, cases, {})]
    bundles = []
    numbers = range(run.folds) if run.fold is None else [run.fold]
    began_s = time.monotonic()
    for place, number in enumerate(numbers):
        held_out, folder = splits[number], run.output / f'fold-{number}'
        report(f'fold {number}: {", ".join(sorted(held_out))} held out')
        if place:
            left_s = (time.monotonic() - began_s) / place * (len(numbers) - place)
            report(f'{place} of {len(numbers)} folds done, {duration(left_s)} left')
        bundle = train(
            recipe,
            [planes for planes in sets if planes.participant not in held_out],
            folder,
            validation=[p for p in sets if p.participant in held_out and p.images is not None],
            device=run.device,
            workers=run.workers,
            report=report,
        )
        used = [case for case in cases if case.participant not in held_out]
        measured = [case for case in cases if case.participant in held_out and case.images]
        try:
            figures = _validate_scans(bundle, measured, run, folder / VALIDATION)
        except ModelError as error:
            report(f'The held-out scans were not segmented. {error}')
            figures = None
        bundles.append(_finish(bundle, used, {'fold': [number, run.folds], 'measured': figures}))
    done = [run.output / f'fold-{k}' / VALIDATION for k in range(run.folds)]
    if all((folder / 'evaluation.html').is_file() for folder in done):
        import pandas as pd

        table = pd.concat([read_evaluation(folder) for folder in done], ignore_index=True)
        title = f'{recipe.name}: {run.folds}-fold cross-validation'
        write_evaluation(table, run.output / VALIDATION, title)
    return bundles


def find_all_cases(recipe: Recipe, data: Sequence[Path]) -> list[TrainingCase]:
    """Find the label maps and images of all sources of a recipe; each has its share as weight."""
    cases = []
    for source in recipe.sources:
        found = (
            _bids_cases(source, recipe, data)
            if source.kind == 'bids'
            else find_cases(source, data)
        )
        share = source.weight / len(found)
        cases += [replace(case, source=replace(case.source, weight=share)) for case in found]
    return cases


def _bids_cases(source: Source, recipe: Recipe, data: Sequence[Path]) -> list[TrainingCase]:
    """Every ``seg-<seg>_dseg`` of all datasets with its scans and the labels it has."""
    table = load_label_table(recipe.region)
    names = [root.absolute().name for root in data]
    if len(set(names)) < len(names):
        raise UsageError(
            f'Two --data folders have the same name: {", ".join(map(str, data))}.',
            'Rename one of them; participants are identified by dataset name and participant '
            'label.',
        )
    cases = []
    for root in data:
        people = list_participants(root)
        scans: dict[str, list[Scan]] = {}
        for derivatives in sorted((root / 'derivatives').glob('*/')):
            for label_map in find_label_maps(derivatives, source.seg):
                participant = label_map.entities.get('sub', '')
                if participant in people and participant not in scans:
                    scans[participant] = find_scans(root, participant, region=recipe.region)
                fitting = candidate_scans(label_map, scans.get(participant, ()))
                if not fitting:
                    raise MissingInputError(
                        f'The image of the label map {label_map.path} is missing in {root}: no '
                        'image has the same entities and grid.',
                        'Rename the map after its scan, or correct its grid.',
                    )
                codes = label_map.codes(table)
                if not codes:
                    raise BadDataError(
                        f'The label map {label_map.path} contains no muscle of the '
                        f'{recipe.region} region: the names in its lookup table are '
                        f'{", ".join(label_map.names.values())}.',
                        f'Use the names of {table.region}.tsv, or another recipe.',
                    )
                drawn = codes if source.all_slices else codes.keys() & _numbers_in(label_map.path)
                if not drawn:
                    raise BadDataError(
                        f'The label map {label_map.path} is empty: it contains none of the '
                        f'numbers {", ".join(map(str, codes))} of its lookup table.',
                        'Segment the muscles, remove the map, or correct the lookup table.',
                    )
                # A muscle that nobody outlined in this map is not background: it is not asked for.
                known = replace(
                    source,
                    labels=label_map.path.name,
                    codes=codes,
                    annotated=tuple(sorted({codes[code] for code in drawn})),
                )
                cases += [_bids_case(known, recipe, label_map, scan) for scan in fitting]
    if not cases:
        raise MissingInputError(
            f'The label maps seg-{source.seg}_dseg of the source {source.name} are missing from '
            f'the derivatives of {" or ".join(map(str, data))}.',
            f'Give the right --data folder, or exclude the source with --exclude {source.name}.',
        )
    return cases


def _numbers_in(path: Path) -> set[int]:
    numbers = np.unique(np.nan_to_num(load_image(path).get_fdata(dtype=np.float32)))
    return set(np.rint(numbers).astype(int).tolist())


def _learned(recipe: Recipe, cases: Sequence[TrainingCase]) -> str:
    """Count the label maps of each muscle for which the network has a class."""
    table = load_label_table(recipe.region)
    classes = int(recipe.network['out_channels'])
    numbers = recipe.numbers or tuple(range(classes))
    parts = [
        f'{table.by_index[numbers[k]].name} {sum(k in case.source.annotated for case in cases)}'
        for k in range(1, classes)
        if numbers[k]
    ]
    return f'{len(cases)} label maps; with {", ".join(parts)}'


def _bids_case(source: Source, recipe: Recipe, label_map: LabelMap, scan: Scan) -> TrainingCase:
    images = {str(contrast): path for contrast, path in scan.paths.items()}
    if recipe.channels != ('any',):
        wanted = [name for name in recipe.channels if name in list(Contrast)]
    elif {'water', 'fat'} <= images.keys():
        wanted = ['water', 'fat']
    else:
        # Any one image shows the anatomy; a fat fraction has no air around the body.
        wanted = [name for name in images if name != Contrast.FAT_FRACTION][:1]
    missing = [name for name in wanted if name not in images]
    if missing or not wanted:
        raise BadDataError(
            f'The scan {scan.name} has no {" and no ".join(missing) or "anatomical"} image, '
            f'which is a channel of the recipe {recipe.name}; it has {", ".join(images)}.',
            'Use a recipe with other channels, or remove the participant from the dataset.',
        )
    return TrainingCase(
        source,
        label_map.path,
        {name: images[name] for name in wanted},
        participant_key(label_map.path),
    )


def _load(
    recipe: Recipe, cases: Sequence[TrainingCase], cache: Path, report: Callable[[str], None]
) -> list[PlaneSet | VolumeSet]:
    sets = []
    for case in cases:
        planes = load_data(case, case.source.weight, recipe, cache)
        report(f'{planes.name} {planes.participant or case.labels.name}: {len(planes)} planes')
        sets.append(planes)
    return sets


def _finish(
    bundle: ModelBundle, cases: Sequence[TrainingCase], fields: dict[str, Any]
) -> ModelBundle:
    """Complete the card of a trained model: datasets with their licences, what was measured."""
    roots: dict[Path, set[str]] = {}
    for case in cases:
        root = dataset_of(case.labels)
        if root is not None:
            roots.setdefault(root, set()).add(case.participant)
    datasets = []
    for root, people in sorted(roots.items()):
        described = _description(root)
        datasets.append(
            {
                'name': str(described.get('Name', root.name)),
                'license': str(described.get('License', 'not stated')),
                'participants': sorted(name.rpartition('/')[2] for name in people),
            }
        )
    complete = update_card(bundle, {'datasets': datasets, **fields})
    write_model_card(complete)
    return complete


def _description(root: Path) -> dict[str, Any]:
    try:
        content = json.loads((root / 'dataset_description.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _validate_scans(
    bundle: ModelBundle, cases: Sequence[TrainingCase], run: TrainingRun, output: Path
) -> dict[str, Any]:
    """Segment whole scans of people held out as the application does; return their Dice."""
    import pandas as pd

    from bids_muscle.imaging.prepare import prepare_scan
    from bids_muscle.segmentation.predictor import Predictor

    predictor = Predictor(bundle, device=run.device)
    known = bundle.card.get('numbers') or bundle.labels.by_index
    rows: list[dict[str, Any]] = []
    for case in cases:
        prepared = prepare_scan(
            {key: nib.load(path) for key, path in case.images.items()},  # type: ignore[misc]
            bias_correction=case.source.bias_correction,
        )
        images = {name: prepared.corrected[name] for name in case.images}
        try:
            found = predictor.segment(images).labels
        except SegmentationError:  # nothing found: all of it is missed, and that is the result
            grid = prepared.body_mask
            found = nib.Nifti1Image(np.zeros(grid.shape, np.uint8), grid.affine)
        stem = case.labels.name.split('.')[0].removesuffix('_dseg')
        entities = dict(part.split('-', 1) for part in stem.split('_') if '-' in part)
        if sum(other.labels == case.labels for other in cases) > 1:
            # One map may lie on several scans of a person.
            stem += f'_desc-{"".join(case.images)}'
        dataset, _, person = case.participant.rpartition('/')
        write_image(found, output / dataset / person / 'anat' / f'{stem}_dseg.nii.gz')
        truth = nib.as_closest_canonical(nib.load(case.labels))
        codes = np.rint(np.asarray(truth.dataobj)).astype(np.int32)
        zooms = voxel_sizes(truth.affine)
        fraction = prepared.fat_fraction
        water, fat = (prepared.corrected.get(name) for name in ('water', 'fat'))
        compared = compare_maps(
            np.asarray(found.dataobj),
            recode(codes, case.source),
            {n: bundle.labels.by_index[n] for n in case.source.annotated if n in known},
            (float(zooms[0]), float(zooms[1]), float(zooms[2])),
            float(abs(np.linalg.det(truth.affine[:3, :3]))),
            None if fraction is None else np.asarray(fraction.dataobj),
            (np.asarray(water.dataobj), np.asarray(fat.dataobj)) if water and fat else None,
        )
        where = scan_columns(entities, f'{dataset}/{stem}')
        rows += [{**where, **row} for row in compared]
    table = pd.DataFrame(rows)
    write_evaluation(
        table, output, f'{bundle.name}: held-out participants of {output.parent.name}'
    )
    dice = table.groupby('name', sort=False)['dice'].mean()
    return {
        'participants': int(table['participant_id'].nunique()),
        'scans': int(table['scan'].nunique()),
        'dice': {name: round(float(value), 4) for name, value in dice.items()},
    }
