"""The training loop: seeded, resumable after a kill with the same result."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import ModelBundle, write_bundle
from bids_muscle.segmentation.networks import build_network
from bids_muscle.segmentation.training.batches import make_batch
from bids_muscle.segmentation.training.loss import marginal_loss
from bids_muscle.segmentation.training.recipe import Recipe
from bids_muscle.segmentation.training.sources import PlaneSet

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Iterations between checkpoints, and the share of iterations in which the rate rises.
CHECKPOINT_EVERY, WARM_UP = 250, 0.03


def train(
    recipe: Recipe,
    sets: Sequence[PlaneSet],
    output: Path,
    *,
    device: str = 'cpu',
    report: Callable[[str], None] = print,
    stop_after: int | None = None,
) -> ModelBundle:
    """Train a network by a recipe, continuing from a checkpoint where there is one.

    Parameters
    ----------
    recipe
        Hyper-parameters.
    sets
        The planes of the sources of the recipe.
    output
        Folder for the checkpoint and the bundle.
    device
        ``'cpu'`` or ``'cuda'``.
    report
        Receives the progress lines.
    stop_after
        Stop at this iteration as a kill would, after a checkpoint, and write the bundle so far.

    Returns
    -------
    ModelBundle
        Weights averaged over the last iterations (EMA), in ``output``.

    Raises
    ------
    ModelError
        If the checkpoint in ``output`` was made by another recipe.
    """
    import torch

    output.mkdir(parents=True, exist_ok=True)
    state = _start(recipe, output / 'checkpoint.pt', device)
    network, averaged, optimizer = state['network'], state['averaged'], state['optimizer']
    last = min(recipe.iterations, stop_after or recipe.iterations)
    running, began = 0.0, time.monotonic()
    for iteration in range(state['iteration'], last):
        for group in optimizer.param_groups:
            group['lr'] = recipe.learning_rate * _rate(iteration / recipe.iterations)
        images, labels, annotated = (v.to(device) for v in make_batch(sets, recipe, iteration))
        loss = marginal_loss(network(images), labels, annotated)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        _average(averaged, network, min(recipe.ema_decay, (iteration + 1) / (iteration + 10)))
        running = loss.item() if not running else 0.98 * running + 0.02 * loss.item()
        done = iteration + 1
        if done % 50 == 0 or done == last:
            pace_s = (time.monotonic() - began) / (done - state['iteration'])
            report(f'{done}/{recipe.iterations} loss {running:.3f} {pace_s:.2f} s/iteration')
        if done % CHECKPOINT_EVERY == 0 or done == last:
            _save(output / 'checkpoint.pt', recipe, done, network, averaged, optimizer)
    return write_bundle(output, averaged, _card(recipe, sets, last))


def _rate(progress: float) -> float:
    """Linear warm-up, then cosine to zero."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    import torch

    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def _start(recipe: Recipe, checkpoint: Path, device: str) -> dict[str, Any]:
    import torch

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network).to(device)
    averaged = build_network(recipe.network).to(device)
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    iteration = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if saved['recipe'] != json.dumps(recipe.as_dict()):
            raise ModelError(
                f'{checkpoint} was made by another recipe.',
                'Name another output folder, or remove the checkpoint to start again.',
            )
        network.load_state_dict(saved['network'])
        averaged.load_state_dict(saved['averaged'])
        optimizer.load_state_dict(saved['optimizer'])
        iteration = saved['iteration']
    return {
        'network': network,
        'averaged': averaged,
        'optimizer': optimizer,
        'iteration': iteration,
    }


def _save(
    path: Path,
    recipe: Recipe,
    iteration: int,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    import torch

    whole = path.with_suffix('.part')
    torch.save(
        {
            'recipe': json.dumps(recipe.as_dict()),
            'iteration': iteration,
            'network': network.state_dict(),
            'averaged': averaged.state_dict(),
            'optimizer': optimizer.state_dict(),
        },
        whole,
    )
    whole.replace(path)


def _card(recipe: Recipe, sets: Sequence[PlaneSet], iterations: int) -> dict[str, Any]:
    """Describe the model for ``model.json``, before anything is measured."""
    trained_on = [
        {
            'source': planes.name,
            'planes': len(planes),
            'images': planes.images is not None,
            'annotated': list(planes.annotated),
        }
        for planes in sets
    ]
    return {
        'name': recipe.name,
        'version': recipe.version,
        'region': recipe.region,
        'description': recipe.description,
        'network': recipe.network,
        'spacing_mm': recipe.spacing_mm,
        'window_px': list(recipe.window_px),
        'training': {
            'iterations': iterations,
            'data': trained_on,
            'recipe': recipe.as_dict(),
        },
    }
