"""The training loop: seeded, resumable after a kill with the same result."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.durations import duration
from bids_muscle.errors import ModelError, TemporaryError
from bids_muscle.segmentation.bundle import ModelBundle, load_networks, write_bundle
from bids_muscle.segmentation.compute import check_device, is_out_of_memory
from bids_muscle.segmentation.networks import build_network
from bids_muscle.segmentation.training.batches import Batches
from bids_muscle.segmentation.training.checks import find_start_model
from bids_muscle.segmentation.training.loss import IGNORED, make_loss
from bids_muscle.segmentation.training.progress import ProgressLog
from bids_muscle.segmentation.training.recipe import Recipe, Source
from bids_muscle.segmentation.training.sources import PlaneSet
from bids_muscle.segmentation.training.volumes import VolumeSet

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bids_muscle.segmentation.training.loss import Loss

#: Iterations between checkpoints, and iterations in which the learning rate rises.
CHECKPOINT_EVERY, WARM_UP = 100, 100
#: Iterations between progress lines.
REPORT_EVERY = 50
#: Most batches of one validation.
MOST_BATCHES = 20
#: Share of the iterations at the end in which the learning rate falls to zero.
COOL_DOWN = 0.3


@dataclass
class _State:
    """Everything that changes in a training; a checkpoint holds all of it."""

    network: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    iteration: int = 0
    running_loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {'dice': -1.0, 'iteration': 0})
    # The model that the training began with, and digests of what it learns from.
    start: dict[str, str] = field(default_factory=dict)
    data: str = ''
    images: str = ''

    def as_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        parts = ('network', 'averaged', 'optimizer', 'scaler')
        plain = ('iteration', 'running_loss', 'history', 'best', 'start', 'data', 'images')
        return {name: getattr(self, name).state_dict() for name in parts} | {
            name: getattr(self, name) for name in plain
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; one of an earlier version has no scaler and no history."""
        for name in ('network', 'averaged', 'optimizer'):
            getattr(self, name).load_state_dict(saved[name])
        if saved.get('scaler'):
            self.scaler.load_state_dict(saved['scaler'])
        for name in ('iteration', 'running_loss', 'history', 'best'):
            setattr(self, name, saved.get(name, getattr(self, name)))


def train(
    recipe: Recipe,
    sets: Sequence[PlaneSet | VolumeSet],
    output: Path,
    *,
    validation: Sequence[PlaneSet | VolumeSet] = (),
    device: str = 'cpu',
    workers: int = 0,
    report: Callable[[str], None] = print,
    stop_after: int | None = None,
) -> ModelBundle:
    """Train a network by a recipe, continuing from a checkpoint where there is one.

    On CUDA the network runs in half precision with a scaled loss, on the CPU in bfloat16 where
    the recipe says so. ``history.tsv``,
    ``curves.png`` and TensorBoard events in ``tensorboard`` show the progress.

    Parameters
    ----------
    recipe
        Hyper-parameters.
    sets
        The planes of the sources of the recipe.
    output
        Folder for the checkpoint and the bundle.
    validation
        Planes of people who are not in `sets`; the weights that are best on them are kept.
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
    DeviceError
        If the device is not there.
    TemporaryError
        If memory runs out.
    ModelError
        If the checkpoint in ``output`` was made by another recipe, or of other data.
    """
    import torch

    check_device(device)
    make_deterministic(device)
    loss_of = make_loss(recipe)
    output.mkdir(parents=True, exist_ok=True)
    state = _start(recipe, output / 'checkpoint.pt', device, _digests(sets, validation))
    log = ProgressLog(output, state.history, state.iteration)
    last = min(recipe.iterations, stop_after or recipe.iterations)
    began, started_at = time.monotonic(), state.iteration
    ahead: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        Batches(sets, recipe),  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(state.iteration, last),
        num_workers=workers,
    )
    for batch in [] if _is_over(state, recipe, validation) else ahead:
        rate = recipe.learning_rate * _rate(state.iteration, recipe)
        try:
            loss = _step(state, recipe, loss_of, batch, device, rate)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TemporaryError(
                f'Training with the recipe {recipe.name} ran out of memory on {device}, with '
                f'batch_size {recipe.batch_size}.',
                'Free memory or use another device, and run the same command again, which '
                'continues from the last checkpoint; or start again with a smaller batch_size.',
            ) from error
        state.iteration = done = state.iteration + 1
        decay = min(recipe.ema_decay, done / (done + 9))
        _average(state.averaged, state.network, decay)
        state.running_loss = (
            0.98 * state.running_loss + 0.02 * loss if state.running_loss else loss
        )
        ends = done == last
        due = validation and (done % recipe.validate_every == 0 or done == recipe.iterations)
        if done % REPORT_EVERY == 0 or due or ends:
            row = {'iteration': done, 'loss': state.running_loss, 'learning_rate': rate}
            if due:
                row['dice'] = _validate(state, recipe, validation, device)
            log.add(row)
            pace_s = (time.monotonic() - began) / (done - started_at)
            report(_progress(row, recipe, pace_s))
        over = _is_over(state, recipe, validation)
        if done % CHECKPOINT_EVERY == 0 or ends or over:
            _save(output / 'checkpoint.pt', recipe, state)
            log.draw(recipe)
        if over:
            report(f'stopped early: no higher Dice since iteration {state.best["iteration"]}')
            break
    log.close()
    if 'weights' in state.best:
        state.averaged.load_state_dict(state.best['weights'])
    return write_bundle(output, state.averaged, _card(recipe, sets, validation, state))


