"""V-Net of Milletari 2016 with a chosen number of levels, as in Table 2 of Hess 2022."""

from __future__ import annotations

import torch
from monai.networks.nets.vnet import (
    DownTransition,
    InputTransition,
    OutputTransition,
    UpTransition,
)
from torch import nn
from torch.nn.functional import pad

#: Channels at full resolution; each level has twice those of the one above.
FIRST = 16


class VNet(nn.Module):
    """V-Net from MONAI's blocks, which MONAI itself joins with four levels only.

    Each structure has a sigmoid of its own. The logit of the background is 0, so that the
    likeliest class is the structure with the greatest probability where one exceeds 0.5, and the
    background elsewhere.

    Parameters
    ----------
    spatial_dims
        2 or 3.
    in_channels
        Channels of the image; 16 must be a multiple of it.
    out_channels
        Structures and the background.
    levels
        How often the resolution is halved: 4 in Milletari's network, 3 or 4 in Hess 2022.
    dropout
        Share of the features that is dropped in training.
    first_logit
        Logit of every structure before training, 0 for a probability of 50 %. Where structures lie
        beside each other, start them as rare as they are (Lin et al. 2017, Focal loss, section
        4.1): else sigmoids saturate on their neighbours while they leave the background, and never
        come back.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        levels: int = 4,
        dropout: float = 0.0,
        first_logit: float = 0.0,
    ) -> None:
        super().__init__()
        act = ('elu', {'inplace': True})
        widths = [FIRST * 2**level for level in range(levels + 1)]
        self.first = InputTransition(spatial_dims, in_channels, FIRST, act)
        self.downs = nn.ModuleList(
            DownTransition(
                spatial_dims, width, min(level + 2, 3), act, dropout, dropout_dim=spatial_dims
            )
            for level, width in enumerate(widths[:-1])
        )
        # As many convolutions on the way up as on the way down, at the same resolution.
        self.ups = nn.ModuleList()
        width = widths[-1]
        for level in reversed(range(levels)):
            out = 2 * widths[level]
            self.ups.append(
                UpTransition(
                    spatial_dims,
                    width,
                    out,
                    min(level + 1, 3),
                    act,
                    (dropout, dropout),
                    dropout_dim=spatial_dims,
                )
            )
            width = out
        self.last = OutputTransition(spatial_dims, width, out_channels - 1, act)
        if first_logit:
            nn.init.constant_(self.last.get_parameter('conv2.bias'), first_logit)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, out_channels, x, y[, z]) of images (batch, in_channels, x, y[, z])."""
        features = [self.first(x)]
        for down in self.downs:
            features.append(down(features[-1]))
        out = features.pop()
        for up in self.ups:
            out = up(out, features.pop())
        structures = self.last(out)
        return pad(structures, (0, 0) * (x.ndim - 2) + (1, 0))
