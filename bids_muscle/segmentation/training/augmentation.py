"""Random contrasts and imperfections for images that are there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_muscle.segmentation.training.geometry import gaussian_blur, smooth_field, uniform

if TYPE_CHECKING:
    import torch

#: Knots of the random look-up tables per axis.
KNOTS = 5


def random_contrast(
    generator: torch.Generator,
    images: torch.Tensor,
    two_channels: bool,
    displaced: float = 0.0,
    echoes: float = 0.0,
) -> torch.Tensor:
    """Turn water and fat, or one image, into one image of a random contrast.

    Parameters
    ----------
    generator
        Source of randomness.
    images
        Shape (n, 2, x, y), about 0..1: water and fat. Where ``two_channels`` is False the first
        channel is the image and the second is not used.
    two_channels
        Whether the images are water and fat.
    displaced
        Share of the images with fat displaced against water.
    echoes
        Share of the images that are gradient echoes, see :func:`gradient_echo`.

    Returns
    -------
    torch.Tensor
        Shape (n, 1, x, y).
    """
    import torch

    images = images.clamp(0, 1.5)
    if not two_channels:
        return _recolor(generator, images[:, :1])
    water, fat = images[:, :1], images[:, 1:]
    scale = torch.exp(uniform(generator, -0.5, 0.5, len(images), 1, 1, 1))
    moved = displace(generator, fat, displaced)
    options = (
        water,
        fat,
        water + scale * moved,  # in-phase, T1w, T2w
        (water - scale * moved).abs(),  # opposed-phase
        0.35 * water + scale * moved,  # T2w: bright fat, dark muscle
        fat / (fat + water).clamp(min=0.12),  # fat fraction, noise-free in air
        _look_up(generator, water, moved),
        _recolor(generator, water + scale * moved),
    )
    chances = torch.tensor([0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.2, 0.05])
    chosen = torch.multinomial(chances, len(images), replacement=True, generator=generator)
    mixed = torch.stack([options[int(c)][i] for i, c in enumerate(chosen)])
    if not echoes:
        return mixed
    there = torch.rand((len(images), 1, 1, 1), generator=generator) < echoes
    return torch.where(there, gradient_echo(generator, water, scale * moved), mixed)


def gradient_echo(
    generator: torch.Generator, water: torch.Tensor, fat: torch.Tensor
) -> torch.Tensor:
    """Add water and fat, (n, c, x, y), at a random angle between their signals.

    At echo times between in phase and opposed phase they cancel in part where a pixel has both:
    muscles and fat of the same brightness are then parted by dark lines.
    """
    angle = uniform(generator, 0, math.pi, len(water), 1, 1, 1)
    along = water + angle.cos() * fat
    return (along**2 + (angle.sin() * fat) ** 2).sqrt()


def displace(generator: torch.Generator, fat: torch.Tensor, share: float) -> torch.Tensor:
    """Move a share of the images of fat, (n, c, x, y), along one axis: the chemical shift.

    At usual bandwidths fat lands one or two pixels beside the water of its place; what is beside
    a muscle then covers its edge, and leaves a dark rim on the other side.
    """
    import torch

    if not share:
        return fat
    rows = []
    for image in fat:
        step = round(float(uniform(generator, -2.5, 2.5, 1)))
        axis = 1 + int(torch.randint(2, (1,), generator=generator))
        there = float(torch.rand(1, generator=generator)) < share
        rows.append(image.roll(step, axis) if there else image)
    return torch.stack(rows)


def _recolor(generator: torch.Generator, image: torch.Tensor) -> torch.Tensor:
    """Keep, invert within the body, or pass through a random look-up table."""
    import torch

    n = len(image)
    # Air stays air: the inverted image of a body has no bright surroundings.
    body = ((image - 0.03) / 0.05).clamp(0, 1)
    inverted = body * (uniform(generator, 0.85, 1.2, n, 1, 1, 1) - image).clamp(min=0.02)
    options = (image, inverted, _look_up(generator, image, torch.zeros_like(image)))
    chances = torch.tensor([0.4, 0.25, 0.35])
    chosen = torch.multinomial(chances, n, replacement=True, generator=generator)
    return torch.stack([options[int(c)][i] for i, c in enumerate(chosen)])


def _look_up(
    generator: torch.Generator, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """Pass two channels through a random smooth two-dimensional table per image."""
    import torch
    from torch.nn.functional import grid_sample

    n = len(first)
    table = torch.rand((n, 1, KNOTS, KNOTS), generator=generator)
    # Half of the tables rise with the signal, so that anatomy keeps its look.
    slope = uniform(generator, -1, 1, n, 2)
    axis = torch.linspace(0, 1, KNOTS)
    plane = slope[:, 0, None, None] * axis[:, None] + slope[:, 1, None, None] * axis
    mix = (torch.rand((n, 1, 1, 1), generator=generator) < 0.5).float() * 0.7
    table = (1 - mix) * table + mix * (plane[:, None] + 1) / 2
    where = torch.cat([second, first], 1).permute(0, 2, 3, 1) * 2 - 1
    found = grid_sample(table, where, mode='bilinear', padding_mode='border', align_corners=True)
    body = ((first + second - 0.03) / 0.05).clamp(0, 1)
    return found * body


def add_fascia(
    generator: torch.Generator, images: torch.Tensor, labels: torch.Tensor, share: float
) -> torch.Tensor:
    """Darken thin lines along parts of the edges of the muscles in a share of the images.

    Connective tissue has no signal. Where fat is about as bright as muscle, as in gradient echoes
    and near a coil, it is all that parts two muscles.

    Parameters
    ----------
    images
        Shape (n, 1, x, y).
    labels
        Shape (n, x, y).
    """
    import torch
    from torch.nn.functional import max_pool2d

    if not share:
        return images
    n, shape = len(images), (images.shape[2], images.shape[3])
    values = labels.float()[:, None]
    edge = (max_pool2d(values, 3, 1, 1) != values).float()
    line = gaussian_blur(edge, uniform(generator, 0.2, 0.8, n, 1).expand(-1, 2))
    patches = smooth_field(generator, n, shape, (14, 9))
    present = torch.sigmoid(3 * (patches + uniform(generator, -1.5, 2.5, n, 1, 1, 1)))
    depth = uniform(generator, 0.1, 0.9, n, 1, 1, 1)
    chosen = (torch.rand((n, 1, 1, 1), generator=generator) < share).float()
    return images * (1 - chosen * depth * present * line)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The share of the images that have a fault of real scans.

    Parameters
    ----------
    ghosted
        Ghosts.
    coils
        Brightest near single elements of a coil.
    clipped
        The brightest part is saturated.
    flowing
        Ghosts of vessels.
    metal
        A void.
    faint
        From the edge of a slab, where there is little signal above the noise.
    faded
        Dark and noisy to the front, or with a saturation band.
    thick
        Cut through a stack of thick slices, across the first axis.
    """

    ghosted: float = 0.0
    coils: float = 0.0
    clipped: float = 0.0
    flowing: float = 0.0
    metal: float = 0.0
    faint: float = 0.0
    faded: float = 0.0
    thick: float = 0.0


