"""MONAI bundles: ``configs/inference.json``, ``configs/metadata.json`` and ``models/model.pt``.

A bundle may hold Python expressions and name any class; here only plain values are read, and only
for the networks and transforms listed below.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.external.spec import Spec, need, read_json, z_score
from bids_muscle.segmentation.model import ANY, Spacing

if TYPE_CHECKING:
    import torch
    from torch import nn

REMEDY = (
    'Bundles are at github.com/Project-MONAI/model-zoo ("python -m monai.bundle download NAME"); '
    'the folder must hold configs/inference.json, configs/metadata.json and models/model.pt.'
)
#: Networks of MONAI that a bundle may name, and the multiple that extents must have.
NETWORKS = {'UNet': 0, 'BasicUNet': 16, 'SegResNet': 16, 'VNet': 16, 'DynUNet': 32, 'UNETR': 16}
#: Transforms that change no number here, because the predictor does the same or more.
HARMLESS = {
    'LoadImage',
    'EnsureChannelFirst',
    'EnsureType',
    'ToTensor',
    'CropForeground',
    'CastToType',
}


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
    try:
        network = _plain(content['network_def'], content)
        target = str(network.pop('_target_')).rsplit('.', 1)[-1]
        network.pop('_requires_', None)
        if target not in NETWORKS:
            raise ValueError(f'the network {target} is none of {", ".join(NETWORKS)}')
        dims = int(network.get('spatial_dims', 3))
        spacing, normalize = _preprocessing(content, dims)
        inferer = _plain(content.get('inferer', {}), content)
        roi = inferer.get('roi_size')
        formats = metadata['network_data_format']
        named = {int(k): str(v) for k, v in formats['outputs']['pred']['channel_def'].items()}
        channels = _channels(formats['inputs']['image'], int(network.get('in_channels', 1)))
        strides = network.get('strides', [])
        multiple = NETWORKS[target] or 2 ** sum(int(stride) == 2 for stride in strides)
        return Spec(
            kind='MONAI bundle',
            name=str(metadata.get('name', path.name)),
            version=str(metadata.get('version', 'unknown')),
            config=config,
            weights=(weights,),
            build=partial(_build, target, network),
            n_classes=len(named),
            classes={index: name for index, name in named.items() if index > 0},
            spatial_dims=dims,
            spacing_mm=spacing,
            normalize=normalize,
            channels=channels,
            patch_px=(int(roi[0]), int(roi[1]), int(roi[2]) if dims == 3 else 1) if roi else None,
            multiple_px=multiple,
            state=_state,
            remedy=REMEDY,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f'The bundle {path} cannot be used: {error!r}. Only networks, transforms and plain '
            'values that are known here are read, nothing is executed.',
            REMEDY,
        ) from error


def _plain(value: Any, content: Mapping[str, Any]) -> Any:
    """Return a value with references to other plain values filled in; refuse expressions."""
    if isinstance(value, str) and value.startswith('@') and value[1:] in content:
        return _plain(content[value[1:]], content)
    if isinstance(value, str) and value[:1] in ('$', '@', '%'):
        raise ValueError(f'{value} would have to be executed')
    if isinstance(value, dict):
        # The network of an inferer and the device are given by the predictor.
        return {k: _plain(v, content) for k, v in value.items() if k not in ('network', 'device')}
    return [_plain(each, content) for each in value] if isinstance(value, list) else value


def _preprocessing(content: Mapping[str, Any], dims: int) -> tuple[Spacing, Any]:
    spacing: list[float | None] = [None, None, None]
    steps = []
    for raw in content['preprocessing']['transforms']:
        name = str(raw['_target_']).rsplit('.', 1)[-1].removesuffix('d')
        if name in HARMLESS:
            continue
        step = _plain(raw, content)
        if name == 'Orientation' and step['axcodes'] == 'RAS':
            continue
        if name == 'Spacing':
            sizes = [float(size) if size > 0 else None for size in step['pixdim']]
            spacing = [*sizes[:dims], *[None] * (3 - dims)]
        elif name == 'NormalizeIntensity' and not {'subtrahend', 'divisor'} & set(step):
            steps.append(partial(z_score, nonzero=bool(step.get('nonzero', False))))
        elif name in ('ScaleIntensity', 'ScaleIntensityRange', 'ScaleIntensityRangePercentiles'):
            steps.append(partial(_scale, name, step))
        else:
            raise ValueError(f'the transform {name} with {step} is not known')
    return (spacing[0], spacing[1], spacing[2]), partial(_all, steps)


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
