"""Losses of the recipes against their formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_muscle.errors import UsageError
from bids_muscle.segmentation.training.loss import make_loss
from bids_muscle.segmentation.training.recipe import Recipe

LOSSES = ('marginal', 'dice_ce', 'dice_hinge', 'dice_sigmoid')


@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('shape', [(6, 5), (6, 5, 4)])
def test_a_perfect_answer_costs_least(recipe: Recipe, name: str, shape: tuple[int, ...]) -> None:
    import torch

    loss = make_loss(replace(recipe, loss=name))
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, *shape)))
    asked = torch.arange(1, 4).expand(2, -1)
    truth = torch.stack([target == label for label in range(4)], 1).float()
    perfect, none = 40 * truth - 20, torch.zeros_like(truth)
    assert float(loss(perfect, target, asked)) == pytest.approx(0, abs=0.02)
    assert float(loss(none, target, asked)) > 0.3
    assert float(loss(-perfect, target, asked)) > float(loss(none, target, asked))


@pytest.mark.parametrize('name', LOSSES)
def test_a_label_that_is_not_annotated_costs_nothing(recipe: Recipe, name: str) -> None:
    import torch

    loss = make_loss(replace(recipe, loss=name))
    target = torch.zeros((1, 4, 4), dtype=torch.int64)
    target[:, :2] = 1
    logits = torch.zeros((1, 3, 4, 4))
    logits[:, 1, :2] = logits[:, 2, 2:] = 20.0  # label 2 all over the background
    logits[:, 1, 2:] = logits[:, 2, :2] = -20.0
    lacks_two = torch.tensor([[1, 0]])
    assert float(loss(logits, target, lacks_two)) == pytest.approx(0, abs=0.05)
    assert float(loss(logits, target, torch.tensor([[1, 2]]))) > 0.25


def test_the_hinges_pull_where_a_class_is_all_but_missed(recipe: Recipe) -> None:
    import torch

    loss = make_loss(replace(recipe, loss='dice_hinge'))
    target = torch.zeros((1, 10, 10), dtype=torch.int64)
    target[0, 0] = 1
    asked = torch.tensor([[1]])
    for share in (0.001, 0.05, 0.5):  # probability of class 1 everywhere
        logits = torch.full((1, 2, 10, 10), 0.0)
        logits[:, 1] = float(np.log(share / (1 - share)))
        dice = np.array(
            [2 * 90 * (1 - share) / (100 * (1 - share) + 90), 20 * share / (100 * share + 10)]
        )
        wanted = (
            1
            - dice.mean()
            + 10 * np.mean((np.minimum(dice, 0.1) / 0.1 - 1) ** 2)
            + 10 * np.mean((np.minimum(dice, 0.01) / 0.01 - 1) ** 2)
        )
        assert float(loss(logits, target, asked)) == pytest.approx(wanted, rel=1e-4)


def test_an_unknown_loss_optimizer_or_schedule_is_named(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match='typo'):
        make_loss(replace(recipe, loss='typo'))
    for field in ('optimizer', 'schedule'):
        with pytest.raises(UsageError, match=field):
            replace(recipe, **{field: 'typo'})


def test_unknown_pixels_cost_nothing(recipe: Recipe) -> None:
    import torch

    from bids_muscle.segmentation.training.loss import IGNORED

    loss = make_loss(replace(recipe, loss='marginal'))
    target = torch.zeros((1, 4, 4), dtype=torch.int64)
    target[:, :2] = 1
    logits = torch.stack([target != 1, target == 1], 1) * 40.0 - 20
    asked = torch.tensor([[1]])
    wrong = logits.clone()
    wrong[:, :, 3] = -wrong[:, :, 3]
    unknown = target.clone()
    unknown[:, 3] = IGNORED
    assert float(loss(wrong, target, asked)) > 0.5
    assert float(loss(wrong, unknown, asked)) == pytest.approx(0, abs=0.02)
    assert float(loss(wrong, torch.full_like(target, IGNORED), asked)) == 0


@pytest.mark.parametrize('name', LOSSES)
def test_of_joined_labels_either_is_right(recipe: Recipe, name: str) -> None:
    import torch

    loss = make_loss(replace(recipe, loss=name))
    target = torch.zeros((1, 4, 4), dtype=torch.int64)
    target[:, :2] = 2
    logits = torch.full((1, 3, 4, 4), -20.0)
    logits[:, 0, 2:] = logits[:, 1, :1] = logits[:, 2, 1:2] = 20.0
    assert float(loss(logits, target, torch.tensor([[2, 2]]))) == pytest.approx(0, abs=0.05)
    assert float(loss(logits, target, torch.tensor([[1, 2]]))) > 0.1


def test_only_the_marginal_loss_knows_unknown_pixels(recipe: Recipe) -> None:
    source = replace(recipe.sources[0], unknown=(9,))
    replace(recipe, loss='marginal', sources=(source,))
    with pytest.raises(UsageError, match='unlabelled pixels'):
        replace(recipe, loss='dice_ce', sources=(source,))
