"""Labels as another program makes them, from the same weights: see its :class:`Procedure`.

Only the planes of one window's depth are held at a time, and only classes that can win are
brought to the grid of the scan, so that the memory does not grow with the scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from bids_muscle.segmentation.grid import CHUNK
from bids_muscle.segmentation.procedure import NetworkInput, Procedure, Taps

#: One network: from windows (batch, channels, planes, rows, columns) to logits (batch, classes,
#: planes, rows, columns), float32.
Look = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Classes:
    """Winners of a scan.

    Parameters
    ----------
    winner
        Class of each voxel.
    confidence
        uint8, percent: its share; 0 where the program does not look. The sum over the classes is
        that of the pixels around.
    expected
        Voxels of each class by their shares.
    """

    winner: np.ndarray
    confidence: np.ndarray
    expected: np.ndarray


def classify_voxels(
    prepared: NetworkInput,
    looks: Sequence[Look],
    procedure: Procedure,
    batch_size: int,
    n_classes: int,
) -> Classes:
    """Label a prepared scan.

    Parameters
    ----------
    prepared
        What the networks see.
    looks
        The networks, whose logits are averaged.
    procedure
        How windows are laid and added, and what is resampled.
    batch_size
        Windows that a network sees at once.
    n_classes
        Classes of the networks.

    Returns
    -------
    Classes
        With the axes of the scan, in the voxel order of the procedure.
    """
    taps = [each.nearest() for each in prepared.taps] if procedure.nearest else prepared.taps
    depth, rows, columns = taps
    shape = tuple(len(each.index) for each in taps)
    winner = np.zeros(shape, np.min_scalar_type(n_classes))
    confidence = np.zeros(shape, np.uint8)
    expected = torch.zeros(n_classes, dtype=torch.float64)
    pixels = _pixels(rows) * _pixels(columns)
    planes = _mean_planes(prepared.volume, looks, procedure, batch_size)
    held: dict[int, torch.Tensor] = {}
    reached = 0
    for k, (index, weight) in enumerate(zip(depth.index, depth.weight, strict=True)):
        used = [(int(i), float(w)) for i, w in zip(index, weight, strict=True) if w]
        if not used:
            continue
        while reached <= used[-1][0]:
            plane = next(planes)
            held[reached] = plane.softmax(0) if procedure.shares else plane
            reached += 1
        for old in [number for number in held if number < used[0][0]]:
            del held[old]
        scores = (
            sum(held[i] * w for i, w in used) if used != [(used[0][0], 1.0)] else held[used[0][0]]
        )
        scores = torch.as_tensor(scores)
        shares = scores if procedure.shares else scores.softmax(0)
        expected += shares.sum((1, 2), dtype=torch.float64).cpu() * pixels
        total = scores.sum(0) if procedure.shares else scores.logsumexp(0)
        classes, best = _winner(scores, rows, columns, procedure.half)
        norm = _resampled(total[None], rows, columns)[0]
        looked = torch.as_tensor(
            np.outer(rows.weight.any(1), columns.weight.any(1)), device=norm.device
        )
        share = best / norm.clamp(min=1e-6) if procedure.shares else (best - norm).exp()
        winner[k] = classes.cpu().numpy()
        percent = (100 * share.clamp(0, 1) * looked).round()
        confidence[k] = percent.to(torch.uint8).cpu().numpy()
    back = np.argsort(prepared.axes)
    return Classes(winner.transpose(back), confidence.transpose(back), expected.numpy())


def look(
    windows: torch.Tensor,
    *,
    network: Callable[[torch.Tensor], torch.Tensor],
    procedure: Procedure,
    device: str,
    accumulate_on: str,
    mirrored: tuple[int, Sequence[int]] | None = None,
) -> torch.Tensor:
    """Return the mean logits of the views of windows.

    Parameters
    ----------
    windows
        Shape (batch, channels, planes, rows, columns).
    network
        From (batch, channels, rows, columns), with planes before or after in 3-D, to logits.
    procedure
        Of the program: order of the axes and mirrored views.
    device, accumulate_on
        Where the network runs, and where the result is.
    mirrored
        Axis of a window from left to right, and the class of the same structure on the other
        side, to look at mirrored images too; None not to.
    """
    windows = windows.to(device)

    def once(seen: torch.Tensor) -> torch.Tensor:
        with torch.autocast('cuda', torch.float16, enabled=device != 'cpu'):
            if procedure.spatial_dims == 2:
                return network(seen[:, :, 0])[:, :, None].float()
            if procedure.planes_last:
                found = network(seen.permute(0, 1, 3, 4, 2).contiguous())
                return found.permute(0, 1, 4, 2, 3).float()
            return network(seen).float()

    def views(seen: torch.Tensor) -> torch.Tensor:
        total = once(seen)
        for axes in procedure.mirrors:
            dims = [2 + axis for axis in axes]
            total += once(seen.flip(dims)).flip(dims)
        return total / (1 + len(procedure.mirrors)) if procedure.mirrors else total

    logits = views(windows)
    if mirrored:
        axis, other = 2 + mirrored[0], list(mirrored[1])
        logits = (logits + views(windows.flip(axis)).flip(axis)[:, other]) / 2
    return logits.to(accumulate_on)


def _pixels(taps: Taps) -> float:
    """Voxels of the scan for each pixel of the network along an axis."""
    alive = taps.weight.any(1)
    inside = taps.index[alive][taps.weight[alive] > 0]
    return float(alive.sum() / (np.ptp(inside) + 1)) if alive.any() else 0.0


def _winner(
    scores: torch.Tensor, rows: Taps, columns: Taps, half: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the class and its score at each voxel of a plane, from (classes, rows, columns).

    A class that is nowhere above the background cannot win by interpolation, and no class can
    beyond the pixels around those where one is.
    """
    best = _resampled(scores[:1], rows, columns)[0]
    best = best.half() if half else best
    winner = torch.zeros(best.shape, dtype=torch.long, device=best.device)
    above = (scores[1:] > scores[0]).flatten(1).any(1)
    candidates = (1 + torch.nonzero(above).flatten()).tolist()
    if not candidates:
        return winner, best.float()
    where = torch.nonzero(scores[candidates].amax(0) > scores[0])
    boxes = [
        _reached(taps, int(where[:, axis].min()), int(where[:, axis].max()))
        for axis, taps in enumerate((rows, columns))
    ]
    if any(box.stop <= box.start for box in boxes):
        return winner, best.float()
    inner = [Taps(t.index[b], t.weight[b]) for t, b in zip((rows, columns), boxes, strict=True)]
    best_in, winner_in = best[boxes[0], boxes[1]], winner[boxes[0], boxes[1]]
    for start in range(0, len(candidates), CHUNK):
        chosen = candidates[start : start + CHUNK]
        fine = _resampled(scores[chosen], *inner)
        top, index = (fine.half() if half else fine).max(0)
        higher = top > best_in
        winner_in[higher] = torch.tensor(chosen, device=index.device)[index[higher]]
        best_in[higher] = top[higher]
    return winner, best.float()


