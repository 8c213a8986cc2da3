"""Train by a recipe on BIDS datasets: cases, folds, predictions of people held out."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bids_muscle.dataset.writer import read_tsv, write_tsv
from bids_muscle.durations import duration
from bids_muscle.errors import BadDataError, ModelError, UsageError
from bids_muscle.reports.evaluation import read_evaluation, write_evaluation
from bids_muscle.segmentation.bundle import ModelBundle, update_card
from bids_muscle.segmentation.model_card import write_model_card
from bids_muscle.segmentation.training.checks import check_recipe
from bids_muscle.segmentation.training.folds import ROLES, share_out, split_participants
from bids_muscle.segmentation.training.recipe import Recipe
from bids_muscle.segmentation.training.sources import (
    PlaneSet,
    TrainingCase,
    dataset_of,
)
from bids_muscle.segmentation.training.volumes import VolumeSet, load_data
from bids_muscle.workflows.held_out import segment_held_out
from bids_muscle.workflows.training_cases import describe_cases, find_all_cases

#: Folder of the label maps and the evaluation of people held out of a fold.
VALIDATION = 'validation'
#: The same with a split.
TEST = 'test'


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
    split
        Shares of people to train, validate and test on, such as ``'75/15/10'``, or a table with
        the columns ``participant_id`` and ``split``, and ``dataset`` where it is about several;
        empty for none.
    labels
        See :func:`~bids_muscle.workflows.training_cases.find_all_cases`.
    device, workers
        See :func:`~bids_muscle.segmentation.training.trainer.train`.
    """

    data: tuple[Path, ...]
    output: Path
    folds: int = 0
    fold: int | None = None
    split: str = ''
    labels: Path | None = None
    device: str = 'cpu'
    workers: int = 0


