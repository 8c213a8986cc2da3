"""Random views of stored planes: crop, affine, elastic deformation, mirroring."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bids_muscle.segmentation.training.sources import CENTER, PIXEL_MM, PLANE

if TYPE_CHECKING:
    import torch

#: Middle of the views in front of the origin, how far they stray, and how far some stray to where
#: nothing is to be found, mm.
VIEWS = {
    'lumbar': (22.0, 35.0, (75.0, 50.0)),
    'cervical': (22.0, 22.0, (45.0, 30.0)),
    'spine': (0.0, 35.0, (50.0, 25.0)),
}


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    """Uniform random numbers."""
    import torch

    return low + (high - low) * torch.rand(shape, generator=generator)


def smooth_field(
    generator: torch.Generator, count: int, shape: tuple[int, int], knots: tuple[int, int]
) -> torch.Tensor:
    """Smooth random fields of unit variance at the knots, shape (count, 1, x, y)."""
    import torch
    from torch.nn.functional import interpolate

    coarse = torch.randn((count, 1, *knots), generator=generator)
    return interpolate(coarse, size=shape, mode='bicubic', align_corners=True)


def random_views(
    generator: torch.Generator,
    count: int,
    window: tuple[int, int],
    spacing_mm: float,
    region: str = 'lumbar',
) -> torch.Tensor:
    """Draw where the pixels of random views lie in the stored planes.

    Parameters
    ----------
    generator
        Source of randomness.
    count
        Number of views.
    window
        Extent (x, y) of a view in pixels.
    spacing_mm
        Pixel size of a view.
    region
        ``'lumbar'``, ``'cervical'``, or ``'spine'`` for sagittal planes.

    Returns
    -------
    torch.Tensor
        Shape (count, x, y, 2): position (right, front) in mm from the middle of the back muscles.
    """
    import torch

    axes = [(torch.arange(n) - (n - 1) / 2) * spacing_mm for n in window]
    base = torch.stack(torch.meshgrid(*axes, indexing='ij'), -1)
    angle = uniform(generator, -1, 1, count) ** 3 * 0.35
    zoom = torch.exp(uniform(generator, -0.25, 0.25, count))
    stretch = torch.exp(uniform(generator, -0.10, 0.10, count))
    shear = uniform(generator, -0.1, 0.1, count)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack(
        [cos * zoom * stretch, -sin * zoom + shear, sin * zoom, cos * zoom / stretch], -1
    ).view(count, 2, 2)
    # Most views are about the muscles; some look far to a side, where nothing is to be found.
    far = (torch.rand(count, generator=generator) < 0.1).float()
    front, stray, farther = VIEWS[region]
    shift = torch.stack(
        [
            uniform(generator, -1, 1, count) * (stray + farther[0] * far),
            front + uniform(generator, -1, 1, count) * (stray + farther[1] * far),
        ],
        -1,
    )
    elastic = torch.cat(
        [smooth_field(generator, count, window, (7, 5)) for _ in range(2)], 1
    ).permute(0, 2, 3, 1)
    amount = uniform(generator, 0, 4.5, count).view(-1, 1, 1, 1)
    points = torch.einsum('nij,xyj->nxyi', matrix, base) + shift[:, None, None, :]
    return points + amount * elastic


def sample_nearest(planes: torch.Tensor, points_mm: torch.Tensor, outside: int) -> torch.Tensor:
    """Labels at points: (n, X, Y) and (n, x, y, 2) to (n, x, y)."""
    import torch

    index = (points_mm / PIXEL_MM + torch.tensor(CENTER)).round().long()
    x, y = index[..., 0], index[..., 1]
    inside = (x >= 0) & (x < PLANE[0]) & (y >= 0) & (y < PLANE[1])
    rows = torch.arange(len(planes)).view(-1, 1, 1)
    found = planes[rows, x.clamp(0, PLANE[0] - 1), y.clamp(0, PLANE[1] - 1)]
    return torch.where(inside, found, torch.full_like(found, outside))


def sample_linear(planes: torch.Tensor, points_mm: torch.Tensor) -> torch.Tensor:
    """Images at points: (n, c, X, Y) and (n, x, y, 2) to (n, c, x, y); zero outside."""
    import torch
    from torch.nn.functional import grid_sample

    pixels = points_mm / PIXEL_MM + torch.tensor(CENTER, dtype=torch.float32)
    # grid_sample wants the last axis first, and -1..1 between the outer edges.
    extent = torch.tensor(PLANE, dtype=torch.float32)
    grid = ((pixels + 0.5) / extent * 2 - 1).flip(-1)
    return grid_sample(planes, grid, mode='bilinear', padding_mode='zeros', align_corners=False)


def gaussian_blur(planes: torch.Tensor, sigma_px: torch.Tensor) -> torch.Tensor:
    """Blur each plane (n, c, x, y) with its own Gaussian per axis, sigma (n, 2) in pixels."""
    import torch
    from torch.nn.functional import conv2d, pad

    radius = max(1, math.ceil(2.5 * float(sigma_px.max())))
    offsets = torch.arange(-radius, radius + 1).float()
    kernel = torch.exp(-0.5 * (offsets / sigma_px.clamp(min=0.05)[..., None]) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    count, channels, width, height = planes.shape
    rows = planes.permute(1, 0, 2, 3)
    rows = pad(rows, (0, 0, radius, radius), mode='replicate')
    rows = conv2d(rows, kernel[:, 0, None, :, None], groups=count)
    rows = pad(rows, (radius, radius, 0, 0), mode='replicate')
    rows = conv2d(rows, kernel[:, 1, None, None, :], groups=count)
    return rows.permute(1, 0, 2, 3).reshape(count, channels, width, height)


def mirror(
    images: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor, which: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mirror the chosen views left to right and swap right (odd) and left (even) labels.

    Of a map with the right muscles alone, the mirrored view has the left ones alone: what is asked
    for is swapped, too.

    Parameters
    ----------
    images
        Shape (n, c, x, y) or (n, c, x, y, z).
    labels
        Shape (n, x, y) or (n, x, y, z), numbers of the label table.
    asked
        Shape (n, classes - 1): the label that each label counts as, right and left in turn.
    which
        Shape (n,), bool.
    """
    import torch

    images = torch.where(which.view(-1, *[1] * (images.ndim - 1)), images.flip(2), images)
    flipped = other_side(labels.flip(1))
    labels = torch.where(which.view(-1, *[1] * (labels.ndim - 1)), flipped, labels)
    swapped = other_side(asked)[:, torch.arange(asked.shape[1]) ^ 1]
    return images, labels, torch.where(which[:, None], swapped, asked)


def other_side(labels: torch.Tensor) -> torch.Tensor:
    """Return left for right labels and right for left ones; what is not above 0 stays.

    Examples
    --------
    >>> import torch
    >>> other_side(torch.tensor([-100, 0, 1, 2, 3])).tolist()
    [-100, 0, 2, 1, 4]
    """
    import torch

    return torch.where(labels > 0, (labels - 1 ^ 1) + 1, labels)
