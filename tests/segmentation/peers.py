r"""Small models in the formats of other programs, and what these programs say of small scans.

``python tests/segmentation/peers.py FOLDER [CASE ...]`` trains each model for seconds on boxes,
runs the program itself and writes ``data/peers/CASE.npz`` here: the weights and its label map.
Models of real scans are trained for some seconds when they are first asked for, and kept in
``FOLDER/weights``. It needs ``dynamic-network-architectures``, and FOLDER holds the programs::

    git clone https://github.com/MuscleMap/MuscleMap FOLDER/MuscleMap
    python3.11 -m venv FOLDER/musclemap
    FOLDER/musclemap/bin/pip install torch==2.13.0 monai==1.3.2 'numpy<2' nibabel==5.2.1 \
        scikit-learn==1.3.2 pandas==2.0.3 scikit-image==0.21.0 transforms3d tqdm matplotlib \
        psutil portalocker
    python3.11 -m venv FOLDER/nnunet
    FOLDER/nnunet/bin/pip install torch==2.13.0 nnunetv2==2.8.1

These are the versions that MuscleMap 2.0 asks for, but torch, which is that of this package so
that a convolution gives the same digits, and NumPy, which must go with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from peer_cases import CASES, CODES, REAL_CASES, Case
from peer_scans import images_of, truth_of

#: Where the virtual environments of the programs are.
PEERS = 'BIDS_MUSCLE_PEERS'
GOLDENS = Path(__file__).parent / 'data/peers'
ALL = CASES | REAL_CASES


def network_of(case: Case) -> tuple[dict[str, Any], Callable[[], torch.nn.Module]]:
    """Return the arguments of the network, as in its configuration, and what builds it."""
    n_classes = 1 + len(case.muscles)
    if case.program != 'nnunet':
        from monai.networks.nets import UNet

        shape: dict[str, Any] = {
            'spatial_dims': case.spatial_dims,
            'in_channels': 1,
            'out_channels': n_classes,
            'channels': case.features,
            'strides': [2] * (len(case.features) - 1),
            'act': 'LeakyReLU',
            'num_res_units': 1,
        }
        return shape, lambda: UNet(**shape, norm='INSTANCE')
    from dynamic_network_architectures.architectures import unet

    dims, stages = case.spatial_dims, len(case.features)
    residual = case.fields.get('residual', False)
    arguments: dict[str, Any] = {
        'n_stages': stages,
        'features_per_stage': case.features,
        'conv_op': f'torch.nn.modules.conv.Conv{dims}d',
        'kernel_sizes': [[3] * dims] * stages,
        'strides': [[1] * dims, [2] * dims, *[[1, 2, 2][-dims:]] * (stages - 2)],
        'n_conv_per_stage_decoder': [1] * (stages - 1),
        'conv_bias': True,
        'norm_op': f'torch.nn.modules.instancenorm.InstanceNorm{dims}d',
        'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
        'dropout_op': None,
        'dropout_op_kwargs': None,
        'nonlin': 'torch.nn.LeakyReLU',
        'nonlin_kwargs': {'inplace': True},
        'n_blocks_per_stage' if residual else 'n_conv_per_stage': [1] * stages,
    }
    modules = {
        key: getattr(torch.nn, arguments[key].rsplit('.', 1)[-1])
        for key in ('conv_op', 'norm_op', 'nonlin')
    }
    kind = unet.ResidualEncoderUNet if residual else unet.PlainConvUNet

    def build() -> torch.nn.Module:
        network: torch.nn.Module = kind(
            input_channels=len(case.channels),
            num_classes=n_classes,
            deep_supervision=False,
            **(arguments | modules),
        )
        return network

    return arguments, build


def write_model(
    case: Case, folder: Path, weights: list[dict[str, torch.Tensor]], order: str
) -> Path:
    """Write a model of scans in a voxel order as its program does; return that of ``--model``."""
    if case.program == 'musclemap':
        shape, _ = network_of(case)
        labels = [
            {'anatomy': name.split(' ', 1)[1], 'side': name.split()[0], 'value': value}
            for value, name in zip(values_of(case), case.muscles, strict=True)
        ]
        card = {
            'parameters': {'spatial_window_batch_size': 4, **case.fields},
            'model': {**shape, 'norm': 'instance', 'version': '0.9'},
            'labels': labels,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'model.json').write_text(json.dumps(card))
        torch.save(weights[0], folder / 'model.pth')
        return folder / 'model.pth'
    if case.program == 'monai':
        return _write_bundle(case, folder, weights[0])
    dims = case.spatial_dims
    name = {2: '2d', 3: '3d_fullres'}[dims]
    folder = folder / f'nnUNetTrainer__nnUNetPlans__{name}'
    arguments, _ = network_of(case)
    way = 'resample_data_or_seg_to_shape'
    kind = 'ResidualEncoderUNet' if case.fields.get('residual') else 'PlainConvUNet'
    spline = {'is_seg': False, 'order': 3, 'order_z': 0, 'force_separate_z': None}
    plan = {
        'data_identifier': name,
        'preprocessor_name': 'DefaultPreprocessor',
        'batch_size': 2,
        'normalization_schemes': ['ZScoreNormalization'] * len(case.channels),
        'use_mask_for_norm': [False] * len(case.channels),
        **{f'resampling_fn_{each}': way for each in ('data', 'seg', 'probabilities')},
        'resampling_fn_data_kwargs': spline,
        'resampling_fn_seg_kwargs': {**spline, 'is_seg': True, 'order': 1},
        'resampling_fn_probabilities_kwargs': {**spline, 'order': 1},
        'architecture': {
            'network_class_name': f'dynamic_network_architectures.architectures.unet.{kind}',
            'arch_kwargs': arguments,
            '_kw_requires_import': ['conv_op', 'norm_op', 'dropout_op', 'nonlin'],
        },
        **{k: v for k, v in case.fields.items() if k not in ('residual', 'transpose_forward')},
    }
    forward = case.fields.get('transpose_forward', [0, 1, 2])
    properties = {'mean': 75.0, 'std': 38.0, 'percentile_00_5': 2.0, 'percentile_99_5': 152.0}
    plans = {
        'dataset_name': 'Dataset001_boxes',
        'plans_name': 'nnUNetPlans',
        'image_reader_writer': 'SimpleITKIO',
        'transpose_forward': forward,
        'transpose_backward': np.argsort(forward).tolist(),
        'label_manager': 'LabelManager',
        'foreground_intensity_properties_per_channel': {'0': properties, '1': properties},
        'configurations': {name: plan},
    }
    dataset = {
        'name': 'Dataset001_boxes',
        'labels': {'background': 0, **{each: i for i, each in enumerate(case.muscles, 1)}},
        'channel_names': {str(i): each for i, each in enumerate(case.channels)},
        'numTraining': 1,
        'file_ending': '.nii.gz',
        'orientation': order,
    }
    for place, state in enumerate(weights):
        (folder / f'fold_{place}').mkdir(parents=True, exist_ok=True)
        checkpoint = {
            'network_weights': state,
            'trainer_name': 'nnUNetTrainer',
            'init_args': {'configuration': name},
            'inference_allowed_mirroring_axes': list(case.mirrors),
        }
        torch.save(checkpoint, folder / f'fold_{place}/checkpoint_final.pth')
    (folder / 'plans.json').write_text(json.dumps(plans))
    (folder / 'dataset.json').write_text(json.dumps(dataset))
    return folder


def _write_bundle(case: Case, folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    keys = {'keys': 'image'}
    pred = {'keys': 'pred'}
    before = [
        {'_target_': 'LoadImaged', **keys},
        {'_target_': 'EnsureChannelFirstd', **keys},
        {'_target_': 'Orientationd', **keys, 'axcodes': 'RAS'},
        {'_target_': 'Spacingd', **keys, 'pixdim': case.fields['pixdim'], 'mode': 'bilinear'},
        {'_target_': 'NormalizeIntensityd', **keys, 'nonzero': True},
    ]
    inferer = {'_target_': 'SliceInferer', 'roi_size': case.fields['roi_size'], 'spatial_dim': 2}
    back = {'transform': '@preprocessing', 'orig_keys': 'image', 'nearest_interp': False}
    after = [
        {'_target_': 'Invertd', **pred, **back},
        {'_target_': 'AsDiscreted', **pred, 'argmax': True},
    ]
    inference = {
        'network_def': {'_target_': 'UNet', **network_of(case)[0], 'norm': 'INSTANCE'},
        'preprocessing': {'_target_': 'Compose', 'transforms': before},
        'inferer': inferer,
        'postprocessing': {'_target_': 'Compose', 'transforms': after},
    }
    named = {str(i): name for i, name in enumerate(('background', *case.muscles))}
    formats = {'inputs': {'image': {}}, 'outputs': {'pred': {'channel_def': named}}}
    for name in ('configs', 'models'):
        (folder / name).mkdir(parents=True)
    (folder / 'configs/inference.json').write_text(json.dumps(inference))
    metadata = {'version': '1', 'network_data_format': formats}
    (folder / 'configs/metadata.json').write_text(json.dumps(metadata))
    torch.save({'model': weights}, folder / 'models/model.pt')
    return folder


def values_of(case: Case) -> list[int]:
    """Return the number of each muscle in the label map of the program."""
    if 'wholebody' not in case.options:
        return list(range(1, 1 + len(case.muscles)))
    return [CODES[name.split(' ', 1)[1]] + (name[0] == 'r') for name in case.muscles]


def run(
    case: Case, peers: Path, model: Path, images: dict[str, nib.Nifti1Image], folder: Path
) -> np.ndarray:
    """Run the program itself on images of files; return its label map as it is stored."""
    paths = [Path(image.get_filename()) for image in images.values()]
    if case.program == 'monai':
        return _run_monai(model, paths[0])
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'PYTHONPATH': '', 'OMP_NUM_THREADS': '1'}
    if case.program == 'musclemap':
        command = [
            str(peers / 'musclemap/bin/python'),
            str(peers / 'MuscleMap/scripts/mm_segment.py'),
            *('-i', str(paths[0]), '-o', str(folder), '-m', str(model)),
            *('-g', 'N', '-c', '10000', *case.options),
        ]
        result = folder / paths[0].name.replace('.nii.gz', '_dseg.nii.gz')
    else:
        scans = folder / 'scans'
        scans.mkdir(exist_ok=True)
        for place, image in enumerate(paths):
            (scans / f'scan_{place:04d}.nii.gz').write_bytes(image.read_bytes())
        environment |= dict.fromkeys(
            ('nnUNet_raw', 'nnUNet_preprocessed', 'nnUNet_results'), str(folder)
        )
        command = [
            str(peers / 'nnunet/bin/nnUNetv2_predict_from_modelfolder'),
            *('-i', str(scans), '-o', str(folder), '-m', str(model), '-device', 'cpu'),
            *('-f', *map(str, range(case.folds)), '-npp', '1', '-nps', '1', *case.options),
        ]
        result = folder / 'scan.nii.gz'
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not result.is_file():
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return np.asarray(nib.load(result).dataobj).astype(np.int16)


def _run_monai(model: Path, image: Path) -> np.ndarray:
    """Run a bundle with MONAI alone."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(model / 'configs/inference.json')
    preprocessing = parser.get_parsed_content('preprocessing')
    inferer = parser.get_parsed_content('inferer')
    network = parser.get_parsed_content('network_def').eval()
    network.load_state_dict(torch.load(model / 'models/model.pt')['model'])
    data = preprocessing({'image': str(image)})
    with torch.no_grad():
        data['pred'] = inferer(data['image'][None], network)[0]
    done = parser.get_parsed_content('postprocessing')(data)
    return np.asarray(done['pred'][0]).astype(np.int16)


