"""MONAI bundles: ``configs/inference.json``, ``configs/metadata.json`` and ``models/model.pt``.

A bundle may hold Python expressions and name any class; here only plain values are read, and only
for the networks and transforms listed below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.external.spec import (
    Spec,
    check_size,
    need,
    read_json,
    reading,
    spacing_of,
    window_of,
    z_score,
)
from bids_muscle.segmentation.model import ANY, Spacing

if TYPE_CHECKING:
    import torch
    from torch import nn

REMEDY = (
    'Only networks, transforms and plain values that are known here are read, nothing is '
    'executed. Bundles are at github.com/Project-MONAI/model-zoo ("python -m monai.bundle '
    'download NAME"); the folder must hold configs/inference.json, configs/metadata.json and '
    'models/model.pt.'
)
#: Networks of MONAI that a bundle may name, and the multiple that extents must have; 0 for the
#: product of its strides.
NETWORKS = {'UNet': 0, 'BasicUNet': 16, 'SegResNet': 16, 'VNet': 16, 'DynUNet': 0, 'UNETR': 16}
#: Transforms that change no number here, because the predictor does the same or more.
HARMLESS = {
    'LoadImage',
    'EnsureChannelFirst',
    'EnsureType',
    'ToTensor',
    'CropForeground',
    'CastToType',
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
            f'{path} has its weights as a program (model.ts), which is not run here.',
            'Ask for the weights as models/model.pt.',
        )
    weights = need(path / 'models/model.pt', REMEDY)
    with reading(f'The bundle {path}', REMEDY):
        values = _Values(content)
        network = values.plain(content['network_def'])
        target = _class_of(network)
        for key in ('_target_', '_requires_', '_disabled_', '_desc_'):
            network.pop(key, None)
        if target not in NETWORKS:
            raise ValueError(f'the network {target} is none of {", ".join(NETWORKS)}')
        check_size(network)
        dims = int(network.get('spatial_dims', 3))
        spacing, orientation, normalize = _preprocessing(content, values, dims)
        _check_postprocessing(content.get('postprocessing'), values)
        patch, overlap, blend = _inferer(values.plain(content.get('inferer', {})), dims)
        formats = metadata['network_data_format']
        named = {int(k): str(v) for k, v in formats['outputs']['pred']['channel_def'].items()}
        n_classes = int(network.get('out_channels', len(named)))
        if sorted(named) != list(range(n_classes)):
            raise ValueError(f'its network has {n_classes} classes, named are {sorted(named)}')
        channels = _channels(formats['inputs']['image'], int(network.get('in_channels', 1)))
        return Spec(
            kind='MONAI bundle',
            name=str(metadata.get('name', path.name)),
            version=str(metadata.get('version', 'unknown')),
            config=config,
            weights=(weights,),
            build=partial(_build, target, network),
            n_classes=n_classes,
            classes={index: name for index, name in named.items() if index > 0},
            spatial_dims=dims,
            spacing_mm=spacing,
            normalize=normalize,
            channels=channels,
            patch_px=patch,
            multiple_px=_multiple(NETWORKS[target], network.get('strides', []), dims),
            overlap=overlap,
            blend=blend,
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
            raise ValueError('its values refer to each other without end')
        if isinstance(value, str) and (found := _REFERENCE.fullmatch(value)):
            return self.plain(self._look_up(found[1], depth), depth + 1)
        if isinstance(value, str) and value[:1] in ('$', '@', '%'):
            raise ValueError(f'{value} would have to be executed')
        if isinstance(value, dict):
            # The network of an inferer and the device are given by the predictor.
            return {
                key: self.plain(each, depth + 1)
                for key, each in value.items()
                if key not in ('network', 'device')
            }
        return (
            [self.plain(each, depth + 1) for each in value] if isinstance(value, list) else value
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
    content: Mapping[str, Any], values: _Values, dims: int
) -> tuple[Spacing, str | None, Any]:
    """Return the pixel size, the voxel order if one is asked for, and the scaling."""
    spacing: list[float | None] = [None, None, None]
    orientation = None
    steps = []
    for raw in content['preprocessing']['transforms']:
        name = _class_of(raw).removesuffix('d')
        if name in HARMLESS:
            continue
        step = values.plain(raw)
        if name == 'Orientation':
            orientation = str(step['axcodes'])
        elif name == 'Spacing':
            sizes = [spacing_of(size) for size in step['pixdim']]
            spacing = [*sizes[:dims], *[None] * (3 - dims)]
        elif name == 'NormalizeIntensity' and not {'subtrahend', 'divisor'} & set(step):
            steps.append(partial(z_score, nonzero=bool(step.get('nonzero', False))))
        elif name in ('ScaleIntensity', 'ScaleIntensityRange', 'ScaleIntensityRangePercentiles'):
            steps.append(partial(_scale, name, step))
        else:
            raise ValueError(f'the transform {name} with {step} is not known')
    return (spacing[0], spacing[1], spacing[2]), orientation, partial(_all, steps)


def _check_postprocessing(post: Any, values: _Values) -> None:
    """Refuse classes that may overlap: each has a probability of its own, not a share of one."""
    steps = values.named(values.named(post or {}).get('transforms', []))
    for step in map(values.named, steps):
        if _class_of(step).startswith('Activations') and step.get('sigmoid', False) is not False:
            raise ValueError('its classes may overlap (sigmoid), a label map has one per voxel')


def _inferer(
    inferer: Mapping[str, Any], dims: int
) -> tuple[tuple[int, int, int] | None, float, str]:
    """Return the window, how much of it the next one covers, and how windows are weighted."""
    if inferer and _class_of(inferer) not in INFERERS:
        raise ValueError(f'the inferer {_class_of(inferer)} is not known')
    overlap, blend = float(inferer.get('overlap', 0.25)), str(inferer.get('mode', 'constant'))
    if blend not in ('constant', 'gaussian') or not 0 <= overlap < 1:
        raise ValueError(f'its windows overlap by {overlap} with weights {blend}')
    roi = inferer.get('roi_size')
    if roi is None:
        return None, overlap, blend
    return window_of((roi if isinstance(roi, list) else [roi] * dims)[:dims]), overlap, blend


def _multiple(known: int, strides: Sequence[Any], dims: int) -> tuple[int, int, int]:
    """Return what the extents (x, y, planes) must be multiples of."""
    steps = [each if isinstance(each, list) else [each] * dims for each in strides]
    axes = [known or math.prod(int(step[axis]) for step in steps) for axis in range(dims)]
    return axes[0], axes[1], axes[2] if dims == 3 else 1


def _all(steps: list[Any], volume: torch.Tensor) -> torch.Tensor:
    for step in steps:
        volume = step(volume)
    return volume


def _scale(name: str, step: Mapping[str, Any], volume: torch.Tensor) -> torch.Tensor:
    """Apply one of MONAI's array transforms to the whole volume."""
    import torch
    from monai import transforms

    options = {
        k: v for k, v in step.items() if k not in ('_target_', 'keys', 'allow_missing_keys')
    }
    return torch.as_tensor(getattr(transforms, name)(**options)(volume))


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
