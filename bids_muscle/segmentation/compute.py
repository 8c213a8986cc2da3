"""Where and in which portions a scan is computed, and what to do when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Compute:
    """Where and in which portions a scan is computed; the labels do not depend on the portions.

    Parameters
    ----------
    device
        Where the network runs.
    accumulate_on
        Where probabilities are added up.
    batch_size
        Windows that the network sees at once.
    """

    device: str
    accumulate_on: str
    batch_size: int


def ladder(device: str, batch_size: int) -> list[Compute]:
    """Give ways to compute the same with less and less memory.

    Examples
    --------
    >>> [(c.device, c.batch_size) for c in ladder('cpu', 4)]
    [('cpu', 4), ('cpu', 2), ('cpu', 1)]
    >>> [(c.device, c.accumulate_on, c.batch_size) for c in ladder('cuda', 1)]
    [('cuda', 'cuda', 1), ('cuda', 'cpu', 1), ('cpu', 'cpu', 1)]
    """
    steps = []
    while batch_size:
        steps.append(Compute(device, device, batch_size))
        batch_size //= 2
    if device != 'cpu':
        steps += [Compute(device, 'cpu', 1), Compute('cpu', 'cpu', 1)]
    return steps


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where PyTorch has no class for it."""
    import torch

    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)
