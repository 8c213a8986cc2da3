"""Class probabilities of a volume, plane after plane, from windows that the network can take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Standard deviation of the weight of a window, as a share of its size (nnU-Net, MONAI).
SIGMA = 0.125

#: From windows, one tensor (batch, channels, x, y[, z]) per image of the scan, to probabilities
#: (batch, classes, x, y[, z]).
Predict = Callable[[Sequence['torch.Tensor']], 'torch.Tensor']


def window_starts(extent: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin so that they cover an axis, evenly spread.

    Parameters
    ----------
    extent
        Pixels of the axis.
    window
        Pixels of a window, at most ``extent``.
    overlap
        Least share of a window that the next one covers too, in [0, 1).

    Examples
    --------
    >>> window_starts(10, 4, 0.5)
    [0, 2, 4, 6]
    >>> window_starts(4, 4, 0.5)
    [0]
    """
    step = max(1, int(window * (1 - overlap)))
    count = -(-(extent - window) // step) + 1
    return [round(i * (extent - window) / max(1, count - 1)) for i in range(count)]


def axis_weights(extent: int, window: int, starts: Sequence[int]) -> torch.Tensor:
    """Return the weight of each window along an axis, (windows, window), float32.

    Windows weigh most in their middle. At every pixel of the axis the weights of all windows add
    up to one, so that nothing has to be divided once the windows are added.

    Examples
    --------
    >>> axis_weights(3, 2, [0, 1]).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    import torch

    distance = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    bell = torch.exp(-0.5 * (distance / (SIGMA * window)) ** 2)
    total = torch.zeros(extent, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += bell
    return torch.stack([bell / total[s : s + window] for s in starts]).float()


def stream_planes(
    images: Sequence[torch.Tensor],
    predict: Predict,
    *,
    window: tuple[int, int, int],
    spatial_dims: int,
    overlap: float,
    batch_size: int,
) -> Iterator[torch.Tensor]:
    """Yield the class probabilities of each plane in order, (classes, x, y).

    Only the planes of one window's depth are held at a time. Where windows overlap they are added
    in half precision, always in the same order.

    Parameters
    ----------
    images
        Images of one scan, each (planes, channels, x, y), no smaller than the window.
    predict
        The network; see :data:`Predict`.
    window
        Pixels (x, y, planes) of a window; one plane for a 2-D network.
    spatial_dims
        Axes of the network, 2 or 3.
    overlap
        Share of a window that the next one covers too.
    batch_size
        Windows that the network sees at once.
    """
    import torch

    depth, _, *plane = images[0].shape
    extents = (depth, *plane)
    sizes = (window[2], window[0], window[1])
    starts = [
        list(range(depth)) if size == 1 else window_starts(extent, size, overlap)
        for extent, size in zip(extents, sizes, strict=True)
    ]
    alone = sizes[0] == 1 and len(starts[1]) == len(starts[2]) == 1
    weights = [
        axis_weights(extent, size, start)
        for extent, size, start in zip(extents, sizes, starts, strict=True)
    ]
    tasks = list(product(*(range(len(start)) for start in starts)))
    held: dict[int, torch.Tensor] = {}
    done = 0
    for first in range(0, len(tasks), batch_size):
        chosen = tasks[first : first + batch_size]
        corners = [tuple(s[i] for s, i in zip(starts, task, strict=True)) for task in chosen]
        batch = predict([_cut(image, corners, sizes, spatial_dims) for image in images])
        if spatial_dims == 2:
            batch = batch[..., None]
        for probabilities, task, (z, x, y) in zip(batch, chosen, corners, strict=True):
            while done < z:
                yield held.pop(done).float()
                done += 1
            if alone:
                held[z] = probabilities[..., 0]
                continue
            depth_w, x_w, y_w = (
                w[i].to(probabilities.device) for w, i in zip(weights, task, strict=True)
            )
            in_plane = x_w[:, None] * y_w
            for i in range(sizes[0]):
                if z + i not in held:
                    held[z + i] = torch.zeros(
                        (len(probabilities), *plane), dtype=torch.half, device=batch.device
                    )
                part = held[z + i][:, x : x + sizes[1], y : y + sizes[2]]
                part += (probabilities[..., i] * (in_plane * depth_w[i])).half()
    for z in range(done, depth):
        yield held.pop(z).float()


def _cut(
    image: torch.Tensor,
    corners: Sequence[tuple[int, ...]],
    sizes: tuple[int, int, int],
    spatial_dims: int,
) -> torch.Tensor:
    """Stack windows (planes, channels, x, y) to (batch, channels, x, y[, z])."""
    import torch

    windows = torch.stack(
        [image[z : z + sizes[0], :, x : x + sizes[1], y : y + sizes[2]] for z, x, y in corners]
    )
    return windows[:, 0] if spatial_dims == 2 else windows.permute(0, 2, 3, 4, 1).contiguous()
