"""Training: seeded, resumable, honest about labels that a data set lacks."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import REGIONS, load_label_table
from bids_muscle.errors import MissingInputError, ModelError, UsageError
from bids_muscle.segmentation.bundle import WEIGHTS
from bids_muscle.segmentation.training.__main__ import main
from bids_muscle.segmentation.training.batches import make_batch
from bids_muscle.segmentation.training.geometry import mirror
from bids_muscle.segmentation.training.loss import marginal_loss
from bids_muscle.segmentation.training.recipe import Recipe, Source, read_recipe
from bids_muscle.segmentation.training.sources import (
    CENTER,
    FIRST_OTHER,
    PIXEL_MM,
    PlaneSet,
    load_source,
)
from bids_muscle.segmentation.training.trainer import train

RECIPES = Path(__file__).parents[2] / 'bids_muscle/data/recipes'


def test_the_packaged_recipe_is_complete() -> None:
    recipe = read_recipe(RECIPES / 'lumbar.toml')
    labels = {label.index for label in load_label_table(recipe.region)}
    for source in recipe.sources:
        assert set(source.codes.values()) == set(source.annotated) <= labels
    names = [source.name for source in recipe.without(('dixon-lumbar',)).sources]
    assert 'dixon-lumbar' not in names
    assert len(names) == len(recipe.sources) - 1


def test_refuses_to_exclude_what_is_not_there(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match='no source'):
        recipe.without(('typo',))


def test_a_batch_depends_on_seed_and_iteration_alone(recipe: Recipe, plane_set: PlaneSet) -> None:
    first = make_batch([plane_set], recipe, 3)
    again = make_batch([plane_set], recipe, 3)
    other = make_batch([plane_set], recipe, 4)
    assert all(bool((a == b).all()) for a, b in zip(first, again, strict=True))
    assert not bool((first[0] == other[0]).all())
    images, labels, _ = first
    assert images.shape == (2, 1, 32, 24)
    assert bool(images.isfinite().all())
    assert int(labels.max()) <= 4


def test_mirroring_exchanges_right_and_left() -> None:
    import torch

    for region in REGIONS:
        table = load_label_table(region).mirrored
        numbers = torch.tensor([[[i] for i in table]])
        _, other = mirror(numbers[:, None].float(), numbers, torch.tensor([True]))
        assert other.flip(1)[0, :, 0].tolist() == list(table.values())
    labels = torch.tensor([[[3], [1], [0], [2], [6]]])
    images = labels[:, None].float()
    flipped_images, flipped = mirror(images, labels, torch.tensor([True]))
    assert flipped[0, :, 0].tolist() == [5, 1, 0, 2, 4]
    assert flipped_images[0, 0, :, 0].tolist() == [6, 2, 0, 1, 3]
    same_images, same = mirror(images, labels, torch.tensor([False]))
    assert same.tolist() == labels.tolist()
    assert same_images.tolist() == images.tolist()


def test_the_loss_does_not_ask_for_labels_that_are_not_annotated() -> None:
    import torch

    target = torch.zeros((1, 4, 4), dtype=torch.int64)
    says_psoas = torch.zeros((1, 9, 4, 4))
    says_psoas[:, 5] = 20.0
    lacks_psoas = torch.tensor([[True] * 4 + [False] * 4])
    assert float(marginal_loss(says_psoas, target, lacks_psoas)) < 1.01
    assert float(marginal_loss(says_psoas, target, torch.ones_like(lacks_psoas))) > 10


def test_a_resumed_training_ends_with_the_same_weights(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    def silent(_: str) -> None:
        pass

    whole = train(recipe, [plane_set], tmp_path / 'whole', report=silent)
    train(recipe, [plane_set], tmp_path / 'parts', report=silent, stop_after=2)
    parts = train(recipe, [plane_set], tmp_path / 'parts', report=silent)
    assert whole.sha256 == parts.sha256
    assert (whole.path / WEIGHTS).read_bytes() == (parts.path / WEIGHTS).read_bytes()
    # The same from a plan that was shorter, as long as the rate had not fallen yet.
    shorter = replace(recipe, iterations=4)
    train(shorter, [plane_set], tmp_path / 'longer', report=silent, stop_after=2)
    assert train(recipe, [plane_set], tmp_path / 'longer', report=silent).sha256 == whole.sha256


def test_refuses_the_checkpoint_of_another_recipe(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    train(recipe, [plane_set], tmp_path, report=lambda _: None, stop_after=1)
    with pytest.raises(ModelError, match='another recipe'):
        train(replace(recipe, seed=2), [plane_set], tmp_path, report=lambda _: None)


def test_reads_label_maps_in_any_orientation(tmp_path: Path) -> None:
    labels = np.zeros((60, 50, 3), dtype=np.int16)
    labels[35:40, 20:25], labels[20:25, 20:25], labels[50:55, 40:45] = 11, 12, 99
    image = nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0]))
    nib.save(image, tmp_path / 'ras.nii')
    nib.save(image.as_reoriented([[0, -1], [1, -1], [2, 1]]), tmp_path / 'las.nii')
    sets = [
        load_source(Source('x', name, {11: 1, 12: 2}, (1, 2), 1.0), [tmp_path])[0]
        for name in ('ras.nii', 'las.nii')
    ]
    assert np.array_equal(sets[0].labels, sets[1].labels)
    plane = sets[0].labels[0]
    # 10 x 10 mm; half a pixel of rounding at each edge.
    sides_mm = np.sqrt([(plane == label).sum() for label in (1, 2)]) * PIXEL_MM
    assert sides_mm == pytest.approx([10, 10], abs=PIXEL_MM)
    right = (np.argwhere(plane == 1).mean(0) - np.asarray(CENTER)) * PIXEL_MM
    assert right == pytest.approx([15, 0], abs=1)
    assert (plane == FIRST_OTHER).any()


def test_planes_from_a_screen_have_right_on_the_left(tmp_path: Path) -> None:
    import io

    from PIL import Image

    screen = np.zeros((40, 60), dtype=np.uint8)
    screen[25:35, 10:20], screen[25:35, 40:50] = 50, 200
    screen[28, 14] = 0  # towards the front of the middle
    with zipfile.ZipFile(tmp_path / 'planes.zip', 'w') as archive:
        stream = io.BytesIO()
        Image.fromarray(screen).save(stream, 'png')
        archive.writestr('a/1.png', stream.getvalue())
    source = Source('x', '*.zip', {50: 3, 200: 4}, (3, 4), 1.0)
    plane = load_source(source, [tmp_path])[0].labels[0]
    right, left = np.argwhere(plane == 3), np.argwhere(plane == 4)
    assert right[:, 0].min() > left[:, 0].max()
    hole = np.argwhere(plane[right[:, 0].min() : right[:, 0].max()] == 0)
    middle = right[:, 1].mean()
    inside = hole[(hole[:, 1] > right[:, 1].min()) & (hole[:, 1] < right[:, 1].max())]
    assert (inside[:, 1] > middle).all()


def test_names_the_missing_source(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match='--exclude x'):
        load_source(Source('x', 'none*.nii', {1: 1}, (1,), 1.0), [tmp_path])


def test_the_command_trains_and_writes_a_bundle(tmp_path: Path) -> None:
    labels = np.zeros((80, 60, 2), dtype=np.int16)
    labels[45:60, 20:30], labels[20:35, 20:30] = 1, 2
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0])), tmp_path / 'map.nii')
    text = (RECIPES / 'lumbar.toml').read_text().split('[[source]]')[0]
    text = text.replace('[128, 96]', '[48, 32]').replace('batch_size = 4', 'batch_size = 2')
    text += (
        "[[source]]\nname = 'map'\nlabels = 'map.nii'\ncodes = { 1 = 1, 2 = 2 }\n"
        'annotated = [1, 2]\nweight = 1.0\n'
    )
    (tmp_path / 'recipe.toml').write_text(text)
    arguments = [str(tmp_path / 'recipe.toml'), '--data', str(tmp_path), '--iterations', '2']
    assert main([*arguments, '--output', str(tmp_path / 'model')]) == 0
    assert (tmp_path / 'model' / WEIGHTS).is_file()
    assert main([*arguments, '--output', str(tmp_path / 'x'), '--exclude', 'typo']) == 64
