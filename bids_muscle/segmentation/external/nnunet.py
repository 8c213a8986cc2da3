"""nnU-Net v2: the folder of a training, ``plans.json``, ``dataset.json``, ``fold_*``.

The networks are those of the package ``dynamic-network-architectures`` (extra ``nnunet``); reading
images, resampling, windows and label maps are our own, so that the rest of nnU-Net is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from bids_muscle.segmentation.model import ANY

if TYPE_CHECKING:
    import torch
    from torch import nn

REMEDY = (
    'Ask those who trained it for the whole folder '
    'nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION with plans.json, dataset.json and '
    'fold_*/checkpoint_final.pth.'
)
NETWORKS = ('PlainConvUNet', 'ResidualEncoderUNet')
#: The one reader of nnU-Net that turns images to RAS; the others leave them as they are stored.
TURNING_READER = 'NibabelIOWithReorient'


def recognises(path: Path) -> bool:
    """Whether the path is the folder of a training."""
    return (path / 'plans.json').is_file()


def read(path: Path) -> Spec:
    """Read the configuration.

    Raises
    ------
    ModelError
        If a file is missing, or the plan asks for something unknown here: axes in another order,
        labels that are unions, a cascade, another network or normalisation.
    """
    config = path / 'plans.json'
    plans, dataset = (read_json(path / name, REMEDY) for name in ('plans.json', 'dataset.json'))
    folds = sorted(path.glob('fold_*')) or [path / 'fold_0']
    weights = tuple(need(fold / 'checkpoint_final.pth', REMEDY) for fold in folds)
    with reading(f'The nnU-Net in {path}', REMEDY):
        name = path.name.rsplit('__', 1)[-1]
        plan = _inherited(plans['configurations'], name)
        _check_known(plans, plan)
        # nnU-Net counts the axes of an array as (z, y, x).
        patch = window_of(plan['patch_size'][::-1])
        dims = len(plan['patch_size'])
        spacing = [spacing_of(size) for size in plan['spacing'][::-1]]
        if None in spacing or len(spacing) != dims:
            raise ValueError(f'spacing {plan["spacing"]} for a window {plan["patch_size"]}')
        classes = _classes(dataset['labels'])
        inputs = [str(value).lower() for value in dataset['channel_names'].values()]
        unchanged = plan['normalization_schemes'][0] == 'NoNormalization'
        scale = partial(z_score, nonzero=any(plan.get('use_mask_for_norm', [])))
        architecture = _architecture(plan, dims)
        return Spec(
            kind='nnU-Net',
            name=f'{dataset.get("name", path.parent.name)} {name}',
            version=str(plans.get('plans_name', 'unknown')),
            config=config,
            weights=weights,
            build=partial(
                _build, architecture, inputs=len(inputs), classes=len(classes), dims=dims
            ),
            n_classes=len(classes),
            classes={index: name for index, name in classes.items() if index > 0},
            spatial_dims=dims,
            spacing_mm=(spacing[0], spacing[1], spacing[2] if dims == 3 else None),
            normalize=_unchanged if unchanged else scale,
            channels=(ANY,) if len(inputs) == 1 else tuple(inputs),
            patch_px=patch,
            orientation=_orientation(plans, dataset),
            state=_state,
            safe=_numpy_scalars(),
            remedy=REMEDY,
        )


def _inherited(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with what it takes from those that it is made from."""
    plan: dict[str, Any] = {}
    seen: set[str] = set()
    while name:
        if name in seen:
            raise ValueError(f'the configuration {name} inherits from itself')
        seen.add(name)
        plan = {**configurations[name], **plan}
        name = configurations[name].get('inherits_from')
    return plan


