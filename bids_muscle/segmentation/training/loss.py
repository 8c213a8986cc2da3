"""Losses of the recipes; none asks for labels which a data set lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bids_muscle.errors import UsageError

if TYPE_CHECKING:
    import torch

    from bids_muscle.segmentation.training.recipe import Recipe

    Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

#: Soft Dice below which the hinges of the Dice hinge loss pull, and the weight of each hinge.
HINGES, HINGE_WEIGHT = (0.1, 0.01), 10.0
#: Target of a pixel that may be anything; only the marginal loss knows it.
IGNORED = -100


def make_loss(recipe: Recipe) -> Loss:
    """Return the loss that a recipe names, a function of logits, target and labels asked for.

    ``'marginal'`` is :func:`marginal_loss`; ``'dice_ce'`` the sum of Dice, sample by sample, and
    cross-entropy of Wesselink 2022 and Xia 2019; ``'dice_hinge'`` that of Weber 2021;
    ``'dice_sigmoid'`` that of Hess 2022. All take logits
    (n, classes, x, y[, z]), target int64 (n, x, y[, z]) and the label that each label counts as,
    int64 (n, classes - 1), and give a scalar.

    Raises
    ------
    UsageError
        If the recipe names another loss.
    """
    losses: dict[str, Loss] = {
        'marginal': marginal_loss,
        'dice_ce': dice_ce_loss,
        'dice_hinge': dice_hinge_loss,
        'dice_sigmoid': dice_sigmoid_loss,
    }
    if recipe.loss not in losses:
        raise UsageError(
            f'The loss {recipe.loss!r} of the recipe {recipe.name} is unknown.',
            f'Use one of {", ".join(losses)}.',
        )
    return losses[recipe.loss]


def marginal_loss(logits: torch.Tensor, target: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Mean of cross-entropy and soft Dice, marginal over labels that are not annotated.

    Where a label is not annotated its probability counts as background, since the pixels of that
    muscle are background in the map (Shi 2021, marginal loss for partially labelled data). Where
    it is joined to another, its probability counts as that label's.

    Parameters
    ----------
    logits
        Shape (n, classes, x, y) or (n, classes, x, y, z).
    target
        Shape (n, x, y) or (n, x, y, z), int64; 0, annotated labels, and :data:`IGNORED`.
    asked
        Shape (n, classes - 1), int64: the label that each label counts as, 0 for background.

    Returns
    -------
    torch.Tensor
        Scalar.

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(1, 3, 1, 1)
    >>> target = torch.zeros(1, 1, 1, dtype=torch.int64)
    >>> both = marginal_loss(logits, target, torch.tensor([[1, 2]]))
    >>> one = marginal_loss(logits, target, torch.tensor([[1, 0]]))
    >>> bool(one < both)
    True
    """
    import torch
    from torch.nn.functional import nll_loss

    log_p = merged(logits.log_softmax(1), asked)
    counted = target != IGNORED
    counts_as = torch.cat([torch.zeros_like(asked[:, :1]), asked], 1)
    target = torch.where(
        counted, counts_as.gather(1, target.clamp(min=0).flatten(1)).view_as(target), IGNORED
    )
    if not bool(counted.any()):
        return log_p.sum() * 0
    cross_entropy = nll_loss(log_p, target, ignore_index=IGNORED)
    # Dice over the batch, so that a label absent from one view does no harm. What overlaps is the
    # probability of the true class of each pixel, summed by class.
    p = log_p.exp()
    classes, space = p.shape[1], tuple(range(2, p.ndim))
    true_class = target[counted]
    of_truth = p.gather(1, target.clamp(min=0)[:, None])[:, 0][counted]
    overlap = torch.zeros(classes).to(p).index_add(0, true_class, of_truth)[1:]
    truth = torch.zeros(classes).to(p).index_add(0, true_class, torch.ones_like(of_truth))[1:]
    guessed = p if bool(counted.all()) else p * counted[:, None]
    sizes = guessed.sum(space).sum(0)[1:] + truth
    present = truth > 0
    dice = (2 * overlap + 1) / (sizes + 1)
    shown = present.sum().clamp(min=1)
    return cross_entropy + 1 - (dice * present).sum() / shown


