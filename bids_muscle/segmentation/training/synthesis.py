"""Images made up from label maps: a random body around the muscles, random tissue signals.

After Billot 2020 (SynthSeg): a network that never sees the same contrast twice learns shapes. The
maps know only muscles, so bones, organs, bowel, fat and skin are painted as simple random shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_muscle.segmentation.training.augmentation import displace, gradient_echo
from bids_muscle.segmentation.training.geometry import gaussian_blur, smooth_field, uniform
from bids_muscle.segmentation.training.sources import (
    FIRST_OTHER,
    FIRST_TISSUE,
    OUTSIDE,
    UNKNOWN,
)

if TYPE_CHECKING:
    import torch

# Tissue numbers; muscles of the table keep theirs, structures of the map FIRST_OTHER up to AIR.
AIR, SKIN_FAT, CAVITY, WALL, BONE, CANAL = 40, 41, 42, 43, 44, 45
FIRST_ORGAN, ORGANS = 46, 5
TISSUES = 51


def synthesize(
    generator: torch.Generator,
    labels: torch.Tensor,
    points_mm: torch.Tensor,
    fat: torch.Tensor,
    region: str = 'lumbar',
    displaced: float = 0.0,
    echoes: float = 0.0,
) -> torch.Tensor:
    """Make one image for each view of a label map.

    Parameters
    ----------
    generator
        Source of randomness.
    labels
        Shape (n, x, y): 0 unknown, 1..19 muscles, 20.. other structures, 230.. tissues by name,
        255 outside the image.
    points_mm
        Shape (n, x, y, 2): position (right, front) in mm from the middle of the back muscles.
    fat
        Shape (n, x, y), 1 where the map says fat inside muscle, 0 elsewhere.
    region
        ``'lumbar'`` or ``'cervical'``: the body to paint.
    displaced
        Share of the images with fat displaced against water.
    echoes
        Share of the images that are gradient echoes with fat about as bright as muscle.

    Returns
    -------
    torch.Tensor
        Shape (n, 1, x, y), about 0..1.
    """
    import torch

    tissue = paint_body(generator, labels, points_mm, region)
    level, fat_level, spread = _signals(generator, len(labels))
    echo = torch.zeros(len(labels), dtype=torch.bool)
    if echoes:
        echo = torch.rand(len(labels), generator=generator) < echoes
        near = level[:, 1] * torch.exp(uniform(generator, -0.5, 0.9, len(labels)))
        fat_level = torch.where(echo, near, fat_level)
        for fatty_tissue in (SKIN_FAT, CAVITY):
            level[:, fatty_tissue] = torch.where(echo, near, level[:, fatty_tissue])
    rows = torch.arange(len(labels)).view(-1, 1, 1)
    is_muscle = (labels > 0) & (labels < FIRST_OTHER)
    share = _fat_share(generator, tissue, is_muscle, fat)
    lean = (1 - share) * level[rows, tissue]
    fatty = (tissue == SKIN_FAT) | (tissue == CAVITY)
    of_fat = share * fat_level.view(-1, 1, 1) + lean * fatty
    water, of_fat = lean * ~fatty, displace(generator, of_fat[:, None], displaced)[:, 0]
    image = water + of_fat
    if bool(echo.any()):
        # Pixels are larger than fascia is thin: both signals are in one before they cancel.
        width = uniform(generator, 0.3, 0.9, len(labels), 1).expand(-1, 2)
        parts = (gaussian_blur(part[:, None], width) for part in (water, of_fat))
        image = torch.where(echo.view(-1, 1, 1), gradient_echo(generator, *parts)[:, 0], image)
    shape = (image.shape[1], image.shape[2])
    fine = torch.randn(image.shape, generator=generator)
    coarse = smooth_field(generator, len(labels), shape, (24, 16))[:, 0]
    image = image + spread[rows, tissue] * (0.6 * fine + coarse)
    image = torch.where(tissue == AIR, 0.02 * fine.abs(), image)
    sigma = uniform(generator, 0.3, 0.8, len(labels), 1).expand(-1, 2)
    image = gaussian_blur(image[:, None], sigma).clamp(min=0)
    return image * (labels != OUTSIDE)[:, None]


def synthesize_complete(generator: torch.Generator, labels: torch.Tensor) -> torch.Tensor:
    """Make one image for each view of a map in which every structure has a number of its own.

    Each number gets a random signal, with the first label and the third (vertebrae and sacrum)
    mostly alike; 0 and what is outside are air. Edges may be dark, as of cortical bone, or bright.

    Parameters
    ----------
    generator
        Source of randomness.
    labels
        Shape (n, x, y).

    Returns
    -------
    torch.Tensor
        Shape (n, 1, x, y), about 0..1.
    """
    import torch
    from torch.nn.functional import max_pool2d

    n, shape = len(labels), (labels.shape[1], labels.shape[2])
    level = torch.rand((n, 256), generator=generator)
    alike = (torch.rand(n, generator=generator) < 0.8).float()
    near = (level[:, 1] + 0.06 * torch.randn(n, generator=generator)).clamp(0.02, 1)
    level[:, 3] = alike * near + (1 - alike) * level[:, 3]
    level[:, OUTSIDE] = level[:, 0] = 0
    rows = torch.arange(n).view(-1, 1, 1)
    image = level[rows, labels]
    values = labels.float()[:, None]
    edge = (max_pool2d(values, 3, 1, 1) != values)[:, 0]
    rim = uniform(generator, -1.2, 0.8, n, 1, 1).clamp(-1, 0.5) * (labels > 0)
    image = image * (1 + rim * edge)
    fine = torch.randn(image.shape, generator=generator)
    coarse = smooth_field(generator, n, shape, (30, 22))[:, 0]
    spread = uniform(generator, 0, 0.12, n, 256)[rows, labels]
    image = image + spread * (0.5 * fine + coarse)
    image = torch.where(level[rows, labels] == 0, 0.02 * fine.abs(), image)
    sigma = uniform(generator, 0.3, 0.9, n, 1).expand(-1, 2)
    return tint(generator, gaussian_blur(image[:, None], sigma).clamp(min=0), labels)


def tint(generator: torch.Generator, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Make bone (labels 1 and 3) and discs (2) brighter or darker in half of the views.

    Parameters
    ----------
    image
        Shape (n, 1, x, y).
    labels
        Shape (n, x, y).
    """
    import torch

    n = len(image)
    bone, disc = (labels == 1) | (labels == 3), labels == 2
    masks = torch.stack([bone, disc], 1).float()
    # Whole, as marrow differs between people, and from the middle, as the nucleus differs.
    whole = gaussian_blur(masks, torch.full((n, 2), 0.7))
    inner = gaussian_blur(masks, torch.full((n, 2), 3.0)) * whole
    strength = uniform(generator, -0.8, 0.8, 2, n, 2, 1, 1)
    change = (strength[0] * whole + strength[1] * inner).sum(1, keepdim=True)
    chosen = (torch.rand((n, 1, 1, 1), generator=generator) < 0.5).float()
    return image * torch.exp(change * chosen)


