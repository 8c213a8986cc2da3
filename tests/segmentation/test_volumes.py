"""Windows of volumes: on the right grid, deformed alike in image and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bids_muscle.errors import BadDataError, MissingInputError, UsageError
from bids_muscle.segmentation.intensity import (
    NORMALIZERS,
    PERCENTILES,
    normalize_padded,
    standardize_histogram,
)
from bids_muscle.segmentation.training.loss import IGNORED
from bids_muscle.segmentation.training.recipe import Patches, Recipe, Source, find_recipe
from bids_muscle.segmentation.training.sources import TrainingCase, find_cases
from bids_muscle.segmentation.training.volumes import (
    VolumeSet,
    gradient_magnitude,
    load_volume,
    make_patches,
    smoothed_noise,
    spline_field,
)

SHAPE = (30, 24, 10)


@pytest.fixture
def volume() -> VolumeSet:
    """Give a volume whose image is its labels; 1 and 3 are on the right, 2 and 4 on the left."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[18:24, 4:10, 2:8], labels[6:12, 4:10, 2:8] = 1, 2
    labels[18:24, 14:20, 3:9], labels[6:12, 14:20, 3:9] = 3, 4
    return VolumeSet('boxes', labels, labels[None, None].astype(np.float32), (1, 2, 3, 4), 1.0)


@pytest.fixture
def volume_recipe(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        network={**recipe.network, 'spatial_dims': 3},
        window_px=(16, 16, 8),
        batch_size=8,
        spacing_mm=2.0,
        slice_mm=4.0,
        patches=Patches(),
    )


def test_a_batch_depends_on_seed_and_iteration_alone(
    volume: VolumeSet, volume_recipe: Recipe
) -> None:
    first = make_patches([volume], volume_recipe, 3)
    again = make_patches([volume], volume_recipe, 3)
    other = make_patches([volume], volume_recipe, 4)
    assert all(bool((a == b).all()) for a, b in zip(first, again, strict=True))
    assert not bool((first[0] == other[0]).all())
    images, labels, annotated = first
    assert images.shape == (8, 1, 16, 16, 8)
    assert labels.shape == (8, 16, 16, 8)
    assert annotated[:, :4].all()
    assert not annotated[:, 4:].any()


@pytest.mark.parametrize('choice', ['foreground', 'uniform', 'center'])
@pytest.mark.parametrize('window', [(16, 16, 8), (16, 16), (40, 32, 12)])
def test_an_undeformed_window_is_a_piece_of_the_volume(
    volume: VolumeSet, volume_recipe: Recipe, choice: str, window: tuple[int, ...]
) -> None:
    import torch

    pad = (8, 8, 4) if choice == 'uniform' else (0, 0, 0)
    recipe = replace(
        volume_recipe,
        window_px=window,
        network={**volume_recipe.network, 'spatial_dims': len(window)},
        patches=Patches(choice, per_volume=2, pad_px=pad),
    )
    # Beyond the volume lies the least intensity, here 5.
    brighter = replace(volume, images=volume.images + 5)
    images, labels, _ = make_patches([brighter], recipe, 0)
    assert labels.shape == (16, *window)
    assert bool((images[:, 0] == labels + 5).all())
    # The muscles keep their extent, or are cut by the edge of the window.
    assert int((labels == 1).flatten(1).sum(1).max()) <= 216
    shown = labels.flatten(1).any(1)
    assert bool(shown.any())
    if choice == 'center':
        assert bool(shown.all())
    if choice == 'uniform':
        first = torch.unique(labels.flatten(1), dim=0)
        assert len(first) > 3


def test_mirroring_keeps_left_left(volume: VolumeSet, volume_recipe: Recipe) -> None:
    recipe = replace(
        volume_recipe,
        window_px=(*SHAPE[:2], 8),
        batch_size=16,
        patches=Patches('center', mirror=True),
    )
    images, labels, _ = make_patches([volume], recipe, 0)
    flipped = (images[:, 0] != labels).flatten(1).any(1)
    assert 0 < int(flipped.sum()) < 16
    for label in (1, 3):
        assert bool((labels[:, :15] != label).all())
    # What nobody outlined is asked for on neither side.
    _, labels, asked = make_patches([replace(volume, annotated=(1, 2, 3))], recipe, 0)
    assert asked[flipped].unique(dim=0).tolist() == [[1, 2, 0, 4, 0, 0, 0, 0]]
    # The image moves with the body: what was 2 on the left is now on the right.
    assert bool((images[flipped, 0][labels[flipped] == 1] == 2).all())


def test_image_and_labels_are_deformed_alike(volume: VolumeSet, volume_recipe: Recipe) -> None:
    patches = Patches(
        'center',
        scale=0.1,
        rotation_deg=(5, 5, 20),
        shift_px=(3, 3, 1),
        elastic_sd_px=0.7,
        elastic_sigma_px=(3, 4),
        elastic_magnitude=(5, 10),
    )
    recipe = replace(volume_recipe, window_px=(*SHAPE[:2], 8), patches=patches)
    images, labels, _ = make_patches([volume], recipe, 0)
    plain, _, _ = make_patches([volume], replace(recipe, patches=Patches('center')), 0)
    assert float((images - plain).abs().mean()) > 0.05
    # Linear sampling has at least an eighth of the nearest pixel.
    assert float((images[:, 0] - labels).abs().max()) <= 3.5
    assert float((images[:, 0] - labels).abs().mean()) < 0.1
    assert bool((labels > 0).flatten(1).any(1).all())


