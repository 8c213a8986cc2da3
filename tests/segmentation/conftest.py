"""A small world for the segmentation: slices with four simple muscles and a network for them."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.training.recipe import Recipe, Source
from bids_muscle.segmentation.training.sources import CENTER, PLANE, PlaneSet

#: Label -> (right mm from the middle, front mm, half width, half depth).
BOXES = {1: (14, 0, 10, 16), 2: (-14, 0, 10, 16), 3: (40, 0, 12, 18), 4: (-40, 0, 12, 18)}


def draw(shape: tuple[int, int], center: tuple[float, float], zoom: float) -> np.ndarray:
    """Labels of one slice: four boxes, right ones at greater x."""
    labels = np.zeros(shape, dtype=np.uint8)
    x, y = (np.arange(n) for n in shape)
    for label, (right, front, width, depth) in BOXES.items():
        inside_x = np.abs((x - center[0]) * zoom - right) < width
        inside_y = np.abs((y - center[1]) * zoom - front) < depth
        labels[np.ix_(inside_x, inside_y)] = label
    return labels


def signal(labels: np.ndarray) -> np.ndarray:
    """Give an image in which each muscle has its own brightness."""
    levels = np.array([0.3, 0.6, 0.7, 0.9, 1.0], dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, 0.02, labels.shape)
    return (levels[labels] + noise).astype(np.float32)


def scan(
    shape: tuple[int, int, int] = (120, 96, 5), zooms: tuple[float, float, float] = (1, 1, 4)
) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Make a scan of the small world and its labels."""
    center = (shape[0] / 2 + 3, shape[1] / 2 - 2)
    labels = np.repeat(draw(shape[:2], center, zooms[0])[..., None], shape[2], axis=2)
    return nib.Nifti1Image(signal(labels), np.diag([*zooms, 1.0])), labels


MakeScan = Callable[..., tuple[nib.Nifti1Image, np.ndarray]]


@pytest.fixture(scope='session')
def make_scan() -> MakeScan:
    """Give a function that makes a scan of a shape and voxel size, and its labels."""
    return scan


@pytest.fixture(scope='session', autouse=True)
def one_thread() -> None:
    """Keep the tiny networks on one thread: more only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def plane_set() -> PlaneSet:
    labels = draw(PLANE, CENTER, 1.0)[None]
    images = signal(labels)[:, None]
    return PlaneSet('boxes', labels, images, None, (1, 2, 3, 4), 1.0)


@pytest.fixture(scope='session')
def recipe() -> Recipe:
    source = Source('boxes', 'boxes.nii', {1: 1, 2: 2, 3: 3, 4: 4}, (1, 2, 3, 4), 1.0)
    network = {
        'name': 'UNet',
        'spatial_dims': 2,
        'in_channels': 1,
        'out_channels': 9,
        'channels': [8, 16, 16, 16],
        'strides': [2, 2, 2],
        'num_res_units': 1,
    }
    return Recipe(
        name='boxes',
        version='0',
        region='lumbar',
        description='',
        seed=1,
        spacing_mm=4.0,
        window_px=(32, 24),
        iterations=6,
        batch_size=2,
        learning_rate=1e-2,
        weight_decay=0.0,
        ema_decay=0.9,
        network=network,
        sources=(source,),
    )


@pytest.fixture(scope='session')
def bundle(
    recipe: Recipe, plane_set: PlaneSet, tmp_path_factory: pytest.TempPathFactory
) -> ModelBundle:
    """Train a network for seconds, on the small world as it is: no random contrast."""
    import torch

    from bids_muscle.segmentation.bundle import write_bundle
    from bids_muscle.segmentation.intensity import normalize_planes
    from bids_muscle.segmentation.networks import build_network
    from bids_muscle.segmentation.training.loss import marginal_loss

    torch.manual_seed(0)
    network = build_network(recipe.network)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    labels = np.stack(
        [
            draw((32, 24), (15.5 + 0.7 * i, 11.5 + 0.7 * way * i), 4.0)
            for way in (-1, 1)
            for i in range(-6, 7)
        ]
    )
    brightness = signal(labels)
    # Air at the sides, and a plane of nothing but air.
    brightness[::2, :3] = brightness[::2, :, 20:] = brightness[0] = 0
    labels[brightness == 0] = 0
    images = normalize_planes(torch.from_numpy(brightness)[:, None])
    target = torch.from_numpy(labels).long()
    asked = torch.arange(1, 9).expand(len(labels), -1)
    for _ in range(120):
        loss = marginal_loss(network(images), target, asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    card = {
        'name': 'boxes',
        'version': '0',
        'region': 'lumbar',
        'network': recipe.network,
        'spacing_mm': recipe.spacing_mm,
        'window_px': list(recipe.window_px),
    }
    return write_bundle(tmp_path_factory.mktemp('model'), network, card)
