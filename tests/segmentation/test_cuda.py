"""What would break on a GPU, found without one.

The device ``meta`` stands for the GPU: tensors there have a shape and no content. A watch sees
each operation of PyTorch, refuses those that mix devices, and answers where content is asked for.
Half precision runs on the CPU, by a name that the predictor does not know it by.
"""

from __future__ import annotations

import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_networks import HESS, WEBER, WESSELINK, XIA
from test_predictor import MakeScan, Painter, painter, painting
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bids_muscle.errors import DeviceError
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import load_model
from bids_muscle.segmentation.compute import check_device, is_out_of_memory
from bids_muscle.segmentation.model import Model
from bids_muscle.segmentation.networks import build_network
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.training import trainer
from bids_muscle.segmentation.training.loss import make_loss
from bids_muscle.segmentation.training.recipe import Recipe
from bids_muscle.segmentation.training.sources import PlaneSet

aten = torch.ops.aten
#: Operations that may be given tensors of two devices; what is indexed lies on the GPU.
COPIES, INDEXES = (aten.copy_, aten._to_copy), (aten.index, aten._index_put_impl_)
#: Of what only the content would tell, all is taken.
ALL = _config.patch(meta_nonzero_assume_all_nonzero=True)


class Watch(TorchDispatchMode):
    """Refuses operations that mix the CPU and the stand-in; counts what waits for the latter."""

    waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        given = tree_leaves((args, kwargs))
        tensors = [each for each in given if isinstance(each, torch.Tensor)]
        kind = func.overloadpacket
        if not any(tensor.is_meta for tensor in tensors):
            return func(*args, **(kwargs or {}))
        # A number without axes may come from the CPU.
        alike = all(tensor.is_meta or tensor.ndim == 0 for tensor in tensors)
        allowed = kind in COPIES or (kind in INDEXES and args[0].is_meta)
        assert alike or allowed, f'{func} mixes devices'
        fetches = kind in (aten.to, aten._to_copy) and torch.device('cpu') in given
        self.waits += fetches or kind is aten._local_scalar_dense
        if kind is aten._local_scalar_dense:
            return 1
        if fetches:
            dtypes = [each for each in given if isinstance(each, torch.dtype)]
            return torch.ones(args[0].shape, dtype=(*dtypes, args[0].dtype)[0])
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_lies_on_the_wrong_device() -> None:
    with Watch() as watch, pytest.raises(AssertionError, match='mixes devices'):
        torch.ones(3, device='meta') + torch.ones(3)
    assert watch.waits == 0


@pytest.mark.parametrize(
    ('loss', 'config'),
    [
        ('marginal', XIA),
        ('dice_ce', WESSELINK),
        ('dice_hinge', {**WEBER, 'prior': 4, 'dropout': 0.5}),
        ('dice_sigmoid', HESS),
    ],
)
def test_a_training_step_stays_on_its_device(
    recipe: Recipe, loss: str, config: dict[str, Any], tmp_path: Path
) -> None:
    recipe = replace(recipe, network=config, loss=loss, clip_norm=1.0)
    extent, classes = [16] * config['spatial_dims'], config['out_channels']
    batch = (
        torch.zeros(2, config['in_channels'], *extent),
        torch.zeros(2, *extent, dtype=torch.int64),
        torch.arange(2 * classes - 2).view(2, -1) > 3,
    )
    with Watch(), ALL:
        state = trainer._start(recipe, tmp_path / 'none', 'meta', {'data': '', 'images': ''})
        trainer._step(state, recipe, make_loss(recipe), batch, 'meta', 0.1)
        trainer._average(state.averaged, state.network, 0.9)
    assert all(parameter.is_meta for parameter in state.network.parameters())


def test_the_look_at_people_held_out_stays_on_its_device(
    recipe: Recipe, plane_set: PlaneSet
) -> None:
    with Watch(), torch.device('cpu'):
        network = build_network(recipe.network).to('meta')
        trainer._dice(network, recipe, [plane_set], 'meta')


def on(device: str, model: Model, **how: Any) -> Predictor:
    """Give a predictor that takes another device for its GPU."""
    predictor = Predictor(model, batch_size=8, **how)
    predictor.device = device
    return predictor


@pytest.mark.filterwarnings('ignore:CUDA is not available')
@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'background_weight': 2.0},
        {'patch_px': (16, 16, 1)},
        {'patch_px': (16, 16, 4), 'spacing_mm': (2.0, 2.0, 3.0)},
    ],
)
def test_a_scan_is_labelled_on_one_device(fields: dict[str, Any]) -> None:
    dims = 3 if fields.get('patch_px', (0, 0, 1))[2] > 1 else 2
    network = build_network(
        {**WESSELINK, 'spatial_dims': dims, 'out_channels': 5, 'channels': [4, 8], 'strides': [2]}
    ).eval()
    model = replace(painter(dims, multiple_px=(2, 2, 2)), networks=(network,), **fields)
    image, _ = painting((40, 32, 6))
    predictor = on('meta', model, tta=True)
    with Watch() as watch, ALL:
        found = predictor.segment({'water': image, 'fat': image})
    assert found.compute.device == 'meta'
    # Few halts a plane: candidates, expectation, labels, confidence.
    assert watch.waits <= 9 * image.shape[2]


