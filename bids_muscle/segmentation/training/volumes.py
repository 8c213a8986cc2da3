"""Windows cut from whole volumes, as the networks of the papers were trained.

One way serves networks for planes and for volumes: a window for planes is one pixel deep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.segmentation.grid import AXES
from bids_muscle.segmentation.intensity import NORMALIZERS, normalize_padded
from bids_muscle.segmentation.training.geometry import mirror, uniform
from bids_muscle.segmentation.training.loss import IGNORED
from bids_muscle.segmentation.training.recipe import Patches, Recipe
from bids_muscle.segmentation.training.sources import (
    UNKNOWN,
    PlaneSet,
    TrainingCase,
    counts_as,
    images_digest,
    load_case,
    load_images,
    recode,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VolumeSet:
    """One label map and its images on the grid of a network.

    Parameters
    ----------
    name
        Name of the source.
    labels
        uint8 (x, y, slices), classes of the network, and 254 for what may be any label.
    images
        float32 (choices, channels, x, y, slices), normalised; a window shows one of the choices.
    annotated
        Labels that the source has.
    weight
        Share among the volumes seen in training.
    participant
        See :class:`~bids_muscle.segmentation.training.sources.TrainingCase`.
    joined
        See :class:`~bids_muscle.segmentation.training.recipe.Source`.
    images_sha256
        See :func:`~bids_muscle.segmentation.training.sources.images_digest`.
    """

    name: str
    labels: np.ndarray
    images: np.ndarray
    annotated: tuple[int, ...]
    weight: float
    participant: str = ''
    joined: Mapping[int, int] = field(default_factory=dict)
    images_sha256: str = ''
    foreground: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = (self.labels > 0) & (self.labels != UNKNOWN)
        object.__setattr__(self, 'foreground', np.flatnonzero(found))

    def __len__(self) -> int:
        return self.labels.shape[2]


def load_data(
    case: TrainingCase, weight: float, recipe: Recipe, cache: Path | None = None
) -> PlaneSet | VolumeSet:
    """Load a case as the recipe needs it: whole volumes for windows, planes for random views.

    Planes are kept in ``cache``; volumes are made in a moment.
    """
    loaded: PlaneSet | VolumeSet
    if recipe.patches is None:
        loaded = load_case(case, weight, recipe.center_labels, cache, recipe.plane)
    else:
        loaded = load_volume(case, weight, recipe)
    return replace(loaded, images_sha256=images_digest(case))


def load_volume(case: TrainingCase, weight: float, recipe: Recipe) -> VolumeSet:
    """Load a label map and its images on the grid of the recipe's network.

    Parameters
    ----------
    case
        What to load.
    weight
        Its share among the volumes seen in training.
    recipe
        Spacing, plane, channels and normalisation. With the one channel ``'any'`` each image is
        a choice by itself, else the named contrasts are stacked.

    Raises
    ------
    MissingInputError
        If an image of a channel is not there.
    BadDataError
        If the map has none of its labels, or is not on the grid of the images.
    """
    import torch

    image = nib.as_closest_canonical(nib.load(case.labels))
    labels = recode(whole_numbers(image, case.labels), case.source)
    other = (labels >= int(recipe.network['out_channels'])) & (labels != UNKNOWN)
    labels[other] = 0
    volumes = load_images(case)
    missing = [c for c in recipe.channels if c != 'any' and c not in volumes]
    if missing or not volumes:
        raise MissingInputError(
            f'The {missing[0] if missing else "image"} of {case.labels} is missing; the channels '
            f'of the recipe {recipe.name} are {", ".join(recipe.channels)}.',
            f'Add the image, or exclude the source with --exclude {case.source.name}.',
        )
    if np.isin(labels, (0, UNKNOWN)).all():
        raise BadDataError(
            f'The label map {case.labels} contains no label of the recipe {recipe.name}.',
            f'Correct the codes of the source {case.source.name}, or exclude it with --exclude.',
        )
    axes = AXES[recipe.plane]
    zooms = [float(image.header.get_zooms()[axis]) for axis in axes]
    spacing = (recipe.spacing_mm, recipe.spacing_mm, recipe.slice_mm or zooms[2])
    size = [
        max(1, round(labels.shape[axis] * zoom / step))
        for axis, zoom, step in zip(axes, zooms, spacing, strict=True)
    ]
    channels = {}
    for contrast in volumes if recipe.channels == ('any',) else recipe.channels:
        channels[contrast] = normalize_padded(
            _resample(volumes[contrast].transpose(axes), size),
            NORMALIZERS[recipe.normalization],
            recipe.landmarks.get(contrast, ()),
            recipe.patches.pad_px if recipe.patches else (),
        )
    if recipe.channels == ('any',):
        choices = [channel[None] for channel in channels.values()]
    else:
        choices = [torch.stack([channels[contrast] for contrast in recipe.channels])]
    if recipe.patches and recipe.patches.gradient_maps:
        dims = int(recipe.network['spatial_dims'])
        choices += [gradient_magnitude(image, dims) for image in choices]
    return VolumeSet(
        case.source.name,
        _nearest(labels.transpose(axes), size),
        torch.stack(choices).numpy(),
        case.source.annotated,
        weight,
        case.participant,
        case.source.joined,
    )


def _resample(volume: np.ndarray, size: Sequence[int]) -> torch.Tensor:
    """Resample to a size, linearly and without aliasing in plane."""
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 0, 1)))[:, None]
    planes = interpolate(planes.float(), size=tuple(size[:2]), mode='bilinear', antialias=True)
    columns = planes[:, 0].permute(1, 2, 0)
    return interpolate(columns, size=size[2], mode='linear')


def _nearest(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    index = [
        ((np.arange(wanted) + 0.5) * n / wanted).astype(int)
        for n, wanted in zip(labels.shape, size, strict=True)
    ]
    return labels[np.ix_(*index)]


def make_patches(
    sets: Sequence[VolumeSet], recipe: Recipe, iteration: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the batch of one iteration; it depends on the seed and the iteration alone.

    Parameters
    ----------
    sets
        Volumes of all sources.
    recipe
        Window, batch size, seed and how windows are cut.
    iteration
        Number of the iteration.

    Returns
    -------
    images
        float32 (n, channels, x, y) or (n, channels, x, y, z).
    labels
        int64 (n, x, y) or (n, x, y, z); what may be any label is
        :data:`~bids_muscle.segmentation.training.loss.IGNORED`.
    asked
        int64 (n, classes - 1): the label that each label counts as, see :func:`counts_as`.
    """
    import torch

    patches = recipe.patches
    assert patches is not None  # noqa: S101 - the caller has looked
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + iteration)
    weights = torch.tensor([s.weight for s in sets])
    chosen = torch.multinomial(weights, recipe.batch_size, replacement=True, generator=generator)
    classes = int(recipe.network['out_channels'])
    images, labels, asked = [], [], []
    for number in chosen.repeat_interleave(patches.per_volume):
        volume = sets[int(number)]
        found = cut_window(generator, volume, patches, recipe)
        images.append(found[0])
        labels.append(found[1].masked_fill(found[1] == UNKNOWN, IGNORED))
        asked.append(counts_as(volume.annotated, volume.joined, classes))
    image, label, counts = torch.stack(images), torch.stack(labels), torch.tensor(asked)
    if patches.mirror:
        which = torch.rand(len(image), generator=generator) < 0.5
        image, label, counts = mirror(image, label, counts, which)
    if recipe.network['spatial_dims'] == 2:
        image, label = image[..., 0], label[..., 0]
    return image, label, counts


