"""What is wrong with a recipe, said before any data are read."""

from __future__ import annotations

import json

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import ModelError, UsageError
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.networks import build_network, divisor
from bids_muscle.segmentation.training.loss import make_loss
from bids_muscle.segmentation.training.recipe import Recipe

#: Fields that must be above 0, and those that must not be below.
POSITIVE = (
    'iterations',
    'batch_size',
    'learning_rate',
    'spacing_mm',
    'background_weight',
    'validate_every',
)
NOT_NEGATIVE = (
    'weight_decay',
    'ema_decay',
    'clip_norm',
    'patience',
    'slice_mm',
    'neighbours_mm',
)
#: The same of a source.
SOURCE_POSITIVE = ('weight', 'slice_step', 'pixel_mm')


def check_recipe(recipe: Recipe) -> None:
    """Raise if the numbers of a recipe, its network, window, labels and start do not fit.

    Raises
    ------
    UsageError
        With all that is wrong in one sentence.
    ModelError
        As :func:`find_start_model`.
    """
    wrong = [f'{name} must be above 0' for name in POSITIVE if not getattr(recipe, name) > 0]
    wrong += [f'{name} must not be below 0' for name in NOT_NEGATIVE if getattr(recipe, name) < 0]
    wrong += [
        f'{name} of the source {source.name} must be above 0'
        for source in recipe.sources
        for name in SOURCE_POSITIVE
        if not getattr(source, name) > 0
    ]
    if recipe.ema_decay >= 1:
        wrong.append('ema_decay must be below 1')
    wrong += _of_the_network(recipe)
    if wrong:
        raise UsageError(
            f'The recipe {recipe.name} cannot be used: {"; ".join(wrong)}.',
            'Correct the recipe; bids_muscle/data/recipes/lumbar.toml is a complete example.',
        )
    make_loss(recipe)
    find_start_model(recipe)


def find_start_model(recipe: Recipe) -> ModelBundle | None:
    """Return the model whose weights the training begins with, if the recipe names one.

    Raises
    ------
    ModelError
        If there is none of this name, or its network means something else.
    """
    if not recipe.start:
        return None
    bundle = find_model(recipe.start, recipe.region)
    # Networks of the same shape whose pixels or classes mean something else would fit too.
    for name in ('network', 'spacing_mm', 'channels', 'numbers'):
        mine, theirs = getattr(recipe, name), bundle.card.get(name)
        if json.loads(json.dumps(mine)) != theirs:
            raise ModelError(
                f'The recipe {recipe.name} cannot start from the model {bundle.name}: {name} is '
                f'{mine} in the recipe and {theirs} in the model.',
                'Use the value of the model in the recipe, or remove start.',
            )
    return bundle


def _has_pairs(recipe: Recipe, classes: int) -> bool:
    """Whether classes 1 and 2, 3 and 4 ... are the two sides of a muscle, or not in the table."""
    other = load_label_table(recipe.region).mirrored
    mine = list(recipe.numbers or range(classes))[1:]
    pairs = zip(mine[::2], mine[1::2], strict=False)
    return len(mine) % 2 == 0 and all(other.get(a, 0) == b for a, b in pairs)


def _of_the_network(recipe: Recipe) -> list[str]:
    import torch

    try:
        with torch.device('meta'):  # the shapes alone, without weights
            build_network(recipe.network)
        step, dims, inputs, classes = (
            divisor(recipe.network),
            *(int(recipe.network[k]) for k in ('spatial_dims', 'in_channels', 'out_channels')),
        )
    except ModelError as error:
        return [error.message.rstrip('.')]
    except (KeyError, TypeError, ValueError) as error:
        return [f'{error} is missing from [network], or is not a number']
    wrong = []
    window, indices = recipe.window_px, {label.index for label in load_label_table(recipe.region)}
    sizes = isinstance(window, tuple) and all(isinstance(n, int) and n > 0 for n in window)
    if not sizes or len(window) < dims or any(n % step for n in window[:dims]):
        wrong.append(
            f'window_px must be {dims} multiples of {step}, by which this network downsamples'
        )
    if len(recipe.channels) != inputs:
        wrong.append(f'in_channels is {inputs}, but channels has {len(recipe.channels)} entries')
    if recipe.numbers and len(recipe.numbers) != classes:
        wrong.append(f'out_channels is {classes}, but numbers has {len(recipe.numbers)} entries')
    if not recipe.numbers and not 2 <= classes <= 1 + len(indices):
        wrong.append(
            f'out_channels is {classes}, but must be from 2 to {1 + len(indices)}: the background '
            f'and the labels of the {recipe.region} region'
        )
    if not wrong and recipe.plane == 'axial' and not _has_pairs(recipe, classes):
        wrong.append(
            'the classes must be the right and the left of a muscle in turn, as images are '
            'mirrored (out_channels, numbers)'
        )
    return wrong
