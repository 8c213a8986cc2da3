"""Small models in the formats of other programs, and what these programs say of small scans.

``python tests/segmentation/peers.py FOLDER [CASE ...]`` trains each model for seconds on boxes,
runs the program itself and writes ``data/peers/CASE.npz`` here: the weights and its label map. It
needs ``dynamic-network-architectures``, and FOLDER holds

- ``musclemap/bin/python``, a virtual environment with what MuscleMap 2.0 asks for (MONAI 1.3.2,
  NumPy below 2), and ``MuscleMap/``, its source;
- ``nnunet/bin``, a virtual environment with ``nnunetv2`` 2.8.1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

#: Where the virtual environments of the programs are.
PEERS = 'BIDS_MUSCLE_PEERS'
GOLDENS = Path(__file__).parent / 'data/peers'
MUSCLES = [
    f'{side} {name}' for name in ('multifidus', 'erector spinae') for side in ('right', 'left')
]
#: Name of a structure and code of its left side in MuscleMap's whole body.
CODES = {'multifidus': 5101, 'erector spinae': 5111}
#: Middle (right, front mm) and half extent of each muscle.
BOXES = {1: (14, 0, 10, 16), 2: (-14, 0, 10, 16), 3: (40, 0, 12, 18), 4: (-40, 0, 12, 18)}


@dataclass(frozen=True)
class Case:
    """A model and a scan.

    Parameters
    ----------
    program
        ``'musclemap'`` or ``'nnunet'``.
    shape, zooms_mm, order, tilt_deg
        Grid of the scan, in RAS before it is stored in an order.
    fields
        Of the configuration of the model.
    channels
        Images of the scan.
    folds
        Networks of the model.
    like
        Case whose weights it takes; empty to train its own.
    mirrors
        Axes of the array along which nnU-Net mirrors.
    options
        Of the command line of the program.
    """

    program: str
    shape: tuple[int, int, int]
    zooms_mm: tuple[float, float, float]
    order: str = 'LAS'
    tilt_deg: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ('T2w',)
    folds: int = 1
    like: str = ''
    mirrors: tuple[int, ...] = (0, 1)
    options: tuple[str, ...] = ()


CASES = {
    'musclemap-abdomen': Case(
        'musclemap',
        (130, 96, 4),
        (1.3, 1.1, 5),
        fields={'roi_size': [96, 80], 'pix_dim': [1.5, 1.5, -1]},
        options=('-r', 'abdomen', '-s', '50'),
    ),
    'musclemap-wholebody': Case(
        'musclemap',
        (100, 84, 6),
        (1.6, 1.6, 4),
        order='LPS',
        tilt_deg=14,
        fields={'roi_size': [128, 128], 'pix_dim': [1.4, 1.4, 5]},
        like='musclemap-abdomen',
        options=('-r', 'wholebody', '-s', '25'),
    ),
    'nnunet-2d': Case(
        'nnunet',
        (100, 84, 4),
        (1.6, 1.6, 6),
        order='RAS',
        fields={'patch_size': [48, 56], 'spacing': [1.9, 1.8], 'use_mask_for_norm': [True]},
        folds=2,
    ),
}


def draw(case: Case) -> dict[str, nib.Nifti1Image]:
    """Draw boxes of different brightness in a body, air around it with exact zeros and noise."""
    rng = np.random.default_rng(len(case.order) + case.shape[0])
    x, y, _ = (
        (np.arange(n) - (n - 1) / 2 + 3) * zoom
        for n, zoom in zip(case.shape, case.zooms_mm, strict=True)
    )
    levels = {'T2w': (60, 90, 105, 135, 150), 'water': (60, 90, 105, 135, 150)}
    body = (x[:, None] / 62) ** 2 + (y / 42) ** 2 < 1
    affine = np.diag([*case.zooms_mm, 1.0])
    turn = np.deg2rad(case.tilt_deg)
    tilt = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine[:3, :3] = tilt @ affine[:3, :3]
    images = {}
    for name in case.channels:
        plane = np.where(body, levels.get(name, (140, 60, 50, 30, 20))[0], 4.0)
        for label, (right, front, width, depth) in BOXES.items():
            inside = (abs(x + right)[:, None] < width) & (abs(y - front) < depth)
            plane[inside] = levels.get(name, (140, 60, 50, 30, 20))[label]
        values = np.repeat(plane[..., None], case.shape[2], axis=2)
        values = np.abs(values + rng.normal(0, 4, case.shape))
        values[:6], values[:, -5:] = 0, 0
        image = nib.Nifti1Image(values.round().astype(np.int16), affine)
        turned = nib.orientations.ornt_transform(
            nib.io_orientation(affine), nib.orientations.axcodes2ornt(case.order)
        )
        images[name] = image.as_reoriented(turned)
    return images


def network_of(case: Case) -> tuple[dict[str, Any], Callable[[], torch.nn.Module]]:
    """Return the arguments of the network, as in its configuration, and what builds it."""
    if case.program == 'musclemap':
        from monai.networks.nets import UNet

        shape: dict[str, Any] = {
            'spatial_dims': 2,
            'in_channels': 1,
            'out_channels': 5,
            'channels': [8, 16, 16],
            'strides': [2, 2],
            'act': 'LeakyReLU',
            'num_res_units': 1,
        }
        return shape, lambda: UNet(**shape, norm='INSTANCE')
    from dynamic_network_architectures.architectures import unet

    dims = len(case.fields['patch_size'])
    residual = case.fields.get('residual', False)
    arguments: dict[str, Any] = {
        'n_stages': 3,
        'features_per_stage': [8, 8, 16],
        'conv_op': f'torch.nn.modules.conv.Conv{dims}d',
        'kernel_sizes': [[3] * dims] * 3,
        'strides': [[1] * dims, [2] * dims, [1, 2, 2][-dims:]],
        'n_conv_per_stage_decoder': [1, 1],
        'conv_bias': True,
        'norm_op': f'torch.nn.modules.instancenorm.InstanceNorm{dims}d',
        'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
        'dropout_op': None,
        'dropout_op_kwargs': None,
        'nonlin': 'torch.nn.LeakyReLU',
        'nonlin_kwargs': {'inplace': True},
        'n_blocks_per_stage' if residual else 'n_conv_per_stage': [1, 1, 1],
    }
    modules = {
        key: getattr(torch.nn, arguments[key].rsplit('.', 1)[-1])
        for key in ('conv_op', 'norm_op', 'nonlin')
    }
    kind = unet.ResidualEncoderUNet if residual else unet.PlainConvUNet

    def build() -> torch.nn.Module:
        network: torch.nn.Module = kind(
            input_channels=len(case.channels),
            num_classes=5,
            deep_supervision=False,
            **(arguments | modules),
        )
        return network

    return arguments, build


def write_model(case: Case, folder: Path, weights: list[dict[str, torch.Tensor]]) -> Path:
    """Write a model as its program does, and return what ``--model`` takes."""
    if case.program == 'musclemap':
        shape, _ = network_of(case)
        labels = [
            {'anatomy': name.split(' ', 1)[1], 'side': name.split()[0], 'value': value}
            for value, name in zip(values_of(case), MUSCLES, strict=True)
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
    dims = len(case.fields['patch_size'])
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
        'labels': {'background': 0, **{each: i for i, each in enumerate(MUSCLES, 1)}},
        'channel_names': {str(i): each for i, each in enumerate(case.channels)},
        'numTraining': 1,
        'file_ending': '.nii.gz',
        'orientation': case.order,
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


def values_of(case: Case) -> list[int]:
    """Return the number of each muscle in the label map of the program."""
    if 'wholebody' not in case.options:
        return [1, 2, 3, 4]
    return [CODES[name.split(' ', 1)[1]] + (name[0] == 'r') for name in MUSCLES]


def run(case: Case, peers: Path, model: Path, images: list[Path], folder: Path) -> np.ndarray:
    """Run the program itself; return its label map as it is stored."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'PYTHONPATH': '', 'OMP_NUM_THREADS': '1'}
    if case.program == 'musclemap':
        command = [
            str(peers / 'musclemap/bin/python'),
            str(peers / 'MuscleMap/scripts/mm_segment.py'),
            *('-i', str(images[0]), '-o', str(folder), '-m', str(model)),
            *('-g', 'N', '-c', '10000', *case.options),
        ]
        result = folder / images[0].name.replace('.nii.gz', '_dseg.nii.gz')
    else:
        scans = folder / 'scans'
        scans.mkdir(exist_ok=True)
        for place, image in enumerate(images):
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


