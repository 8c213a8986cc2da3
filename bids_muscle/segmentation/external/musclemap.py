"""MuscleMap's models: a ``.pth`` with the weights of a MONAI U-Net and a ``.json`` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.segmentation.external.monai_steps import (
    array_transform,
    prepare,
    window_weight,
)
from bids_muscle.segmentation.external.spec import (
    SAFE,
    Spec,
    check_size,
    need,
    read_json,
    reading,
    spacing_of,
    window_of,
)
from bids_muscle.segmentation.procedure import Procedure, fixed_starts

if TYPE_CHECKING:
    from torch import nn

REMEDY = (
    'Both files of a model are at github.com/MuscleMap/MuscleMap (scripts/models) and in its '
    'releases; put them in one folder.'
)
#: Share of a window that the next one covers, unless set otherwise.
OVERLAP = 0.9
#: Pixels around what is above zero after the z-score, and the least plane, filled with zeros.
MARGIN_PX, LEAST_PX = 20, (256, 256, 1)
#: Structures by their code without its last digit, the side, where the first cards of the whole
#: body (July 2025) have another name: multifidus, as the one of the back.
STRUCTURES = {111: 'semispinalis cervicis and multifidus'}


def recognises(path: Path) -> bool:
    """Whether the path is one of the two files, or a folder with one such pair."""
    return (
        path.suffix == '.pth'
        or (path.suffix == '.json' and path.is_file())
        or _inside(path) is not None
    )


def _inside(path: Path) -> Path | None:
    """Return the weights in the folder of one pair; they may have been converted."""
    if not path.is_dir() or (path / 'plans.json').exists():
        return None
    converted = (each for each in path.glob(f'*{SAFE}') if each.with_suffix('.json').is_file())
    found = [*path.glob('*.pth'), *converted]
    return found[0] if len(found) == 1 else None


def read(path: Path) -> Spec:
    """Read the configuration.

    The image is brought to the pixel size of the model, standardised over all its voxels that are
    not zero and cropped to those above; windows then slide over each slice and their logits are
    added. Of each label the largest piece stays. MuscleMap cuts a scan that does not fit into
    memory into slabs that are standardised on their own; that is not done here.

    Raises
    ------
    ModelError
        If a file is missing or the configuration lacks a field.
    """
    path = _inside(path) or path
    config = path.with_suffix('.json')
    content = read_json(config, REMEDY)
    with reading(f'The MuscleMap model {path}', REMEDY):
        parameters, model = content['parameters'], content['model']
        # A class is the rank of its value among the values of the labels.
        named = {int(entry['value']): _name(entry) for entry in content['labels']}
        strides = [int(stride) for stride in model['strides']]
        if model['norm'] != 'instance' or int(model['in_channels']) != 1:
            raise ValueError('only instance normalisation and one channel are supported')
        n_classes = int(model['out_channels'])
        if len(named) >= n_classes:
            raise ValueError(f'its network has {n_classes} classes, but {len(named)} labels')
        check_size(model)
        build = partial(
            _unet,
            spatial_dims=int(model['spatial_dims']),
            in_channels=1,
            out_channels=n_classes,
            channels=[int(channel) for channel in model['channels']],
            strides=strides,
            num_res_units=int(model['num_res_units']),
            act=str(model['act']),
        )
        return Spec(
            kind='MuscleMap',
            name=path.stem,
            version=str(model.get('version', content.get('version', 'unknown'))),
            config=config,
            weights=(need(path.with_suffix('.pth'), REMEDY),),
            build=build,
            n_classes=n_classes,
            classes=dict(enumerate((named[value] for value in sorted(named)), start=1)),
            codes=dict(enumerate(sorted(named), start=1)),
            procedure=_procedure(parameters, int(model['spatial_dims'])),
            postprocess=('largest-faces',),
            remedy=REMEDY,
        )


def _procedure(parameters: Mapping[str, Any], spatial_dims: int) -> Procedure:
    window = window_of(parameters['roi_size'])
    if spatial_dims != 2 or window[2] != 1:
        raise ValueError('only 2D networks are supported')
    spacing = [spacing_of(size) or -1 for size in parameters['pix_dim']]
    steps = [
        array_transform('Spacing', pixdim=spacing, mode='bilinear'),
        array_transform('NormalizeIntensity', nonzero=True),
        array_transform('CropForeground', margin=MARGIN_PX, allow_smaller=True),
        array_transform('SpatialPad', spatial_size=LEAST_PX, method='end'),
    ]
    return Procedure(
        prepare=partial(prepare, steps, 2),
        window=(1, window[0], window[1]),
        overlap=OVERLAP,
        starts=fixed_starts,
        weight=partial(window_weight, 'gaussian'),
        spatial_dims=2,
    )


def _name(entry: Mapping[str, Any]) -> str:
    """Return side and structure of a class; the code decides where cards disagree on a name."""
    structure = str(entry.get('anatomy', entry.get('structure', '')))
    structure = STRUCTURES.get(int(entry['value']) // 10, structure)
    side = str(entry.get('side', ''))
    return f'{side} {structure}' if side in ('left', 'right') else structure


def _unet(**arguments: Any) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(norm='INSTANCE', **arguments)