@dataclass(frozen=True)
class BodySizes:
    """Ranges, mm, of the size of a random body and of what lies around the muscles."""

    back_fat: float
    behind: float
    depth: tuple[float, float]
    half_width: tuple[float, float]
    wall: tuple[float, float]


BODIES = {
    'lumbar': BodySizes(45, 34, (150, 250), (120, 195), (6, 24)),
    'cervical': BodySizes(22, 22, (90, 150), (52, 95), (2, 8)),
}


def paint_body(
    generator: torch.Generator, labels: torch.Tensor, points_mm: torch.Tensor, region: str
) -> torch.Tensor:
    """Fill what a label map leaves open with a simple random body, tissue numbers (n, x, y)."""
    import torch

    n = len(labels)
    x, y = points_mm.unbind(-1)
    body = BODIES[region]
    # The maps differ in how far muscles reach to the back; the skin follows the muscles.
    back_fat = uniform(generator, 0, 1, n) ** 2 * body.back_fat + 3
    y_back = -body.behind - uniform(generator, 0, 10, n)
    depth, half_width = uniform(generator, *body.depth, n), uniform(generator, *body.half_width, n)
    power = uniform(generator, 2.0, 3.6, n).view(-1, 1, 1)

    def column(v: torch.Tensor) -> torch.Tensor:
        return v.view(-1, 1, 1)

    def oval(
        cx: torch.Tensor, cy: torch.Tensor, rx: torch.Tensor, ry: torch.Tensor
    ) -> torch.Tensor:
        u, v = (x - column(cx)).abs() / column(rx), (y - column(cy)).abs() / column(ry)
        return u**power + v**power

    middle = uniform(generator, -8, 8, n)
    inner_cy = y_back + depth / 2
    inner = oval(middle, inner_cy, half_width, depth / 2)
    outer = oval(middle, inner_cy, half_width + back_fat * 1.2, depth / 2 + back_fat)
    wall_mm = uniform(generator, *body.wall, n)
    cavity = oval(middle, inner_cy + 12, half_width - wall_mm, (depth / 2 - wall_mm).clamp(min=40))
    tissue = torch.full_like(labels, AIR)
    tissue[outer < 1] = SKIN_FAT
    # Between back muscles and skin there is fascia and fat rather than abdominal wall.
    behind = y < column(uniform(generator, 0, 25, n))
    tissue[(inner < 1) & ~behind] = WALL
    tissue[(inner < 1) & behind] = CAVITY
    tissue[(cavity < 1) & ~behind] = CAVITY
    paint = _paint_neck if region == 'cervical' else _paint_organs
    paint(_ellipses(generator, tissue, x - column(middle), y), generator)
    labelled = labels > 0
    # What may be anything looks like a structure of its own.
    named = (labels >= FIRST_TISSUE) & (labels < UNKNOWN)
    said = torch.where(named, labels - FIRST_TISSUE + AIR, labels.clamp(max=AIR - 1))
    tissue = torch.where(labelled & (labels != OUTSIDE), said, tissue)
    tissue[labels == OUTSIDE] = AIR
    return tissue


