"""The recipes of the papers: complete, of the published size, and each trains a little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import OWN_SEGMENTATIONS, load_label_table
from bids_muscle.segmentation.bundle import load_networks
from bids_muscle.segmentation.networks import build_network, divisor
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.training.loss import make_loss
from bids_muscle.segmentation.training.recipe import Patches, Recipe, read_recipe
from bids_muscle.segmentation.training.sources import find_cases
from bids_muscle.segmentation.training.trainer import train
from bids_muscle.segmentation.training.volumes import load_data, make_patches
from bids_muscle.workflows.training import find_all_cases

RECIPES = Path(__file__).parents[2] / 'bids_muscle/data/recipes'
PAPERS = sorted(p.stem for p in RECIPES.glob('*20[12][0-9]*.toml'))
#: Those whose training differs in more than numbers from another's.
TRAINED = [name for name in PAPERS if not name.endswith('-shared')]
#: What makes the networks small.
SMALL: dict[str, dict[str, Any]] = {
    'UNet': {},
    'DenseVNet': {'units': [2, 2, 2]},
    'VNet': {'levels': 2},
    'UNetCRF': {'features': [8, 8, 16, 16, 16, 8], 'crf': {'iterations': 6, 'radius_px': 2}},
}


def write_cohort(root: Path, recipe: Recipe) -> None:
    """Write one person in the files that the recipe asks for: boxes, brighter to the outside."""
    source = recipe.sources[0]
    codes = {label: code for code, label in source.codes.items()}
    labels = np.zeros((48, 40, 8), np.int16)
    image = np.full(labels.shape, 0.2)
    height = 36 // ((len(source.annotated) + 1) // 2) - 1
    for i, label in enumerate(source.annotated):
        # Odd labels are on the right, from 26 on, even ones as far to the left.
        row = i // 2
        y, half = 2 + (height + 1) * row, np.arange(26, 40)
        x, x_mirrored = half, 47 - half
        at = x if label % 2 else x_mirrored
        ramp = 0.5 + 0.07 * row + 0.02 * (half - 26)
        labels[at, y : y + height, 1:7] = codes[label]
        image[at, y : y + height, 1:7] = ramp[:, None, None]
    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    path = root / source.labels.replace('*/sub-*/**', 'manual/sub-01').replace('*', 'sub-01')
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)
    for k, name in enumerate(source.images):
        path = root / name.format(participant='01', folder='sub-01/anat', scan='sub-01')
        path.parent.mkdir(parents=True, exist_ok=True)
        noisy = 100 * (image + 0.1 * k + rng.normal(0, 0.01, image.shape))
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), affine), path)


def tiny(name: str) -> Recipe:
    """Return a recipe of the package with its data, windows and network made small."""
    recipe = read_recipe(RECIPES / f'{name}.toml')
    assert recipe.patches is not None
    network = {**recipe.network, **SMALL[recipe.network['name']]}
    if network['name'] == 'UNet':
        network['channels'] = [8] * (len(network['channels']) - 1) + [16]
    flat = network['spatial_dims'] == 2
    source = replace(recipe.sources[0], bias_correction=False)
    if source.kind == 'bids':
        labels = range(1, network['out_channels'])
        source = replace(
            source,
            kind='files',
            labels=f'derivatives/*/sub-*/**/anat/*_seg-{source.seg}_dseg.nii.gz',
            images=tuple(f'sub-{{participant}}/anat/{name}.nii.gz' for name in recipe.channels),
            contrasts=recipe.channels,
            codes={label: label for label in labels},
            annotated=tuple(labels),
        )
    return replace(
        recipe,
        network=network,
        spacing_mm=4.0,
        slice_mm=4.0,
        window_px=(48, 32) if flat else (48, 32, 8),
        iterations=50,
        batch_size=3,
        learning_rate=3e-2 if network['name'] == 'VNet' else 1e-2,
        sources=(source,),
        patches=replace(
            recipe.patches,
            per_volume=1,
            pad_px=tuple(min(n, 2) for n in recipe.patches.pad_px),
            shift_px=tuple(min(n, 1) for n in recipe.patches.shift_px),
            elastic_sd_px=min(recipe.patches.elastic_sd_px, 0.5),
            elastic_magnitude=tuple(n / 20 for n in recipe.patches.elastic_magnitude),
        ),
    )


@pytest.mark.parametrize('name', PAPERS)
def test_a_packaged_recipe_is_consistent(name: str) -> None:
    recipe = read_recipe(RECIPES / f'{name}.toml')
    classes, step = recipe.network['out_channels'], divisor(recipe.network)
    assert recipe.name == name
    assert recipe.patches is not None
    assert recipe.network['in_channels'] == len(recipe.channels)
    assert len(recipe.window_px) == recipe.network['spatial_dims']
    assert all(extent % step == 0 for extent in recipe.window_px)
    table = {0, *(label.index for label in load_label_table(recipe.region))}
    source = recipe.sources[0]
    if source.kind == 'files':
        assert set(source.annotated) == set(source.codes.values()) == set(range(1, classes))
    else:
        assert source.seg in OWN_SEGMENTATIONS
    numbers = recipe.numbers or tuple(sorted(table))
    assert len(numbers) == classes
    assert set(numbers) <= table
    make_loss(recipe)


def test_hyper_parameters_are_those_of_the_papers() -> None:
    weber = read_recipe(RECIPES / 'weber2021.toml')
    assert sum(p.numel() for p in build_network(weber.network).parameters()) == 893_321
    assert (weber.window_px, weber.spacing_mm, weber.slice_mm) == ((360, 240, 32), 0.7, 3.0)
    deep = read_recipe(RECIPES / 'wesselink2022-deep.toml')
    assert deep.network['channels'][-1] == 512
    table = {
        name: (
            (r := read_recipe(RECIPES / f'hess2022-{name}.toml')).window_px[0],
            r.batch_size,
            r.learning_rate,
            r.network['dropout'],
            r.network['levels'],
            r.loss,
            r.iterations,
        )
        for name in ('discs', 'vertebrae', 'muscles', 'discs-shared', 'muscles-shared')
    }
    assert table == {
        'discs': (512, 8, 1e-4, 0.2, 4, 'dice_sigmoid', 14700),
        'vertebrae': (512, 8, 1e-4, 0.05, 3, 'dice_sigmoid', 12000),
        'muscles': (256, 32, 1e-4, 0.2, 3, 'dice_sigmoid', 13500),
        'discs-shared': (512, 8, 1e-4, 0.2, 4, 'dice_sigmoid', 17500),
        'muscles-shared': (256, 8, 1e-4, 0.2, 4, 'dice_sigmoid', 12000),
    }


@pytest.mark.parametrize('name', TRAINED)
def test_a_recipe_of_a_paper_trains(name: str, tmp_path: Path) -> None:
    import torch

    recipe = tiny(name)
    write_cohort(tmp_path, recipe)
    sets = [load_data(case, 1.0, recipe) for case in find_cases(recipe.sources[0], [tmp_path])]
    bundle = train(recipe, sets, tmp_path / 'model', report=lambda _: None)
    plain = replace(recipe, batch_size=4, patches=Patches('center'))
    images, target, annotated = make_patches(sets, plain, 0)  # type: ignore[arg-type]
    loss = make_loss(recipe)
    torch.manual_seed(recipe.seed)
    before = build_network(recipe.network)
    after = load_networks(bundle)[0]
    with torch.inference_mode():
        logits = after(images)
        fallen = float(loss(logits, target, annotated))
        assert fallen < 0.8 * float(loss(before(images), target, annotated))
    assert mean_dice(logits.argmax(1).numpy(), target.numpy()) > 0.3
    if recipe.space == 'atlas':
        Predictor(bundle)  # in use: tests/imaging/test_atlas.py
        return
    # In use, an image goes the same way to the network as in training.
    case = find_cases(recipe.sources[0], [tmp_path])[0]
    scan = {contrast: nib.load(path) for contrast, path in case.images.items()}
    labels = np.asarray(Predictor(bundle).segment(scan).labels.dataobj)
    truth = np.asarray(nib.load(case.labels).dataobj)
    if len(recipe.numbers) == 2:  # one structure, whatever its number
        labels, truth = (labels > 0).astype(int), (truth > 0).astype(int)
    assert mean_dice(labels, truth) > 0.3


def test_a_training_on_windows_resumes_with_the_same_weights(tmp_path: Path) -> None:
    recipe = replace(tiny('hess2022-muscles'), iterations=6)
    write_cohort(tmp_path, recipe)
    sets = [load_data(case, 1.0, recipe) for case in find_cases(recipe.sources[0], [tmp_path])]

    def silent(_: str) -> None:
        pass

    whole = train(recipe, sets, tmp_path / 'whole', report=silent)
    train(recipe, sets, tmp_path / 'parts', report=silent, stop_after=3)
    parts = train(recipe, sets, tmp_path / 'parts', report=silent)
    assert parts.sha256 == whole.sha256


def test_a_recipe_finds_its_channels_in_any_bids_dataset(tmp_path: Path) -> None:
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[3:, :2], labels[:3, :2] = 1, 2
    anat = tmp_path / 'sub-01/anat'
    truth = tmp_path / 'derivatives/manual/sub-01/anat'
    for folder in (anat, truth):
        folder.mkdir(parents=True)
    described = '{"Name": "neck", "BIDSVersion": "1.9.0", "DatasetType": "raw"}'
    (tmp_path / 'dataset_description.json').write_text(described)
    (truth.parents[1] / 'dataset_description.json').write_text(
        described.replace('raw', 'derivative')
    )
    (truth.parents[1] / 'seg-cervicalmuscles_dseg.tsv').write_text(
        'index\tname\n1\tMFSS right\n2\tMFSS left\n'
    )
    affine = np.diag([0.7, 0.7, 3, 1])
    for name in ('inphase', 'opposed', 'water'):
        image = nib.Nifti1Image(labels.astype(np.float32) + 1, affine)
        nib.save(image, anat / f'sub-01_acq-dixon{name}_T1w.nii.gz')
    nib.save(
        nib.Nifti1Image(labels, affine),
        truth / 'sub-01_acq-dixon_seg-cervicalmuscles_dseg.nii.gz',
    )
    recipe = read_recipe(RECIPES / 'weber2021.toml')
    (case,) = find_all_cases(recipe, [tmp_path])
    assert list(case.images) == ['inphase', 'opposedphase']
    loaded = load_data(case, 1.0, recipe)
    assert loaded.images is not None
    assert loaded.images.shape == (1, 2, 6, 5, 4)
    assert np.array_equal(loaded.labels, labels)


def mean_dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over the labels of the truth."""
    return float(
        np.mean(
            [
                2 * ((found == n) & (truth == n)).sum() / ((found == n).sum() + (truth == n).sum())
                for n in np.unique(truth[truth > 0])
            ]
        )
    )