@pytest.fixture
def half_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU compute in half precision what a GPU would."""
    autocast = torch.autocast

    def on_cpu(kind: str, *how: Any, **options: Any) -> Any:
        return autocast('cpu', torch.float16, enabled=options['enabled'])

    monkeypatch.setattr(torch, 'autocast', on_cpu)


@pytest.mark.parametrize('device', ['cpu:0', 'cuda'])
def test_half_precision_changes_no_more_than_edges(
    bundle: ModelBundle, make_scan: MakeScan, device: str, request: pytest.FixtureRequest
) -> None:
    if device != 'cuda':
        request.getfixturevalue('half_on_the_cpu')
    elif not torch.cuda.is_available():
        pytest.skip('there is no CUDA device')
    model, (image, _) = load_model(bundle), make_scan((120, 96, 2))
    scan = {'water': image, 'fat': image}
    whole, half, again = (on(place, model).segment(scan) for place in ('cpu', device, device))
    assert half.compute.device == device
    assert not half.out_of_memory
    labels, others = (np.asarray(each.labels.dataobj) for each in (whole, half))
    assert np.count_nonzero(labels != others) < 0.01 * np.count_nonzero(labels)
    assert np.array_equal(others, again.labels.dataobj)
    for number, agreement in whole.agreement.items():
        assert half.agreement[number] == pytest.approx(agreement, abs=0.005)


def test_the_random_field_is_never_computed_in_half_precision() -> None:
    torch.manual_seed(0)
    network = build_network(XIA).eval()
    logits, image = 5 * torch.randn(1, 9, 24, 24), torch.randn(1, 1, 24, 24)
    network.unet = Gives(logits)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        found = network(image)
    assert torch.equal(found, network.crf(logits, image))


class Gives(torch.nn.Module):
    """Gives the same logits for every image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, windows: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.logits


#: What PyTorch says where CUDA and its libraries find no memory.
FULL = (
    'CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`',
    'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
    'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'GET was unable to find an engine to execute this computation',
)


class Full(Painter):
    """A network for which the GPU has no room; it keeps an eye on what it left there."""

    def __init__(self, text: str) -> None:
        super().__init__(5)
        self.text, self.left = text, []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:  # noqa: D102
        assert all(left() is None for left in self.left), 'memory of a failed way is still held'
        if torch.is_autocast_enabled('cpu'):  # on the stand-in of the GPU
            large = windows.clone()
            self.left.append(weakref.ref(large))
            raise RuntimeError(self.text)
        return super().forward(windows)


@pytest.mark.usefixtures('half_on_the_cpu')
@pytest.mark.parametrize('text', FULL)
def test_a_full_gpu_gives_way_to_the_cpu_for_this_scan_alone(text: str) -> None:
    network = Full(text)
    image, truth = painting((30, 24, 2))
    predictor = on('cpu:0', replace(painter(), networks=(network,)))
    for scans in (1, 2):
        found = predictor.segment({'T2w': image})
        assert np.array_equal(found.labels.dataobj, truth)
        assert found.compute.device == 'cpu'
        ways = [(way.device, way.accumulate_on, way.batch_size) for way in found.out_of_memory]
        assert ways[-2:] == [('cpu:0', 'cpu:0', 1), ('cpu:0', 'cpu', 1)]
        assert len(network.left) == scans * len(ways)


def test_a_broken_gpu_is_not_taken_for_a_full_one() -> None:
    for text in ('CUDA error: an illegal memory access was encountered', 'device-side assert'):
        assert not is_out_of_memory(RuntimeError(text))


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for device in ('cpu', 'cuda', 'cuda:1'):
        check_device(device)
    with pytest.raises(DeviceError, match='cuda:2 was asked for; PyTorch finds cuda:0, cuda:1'):
        check_device('cuda:2')


def test_the_server_of_workers_leaves_cuda_alone() -> None:
    """A process that has asked CUDA anything can be forked no more."""
    code = (
        'import torch\n'
        'def asked(*_, **__): raise SystemExit("CUDA was asked")\n'
        'for name in ("is_available", "device_count", "_lazy_init", "get_device_properties"):\n'
        '    setattr(torch.cuda, name, asked)\n'
        'import bids_muscle.engine.preload'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
