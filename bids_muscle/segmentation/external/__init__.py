"""Models that others trained: MuscleMap, MONAI bundles, nnU-Net. Nothing of theirs is executed.

Each kind has a module that reads its configuration into a :class:`~.spec.Spec`; here a spec meets
the label table of a region, and becomes a bundle and a model like our own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.anatomy.labels import LabelTable, load_label_table, side_and_structure
from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.external import monai_bundle, musclemap, nnunet
from bids_muscle.segmentation.external.spec import Spec

if TYPE_CHECKING:
    from bids_muscle.segmentation.model import Model

READERS = (musclemap, monai_bundle, nnunet)


def is_external(path: Path) -> bool:
    """Whether a path looks like a model of another program."""
    return any(reader.recognises(path) for reader in READERS)


def read_external(path: Path, region: str) -> ModelBundle:
    """Read what can be known of a model of another program without loading its weights.

    Its classes are matched with the label table of the region by muscle and side; a class that is
    none of them becomes background, and the bundle says so.

    Parameters
    ----------
    path
        MuscleMap's ``.pth`` or ``.json``, or the folder of a MONAI bundle or an nnU-Net training.
    region
        ``'cervical'`` or ``'lumbar'``.

    Raises
    ------
    ModelError
        If a file is missing or not understood, no class is a muscle of the region, or two are the
        same.
    """
    spec = _read(path)
    table = load_label_table(region)
    numbers = _numbers(spec, table)
    if not any(numbers):
        raise ModelError(
            f'The model {path} labels {", ".join(spec.classes.values())}: none of them is a '
            f'muscle of the {region} region.',
            'Name another model with --model, or the right region with --region.',
        )
    for label in table:
        same = [
            spec.classes[index] for index, number in enumerate(numbers) if number == label.index
        ]
        if len(same) > 1:
            raise ModelError(
                f'The model {path} has {len(same)} classes for {label.name}: {", ".join(same)}.',
                f'Rename those that are not {label.muscle} in {spec.config}.',
            )
    digest = hashlib.sha256()
    for part in (spec.config, *spec.weights):
        digest.update(part.read_bytes())
    return ModelBundle(
        path=path.absolute(),
        name=spec.name,
        version=spec.version,
        region=region,
        labels=table,
        weights=spec.weights,
        sha256=digest.hexdigest(),
        network={},
        spacing_mm=spec.spacing_mm[0] or 0.0,
        window_px=(1, 1),
        card={
            'external': spec.kind,
            'numbers': list(numbers),
            'left_out': [name for index, name in spec.classes.items() if not numbers[index]],
        },
    )


def load_external(bundle: ModelBundle) -> Model:
    """Load a model of another program, without unpickling anything but numbers.

    Raises
    ------
    ModelError
        If the weights cannot be read so, or do not fit the network.
    """
    import torch

    from bids_muscle.segmentation.model import Model

    spec = _read(bundle.path)
    networks = []
    for path in spec.weights:
        network = spec.build()
        try:
            with torch.serialization.safe_globals(list(spec.safe)):
                loaded = torch.load(path, map_location='cpu', weights_only=True)
            network.load_state_dict(spec.state(loaded))
        except Exception as error:
            raise ModelError(
                f'The weights {path} cannot be loaded as plain numbers into the network that '
                f'{spec.config} describes: {error}',
                spec.remedy,
            ) from error
        networks.append(network.eval())
    step = spec.multiple_px
    return Model(
        networks=tuple(networks),
        spatial_dims=spec.spatial_dims,
        numbers=_numbers(spec, bundle.labels),
        mirrored=_mirrored(spec),
        spacing_mm=spec.spacing_mm,
        normalize=spec.normalize,
        channels=spec.channels,
        multiple_px=(step, step, step if spec.spatial_dims == 3 else 1),
        patch_px=spec.patch_px,
        pad_value=0.0,
    )


def _read(path: Path) -> Spec:
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path)
    raise ModelError(f'There is no model in {path}.', 'Check --model.')


def _numbers(spec: Spec, table: LabelTable) -> tuple[int, ...]:
    """Give the number in the label table of each class, 0 for what is not in it."""
    labels = [table.find(spec.classes.get(index, '')) for index in range(spec.n_classes)]
    return tuple(label.index if label else 0 for label in labels)


def _mirrored(spec: Spec) -> tuple[int, ...] | None:
    """Give the class of the same structure on the other side; None if one has no other side."""
    known = {side_and_structure(name): index for index, name in spec.classes.items()}
    other = {'left': 'right', 'right': 'left', '': ''}
    out = list(range(spec.n_classes))
    for index, name in spec.classes.items():
        side, words = side_and_structure(name)
        if (other[side], words) not in known:
            return None
        out[index] = known[other[side], words]
    return tuple(out)
