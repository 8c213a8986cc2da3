"""Repeat the experiment of a paper: from label maps to its own tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bids_muscle.dataset.writer import write_json
from bids_muscle.errors import UsageError
from bids_muscle.reports.reproduction import write_reproduction
from bids_muscle.reports.statistics import write_statistics
from bids_muscle.segmentation.bundle import read_bundle
from bids_muscle.segmentation.training.recipe import Recipe, find_recipe, tuples
from bids_muscle.statistics.cohort import CohortAnalysis
from bids_muscle.workflows.evaluation import compare_models, evaluate
from bids_muscle.workflows.held_out import segment_held_out
from bids_muscle.workflows.paper_cohort import remarks_on_cohort, simulate
from bids_muscle.workflows.paper_loads import write_loads
from bids_muscle.workflows.paper_statistics import STATISTICS
from bids_muscle.workflows.papers import Paper, PreparedData, describe_maps, prepare
from bids_muscle.workflows.training import (
    TEST,
    VALIDATION,
    TrainingRun,
    train_recipe,
    write_shared_split,
)
from bids_muscle.workflows.training_cases import find_all_cases

#: What an arm that is done was trained by; written last.
DONE = 'recipe.json'


@dataclass(frozen=True)
class Reproduction:
    """How an experiment is repeated.

    Parameters
    ----------
    output
        Folder of everything.
    data
        BIDS dataset with label maps; None to simulate people.
    scale
        ``'tiny'``, ``'small'`` or ``'paper'``.
    iterations
        Of every training; None for those of the scale.
    device, workers
        See :func:`~bids_muscle.segmentation.training.trainer.train`.
    """

    output: Path
    data: Path | None = None
    scale: str = 'small'
    iterations: int | None = None
    device: str = 'cpu'
    workers: int = 0


def reproduce(paper: Paper, run: Reproduction, report: Callable[[str], None] = print) -> Path:
    """Repeat an experiment; what an earlier run has finished is kept, a training goes on.

    Parameters
    ----------
    paper
        The experiment.
    run
        Where, on what, and how large.
    report
        Receives progress lines.

    Returns
    -------
    Path
        The page that sets its tables and figures beside those of the paper.

    Raises
    ------
    BidsMuscleError
        If the data lack all that the paper needs, or the participants are too few for its split.
    """
    _check_same(paper, run)
    data = run.data or simulate(paper, run.scale, run.output / 'bids', report)
    made = _prepared(paper, data, run.output, report)
    arms = [arm for arm in paper.arms if arm['seg'] not in made.lacking]
    recipes = {arm['name']: scaled(paper, arm, run) for arm in arms}
    common = _check_people(paper, recipes, made)
    split = paper.design.get('split', '')
    if 'shared_test' in paper.design:
        split = str(run.output / 'split.tsv')
        tested = min(int(paper.design['shared_test']), common // 2)
        counts = write_shared_split(
            list(recipes.values()), [made.data], made.labels, paper.design['split'], tested,
            Path(split),
        )  # fmt: skip
        report(f'participants: {counts}')
    folders = []
    for arm in arms:
        report(f'--- {arm["name"]}: {arm["recipe"]}')
        training = TrainingRun(
            data=(made.data,),
            output=run.output / 'models' / arm['name'],
            folds=int(paper.design.get('folds', 0)),
            device=run.device,
            workers=run.workers,
            split=split,
            labels=made.labels,
        )
        into = run.output / 'predictions' / arm.get('into', arm['name'])
        _train_arm(recipes[arm['name']], training, into, report)
        folders.append(into)
    remarks = [*paper.remarks, *made.remarks, *remarks_on_cohort(made.data)]
    if paper.loads:
        remarks += write_loads(folders[0], made.labels, made.data, report)
    for folder in dict.fromkeys(folders):
        report(f'--- evaluation of {folder.name}')
        page, _ = evaluate(folder, made.labels, run.output / 'evaluation' / folder.name)
        report(f'wrote {page}')
    done = {folder.name for folder in folders}
    for comparison in paper.comparisons:
        if set(comparison['arms']) <= done:
            places = [run.output / 'evaluation' / name for name in comparison['arms']]
            compare_models(
                places, run.output / 'comparison' / comparison['name'], comparison.get('factors')
            )
    analyses: Mapping[str, CohortAnalysis] = {}
    if paper.statistics:
        cohort = _segment_all(paper, recipes, made, run, report)
        analyses = STATISTICS[paper.statistics](cohort, made.data)
        write_statistics(analyses, run.output / 'statistics')
    return write_reproduction(
        _shown(paper, run, recipes), run.output, made.lacking, remarks, analyses
    )


def _check_same(paper: Paper, run: Reproduction) -> None:
    """Refuse the folder of another experiment.

    Raises
    ------
    UsageError
        If the folder is of another paper, other data or another scale.
    """
    path = run.output / 'experiment.json'
    data = str(run.data.absolute()) if run.data else None
    mine = {'Paper': paper.name, 'Data': data, 'Scale': run.scale}
    if path.is_file() and json.loads(path.read_text(encoding='utf-8')) != mine:
        raise UsageError(
            f'The folder {run.output} has the experiment of another paper, other data or another '
            'scale.',
            'Use another --output.',
        )
    write_json(mine, path)


def _prepared(
    paper: Paper, data: Path, output: Path, report: Callable[[str], None]
) -> PreparedData:
    """Prepare the label maps, unless an earlier run has."""
    path = output / 'prepared.json'
    if path.is_file():
        kept = json.loads(path.read_text(encoding='utf-8'))
        return PreparedData(
            Path(kept['Data']), Path(kept['Labels']), kept['Lacking'], tuple(kept['Remarks'])
        )
    made = prepare(paper, data, output / 'reference', report)
    content = {
        'Data': str(made.data.absolute()),
        'Labels': str(made.labels.absolute()),
        'Lacking': dict(made.lacking),
        'Remarks': list(made.remarks),
    }
    write_json(content, path)
    return made


def _shown(paper: Paper, run: Reproduction, recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """Return what the page says about the experiment."""
    return {
        'name': paper.name,
        'title': paper.title,
        'scale': run.scale,
        'data': str(run.data) if run.data else 'simulated people',
        'arms': [
            (name, each.iterations, each.batch_size, each.window_px, each.spacing_mm)
            for name, each in recipes.items()
        ],
        'tables': paper.tables,
        'figures': paper.figures,
    }


def scaled(paper: Paper, arm: Mapping[str, str], run: Reproduction) -> Recipe:
    """Return the recipe of an arm at the scale of the run."""
    scale = paper.scales[run.scale]
    recipe = find_recipe(arm['recipe'])
    for changes in (scale.get('recipe', {}), scale.get(arm['name'], {})):
        recipe = _changed(recipe, changes)
    return recipe if run.iterations is None else replace(recipe, iterations=run.iterations)


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    plain = tuples(changes)
    network = {**recipe.network, **plain.pop('network', {})}
    patches = tuples(plain.pop('patches', {}))
    if recipe.patches:
        plain['patches'] = replace(recipe.patches, **patches)
    return replace(recipe, network=network, **plain)


def _check_people(paper: Paper, recipes: Mapping[str, Recipe], made: PreparedData) -> int:
    """Count the people who have the label maps of all arms.

    Raises
    ------
    UsageError
        If they are too few for the folds or the split of the paper.
    """
    people = [
        {case.participant for case in find_all_cases(r, [made.data], made.labels, lambda _: None)}
        for r in recipes.values()
    ]
    count = len(set.intersection(*people))
    roles = [float(share) > 0 for share in paper.design.get('split', '').split('/') if share]
    needed = int(paper.design.get('folds', 0)) or sum(roles) + ('shared_test' in paper.design)
    if count < needed:
        raise UsageError(
            f'{count} participants have the images and label maps of all networks of '
            f'{paper.name}; its split needs at least {needed}. No table can be made, as all are '
            'of people who were not learned from.',
            'Add participants.',
        )
    return count


def _train_arm(
    recipe: Recipe, training: TrainingRun, into: Path, report: Callable[[str], None]
) -> None:
    """Train an arm and put the label maps of the people held out into one derivatives dataset."""
    content = json.loads(json.dumps(recipe.as_dict()))
    done = training.output / DONE
    if done.is_file() and json.loads(done.read_text(encoding='utf-8')) == content:
        report('finished before')
        return
    train_recipe(recipe, training, report)
    folders = sorted(training.output.glob(f'fold-*/{VALIDATION}')) or [training.output / TEST]
    for person in (each for folder in folders for each in folder.glob('*/sub-*')):
        shutil.copytree(person, into / person.name, dirs_exist_ok=True)
    describe_maps(into, f'Label maps by {recipe.name}', 'reproduce')
    write_json(content, done)


def _segment_all(
    paper: Paper,
    recipes: Mapping[str, Recipe],
    made: PreparedData,
    run: Reproduction,
    report: Callable[[str], None],
) -> Path:
    """Segment the whole cohort by the last arm; return the folder of its evaluation."""
    arm = [each['name'] for each in paper.arms if each['name'] in recipes][-1]
    bundle, folder = read_bundle(run.output / 'models' / arm), run.output / 'cohort'
    kept = folder / 'weights.json'
    if not (kept.is_file() and json.loads(kept.read_text()) == {'sha256': bundle.sha256}):
        report(f'--- all participants by {arm}')
        cases = find_all_cases(recipes[arm], [made.data], made.labels, lambda _: None)
        segment_held_out(bundle, cases, folder, run.device)
        write_json({'sha256': bundle.sha256}, kept)
    return folder
