"""Models of other programs, built on the spot with small random or trained weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SliceInferer
from monai.networks.nets import UNet
from monai.transforms import NormalizeIntensity

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.bundle import find_model
from bids_muscle.segmentation.model import load_model
from bids_muscle.segmentation.predictor import Predictor

MakeScan = Callable[..., tuple[nib.Nifti1Image, np.ndarray]]
MUSCLES = ('multifidus', 'erector spinae', 'psoas major', 'quadratus lumborum')
SIDED = [(muscle, side) for muscle in MUSCLES for side in ('right', 'left')]


def musclemap(folder: Path, network: torch.nn.Module | None = None, **parameters: Any) -> Path:
    """Write a MuscleMap model as in its repository; the values are codes, not classes."""
    folder.mkdir(exist_ok=True)
    shape = {
        'spatial_dims': 2,
        'in_channels': 1,
        'out_channels': 9,
        'channels': [4, 8],
        'strides': [2],
        'act': 'LeakyReLU',
        'num_res_units': 1,
    }
    network = network or UNet(**shape, norm='INSTANCE')
    # Out of order, and a region in front, as in the whole-body model.
    labels = [
        {'region': 'abdomen', 'anatomy': muscle, 'side': side, 'value': 5100 + 10 * place}
        for place, (muscle, side) in enumerate(SIDED)
    ]
    card = {
        'parameters': {'roi_size': [32, 32], 'pix_dim': [2, 2, -1], **parameters},
        'model': {**shape, 'norm': 'instance'},
        'labels': labels[::-1],
    }
    (folder / 'abdomen.json').write_text(json.dumps(card))
    torch.save(network.state_dict(), folder / 'abdomen.pth')
    return folder / 'abdomen.pth'


def monai_bundle(folder: Path, **changes: Any) -> Path:
    """Write a MONAI bundle with a network in 3-D."""
    network = {'spatial_dims': 3, 'in_channels': 1, 'out_channels': 3, 'channels': [4, 8]}
    network |= {'strides': [2], 'num_res_units': 1}
    inference = {
        'imports': ['$import os'],
        'output_dir': '$os.getcwd()',
        'patch': [16, 16, 4],
        'network_def': {'_target_': 'UNet', **network},
        'preprocessing': {
            '_target_': 'Compose',
            'transforms': [
                {'_target_': 'LoadImaged', 'keys': '@image_key'},
                {'_target_': 'Orientationd', 'keys': 'image', 'axcodes': 'RAS'},
                {'_target_': 'Spacingd', 'keys': 'image', 'pixdim': [2.0, 2.0, 5.0]},
                {'_target_': 'NormalizeIntensityd', 'keys': 'image', 'nonzero': True},
            ],
        },
        'inferer': {
            '_target_': 'SlidingWindowInferer',
            'roi_size': '@patch',
            'device': '$torch.device(0)',
        },
        **changes,
    }
    names = {'0': 'background', '1': 'Erector_spinae_L', '2': 'R erector spinae'}
    formats = {'inputs': {'image': {}}, 'outputs': {'pred': {'channel_def': names}}}
    (folder / 'configs').mkdir(parents=True)
    (folder / 'models').mkdir()
    (folder / 'configs/inference.json').write_text(json.dumps(inference))
    metadata = {'version': '1.2', 'network_data_format': formats}
    (folder / 'configs/metadata.json').write_text(json.dumps(metadata))
    torch.save({'model': UNet(**network).state_dict()}, folder / 'models/model.pt')
    return folder


@pytest.mark.parametrize(('extent', 'least'), [((32, 32), 1.0), ((80, 64), 0.95)])
def test_musclemap_gives_what_monai_gives(
    tmp_path: Path, extent: tuple[int, int], least: float
) -> None:
    """MuscleMap's own steps: z-score of what is not zero, windows over slices, arg-max of logits.

    Windows that overlap are added as probabilities here and as logits there.
    """
    torch.manual_seed(3)
    network = UNet(2, 1, 9, (4, 8), (2,), num_res_units=1, act='LeakyReLU', norm='INSTANCE')
    bundle = find_model(str(musclemap(tmp_path, network)), 'lumbar')
    assert (bundle.name, bundle.card['external']) == ('abdomen', 'MuscleMap')
    values = np.random.default_rng(0).gamma(2, 100, (*extent, 3)).astype(np.float32)
    values[:5] = 0
    z_scored = NormalizeIntensity(nonzero=True)(torch.from_numpy(values)[None])
    infer = SliceInferer(roi_size=(32, 32), spatial_dim=2, mode='gaussian', overlap=0.5)
    with torch.no_grad():
        theirs = infer(z_scored[None], network)[0].argmax(0).numpy()
    image = nib.Nifti1Image(values, np.diag([2, 2, 4, 1.0]))
    raw = replace(load_model(bundle), postprocess=())
    ours = np.asarray(Predictor(raw).segment({'T2w': image}).labels.dataobj)
    assert len(np.unique(ours)) > 2
    assert np.mean(ours == theirs) >= least


def test_sides_and_classes_of_musclemap(tmp_path: Path) -> None:
    model = load_model(find_model(str(musclemap(tmp_path)), 'lumbar'))
    assert model.numbers == tuple(range(9))
    assert model.mirrored == (0, 2, 1, 4, 3, 6, 5, 8, 7)
    assert model.spacing_mm == (2.0, 2.0, None)


#: Structures and codes of MuscleMap's whole-body cards: the first ones, and those of today.
FIRST = {'multifidus': 1110, 'levator': 1100, 'multifidus ': 5100, 'erector spinae': 5110}
TODAY = {
    'semispinalis cervicis and multifidus': 1110,
    'longus colli': 1150,
    'thoracolumbar multifidus': 5100,
    'psoas major': 5120,
    'gluteus maximus': 6120,
}


def whole_body(folder: Path, structures: dict[str, int]) -> Path:
    """Write a MuscleMap model whose labels have codes: structure, then 1 left or 2 right."""
    labels = [
        {'anatomy': anatomy.strip(), 'side': side, 'value': code + place}
        for anatomy, code in structures.items()
        for place, side in enumerate(('left', 'right'), start=1)
    ]
    labels.append({'anatomy': 'sacrum', 'side': 'no side', 'value': 6160})
    path = musclemap(folder)
    card = json.loads(path.with_suffix('.json').read_text())
    card['model'] |= {'out_channels': len(labels) + 1, 'version': 1.2}
    path.with_suffix('.json').write_text(json.dumps({**card, 'labels': labels}))
    return path


@pytest.mark.parametrize(
    ('structures', 'region', 'found'),
    [
        (FIRST, 'lumbar', {5101: 2, 5102: 1, 5111: 4, 5112: 3}),
        (FIRST, 'cervical', {1101: 14, 1102: 13, 1111: 2, 1112: 1}),
        (TODAY, 'lumbar', {5101: 2, 5102: 1, 5121: 6, 5122: 5}),
        (TODAY, 'cervical', {1111: 2, 1112: 1, 1151: 4, 1152: 3}),
    ],
)
def test_codes_and_synonyms_of_the_whole_body(
    tmp_path: Path, structures: dict[str, int], region: str, found: dict[int, int]
) -> None:
    bundle = find_model(str(whole_body(tmp_path, structures)), region)
    codes = sorted([*(c + side for c in structures.values() for side in (1, 2)), 6160])
    assert bundle.card['numbers'] == [0, *(found.get(code, 0) for code in codes)]
    assert bundle.version == '1.2'
    assert 'sacrum' in bundle.left_out
    assert len(bundle.left_out) == len(codes) - len(found)
    assert {label.index for label in bundle.unlabelled} == {
        label.index for label in bundle.labels
    } - set(found.values())
    lacks, left_out = bundle.remarks()
    assert bundle.unlabelled[0].name in lacks
    assert 'sacrum' in left_out


def test_a_model_with_all_muscles_and_no_others_needs_no_remark(tmp_path: Path) -> None:
    assert find_model(str(musclemap(tmp_path)), 'lumbar').remarks() == []


def test_two_classes_of_one_muscle_are_refused(tmp_path: Path) -> None:
    structures = {'multifidus': 5100, 'thoracolumbar multifidus': 5150}
    with pytest.raises(ModelError, match='2 classes for right multifidus: right multifidus, righ'):
        find_model(str(whole_body(tmp_path, structures)), 'lumbar')


def test_the_two_files_belong_together(tmp_path: Path) -> None:
    path = musclemap(tmp_path)
    for name in (path, path.with_suffix('.json'), tmp_path):
        assert find_model(str(name), 'lumbar').weights == (path,)
    before = find_model(str(path), 'lumbar').sha256
    path.write_bytes(path.read_bytes() + b' ')
    assert find_model(str(path), 'lumbar').sha256 != before
    path.with_suffix('.json').unlink()
    with pytest.raises(ModelError, match=r'github.com/MuscleMap/MuscleMap'):
        find_model(str(path), 'lumbar')


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    path = musclemap(tmp_path / 'mm')
    path.unlink()
    with pytest.raises(ModelError, match=r'abdomen.pth are missing.*releases'):
        find_model(str(path), 'lumbar')
    folder = monai_bundle(tmp_path / 'bundle')
    (folder / 'models/model.pt').unlink()
    with pytest.raises(ModelError, match=r'model.pt are missing.*model-zoo'):
        find_model(str(folder), 'lumbar')


def test_a_model_of_another_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='none of them is a muscle of the cervical region'):
        find_model(str(musclemap(tmp_path)), 'cervical')


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, 'harm')


def test_weights_that_hold_a_program_are_not_run(tmp_path: Path) -> None:
    path = musclemap(tmp_path / 'mm')
    path.write_bytes(pickle.dumps(Harm(tmp_path / 'harm')))
    torch.save({'a': Harm(tmp_path / 'harm')}, path)
    with pytest.raises(ModelError, match='plain numbers'):
        load_model(find_model(str(path), 'lumbar'))
    assert not (tmp_path / 'harm').exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = musclemap(tmp_path, UNet(2, 1, 9, (4, 8), (2,)))
    with pytest.raises(ModelError, match=r'abdomen.pth cannot be loaded'):
        load_model(find_model(str(path), 'lumbar'))


def test_monai_bundle(tmp_path: Path, make_scan: MakeScan) -> None:
    bundle = find_model(str(monai_bundle(tmp_path / 'zoo')), 'lumbar')
    assert (bundle.name, bundle.version) == ('zoo', '1.2')
    model = load_model(bundle)
    assert model.numbers == (0, 4, 3)
    assert model.mirrored == (0, 2, 1)
    assert (model.spacing_mm, model.patch_px) == ((2.0, 2.0, 5.0), (16, 16, 4))
    image, _ = make_scan((60, 48, 5))
    found = Predictor(model, tta=True).segment({'T2w': image})
    assert set(np.unique(found.labels.dataobj)) <= {0, 3, 4}


@pytest.mark.parametrize(
    'change',
    [
        {'network_def': '$print(1)'},
        {'network_def': {'_target_': 'os.system', 'command': 'true'}},
        {'network_def': {'_target_': 'UNet', 'channels': '$[4, 8]'}},
        {'preprocessing': {'transforms': [{'_target_': 'Lambdad', 'func': '$lambda x: x'}]}},
        {'preprocessing': {'transforms': [{'_target_': 'Orientationd', 'axcodes': 'LPS'}]}},
        {'preprocessing': 3},
    ],
)
def test_a_bundle_that_would_execute_something_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match='nothing is executed'):
        find_model(str(monai_bundle(tmp_path / 'zoo', **change)), 'lumbar')


def nnunet(folder: Path, dims: int) -> Path:
    """Write the plan of an nnU-Net training of two folds; its weights are not there yet."""
    path = folder / f'nnUNetTrainer__nnUNetPlans__{dims}d'
    path.mkdir()
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
    plans = {'configurations': {'base': plan, f'{dims}d': {'inherits_from': 'base'}}}
    (path / 'plans.json').write_text(json.dumps(plans))
    labels = {'background': 0, 'psoas left': 1, 'psoas right': 2}
    dataset = {'name': 'Dataset001', 'labels': labels, 'channel_names': {'0': 'T2'}}
    (path / 'dataset.json').write_text(json.dumps(dataset))
    for fold in (0, 1):
        (path / f'fold_{fold}').mkdir()
        (path / f'fold_{fold}/checkpoint_final.pth').write_bytes(b'')
    return path


def test_nnunet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, 'dynamic_network_architectures', None)
    monkeypatch.setitem(sys.modules, 'dynamic_network_architectures.architectures', None)
    bundle = find_model(str(nnunet(tmp_path, 2)), 'lumbar')
    with pytest.raises(ModelError, match=r"pip install 'bids_muscle\[nnunet\]'"):
        load_model(bundle)


@pytest.mark.parametrize('dims', [2, 3])
def test_nnunet(tmp_path: Path, make_scan: MakeScan, dims: int) -> None:
    unet = pytest.importorskip('dynamic_network_architectures.architectures.unet')
    path = nnunet(tmp_path, dims)
    plans = json.loads((path / 'plans.json').read_text())
    arguments = plans['configurations']['base']['architecture']['arch_kwargs']
    for key in ('conv_op', 'norm_op', 'nonlin'):
        arguments[key] = getattr(torch.nn, arguments[key].rsplit('.', 1)[-1])
    for fold in (0, 1):
        torch.manual_seed(fold)
        network = unet.PlainConvUNet(1, num_classes=3, deep_supervision=True, **arguments)
        checkpoint = {
            'network_weights': network.state_dict(),
            'logging': {'ema': [np.float64(0.5), np.float32(1)]},
            'init_args': {'device': torch.device('cuda')},
        }
        torch.save(checkpoint, path / f'fold_{fold}/checkpoint_final.pth')
    bundle = find_model(str(path), 'lumbar')
    model = load_model(bundle)
    assert len(model.networks) == 2
    assert model.numbers == (0, 6, 5)
    assert model.patch_px == ((16, 24, 1) if dims == 2 else (16, 24, 4))
    assert model.spacing_mm == (2.5, 2.0, None if dims == 2 else 5.0)
    # The array of nnU-Net runs (z,) y, x: the same numbers, with the axes turned.
    windows = torch.rand(1, 1, 16, 24) if dims == 2 else torch.rand(1, 1, 16, 24, 4)
    order = (0, 1, *range(dims + 1, 1, -1))
    network.decoder.deep_supervision = False
    with torch.no_grad():
        theirs = network(windows.permute(order)).permute(order)
        assert torch.allclose(model.networks[1](windows), theirs, atol=1e-6)
    image, _ = make_scan((60, 48, 3))
    Predictor(model).segment({'T2w': image})


def test_nnunet_with_unions_or_turned_axes_is_refused(tmp_path: Path) -> None:
    path = nnunet(tmp_path, 2)
    plans = json.loads((path / 'plans.json').read_text())
    (path / 'plans.json').write_text(json.dumps({**plans, 'transpose_forward': [1, 0, 2]}))
    with pytest.raises(ModelError, match='axes in another order'):
        find_model(str(path), 'lumbar')
    (path / 'fold_1/checkpoint_final.pth').unlink()
    with pytest.raises(ModelError, match=r'checkpoint_final.pth are missing'):
        find_model(str(path), 'lumbar')