def write_case(
    name: str, peers: Path | None, folder: Path
) -> tuple[Path, dict[str, nib.Nifti1Image]]:
    """Write the model and the images of a case; return the model and the images as read again."""
    case = ALL[name]
    images = images_of(case)
    order = ''.join(nib.aff2axcodes(next(iter(images.values())).affine))
    kept = _kept(name, peers)
    if case.scan and not kept.is_file():
        _save(kept, _learn(case, images))
    model = write_model(case, folder / 'model', _weights(kept, case.folds), order)
    for each, image in images.items():
        nib.save(image, folder / f'{each}.nii.gz')
    # MONAI's grid of an oblique scan hangs on how its affine is rounded in the file.
    return model, {each: nib.load(folder / f'{each}.nii.gz') for each in images}


def _kept(name: str, peers: Path | None) -> Path:
    """Return the file of the weights of a case: those of real scans stay out of the repository."""
    if ALL[name].scan:
        assert peers is not None
        return peers / f'weights/{name}.npz'
    return GOLDENS / f'{ALL[name].like or name}.npz'


def _learn(case: Case, images: dict[str, nib.Nifti1Image]) -> list[dict[str, torch.Tensor]]:
    truth = truth_of(case, images)
    return [train(case, images, truth, seed) for seed in range(case.folds)]


