"""Models that others trained: MuscleMap, MONAI bundles, nnU-Net. Nothing of theirs is executed.

Each kind has a module that reads its configuration into a :class:`~.spec.Spec`; here a spec gets
a label table of its own, and becomes a bundle and a model like those of the package.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.anatomy.labels import BODY, OWN_SEGMENTATIONS, SPINE, UNSIDED
from bids_muscle.anatomy.structures import for_region, identify, model_table
from bids_muscle.errors import ModelError
from bids_muscle.files import file_sha256
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.external import monai_bundle, musclemap, nnunet
from bids_muscle.segmentation.external.spec import MOST_PARAMETERS, SAFE, Spec, reading
from bids_muscle.segmentation.external.weights import convert, digest, load_into
from bids_muscle.segmentation.model import Model
from bids_muscle.tables import name_some

if TYPE_CHECKING:
    from torch import nn

#: Voxel orders of axial slices; RAS is that of the predictor.
ORIENTATION = re.compile('[LR][AP][IS]')
READERS = (musclemap, monai_bundle, nnunet)
#: Largest number of a label map, that of int16.
MOST_CODE = 32767


def is_external(path: Path) -> bool:
    """Whether a path looks like a model of another program."""
    return any(reader.recognises(path) for reader in READERS)


def read_external(path: Path, orientation: str | None = None) -> ModelBundle:
    """Read what can be known of a model of another program without loading its weights.

    All its classes are kept, with the numbers that they have in its own label maps.

    Parameters
    ----------
    path
        MuscleMap's ``.pth`` or ``.json``, or the folder of a MONAI bundle or an nnU-Net training.
    orientation
        Voxel order, such as ``'LPS'``, of the files that the model was trained on, for models that
        do not say it.

    Returns
    -------
    ModelBundle
        For no region in particular; see :func:`bundle_for`.

    Raises
    ------
    ModelError
        If a file is missing or not understood, the voxel order is not known, or two classes are
        the same structure or have numbers that a label map cannot hold.
    """
    spec = _read(path, orientation)
    codes = {spec.numbers[index]: name for index, name in spec.classes.items()}
    if len(codes) < len(spec.classes) or not all(0 < code <= MOST_CODE for code in codes):
        raise ModelError(
            f'The label numbers of the model {path} are not unique integers from 1 to '
            f'{MOST_CODE}.',
            f'Correct them in {spec.config}.',
        )
    table = model_table(codes)
    names = [label.name for label in table]
    for label in table:
        if names.count(label.name) > 1:
            same = [each.source for each in table if each.name == label.name]
            raise ModelError(
                f'The model {path} has {len(same)} classes for the same structure {label.name}: '
                f'{", ".join(same)}.',
                f'Rename those that are not {label.muscle} in {spec.named_in or spec.config}.',
            )
    return ModelBundle(
        path=path.absolute(),
        name=spec.name,
        version=spec.version,
        region=BODY,
        labels=table,
        weights=spec.weights,
        sha256=digest(spec),
        network={},
        spacing_mm=0.0,
        window_px=(1, 1),
        card={
            'external': spec.kind,
            'orientation': spec.orientation,
            'numbers': list(spec.numbers),
            # Files beside the configuration say these; another name, or side, is another result.
            'labels': {str(code): name for code, name in codes.items()},
            'channels': list(spec.channels),
        },
    )


def bundle_for(bundle: ModelBundle, region: str) -> ModelBundle:
    """Return the bundle of a model of another program for the scans of a region.

    Its label maps are called after it.

    Raises
    ------
    ModelError
        If none of its structures lies in the region, or it is for sagittal scans.
    """
    if region == SPINE:
        raise ModelError(
            f'The model {bundle.path} is of another program; only its models for axial scans are '
            'supported.',
            'Use a model of bids_muscle for sagittal scans.',
        )
    table = for_region(bundle.labels, region)
    if table is None:
        raise ModelError(
            f'The model {bundle.path} labels {name_some(each.source for each in bundle.labels)}: '
            f'none of them is a structure of the {region} region.',
            'Use another model with --model, or the right region with --region.',
        )
    return replace(bundle, region=region, labels=replace(table, seg=_seg(bundle)))


def _seg(bundle: ModelBundle) -> str:
    """Return the name of a model as part of a file name, unlike that of any table of ours."""
    name = re.sub('[^0-9A-Za-z]', '', bundle.name) or bundle.card['external'].replace(' ', '')
    return f'{name}model' if name in OWN_SEGMENTATIONS else name


def load_external(bundle: ModelBundle) -> Model:
    """Load a model of another program, without unpickling anything but numbers.

    Raises
    ------
    ModelError
        If the weights cannot be read so, are not all finite, or do not fit the network.
    """
    spec = _read(bundle.path, bundle.card['orientation'])
    networks = [_build(spec).eval() for _ in spec.weights]
    loaded = [load_into(*each, spec) for each in zip(networks, spec.weights, strict=True)]
    procedure = replace(
        spec.procedure,
        orientation=spec.orientation or 'RAS',
        mirrors=spec.mirrors(loaded[0].beside),
    )
    planes, *plane = procedure.window or (1, 1, 1)
    return Model(
        networks=tuple(networks),
        spatial_dims=procedure.spatial_dims,
        numbers=spec.numbers,
        mirrored=_mirrored(spec),
        spacing_mm=(None, None, None),
        channels=spec.channels,
        patch_px=(plane[0], plane[1], planes) if procedure.window else None,
        postprocess=spec.postprocess,
        procedure=procedure,
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


def checksums_beside(path: Path) -> dict[str, str]:
    """Return the SHA-256 of the file that names the classes, by its name from the model on.

    Empty where that is the configuration, which :func:`digest` covers.

    Parameters
    ----------
    path
        As in :func:`read_external`.
    """
    named_in = _described(path).named_in
    return {named_in.relative_to(path).as_posix(): file_sha256(named_in)} if named_in else {}


def _read(path: Path, orientation: str | None) -> Spec:
    return _oriented(_described(path), orientation)


def _described(path: Path) -> Spec:
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path)
    raise ModelError(f'The folder {path} contains no model.', 'Check --model.')


def _oriented(spec: Spec, asked: str | None) -> Spec:
    """Add the voxel order, from the model or from the user."""
    orientation = spec.orientation or asked
    what = f'The {spec.kind} of {spec.config}'
    if orientation is None:
        raise ModelError(
            f'The voxel orientation of the training images is not stated in {what}, so that left '
            'and right are unknown.',
            'Give it with --model-orientation, such as LPS or RAS (nib.aff2axcodes of the affine '
            'of a training image).',
        )
    if not ORIENTATION.fullmatch(orientation):
        raise ModelError(
            f'{what} expects images in the orientation {orientation}.',
            'Use a model for axial slices, with an orientation of three letters: L or R, A or P, '
            'S or I.',
        )
    if asked not in (None, orientation):
        raise ModelError(
            f'{what} states the orientation {orientation}, not {asked}.',
            'Omit --model-orientation.',
        )
    return replace(spec, orientation=orientation)


def _build(spec: Spec) -> nn.Module:
    """Build the network, once its size is known to be sensible."""
    import torch

    with reading(f'The network of {spec.config}', spec.remedy):
        with torch.device('meta'):
            shapes = [each.shape for each in spec.build().state_dict().values()]
        count = sum(math.prod(shape) for shape in shapes)
        if count > MOST_PARAMETERS:
            raise ValueError(f'it has {count:.2g} parameters')
        return spec.build()


def _mirrored(spec: Spec) -> tuple[int, ...] | None:
    """Give the class of the same structure on the other side; None if one has no other side."""
    index_of = {
        (side, structure.name): index
        for index, (side, structure) in ((i, identify(name)) for i, name in spec.classes.items())
    }
    opposite = {'left': 'right', 'right': 'left', UNSIDED: UNSIDED}
    out = list(range(spec.n_classes))
    for (side, name), index in index_of.items():
        if (opposite[side], name) not in index_of:
            return None
        out[index] = index_of[opposite[side], name]
    return tuple(out)
