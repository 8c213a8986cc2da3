"""Imperfections of training images: what they move, and what they leave alone."""

from __future__ import annotations

import pytest
import torch

from bids_muscle.segmentation.training import augmentation
from bids_muscle.segmentation.training.augmentation import Faults, add_fascia, degrade, displace


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _square() -> torch.Tensor:
    image = torch.zeros(64, 1, 24, 24)
    image[:, :, 10:14, 10:14] = 1
    return image


def test_fat_moves_by_a_pixel_or_two_along_one_axis(generator: torch.Generator) -> None:
    moved = displace(generator, _square(), 0.3)
    first = torch.stack([(image[0] > 0).nonzero().min(0).values for image in moved])
    steps = first - 10
    assert torch.equal(moved.sum((1, 2, 3)), _square().sum((1, 2, 3)))
    assert set(steps.flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert bool(((steps != 0).sum(1) <= 1).all())
    assert 0.1 < float((steps != 0).any(1).float().mean()) < 0.3


def test_some_images_get_ghosts_on_both_sides(generator: torch.Generator) -> None:
    plain = augmentation._ghosts(generator, _square(), 0.15)
    ghosted = (plain != _square()).flatten(1).any(1)
    assert 0 < float(ghosted.float().mean()) < 0.4
    extra = (plain - _square())[ghosted]
    assert bool((extra >= 0).all())
    assert float(extra.flatten(1).amax(1).max()) <= 0.4
    # Two copies of sixteen pixels each, unless they fall on each other.
    assert set((extra > 0).flatten(1).sum(1).tolist()) <= {16, 32}


def test_degraded_images_are_finite_and_of_the_same_shape(generator: torch.Generator) -> None:
    images, inside = degrade(
        generator, torch.rand(6, 1, 32, 28, generator=generator), Faults(ghosted=0.15)
    )
    assert images.shape == (6, 1, 32, 28)
    assert inside.shape == (6, 32, 28)
    assert bool(torch.isfinite(images).all())


def test_fascia_darkens_the_edges_of_muscles_only(generator: torch.Generator) -> None:
    labels = _square()[:, 0].long()
    # A wide margin: the lines are blurred.
    far = torch.nn.functional.max_pool2d(_square(), 11, 1, 5) == 0
    lined = add_fascia(generator, torch.ones(64, 1, 24, 24), labels, 0.4)
    darkened = (lined < 0.95).flatten(1).any(1)
    assert 0.1 < float(darkened.float().mean()) < 0.6
    assert bool((lined[far] == 1).all())
    assert float(lined.min()) > 0
    assert float(lined.max()) <= 1


def test_some_images_are_brightest_near_a_coil(generator: torch.Generator) -> None:
    lit = augmentation._near_coils(generator, torch.ones(64, 1, 24, 24), 0.4)
    changed = (lit != 1).flatten(1).any(1)
    assert 0.2 < float(changed.float().mean()) < 0.6
    assert bool((lit >= 1).all())
    assert float(lit.max()) <= 1 + 3 * 4
    # The back of the body, where the second axis begins, is the brighter half.
    assert float(lit[changed][..., :12].mean()) > float(lit[changed][..., 12:].mean())


def test_water_and_fat_cancel_where_a_pixel_has_both(generator: torch.Generator) -> None:
    water, fat = torch.zeros(64, 1, 1, 3), torch.zeros(64, 1, 1, 3)
    water[..., 0], fat[..., 2] = 1, 1
    water[..., 1] = fat[..., 1] = 0.5
    echo = augmentation.gradient_echo(generator, water, fat)
    assert torch.allclose(echo[..., [0, 2]], torch.ones(64, 1, 1, 2))
    border = echo[:, 0, 0, 1]
    # In phase the border is as bright as both, opposed-phase it is dark.
    assert float(border.min()) < 0.1
    assert float(border.max()) > 0.95


def test_vessels_leave_ghosts_of_the_brightest_parts_only(generator: torch.Generator) -> None:
    image = torch.full((64, 1, 24, 24), 0.5)
    image[:, :, 11, 11] = 1
    ghosted = augmentation._flow(generator, image, 0.5)
    changed = (ghosted != image).flatten(1)
    assert 0.2 < float(changed.any(1).float().mean()) < 0.8
    # One bright pixel has six copies.
    assert int(changed.sum(1).max()) <= 6 + 1
    assert bool((ghosted >= 0).all())


def test_metal_leaves_a_void(generator: torch.Generator) -> None:
    plain = torch.ones(64, 1, 48, 48)
    voided = augmentation._void(generator, plain, 0.5)
    changed = ((voided - 1).abs() > 0.05).flatten(1)
    assert 0.2 < float(changed.any(1).float().mean()) < 0.8
    assert float(voided.amin()) < 0.1
    assert float(changed.float().mean(1).max()) < 0.3


def test_the_brightest_part_of_some_images_is_saturated(generator: torch.Generator) -> None:
    ramp = torch.linspace(0, 1, 400).view(1, 1, 20, 20).expand(64, -1, -1, -1)
    clipped = augmentation._clip(generator, ramp, 0.5)
    changed = (clipped != ramp).flatten(1).any(1)
    assert 0.2 < float(changed.float().mean()) < 0.8
    assert bool((clipped <= ramp).all())
    assert bool((clipped.flatten(1).diff(dim=1) >= 0).all())
    assert float(clipped[changed].flatten(1).amax(1).max()) < 0.99


def test_some_images_fade_to_the_front_and_some_have_a_band(generator: torch.Generator) -> None:
    flat = torch.ones(200, 1, 24, 24)
    faded = augmentation._fade(generator, flat, 0.3)
    changed = (faded - flat).abs().flatten(1).amax(1) > 0.01
    assert 0.3 < float(changed.float().mean()) < 0.7  # one or the other
    assert torch.equal(faded[~changed].round(decimals=2), flat[~changed])
    assert bool((faded >= 0).all())
    back, front = faded[..., :4].mean(), faded[..., -4:].mean()
    assert float(front) < float(back) - 0.05
    assert augmentation._fade(generator, flat, 0.0) is flat


def test_planes_through_thick_slices_are_blurred_upwards_only(generator: torch.Generator) -> None:
    stripes = torch.zeros(40, 1, 48, 24)
    stripes[..., ::2, :12] = 1  # lines across the slices
    stripes[..., 12::4] = 1  # lines along them
    shown = augmentation._thick(generator, stripes, 0.5)
    changed = (shown != stripes).flatten(1).any(1)
    assert 0.2 < float(changed.float().mean()) < 0.8
    blurred = shown[changed]
    assert float(blurred[:, :, 8:-8, :11].std(2).max()) < 0.35  # 0.5 before
    assert torch.allclose(blurred[:, :, :, 12:], stripes[changed][:, :, :, 12:], atol=1e-4)
    assert float(blurred.min()) >= 0
    assert torch.equal(augmentation._thick(generator, stripes, 0.0), stripes)
