"""Training: seeded, resumable, honest about labels that a data set lacks."""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_muscle.anatomy.labels import REGIONS, load_label_table
from bids_muscle.errors import (
    BadDataError,
    DeviceError,
    MissingInputError,
    ModelError,
    TemporaryError,
    UsageError,
)
from bids_muscle.segmentation.bundle import WEIGHTS, ModelBundle
from bids_muscle.segmentation.model_card import model_card
from bids_muscle.segmentation.training import sources, trainer
from bids_muscle.segmentation.training.batches import Batches, make_batch
from bids_muscle.segmentation.training.checks import check_recipe
from bids_muscle.segmentation.training.geometry import mirror
from bids_muscle.segmentation.training.loss import IGNORED, marginal_loss
from bids_muscle.segmentation.training.recipe import (
    Recipe,
    Source,
    find_recipe,
    read_recipe,
    recipe_names,
)
from bids_muscle.segmentation.training.sources import (
    CENTER,
    FIRST_OTHER,
    PIXEL_MM,
    PLANE,
    UNKNOWN,
    PlaneSet,
    counts_as,
    find_cases,
    load_case,
    recode,
)
from bids_muscle.segmentation.training.synthesis import AIR, BONE, FIRST_ORGAN, paint_body
from bids_muscle.segmentation.training.trainer import train

RECIPES = Path(__file__).parents[2] / 'bids_muscle/data/recipes'


def load_first(source: Source, data: Path) -> PlaneSet:
    """Load the first label map of a source, of which all muscles must be in a slice."""
    return load_case(find_cases(source, [data])[0], source.weight)


@pytest.mark.parametrize('name', recipe_names())
def test_a_recipe_of_the_package_contradicts_nothing(name: str) -> None:
    check_recipe(find_recipe(name))


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
    for region in REGIONS:
        table = load_label_table(region).mirrored
        numbers = torch.tensor([[[i] for i in table]])
        asked = torch.tensor([list(table)])
        _, other, _ = mirror(numbers[:, None].float(), numbers, asked, torch.tensor([True]))
        assert other.flip(1)[0, :, 0].tolist() == list(table.values())
    labels = torch.tensor([[[3], [1], [0], [2], [6]]])
    images = labels[:, None].float()
    # Right psoas (5) is not outlined, and right multifidus (1) belongs to right erector (3).
    asked = torch.tensor([[3, 2, 3, 4, 0, 6]])
    flipped_images, flipped, other = mirror(images, labels, asked, torch.tensor([True]))
    assert other.tolist() == [[1, 4, 3, 4, 5, 0]]
    assert flipped[0, :, 0].tolist() == [5, 1, 0, 2, 4]
    assert flipped_images[0, 0, :, 0].tolist() == [6, 2, 0, 1, 3]
    same_images, same, kept = mirror(images, labels, asked, torch.tensor([False]))
    assert same.tolist() == labels.tolist() and kept.tolist() == asked.tolist()
    assert same_images.tolist() == images.tolist()


def test_the_loss_does_not_ask_for_labels_that_are_not_annotated() -> None:
    target = torch.zeros((1, 4, 4), dtype=torch.int64)
    says_psoas = torch.zeros((1, 9, 4, 4))
    says_psoas[:, 5] = 20.0
    lacks_psoas = torch.tensor([[True] * 4 + [False] * 4])
    assert float(marginal_loss(says_psoas, target, lacks_psoas)) < 1.01
    assert float(marginal_loss(says_psoas, target, torch.ones_like(lacks_psoas))) > 10


def test_a_side_that_nobody_outlined_is_not_taught_as_background(
    recipe: Recipe, plane_set: PlaneSet
) -> None:
    """Views of a map of the right side alone ask for its own side, mirrored or not."""
    right = np.isin(plane_set.labels, (1, 3))
    half = replace(plane_set, labels=plane_set.labels * right, annotated=(1, 3))
    asked_for = set()
    for iteration in range(8):
        _, labels, asked = make_batch([half], recipe, iteration)
        for view, counts in zip(labels, asked, strict=True):
            shown = set(view.unique().tolist()) - {0, IGNORED}
            assert shown <= set(counts.tolist())
            asked_for.add(tuple(counts.tolist()))
    assert asked_for == {(1, 0, 3, 0, 0, 0, 0, 0), (0, 2, 0, 4, 0, 0, 0, 0)}


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


