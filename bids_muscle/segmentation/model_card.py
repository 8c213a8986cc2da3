"""The model card for people, ``MODEL_CARD.md``, made from ``model.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_muscle.segmentation.bundle import ModelBundle

MODEL_CARD = 'MODEL_CARD.md'


def write_model_card(bundle: ModelBundle) -> Path:
    """Write what the model is, what it was trained on, how good it is and where it ends."""
    path = bundle.path / MODEL_CARD
    path.write_text(model_card(bundle), encoding='utf-8')
    return path


def model_card(bundle: ModelBundle) -> str:
    """Return the card as Markdown; it says only what ``model.json`` knows."""
    card = bundle.card
    folds = card.get('folds') or [{'training': card.get('training'), **card}]
    parameters = {
        'Region': bundle.region,
        'Version': bundle.version,
        'Network': f'{bundle.network.get("name")}, {bundle.network.get("spatial_dims", 2)}-D',
        'Pixel': f'{bundle.spacing_mm:g} mm',
        'Folds': str(len(bundle.weights)),
        'SHA-256': bundle.sha256,
    }
    parts = [
        f'# {bundle.name}',
        str(card.get('description', '')),
        '\n'.join(f'- {name}: {value}' for name, value in parameters.items()),
        '## Labels',
        '\n'.join(f'{label.index}. {label.name}' for label in bundle.labels),
        '## Training data',
        _datasets(card.get('datasets', ())),
        *(
            _data(fold.get('training') or {}, number, len(folds))
            for number, fold in enumerate(folds)
        ),
        '## Accuracy',
        *(
            _measured(fold.get('measured'), fold.get('training') or {}, number, len(folds))
            for number, fold in enumerate(folds)
        ),
        '## Limits',
        _limits(card, folds),
        'Not a medical device: for research only.',
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _datasets(datasets: Any) -> str:
    lines = ['| dataset | licence | participants |', '|---|---|---|']
    lines += [
        f'| {each["name"]} | {each["license"]} | {len(each["participants"])} |'
        for each in datasets
    ]
    return '\n'.join(lines) if datasets else 'The datasets and their licences are not recorded.'


def _data(training: Mapping[str, Any], number: int, count: int) -> str:
    kinds: dict[str, list[int]] = {}
    for entry in training.get('data', ()):
        name = f'{entry["source"]} ({"images" if entry["images"] else "label maps only"})'
        kinds.setdefault(name, []).append(entry['planes'])
    title = f'Fold {number}: ' if count > 1 else ''
    start = training.get('start')
    end = f' {training["iterations"]} iterations' if 'iterations' in training else ''
    end += f', from the weights of {start["name"]} {start["version"]}' if start else ''
    data = '; '.join(f'{name}: {len(p)} maps, {sum(p)} planes' for name, p in kinds.items())
    return f'{title}{data}.{end}{"." if end else ""}' if data else ''


def _measured(measured: Any, training: Mapping[str, Any], number: int, count: int) -> str:
    title = f'Fold {number}: ' if count > 1 else ''
    if not measured:
        held_out = {entry.get('participant') for entry in training.get('held_out', ())}
        if held_out:
            return (
                f'{title}Nothing was measured on whole scans. The weights were chosen on '
                f'{len(held_out)} participants held out, with a Dice of '
                f'{training["validation_dice"]:.3f} on parts of their scans, which is too good.'
            )
        return '' if count > 1 and number else 'Nobody was held out, so nothing was measured.'
    if 'dice' not in measured:
        return '\n'.join(_outline(measured))
    lines = [
        f'{title}Dice on {measured["scans"]} scans of {measured["participants"]} participants who '
        'are not in the training, mean over participants:',
        '',
        '| label | Dice |',
        '|---|---|',
        *(f'| {name} | {value:.3f} |' for name, value in measured['dice'].items()),
    ]
    return '\n'.join(lines)


def _outline(values: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Return nested values as a list of lists."""
    lines = []
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        lines.append('  ' * depth + f'- {name}:' + ('' if inner else f' {value}'))
        lines += _outline(value, depth + 1) if inner else []
    return lines


def _limits(card: Mapping[str, Any], folds: Any) -> str:
    known = card.get('limits')
    if known:
        return str(known)
    data = [entry for fold in folds for entry in (fold.get('training') or {}).get('data', ())]
    people = {entry['participant'] for entry in data if entry.get('participant')}
    return (
        f'Trained on {len(people)} participants. Scanners, contrasts, ages and diseases other '
        'than theirs are untested: look at the segmentations of your own scans, and evaluate some '
        'against outlines of your own.'
    )