def train_recipe(
    recipe: Recipe, run: TrainingRun, report: Callable[[str], None] = print
) -> list[ModelBundle]:
    """Train a model, or one per fold; what was trained before goes on where it ended.

    Each fold is written to ``fold-<i>`` with its model, its card and, in ``validation``, label
    maps of the people held out and their evaluation. Once all folds are there, ``validation`` of
    the output folder evaluates all people.

    With a split, the weights are chosen on the people for validation, if any, and ``test`` has
    the label maps of the people for the test and their evaluation; the split itself is in
    ``split.tsv``.

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
    if run.split and run.folds:
        raise UsageError('--split and --folds exclude each other.', 'Use one of them.')
    cases = find_all_cases(recipe, run.data, run.labels, report)
    report(describe_cases(recipe, cases))
    people = [case.participant for case in cases if case.images and case.participant]
    splits = split_participants(people, run.folds, recipe.seed) if run.folds else []
    roles = read_split(run.split, people, recipe.seed) if run.split else {}
    sets = _load(recipe, cases, run.output / 'cache', report)
    _check_twins(sets, roles or {p: str(k) for k, fold in enumerate(splits) for p in fold})
    if roles:
        return [_train_split(recipe, run, cases, sets, roles, report)]
    if not splits:
        bundle = train(
            recipe, sets, run.output, device=run.device, workers=run.workers, report=report
        )
        return [_finish(bundle, cases, {})]
    bundles = []
    numbers = range(run.folds) if run.fold is None else [run.fold]
    began_s = time.monotonic()
    for n_done, number in enumerate(numbers):
        held_out, folder = splits[number], run.output / f'fold-{number}'
        report(f'fold {number}: {", ".join(sorted(held_out))} held out')
        if n_done:
            left_s = (time.monotonic() - began_s) / n_done * (len(numbers) - n_done)
            report(f'{n_done} of {len(numbers)} folds done, {duration(left_s)} left')
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
        figures = _measure(bundle, measured, run, folder / VALIDATION, report)
        bundles.append(_finish(bundle, used, {'fold': [number, run.folds], 'measured': figures}))
    done = [run.output / f'fold-{k}' / VALIDATION for k in range(run.folds)]
    if all((folder / 'evaluation.html').is_file() for folder in done):
        import pandas as pd

        table = pd.concat([read_evaluation(folder) for folder in done], ignore_index=True)
        title = f'{recipe.name}: {run.folds}-fold cross-validation'
        write_evaluation(table, run.output / VALIDATION, title)
    return bundles


def _train_split(
    recipe: Recipe,
    run: TrainingRun,
    cases: Sequence[TrainingCase],
    sets: Sequence[PlaneSet | VolumeSet],
    roles: Mapping[str, str],
    report: Callable[[str], None],
) -> ModelBundle:
    """Train on the people for training, and segment those for the test."""
    from bids_muscle.segmentation.training.trainer import train

    write_split(roles, run.output / 'split.tsv')
    counts = Counter(roles.values())
    report('; '.join(f'{role}: {counts[role]} participants' for role in ROLES))
    bundle = train(
        recipe,
        [
            plane_set
            for plane_set in sets
            if roles.get(plane_set.participant, ROLES[0]) == ROLES[0]
        ],
        run.output,
        validation=[
            plane_set
            for plane_set in sets
            if roles.get(plane_set.participant) == ROLES[1] and plane_set.images is not None
        ],
        device=run.device,
        workers=run.workers,
        report=report,
    )
    measured = [case for case in cases if roles.get(case.participant) == ROLES[2] and case.images]
    figures = None
    if measured:
        figures = _measure(bundle, measured, run, run.output / TEST, report)
    used = [case for case in cases if roles.get(case.participant) != ROLES[2]]
    return _finish(bundle, used, {'split': dict(counts), 'measured': figures})


def write_shared_split(
    recipes: Sequence[Recipe],
    data: Sequence[Path],
    labels: Path | None,
    shares: str,
    shared_test: int | None,
    output: Path,
) -> str:
    """Split the participants of several trainings at once, and write the table.

    Parameters
    ----------
    recipes
        Of the trainings.
    data, labels
        See :func:`~bids_muscle.workflows.training_cases.find_all_cases`.
    shares
        Of train, validation and test, such as ``'75/15/10'``.
    shared_test
        How many participants who have label maps for all recipes are tested on, whatever the
        share; None for the share.
    output
        The table, for ``--split``.

    Returns
    -------
    str
        How many participants have each role.

    Raises
    ------
    UsageError
        If too few participants have label maps for all recipes.
    """
    people = [
        {
            case.participant
            for case in find_all_cases(recipe, data, labels, lambda _: None)
            if case.images and case.participant
        }
        for recipe in recipes
    ]
    tested = None
    if shared_test is not None:
        common = sorted(set.intersection(*people))
        if not 0 < shared_test <= len(common):
            raise UsageError(
                f'{len(common)} participants have label maps for all of '
                f'{", ".join(recipe.name for recipe in recipes)}; {shared_test} shall be tested '
                'on.',
                'Add label maps, or test on fewer participants.',
            )
        order = np.random.default_rng(recipes[0].seed).permutation(len(common))
        tested = [common[k] for k in order[:shared_test]]
    parts = [float(word) for word in shares.split('/')]
    roles = share_out(set.union(*people), parts, recipes[0].seed, tested)
    write_split(roles, output)
    return ', '.join(f'{role} {count}' for role, count in Counter(roles.values()).items())


def write_split(roles: Mapping[str, str], path: Path) -> None:
    """Write the role of each ``'dataset/sub-01'``."""
    parts = [(*name.rpartition('/')[::2], role) for name, role in roles.items()]
    columns = ('dataset', 'participant_id', 'split')
    write_tsv([dict(zip(columns, each, strict=True)) for each in parts], path)


def read_split(split: str, people: Sequence[str], seed: int) -> dict[str, str]:
    """Return the role of each of the people, by shares or by a table.

    Parameters
    ----------
    split
        See :class:`TrainingRun`.
    people
        ``'dataset/sub-01'``.
    seed
        Of a split by shares.

    Raises
    ------
    UsageError
        If `split` is neither, or one of the people has no role in the table.
    """
    path = Path(split)
    if not path.is_file():
        try:
            shares = [float(word) for word in split.split('/')]
        except ValueError:
            raise UsageError(
                f'The split {split!r} is neither a file nor three shares.',
                'Give shares such as 75/15/10, or a table with the columns participant_id and '
                'split.',
            ) from None
        return share_out(people, shares, seed)
    table = read_tsv(path, ('dataset', 'participant_id', 'split'))
    if not {'participant_id', 'split'} <= set(table) or not set(table['split']) <= set(ROLES):
        raise UsageError(
            f'The split {path} is not a table of participants and their roles.',
            f'It needs the columns participant_id and split; split is {", ".join(ROLES)}.',
        )
    roles: dict[str, str] = {}
    for row in table.to_dict('records'):
        name = f'{row.get("dataset", "")}/{row["participant_id"]}'
        if roles.setdefault(name, row['split']) != row['split']:
            raise UsageError(
                f'{name.lstrip("/")} is in the split {path} as {roles[name]} and as '
                f'{row["split"]}.',
                'Give each participant one role; all scans of a participant have the same.',
            )
    role_of = {name: roles.get(name, roles.get(f'/{name.rpartition("/")[2]}')) for name in people}
    lacking = sorted(name for name, role in role_of.items() if role is None)
    if lacking:
        raise UsageError(
            f'{", ".join(lacking[:3])}{" ..." if len(lacking) > 3 else ""} have label maps and '
            f'are not in the split {path}.',
            'Add a row for each participant with label maps.',
        )
    return {name: role for name, role in role_of.items() if role}


def _check_twins(sets: Sequence[PlaneSet | VolumeSet], sides: Mapping[str, str]) -> None:
    """Refuse a person under two names on both sides of a split.

    The weights would be measured on what they have learned.
    """
    found: dict[str, str] = {}
    for each in sets:
        if each.participant and each.images_sha256:
            other = found.setdefault(each.images_sha256, each.participant)
            if sides.get(other) != sides.get(each.participant):
                raise BadDataError(
                    f'{other} and {each.participant} have the same images: one person would be '
                    'on both sides of the split.',
                    'Remove one of them, or give both the same role in a table for --split.',
                )


def _measure(
    bundle: ModelBundle,
    cases: Sequence[TrainingCase],
    run: TrainingRun,
    folder: Path,
    report: Callable[[str], None],
) -> dict[str, Any] | None:
    try:
        return segment_held_out(bundle, cases, folder, run.device)
    except ModelError as error:
        report(f'The held-out scans were not segmented. {error}')
        return None


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
        # Label maps of --labels may lie elsewhere than the images; both have a licence.
        for root in {dataset_of(path) for path in (case.labels, *case.images.values())}:
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