def weights_of(name: str) -> list[dict[str, torch.Tensor]]:
    """Read the weights of a case, one network per fold."""
    with np.load(GOLDENS / f'{CASES[name].like or name}.npz') as kept:
        states: list[dict[str, torch.Tensor]] = [{} for _ in range(CASES[name].folds)]
        for key in kept.files:
            if key != 'theirs':
                place, weight = key.split('/', 1)
                states[int(place)][weight] = torch.from_numpy(kept[key].astype(np.float32))
    return states


def train(case: Case, seed: int) -> dict[str, torch.Tensor]:
    """Train the network of a case for seconds on its own scan at about its own pixel size."""
    from scipy.ndimage import zoom

    torch.manual_seed(seed)
    network = network_of(case)[1]()
    images = draw(case)
    arrays = [np.asarray(nib.as_closest_canonical(i).dataobj, np.float32) for i in images.values()]
    truth = np.zeros(case.shape, np.int64)
    x, y, _ = (
        (np.arange(n) - (n - 1) / 2 + 3) * z
        for n, z in zip(case.shape, case.zooms_mm, strict=True)
    )
    for label, (right, front, width, depth) in BOXES.items():
        inside = (abs(x + right)[:, None] < width) & (abs(y - front) < depth)
        truth[inside] = label
    if case.program == 'nnunet':
        # As it sees it: stored order, (z, y, x), then its own.
        flips = [axis for axis, letter in enumerate(case.order) if letter != 'RAS'[axis]]
        forward = [0, *(1 + i for i in case.fields.get('transpose_forward', [0, 1, 2]))]
        seen = np.flip(np.stack([*arrays, truth]), [1 + axis for axis in flips])
        seen = seen.transpose(0, 3, 2, 1).transpose(forward)
        spacing = np.array(case.zooms_mm[::-1])[[i - 1 for i in forward[1:]]]
        target = case.fields['spacing']
        if len(target) == 2:
            target = [spacing[0], *target]
    else:
        seen = np.stack([*arrays, truth]).transpose(0, 3, 1, 2)
        spacing = np.array(case.zooms_mm)[[2, 0, 1]]
        size = case.fields['pix_dim']
        target = [spacing[0], size[0], size[1]]
    factors = [a / b for a, b in zip(spacing, target, strict=True)]
    images_ = [zoom(each, factors, order=1) for each in seen[:-1]]
    labels = torch.from_numpy(zoom(seen[-1], factors, order=0).astype(np.int64))
    masked = case.program == 'musclemap' or any(case.fields.get('use_mask_for_norm', []))
    scaled = np.stack([_scaled(each, masked) for each in images_]).astype(np.float32)
    if case.fields.get('normalization_schemes') == ['CTNormalization']:
        scaled = ((np.stack(images_) - 75) / 38).astype(np.float32)
    volume = torch.from_numpy(scaled)
    solid = case.program == 'nnunet' and len(case.fields['patch_size']) == 3
    steps = [4, 4, 4] if solid else [1, 4, 4]
    cut = [slice(0, n // s * s) for n, s in zip(labels.shape, steps, strict=True)]
    volume, labels = volume[:, cut[0], cut[1], cut[2]], labels[cut[0], cut[1], cut[2]]
    given = volume[None] if solid else volume.permute(1, 0, 2, 3)
    wanted = labels[None] if solid else labels
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(700 if case.program == 'musclemap' else 50 if solid else 200):
        loss = torch.nn.functional.cross_entropy(
            network(given + 0.1 * torch.randn_like(given)), wanted
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print('loss', float(loss.detach()))
    return {key: value.detach() for key, value in network.state_dict().items()}


def _scaled(image: np.ndarray, masked: bool) -> np.ndarray:
    counts = image > 1 if masked else np.ones(image.shape, bool)
    values = (image - image[counts].mean()) / image[counts].std()
    return np.where(counts, values, 0)


def main(peers: Path, names: list[str]) -> None:
    """Write the goldens."""
    from tempfile import TemporaryDirectory

    torch.set_num_threads(1)
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for name in names or CASES:
        case = CASES[name]
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if case.like:
                kept = weights_of(case.like)
            else:
                weights = [train(case, seed) for seed in range(case.folds)]
                # Half precision, so that the file is small and the network the same.
                kept = [{k: v.half().float() for k, v in each.items()} for each in weights]
            model = write_model(case, folder / 'model', kept)
            images = draw(case)
            paths = [folder / f'{each}.nii.gz' for each in images]
            for path, image in zip(paths, images.values(), strict=True):
                nib.save(image, path)
            theirs = run(case, peers, model, paths, folder / 'out')
        arrays = {
            f'{place}/{key}': value.half().numpy()
            for place, each in enumerate([] if case.like else kept)
            for key, value in each.items()
        }
        np.savez_compressed(GOLDENS / f'{name}.npz', theirs=theirs, **arrays)
        print(name, np.unique(theirs, return_counts=True))


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2:])