def test_a_turn_is_in_millimetres(volume: VolumeSet, volume_recipe: Recipe) -> None:
    """A quarter turn about the first axis: slices of 4 mm come to lie over 2 mm pixels."""
    import torch

    from bids_muscle.segmentation.training.volumes import _deform

    window = (3, 9, 5)
    points = torch.stack(
        torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in window], indexing='ij'), -1
    )
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        turned = _deform(generator, points, window, (2, 2, 4), Patches(rotation_deg=(90, 0, 0)))
        scale = torch.tensor([2.0, 2.0, 4.0])
        before = (points[1, 0, 0] - points[1, 8, 4]) * scale
        after = (turned[1, 0, 0] - turned[1, 8, 4]) * scale
        assert float(after.norm()) == pytest.approx(float(before.norm()), rel=1e-5)
        assert float((turned - points).abs().max()) > 0


def test_elastic_fields_have_the_spread_that_the_papers_name() -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    spline = torch.stack([spline_field(generator, (12, 10, 6), 3) for _ in range(60)])
    # A cubic B-spline leaves 0.33 of the standard deviation of its coefficients.
    assert float(spline.std()) == pytest.approx(0.33, abs=0.05)
    deep = torch.stack([smoothed_noise(generator, (24, 24, 24), 2.0) for _ in range(10)])
    flat = torch.stack([smoothed_noise(generator, (24, 24, 1), 2.0) for _ in range(100)])
    wanted = 3**-0.5 * (2 * np.pi**0.5 * 2.0) ** -1.5
    assert float(deep.std()) == pytest.approx(wanted, rel=0.1)
    assert float(flat.std()) == pytest.approx(wanted, rel=0.1)


def test_the_gradient_of_an_image_has_its_edges_alone() -> None:
    import torch

    image = torch.zeros(1, 20, 20, 3)
    image[:, 10:] = 5.0
    found = gradient_magnitude(image, 2)[0]
    assert int(found[:, 5, 1].argmax()) in (9, 10)
    assert bool((found[:5] == found[0, 0, 0]).all())
    brighter = gradient_magnitude(3 * image + 2, 2)[0]
    assert float((brighter - found).abs().max()) < 1e-5


def write_case(
    folder: Path, contrasts: tuple[str, ...], shape: tuple[int, int, int]
) -> TrainingCase:
    labels = np.zeros((20, 16, 8), np.int16)
    labels[10:14, 4:12, 2:6] = 7
    source = Source(
        'x', 'map.nii', {7: 1}, (1,), 1.0, contrasts, contrasts=contrasts, bias_correction=False
    )
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(labels, affine), folder / 'map.nii')
    images = {}
    for k, contrast in enumerate(contrasts):
        images[contrast] = folder / f'{contrast}.nii'
        data = np.random.default_rng(k).normal(100, 10, shape).astype(np.float32)
        nib.save(nib.Nifti1Image(data, affine), images[contrast])
    return TrainingCase(source, folder / 'map.nii', images)


def test_a_case_is_brought_to_the_grid_of_the_network(
    volume_recipe: Recipe, tmp_path: Path
) -> None:
    case = write_case(tmp_path, ('inphase', 'opposedphase'), (20, 16, 8))
    recipe = replace(
        volume_recipe,
        normalization='zscore',
        channels=('opposedphase', 'inphase'),
        spacing_mm=1.0,
        slice_mm=2.5,
    )
    loaded = load_volume(case, 1.0, recipe)
    assert loaded.labels.shape == (40, 32, 16)
    assert loaded.images.shape == (1, 2, 40, 32, 16)
    assert np.argwhere(loaded.labels == 1).mean(0) == pytest.approx([23.5, 15.5, 7.5])
    alone = load_volume(case, 1.0, replace(recipe, channels=('any',)))
    assert alone.images.shape == (2, 1, 40, 32, 16)
    assert np.array_equal(alone.images[0, 0], loaded.images[0, 1])
    sagittal = load_volume(case, 1.0, replace(recipe, plane='sagittal', slice_mm=0))
    assert sagittal.labels.shape == (40, 32, 20)
    assert np.argwhere(sagittal.labels == 1).mean(0) == pytest.approx([19.5, 15.5, 11.5])


