"""Models of nnU-Net, built on the spot with small random weights."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.predictor import Predictor

MakeScan = Callable[..., tuple[nib.Nifti1Image, np.ndarray]]


def nnunet(folder: Path, dims: int, **changes: Any) -> Path:
    """Write the plan of an nnU-Net training of two folds; its weights are not there yet.

    `changes` are those of the configuration, of ``plans`` and of ``dataset``.
    """
    path = folder / f'nnUNetTrainer__nnUNetPlans__{dims}d'
    path.mkdir(parents=True)
    name = f'torch.nn.modules.conv.Conv{dims}d'
    architecture = {
        'network_class_name': 'dynamic_network_architectures.architectures.unet.PlainConvUNet',
        'arch_kwargs': {
            'n_stages': 2,
            'features_per_stage': [4, 8],
            'conv_op': name,
            'kernel_sizes': [[3] * dims] * 2,
            'strides': [[1] * dims, [2] * dims],
            'n_conv_per_stage': [1, 1],
            'n_conv_per_stage_decoder': [1],
            'conv_bias': True,
            'norm_op': f'torch.nn.modules.instancenorm.InstanceNorm{dims}d',
            'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
            'dropout_op': None,
            'dropout_op_kwargs': None,
            'nonlin': 'torch.nn.LeakyReLU',
            'nonlin_kwargs': {'inplace': True},
        },
        '_kw_requires_import': ['conv_op', 'norm_op', 'dropout_op', 'nonlin'],
    }
    plan = {
        'architecture': architecture,
        'patch_size': [4, 24, 16][-dims:],
        'spacing': [5.0, 2.0, 2.5][-dims:],
        'normalization_schemes': ['ZScoreNormalization'],
        'use_mask_for_norm': [False],
    }
    beside = changes.pop('plans', {})
    described = changes.pop('dataset', {'orientation': 'RAS'})
    plan |= changes
    plan = {key: value for key, value in plan.items() if value is not None}
    plans = {'configurations': {'base': plan, f'{dims}d': {'inherits_from': 'base'}}, **beside}
    (path / 'plans.json').write_text(json.dumps(plans))
    labels = {'background': 0, 'psoas left': 1, 'psoas right': 2}
    dataset = {'name': 'Dataset001', 'labels': labels, 'channel_names': {'0': 'T2'}} | described
    (path / 'dataset.json').write_text(json.dumps(dataset))
    for fold in (0, 1):
        (path / f'fold_{fold}').mkdir()
        (path / f'fold_{fold}/checkpoint_final.pth').write_bytes(b'')
    return path


def test_nnunet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'dynamic_network_architectures', None)
    monkeypatch.setitem(sys.modules, 'dynamic_network_architectures.architectures', None)
    bundle = find_model(str(nnunet(tmp_path, 2)), 'lumbar')
    with pytest.raises(ModelError, match=r"pip install 'bids_muscle\[nnunet\]'"):
        load_model(bundle)


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize('dims', [2, 3])
def test_nnunet(tmp_path: Path, make_scan: MakeScan, dims: int, old: bool) -> None:
    unet = pytest.importorskip('dynamic_network_architectures.architectures.unet')
    path = nnunet(tmp_path, dims)
    plans = json.loads((path / 'plans.json').read_text())
    arguments = plans['configurations']['base']['architecture']['arch_kwargs']
    if old:
        # Plans before nnU-Net 2.4, as of TotalSegmentator.
        plans['configurations']['base'] |= {
            'UNet_class_name': 'PlainConvUNet',
            'UNet_base_num_features': 4,
            'unet_max_num_features': 8,
            'n_conv_per_stage_encoder': [1, 1],
            'n_conv_per_stage_decoder': [1],
            'conv_kernel_sizes': [[3] * dims] * 2,
            'pool_op_kernel_sizes': [[1] * dims, [2] * dims],
        }
        del plans['configurations']['base']['architecture']
        (path / 'plans.json').write_text(json.dumps(plans))
    for key in ('conv_op', 'norm_op', 'nonlin'):
        arguments[key] = getattr(torch.nn, arguments[key].rsplit('.', 1)[-1])
    for fold in (0, 1):
        torch.manual_seed(fold)
        network = unet.PlainConvUNet(1, num_classes=3, deep_supervision=True, **arguments)
        checkpoint = {
            'network_weights': network.state_dict(),
            'inference_allowed_mirroring_axes': (dims - 1,),
            'logging': {'ema': [np.float64(0.5), np.float32(1)]},
            'init_args': {'device': torch.device('cuda')},
        }
        torch.save(checkpoint, path / f'fold_{fold}/checkpoint_final.pth')
    bundle = find_model(str(path), 'lumbar')
    model = load_model(bundle)
    assert len(model.networks) == 2
    assert model.numbers == (0, 1, 2)
    assert model.procedure.window == ((1, 24, 16) if dims == 2 else (4, 24, 16))
    assert model.procedure.mirrors == ((2,),)
    image, _ = make_scan((60, 48, 3))
    Predictor(model).segment({'T2w': image})


UNION = {'labels': {'background': 0, 'psoas': [1, 2]}, 'orientation': 'RAS'}
LATE = {'labels': {'background': 0, 'psoas left': 2}, 'orientation': 'RAS'}


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'plans': {'transpose_forward': [1, 0, 0]}}, r'its axes are .1, 0, 0'),
        ({'resampling_fn_data': 'resample_torch'}, 'resamples images with resample_torch'),
        ({'dataset': UNION}, 'labels psoas are regions, unions of others'),
        ({'dataset': LATE}, r'numbered .0, 2., not consecutively from 0'),
        ({'normalization_schemes': ['CTNormalization']}, "lacks 'percentile_00_5'"),
        ({'normalization_schemes': ['OfMyOwn']}, 'normalises images with OfMyOwn'),
        ({'normalization_schemes': ['NoNormalization'] * 2}, 'normalises 2 of 1 channels'),
        ({'previous_stage': '3d_lowres'}, 'is a cascade, which needs the labels of 3d_lowres'),
        ({'architecture': None}, "it lacks 'UNet_class_name'"),
        ({'architecture': {'network_class_name': 'os.system'}}, "it lacks 'arch_kwargs'"),
        ({'patch_size': None}, "it lacks 'patch_size'"),
        ({'spacing': [0.0, 2.0]}, 'pixel size of 0 mm'),
        ({'spacing': [-1, 2.0]}, 'spacing'),
        ({'spacing': [float('nan'), 2.0]}, 'pixel size of nan mm'),
        ({'patch_size': [10**6, 10**6]}, 'window of 1000000x1000000 pixels'),
        ({'inherits_from': '2d'}, 'inherits from itself'),
        ({'inherits_from': 'base'}, 'inherits from itself'),
        ({'dataset': {}}, 'left and right are unknown.*--model-orientation'),
        ({'dataset': {'orientation': 'SPR'}}, 'in the orientation SPR'),
    ],
)
def test_nnunet_that_cannot_be_used_says_why(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        find_model(str(nnunet(tmp_path, 2, **changes)), 'lumbar')


def test_nnunet_without_the_weights_of_a_fold(tmp_path: Path) -> None:
    path = nnunet(tmp_path, 2)
    (path / 'fold_1/checkpoint_final.pth').unlink()
    with pytest.raises(ModelError, match=r'checkpoint_final.pth are missing'):
        find_model(str(path), 'lumbar')


class SideNet(torch.nn.Module):
    """Takes the place of an nnU-Net: its classes depend on where the array begins.

    In an array (z, y, x) it labels where the first channel is larger than the second, in the
    first half of the planes and of the rows; 1 in the first half of the columns, 2 in the other.
    """

    def __init__(self, input_channels: int, num_classes: int, **_: Any) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(num_classes))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:  # noqa: D102
        found = windows[:, 0] > windows[:, 1]
        half = [extent // 2 for extent in found.shape[1:]]
        found[:, half[0] :] = False
        found[:, :, half[1] :] = False
        first = torch.arange(found.shape[3]) < half[2]
        chosen = torch.stack([~found, found & first, found & ~first], dim=1)
        return 50.0 * chosen * self.scale[:, None, None, None]


@pytest.mark.parametrize('declared', [True, False])
@pytest.mark.parametrize('order', ['RAS', 'LAS', 'LPS', 'RPI', 'LAI'])
def test_nnunet_sees_the_voxel_order_of_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, declared: bool
) -> None:
    package = 'dynamic_network_architectures'
    stand_in = types.ModuleType('unet')
    stand_in.PlainConvUNet = SideNet  # type: ignore[attr-defined]
    architectures = types.ModuleType('architectures')
    architectures.unet = stand_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, f'{package}.architectures', architectures)
    dataset = {'channel_names': {'0': 'Water', '1': 'fat'}} | (
        {'orientation': order} if declared else {}
    )
    path = nnunet(
        tmp_path,
        3,
        patch_size=[4, 12, 10],
        spacing=[5.0, 4.0, 4.0],
        normalization_schemes=['NoNormalization'] * 2,
        use_mask_for_norm=[False] * 2,
        dataset=dataset,
    )
    for fold in (0, 1):
        state = {'network_weights': {'scale': torch.ones(3)}}
        torch.save(state, path / f'fold_{fold}/checkpoint_final.pth')
    # A scan in the order of the training files, and what the network says of it as it is stored.
    rng = np.random.default_rng(0)
    water, fat = rng.uniform(0, 1, (2, 10, 12, 4)).astype(np.float32)
    arrays = torch.from_numpy(np.stack([water, fat])).permute(0, 3, 2, 1)[None]
    stored = SideNet(2, 3)(arrays)[0].argmax(0).permute(2, 1, 0).numpy()
    assert set(np.unique(stored)) == {0, 1, 2}
    ornt = nib.orientations.axcodes2ornt(order)

    def turned(values: np.ndarray) -> np.ndarray:
        return np.asarray(nib.orientations.apply_orientation(values, ornt))

    affine = np.diag([4, 4, 5, 1.0])
    images = {
        name: nib.Nifti1Image(turned(values), affine)
        for name, values in (('water', water), ('fat', fat))
    }
    model = load_model(find_model(str(path), 'lumbar', None if declared else order))
    found = Predictor(replace(model, postprocess=())).segment(images)
    # The numbers are those of the model.
    expected = turned(stored)
    assert np.array_equal(np.asarray(found.labels.dataobj), expected)


def test_a_voxel_order_against_that_of_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'orientation RAS, not LPS. Omit --model-orientation'):
        find_model(str(nnunet(tmp_path, 2)), 'lumbar', 'LPS')
    with pytest.raises(ModelError, match='Omit --model-orientation'):
        find_model('lumbar', 'lumbar', 'LPS')
    turning = {'image_reader_writer': 'NibabelIOWithReorient'}
    path = nnunet(tmp_path / 'more', 2, plans=turning, dataset={'orientation': 'LPS'})
    assert find_model(str(path), 'lumbar').card['orientation'] == 'RAS'