def degrade(
    generator: torch.Generator, images: torch.Tensor, faults: Faults
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bias field, blur, lower resolution, gamma, ghosts, noise and a cut field of view.

    Parameters
    ----------
    images
        Shape (n, 1, x, y), about 0..1.
    faults
        Which of them have which fault.

    Returns
    -------
    images
        Same shape.
    inside
        Shape (n, x, y), bool, False where the field of view was cut away.
    """
    import torch
    from torch.nn.functional import interpolate

    n, shape = len(images), (images.shape[2], images.shape[3])

    def chance(p: float) -> torch.Tensor:
        return (torch.rand((n, 1, 1, 1), generator=generator) < p).float()

    gamma = torch.exp(uniform(generator, -0.5, 0.5, n, 1, 1, 1) * chance(0.5))
    images = images.clamp(min=1e-4) ** gamma
    field = smooth_field(generator, n, shape, (4, 3)) * uniform(generator, 0, 0.35, n, 1, 1, 1)
    # Surface coils: bright at the back.
    ramp = torch.linspace(1, -1, shape[1]) * uniform(generator, 0, 1.2, n, 1, 1, 1)
    images = images * torch.exp(field * chance(0.7) + ramp * chance(0.35))
    images = _near_coils(generator, images, faults.coils)
    images = _void(generator, images, faults.metal)
    sigma = uniform(generator, 0.05, 1.2, n, 2) * chance(0.5)[:, 0, 0]
    images = gaussian_blur(images, sigma)
    rows = []
    for image, coarse in zip(images, chance(0.25).flatten(), strict=True):
        if coarse:
            factor = 1 / float(uniform(generator, 1.1, 2.0, 1))
            small = interpolate(image[None], scale_factor=factor, mode='bilinear', antialias=True)
            image = interpolate(small, size=shape, mode='bilinear')[0]
        rows.append(image)
    images = _thick(generator, torch.stack(rows), faults.thick)
    images = _ghosts(generator, images, faults.ghosted)
    images = _flow(generator, images, faults.flowing)
    level = uniform(generator, 0, 1, n, 1, 1, 1) ** 2 * 0.08
    if faults.faint:
        level = torch.maximum(level, uniform(generator, 0, 0.2, n, 1, 1, 1) * chance(faults.faint))
    top = images.flatten(1).quantile(0.95, dim=1).view(-1, 1, 1, 1)
    noise = level * top * torch.randn((n, 2, *shape), generator=generator)
    # Magnitude images: noise is Rician.
    images = ((images + noise[:, :1]) ** 2 + noise[:, 1:] ** 2).sqrt()
    images = _clip(generator, images, faults.clipped)
    images = _fade(generator, images, faults.faded)
    inside = _field_of_view(generator, n, shape)
    return images * inside, inside[:, 0] > 0


def _thick(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Show some images as they are reformatted from slices of 2.5 to 8 pixels."""
    import torch
    from torch.nn.functional import interpolate

    if not share:
        return images
    rows = []
    for image in images:
        size = image.shape[1:]
        n_slices = round(size[0] / float(uniform(generator, 2.5, 8, 1)))
        there = float(torch.rand(1, generator=generator)) < share
        if there:
            slices = interpolate(image[None], size=(n_slices, size[1]), mode='area')
            image = interpolate(slices, size=size, mode='bicubic')[0].clamp(min=0)
        rows.append(image)
    return torch.stack(rows)


def _near_coils(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Brighten some images around one to three places, mostly at the back."""
    import torch

    if not share:
        return images
    width, height = images.shape[2:]
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing='ij')
    rows = []
    for image in images:
        field = torch.ones((width, height))
        for _ in range(1 + int(torch.randint(3, (1,), generator=generator))):
            across, along, size, strength = uniform(generator, 0, 1, 4).tolist()
            radius = height * (0.12 + 0.3 * size)
            squared = (x - across * width) ** 2 + (y - height * (0.8 * along**2 - 0.1)) ** 2
            field += 4 * strength / (1 + squared / radius**2) ** 1.5
        there = float(torch.rand(1, generator=generator)) < share
        rows.append(image * field if there else image)
    return torch.stack(rows)


def _fade(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Let some images fade and get noisy to the front, and darken a band across others.

    Surface coils see little of the front. Once the brightness is corrected, the noise is left.
    """
    import torch

    if not share:
        return images
    width, height = images.shape[2:]
    x, y = torch.meshgrid(
        torch.linspace(-1, 1, width), torch.linspace(0, 1, height), indexing='ij'
    )
    rows = []
    for image in images:
        fall, corrected, level, turn, where, size, depth = uniform(generator, 0, 1, 7).tolist()
        noise = torch.randn((2, *image.shape), generator=generator)
        fades, banded = (torch.rand(2, generator=generator) < share).tolist()
        if fades:
            field = torch.exp(-(0.5 + 2.5 * fall) * y)
            floor = 0.04 * level**2 * float(image.quantile(0.95))
            image = ((image * field + floor * noise[0]) ** 2 + (floor * noise[1]) ** 2).sqrt()
            image = image / field**corrected
        if banded:
            # Mostly in front of the spine, tilted, with soft edges.
            along = y + 0.5 * (turn - 0.5) * x
            edge = (0.03 + 0.2 * size - (along - 0.35 - 0.55 * where).abs()) / 0.03
            image = image * (1 - (0.3 + 0.65 * depth) * torch.sigmoid(edge))
        rows.append(image)
    return torch.stack(rows)


def _ghosts(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Add fainter copies of some images to both sides along one axis, as moving tissue does."""
    import torch

    if not share:
        return images
    rows = []
    for image in images:
        axis = 1 + int(torch.randint(2, (1,), generator=generator))
        step = int(float(uniform(generator, 0.1, 0.5, 1)) * image.shape[axis])
        strength = float(uniform(generator, 0, 0.2, 1))
        there = float(torch.rand(1, generator=generator)) < share
        copies = image.roll(step, axis) + image.roll(-step, axis)
        rows.append(image + strength * copies if there else image)
    return torch.stack(rows)


def _flow(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Add a row of copies of the brightest parts of some images, as of pulsating vessels."""
    import torch

    if not share:
        return images
    rows = []
    for image in images:
        axis = 1 + int(torch.randint(2, (1,), generator=generator))
        step = int(float(uniform(generator, 0.04, 0.25, 1)) * image.shape[axis])
        strength = float(uniform(generator, 0.05, 0.5, 1))
        there = float(torch.rand(1, generator=generator)) < share
        moving = (image - image.quantile(0.97)).clamp(min=0)
        copies = [(-1) ** k * moving.roll(k * step, axis) / abs(k) for k in (-3, -2, -1, 1, 2, 3)]
        rows.append((image + strength * sum(copies)).abs() if there else image)
    return torch.stack(rows)


def _void(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Take the signal from a round place in some images, and brighten its rim, as metal does."""
    import torch

    if not share:
        return images
    width, height = images.shape[2:]
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing='ij')
    rows = []
    for image in images:
        across, along, size, stretch = uniform(generator, 0, 1, 4).tolist()
        radius = width * (0.02 + 0.08 * size)
        u = (x - (0.3 + 0.4 * across) * width) / (radius * (0.6 + stretch))
        v = (y - (0.15 + 0.6 * along) * height) / radius
        away = (u**2 + v**2).sqrt()
        rim = float(uniform(generator, 0, 1, 1)) * torch.exp(-(((away - 1.2) / 0.15) ** 2))
        there = float(torch.rand(1, generator=generator)) < share
        rows.append(image * (torch.sigmoid(12 * (away - 1)) + rim) if there else image)
    return torch.stack(rows)


def _clip(generator: torch.Generator, images: torch.Tensor, share: float) -> torch.Tensor:
    """Saturate the brightest part of some images, suddenly or softly."""
    import torch

    if not share:
        return images
    rows = []
    for image in images:
        top = image.quantile(float(uniform(generator, 0.75, 0.98, 1))).clamp(min=1e-4)
        soft, there = (torch.rand(2, generator=generator) < torch.tensor([0.5, share])).tolist()
        flat = top * torch.tanh(image / top) if soft else image.clamp(max=float(top))
        rows.append(flat if there else image)
    return torch.stack(rows)


def _field_of_view(generator: torch.Generator, n: int, shape: tuple[int, int]) -> torch.Tensor:
    """Ones where the image has data; some images end inside the window."""
    import torch

    out = torch.ones((n, 1, *shape))
    for i in range(n):
        if float(torch.rand(1, generator=generator)) < 0.15:
            low = (uniform(generator, 0, 0.25, 2) * torch.tensor(shape)).long()
            high = ((1 - uniform(generator, 0, 0.25, 2)) * torch.tensor(shape)).long()
            cut = torch.zeros(shape)
            cut[low[0] : high[0], low[1] : high[1]] = 1
            out[i, 0] = cut
    return out
