"""Networks, built from the plain configuration that a model bundle carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

#: The lumbar network: Wesselink's residual U-Net in 2-D, its channels halved and its first layer
#: at half resolution, so that two cores train it in an hour and segment a scan in seconds.
RESIDUAL_UNET = {
    'name': 'UNet',
    'spatial_dims': 2,
    'in_channels': 1,
    'out_channels': 9,
    'channels': [16, 32, 64, 128, 192],
    'strides': [2, 2, 2, 2],
    'num_res_units': 2,
}

#: Arguments of a U-Net that is built without MONAI, which takes a second to import.
_PLAIN = {
    'spatial_dims',
    'in_channels',
    'out_channels',
    'channels',
    'strides',
    'num_res_units',
}


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build a network from its configuration.

    Parameters
    ----------
    config
        ``name``, ``spatial_dims`` (2 or 3), ``in_channels``, ``out_channels`` (background
        included), and what the network of that name takes besides:

        ``'UNet'``
            MONAI's, as Wesselink 2022 had it: residual units, stride-2 convolutions, leaky ReLU
            and instance norm (with learned scale and offset unless ``norm`` says otherwise).
        ``'DenseVNet'``
            Weber 2021: :class:`~bids_muscle.segmentation.networks.dense_vnet.DenseVNet`.
        ``'VNet'``
            Hess 2022: :class:`~bids_muscle.segmentation.networks.vnet.VNet`.
        ``'UNetCRF'``
            Xia 2019: :class:`~bids_muscle.segmentation.networks.crf.UNetCRF`.

    Returns
    -------
    torch.nn.Module
        From (batch, in_channels, x, y) to logits (batch, out_channels, x, y), or with
        ``spatial_dims`` 3 from (batch, in_channels, x, y, z) to (batch, out_channels, x, y, z);
        the extents must be multiples of :func:`divisor`.

    Raises
    ------
    ModelError
        If the name is unknown or an argument does not fit.
    """
    arguments = dict(config)
    builders = {
        'UNet': _unet,
        'DenseVNet': _dense_vnet,
        'VNet': _vnet,
        'UNetCRF': _unet_crf,
    }
    name = arguments.pop('name', None)
    if name not in builders:
        raise ModelError(
            f'The network {name!r} of the model is unknown.',
            'Use a model made for this version of bids_muscle.',
        )
    try:
        return builders[name](arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f'The network configuration of the model is not valid: {error}.',
            'Use a model made for this version of bids_muscle.',
        ) from error


def divisor(config: Mapping[str, Any]) -> int:
    """Return the number that each extent of what the network sees must be a multiple of.

    Examples
    --------
    >>> divisor(RESIDUAL_UNET)
    16
    >>> divisor({'name': 'VNet', 'levels': 3})
    8
    """
    name = config['name']
    if name == 'UNet':
        return math.prod(int(stride) for stride in config['strides'])
    if name == 'VNet':
        return 2 ** int(config['levels'])
    return 8 if name == 'DenseVNet' else 16


def _unet(arguments: dict[str, Any]) -> nn.Module:
    if len(arguments['strides']) != len(arguments['channels']) - 1:
        raise ValueError('there must be one stride fewer than channels')
    if not arguments['strides']:
        raise ValueError('there must be two channels or more')
    if arguments.keys() == _PLAIN and arguments['num_res_units'] > 0:
        from bids_muscle.segmentation.networks.unet import ResidualUNet

        return ResidualUNet(**arguments)
    from monai.networks.nets import UNet

    return UNet(**{'act': 'LEAKYRELU', 'norm': ('INSTANCE', {'affine': True}), **arguments})


def _dense_vnet(arguments: dict[str, Any]) -> nn.Module:
    from bids_muscle.segmentation.networks.dense_vnet import DenseVNet

    return DenseVNet(**arguments)


def _vnet(arguments: dict[str, Any]) -> nn.Module:
    from bids_muscle.segmentation.networks.vnet import VNet

    return VNet(**arguments)


def _unet_crf(arguments: dict[str, Any]) -> nn.Module:
    from bids_muscle.segmentation.networks.crf import UNetCRF

    return UNetCRF(**arguments)