def _check_known(plans: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Refuse what would be done otherwise here."""
    order = plans.get('transpose_forward', [0, 1, 2])
    if order != sorted(order):
        raise ValueError(f'it works on axes in another order (transpose_forward {order})')
    if plan.get('previous_stage'):
        raise ValueError(f'it is a cascade: it needs the labels of {plan["previous_stage"]}')
    schemes = set(plan['normalization_schemes'])
    unknown = sorted(schemes - {'ZScoreNormalization', 'NoNormalization'})
    if unknown:
        ct = ', which is for CT' if unknown == ['CTNormalization'] else ''
        raise ValueError(f'it scales images by {", ".join(unknown)}{ct}')
    if len(schemes) != 1:
        raise ValueError('it scales its images in different ways')


def _classes(labels: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each class; pixels to ignore are none of the network's."""
    unions = [name for name, value in labels.items() if isinstance(value, list)]
    if unions:
        raise ValueError(f'its labels {", ".join(unions)} are regions, unions of others')
    classes = {int(value): str(name) for name, value in labels.items() if name != 'ignore'}
    if sorted(classes) != list(range(len(classes))):
        raise ValueError(f'its labels are numbered {sorted(classes)}, not from 0 on')
    return classes


def _orientation(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> str | None:
    """Return the voxel order of what the network sees, None where nothing tells it."""
    reader = plans.get('image_reader_writer', dataset.get('overwrite_image_reader_writer'))
    if reader == TURNING_READER:
        return 'RAS'  # however the files are stored
    return str(dataset['orientation']).upper() if 'orientation' in dataset else None


def _architecture(plan: Mapping[str, Any], dims: int) -> dict[str, Any]:
    """Return the class of the network and its arguments, from plans of any age.

    Plans before nnU-Net 2.4 have them as fields of the configuration.
    """
    if 'architecture' in plan:
        target = str(plan['architecture']['network_class_name']).rsplit('.', 1)[-1]
        arguments = dict(plan['architecture']['arch_kwargs'])
        imported = list(plan['architecture'].get('_kw_requires_import', ()))
    else:
        target = str(plan['UNet_class_name'])
        per_stage = plan['n_conv_per_stage_encoder']
        base, most = int(plan['UNet_base_num_features']), int(plan['unet_max_num_features'])
        blocks = 'n_blocks_per_stage' if 'Residual' in target else 'n_conv_per_stage'
        check_size(per_stage)
        arguments = {
            'n_stages': len(per_stage),
            'features_per_stage': [min(base * 2**stage, most) for stage in range(len(per_stage))],
            'conv_op': f'Conv{dims}d',
            'kernel_sizes': plan['conv_kernel_sizes'],
            'strides': plan['pool_op_kernel_sizes'],
            blocks: per_stage,
            'n_conv_per_stage_decoder': plan['n_conv_per_stage_decoder'],
            'conv_bias': True,
            'norm_op': f'InstanceNorm{dims}d',
            'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
            'dropout_op': None,
            'dropout_op_kwargs': None,
            'nonlin': 'LeakyReLU',
            'nonlin_kwargs': {'inplace': True},
        }
        imported = ['conv_op', 'norm_op', 'nonlin']
    if target not in NETWORKS:
        raise ValueError(f'its network {target} is none of {", ".join(NETWORKS)}')
    check_size(arguments)
    return {'target': target, 'arguments': arguments, 'imported': imported}


def _unchanged(volume: torch.Tensor) -> torch.Tensor:
    return volume


def _state(loaded: Any) -> Mapping[str, Any]:
    weights: Mapping[str, Any] = loaded['network_weights']
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def _numpy_scalars() -> tuple[Any, ...]:
    """Types of the numbers in the training log that a checkpoint also holds."""
    import numpy as np

    kinds = [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8')]
    # The function that rebuilds a scalar; NumPy has no public name for it.
    rebuild = np.float64(0).__reduce__()[0]
    return (rebuild, np.dtype, *kinds)


def _build(architecture: Mapping[str, Any], *, inputs: int, classes: int, dims: int) -> nn.Module:
    from torch import nn

    try:
        from dynamic_network_architectures.architectures import unet
    except ImportError as error:
        raise ModelError(
            f'nnU-Net models need a package that is not installed ({error}).',
            "Install it with: pip install 'bids_muscle[nnunet]'",
        ) from error
    arguments = dict(architecture['arguments'])
    for key in architecture['imported']:
        name = arguments[key]
        if name is not None:
            # Names such as torch.nn.modules.conv.Conv3d: only what torch.nn itself has.
            arguments[key] = getattr(nn, str(name).rsplit('.', 1)[-1])

    class Turned(nn.Module):
        """The network in our order of axes."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = getattr(unet, architecture['target'])(
                input_channels=inputs, num_classes=classes, deep_supervision=False, **arguments
            )

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            order = (0, 1, *range(dims + 1, 1, -1))
            return self.inner(windows.permute(order)).permute(order)

        def load_state_dict(self, state: Mapping[str, Any], **options: Any) -> Any:  # type: ignore[override]
            return self.inner.load_state_dict(state, **options)

    return Turned()