def test_a_training_starts_from_the_weights_of_a_model(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    def silent(_: str) -> None:
        pass

    first = train(recipe, [plane_set], tmp_path / 'first', report=silent)
    # At a rate of nearly nothing the weights stay those of the start, whatever the seed.
    still = replace(recipe, start=str(first.path), learning_rate=1e-12, weight_decay=0.0, seed=9)
    second = train(still, [plane_set], tmp_path / 'second', report=silent)
    assert second.sha256 == first.sha256
    assert second.card['training']['start']['sha256'] == first.sha256
    assert second.card['training']['recipe']['start'] == first.name
    assert str(tmp_path) not in (second.path / 'model.json').read_text()
    assert f'from the weights of {first.name}' in model_card(second)
    with pytest.raises(ModelError, match='spacing_mm is 2'):
        train(replace(still, spacing_mm=2.0), [plane_set], tmp_path / 'third', report=silent)
    # The model of the start is replaced by another while the training rests.
    train(still, [plane_set], tmp_path / 'rests', report=silent, stop_after=1)
    other = train(replace(recipe, seed=5), [plane_set], tmp_path / 'other', report=silent)
    for name in ('model.json', 'weights.safetensors'):
        (first.path / name).write_bytes((other.path / name).read_bytes())
    with pytest.raises(ModelError, match='started from other weights'):
        train(still, [plane_set], tmp_path / 'rests', report=silent)


def test_a_recipe_takes_from_its_base_what_it_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / 'ours.toml'
    path.write_text(
        "base = 'lumbar'\nname = 'ours'\niterations = 7\n[network]\nnum_res_units = 1\n"
        "[[source]]\nname = 'ours'\nkind = 'bids'\nseg = 'manual'\n"
    )
    ours, base = read_recipe(path), read_recipe(RECIPES / 'lumbar.toml')
    assert [source.name for source in ours.sources] == ['ours']
    network = {**base.network, 'num_res_units': 1}
    assert ours == replace(base, name='ours', iterations=7, network=network, sources=ours.sources)
    path.write_text("base = 'lumbago'\n")
    with pytest.raises(UsageError, match="'lumbago' is not a packaged recipe"):
        read_recipe(path)


def test_a_killed_training_ends_with_the_same_weights(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, 'CHECKPOINT_EVERY', 2)
    monkeypatch.setattr(trainer, 'REPORT_EVERY', 1)
    watched = replace(recipe, validate_every=2)

    def run(folder: str, report: Callable[[str], None]) -> ModelBundle:
        folder_ = tmp_path / folder
        return train(watched, [plane_set], folder_, validation=[plane_set], report=report)

    def kill(line: str) -> None:
        if line.startswith('5/'):
            os.kill(os.getpid(), signal.SIGKILL)

    whole = run('whole', lambda _: None)
    child = os.fork()
    if child == 0:
        run('killed', kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / 'killed' / WEIGHTS).exists()
    lines: list[str] = []
    again = run('killed', lines.append)
    assert lines[0].startswith('5/')
    assert again.sha256 == whole.sha256
    for name in ('history.tsv', 'curves.png'):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_keeps_the_best_weights_and_stops_early(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dices = iter([0.2, 0.6, 0.5, 0.4, 0.9])
    monkeypatch.setattr(trainer, '_dice', lambda *_: next(dices))
    patient = replace(recipe, iterations=20, validate_every=2, patience=2, schedule='constant')

    def run(folder: str, **how: Any) -> ModelBundle:
        report = lines.append
        return train(patient, [plane_set], tmp_path / folder, report=report, **how)

    lines: list[str] = []
    stopped = run('early', validation=[plane_set])
    assert 'since iteration 4' in lines[-1]
    assert stopped.card['training']['iterations'] == 8
    assert stopped.card['training']['validation_dice'] == 0.6
    assert 'chosen on 1 participants held out, with a Dice of 0.600' in model_card(stopped)
    assert (tmp_path / 'early' / 'curves.png').read_bytes().startswith(b'\x89PNG')
    history = (tmp_path / 'early' / 'history.tsv').read_text().splitlines()
    assert [line.split('\t')[3] for line in history[1:]] == ['0.2', '0.6', '0.5', '0.4']
    # The model is that of iteration 4, and a finished training is not taken up again.
    assert run('four', stop_after=4).sha256 == stopped.sha256
    assert run('early', validation=[plane_set]).sha256 == stopped.sha256


def test_the_validation_dice_is_one_where_the_network_is_right(
    recipe: Recipe, plane_set: PlaneSet
) -> None:
    seen = []

    class Oracle(torch.nn.Module):
        def __init__(self, share: float) -> None:
            super().__init__()
            self.share, self.number = share, 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.number += 1
            _, labels, _ = make_batch([plane_set], recipe, -self.number)
            seen.append(images)
            labels[:, : int(labels.shape[1] * (1 - self.share))] = 0
            return torch.nn.functional.one_hot(labels, 9).movedim(-1, 1).float()

    assert trainer._dice(Oracle(1.0), recipe, [plane_set], 'cpu') == 1.0
    assert 0.2 < trainer._dice(Oracle(0.5), recipe, [plane_set], 'cpu') < 0.9
    assert bool((seen[0] == seen[1]).all())


def test_the_validation_dice_asks_for_what_the_loss_asks(
    recipe: Recipe, plane_set: PlaneSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label 1 is joined to 3, 2 is not annotated, and some pixels may be anything."""
    truth, guess = torch.zeros(2, 8, 8, dtype=torch.long), torch.zeros(2, 8, 8, dtype=torch.long)
    truth[:, :4], guess[:, :2], guess[:, 2:4] = 3, 3, 1
    truth[:, 6:], guess[:, 6:], guess[:, 5] = IGNORED, 3, 2
    asked = torch.tensor([counts_as((3, 4), {1: 3}, 9)] * 2)
    monkeypatch.setattr(Batches, '__getitem__', lambda *_: (torch.zeros(2, 1, 8, 8), truth, asked))
    views = torch.nn.functional.one_hot(guess, 9).movedim(-1, 1).float()

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return views

    assert trainer._dice(Fixed(), recipe, [plane_set], 'cpu') == 1.0


def test_dropout_does_not_change_a_resumed_training(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    drops = replace(recipe, network={**recipe.network, 'dropout': 0.5})
    whole = train(drops, [plane_set], tmp_path / 'whole', report=lambda _: None)
    train(drops, [plane_set], tmp_path / 'parts', report=lambda _: None, stop_after=2)
    parts = train(drops, [plane_set], tmp_path / 'parts', report=lambda _: None)
    assert whole.sha256 == parts.sha256


def test_a_cuda_device_that_is_not_there_is_said(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(DeviceError, match='--device cpu'):
        train(recipe, [plane_set], tmp_path / 'x', device='cuda')
    assert not (tmp_path / 'x').exists()


def test_a_training_without_memory_says_so(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> float:
        raise RuntimeError('CUDA error: out of memory')

    monkeypatch.setattr(trainer, '_step', full)
    with pytest.raises(TemporaryError, match=f'batch_size {recipe.batch_size}'):
        train(recipe, [plane_set], tmp_path, report=lambda _: None)


def test_trains_in_half_precision_on_cuda_and_goes_on(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        pytest.skip('there is no CUDA device')
    longer = replace(recipe, iterations=60)

    def run(folder: str, **how: Any) -> list[dict[str, float]]:
        train(longer, [plane_set], tmp_path / folder, device='cuda', report=lambda _: None, **how)
        saved = torch.load(tmp_path / folder / 'checkpoint.pt', weights_only=True)
        assert saved['scaler']['scale'] > 0
        return saved['history']

    whole = run('whole')
    run('parts', stop_after=30)
    assert run('parts')[-1]['loss'] == pytest.approx(whole[-1]['loss'], rel=0.05)
    assert whole[-1]['loss'] < whole[0]['loss']


def test_planes_come_from_the_cache_until_a_file_changes(tmp_path: Path) -> None:
    labels = np.zeros((60, 50, 3), dtype=np.int16)
    labels[35:40, 20:25], labels[20:25, 20:25] = 11, 12
    path, cache = tmp_path / 'map.nii', tmp_path / 'cache'
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0])), path)
    source = Source('x', 'map.nii', {11: 1, 12: 2}, (1, 2), 1.0)
    (case,) = find_cases(source, [tmp_path])
    first = load_case(case, 0.5, cache=cache)
    (kept,) = cache.iterdir()
    assert np.array_equal(load_case(case, 0.5, cache=cache).labels, first.labels)
    # What is in the cache is what is used, so tell it by a mark.
    with np.load(kept) as arrays:
        np.savez(kept, labels=np.full_like(arrays['labels'], 7))
    assert (load_case(case, 0.5, cache=cache).labels == 7).all()
    assert not (load_case(replace(case, source=replace(source, slice_step=2)), 1, cache=cache)
                .labels == 7).any()  # fmt: skip
    labels[35, 20] = 0
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0])), path)
    assert not (load_case(case, 0.5, cache=cache).labels == 7).any()


def test_a_map_without_a_muscle_is_said(tmp_path: Path) -> None:
    labels = np.zeros((60, 50, 3), dtype=np.int16)
    labels[35:40, 20:25] = 1
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / 'map.nii')
    with pytest.raises(BadDataError, match='the label 2 not found'):
        load_first(Source('x', 'map.nii', {1: 1, 2: 2}, (1, 2), 1.0), tmp_path)


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('seed = 20260', "seed = 'x'", "seed is 'x', not a whole number"),
        ('seed = 20260', '', 'seed is missing'),
        ('ema_decay', 'emma_decay', 'Did you mean ema_decay'),
        ('[[source]]', '[[sauce]]', 'source\\]\\] is missing'),
        ("labels = 'dixon", "labelz = 'dixon", 'Did you mean labels'),
        ('annotated = [1, 2, 3, 4]', '', 'annotated is missing'),
        ('[network]', '[network', 'cannot be read'),
        ('weight_decay', "optimizer = 'sgd'\nweight_decay", 'Use one of adamw'),
        ("name = 'template'", "name = 'template'\nkind = 'web'", 'Use one of files, bids'),
    ],
)
def test_a_wrong_recipe_says_which_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (RECIPES / 'lumbar.toml').read_text()
    assert old in text
    (tmp_path / 'recipe.toml').write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=said):
        find_recipe(str(tmp_path / 'recipe.toml'))


def test_finds_recipes_by_name() -> None:
    assert 'lumbar' in recipe_names()
    assert find_recipe('lumbar').region == 'lumbar'
    with pytest.raises(UsageError, match='lumbar'):
        find_recipe('nonsense')


def test_refuses_the_checkpoint_of_another_recipe(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    train(recipe, [plane_set], tmp_path, report=lambda _: None, stop_after=1)
    with pytest.raises(ModelError, match='another recipe'):
        train(replace(recipe, seed=2), [plane_set], tmp_path, report=lambda _: None)


def test_refuses_a_checkpoint_that_has_learned_from_people_now_held_out(
    recipe: Recipe, plane_set: PlaneSet, tmp_path: Path
) -> None:
    one, two = (replace(plane_set, participant=f'd/sub-{k}') for k in (1, 2))
    corrected = replace(one, labels=np.roll(one.labels, 1))

    def run(member: PlaneSet, held_out: PlaneSet) -> ModelBundle:
        return train(
            recipe, [member], tmp_path, validation=[held_out], report=lambda _: None, stop_after=1
        )

    first = run(one, two)
    for sets in ((two, one), (one, one), (corrected, two)):
        with pytest.raises(ModelError, match='participants or label maps'):
            run(*sets)
    assert run(one, two).sha256 == first.sha256


def test_reads_label_maps_in_any_orientation(tmp_path: Path) -> None:
    labels = np.zeros((60, 50, 3), dtype=np.int16)
    labels[35:40, 20:25], labels[20:25, 20:25], labels[50:55, 40:45] = 11, 12, 99
    image = nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0]))
    nib.save(image, tmp_path / 'ras.nii')
    nib.save(image.as_reoriented([[0, -1], [1, -1], [2, 1]]), tmp_path / 'las.nii')
    sets = [
        load_first(Source('x', name, {11: 1, 12: 2}, (1, 2), 1.0), tmp_path)
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


def test_structures_of_a_map_may_be_tissues_and_muscles_joined(tmp_path: Path) -> None:
    labels = np.zeros((60, 50, 2), dtype=np.int16)
    labels[35:40, 20:25], labels[20:25, 20:25] = 11, 12
    labels[5:15, 5:15], labels[45:55, 35:45] = 50, 60
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2.0, 4.0, 1.0])), tmp_path / 'ras.nii')
    source = Source(
        'x',
        'ras.nii',
        {11: 3, 12: 4},
        (3, 4),
        1.0,
        joined={1: 3, 2: 4},
        tissues={50: 'bone', 60: 'bowel'},
    )
    planes = load_first(source, tmp_path)
    assert counts_as(planes.annotated, planes.joined, 9) == [3, 4, 3, 4, 0, 0, 0, 0]
    view = torch.from_numpy(planes.labels[:1]).long()
    axes = [(torch.arange(n) - c) * PIXEL_MM for n, c in zip(PLANE, CENTER, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing='ij'), -1)[None]
    tissue = paint_body(torch.Generator().manual_seed(0), view, points, 'lumbar')
    mine = {int(n) for n in np.unique(planes.labels)} - {0, 3, 4}
    assert {int(tissue[view == n].unique()) for n in mine} == {BONE, FIRST_ORGAN + 1}


def test_views_of_a_batch_have_one_size_that_varies(recipe: Recipe, plane_set: PlaneSet) -> None:
    varied = replace(recipe, jitter_px=8)
    shapes = {tuple(make_batch([plane_set], varied, i)[0].shape[2:]) for i in range(12)}
    assert {width for width, _ in shapes} == {24, 32, 40}
    assert {height for _, height in shapes} == {16, 24, 32}


def test_the_border_in_doubt_is_not_learned(recipe: Recipe, plane_set: PlaneSet) -> None:
    doubtful = replace(recipe, doubt_px=1)
    plain, left_out = (make_batch([plane_set], r, 3)[1] for r in (recipe, doubtful))
    assert bool((left_out == IGNORED).any())
    assert torch.equal(plain[left_out != IGNORED], left_out[left_out != IGNORED])
    assert set(plain[left_out == IGNORED].tolist()) <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    ('header', 'shape', 'refused'),
    [
        (np.diag([2.0, 2.0, 4.0, 1.0]), (60, 50, 3), False),
        # An origin of zero, as some converters write.
        (
            np.array([[2, 0, 0, -55], [0, 2, 0, 30], [0, 0, 4, 9], [0, 0, 0, 1.0]]),
            (60, 50, 3),
            False,
        ),
        (np.diag([-2.0, 2.0, 4.0, 1.0]), (60, 50, 3), True),
        (np.diag([2.0, 2.2, 4.0, 1.0]), (60, 50, 3), True),
        (np.diag([2.0, 2.0, 4.0, 1.0]), (60, 50, 2), True),
    ],
)
def test_a_label_map_off_the_grid_of_its_image_is_refused(
    tmp_path: Path, header: np.ndarray, shape: tuple[int, ...], refused: bool
) -> None:
    labels = np.zeros(shape, dtype=np.int16)
    labels[35:40, 20:25], labels[20:25, 20:25] = 1, 2
    nib.save(nib.Nifti1Image(labels, header), tmp_path / 'map.nii')
    noise = np.random.default_rng(1).gamma(9, 10, (60, 50, 3)).astype(np.float32)
    image = nib.Nifti1Image(noise, np.diag([2.0, 2.0, 4.0, 1.0]))
    # Another order of the voxels in the file is no other place.
    turned = image.as_reoriented([[0, -1], [1, -1], [2, 1]])
    for name, each in (('image.nii', image), ('turned.nii', turned)):
        nib.save(each, tmp_path / name)
        source = Source(
            'x', 'map.nii', {1: 1, 2: 2}, (1, 2), 1.0, images=(name,), bias_correction=False
        )
        if refused or (name == 'turned.nii' and header[0, 3]):
            with pytest.raises(BadDataError, match='is not on the grid of'):
                load_first(source, tmp_path)
        else:
            assert load_first(source, tmp_path).images is not None


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
    plane = load_first(source, tmp_path).labels[0]
    right, left = np.argwhere(plane == 3), np.argwhere(plane == 4)
    assert right[:, 0].min() > left[:, 0].max()
    hole = np.argwhere(plane[right[:, 0].min() : right[:, 0].max()] == 0)
    middle = right[:, 1].mean()
    inside = hole[(hole[:, 1] > right[:, 1].min()) & (hole[:, 1] < right[:, 1].max())]
    assert (inside[:, 1] > middle).all()


def test_names_the_missing_source(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match='--exclude x'):
        load_first(Source('x', 'none*.nii', {1: 1}, (1,), 1.0), tmp_path)


def test_a_map_says_which_tissues_surround_the_muscles() -> None:
    codes = np.array([[0, 1, 2, 50, 51, 60]])
    source = Source('complete', codes={1: 3}, annotated=(3,), tissues={50: 'bone', 51: 'air'})
    labels = torch.from_numpy(recode(codes, source)).long()
    painted = paint_body(
        torch.Generator().manual_seed(1), labels[None], torch.zeros(1, 1, 6, 2), 'cervical'
    )[0, 0].tolist()
    assert painted[1] == 3
    assert FIRST_OTHER <= painted[2] < AIR
    assert painted[3:5] == [BONE, AIR]
    assert FIRST_OTHER <= painted[5] < AIR
    # In the background none of them is asked for.
    assert bool((labels[0, 3:5] >= FIRST_OTHER).all())


def test_labels_are_resampled_as_a_whole_plane_would_be() -> None:
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 5, (12, 9)), np.ones((6, 6), int))
    labels[:, :10] = 0
    for zooms in ((0.4, 0.5), (0.8, 0.8), (1.3, 1.1)):
        middle = np.array([20.0, 15.0])
        found = sources._label_plane(labels, zooms, middle, False)
        best = 1 - sources._plane((labels > 0).astype(np.float32), zooms, middle, 1)
        wanted = np.zeros(found.shape)
        for number in range(1, 5):
            share = sources._plane((labels == number).astype(np.float32), zooms, middle, 1)
            wanted[share > best] = number
            best = np.maximum(best, share)
        assert (found == wanted).all()
        assert found.any()


def test_slices_that_nobody_looked_at_are_left_out(tmp_path: Path) -> None:
    labels = np.full((40, 40, 5), 99, np.uint8)
    labels[..., 1] = 0
    labels[10:20, 10:30, 1:3] = 1
    nib.save(nib.Nifti1Image(labels, np.diag([1.0, 1.0, 4.0, 1.0])), tmp_path / 'drawn.nii.gz')
    source = Source(
        'drawn', 'drawn.nii.gz', {1: 1}, annotated=(1,), all_slices=True, unknown=(99,)
    )
    planes = load_case(find_cases(source, [tmp_path])[0], 1.0, (1,))
    assert len(planes) == 2
    assert UNKNOWN not in planes.labels[0]
    assert UNKNOWN in planes.labels[1]
