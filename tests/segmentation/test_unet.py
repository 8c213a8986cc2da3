"""The residual U-Net without MONAI is MONAI's, weight by weight and bit by bit."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from bids_muscle.segmentation.networks import RESIDUAL_UNET, build_network
from bids_muscle.segmentation.networks.unet import ResidualUNet

SMALL = {'spatial_dims': 2, 'in_channels': 1, 'out_channels': 3, 'channels': [4, 8]}
CONFIGS: list[dict[str, Any]] = [
    {name: value for name, value in RESIDUAL_UNET.items() if name != 'name'},
    {**SMALL, 'strides': [2], 'num_res_units': 1},
    {**SMALL, 'channels': [4, 4, 6], 'strides': [1, 2], 'num_res_units': 3, 'in_channels': 2},
    {**SMALL, 'channels': [4, 4, 6], 'strides': [2, 1], 'num_res_units': 2, 'spatial_dims': 3},
]


@pytest.mark.parametrize('config', CONFIGS)
def test_weights_and_logits_are_those_of_monai(config: dict[str, Any]) -> None:
    from monai.networks.nets import UNet

    torch.manual_seed(1)
    theirs = UNet(act='LEAKYRELU', norm=('INSTANCE', {'affine': True}), **config)
    torch.manual_seed(1)
    ours = build_network({'name': 'UNet', **config})
    assert isinstance(ours, ResidualUNet)
    wanted, found = theirs.state_dict(), ours.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    images = torch.randn(2, config['in_channels'], *[32] * config['spatial_dims'])
    # In training, so that the gradients are compared too.
    for network in (theirs, ours):
        network(images).square().mean().backward()
    assert torch.equal(ours(images), theirs(images))
    for (name, mine), (_, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert torch.equal(mine.grad, other.grad), name


def test_the_models_of_the_package_do_without_monai() -> None:
    code = (
        'import sys\n'
        'from bids_muscle.segmentation.bundle import load_networks\n'
        'from bids_muscle.segmentation.catalogue import find_model\n'
        'for region in ("lumbar", "cervical", "spine"):\n'
        '    load_networks(find_model(None, region))\n'
        'sys.exit("monai" in sys.modules)\n'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
