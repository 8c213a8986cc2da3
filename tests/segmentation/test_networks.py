"""The networks of the papers: sizes that are known, and what each part is there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bids_muscle.errors import ModelError
from bids_muscle.segmentation.networks import RESIDUAL_UNET, build_network, divisor
from bids_muscle.segmentation.networks.dense_vnet import DenseVNet, random_maps

WEBER = {'name': 'DenseVNet', 'spatial_dims': 3, 'in_channels': 2, 'out_channels': 15}
HESS = {'name': 'VNet', 'spatial_dims': 2, 'in_channels': 1, 'out_channels': 9, 'levels': 3}
XIA = {
    'name': 'UNetCRF',
    'spatial_dims': 2,
    'in_channels': 1,
    'out_channels': 9,
    'features': [4, 4, 4, 4, 4, 4],
}
WESSELINK = {
    'name': 'UNet',
    'spatial_dims': 3,
    'in_channels': 1,
    'out_channels': 7,
    'channels': [4, 4, 4, 4, 4],
    'strides': [1, 2, 2, 2],
    'num_res_units': 2,
    'norm': 'INSTANCE',
}


def parameters(config: dict[str, Any]) -> int:
    return sum(p.numel() for p in build_network(config).parameters() if p.requires_grad)


def test_the_dense_vnet_is_as_large_as_webers_checkpoint() -> None:
    assert parameters(WEBER) == 893_321


@pytest.mark.parametrize(
    ('dims', 'channels', 'count'),
    [
        (2, [16, 32, 64, 128, 256], 1_626_871),
        (3, [16, 32, 64, 128, 256], 4_811_593),
        (2, [16, 32, 64, 128, 256, 512], 6_519_287),
    ],
)
def test_the_residual_unet_of_wesselink(dims: int, channels: list[int], count: int) -> None:
    strides = [1] + [2] * (len(channels) - 2)
    config = {**WESSELINK, 'spatial_dims': dims, 'channels': channels, 'strides': strides}
    assert parameters(config) == count
    assert divisor(config) == 2 ** (len(channels) - 2)


@pytest.mark.parametrize('config', [WEBER, HESS, XIA, WESSELINK, RESIDUAL_UNET])
def test_logits_have_the_extent_of_the_image(config: dict[str, Any]) -> None:
    import torch

    step = divisor(config)
    shape = [step * n for n in (3, 2, 1)[: config['spatial_dims']]]
    if config['name'] == 'UNetCRF':
        shape = [32, 16]
    images = torch.randn(2, config['in_channels'], *shape)
    with torch.inference_mode():
        logits = build_network(config).eval()(images)
    assert logits.shape == (2, config['out_channels'], *shape)
    assert bool(logits.isfinite().all())


def test_the_dense_vnet_drops_features_for_the_whole_batch_in_training_alone() -> None:
    import torch

    from bids_muscle.segmentation.networks.dense_vnet import DenseStack

    stack = DenseStack(2, 3, 8, 1, dropout=0.5)
    images = torch.randn(4, 3, 8, 8)
    assert stack.width == 11
    off = (stack(images)[:, 3:] == 0).all((2, 3))
    assert bool((off == off[:1]).all())
    assert 0 < int(off[0].sum()) < 8
    assert not bool((stack.eval()(images)[:, 3:] == 0).all((2, 3)).any())


def test_dilation_and_prior_are_there_when_asked_for() -> None:
    import torch

    config = {**WEBER, 'spatial_dims': 2, 'dilations': [1, 2, 4], 'prior': 5}
    network = build_network(config).eval()
    with torch.no_grad():
        network.prior[0, 3] = 100
        assert bool((network(torch.randn(1, 2, 24, 16)).argmax(1) == 3).all())
    plain = {**config, 'dilations': [1, 1, 1], 'prior': 0}
    assert parameters(config) == parameters(plain) + 15 * 25


def test_each_level_of_the_vnet_halves_the_resolution() -> None:
    import torch

    assert parameters({**HESS, 'levels': 4}) > 3 * parameters(HESS)
    network = build_network(HESS).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 1, 16, 8))
    # The background has probability one half: a structure wins from there on.
    assert float(logits[:, 0].abs().max()) == 0
    rare = build_network({**HESS, 'first_logit': -3.0}).eval()
    with torch.inference_mode():
        assert float(rare(torch.randn(1, 1, 16, 8))[:, 1:].sigmoid().mean()) < 0.1


def dense_mean_field(logits: np.ndarray, image: np.ndarray, crf: Any) -> np.ndarray:
    """Mean field over all pairs of pixels, with whole matrices, for classes x pixels."""
    x, y = np.indices(image.shape).reshape(2, -1)
    distance = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    contrast = (image.ravel()[:, None] - image.ravel()) ** 2
    kernels = []
    for kernel in (
        np.exp(-distance / 2 / crf.alpha_px**2 - contrast / 2 / crf.beta**2),
        np.exp(-distance / 2 / crf.gamma_px**2),
    ):
        kernel = kernel - np.eye(len(kernel))
        root = 1 / np.sqrt(kernel.sum(1))
        kernels.append(kernel * root * root[:, None])
    weights, compatibility = crf.weights.detach().numpy(), crf.compatibility.detach().numpy()
    unary = logits - np.log(np.exp(logits).sum(0))
    refined = unary
    for _ in range(crf.iterations):
        q = np.exp(refined) / np.exp(refined).sum(0)
        message = sum(w[:, None] * (q @ k) for w, k in zip(weights, kernels, strict=True))
        refined = unary + compatibility.T @ message
    return refined


def test_the_mean_field_is_that_of_the_formula() -> None:
    import torch

    from bids_muscle.segmentation.networks.crf import CRF

    torch.manual_seed(0)
    crf = CRF(3, radius_px=8, step_px=1)
    with torch.no_grad():
        crf.weights.uniform_(0.2, 2)
        crf.compatibility.normal_()
    logits, image = torch.randn(2, 3, 9, 7), torch.randn(2, 1, 9, 7)
    found = crf(logits, image).detach().numpy()
    for i in range(2):
        wanted = dense_mean_field(
            logits[i].flatten(1).double().numpy(), image[i, 0].double().numpy(), crf
        )
        assert found[i].reshape(3, -1) == pytest.approx(wanted, abs=1e-4)


def test_the_random_field_removes_specks_but_keeps_edges_of_the_image() -> None:
    import torch

    from bids_muscle.segmentation.networks.crf import CRF

    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 24, 24, dtype=torch.int64)
    truth[:, 12:] = 1
    image = truth[:, None] * 2.0 - 1
    noise = 0.8 * torch.randn((1, 2, 24, 24), generator=generator)
    logits = torch.nn.functional.one_hot(truth, 2).movedim(3, 1) + noise

    def right(answer: torch.Tensor) -> float:
        return float((answer.argmax(1) == truth).float().mean())

    assert right(logits) < 0.85
    assert right(CRF(2)(logits, image)) > 0.94
    # Without the image the field also smooths over the edge.
    assert right(CRF(2)(logits, image)) > right(CRF(2, beta=100.0)(logits, image)) + 0.01


def test_the_random_field_is_trained_with_the_network() -> None:
    import torch

    network = build_network(XIA)
    network(torch.randn(2, 1, 16, 16)).square().mean().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
    assert float(network.crf.weights.grad.abs().min()) > 0
    assert float(network.crf.compatibility.grad.abs().max()) > 0


@pytest.mark.parametrize('config', [WEBER, HESS, XIA, WESSELINK])
def test_cuda_agrees_with_the_cpu(config: dict[str, Any]) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip('there is no CUDA device')
    torch.manual_seed(0)
    images = torch.randn(1, config['in_channels'], *[16] * config['spatial_dims'])
    network = build_network(config).eval()
    with torch.inference_mode():
        wanted = network(images)
        found = network.cuda()(images.cuda()).cpu()
    assert float((found - wanted).abs().max()) < 1e-2


@pytest.mark.parametrize(
    'config',
    [
        {**WEBER, 'name': 'Unknown'},
        {**WEBER, 'units': [1]},
        {**HESS, 'typo': 1},
        {**XIA, 'spatial_dims': 3},
        {**WESSELINK, 'strides': [2]},
    ],
)
def test_refuses_a_configuration_that_does_not_fit(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        build_network(config)


@pytest.mark.parametrize('dims', [2, 3])
def test_the_dense_vnet_deforms_the_image_and_brings_the_logits_back(
    dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def keep(self: DenseVNet, x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    monkeypatch.setattr(DenseVNet, '_logits', keep)
    network = DenseVNet(dims, 1, 2, augmentation=0.1)
    axes = [torch.linspace(1, 1.0 + k, n) for k, n in enumerate((24, 32, 16)[:dims], start=1)]
    image = sum(torch.meshgrid(*axes, indexing='ij')).expand(2, 1, -1, -1, *[-1] * (dims - 2))
    torch.manual_seed(0)
    logits = network(image)
    inner = (slice(None), slice(None), *[slice(4, -4)] * dims)
    assert float((seen[0] - image)[inner].abs().max()) > 0.02
    assert torch.allclose(logits[inner], image[inner], atol=0.02)
    network.eval()
    assert torch.equal(network(image), image)


def test_the_corners_move_inwards_by_a_tenth_at_most() -> None:
    torch.manual_seed(0)
    maps = random_maps(200, 3, 0.1)
    scales = maps[:, [0, 1, 2], [0, 1, 2]]
    assert float(scales.min()) > 0.9
    assert float(scales.max()) < 1
    assert float(scales.mean()) == pytest.approx(0.95, abs=0.003)