def _ellipses(
    generator: torch.Generator, tissue: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> Callable[..., None]:
    """Give a function that paints one ellipse of a random place and size into each plane."""
    import torch

    n = len(tissue)

    def ellipse(
        what: int,
        where: tuple[float, float],
        size: tuple[float, float],
        vary: float,
        turn: float = 0.0,
        chance: float = 1.0,
    ) -> None:
        cx, cy = (c + vary * torch.randn(n, generator=generator) for c in where)
        rx, ry = (r * torch.exp(uniform(generator, -0.25, 0.25, n)) for r in size)
        angle = turn + 0.3 * torch.randn(n, generator=generator)
        there = torch.rand(n, generator=generator) < chance
        dx, dy = x - cx.view(-1, 1, 1), y - cy.view(-1, 1, 1)
        cos, sin = torch.cos(angle).view(-1, 1, 1), torch.sin(angle).view(-1, 1, 1)
        u = (cos * dx + sin * dy) / rx.view(-1, 1, 1)
        v = (-sin * dx + cos * dy) / ry.view(-1, 1, 1)
        tissue[(u * u + v * v < 1) & there.view(-1, 1, 1)] = what

    return ellipse


def _random_organ(generator: torch.Generator) -> int:
    import torch

    return FIRST_ORGAN + int(torch.randint(ORGANS, (1,), generator=generator))


def _paint_neck(ellipse: Callable[..., None], generator: torch.Generator) -> None:
    """Paint vertebra, cord, airway, vessels, glands, jaw and shoulders."""
    for side in (-1, 1):
        size = float(uniform(generator, 4, 14, 1))
        ellipse(_random_organ(generator), (side * 35, 60), (size, size), 14, chance=0.7)
        ellipse(FIRST_ORGAN + 1, (side * 17, 68), (9, 13), 4, chance=0.5)  # thyroid
        ellipse(FIRST_ORGAN + 3, (side * 42, 72), (13, 10), 7, chance=0.4)  # gland
        ellipse(BONE, (side * 40, 80), (5, 22), 7, turn=side * 0.4, chance=0.3)  # jaw
        ellipse(FIRST_ORGAN + 2, (side * 27, 52), (4, 4), 4, chance=0.9)  # carotid artery
        ellipse(FIRST_ORGAN + 4, (side * 34, 48), (6, 5), 4, chance=0.9)  # jugular vein
        ellipse(BONE, (side * 22, 24), (7, 7), 3, chance=0.8)  # articular process
        ellipse(WALL, (side * 24, 44), (6, 7), 4, chance=0.6)  # scalene muscles
        ellipse(WALL, (side * 85, 15), (35, 30), 15, chance=0.3)  # shoulder
    ellipse(FIRST_ORGAN, (0, 72), (9, 9), 4, chance=0.9)  # airway
    ellipse(BONE, (0, 39), (13, 9), 2.5)  # vertebral body or disc
    ellipse(BONE, (0, 20), (15, 10), 2.5, chance=0.7)  # arch
    ellipse(CANAL, (0, 24), (10, 7), 2)
    ellipse(FIRST_ORGAN + 3, (0, 24), (6, 4), 1.5)  # cord
    ellipse(BONE, (0, 5), (3, 12), 2.5, chance=0.7)  # spinous process


def _paint_organs(ellipse: Callable[..., None], generator: torch.Generator) -> None:
    """Paint bowel, kidneys, vessels, spine, iliac wings, arms."""
    for number in range(12):
        side = -1 if number % 2 else 1
        size = float(uniform(generator, 8, 30, 1))
        organ = _random_organ(generator)
        ellipse(organ, (side * 60, 105), (size, size * 0.8), 30, chance=0.7)
    for side in (-1, 1):
        ellipse(FIRST_ORGAN, (side * 72, 52), (26, 30), 9, chance=0.45)  # kidney
        ellipse(FIRST_ORGAN + 1, (side * 105, 85), (26, 34), 12, chance=0.4)  # colon, liver
        ellipse(BONE, (side * 85, 15), (9, 42), 12, turn=-side * 0.7, chance=0.3)  # iliac wing
        ellipse(BONE, (side * 120, 25), (6, 10), 12, chance=0.25)  # rib
        ellipse(WALL, (side * 250, 40), (40, 45), 15, chance=0.4)  # arm
        ellipse(FIRST_ORGAN + 2, (side * 14, 88), (9, 9), 4, chance=0.9)  # aorta, vena cava
        ellipse(BONE, (side * 28, 22), (20, 4), 5, chance=0.5)  # transverse process
    ellipse(BONE, (0, 55), (24, 19), 3)  # vertebral body or disc
    ellipse(BONE, (0, 22), (17, 14), 3, chance=0.7)  # arch
    ellipse(CANAL, (0, 23), (9, 8), 2)
    ellipse(BONE, (0, -4), (3.5, 20), 3, chance=0.8)  # spinous process


def _signals(
    generator: torch.Generator, n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random signal level and spread of each tissue, (n, TISSUES), and the level of fat, (n,)."""
    import torch

    level = torch.rand((n, TISSUES), generator=generator)
    # Mostly, muscles look alike and unlike fat, in either order of brightness.
    muscle = uniform(generator, 0.05, 0.95, n)
    away = uniform(generator, 0.2, 0.9, n) * torch.sign(uniform(generator, -1, 1, n))
    fat = muscle + away
    fat = torch.where((fat < 0.02) | (fat > 1.1), muscle - away, fat).clamp(0.02, 1.2)
    spread_between = uniform(generator, 0, 1, n, 1) ** 2 * 0.12
    like = muscle[:, None] + spread_between * torch.randn((n, FIRST_OTHER), generator=generator)
    # Right and left differ less than the muscles do.
    like[:, 2::2] = 0.5 * (like[:, 2::2] + like[:, 1:-1:2])
    level[:, :FIRST_OTHER] = like.clamp(min=0.02)
    for first, last in ((WALL, WALL + 1), (FIRST_OTHER, AIR)):
        width = last - first
        noise = 0.06 * torch.randn((n, width), generator=generator)
        level[:, first:last] = (muscle[:, None] + noise).clamp(min=0.02)
    fatty = torch.rand((n, 2), generator=generator) < 0.85
    level[:, SKIN_FAT] = torch.where(fatty[:, 0], fat, level[:, SKIN_FAT])
    level[:, CAVITY] = torch.where(fatty[:, 1], fat, level[:, CAVITY])
    level[:, AIR] = 0
    spread = uniform(generator, 0, 0.09, n, TISSUES) * uniform(generator, 0.2, 1, n, 1)
    return level, fat, spread


def _fat_share(
    generator: torch.Generator, tissue: torch.Tensor, is_muscle: torch.Tensor, fat: torch.Tensor
) -> torch.Tensor:
    """Share of fat in each pixel of muscle: streaks, infiltration, and seams between muscles."""
    import torch
    from torch.nn.functional import max_pool2d

    n, shape = len(tissue), (tissue.shape[1], tissue.shape[2])
    streaks = smooth_field(generator, n, shape, (shape[0] // 3, shape[1] // 5))[:, 0]
    patches = smooth_field(generator, n, shape, (14, 9))[:, 0]
    mix = uniform(generator, 0.2, 1, n, 1, 1)
    threshold = uniform(generator, 0.2, 2.5, n, 1, 1)
    amount = uniform(generator, 0, 1, n, 1, 1)
    infiltration = amount * torch.sigmoid(4 * (mix * streaks + (1 - mix) * patches - threshold))
    values = tissue.float()[:, None]
    edge = (max_pool2d(values, 3, 1, 1) != values) | (-max_pool2d(-values, 3, 1, 1) != values)
    width = uniform(generator, 0.3, 1.2, n, 1).expand(-1, 2)
    seam = gaussian_blur(edge.float(), width)[:, 0]
    present = torch.sigmoid(3 * (patches + uniform(generator, -2, 1.5, n, 1, 1)))
    seam = seam * present * uniform(generator, 0, 1, n, 1, 1)
    drawn = fat * uniform(generator, 0.3, 1, n, 1, 1)
    return torch.maximum(torch.maximum(infiltration, drawn) * is_muscle, seam * (tissue != AIR))
