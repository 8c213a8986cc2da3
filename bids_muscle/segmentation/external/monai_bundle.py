"""MONAI bundles: ``configs/inference.json``, ``configs/metadata.json`` and ``models/model.pt``.

A bundle may hold Python expressions and name any class; here only plain values are read, and only
for the networks and transforms listed below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.external.monai_steps import (
    Transform,
    array_transform,
    prepare,
    window_weight,
)
from bids_muscle.segmentation.external.spec import (
    Spec,
    check_size,
    need,
    read_json,
    reading,
    spacing_of,
    window_of,
)
from bids_muscle.segmentation.model import ANY
from bids_muscle.segmentation.procedure import Procedure, fixed_starts

if TYPE_CHECKING:
    from torch import nn

REMEDY = (
    'Only known networks, transforms and plain values are read; no code of a bundle is executed. '
    'Bundles are at github.com/Project-MONAI/model-zoo ("python -m monai.bundle download NAME"); '
    'the folder must contain configs/inference.json, configs/metadata.json and models/model.pt.'
)
#: Networks of MONAI that a bundle may name.
NETWORKS = {'UNet', 'BasicUNet', 'SegResNet', 'VNet', 'DynUNet', 'UNETR'}
#: Transforms that change no number.
HARMLESS = {
    'LoadImage',
    'EnsureChannelFirst',
    'EnsureType',
    'ToTensor',
    'CastToType',
    'DeleteItems',
    'SaveImage',
    'SelectItems',
}
#: Transforms before the network that MONAI itself applies, with plain values.
STEPS = {
    'Spacing',
    'NormalizeIntensity',
    'ScaleIntensity',
    'ScaleIntensityRange',
    'ScaleIntensityRangePercentiles',
    'ClipIntensityPercentiles',
    'ThresholdIntensity',
    'CropForeground',
    'CenterSpatialCrop',
    'SpatialPad',
    'DivisiblePad',
    'BorderPad',
    'ResizeWithPadOrCrop',
}
#: Options that have a value for each key of the dictionary form.
OF_KEYS = {'mode', 'padding_mode', 'align_corners', 'dtype', 'scale_extent'}
#: Fields of the dictionary form of a transform that its array form does not have.
OF_DICTIONARIES = {
    '_target_',
    '_disabled_',
    '_desc_',
    'keys',
    'source_key',
    'allow_missing_keys',
    'start_coord_key',
    'end_coord_key',
}
INFERERS = {'SlidingWindowInferer', 'SlidingWindowInfererAdapt', 'SliceInferer', 'SimpleInferer'}
#: Values that may be filled in for references; a few lines that refer to each other would
#: otherwise fill the memory.
MOST_VALUES = 10_000
_REFERENCE = re.compile(r'\$?@([\w#:]+)')


def recognises(path: Path) -> bool:
    """Whether the path is the folder of a bundle."""
    return (path / 'configs').is_dir()


def read(path: Path) -> Spec:
    """Read the configuration.

    Raises
    ------
    ModelError
        If a file is missing, or the bundle asks for something that is not in the lists above.
    """
    config = path / 'configs/inference.json'
    content = read_json(config, REMEDY)
    metadata = read_json(path / 'configs/metadata.json', REMEDY)
    if (path / 'models/model.ts').is_file() and not (path / 'models/model.pt').is_file():
        raise ModelError(
            f'The weights of {path} are a TorchScript program (model.ts), which bids_muscle does '
            'not run.',
            'Ask its authors for the weights as models/model.pt.',
        )
    weights = need(path / 'models/model.pt', REMEDY)
    with reading(f'The bundle {path}', REMEDY):
        values = _Values(content)
        network = values.plain(content['network_def'])
        target = _class_of(network)
        for key in ('_target_', '_requires_', '_disabled_', '_desc_'):
            network.pop(key, None)
        if target not in NETWORKS:
            raise ValueError(f'the network {target} is not one of {", ".join(NETWORKS)}')
        check_size(network)
        dims = int(network.get('spatial_dims', 3))
        steps, orientation = _preprocessing(content, values)
        shares, nearest, cleaning = _postprocessing(content.get('postprocessing'), values)
        procedure = _procedure(values.plain(content.get('inferer', {})), dims, steps)
        formats = metadata['network_data_format']
        named = {int(k): str(v) for k, v in formats['outputs']['pred']['channel_def'].items()}
        n_classes = int(network.get('out_channels', len(named)))
        if sorted(named) != list(range(n_classes)):
            raise ValueError(
                f'its network has {n_classes} classes, but the named ones are {sorted(named)}'
            )
        channels = _channels(formats['inputs']['image'], int(network.get('in_channels', 1)))
        return Spec(
            kind='MONAI bundle',
            name=str(metadata.get('name', path.name)),
            version=str(metadata.get('version', 'unknown')),
            config=config,
            named_in=path / 'configs/metadata.json',
            weights=(weights,),
            build=partial(_build, target, network),
            n_classes=n_classes,
            classes={index: name for index, name in named.items() if index > 0},
            procedure=replace(procedure, shares=shares, nearest=nearest),
            channels=channels,
            postprocess=cleaning,
            orientation=orientation,
            state=_state,
            remedy=REMEDY,
        )


class _Values:
    """Plain values of a configuration, with references to other plain values filled in."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.left = MOST_VALUES

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return a value; refuse expressions."""
        self.left -= 1
        if self.left < 0 or depth > 100:
            raise ValueError('its values refer to each other in a circle')
        if isinstance(value, str) and (found := _REFERENCE.fullmatch(value)):
            return self.plain(self._look_up(found[1], depth), depth + 1)
        if isinstance(value, str) and value[:1] in ('$', '@', '%'):
            raise ValueError(f'{value} is code that would have to be executed')
        if isinstance(value, dict):
            # The network of an inferer and the device are given by the predictor.
            return {
                key: self.plain(item, depth + 1)
                for key, item in value.items()
                if key not in ('network', 'device')
            }
        return (
            [self.plain(item, depth + 1) for item in value] if isinstance(value, list) else value
        )

    def named(self, value: Any) -> Any:
        """Return what a reference names; leave anything else as it is, unread."""
        return self.plain(value) if isinstance(value, str) else value

    def _look_up(self, reference: str, depth: int) -> Any:
        """Return what ``a#b#0`` or ``a::b::0`` names, itself perhaps by other references."""
        value: Any = self.content
        for part in re.split('#|::', reference):
            if isinstance(value, str):
                value = self.plain(value, depth + 1)
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value