def test_pixels_that_may_be_anything_are_left_out_of_windows_too(
    volume_recipe: Recipe, tmp_path: Path
) -> None:
    case = write_case(tmp_path, ('inphase',), (20, 16, 8))
    data = np.asarray(nib.load(case.labels).dataobj).copy()
    data[:, :2] = 77
    nib.save(nib.Nifti1Image(data, nib.load(case.labels).affine), case.labels)
    case = replace(case, source=replace(case.source, unknown=(77,)))
    recipe = replace(volume_recipe, window_px=(20, 16, 8), patches=Patches('center', mirror=True))
    recipe = replace(recipe, spacing_mm=2.0, slice_mm=5.0, normalization='zscore')
    loaded = load_volume(case, 1.0, recipe)
    assert loaded.labels.shape == data.shape
    assert set(loaded.labels.ravel()[loaded.foreground]) == {1}
    _, labels, _ = make_patches([loaded], recipe, 0)
    assert bool((labels[:, :, :2] == IGNORED).all()) and bool((labels[:, :, 2:] >= 0).all())


def test_says_what_a_case_lacks(volume_recipe: Recipe, tmp_path: Path) -> None:
    case = write_case(tmp_path, ('inphase',), (20, 16, 8))
    recipe = replace(volume_recipe, normalization='zscore', channels=('inphase', 'opposedphase'))
    with pytest.raises(MissingInputError, match=r'opposedphase of .* is missing'):
        load_volume(case, 1.0, recipe)
    other = write_case(tmp_path, ('inphase',), (20, 16, 7))
    with pytest.raises(BadDataError, match='is not on the grid'):
        load_volume(other, 1.0, replace(recipe, channels=('any',)))
    with pytest.raises(UsageError, match='contrasts'):
        find_cases(replace(case.source, contrasts=('a', 'b')), [tmp_path])


@settings(max_examples=30, deadline=None)
@given(
    # Whole numbers, as images have: an offset of 1 would swallow differences of 1e-8.
    arrays(np.float32, (5, 4, 3), elements=st.integers(0, 1000)),
    st.floats(0.5, 20),
    st.floats(-10, 10),
)
def test_normalisation_does_not_depend_on_the_scale_of_the_scanner(
    image: np.ndarray, gain: float, offset: float
) -> None:
    import torch

    landmarks = tuple(np.linspace(0, 100, len(PERCENTILES)))
    image[0, 0, 0], image[0, 0, 1] = 0, 1000
    one = torch.from_numpy(image)
    other = torch.from_numpy(image * np.float32(gain) + np.float32(offset))
    for name in ('range', 'zscore'):
        found = NORMALIZERS[name](one)
        assert found.shape == image.shape
        assert float((found - NORMALIZERS[name](other)).abs().max()) < 0.02
    found = standardize_histogram(one, landmarks)
    assert found.shape == image.shape
    assert float((found - standardize_histogram(other, landmarks)).abs().max()) < 1


def test_percentiles_become_landmarks() -> None:
    import torch

    landmarks = tuple(float(n**2) for n in range(13))
    image = torch.linspace(0, 1, 1001)
    found = standardize_histogram(image, landmarks)
    for percentile, landmark in zip(PERCENTILES, landmarks, strict=True):
        assert float(found[int(10 * percentile)]) == pytest.approx(landmark, abs=0.1)
    # Half of a scan may be air: its value then has the last of its landmarks.
    image[:500] = 0
    assert float(standardize_histogram(image, landmarks)[0]) == landmarks[PERCENTILES.index(40)]
    with pytest.raises(UsageError, match='2 landmarks'):
        standardize_histogram(image, (0, 1))


def test_air_around_the_volume_counts_as_in_niftynet(tmp_path: Path) -> None:
    """Weber's landmarks hold the air of the padding: without it muscle is as dark as air."""
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 36, 12)], indexing='ij')
    body = x**2 + y**2 < 0.9
    muscle = x**2 + y**2 < 0.3
    rng = np.random.default_rng(0)
    image = np.where(muscle, 300.0, np.where(body, 1000.0, 0)) * rng.normal(1, 0.1, x.shape)
    image = np.abs(image + rng.normal(0, 10, x.shape)).astype(np.float32)
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    nib.save(nib.Nifti1Image(muscle.astype(np.int16), affine), tmp_path / 'map.nii')
    nib.save(nib.Nifti1Image(image, affine), tmp_path / 'image.nii')
    contrasts = ('inphase', 'opposedphase')
    source = Source('x', 'map.nii', {1: 1}, (1,), 1.0, bias_correction=False)
    images = dict.fromkeys(contrasts, tmp_path / 'image.nii')
    weber = find_recipe('weber2021')
    assert weber.patches is not None
    recipe = replace(weber, spacing_mm=4.0, slice_mm=6.0)
    recipe = replace(recipe, patches=replace(weber.patches, pad_px=(16, 10, 8)))
    found = load_volume(TrainingCase(source, tmp_path / 'map.nii', images), 1.0, recipe).images[
        0, 0
    ]
    assert found.shape == x.shape
    assert np.median(found[muscle]) - np.median(found[~body]) > 0.5  # 0.001 without the padding
    # In use the image is normalised alike.
    used = normalize_padded(
        torch.from_numpy(image.transpose(2, 0, 1))[:, None],
        NORMALIZERS['zscore'],
        weber.landmarks['inphase'],
        (8, 0, 16, 10),
    )
    assert np.allclose(used[:, 0].numpy().transpose(1, 2, 0), found, atol=0.02)
