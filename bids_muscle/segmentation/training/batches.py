"""Training batches: which planes are shown, as real or as synthetic images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.segmentation.intensity import normalize_planes
from bids_muscle.segmentation.networks import divisor
from bids_muscle.segmentation.training.augmentation import (
    Faults,
    add_fascia,
    degrade,
    random_contrast,
)
from bids_muscle.segmentation.training.geometry import (
    mirror,
    random_views,
    sample_linear,
    sample_nearest,
)
from bids_muscle.segmentation.training.loss import IGNORED, leave_out_border
from bids_muscle.segmentation.training.recipe import Recipe
from bids_muscle.segmentation.training.sources import (
    OUTSIDE,
    UNKNOWN,
    PlaneSet,
    counts_as,
)
from bids_muscle.segmentation.training.synthesis import synthesize, synthesize_complete, tint
from bids_muscle.segmentation.training.volumes import VolumeSet, make_patches

if TYPE_CHECKING:
    import torch

#: Share of the views of a source with images that are synthesised from its labels all the same.
SYNTHETIC_SHARE = 0.15


@dataclass(frozen=True)
class Batches:
    """The batch of each iteration, by its number, for :class:`torch.utils.data.DataLoader`."""

    sets: Sequence[PlaneSet | VolumeSet]
    recipe: Recipe

    def __len__(self) -> int:
        return self.recipe.iterations

    def __getitem__(self, iteration: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        make = make_batch if self.recipe.patches is None else make_patches
        return make(self.sets, self.recipe, iteration)  # type: ignore[arg-type]


def make_batch(
    sets: Sequence[PlaneSet], recipe: Recipe, iteration: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the batch of one iteration; it depends on the seed and the iteration alone.

    Parameters
    ----------
    sets
        The planes of all sources.
    recipe
        Window, spacing, batch size and seed.
    iteration
        Number of the iteration.

    Returns
    -------
    images
        float32 (n, 1, x, y), normalised.
    labels
        int64 (n, x, y).
    asked
        int64 (n, classes - 1): the label that each label counts as, see :func:`counts_as`.
    """
    import torch

    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + iteration)
    weights = torch.tensor([s.weight for s in sets])
    count = recipe.batch_size
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    window = _window(generator, recipe)
    points = random_views(generator, count, window, recipe.spacing_mm, recipe.region)
    images, labels, asked = [], [], []
    classes = int(recipe.network['out_channels'])
    for i, number in enumerate(chosen):
        planes = sets[int(number)]
        k = int(torch.randint(len(planes), (1,), generator=generator))
        here = points[i : i + 1]
        view = sample_nearest(torch.from_numpy(planes.labels[k : k + 1]).long(), here, OUTSIDE)
        image = _image(generator, planes, k, view, here, recipe)
        images.append(add_fascia(generator, image, view, recipe.fascia_share))
        target = torch.where(view < classes, view, torch.zeros_like(view))
        target = torch.where(view == UNKNOWN, IGNORED, target)
        labels.append(leave_out_border(target, recipe.doubt_px) if recipe.doubt_px else target)
        asked.append(counts_as(planes.annotated, planes.joined, classes))
    which = torch.rand(count, generator=generator) < 0.5
    faults = Faults(
        ghosted=recipe.ghosted_share,
        coils=recipe.coil_share,
        clipped=recipe.clipped_share,
        flowing=recipe.flow_share,
        metal=recipe.metal_share,
        faint=recipe.faint_share,
        faded=recipe.faded_share,
        thick=recipe.thick_share,
    )
    image, inside = degrade(generator, torch.cat(images), faults)
    label, counts = torch.cat(labels) * inside, torch.tensor(asked)
    if recipe.plane == 'axial':  # up and down are no mirror images
        image, label, counts = mirror(image, label, counts, which)
    return normalize_planes(image), label, counts


def _window(generator: torch.Generator, recipe: Recipe) -> tuple[int, int]:
    """Extent of the views of a batch, in whole steps of the network."""
    import torch

    step = divisor(recipe.network)
    most = recipe.jitter_px // step
    width, height = (
        extent + step * int(torch.randint(-most, most + 1, (1,), generator=generator))
        for extent in recipe.window_px[:2]
    )
    return width, height


def _image(
    generator: torch.Generator,
    planes: PlaneSet,
    k: int,
    view: torch.Tensor,
    points_mm: torch.Tensor,
    recipe: Recipe,
) -> torch.Tensor:
    import torch

    region, displaced = recipe.region, recipe.displaced_share

    synthetic = float(torch.rand(1, generator=generator)) < SYNTHETIC_SHARE
    if region == SPINE and planes.images is None:
        return synthesize_complete(generator, view)
    if planes.images is None or (synthetic and region != SPINE):
        fat = torch.zeros(view.shape)
        if planes.fat is not None:
            drawn = torch.from_numpy(planes.fat[k : k + 1]).long()
            fat = sample_nearest(drawn, points_mm, 0).float()
        return synthesize(generator, view, points_mm, fat, region, displaced, recipe.echo_share)
    found = sample_linear(torch.from_numpy(planes.images[k : k + 1]), points_mm)
    two = found.shape[1] == 2
    channels = found if two else found.expand(-1, 2, -1, -1)
    image = random_contrast(generator, channels, two, displaced, recipe.echo_share)
    return tint(generator, image, view) if region == SPINE else image