def cut_window(
    generator: torch.Generator, volume: VolumeSet, patches: Patches, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut one window from a volume, deformed where the recipe asks for it.

    Returns
    -------
    image
        float32 (channels, x, y, z).
    labels
        int64 (x, y, z).
    """
    import torch

    choice = int(torch.randint(len(volume.images), (1,), generator=generator))
    image = torch.from_numpy(volume.images[choice])
    window = (*recipe.window_px, 1)[:3]
    start = _place(generator, volume, patches, window)
    spacing = (recipe.spacing_mm, recipe.spacing_mm, recipe.slice_mm or recipe.spacing_mm)
    points = torch.stack(
        torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in window], indexing='ij'), -1
    )
    points = _deform(generator, points, window, spacing, patches)
    extent = torch.tensor(volume.labels.shape, dtype=torch.float32)
    # grid_sample wants the last axis first, and -1..1 between the outer edges.
    grid = ((points + torch.tensor(start) + 0.5) / extent * 2 - 1).flip(-1)[None]

    def sample(values: torch.Tensor, mode: str) -> torch.Tensor:
        return torch.nn.functional.grid_sample(
            values[None], grid, mode=mode, padding_mode='zeros', align_corners=False
        )[0]

    air = image.amin((1, 2, 3), keepdim=True)
    labels = sample(torch.from_numpy(volume.labels)[None].float(), 'nearest')[0].long()
    return sample(image - air, 'bilinear') + air, labels


def _place(
    generator: torch.Generator, volume: VolumeSet, patches: Patches, window: Sequence[int]
) -> list[float]:
    """First pixel of a window; a window larger than the volume lies about its middle."""
    import torch

    shape = volume.labels.shape

    def any_of(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    middle = np.array(np.unravel_index(volume.foreground[any_of(len(volume.foreground))], shape))
    if patches.choice == 'foreground' and float(uniform(generator, 0, 1, 1)) < 0.5:
        tries = (np.array([any_of(n) for n in shape]) for _ in range(1000))
        middle = next((at for at in tries if not volume.labels[tuple(at)]), middle)
    start = []
    for axis, (n, extent, pad) in enumerate(zip(shape, window, patches.pad_px, strict=True)):
        low, high = -pad, n + pad - extent
        if high < low or (patches.choice == 'center' and extent > 1):
            start.append(float((n - extent) // 2))
        elif patches.choice == 'uniform':
            start.append(float(low + any_of(high - low + 1)))
        else:
            start.append(float(np.clip(middle[axis] - extent // 2, low, high)))
    return start


def _deform(
    generator: torch.Generator,
    points: torch.Tensor,
    window: Sequence[int],
    spacing_mm: Sequence[float],
    patches: Patches,
) -> torch.Tensor:
    """Turn, scale, shift and bend a grid of points (x, y, z, 3) about the middle of the window."""
    import torch

    middle = (torch.tensor(window) - 1) / 2
    zooms = torch.tensor(spacing_mm)
    if any(patches.rotation_deg) or patches.scale:
        matrix = torch.diag(1 + uniform(generator, -1, 1, 3) * patches.scale)
        for axis, limit in enumerate(patches.rotation_deg):
            angle = torch.deg2rad(uniform(generator, -1, 1, 1) * limit)
            a, b = (axis + 1) % 3, (axis + 2) % 3
            turn = torch.eye(3)
            turn[a, a] = turn[b, b] = torch.cos(angle)
            turn[a, b], turn[b, a] = -torch.sin(angle), torch.sin(angle)
            matrix = turn @ matrix
        points = ((points - middle) * zooms) @ matrix.T / zooms + middle
    if any(patches.shift_px):
        points = points + uniform(generator, -1, 1, 3) * torch.tensor(patches.shift_px)
    if patches.elastic_sd_px:
        points = points + patches.elastic_sd_px * spline_field(
            generator, window, patches.elastic_control_points
        )
    if any(patches.elastic_magnitude):
        low, high = patches.elastic_sigma_px
        sigma = float(uniform(generator, low, high, 1))
        low, high = patches.elastic_magnitude
        magnitude = float(uniform(generator, low, high, 1))
        points = points + magnitude * smoothed_noise(generator, window, sigma)
    return points


def spline_field(
    generator: torch.Generator, window: Sequence[int], control_points: int
) -> torch.Tensor:
    """Random displacements (x, y, z, 3): a cubic B-spline over normally distributed coefficients.

    ``control_points`` is the number of intervals of the spline along each axis, as in NiftyNet's
    elastic deformation.
    """
    import torch
    from scipy.interpolate import BSpline

    knots = np.arange(-3, control_points + 4, dtype=float)
    bases = []
    for extent in window:
        at = (np.arange(extent) + 0.5) / extent * control_points
        bases.append(torch.from_numpy(BSpline.design_matrix(at, knots, 3).toarray()).float())
    coefficients = torch.randn(*[control_points + 3] * 3, 3, generator=generator)
    return torch.einsum('xi,yj,zk,ijkc->xyzc', *bases, coefficients)


def smoothed_noise(
    generator: torch.Generator, window: Sequence[int], sigma_px: float
) -> torch.Tensor:
    """Random displacements (x, y, z, 3): uniform noise in -1..1, smoothed by a Gaussian.

    As MONAI's ``Rand3DElastic`` draws them. A window one pixel deep shows a plane of such a field.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    noise = uniform(generator, -1, 1, 3, *window).numpy()
    if window[2] > 1:
        smooth = gaussian_filter(noise, sigma_px, mode='wrap', axes=(1, 2, 3))
    else:
        # What smoothing across planes leaves of the noise of one.
        across = (2 * np.pi**0.5 * sigma_px) ** -0.5
        smooth = gaussian_filter(noise, sigma_px, mode='wrap', axes=(1, 2)) * across
    return torch.from_numpy(np.moveaxis(smooth, 0, -1).astype(np.float32))


def gradient_magnitude(image: torch.Tensor, spatial_dims: int) -> torch.Tensor:
    """Magnitude of the gradient of an image (channels, x, y, z), scaled to mean 0 and variance 1.

    Xia 2019 shows the network such maps beside the images, and calls them Laplacian gradient
    magnitude without a formula; this is the gradient of the image after a Gaussian of one pixel,
    in plane for planes.
    """
    import torch
    from scipy.ndimage import gaussian_gradient_magnitude

    axes = (0, 1, 2)[:spatial_dims]
    maps = [gaussian_gradient_magnitude(channel.numpy(), 1.0, axes=axes) for channel in image]
    found = torch.from_numpy(np.stack(maps))
    sd = found.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return (found - found.mean((1, 2, 3), keepdim=True)) / sd
