"""Dense V-Net of Gibson 2018, as Weber 2021 used it from NiftyNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Norm, Pool
from torch import nn
from torch.nn.functional import affine_grid, grid_sample, interpolate

#: Features of each unit of a dense stack and of the skip connection after it.
STACKS, SKIPS = (4, 8, 16), (12, 24, 24)
#: Features of the first convolution and of those that halve the resolution.
FEATURES = 24


class DenseVNet(nn.Module):
    """Dense feature stacks at three resolutions, from half of the input's on.

    The input is halved once, by a convolution beside an average. Three dense stacks follow, with
    convolutions of stride 2 between them; a skip convolution from each is enlarged to half
    resolution, and all of them together give the logits, which are enlarged to the input.
    With 2 channels, 15 classes and the defaults the network has the 893,321 trainable parameters
    of the published checkpoint of Weber 2021: NiftyNet 0.6 leaves dropout, dilation and prior off
    unless they are asked for.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels, out_channels
        Channels of the image; classes with the background.
    units
        Units in each of the three dense stacks.
    dilations
        Dilation of the convolutions in each stack.
    dropout
        Share of the features of a unit that is dropped in training, the same for the whole batch
        (Gibson's batch-wise spatial dropout).
    prior
        Extent in pixels of a learned spatial prior that is added to the logits, after Gibson
        2018; 0 for none.
    augmentation
        In training the image is deformed by a random affine map, and the logits by its inverse
        (NiftyNet's ``augmentation_scale``, 0.1 unless it is set): each corner of the image moves
        inwards by up to this share of the half extent along each axis. 0 for none.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        units: Sequence[int] = (5, 10, 10),
        dilations: Sequence[int] = (1, 1, 1),
        dropout: float = 0.0,
        prior: int = 0,
        augmentation: float = 0.0,
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.mode = {2: 'bilinear', 3: 'trilinear'}[spatial_dims]
        self.average = nn.Sequential(
            Pool[Pool.AVG, spatial_dims](3, stride=2, padding=1, count_include_pad=False),
            Norm[Norm.BATCH, spatial_dims](in_channels),
        )
        self.first = Convolution(
            spatial_dims,
            in_channels,
            FEATURES,
            strides=2,
            kernel_size=5,
            bias=False,
            act=None,
            norm='BATCH',
        )
        width = FEATURES + in_channels
        self.stacks, self.skips, self.downs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for growth, skip, count, dilation in zip(STACKS, SKIPS, units, dilations, strict=True):
            stack = DenseStack(spatial_dims, width, growth, count, dilation, dropout)
            self.stacks.append(stack)
            self.skips.append(_unit(spatial_dims, stack.width, skip))
            if len(self.stacks) < len(STACKS):
                self.downs.append(_unit(spatial_dims, stack.width, FEATURES, stride=2))
            width = FEATURES
        self.last = Convolution(
            spatial_dims, in_channels + sum(SKIPS), out_channels, kernel_size=3, conv_only=True
        )
        shape = (1, out_channels, *[prior] * spatial_dims)
        self.prior = nn.Parameter(torch.zeros(shape)) if prior else None
        self.apply(_start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, out_channels, x, y[, z]) of images (batch, in_channels, x, y[, z])."""
        if self.training and self.augmentation:
            maps = random_maps(len(x), x.ndim - 2, self.augmentation).to(x)
            return apply_maps(self._logits(apply_maps(x, maps)), torch.linalg.inv(maps))
        return self._logits(x)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        average = self.average(x)
        features = torch.cat([average, self.first(x)], 1)
        half, found = average.shape[2:], [average]
        for level, stack in enumerate(self.stacks):
            features = stack(features)
            found.append(self._resize(self.skips[level](features), half))
            if level < len(self.downs):
                features = self.downs[level](features)
        logits = self._resize(self.last(torch.cat(found, 1)), x.shape[2:])
        return logits if self.prior is None else logits + self._resize(self.prior, x.shape[2:])

    def _resize(self, features: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return interpolate(features, size=size, mode=self.mode)


def random_maps(count: int, spatial_dims: int, scale: float) -> torch.Tensor:
    """Draw affine maps as NiftyNet's augmentation layer does.

    The corners of the cube from -1 to 1 move inwards by up to `scale` along each axis, each by
    itself; the map is the affine one with the least squared error at the corners.

    Returns
    -------
    torch.Tensor
        (count, spatial_dims + 1, spatial_dims + 1), from where a pixel is put to where it is
        taken from.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * spatial_dims)
    moved = corners * (1 - scale * torch.rand(count, *corners.shape))
    known = torch.cat([corners, torch.ones(len(corners), 1)], 1)
    maps = torch.eye(spatial_dims + 1).repeat(count, 1, 1)
    maps[:, :-1] = (torch.linalg.pinv(known) @ moved).mT
    return maps


def apply_maps(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Resample (batch, channels, x, y[, z]) linearly by a map of each, 0 from outside."""
    # grid_sample counts axes from the last.
    order = [*range(images.ndim - 3, -1, -1)]
    theta = maps[:, order][:, :, [*order, images.ndim - 2]]
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid.to(images), align_corners=False)


class DenseStack(nn.Module):
    """Units that each see the input and the features of all units before them.

    ``width`` is the number of features of the result: all of them.
    """

    def __init__(
        self,
        spatial_dims: int,
        width: int,
        growth: int,
        units: int,
        dilation: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            _unit(spatial_dims, width + growth * i, growth, dilation=dilation)
            for i in range(units)
        )
        self.width = width + growth * units
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (batch, width, ...) to (batch, self.width, ...)."""
        for unit in self.units:
            new = unit(x)
            if self.training and self.dropout:
                shape = (1, new.shape[1], *[1] * (new.ndim - 2))
                kept = torch.rand(shape, device=new.device) >= self.dropout
                new = new * kept / (1 - self.dropout)
            x = torch.cat([x, new], 1)
        return x


def _unit(
    spatial_dims: int, width: int, features: int, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Convolution of extent 3, batch norm, ReLU."""
    return Convolution(
        spatial_dims,
        width,
        features,
        strides=stride,
        kernel_size=3,
        dilation=dilation,
        bias=False,
        adn_ordering='NA',
        act='RELU',
        norm='BATCH',
    )


def _start(module: nn.Module) -> None:
    """Start with truncated normal weights of He's variance, as NiftyNet does."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        fan_in, _ = nn.init._calculate_fan_in_and_fan_out(module.weight)
        sd = (2 / fan_in) ** 0.5
        nn.init.trunc_normal_(module.weight, std=sd, a=-2 * sd, b=2 * sd)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
