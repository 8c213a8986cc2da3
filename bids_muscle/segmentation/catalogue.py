"""Models by name or path: those of the package, of the user, and of other programs."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import CARD, ModelBundle, read_bundle
from bids_muscle.segmentation.external import is_external, load_external, read_external
from bids_muscle.segmentation.model import Model, load_own

#: Names a folder with models of the user, one folder each, beside those of the package.
USER_MODELS = 'BIDS_MUSCLE_MODELS'


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
        Name of a model, a folder with a bundle, or a model of MuscleMap, MONAI or nnU-Net; None
        for the default model of the region.
    region
        ``'cervical'``, ``'lumbar'`` or ``'spine'``.
    orientation
        Voxel order that a model of another program was trained on, where it does not say so.

    Raises
    ------
    ModelError
        If there is no such model, it is for another region, its card cannot be read, or it is
        not known in which voxel order it must see images.

    Examples
    --------
    >>> find_model(None, 'lumbar').region
    'lumbar'
    """
    if name_or_path is not None and region != SPINE and is_external(Path(name_or_path)):
        return read_external(Path(name_or_path), region, orientation)
    folder = packaged_models() / region if name_or_path is None else _folder(name_or_path)
    bundle = read_bundle(folder)
    if orientation:
        raise ModelError(
            f'The model {bundle.name} says itself in which voxel order it sees images.',
            'Leave out --model-orientation.',
        )
    if bundle.region != region:
        raise ModelError(
            f'The model {bundle.name} in {folder} is for the {bundle.region} region, '
            f'not for the {region} region.',
            'Name another model with --model, or the right region with --region.',
        )
    return bundle


def model_folders() -> dict[str, Path]:
    """Return the folders of all models known by name: of the package and of the user.

    The user's are the folders in the folder that the environment variable ``BIDS_MUSCLE_MODELS``
    names. A model of the package is also known by its region.
    """
    own = sorted(packaged_models().glob(f'*/{CARD}'))
    more = os.environ.get(USER_MODELS)
    users = sorted(Path(more).absolute().glob(f'*/{CARD}')) if more else []
    named = {read_bundle(card.parent).name: card.parent for card in (*users, *own)}
    return named | {card.parent.name: card.parent for card in own}


def _folder(name_or_path: str) -> Path:
    known = model_folders()
    if name_or_path in known:
        return known[name_or_path]
    if (Path(name_or_path) / CARD).is_file():
        # Steps run in folders of their own, where a relative path would lead elsewhere.
        return Path(name_or_path).absolute()
    raise ModelError(
        f'There is no model {name_or_path!r}: it is neither the name of a model nor a folder '
        f'with {CARD}, nor a model of MuscleMap (.pth), MONAI (configs/) or nnU-Net (plans.json).',
        f'Use one of {", ".join(sorted(known)) or "(none)"}, or the path of a model folder.',
    )


def load_model(bundle: ModelBundle) -> Model:
    """Load a model with its checked weights.

    Raises
    ------
    ModelError
        If the weights are missing, changed, or do not fit.
    """
    return load_external(bundle) if 'external' in bundle.card else load_own(bundle)
