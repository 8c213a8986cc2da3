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
from bids_muscle.segmentation.external.spec import Spec, need, read_json, z_score
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


def recognises(path: Path) -> bool:
    """Whether the path is the folder of a training."""
    return (path / 'plans.json').is_file()


def read(path: Path) -> Spec:
    """Read the configuration.

    Raises
    ------
    ModelError
        If a file is missing, or the plan asks for something unknown here: axes in another order,
        labels that are unions, a cascade, another network.
    """
    config = path / 'plans.json'
    plans, dataset = (read_json(path / name, REMEDY) for name in ('plans.json', 'dataset.json'))
    folds = sorted(path.glob('fold_*')) or [path / 'fold_0']
    weights = tuple(need(fold / 'checkpoint_final.pth', REMEDY) for fold in folds)
    try:
        name = path.name.rsplit('__', 1)[-1]
        plan = _inherited(plans['configurations'], name)
        if plans.get('transpose_forward', [0, 1, 2]) != [0, 1, 2]:
            raise ValueError('axes in another order')
        architecture = plan['architecture']
        target = architecture['network_class_name'].rsplit('.', 1)[-1]
        if target not in NETWORKS:
            raise ValueError(f'the network {target} is none of {", ".join(NETWORKS)}')
        # nnU-Net counts the axes of an array as (z, y, x).
        patch = [int(extent) for extent in plan['patch_size']][::-1]
        spacing = [float(size) for size in plan['spacing']][::-1]
        dims = len(patch)
        labels = {str(k): int(v) for k, v in dataset['labels'].items()}
        inputs = [str(value).lower() for value in dataset['channel_names'].values()]
        schemes = set(plan['normalization_schemes'])
        if schemes - {'ZScoreNormalization', 'NoNormalization'} or len(schemes) != 1:
            raise ValueError(f'the normalisation {", ".join(sorted(schemes))}')
        scale = partial(z_score, nonzero=any(plan.get('use_mask_for_norm', [])))
        return Spec(
            kind='nnU-Net',
            name=f'{dataset.get("name", path.parent.name)} {name}',
            version=str(plans.get('plans_name', 'unknown')),
            config=config,
            weights=weights,
            build=partial(
                _build, target, architecture, inputs=len(inputs), classes=len(labels), dims=dims
            ),
            n_classes=len(labels),
            classes={index: name for name, index in labels.items() if index > 0},
            spatial_dims=dims,
            spacing_mm=(spacing[0], spacing[1], spacing[2] if dims == 3 else None),
            normalize=_unchanged if schemes == {'NoNormalization'} else scale,
            channels=(ANY,) if len(inputs) == 1 else tuple(inputs),
            patch_px=(patch[0], patch[1], patch[2] if dims == 3 else 1),
            state=_state,
            safe=_numpy_scalars(),
            remedy=REMEDY,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f'The nnU-Net in {path} cannot be used: {error!r}.', REMEDY) from error


def _inherited(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    plan = dict(configurations[name])
    parent = plan.get('inherits_from')
    return {**_inherited(configurations, parent), **plan} if parent else plan


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


def _build(
    target: str, architecture: Mapping[str, Any], *, inputs: int, classes: int, dims: int
) -> nn.Module:
    from torch import nn

    try:
        from dynamic_network_architectures.architectures import unet
    except ImportError as error:
        raise ModelError(
            f'nnU-Net models need a package that is not installed ({error}).',
            "Install it with: pip install 'bids_muscle[nnunet]'",
        ) from error
    arguments = dict(architecture['arch_kwargs'])
    for key in architecture.get('_kw_requires_import', ()):
        name = arguments[key]
        if name is not None:
            # Names such as torch.nn.modules.conv.Conv3d: only what torch.nn itself has.
            arguments[key] = getattr(nn, str(name).rsplit('.', 1)[-1])

    class Turned(nn.Module):
        """The network in our order of axes."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = getattr(unet, target)(
                input_channels=inputs, num_classes=classes, deep_supervision=False, **arguments
            )

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            order = (0, 1, *range(dims + 1, 1, -1))
            return self.inner(windows.permute(order)).permute(order)

        def load_state_dict(self, state: Mapping[str, Any], **options: Any) -> Any:  # type: ignore[override]
            return self.inner.load_state_dict(state, **options)

    return Turned()