def _save(path: Path, weights: list[dict[str, torch.Tensor]], **arrays: np.ndarray) -> None:
    """Write weights in half precision, so that the file is small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    states = {
        f'{place}/{key}': value.half().numpy()
        for place, state in enumerate(weights)
        for key, value in state.items()
    }
    np.savez_compressed(path, **states, **arrays)


def _weights(path: Path, folds: int) -> list[dict[str, torch.Tensor]]:
    """Read the weights of each network."""
    states: list[dict[str, torch.Tensor]] = [{} for _ in range(folds)]
    with np.load(path) as kept:
        for key in kept.files:
            if key != 'theirs':
                place, weight = key.split('/', 1)
                states[int(place)][weight] = torch.from_numpy(kept[key].astype(np.float32))
    return states


def train(
    case: Case, images: dict[str, nib.Nifti1Image], truth: np.ndarray, seed: int
) -> dict[str, torch.Tensor]:
    """Train the network of a case for seconds on its own scan, at about its pixel size."""
    torch.manual_seed(seed)
    network = network_of(case)[1]()
    given, wanted = _seen(case, images, truth)
    solid = case.spatial_dims == 3
    given, wanted = (given[None], wanted[None]) if solid else (given.transpose(0, 1), wanted)
    size = wanted.shape[1:]
    # The deeper networks of real scans halve the plane four times.
    step = [4, 16, 16][-len(size) :] if case.scan else [4] * len(size)
    most = 96 if case.scan or not solid else 48
    window = [min(n, most) // s * s for n, s in zip(size, step, strict=True)]
    optimizer = torch.optim.Adam(network.parameters(), 4e-3 if case.scan else 1e-2)
    # Muscles are small, in whole scans most of all.
    counts = torch.tensor([0.05 if case.scan else 0.2] + len(case.muscles) * [1.0])
    if case.scan:
        # In planes, nnU-Net's network without residual units learns more slowly.
        count = 60 if solid or case.program != 'nnunet' else 150
    else:
        count = 120 if solid else 700 if case.program == 'musclemap' else 250
    for _ in range(count):
        start = [int(torch.randint(n - w + 1, ())) for n, w in zip(size, window, strict=True)]
        box = tuple(slice(a, a + w) for a, w in zip(start, window, strict=True))
        part = given[(slice(None), slice(None), *box)]
        found = network(part + 0.1 * torch.randn_like(part))
        loss = torch.nn.functional.cross_entropy(found, wanted[(slice(None), *box)], counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print('loss', float(loss.detach()))
    return {key: value.detach() for key, value in network.state_dict().items()}


def _seen(
    case: Case, images: dict[str, nib.Nifti1Image], truth: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scan (channels, planes, rows, columns) and its labels as the network sees it."""
    from scipy.ndimage import zoom

    canonical = [nib.as_closest_canonical(each) for each in images.values()]
    arrays = [np.asarray(each.dataobj, np.float32) for each in canonical]
    zooms = canonical[0].header.get_zooms()
    if case.program == 'nnunet':
        # As it sees it: stored order, (z, y, x), then its own.
        order = nib.aff2axcodes(next(iter(images.values())).affine)
        flips = [axis for axis, letter in enumerate(order) if letter != 'RAS'[axis]]
        forward = [0, *(1 + i for i in case.fields.get('transpose_forward', [0, 1, 2]))]
        seen = np.flip(np.stack([*arrays, truth]), [1 + axis for axis in flips])
        seen = seen.transpose(0, 3, 2, 1).transpose(forward)
        spacing = np.array(zooms[::-1])[[i - 1 for i in forward[1:]]]
        target = case.fields['spacing']
    else:
        seen = np.stack([*arrays, truth]).transpose(0, 3, 1, 2)
        spacing = np.array(zooms)[[2, 0, 1]]
        size = case.fields['pix_dim' if case.program == 'musclemap' else 'pixdim']
        target = [spacing[0] if size[2] < 0 else size[2], size[0], size[1]]
    if len(target) == 2:
        target = [spacing[0], *target]
    factors = [a / b for a, b in zip(spacing, target, strict=True)]
    resampled = [zoom(each, factors, order=1) for each in seen[:-1]]
    labels = torch.from_numpy(zoom(seen[-1], factors, order=0).astype(np.int64))
    masked = case.program != 'nnunet' or any(case.fields.get('use_mask_for_norm', []))
    scaled = np.stack([_scaled(each, masked) for each in resampled]).astype(np.float32)
    return torch.from_numpy(scaled), labels


def _scaled(image: np.ndarray, masked: bool) -> np.ndarray:
    counts = image > 1 if masked else np.ones(image.shape, bool)
    values = (image - image[counts].mean()) / image[counts].std()
    return np.where(counts, values, 0)


def main(peers: Path, names: list[str]) -> None:
    """Write the goldens."""
    from tempfile import TemporaryDirectory

    torch.set_num_threads(1)
    for name in names or CASES:
        case = CASES[name]
        weights = [] if case.like else _learn(case, images_of(case))
        if weights:
            _save(_kept(name, peers), weights)
        with TemporaryDirectory() as temporary:
            model, images = write_case(name, peers, Path(temporary))
            theirs = run(case, peers, model, images, Path(temporary) / 'out')
        _save(GOLDENS / f'{name}.npz', weights, theirs=theirs)
        print(name, np.unique(theirs, return_counts=True))


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2:])
