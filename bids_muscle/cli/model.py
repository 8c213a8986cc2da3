"""``bids_muscle-model``: models, and the experiments of the papers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.cli.command import run_command
from bids_muscle.errors import ExitCode, UsageError

#: Papers whose experiments can be repeated, and at which scales.
PAPERS = ('weber2021', 'wesselink2022', 'hess2022', 'xia2019')
SCALES = ('tiny', 'small', 'paper')


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='bids_muscle-model',
        description='List, show, fetch, train, evaluate, compare and package segmentation models.',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser(
        'list', help='list installed models, recipes, and models that can be fetched'
    )
    show = commands.add_parser('show', help='print the card of a model: training data, accuracy')
    show.add_argument('model', metavar='NAME|FOLDER')
    show.add_argument('--json', action='store_true', help='print all of model.json')
    _add_fetch(
        commands.add_parser(
            'fetch', help='download a model of another program into $BIDS_MUSCLE_MODELS'
        )
    )
    _add_train(commands.add_parser('train', help='train a model with a recipe'))
    _add_split(
        commands.add_parser('split', help='split participants for several trainings at once')
    )
    _add_papers(commands)
    evaluate = commands.add_parser(
        'evaluate', help='compare label maps with a reference: tables, plots and a page'
    )
    evaluate.add_argument(
        '--predictions',
        type=Path,
        required=True,
        metavar='DERIVATIVES',
        help='derivatives dataset with the label maps to evaluate',
    )
    evaluate.add_argument(
        '--reference',
        type=Path,
        required=True,
        metavar='DERIVATIVES',
        help='derivatives dataset with the reference label maps',
    )
    evaluate.add_argument(
        '--output', type=Path, required=True, metavar='FOLDER', help='folder of tables and page'
    )
    evaluate.add_argument(
        '--seg', help='seg entity of the references (default: all with known muscles)'
    )
    evaluate.add_argument(
        '--raters',
        nargs=2,
        default=('', ''),
        metavar='NAME',
        help='compare what one person corrected in the browser with what another did',
    )
    compare = commands.add_parser(
        'compare', help='compare models that were evaluated on the same scans'
    )
    compare.add_argument('evaluations', type=Path, nargs='+', metavar='EVALUATION')
    compare.add_argument('--output', type=Path, required=True, metavar='FOLDER')
    compare.add_argument(
        '--factor',
        action='append',
        default=[],
        metavar='NAME=LEVEL,LEVEL',
        help='factor by which the models differ, with one level per evaluation, e.g. '
        'dimension=2D,2D,3D,3D; repeatable (default: one factor, the model)',
    )
    package = commands.add_parser(
        'package',
        help='package a trained model, or all cross-validation folds, as one model folder',
    )
    package.add_argument('trained', type=Path, metavar='FOLDER', help='output folder of train')
    package.add_argument('--name', required=True, help='name of the model and its folder')
    package.add_argument(
        '--output',
        type=Path,
        metavar='FOLDER',
        help='parent folder of the model (default: $BIDS_MUSCLE_MODELS, else the current folder)',
    )
    return parser


def _add_fetch(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument('models', metavar='NAME', nargs='+', help='see list')
    fetch.add_argument(
        '--accept-licence', action='store_true', help='accept the licence of the model'
    )
    fetch.add_argument(
        '--from',
        dest='files',
        type=Path,
        nargs='+',
        default=[],
        metavar='FILE',
        help='local files of the model, or their folder, instead of a download',
    )


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument('recipe', metavar='NAME|FILE', help='see list, or docs/models.md')
    train.add_argument(
        '--data', type=Path, nargs='+', required=True, metavar='BIDS', help='training data'
    )
    train.add_argument('--output', type=Path, required=True, metavar='FOLDER')
    train.add_argument(
        '--folds', type=int, default=0, metavar='K', help='cross-validation, split by participant'
    )
    train.add_argument(
        '--fold', type=int, metavar='I', help='train only this fold, counted from 0'
    )
    train.add_argument(
        '--split',
        default='',
        metavar='TRAIN/VALIDATION/TEST|TSV',
        help='shares of participants, e.g. 75/15/10, or a table of split',
    )
    train.add_argument(
        '--labels',
        type=Path,
        metavar='DERIVATIVES',
        help='derivatives dataset with the label maps (default: all in --data)',
    )
    train.add_argument('--device', default='cpu', metavar='cpu|cuda|cuda:N', help='(default: cpu)')
    train.add_argument(
        '--exclude',
        nargs='+',
        default=[],
        metavar='SOURCE',
        help='sources of the recipe to exclude',
    )
    train.add_argument('--threads', type=int, default=1, metavar='N', help='(default: 1)')
    train.add_argument(
        '--workers', type=int, default=0, metavar='N', help='processes that prepare batches'
    )
    train.add_argument(
        '--iterations', type=int, metavar='N', help='iterations (default: those of the recipe)'
    )
    train.add_argument(
        '--start',
        metavar='NAME|FOLDER',
        help='model with the initial weights (default: that of the recipe)',
    )


def _add_split(split: argparse.ArgumentParser) -> None:
    split.add_argument('recipes', metavar='RECIPE', nargs='+', help='recipes of the trainings')
    split.add_argument('--data', type=Path, nargs='+', required=True, metavar='BIDS')
    split.add_argument('--labels', type=Path, metavar='DERIVATIVES', help='as for train')
    split.add_argument(
        '--shares', default='85/15/0', metavar='TRAIN/VALIDATION/TEST', help='(default: 85/15/0)'
    )
    split.add_argument(
        '--shared-test',
        type=int,
        metavar='N',
        help='test on N participants who have label maps for all recipes',
    )
    split.add_argument('--output', type=Path, required=True, metavar='TSV')


def _add_papers(commands: Any) -> None:
    prepare = commands.add_parser(
        'prepare', help='make the label maps (and slices) that the recipes of a paper learn from'
    )
    reproduce = commands.add_parser(
        'reproduce', help="repeat a paper's experiment: its tables and figures beside yours"
    )
    for parser in (prepare, reproduce):
        parser.add_argument('paper', metavar='PAPER', choices=PAPERS, help=', '.join(PAPERS))
        parser.add_argument('--output', type=Path, required=True, metavar='FOLDER')
    prepare.add_argument('--data', type=Path, required=True, metavar='BIDS')
    reproduce.add_argument(
        '--data',
        type=Path,
        metavar='BIDS',
        help='dataset with label maps (default: simulated people)',
    )
    reproduce.add_argument(
        '--scale',
        choices=SCALES,
        default='small',
        help='size of windows, pixels and training: paper as published, small for two cores, tiny '
        'for a test (default: small)',
    )
    reproduce.add_argument(
        '--iterations', type=int, metavar='N', help='iterations (default: those of the scale)'
    )
    reproduce.add_argument('--device', default='cpu', metavar='cpu|cuda|cuda:N')
    reproduce.add_argument('--threads', type=int, default=1, metavar='N', help='(default: 1)')
    reproduce.add_argument('--workers', type=int, default=0, metavar='N', help='as for train')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return run_command(build_parser(), lambda args: COMMANDS[args.command](args), argv)
    except KeyboardInterrupt:
        print(
            'bids_muscle-model: interrupted. Run the same command again to continue.',
            file=sys.stderr,
        )
        return ExitCode.TEMPORARY


def _list(args: argparse.Namespace) -> None:
    from bids_muscle.segmentation.bundle import read_bundle
    from bids_muscle.segmentation.catalogue import model_folders
    from bids_muscle.segmentation.registry import certificate, fetched_models, registry
    from bids_muscle.segmentation.training.recipe import recipe_names

    for name, folder in sorted(model_folders().items()):
        bundle = read_bundle(folder)
        if bundle.name == name:
            print(f'model   {name} {bundle.version}, {bundle.region}, {folder}')
    fetched = fetched_models()
    for name, path in fetched.items():
        known = certificate(path)
        named = ' '.join(filter(None, [name, known['version']]))
        print(f'model   {named}, {known["kind"]}, {known["license"]}, {path}')
    for name in recipe_names():
        print(f'recipe  {name}')
    for name, entry in registry().items():
        if name not in fetched:
            named = ' '.join(filter(None, [name, entry.version]))
            print(f'fetch   {named}, {", ".join(entry.regions)}, {entry.license}')


def _show(args: argparse.Namespace) -> None:
    from bids_muscle.segmentation.bundle import read_bundle
    from bids_muscle.segmentation.catalogue import model_folders
    from bids_muscle.segmentation.model_card import model_card
    from bids_muscle.segmentation.registry import certificate, fetched_models, registry
    from bids_muscle.workflows.fetching import describe_model

    if args.model in fetched_models():
        print(json.dumps(certificate(fetched_models()[args.model]), indent=2))
    elif args.model in registry():
        print(describe_model(registry()[args.model]), end='')
    else:
        bundle = read_bundle(model_folders().get(args.model, Path(args.model)))
        print(json.dumps(bundle.card, indent=2) if args.json else model_card(bundle), end='\n')


def _fetch(args: argparse.Namespace) -> None:
    from bids_muscle.workflows.fetching import describe_model, fetch, find_entry

    if args.files and len(args.models) > 1:
        raise UsageError('--from is for a single model.', 'Name one.')
    for name in args.models:
        if not args.accept_licence:
            print(describe_model(find_entry(name)), end='')
        path = fetch(
            name,
            accept_licence=args.accept_licence,
            files=args.files,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(f'{path}: bids_muscle ... --model {name}')


def _train(args: argparse.Namespace) -> None:
    import torch

    from bids_muscle.segmentation.training.recipe import find_recipe
    from bids_muscle.workflows.training import TrainingRun, train_recipe

    if args.threads < 1 or args.workers < 0:
        raise UsageError(
            f'--threads {args.threads} --workers {args.workers} is not possible.',
            'Use 1 or more threads, and 0 or more workers.',
        )
    torch.set_num_threads(args.threads)
    recipe = find_recipe(args.recipe).without(tuple(args.exclude))
    if args.iterations is not None:
        recipe = replace(recipe, iterations=args.iterations)
    if args.start:
        recipe = replace(recipe, start=args.start)
    run = TrainingRun(
        data=tuple(args.data),
        output=args.output,
        folds=args.folds,
        fold=args.fold,
        device=args.device,
        workers=args.workers,
        split=args.split,
        labels=args.labels,
    )
    for bundle in train_recipe(recipe, run, lambda line: print(line, flush=True)):
        print(f'wrote {bundle.path}')


def _split(args: argparse.Namespace) -> None:
    from bids_muscle.segmentation.training.recipe import find_recipe
    from bids_muscle.workflows.training import write_shared_split

    recipes = [find_recipe(name) for name in args.recipes]
    counts = write_shared_split(
        recipes, args.data, args.labels, args.shares, args.shared_test, args.output
    )
    print(f'wrote {args.output}: {counts}')


def _prepare(args: argparse.Namespace) -> None:
    from bids_muscle.workflows.papers import prepare, read_paper

    made = prepare(read_paper(args.paper), args.data, args.output, print)
    print(f'wrote {made.labels}')


def _reproduce(args: argparse.Namespace) -> None:
    import torch

    from bids_muscle.workflows.papers import read_paper
    from bids_muscle.workflows.reproduce import Reproduction, reproduce

    torch.set_num_threads(args.threads)
    run = Reproduction(
        output=args.output,
        data=args.data,
        scale=args.scale,
        iterations=args.iterations,
        device=args.device,
        workers=args.workers,
    )
    page = reproduce(read_paper(args.paper), run, lambda line: print(line, flush=True))
    print(f'wrote {page}')


def _evaluate(args: argparse.Namespace) -> None:
    from bids_muscle.workflows.evaluation import evaluate

    page, left_out = evaluate(args.predictions, args.reference, args.output, args.seg, args.raters)
    for sentence in left_out:
        print(f'left out: {sentence}', file=sys.stderr)
    print(f'wrote {page}')


def _compare(args: argparse.Namespace) -> None:
    from bids_muscle.workflows.evaluation import compare_models

    factors = {}
    for words in args.factor:
        name, equals, levels = words.partition('=')
        if not (name.isidentifier() and equals):
            raise UsageError(f'--factor {words!r} is invalid.', 'Write NAME=LEVEL,LEVEL.')
        factors[name] = levels.split(',')
    print(f'wrote {compare_models(args.evaluations, args.output, factors)}')


def _package(args: argparse.Namespace) -> None:
    from bids_muscle.workflows.packaging import package

    bundle = package(args.trained, args.name, args.output)
    print(f'wrote {bundle.path}: bids_muscle ... --model {bundle.path}')


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    'list': _list,
    'show': _show,
    'fetch': _fetch,
    'train': _train,
    'split': _split,
    'prepare': _prepare,
    'reproduce': _reproduce,
    'evaluate': _evaluate,
    'compare': _compare,
    'package': _package,
}

if __name__ == '__main__':
    sys.exit(main())