def _class_of(step: Mapping[str, Any]) -> str:
    return str(step['_target_']).rsplit('.', 1)[-1]


def _preprocessing(
    content: Mapping[str, Any], values: _Values
) -> tuple[list[Transform], str | None]:
    """Return the transforms before the network, and the voxel order if one is asked for."""
    orientation = None
    steps: list[Transform] = []
    spacings = 0
    for raw in content['preprocessing']['transforms']:
        name = _class_of(raw).removesuffix('d')
        if name in HARMLESS or raw.get('_disabled_') is True:
            continue
        step = values.plain(raw)
        if name == 'Orientation':
            orientation = str(step['axcodes'])
        elif name in STEPS:
            if name == 'Spacing':
                spacings += 1
                for size in step['pixdim']:
                    spacing_of(size)
            # A transform of one key may have its options in lists.
            options = {
                key: _first(value) if key in OF_KEYS else value
                for key, value in step.items()
                if key not in OF_DICTIONARIES
            }
            steps.append(array_transform(name, **options))
        else:
            raise ValueError(f'the transform {name} with {step} is not supported')
    if spacings > 1:
        raise ValueError('it resamples twice')
    return steps, orientation


def _postprocessing(post: Any, values: _Values) -> tuple[bool, bool, tuple[str, ...]]:
    """Return whether shares and whether the nearest are brought back, and the steps of the map.

    Classes may be brought back as logits, as shares of one, or, where the largest is taken before
    the way back or the way back takes the nearest pixel, as they are.
    """
    shares, nearest, taken = False, True, False
    cleaning: list[str] = []
    for raw in map(values.named, values.named(values.named(post or {}).get('transforms', []))):
        name = _class_of(raw).removesuffix('d')
        if name in HARMLESS or raw.get('_disabled_') is True:
            continue
        if name == 'Invert':
            # The transform that it inverts is the one before the network, known already.
            nearest = taken or bool(_first(values.plain(raw.get('nearest_interp', True))))
            continue
        step = values.plain(raw)
        if _first(step.get('sigmoid', False)):
            raise ValueError(
                'its classes may overlap (sigmoid), but a label map has one class per voxel'
            )
        if name == 'Activations':
            shares = bool(_first(step.get('softmax', False)))
        elif name == 'AsDiscrete' and _first(step.get('argmax', False)):
            taken = True
        elif name == 'KeepLargestConnectedComponent' and set(step) <= {'_target_', 'keys'}:
            cleaning.append('largest')
        else:
            raise ValueError(f'the transform {name} with {step} is not supported')
    return shares and not nearest, nearest, tuple(cleaning)


def _first(value: Any) -> Any:
    """Return an option of the one key that a transform is applied to."""
    return value[0] if isinstance(value, list) and value else value


def _procedure(inferer: Mapping[str, Any], dims: int, steps: list[Transform]) -> Procedure:
    """Return how windows are laid, and what goes before them."""
    kind = _class_of(inferer) if inferer else 'SimpleInferer'
    if kind not in INFERERS:
        raise ValueError(f'the inferer {kind} is not supported')
    overlap, mode = float(inferer.get('overlap', 0.25)), str(inferer.get('mode', 'constant'))
    if mode not in ('constant', 'gaussian') or not 0 <= overlap < 1:
        raise ValueError(f'its windows overlap by {overlap} with the weighting {mode}')
    planes_axis = int(inferer.get('spatial_dim', 0)) if kind == 'SliceInferer' else 2
    if planes_axis not in (0, 1, 2):
        raise ValueError(f'it uses slices along axis {planes_axis}')
    roi = inferer.get('roi_size')
    window = window_of((roi if isinstance(roi, list) else [roi] * dims)[:dims]) if roi else None
    return Procedure(
        prepare=partial(prepare, steps, planes_axis),
        # From (x, y, planes).
        window=(window[2], window[0], window[1]) if window else None,
        overlap=overlap,
        starts=fixed_starts,
        weight=partial(window_weight, mode),
        spatial_dims=dims,
        planes_last=dims == 3,
    )


def _channels(image: Mapping[str, Any], count: int) -> tuple[str, ...]:
    if count == 1:
        return (ANY,)
    named = image['channel_def']
    return tuple(str(named[str(index)]).lower() for index in range(count))


def _build(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    from monai.networks import nets

    network: nn.Module = getattr(nets, target)(**arguments)
    return network


def _state(loaded: Any) -> Mapping[str, Any]:
    for key in ('model', 'state_dict', 'network'):
        if isinstance(loaded.get(key), Mapping):
            return _state(loaded[key])
    state: Mapping[str, Any] = loaded
    return state
