"""The residual U-Net of Wesselink 2022 as MONAI builds it, without the import of MONAI.

Layers, names of weights, their first random values and the logits are those of
``monai.networks.nets.UNet``, whose package takes longer to import than a scan to segment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

_CONVOLUTIONS = {
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d),
}


class ResidualUNet(nn.Module):
    """Residual units, stride-2 convolutions, leaky ReLU, instance norm with scale and offset.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, out_channels
        Of the images, and of the logits.
    channels
        Of each level, the finest first.
    strides
        From each level to the next.
    num_res_units
        Convolutions of a residual unit on the way down, at least one.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[int],
        num_res_units: int,
    ) -> None:
        super().__init__()
        self._dims, self._units = spatial_dims, num_res_units
        self.model = self._level(in_channels, out_channels, channels, strides, top=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images."""
        logits: torch.Tensor = self.model(images)
        return logits

    def _level(
        self,
        n_in: int,
        n_out: int,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        top: bool = False,
    ) -> nn.Sequential:
        """Return the way down, all levels below, and the way up; those below are made first."""
        n, below, stride = channels[0], channels[1], strides[0]
        inner: nn.Module
        if len(channels) > 2:
            inner, n_inner = self._level(n, n, channels[1:], strides[1:]), n
        else:
            inner, n_inner = _ResidualUnit(self._dims, n, below, 1, self._units), below
        down = _ResidualUnit(self._dims, n_in, n, stride, self._units)
        up = nn.Sequential(
            _convolution(self._dims, n + n_inner, n_out, stride, up=True),
            _ResidualUnit(self._dims, n_out, n_out, 1, 1, last=top),
        )
        return nn.Sequential(down, _Skip(inner), up)


class _Skip(nn.Module):
    """Channels of what comes in, and of what the levels below make of it."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.submodule(x)], dim=1)


class _ResidualUnit(nn.Module):
    """Some convolutions, and what comes in added to what they make of it."""

    def __init__(
        self, dims: int, n_in: int, n_out: int, stride: int, units: int, *, last: bool = False
    ) -> None:
        super().__init__()
        steps = [(n_in, stride), *[(n_out, 1)] * (units - 1)]
        self.conv = nn.Sequential(
            OrderedDict(
                (f'unit{k}', _convolution(dims, n, n_out, step, bare=last and k == units - 1))
                for k, (n, step) in enumerate(steps)
            )
        )
        self.residual: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            size, padding = (1, 0) if stride == 1 else (3, 1)
            self.residual = _CONVOLUTIONS[dims][0](n_in, n_out, size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.residual(x)
        added: torch.Tensor = self.conv(x) + residual
        return added


def _convolution(
    dims: int, n_in: int, n_out: int, stride: int, *, up: bool = False, bare: bool = False
) -> nn.Sequential:
    """Return a convolution of 3 voxels, with its norm and activation unless it is bare."""
    plain, transposed, norm = _CONVOLUTIONS[dims]
    conv: nn.Module
    if up:
        conv = transposed(n_in, n_out, 3, stride, padding=1, output_padding=stride - 1)
    else:
        conv = plain(n_in, n_out, 3, stride, padding=1)
    parts: list[tuple[str, nn.Module]] = [('conv', conv)]
    if not bare:
        ends = [('N', norm(n_out, affine=True)), ('A', nn.LeakyReLU(inplace=True))]
        parts.append(('adn', nn.Sequential(OrderedDict(ends))))
    return nn.Sequential(OrderedDict(parts))
