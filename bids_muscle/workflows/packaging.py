"""Put what a training wrote into one model folder."""

from __future__ import annotations

import re
from pathlib import Path

from bids_muscle.errors import ModelError, OutputError, UsageError
from bids_muscle.segmentation.bundle import CARD, ModelBundle, merge_bundles, read_bundle
from bids_muscle.segmentation.model_card import write_model_card
from bids_muscle.segmentation.registry import user_models


def package(trained: Path, name: str, output: Path | None = None) -> ModelBundle:
    """Write one model folder from a trained model, or from the folds of a cross-validation.

    Parameters
    ----------
    trained
        Output folder of a training.
    name
        Name of the model and of its folder.
    output
        Folder in which that of the model is made; by default the one that the environment variable
        ``BIDS_MUSCLE_MODELS`` names, where ``--model`` finds it by name, else the current one.

    Raises
    ------
    ModelError
        If there is no finished training, or the folds do not belong together.
    UsageError
        If the name cannot be that of a folder.
    OutputError
        If the folder is there already.
    """
    if not re.fullmatch('[A-Za-z0-9][A-Za-z0-9._+-]*', name):
        raise UsageError(
            f'The model name {name!r} is invalid.',
            'Use letters, digits, dots, hyphens and underscores.',
        )
    bundles = [read_bundle(folder) for folder in _finished(trained)]
    target = (output or user_models() or Path()) / name
    if target.exists():
        raise OutputError(f'{target} already exists.', 'Use another --name or --output.')
    bundle = merge_bundles(bundles, target, name)
    write_model_card(bundle)
    return bundle


def _is_finished(folder: Path) -> bool:
    """Whether the card has its end: datasets and accuracy, written after people held out."""
    return (folder / CARD).is_file() and 'datasets' in read_bundle(folder).card


def _finished(trained: Path) -> list[Path]:
    """Return the folder of the model, or those of all folds."""
    if _is_finished(trained):
        return [trained]
    first = next(iter(sorted(trained.glob(f'fold-*/{CARD}'))), None)
    if first is not None:
        _, count = read_bundle(first.parent).card.get('fold', (0, 1))
        folds = [trained / f'fold-{number}' for number in range(count)]
        unfinished = [path.name for path in folds if not _is_finished(path)]
        if not unfinished:
            return folds
        raise ModelError(
            f'{", ".join(unfinished)} of {trained} are not fully trained.',
            'Run bids_muscle-model train again, with the same options: it continues.',
        )
    raise ModelError(
        f'{trained} contains no finished model.',
        'Give the --output of a completed bids_muscle-model train.',
    )