def _step(
    state: _State,
    recipe: Recipe,
    loss_of: Loss,
    batch: Sequence[torch.Tensor],
    device: str,
    rate: float,
) -> float:
    """Learn from one batch and return its loss."""
    import torch

    # Dropout depends on the iteration alone, so that a resumed training drops the same.
    torch.manual_seed(recipe.seed + state.iteration)
    for group in state.optimizer.param_groups:
        group['lr'] = rate
    images, labels, asked = (values.to(device) for values in batch)
    on_cuda = device.startswith('cuda')
    kind = torch.float16 if on_cuda else torch.bfloat16
    half = on_cuda or recipe.cpu_bfloat16
    with torch.autocast('cuda' if on_cuda else 'cpu', dtype=kind, enabled=half):
        logits = state.network(images)
    loss = loss_of(logits.float(), labels, asked)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    if recipe.clip_norm:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return float(loss.item())


def _validate(
    state: _State, recipe: Recipe, validation: Sequence[PlaneSet | VolumeSet], device: str
) -> float:
    """Return the Dice of the averaged weights on people held out; keep them if it is the best."""
    dice = _dice(state.averaged, recipe, validation, device)
    if dice > state.best['dice']:
        weights = {k: v.detach().cpu().clone() for k, v in state.averaged.state_dict().items()}
        state.best = {'dice': dice, 'iteration': state.iteration, 'weights': weights}
    return dice


