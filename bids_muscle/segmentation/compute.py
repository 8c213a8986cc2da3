"""Where and in which portions a scan is computed, and what to do when memory runs out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bids_muscle.errors import DeviceError

#: What a lack of memory is called where PyTorch has no class for it: on the CPU, and where CUDA,
#: cuDNN or cuBLAS want memory of their own; cuDNN may also say that it finds no way to compute.
_OUT_OF_MEMORY = re.compile(
    "can't allocate memory|out of memory|bad_alloc|ALLOC(ATION)?_FAILED"
    '|(CUDNN|CUBLAS)_STATUS_NOT_INITIALIZED|unable to find an engine',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Compute:
    """Where and in which portions a scan is computed.

    On the CPU the labels do not depend on the portions. On a GPU its libraries may round otherwise
    in batches of another size.

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


def check_device(device: str) -> None:
    """Raise DeviceError if a device is not there: ``'cpu'``, ``'cuda'`` or ``'cuda:N'``."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ['cuda', *(f'cuda:{index}' for index in range(count))] if count else []
    if device not in ('cpu', *there):
        raise DeviceError(
            f'The device {device} was asked for; PyTorch finds '
            f'{", ".join(there[1:]) or "no CUDA device"}.',
            'Run with --device cpu, or give the container its GPU (--nv, --gpus all).',
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU."""
    import torch

    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or bool(_OUT_OF_MEMORY.search(str(error)))
