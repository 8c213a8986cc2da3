"""The training loop: seeded, resumable after a kill with the same result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import ModelBundle, write_bundle
from bids_muscle.segmentation.networks import build_network
from bids_muscle.segmentation.training.batches import Batches
from bids_muscle.segmentation.training.loss import make_loss
from bids_muscle.segmentation.training.recipe import Recipe
from bids_muscle.segmentation.training.sources import PlaneSet

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Iterations between checkpoints, and iterations in which the learning rate rises.
CHECKPOINT_EVERY, WARM_UP = 100, 100
#: Share of the iterations at the end in which the learning rate falls to zero.
COOL_DOWN = 0.3


def train(
    recipe: Recipe,
    sets: Sequence[PlaneSet],
    output: Path,
    *,
    device: str = 'cpu',
    workers: int = 0,
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
    workers
        Processes that make batches ahead; they change the speed, not the result.
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

    loss_of = make_loss(recipe)
    output.mkdir(parents=True, exist_ok=True)
    state = _start(recipe, output / 'checkpoint.pt', device)
    network, averaged, optimizer = state['network'], state['averaged'], state['optimizer']
    last = min(recipe.iterations, stop_after or recipe.iterations)
    running, began = 0.0, time.monotonic()
    ahead: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        Batches(sets, recipe),  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(state['iteration'], last),
        num_workers=workers,
    )
    for iteration, batch in enumerate(ahead, state['iteration']):
        for group in optimizer.param_groups:
            group['lr'] = recipe.learning_rate * _rate(iteration, recipe)
        images, labels, annotated = (v.to(device) for v in batch)
        loss = loss_of(network(images), labels, annotated)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
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


def _rate(iteration: int, recipe: Recipe) -> float:
    """Share of the learning rate at an iteration: constant, or rise, hold, fall.

    Held constant for most of the time, so that a training can be prolonged from its checkpoint
    with the same result as one that was planned longer.
    """
    if recipe.schedule == 'constant':
        return 1.0
    rise = min(1.0, (iteration + 1) / WARM_UP)
    fall = (recipe.iterations - iteration) / (COOL_DOWN * recipe.iterations)
    return min(rise, fall, 1.0)


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    import torch

    with torch.no_grad():
        for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        # Running statistics of batch norm are averages already.
        for kept, latest in zip(averaged.buffers(), network.buffers(), strict=True):
            kept.copy_(latest)


def _start(recipe: Recipe, checkpoint: Path, device: str) -> dict[str, Any]:
    import torch

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network).to(device)
    averaged = build_network(recipe.network).to(device)
    averaged.load_state_dict(network.state_dict())
    kind = {'adamw': torch.optim.AdamW, 'adam': torch.optim.Adam}[recipe.optimizer]
    optimizer = kind(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    iteration = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        _check_resume(recipe, saved, checkpoint)
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


def _check_resume(recipe: Recipe, saved: dict[str, Any], checkpoint: Path) -> None:
    """Refuse a checkpoint from which this recipe would not end as if trained in one go."""
    # A checkpoint of an earlier version lacks the fields that have come since.
    defaults = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
    before = json.loads(json.dumps(defaults)) | json.loads(saved['recipe'])
    now = json.loads(json.dumps(recipe.as_dict()))
    # Before the rate falls, a training does not know how long it is to be.
    planned = {before['iterations'], now['iterations']}
    held = saved['iteration'] <= (1 - COOL_DOWN) * min(planned)
    if {**before, 'iterations': 0} != {**now, 'iterations': 0} or (len(planned) > 1 and not held):
        raise ModelError(
            f'{checkpoint} was made by another recipe.',
            'Name another output folder, or remove the checkpoint to start again.',
        )


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
        'channels': list(recipe.channels),
        'background_weight': recipe.background_weight,
        'training': {
            'iterations': iterations,
            'data': trained_on,
            'recipe': recipe.as_dict(),
        },
    }