def _dice(
    network: nn.Module, recipe: Recipe, validation: Sequence[PlaneSet | VolumeSet], device: str
) -> float:
    """Return the mean over labels of the Dice of all views together.

    The views are drawn as in training, but are the same every time. As in the loss, a label that
    is joined to another counts as this one, and pixels that may be anything count for nothing.
    """
    import torch

    classes = int(recipe.network['out_channels'])
    both, sizes = torch.zeros(classes - 1), torch.zeros(classes - 1)
    planes = sum(len(each) for each in validation)
    network.eval()
    with torch.inference_mode():
        for number in range(1, 1 + min(MOST_BATCHES, -(-planes // recipe.batch_size))):
            images, labels, asked = Batches(validation, recipe)[-number]
            predicted = network(images.to(device)).argmax(1).cpu()
            counts_as = torch.cat([torch.zeros_like(asked[:, :1]), asked], 1)
            predicted = counts_as.gather(1, predicted.flatten(1)).view_as(labels)
            predicted[labels == IGNORED] = 0
            for label in range(1, classes):
                known = asked[:, label - 1].eq(label).view(-1, *[1] * (labels.ndim - 1))
                mine, truth = (predicted == label) & known, (labels == label) & known
                both[label - 1] += 2 * (mine & truth).sum()
                sizes[label - 1] += mine.sum() + truth.sum()
    network.train()
    shown = sizes > 0
    return float((both[shown] / sizes[shown]).mean()) if bool(shown.any()) else 0.0


def _is_over(state: _State, recipe: Recipe, validation: Sequence[PlaneSet | VolumeSet]) -> bool:
    """Whether the validation Dice has not risen for as long as the recipe is patient."""
    waited = state.iteration - state.best['iteration']
    patience = recipe.patience * recipe.validate_every
    return bool(validation and patience and state.history and waited >= patience)


def _progress(row: Mapping[str, float], recipe: Recipe, pace_s: float) -> str:
    left_s = (recipe.iterations - row['iteration']) * pace_s
    dice = f' validation Dice {row["dice"]:.3f}' if 'dice' in row else ''
    return (
        f'{row["iteration"]}/{recipe.iterations} loss {row["loss"]:.3f}{dice} '
        f'{pace_s:.2f} s/iteration, {duration(left_s)} left'
    )


def make_deterministic(device: str) -> None:
    """Have CUDA choose algorithms whose result does not depend on chance, where there are some."""
    import torch

    if device.startswith('cuda'):
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It would write over all memory before it is used, lest somebody read it too early.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


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


def _start(recipe: Recipe, checkpoint: Path, device: str, digests: Mapping[str, str]) -> _State:
    import torch

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network).to(device)
    start = {}
    bundle = find_start_model(recipe)
    if bundle:
        start = {'name': bundle.name, 'version': bundle.version, 'sha256': bundle.sha256}
        if not checkpoint.is_file():
            network.load_state_dict(_start_weights(recipe, bundle))
    averaged = build_network(recipe.network).to(device)
    averaged.load_state_dict(network.state_dict())
    kind = {'adamw': torch.optim.AdamW, 'adam': torch.optim.Adam}[recipe.optimizer]
    optimizer = kind(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    scaler = torch.amp.GradScaler('cuda', enabled=device.startswith('cuda'))
    state = _State(
        network,
        averaged,
        optimizer,
        scaler,
        start=start,
        data=digests['data'],
        images=digests['images'],
    )
    if checkpoint.is_file():
        # Loading moves what belongs on the device there; counters of steps belong on the CPU.
        saved = torch.load(checkpoint, map_location='cpu', weights_only=True)
        _check_resume(recipe, state, saved, checkpoint)
        state.load(saved)
    return state


def _digests(
    sets: Sequence[PlaneSet | VolumeSet], validation: Sequence[PlaneSet | VolumeSet]
) -> dict[str, str]:
    """Return the SHA-256 of who is learned from, who is held out and their label maps (data).

    That of their images is by itself, since checkpoints of earlier versions do not have it.
    """
    digest, images = hashlib.sha256(), hashlib.sha256()
    for role, members in (('train', sets), ('validate', validation)):
        for each in members:
            who = (role, each.name, each.participant, each.annotated, each.labels.shape)
            digest.update(repr(who).encode())
            digest.update(each.labels.tobytes())
            images.update(f'{each.images_sha256} '.encode())
    return {'data': digest.hexdigest(), 'images': images.hexdigest()}


def _start_weights(recipe: Recipe, bundle: ModelBundle) -> dict[str, torch.Tensor]:
    """Return the weights of the model that the recipe starts from."""
    first, *others = load_networks(bundle)
    if others:
        raise ModelError(
            f'The recipe {recipe.name} cannot start from the model {bundle.name}: it has the '
            f'weights of {1 + len(others)} folds.',
            'Start from a model with the weights of a single training.',
        )
    return first.state_dict()


def _check_resume(recipe: Recipe, state: _State, saved: dict[str, Any], checkpoint: Path) -> None:
    """Refuse a checkpoint from which this recipe would not end as if trained in one go.

    A checkpoint of an earlier version does not say what it began with and learned from.
    """
    # A checkpoint of an earlier version lacks the fields that have come since.
    before = _with_defaults(json.loads(saved['recipe']), Recipe)
    before['sources'] = [_with_defaults(source, Source) for source in before['sources']]
    now = json.loads(json.dumps(recipe.as_dict()))
    # Before the rate falls, a training does not know how long it is to be; a constant one never.
    planned = {before['iterations'], now['iterations']}
    held = recipe.schedule == 'constant' or saved['iteration'] <= (1 - COOL_DOWN) * min(planned)
    if {**before, 'iterations': 0} != {**now, 'iterations': 0} or (len(planned) > 1 and not held):
        raise ModelError(
            f'{checkpoint} was written with another recipe.',
            'Use another --output, or delete the checkpoint to start again.',
        )
    if saved.get('start', state.start) != state.start:
        raise ModelError(
            f'{checkpoint} started from other weights than those of {recipe.start}.',
            'Use another --output, or set start to the original model.',
        )
    # People held out now must not be people whom the weights have learned from.
    if saved.get('data', state.data) != state.data:
        raise ModelError(
            f'{checkpoint} was written with other folds, participants or label maps.',
            'Use another --output, or delete this one to train again on the present data.',
        )
    if saved.get('images', state.images) != state.images:
        raise ModelError(
            f'{checkpoint} was written with other images: files of the same people have changed.',
            'Use another --output, or delete this one to train again on the present images.',
        )


def _with_defaults(saved: dict[str, Any], kind: type[Recipe | Source]) -> dict[str, Any]:
    defaults = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    defaults |= {f.name: {} for f in fields(kind) if f.default_factory is dict}
    return json.loads(json.dumps(defaults)) | saved


def _save(path: Path, recipe: Recipe, state: _State) -> None:
    import torch

    whole = path.with_suffix('.part')
    torch.save({'recipe': json.dumps(recipe.as_dict()), **state.as_dict()}, whole)
    whole.replace(path)


def _card(
    recipe: Recipe,
    sets: Sequence[PlaneSet | VolumeSet],
    validation: Sequence[PlaneSet | VolumeSet],
    state: _State,
) -> dict[str, Any]:
    """Describe the model for ``model.json``, before whole scans are measured."""
    card = {
        'iterations': state.iteration,
        'data': _described(sets),
        # A card is passed on: it names the model of the start, not a folder of this machine.
        'recipe': replace(recipe, start=state.start.get('name', '')).as_dict(),
    }
    if state.start:
        card['start'] = state.start
    if validation:
        card |= {
            'held_out': _described(validation),
            'best_iteration': state.best['iteration'],
            'validation_dice': round(state.best['dice'], 4),
        }
    return {
        'name': recipe.name,
        'version': recipe.version,
        'region': recipe.region,
        'description': recipe.description,
        'network': recipe.network,
        'spacing_mm': recipe.spacing_mm,
        'window_px': list(recipe.window_px),
        'slice_mm': recipe.slice_mm,
        'plane': recipe.plane,
        'space': recipe.space,
        'channels': list(recipe.channels),
        'normalization': recipe.normalization,
        'landmarks': {contrast: list(marks) for contrast, marks in recipe.landmarks.items()},
        'pad_px': list(recipe.patches.pad_px) if recipe.patches else [],
        'numbers': list(recipe.numbers),
        'postprocess': list(recipe.postprocess),
        'bridge_mm': recipe.bridge_mm,
        'background_weight': recipe.background_weight,
        'neighbours_mm': recipe.neighbours_mm,
        'training': card,
    }


def _described(sets: Sequence[PlaneSet | VolumeSet]) -> list[dict[str, Any]]:
    return [
        {
            'source': planes.name,
            **({'participant': planes.participant} if planes.participant else {}),
            'planes': len(planes),
            'images': planes.images is not None,
            'annotated': list(planes.annotated),
        }
        for planes in sets
    ]
