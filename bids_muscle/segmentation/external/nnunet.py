"""nnU-Net v2: the folder of a training, ``plans.json``, ``dataset.json``, ``fold_*``.

The networks are those of the package ``dynamic-network-architectures`` (extra ``nnunet``); reading
images, resampling, windows and label maps are our own, so that the rest of nnU-Net is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.external.nnunet_steps import (
    mirrors,
    prepare,
    scale_of,
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
from bids_muscle.segmentation.procedure import Procedure, even_starts

if TYPE_CHECKING:
    from torch import nn

REMEDY = (
    'Ask its authors for the whole folder nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION '
    'with plans.json, dataset.json and fold_*/checkpoint_final.pth.'
)
NETWORKS = ('PlainConvUNet', 'ResidualEncoderUNet')
#: The one reader of nnU-Net that turns images to RAS; the others leave them as they are stored.
TURNING_READER = 'NibabelIOWithReorient'
#: How images and logits are resampled where the plan does not say it.
RESAMPLING = 'resample_data_or_seg_to_shape'
DATA: dict[str, Any] = {'order': 3, 'order_z': 0, 'force_separate_z': None}
ANSWER: dict[str, Any] = {'order': 1, 'order_z': 0, 'force_separate_z': None}
#: Field of a checkpoint: axes along which images were mirrored in training.
MIRRORS = 'inference_allowed_mirroring_axes'
#: Share of a window that the next one covers.
OVERLAP = 0.5


def recognises(path: Path) -> bool:
    """Whether the path is the folder of a training."""
    return (path / 'plans.json').is_file()


def read(path: Path) -> Spec:
    """Read the configuration.

    Raises
    ------
    ModelError
        If a file is missing, or the plan asks for something unknown here: labels that are unions,
        a cascade, another network, normalisation or resampling.
    """
    config = path / 'plans.json'
    plans, dataset = (read_json(path / name, REMEDY) for name in ('plans.json', 'dataset.json'))
    # A training on all cases goes beside those of the cross-validation, not with them.
    folds = sorted(path.glob('fold_[0-9]*')) or sorted(path.glob('fold_*')) or [path / 'fold_0']
    weights = tuple(need(fold / 'checkpoint_final.pth', REMEDY) for fold in folds)
    with reading(f'The nnU-Net in {path}', REMEDY):
        name = path.name.rsplit('__', 1)[-1]
        plan = _inherited(plans['configurations'], name)
        if plan.get('previous_stage'):
            raise ValueError(
                f'it is a cascade, which needs the labels of {plan["previous_stage"]}'
            )
        dims = len(plan['patch_size'])
        classes = _classes(dataset['labels'])
        inputs = [str(value).lower() for value in dataset['channel_names'].values()]
        architecture = _architecture(plan, dims)
        return Spec(
            kind='nnU-Net',
            name=f'{dataset.get("name", path.parent.name)} {name}',
            version=str(plans.get('plans_name', 'unknown')),
            config=config,
            named_in=path / 'dataset.json',
            weights=weights,
            build=partial(_build, architecture, inputs=len(inputs), classes=len(classes)),
            n_classes=len(classes),
            classes={index: name for index, name in classes.items() if index > 0},
            procedure=_procedure(plans, plan, len(inputs)),
            channels=(ANY,) if len(inputs) == 1 else tuple(inputs),
            orientation=_orientation(plans, dataset),
            state=_state,
            safe=_numpy_scalars(),
            beside=_beside,
            mirrors=partial(_mirrors, dims=dims),
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


def _procedure(plans: Mapping[str, Any], plan: Mapping[str, Any], channels: int) -> Procedure:
    window, dims = window_of(plan['patch_size']), len(plan['patch_size'])
    spacing = [spacing_of(size) or -1.0 for size in plan['spacing']]
    if min(spacing) < 0 or len(spacing) != dims:
        raise ValueError(f'spacing {plan["spacing"]} for a window {plan["patch_size"]}')
    for what in ('data', 'probabilities'):
        if (way := plan.get(f'resampling_fn_{what}', RESAMPLING)) != RESAMPLING:
            raise ValueError(f'it resamples images with {way}')
    # nnU-Net counts the axes of an array as (z, y, x).
    order = [2 - int(axis) for axis in plans.get('transpose_forward', (0, 1, 2))]
    if sorted(order) != [0, 1, 2]:
        raise ValueError(f'its axes are {plans["transpose_forward"]}')
    schemes = [str(scheme) for scheme in plan['normalization_schemes']]
    masked = list(plan.get('use_mask_for_norm', [False] * channels))
    if not len(schemes) == len(masked) == channels:
        raise ValueError(f'it normalises {len(schemes)} of {channels} channels')
    of_training = plans.get('foreground_intensity_properties_per_channel', {})
    return Procedure(
        prepare=partial(
            prepare,
            axes=(order[0], order[1], order[2]),
            spacing_mm=spacing,
            scales=[
                scale_of(scheme, bool(only), of_training.get(str(place), {}))
                for place, (scheme, only) in enumerate(zip(schemes, masked, strict=True))
            ],
            data=DATA | plan.get('resampling_fn_data_kwargs', {}),
            answer=ANSWER | plan.get('resampling_fn_probabilities_kwargs', {}),
        ),
        window=(1, window[0], window[1]) if dims == 2 else window,
        overlap=OVERLAP,
        starts=even_starts,
        weight=window_weight,
        spatial_dims=dims,
        half=True,
    )


def _classes(labels: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each class; pixels to ignore are none of the network's."""
    unions = [name for name, value in labels.items() if isinstance(value, list)]
    if unions:
        raise ValueError(f'its labels {", ".join(unions)} are regions, unions of others')
    classes = {int(value): str(name) for name, value in labels.items() if name != 'ignore'}
    if sorted(classes) != list(range(len(classes))):
        raise ValueError(f'its labels are numbered {sorted(classes)}, not consecutively from 0')
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
        raise ValueError(f'its network {target} is not one of {", ".join(NETWORKS)}')
    check_size(arguments)
    return {'target': target, 'arguments': arguments, 'imported': imported}


def _beside(loaded: Any) -> dict[str, str]:
    return {MIRRORS: json.dumps(loaded.get(MIRRORS))}


def _mirrors(beside: Mapping[str, str], dims: int) -> tuple[tuple[int, ...], ...]:
    return mirrors(json.loads(beside.get(MIRRORS, 'null')), dims)


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


def _build(architecture: Mapping[str, Any], *, inputs: int, classes: int) -> nn.Module:
    from torch import nn

    try:
        from dynamic_network_architectures.architectures import unet
    except ImportError as error:
        raise ModelError(
            f'The package for nnU-Net models is not installed ({error}).',
            "Install it: pip install 'bids_muscle[nnunet]'",
        ) from error
    arguments = dict(architecture['arguments'])
    for key in architecture['imported']:
        name = arguments[key]
        if name is not None:
            # Names such as torch.nn.modules.conv.Conv3d: only what torch.nn itself has.
            arguments[key] = getattr(nn, str(name).rsplit('.', 1)[-1])
    network: nn.Module = getattr(unet, architecture['target'])(
        input_channels=inputs, num_classes=classes, deep_supervision=False, **arguments
    )
    return network
