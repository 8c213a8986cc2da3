"""``python -m bids_muscle.segmentation.training RECIPE --data DIR [DIR ...] --output DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bids_muscle.errors import BidsMuscleError


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a model by a recipe and write its bundle; returns an exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m bids_muscle.segmentation.training', description=main.__doc__
    )
    parser.add_argument('recipe', type=Path, help='TOML recipe, see bids_muscle/data/recipes')
    parser.add_argument(
        '--data', type=Path, nargs='+', required=True, help='folders that hold the sources'
    )
    parser.add_argument('--output', type=Path, required=True, help='folder for the bundle')
    parser.add_argument('--exclude', nargs='+', default=[], metavar='NAME', help='leave out')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default 1)')
    parser.add_argument('--workers', type=int, default=0, help='processes that make batches')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--iterations', type=int, help='instead of those of the recipe')
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except BidsMuscleError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)


def _run(options: argparse.Namespace) -> int:
    import torch

    from bids_muscle.segmentation.training.recipe import read_recipe
    from bids_muscle.segmentation.training.sources import load_source
    from bids_muscle.segmentation.training.trainer import train

    torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe).without(tuple(options.exclude))
    if options.iterations:
        recipe = type(recipe)(**{**recipe.__dict__, 'iterations': options.iterations})
    sets = [
        planes
        for source in recipe.sources
        for planes in load_source(source, options.data, recipe.center_labels)
    ]
    for planes in sets:
        print(f'{planes.name}: {len(planes)} planes', flush=True)
    bundle = train(
        recipe,
        sets,
        options.output,
        device=options.device,
        workers=options.workers,
        report=lambda line: print(line, flush=True),
    )
    print(f'wrote {bundle.path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
