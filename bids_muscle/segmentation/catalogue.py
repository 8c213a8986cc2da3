"""Models by name or path: those of the package, of the user, and of other programs."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import CARD, ModelBundle, read_bundle
from bids_muscle.segmentation.external import (
    bundle_for,
    checksums_beside,
    is_external,
    load_external,
    read_external,
)
from bids_muscle.segmentation.model import Model, load_own
from bids_muscle.segmentation.registry import (
    USER_MODELS,
    certificate,
    fetched_models,
    registry,
    user_models,
)


def packaged_models() -> Path:
    """Folder of the models in the package, one folder each, named by region."""
    return Path(str(resources.files('bids_muscle') / 'data/models'))


def find_model(
    name_or_path: str | None, region: str, orientation: str | None = None
) -> ModelBundle:
    """Find the model for a body region, without reading its weights.

    Parameters
    ----------
    name_or_path
        Name of a model, which may be a fetched one, a folder with a bundle, or a model of
        MuscleMap, MONAI or nnU-Net; None for the default model of the region.
    region
        ``'cervical'``, ``'lumbar'`` or ``'spine'``; of models of other programs also one of
        :data:`~bids_muscle.anatomy.labels.OTHER_REGIONS`.
    orientation
        Voxel order that a model of another program was trained on, where it does not say so.

    Raises
    ------
    ModelError
        If there is no such model, it is for another region, its card cannot be read, it is not
        known in which voxel order it must see images, or it has changed since it was fetched.

    Examples
    --------
    >>> find_model(None, 'lumbar').region
    'lumbar'
    """
    if name_or_path is not None and (found := find_external(name_or_path, orientation)):
        return bundle_for(found, region)
    folder = packaged_models() / region if name_or_path is None else _folder(name_or_path)
    if name_or_path is None and not folder.is_dir():
        raise ModelError(
            f'The package has no model for the {region} region.',
            'Name a model of another program with --model; see docs/models.md.',
        )
    bundle = read_bundle(folder)
    if orientation:
        raise ModelError(
            f'The model {bundle.name} says itself in which voxel order it sees images.',
            'Omit --model-orientation.',
        )
    if bundle.region != region:
        raise ModelError(
            f'The model {bundle.name} in {folder} is for the {bundle.region} region, '
            f'not for the {region} region.',
            'Name another model with --model, or the right region with --region.',
        )
    return bundle


def find_external(name_or_path: str, orientation: str | None) -> ModelBundle | None:
    """Find a model of another program, for no region in particular; None if it is none.

    Its files are read whole for their checksum. Parameters and errors as in :func:`find_model`.
    """
    path = fetched_models().get(name_or_path, Path(name_or_path))
    return _as_fetched(read_external(path, orientation)) if is_external(path) else None


def _as_fetched(bundle: ModelBundle) -> ModelBundle:
    """Add what is known of where a model is from, if it was fetched."""
    origin = certificate(bundle.path)
    if not origin:
        return bundle
    if origin['sha256'] != bundle.sha256:
        raise ModelError(
            f'The model {bundle.path} has the SHA-256 {bundle.sha256[:12]}..., '
            f'{origin["sha256"][:12]}... when it was fetched.',
            f'Remove the folder and run: bids_muscle-model fetch {origin["name"]}',
        )
    # Certificates of earlier versions do not have these.
    if (beside := origin.get('beside', {})) and beside != checksums_beside(bundle.path):
        raise ModelError(
            f'{", ".join(str(bundle.path / name) for name in beside)}, which names the classes '
            'of the model, has changed since it was fetched.',
            f'Remove the folder and run: bids_muscle-model fetch {origin["name"]}',
        )
    limits = f'Trained on {origin["trained_on"]}.'
    kept = {field: origin[field] for field in ('license', 'citation')}
    card = {**bundle.card, **kept, 'limits': limits}
    version = origin['version'] or bundle.version
    return replace(bundle, name=origin['name'], version=version, card=card)


def model_folders() -> dict[str, Path]:
    """Return the folders of our own models known by name: of the package and of the user.

    The user's are the folders in the folder that the environment variable ``BIDS_MUSCLE_MODELS``
    names. A model of the package is also known by its region. Fetched models of others are in
    :func:`~bids_muscle.segmentation.registry.fetched_models`.
    """
    own = sorted(packaged_models().glob(f'*/{CARD}'))
    more = user_models()
    users = sorted(more.glob(f'*/{CARD}')) if more else []
    named = {read_bundle(card.parent).name: card.parent for card in (*users, *own)}
    return named | {card.parent.name: card.parent for card in own}


def _folder(name_or_path: str) -> Path:
    folders = model_folders()
    if name_or_path in folders:
        return folders[name_or_path]
    if (Path(name_or_path) / CARD).is_file():
        # Steps run in folders of their own, where a relative path would lead elsewhere.
        return Path(name_or_path).absolute()
    if name_or_path in registry():
        folder = user_models()
        where = f'is not in {folder}' if folder else f'is not known: {USER_MODELS} is not set'
        raise ModelError(
            f'The model {name_or_path} {where}.',
            f'Let {USER_MODELS} name the folder that has it, or fetch it where there is internet: '
            f'bids_muscle-model fetch {name_or_path}',
        )
    raise ModelError(
        f'There is no model {name_or_path!r}: it is neither the name of a model nor a folder '
        f'with {CARD}, nor a model of MuscleMap (.pth), MONAI (configs/) or nnU-Net (plans.json).',
        f'Use one of {", ".join(sorted({*folders, *fetched_models()}))}, or the path of a model '
        'folder. "bids_muscle-model list" names those that can be fetched.',
    )


def load_model(bundle: ModelBundle) -> Model:
    """Load a model with its checked weights.

    Raises
    ------
    ModelError
        If the weights are missing, changed, or do not fit.
    """
    return load_external(bundle) if 'external' in bundle.card else load_own(bundle)
