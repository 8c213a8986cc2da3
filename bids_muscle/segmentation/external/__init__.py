"""Models that others trained: MuscleMap, MONAI bundles, nnU-Net. Nothing of theirs is executed.

Each kind has a module that reads its configuration into a :class:`~.spec.Spec`; here a spec meets
the label table of a region, and becomes a bundle and a model like our own.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.anatomy.labels import LabelTable, load_label_table, side_and_structure
from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.external import monai_bundle, musclemap, nnunet
from bids_muscle.segmentation.external.spec import MOST_PARAMETERS, SAFE, Spec, reading
from bids_muscle.segmentation.external.weights import convert, digest, load_into
from bids_muscle.segmentation.model import Model

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Voxel orders of axial slices; RAS is that of the predictor.
ORIENTATION = re.compile('[LR][AP][IS]')
READERS = (musclemap, monai_bundle, nnunet)


def is_external(path: Path) -> bool:
    """Whether a path looks like a model of another program."""
    return any(reader.recognises(path) for reader in READERS)


def read_external(path: Path, region: str, orientation: str | None = None) -> ModelBundle:
    """Read what can be known of a model of another program without loading its weights.

    Its classes are matched with the label table of the region by muscle and side; a class that is
    none of them becomes background, and the bundle says so.

    Parameters
    ----------
    path
        MuscleMap's ``.pth`` or ``.json``, or the folder of a MONAI bundle or an nnU-Net training.
    region
        ``'cervical'`` or ``'lumbar'``.
    orientation
        Voxel order, such as ``'LPS'``, of the files that the model was trained on, for models that
        do not say it.

    Raises
    ------
    ModelError
        If a file is missing or not understood, the voxel order is not known, no class is a muscle
        of the region, or two are the same.
    """
    spec = _read(path, orientation)
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
    return ModelBundle(
        path=path.absolute(),
        name=spec.name,
        version=spec.version,
        region=region,
        labels=table,
        weights=spec.weights,
        sha256=digest(spec),
        network={},
        spacing_mm=spec.spacing_mm[0] or 0.0,
        window_px=(1, 1),
        card={
            'external': spec.kind,
            'orientation': spec.orientation,
            'numbers': list(numbers),
            'left_out': [name for index, name in spec.classes.items() if not numbers[index]],
        },
    )


def load_external(bundle: ModelBundle) -> Model:
    """Load a model of another program, without unpickling anything but numbers.

    Raises
    ------
    ModelError
        If the weights cannot be read so, are not all finite, or do not fit the network.
    """
    spec = _read(bundle.path, bundle.card['orientation'])
    networks = []
    for path in spec.weights:
        network = _build(spec)
        load_into(network, path, spec)
        networks.append(_flipped(network.eval(), spec))
    return Model(
        networks=tuple(networks),
        spatial_dims=spec.spatial_dims,
        numbers=_numbers(spec, bundle.labels),
        mirrored=_mirrored(spec),
        spacing_mm=spec.spacing_mm,
        normalize=spec.normalize,
        channels=spec.channels,
        multiple_px=spec.multiple_px,
        patch_px=spec.patch_px,
        overlap=spec.overlap,
        blend=spec.blend,
        pad_value=0.0,
    )


def convert_external(path: Path) -> str:
    """Put safetensors in the place of the checkpoints of a model, once they fit its network.

    Parameters
    ----------
    path
        As in :func:`read_external`.

    Returns
    -------
    str
        What ``sha256`` of the bundle is from now on.

    Raises
    ------
    ModelError
        If a file is missing or not understood, or weights are not plain numbers that fit.
    """
    spec = _described(path)
    for checkpoint in spec.weights:
        if checkpoint.suffix != SAFE:
            convert(checkpoint, load_into(_build(spec), checkpoint, spec))
    return digest(_described(path))


def _read(path: Path, orientation: str | None) -> Spec:
    return _oriented(_described(path), orientation)


def _described(path: Path) -> Spec:
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path)
    raise ModelError(f'There is no model in {path}.', 'Check --model.')


def _oriented(spec: Spec, given: str | None) -> Spec:
    """Add the voxel order, from the model or from the user."""
    known = spec.orientation or given
    what = f'The {spec.kind} of {spec.config}'
    if known is None:
        raise ModelError(
            f'{what} does not say in which voxel order its training images were stored, so that '
            'left and right are not known.',
            'Name it with --model-orientation, such as LPS or RAS (nib.aff2axcodes of a training '
            'image tells it).',
        )
    if not ORIENTATION.fullmatch(known):
        raise ModelError(
            f'{what} works on images in the order {known}.',
            'Use a model for axial slices, whose order is three of L or R, A or P, S or I.',
        )
    if given not in (None, known):
        raise ModelError(
            f'{what} says that it works on images in the order {known}, not {given}.',
            'Leave out --model-orientation.',
        )
    return replace(spec, orientation=known)


def _build(spec: Spec) -> nn.Module:
    """Build the network, once its size is known to be sensible."""
    import torch

    with reading(f'The network that {spec.config} describes', spec.remedy):
        with torch.device('meta'):
            shapes = [each.shape for each in spec.build().state_dict().values()]
        count = sum(math.prod(shape) for shape in shapes)
        if count > MOST_PARAMETERS:
            raise ValueError(f'it has {count:.2g} parameters')
        return spec.build()


def _flipped(network: nn.Module, spec: Spec) -> nn.Module:
    """Return a network that sees its windows in the voxel order of its training images."""
    from torch import nn

    pairs = list(zip(spec.orientation or '', 'RAS', strict=True))[: spec.spatial_dims]
    axes = [2 + axis for axis, (theirs, ours) in enumerate(pairs) if theirs != ours]
    if not axes:
        return network

    class Flipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner(windows.flip(axes)).flip(axes)
            return found

    return Flipped().eval()


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
