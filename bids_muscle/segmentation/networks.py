"""Networks, built from the plain configuration that a model bundle carries."""

from __future__ import annotations

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


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build a network from its configuration.

    Parameters
    ----------
    config
        ``name`` (``'UNet'``) and the keyword arguments of the MONAI class of that name. The
        U-Net is that of Wesselink 2022: residual units, stride-2 convolutions, leaky ReLU and
        instance norm (here with learned scale and offset).

    Returns
    -------
    torch.nn.Module
        From (batch, in_channels, x, y) to logits (batch, out_channels, x, y).

    Raises
    ------
    ModelError
        If the name is unknown or an argument does not fit.
    """
    from monai.networks.nets import UNet

    arguments = dict(config)
    name = arguments.pop('name', None)
    if name != 'UNet':
        raise ModelError(
            f'The network {name!r} of the model is unknown.',
            'Use a model made for this version of bids_muscle.',
        )
    try:
        if len(arguments['strides']) != len(arguments['channels']) - 1:
            raise ValueError('there must be one stride fewer than channels')
        return UNet(act='LEAKYRELU', norm=('INSTANCE', {'affine': True}), **arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f'The network configuration of the model is not valid: {error}.',
            'Use a model made for this version of bids_muscle.',
        ) from error


def divisor(config: Mapping[str, Any]) -> int:
    """Return the number that the size of a plane must be a multiple of.

    Examples
    --------
    >>> divisor(RESIDUAL_UNET)
    16
    """
    product = 1
    for stride in config['strides']:
        product *= int(stride)
    return product