def dice_ce_loss(logits: torch.Tensor, target: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Soft Dice of each sample plus cross-entropy, background included: MONAI's ``DiceCELoss``."""
    from monai.losses import DiceCELoss

    loss = DiceCELoss(softmax=True, to_onehot_y=True)
    return loss(merged(logits, asked), target[:, None])


def dice_hinge_loss(
    logits: torch.Tensor, target: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """Soft Dice with two hinges, which pull hard on classes that are all but missed.

    With d the soft Dice of a class over the batch, L = 1 - mean(d)
    + 10 mean((10 min(d, 0.1) - 1)^2) + 10 mean((100 min(d, 0.01) - 1)^2). Gibson 2018 describes
    the penalties at 0.1 and 0.01; the weights are those of a public re-implementation of the Dice
    hinge in the NiftyNet model zoo. The mean is over the classes that the batch shows, background
    included.
    """
    import torch

    p = merged(logits, asked).softmax(1)
    truth = torch.stack([target == label for label in range(p.shape[1])], 1).float()
    axes = (0, *range(2, p.ndim))
    size = truth.sum(axes)
    dice = 2 * (p * truth).sum(axes) / (p.sum(axes) + size + 1e-5)
    dice = dice[size > 0]
    loss = 1 - dice.mean()
    for hinge in HINGES:
        loss = loss + HINGE_WEIGHT * (dice.clamp(max=hinge) / hinge - 1).square().mean()
    return loss


def dice_sigmoid_loss(
    logits: torch.Tensor, target: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """Soft Dice of structures that are independent of each other, over the batch.

    Each label has a sigmoid of its own; the logit of the background is not used. Hess 2022 has a
    weighted Dice for muscles and discs without its weights; here each structure weighs the same,
    whatever its size. With inverse squared sizes (generalised Dice, Sudre 2017) large muscles
    cover small ones at little cost.
    """
    from monai.losses import DiceLoss

    loss = DiceLoss(sigmoid=True, to_onehot_y=True, include_background=False, batch=True)
    return loss(merged(logits, asked), target[:, None])


def one_hot(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Return 1 where the target is a class, shape (n, classes, ...)."""
    import torch

    return torch.stack([target == label for label in range(classes)], 1).float()


def merged(logits: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Return logits in which each label has given its share to the one that it counts as.

    Examples
    --------
    >>> import torch
    >>> found = merged(torch.zeros(1, 4, 1), torch.tensor([[0, 2, 2]])).softmax(1)
    >>> [round(float(p), 2) for p in found[0, :, 0]]
    [0.5, 0.0, 0.5, 0.0]
    """
    import torch

    classes = logits.shape[1]
    itself = torch.arange(classes, device=asked.device)
    counts_as = torch.cat([torch.zeros_like(asked[:, :1]), asked], 1)
    if bool((counts_as == itself).all()):
        return logits
    low = torch.finfo(logits.dtype).min
    rows = []
    for label in range(classes):
        members = (counts_as == label).view(*counts_as.shape, *[1] * (logits.ndim - 2))
        if bool((counts_as == label)[:, itself != label].any()):
            rows.append(logits.masked_fill(~members, low).logsumexp(1))
        else:
            rows.append(logits[:, label].masked_fill(~members[:, label], low))
    return torch.stack(rows, 1)


def leave_out_border(target: torch.Tensor, doubt_px: int) -> torch.Tensor:
    """Leave out of the loss what is near the border between multifidus and erector spinae.

    Parameters
    ----------
    target
        Shape (n, x, y), numbers of the lumbar label table.
    doubt_px
        Pixels on either side of the border.

    Examples
    --------
    >>> import torch
    >>> row = torch.tensor([1, 1, 1, 3, 3, 3, 0, 0]).expand(1, 8, 8)
    >>> leave_out_border(row, 1)[0, 4].tolist()
    [1, 1, -100, -100, 3, 3, 0, 0]
    """
    from torch.nn.functional import max_pool2d

    near = one_hot(target, 5)[:, 1:]
    near = max_pool2d(near, 2 * doubt_px + 1, 1, doubt_px) > 0
    border = (near[:, 0] & near[:, 2]) | (near[:, 1] & near[:, 3])
    return target.masked_fill(border & (target > 0), IGNORED)
