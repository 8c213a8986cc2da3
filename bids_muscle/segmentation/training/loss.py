"""Cross-entropy and soft Dice that do not ask for labels which a data set lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def marginal_loss(
    logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor
) -> torch.Tensor:
    """Mean of cross-entropy and soft Dice, marginal over labels that are not annotated.

    Where a label is not annotated its probability counts as background, since the pixels of that
    muscle are background in the map (Shi 2021, marginal loss for partially labelled data).

    Parameters
    ----------
    logits
        Shape (n, classes, x, y).
    target
        Shape (n, x, y), int64; only 0 and annotated labels occur.
    annotated
        Shape (n, classes - 1), bool.

    Returns
    -------
    torch.Tensor
        Scalar.

    Examples
    --------
    >>> import torch
    >>> logits = torch.zeros(1, 3, 1, 1)
    >>> target = torch.zeros(1, 1, 1, dtype=torch.int64)
    >>> both = marginal_loss(logits, target, torch.tensor([[True, True]]))
    >>> one = marginal_loss(logits, target, torch.tensor([[True, False]]))
    >>> bool(one < both)
    True
    """
    import torch
    from torch.nn.functional import nll_loss

    log_p = logits.log_softmax(1)
    missing = ~annotated[:, :, None, None]
    low = torch.finfo(log_p.dtype).min
    background = torch.cat([log_p[:, :1], log_p[:, 1:].masked_fill(~missing, low)], 1)
    log_p = torch.cat([background.logsumexp(1, keepdim=True), log_p[:, 1:]], 1)
    cross_entropy = nll_loss(log_p, target)
    # Dice over the batch, so that a label absent from one view does no harm.
    p = log_p[:, 1:].exp()
    truth = torch.stack([target == label for label in range(1, log_p.shape[1])], 1).float()
    counts = annotated[:, :, None, None].float()
    overlap = (p * truth * counts).sum((0, 2, 3))
    sizes = ((p + truth) * counts).sum((0, 2, 3))
    present = (truth * counts).sum((0, 2, 3)) > 0
    dice = (2 * overlap + 1) / (sizes + 1)
    shown = present.sum().clamp(min=1)
    return cross_entropy + 1 - (dice * present).sum() / shown