def _reached(taps: Taps, low: int, high: int) -> slice:
    """Voxels that take from the pixels ``low`` to ``high``."""
    touched = ((taps.index >= low) & (taps.index <= high) & (taps.weight > 0)).any(1)
    inside = np.flatnonzero(touched)
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def _resampled(scores: torch.Tensor, rows: Taps, columns: Taps) -> torch.Tensor:
    """Bring (classes, rows, columns) to the grid of the scan."""
    for axis, taps in ((1, rows), (2, columns)):
        extent = scores.shape[axis]
        if np.array_equal(taps.index[:, 0], np.arange(extent)) and (taps.weight[:, 0] == 1).all():
            continue
        index = torch.as_tensor(taps.index, device=scores.device)
        shape = [-1 if each == axis else 1 for each in range(3)]
        weight = torch.as_tensor(taps.weight, dtype=torch.float32, device=scores.device)
        lower, upper = (
            scores.index_select(axis, index[:, i]) * weight[:, i].reshape(shape) for i in (0, 1)
        )
        scores = lower + upper
    return scores


def _mean_planes(
    volume: torch.Tensor, looks: Sequence[Look], procedure: Procedure, batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield the mean over the networks of each plane (classes, rows, columns), float32."""
    streams = [_planes(volume, look, procedure, batch_size) for look in looks]
    for planes in zip(*streams, strict=True):
        total = planes[0]
        for other in planes[1:]:
            total += other
        yield (total / len(planes) if len(planes) > 1 else total).float()


def _planes(
    volume: torch.Tensor, look: Look, procedure: Procedure, batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield each plane of what one network says, windows added by their weights.

    Windows are added in the order of their planes, rows and columns, as the programs do: in half
    precision the order changes the sum.
    """
    extents = volume.shape[1:]
    window = procedure.window or (1 if procedure.spatial_dims == 2 else extents[0], *extents[1:])
    before = [max(w - e, 0) // 2 for w, e in zip(window, extents, strict=True)]
    volume = _padded(volume, window, before)
    padded = volume.shape[1:]
    weight = procedure.weight(window)
    dtype = torch.half if procedure.half else torch.float32
    starts = [
        procedure.starts(extent, size, procedure.overlap)
        for extent, size in zip(padded, window, strict=True)
    ]
    if window[0] == 1:
        starts[0] = range(padded[0])
    corners = list(product(*starts))
    inside = [slice(b, b + e) for b, e in zip(before, extents, strict=True)]
    sums: dict[int, torch.Tensor] = {}
    weights: dict[int, torch.Tensor] = {}
    done = 0

    def finished(until: int) -> Iterator[torch.Tensor]:
        for z in range(done, until):
            total, divisor = sums.pop(z), weights.pop(z)
            if inside[0].start <= z < inside[0].stop:
                yield torch.div(total, divisor)[:, inside[1], inside[2]]

    for first in range(0, len(corners), batch_size):
        chosen = corners[first : first + batch_size]
        windows = torch.stack([volume[:, *_box(corner, window)] for corner in chosen])
        found = look(windows)
        weight = weight.to(found.device, dtype)
        for logits, corner in zip(found, chosen, strict=True):
            yield from finished(corner[0])
            done = max(done, corner[0])
            logits *= weight
            box = _box(corner, window)
            for i in range(window[0]):
                z = corner[0] + i
                if z not in sums:
                    plane = logits.new_zeros((len(logits), *padded[1:]), dtype=dtype)
                    sums[z], weights[z] = plane, plane.new_zeros(padded[1:])
                sums[z][:, box[1], box[2]] += logits[:, i]
                weights[z][box[1], box[2]] += weight[i]
    yield from finished(padded[0])


def _box(corner: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))


def _padded(volume: torch.Tensor, window: Sequence[int], before: Sequence[int]) -> torch.Tensor:
    """Pad with zeros on both sides to the window."""
    from torch.nn.functional import pad

    widths: list[int] = []
    for extent, size, lower in zip(volume.shape[:0:-1], window[::-1], before[::-1], strict=True):
        widths += [lower, max(size - extent, 0) - lower]
    return pad(volume, widths) if any(widths) else volume
