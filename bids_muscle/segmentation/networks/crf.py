"""U-Net with a conditional random field as recurrent layer, Xia 2019."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn.functional import conv2d, pad

#: Channels of the U-Net of Ronneberger 2015 by resolution, and those before the last convolution.
RONNEBERGER = (64, 128, 256, 512, 1024, 64)


class UNetCRF(nn.Module):
    """U-Net of Ronneberger 2015, its probabilities refined by :class:`CRF`, trained as one.

    Parameters
    ----------
    spatial_dims
        2: the random field is made for planes.
    in_channels, out_channels
        Channels of the image; classes with the background.
    features
        Channels of the U-Net; fewer make it smaller.
    crf
        Arguments of :class:`CRF`.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: tuple[int, ...] = RONNEBERGER,
        crf: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise ValueError('the random field is made for spatial_dims = 2')
        # NiftyNet, on which Xia built, has batch norm and ReLU in its U-Net.
        self.unet = BasicUNet(
            2, in_channels, out_channels, features, act=('relu', {'inplace': True}), norm='batch'
        )
        self.crf = CRF(out_channels, **(crf or {}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, out_channels, x, y) of images (batch, in_channels, x, y)."""
        logits = self.unet(x)
        # Sums over many pixels and over iterations are more than half precision can hold.
        with torch.autocast('cuda' if x.is_cuda else 'cpu', enabled=False):
            return self.crf(logits.float(), x.float())


class CRF(nn.Module):
    """Mean field of a conditional random field, unrolled so that it can be trained (Zheng 2015).

    The unary energy is -log P of the network. The pairwise energy joins pixels by two kernels: an
    appearance kernel exp(-d^2 / 2 alpha^2 - c^2 / 2 beta^2) of the distance d and the difference
    of intensity c, and a smoothness kernel exp(-d^2 / 2 gamma^2). Each is normalised from both
    sides by the root of its row sums (Kraehenbuehl 2011). With the learned weights w of kernels
    and classes, and the learned compatibility M, an iteration is

        Q <- softmax(log P + (w_1 K_1 Q + w_2 K_2 Q) M)

    The field is not built from all pairs of pixels but from those in a window, after Teichmann
    2018: exact within it, differentiable, and the same on CPU and GPU.

    Parameters
    ----------
    classes
        Number of classes.
    iterations
        Of the mean field; Xia 2019 has 6. With 0 the U-Net is alone.
    alpha_px, beta, gamma_px
        Widths of the kernels, pixels and units of intensity. The paper does not tell them; the
        defaults suit images of unit variance.
    radius_px, step_px
        Pairs up to this distance along each axis count; of the appearance kernel beyond direct
        neighbours every how many-th.
    """

    def __init__(
        self,
        classes: int,
        iterations: int = 6,
        alpha_px: float = 5.0,
        beta: float = 0.5,
        gamma_px: float = 3.0,
        radius_px: int = 6,
        step_px: int = 2,
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.alpha_px, self.beta, self.gamma_px = alpha_px, beta, gamma_px
        along = range(-radius_px, radius_px + 1, step_px)
        near = {(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
        self.offsets = sorted((near | {(dx, dy) for dx in along for dy in along}) - {(0, 0)})
        self.radius_px = radius_px
        self.weights = nn.Parameter(torch.ones(2, classes))
        self.compatibility = nn.Parameter(torch.eye(classes))

    def forward(self, logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Refine logits.

        Parameters
        ----------
        logits
            Shape (batch, classes, x, y).
        image
            Shape (batch, channels, x, y).

        Returns
        -------
        torch.Tensor
            Logits of the field, shape (batch, classes, x, y).
        """
        unary = logits.log_softmax(1)
        if not self.iterations:
            return unary
        # The kernels belong to the image: nothing is to be learned through them.
        with torch.no_grad():
            appearance = self._appearance(image)
            ones = torch.ones_like(image[:, :1])
            roots = (
                self._join(appearance, ones).clamp(min=1e-6).rsqrt(),
                self._smooth(ones).rsqrt(),
            )
        refined = unary
        for _ in range(self.iterations):
            q = refined.softmax(1)
            from_alike = roots[0] * self._join(appearance, roots[0] * q)
            from_near = roots[1] * self._smooth(roots[1] * q)
            weights = self.weights[:, :, None, None]
            message = weights[0] * from_alike + weights[1] * from_near
            refined = unary + torch.einsum('nkxy,kc->ncxy', message, self.compatibility)
        return refined

    def _appearance(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Kernel of each offset, (batch, 1, x, y)."""
        kernel = []
        for (dx, dy), shifted in zip(self.offsets, self._shifted(image), strict=True):
            contrast = (image - shifted).square().sum(1, keepdim=True) / self.beta**2
            kernel.append(torch.exp(-((dx * dx + dy * dy) / self.alpha_px**2 + contrast) / 2))
        return kernel

    def _join(self, kernel: list[torch.Tensor], q: torch.Tensor) -> torch.Tensor:
        """Sum over the offsets of kernel times what lies there."""
        total = torch.zeros_like(q)
        for weight, shifted in zip(kernel, self._shifted(q), strict=True):
            total = torch.addcmul(total, weight, shifted)
        return total

    def _smooth(self, q: torch.Tensor) -> torch.Tensor:
        """Sum over all other pixels of the window, weighted by a Gaussian of the distance."""
        reach = torch.arange(-self.radius_px, self.radius_px + 1, device=q.device)
        line = torch.exp(-((reach / self.gamma_px) ** 2) / 2)
        rows = q.flatten(0, 1)[:, None]
        rows = conv2d(rows, line.view(1, 1, -1, 1), padding=(self.radius_px, 0))
        rows = conv2d(rows, line.view(1, 1, 1, -1), padding=(0, self.radius_px))
        return rows.view_as(q) - q

    def _shifted(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """Give views of what lies at each offset from every pixel; 0 outside."""
        width, height = planes.shape[2:]
        r = self.radius_px
        padded = pad(planes, (r, r, r, r))
        return [
            padded[:, :, r + dx : r + dx + width, r + dy : r + dy + height]
            for dx, dy in self.offsets
        ]
