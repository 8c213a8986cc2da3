"""The predictor: a loaded model that turns images into a label map, apart from any file."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from math import ceil, floor
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import inv_ornt_aff

from bids_muscle.errors import (
    GridMismatchError,
    ModelError,
    SegmentationError,
    TemporaryError,
)
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import load_model
from bids_muscle.segmentation.compute import Compute, check_device, is_out_of_memory, ladder
from bids_muscle.segmentation.grid import (
    AXES,
    arg_max,
    at_slices,
    model_size,
    to_model_grid,
    with_neighbours,
)
from bids_muscle.segmentation.intensity import normalize_padded
from bids_muscle.segmentation.model import ANY, Model
from bids_muscle.segmentation.parity import classify_voxels, look
from bids_muscle.segmentation.postprocess import keep_muscles, postprocess
from bids_muscle.segmentation.quality import expected_dice
from bids_muscle.segmentation.windows import stream_planes

#: Slices of the first look that finds where the muscles are.
LOCALIZER_SLICES = 12
#: Room around the muscles found by the first look, mm.
MARGIN_MM = 25.0
#: Less muscle than this in a scan is not believed, ml.
LEAST_ML = 1.0
#: Most windows that the network sees at once, and most bytes of their logits: on the CPU so that
#: they stay in its cache, on a GPU so that all slices of a scan go together.
BATCH, BATCH_BYTES = {'cpu': 8, 'cuda': 64}, {'cpu': 48e6, 'cuda': 1e9}

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Segmentation:
    """What the predictor says about a scan.

    Parameters
    ----------
    labels
        uint8, numbers of the label table; int16 where these go beyond 255.
    confidence
        uint8, percent: the probability of the class that is the likeliest, before clean-up; 0
        outside the region that was looked at.
    agreement
        For each number of the label map that was found, the Dice that the probabilities promise;
        see :func:`~bids_muscle.segmentation.quality.expected_dice`.
    compute
        How it was computed in the end.
    out_of_memory
        The ways that were tried before and needed more memory than there was.
    """

    labels: nib.Nifti1Image
    confidence: nib.Nifti1Image
    agreement: dict[int, float]
    compute: Compute
    out_of_memory: tuple[Compute, ...]

    def record(self) -> dict[str, Any]:
        """How it was computed, as JSON-ready values."""
        return {
            **asdict(self.compute),
            'out_of_memory': [asdict(compute) for compute in self.out_of_memory],
        }


@dataclass(frozen=True)
class _SegmentedSlices:
    """Labels and confidence of the slices looked at, and how much of each class there is.

    ``expected`` are the probabilities summed over the pixels of the scan.
    """

    labels: np.ndarray
    confidence: np.ndarray
    expected: np.ndarray


class Predictor:
    """A model, loaded once, for any number of scans.

    Parameters
    ----------
    model
        The model, or its bundle.
    device
        ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
    batch_size
        Windows that the network sees at once; None for as many as are sensible. It changes speed
        and memory, not the labels.
    tta
        Whether each image is also looked at mirrored (test-time augmentation).
    overlap
        Share of a window that the next one covers, for a model of another program, without the
        mirrored views that its program adds; None for all as its program does it.

    Raises
    ------
    ModelError
        If the weights are missing, changed, or do not fit, or mirrored images are asked of a
        model whose sides are not known.
    DeviceError
        If the device is not there.
    """

    def __init__(
        self,
        model: Model | ModelBundle,
        device: str = 'cpu',
        batch_size: int | None = None,
        tta: bool = False,
        overlap: float | None = None,
    ) -> None:
        check_device(device)
        # Transposed convolutions have ways on a GPU whose result depends on chance.
        torch.backends.cudnn.deterministic = True
        self.model = load_model(model) if isinstance(model, ModelBundle) else model
        if tta and self.model.mirrored is None:
            raise ModelError(
                'The labels of the model do not say which are left and which are right.',
                'Omit --tta.',
            )
        if self.model.procedure and overlap is not None:
            faster = replace(self.model.procedure, overlap=overlap, mirrors=())
            self.model = replace(self.model, procedure=faster)
        self.device = device
        self.batch_size = batch_size
        self.tta = tta

    def segment(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        """Label the muscles of one scan.

        The planes are resampled to the pixel of the model. A model that sees whole planes takes a
        first look at a few of them to find the muscles, and a second at all slices, cut to the
        muscles' surroundings, labels them; a model with a window slides it over all. Class
        probabilities are averaged over the images, folds and mirrored views and brought back to
        the grid of the scan slice by slice. A model of another program labels the scan, or its
        first image, as that program does. When memory runs out, the scan is done again with a
        smaller batch, then with the sums on the CPU, then all on the CPU.

        Parameters
        ----------
        images
            Images of one scan by contrast, on one grid in the closest RAS+ order, bias-corrected;
            water and fat, or in- and opposed-phase, or a single image.

        Returns
        -------
        Segmentation
            On the grid of the images. Left and right are those of the world coordinates.

        Raises
        ------
        GridMismatchError
            If the images do not share shape and affine, or are not in the closest RAS+ order.
        ModelError
            If the model needs a contrast that the scan does not have.
        SegmentationError
            If no muscle is found.
        TemporaryError
            If there is not even enough memory for the smallest portion.
        """
        inputs = _inputs(images, self.model.channels)
        inputs = inputs[:1] if self.model.procedure else inputs
        failed: list[Compute] = []
        for compute in ladder(self.device, self._batch(inputs[0][0])):
            try:
                # Weights that are moved in inference mode can be used nowhere else.
                for network in self.model.networks:
                    network.to(compute.device)
                with torch.inference_mode():
                    return self._segment(inputs, compute, tuple(failed))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed.append(compute)
            gc.collect()
            if compute.device != 'cpu':
                torch.cuda.empty_cache()
        raise TemporaryError(
            f'The segmentation of a scan of {"x".join(map(str, inputs[0][0].shape))} voxels ran '
            'out of memory, even in the smallest portions.',
            'Give it more memory, or run fewer scans at once (--nprocs, --mem).',
        )

    def _segment(
        self,
        inputs: Sequence[Sequence[nib.Nifti1Image]],
        compute: Compute,
        failed: tuple[Compute, ...],
    ) -> Segmentation:
        first, axes = inputs[0][0], AXES[self.model.plane]
        volumes = [
            [np.asanyarray(image.dataobj).transpose(axes) for image in each] for each in inputs
        ]
        zooms = [float(first.header.get_zooms()[axis]) for axis in axes]
        if self.model.procedure:
            segmented = self._as_its_program(volumes[0], first.affine, compute)
        else:
            segmented = self._whole(volumes, zooms, compute)
        confidence = segmented.confidence
        labels = postprocess(segmented.labels, zooms, self.model.postprocess, self.model.bridge_mm)
        if np.count_nonzero(labels) * np.prod(zooms) / 1000 < LEAST_ML:
            raise _nothing_found(self.model.plane)
        back = np.argsort(axes)
        labels, confidence = labels.transpose(back), confidence.transpose(back)
        return Segmentation(
            labels=_image(labels, first),
            confidence=_image(confidence, first),
            agreement=expected_dice(labels, confidence, segmented.expected, self.model.numbers),
            compute=compute,
            out_of_memory=failed,
        )

    def _whole(
        self, volumes: Sequence[Sequence[np.ndarray]], zooms: Sequence[float], compute: Compute
    ) -> _SegmentedSlices:
        shape = volumes[0][0].shape
        box = self._snapped(self._localize(volumes, zooms, compute), zooms, shape)
        inner = self._label(volumes, np.arange(shape[2]), box, zooms, compute)
        labels, confidence = np.zeros(shape, inner.labels.dtype), np.zeros(shape, np.uint8)
        labels[box], confidence[box] = inner.labels, inner.confidence
        return _SegmentedSlices(labels, confidence, inner.expected)

    def _as_its_program(
        self, channels: Sequence[np.ndarray], affine: np.ndarray, compute: Compute
    ) -> _SegmentedSlices:
        """Label a scan as the program of the model does."""
        procedure = self.model.procedure
        assert procedure is not None  # noqa: S101 - asked by the caller
        flips = [
            axis
            for axis, (a, b) in enumerate(zip(procedure.orientation, 'RAS', strict=True))
            if a != b
        ]
        image = np.flip(np.stack(channels).astype(np.float32), [1 + axis for axis in flips])
        turned = affine @ inv_ornt_aff(
            [[a, -1 if a in flips else 1] for a in range(3)], channels[0].shape
        )
        prepared = procedure.prepare(np.nan_to_num(np.ascontiguousarray(image)), turned)
        side = prepared.axes.index(0)
        if self.tta and side == 0 and procedure.spatial_dims == 2:
            raise ModelError(
                'The model looks at sagittal slices, which have no left and right.',
                'Omit --tta.',
            )
        looks = [
            partial(
                look,
                network=network,
                procedure=procedure,
                device=compute.device,
                accumulate_on=compute.accumulate_on,
                mirrored=(side, self.model.mirrored or ()) if self.tta else None,
            )
            for network in self.model.networks
        ]
        classified = classify_voxels(
            prepared, looks, procedure, compute.batch_size, len(self.model.numbers)
        )
        numbers = np.array(self.model.numbers, np.min_scalar_type(max(self.model.numbers)))
        labels = np.flip(numbers[classified.winner], flips)
        return _SegmentedSlices(labels, np.flip(classified.confidence, flips), classified.expected)

    def _batch(self, image: nib.Nifti1Image) -> int:
        """Windows at once: fewer where there are many classes, whose logits fill the memory."""
        if self.batch_size is not None:
            return self.batch_size
        axes = AXES[self.model.plane]
        size = self.model.patch_px or model_size(
            [image.shape[axis] for axis in axes],
            [image.header.get_zooms()[axis] for axis in axes],
            self.model.spacing_mm,
        )
        depth = size[2] if self.model.spatial_dims == 3 else 1
        window_bytes = 4 * len(self.model.numbers) * size[0] * size[1] * depth
        kind = self.device.split(':')[0]
        return int(np.clip(BATCH_BYTES[kind] // window_bytes, 1, BATCH[kind]))

    def _localize(
        self, volumes: Sequence[Sequence[np.ndarray]], zooms: Sequence[float], compute: Compute
    ) -> Box:
        """Native (x, y) box around the muscles; the whole plane where it is no larger."""
        model, shape = self.model, volumes[0][0].shape
        whole = (slice(0, shape[0]), slice(0, shape[1]))
        if model.patch_px is not None or model.plane == 'sagittal':
            return whole
        window_mm = [
            least * (spacing or zoom)
            for least, spacing, zoom in zip(model.least_px, model.spacing_mm, zooms, strict=True)
        ]
        if all(shape[a] * zooms[a] <= window_mm[a] for a in (0, 1)):
            return whole
        slices = np.unique(np.linspace(0, shape[2] - 1, LOCALIZER_SLICES).round().astype(int))
        # One image is enough to find the box, if it shows muscles; all label what is in it.
        for seen in (volumes[:1], volumes)[: len(volumes)]:
            first_look = self._label(seen, slices, whole, zooms, compute).labels
            muscle = keep_muscles(first_look, zooms, model.bridge_mm)
            if muscle.any():
                break
        if not muscle.any():
            raise _nothing_found(model.plane)
        box = []
        for axis in (0, 1):
            where = np.nonzero(muscle)[axis]
            # Robust ends, then a margin, and at least the extent that the network was trained on.
            low, high = np.quantile(where, [0.002, 0.998])
            middle = (low + high + 1) / 2
            half = max(
                (high - low) / 2 + MARGIN_MM / zooms[axis], window_mm[axis] / zooms[axis] / 2
            )
            box.append(slice(max(int(middle - half), 0), min(int(middle + half), shape[axis])))
        return box[0], box[1]

    def _snapped(self, box: Box, zooms: Sequence[float], shape: Sequence[int]) -> Box:
        """Widen a box to whole steps of the network from the corner of the plane.

        What a network of strides finds depends on where its pixels fall; a box that is some pixels
        larger or smaller must not change that.
        """
        wide = []
        for axis in (0, 1):
            spacing = self.model.spacing_mm[axis] or zooms[axis]
            step = self.model.multiple_px[axis] * spacing / zooms[axis]
            first, last = floor(box[axis].start / step), ceil(box[axis].stop / step)
            wide.append(slice(ceil(first * step), min(floor(last * step), shape[axis])))
        return wide[0], wide[1]

    def _label(
        self,
        volumes: Sequence[Sequence[np.ndarray]],
        slices: np.ndarray,
        box: Box,
        zooms: Sequence[float],
        compute: Compute,
    ) -> _SegmentedSlices:
        """Label slices of the scan within a box."""
        model = self.model
        extent = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        size = model_size((*extent, len(slices)), zooms, model.spacing_mm)
        grids = [
            torch.cat(
                [
                    self._normalized(
                        to_model_grid((volume[(*box, k)] for k in slices), size), channel
                    )
                    for volume, channel in zip(each, model.channels, strict=True)
                ],
                dim=1,
            )
            for each in volumes
        ]
        planes = self._probabilities(grids, compute)
        numbers = np.array(model.numbers, np.uint8 if max(model.numbers) < 256 else np.int16)
        labels = np.zeros((*extent, len(slices)), numbers.dtype)
        confidence = np.zeros(labels.shape, np.uint8)
        expected = torch.zeros(len(model.numbers), dtype=torch.float64)
        weight = model.background_weight
        # Probabilities add up to one, so the winner has at least an equal share.
        least = 0.999 * min(1.0, weight) / len(model.numbers)
        each = at_slices(planes, size[2], len(slices))
        if model.neighbours_mm and len(slices) == volumes[0][0].shape[2]:
            each = with_neighbours(each, zooms[2], model.neighbours_mm)
        for k, probabilities in enumerate(each):
            probabilities[0] *= weight
            expected += (probabilities / probabilities.sum(0)).sum((1, 2)).double().cpu()
            winner, best, background = arg_max(probabilities, extent, least)
            labels[..., k] = numbers[winner.cpu().numpy()]
            # The weight of the background added to the sum of one.
            share = best / (1 + background * (1 - 1 / weight))
            confidence[..., k] = (100 * share).round().to(torch.uint8).cpu().numpy()
        pixels = extent[0] * extent[1] / (size[0] * size[1])
        return _SegmentedSlices(labels, confidence, expected.numpy() * pixels)

    def _normalized(self, volume: torch.Tensor, channel: str) -> torch.Tensor:
        model = self.model
        width, height, planes = model.pad_px
        pad = (planes, 0, width, height) if any(model.pad_px) else ()
        return normalize_padded(volume, model.normalize, model.landmarks.get(channel, ()), pad)

    def _probabilities(
        self, grids: Sequence[torch.Tensor], compute: Compute
    ) -> Iterator[torch.Tensor]:
        """Yield class probabilities (classes, x, y) of each plane on the grid of the model."""
        model = self.model
        depth, _, width, height = grids[0].shape
        size = self._padded_size((width, height, depth))
        # What is smaller than a window lies in its middle, as in training.
        x, y, z = (
            (wide - extent) // 2 if model.patch_px else 0
            for wide, extent in zip(size, (width, height, depth), strict=True)
        )
        padded = [_pad(grid, size, (x, y, z), model.pad_value) for grid in grids]
        depth_padded, _, *plane = padded[0].shape
        window = model.patch_px or (*plane, depth_padded if model.spatial_dims == 3 else 1)
        stream = stream_planes(
            padded,
            lambda windows: self._predict(windows, compute),
            window=(window[0], window[1], window[2]),
            spatial_dims=model.spatial_dims,
            overlap=model.overlap,
            batch_size=compute.batch_size,
        )
        for probabilities in islice(stream, z, z + depth):
            yield probabilities[:, x : x + width, y : y + height]

    def _padded_size(self, size: tuple[int, int, int]) -> list[int]:
        wanted = self.model.patch_px or self.model.least_px
        return [
            max(-(-extent // multiple) * multiple, least)
            for extent, multiple, least in zip(
                size,
                self.model.multiple_px if not self.model.patch_px else (1, 1, 1),
                wanted,
                strict=True,
            )
        ]

    def _predict(self, images: Sequence[torch.Tensor], compute: Compute) -> torch.Tensor:
        """Mean probabilities over the images, folds and mirrored views of the same windows."""
        model = self.model
        on_gpu = compute.device != 'cpu'
        total: torch.Tensor | None = None
        count = 0
        for image in images:
            windows = image.to(compute.device)
            for network in model.networks:
                for mirror in (False, True)[: 1 + self.tta]:
                    with torch.autocast('cuda', torch.float16, enabled=on_gpu):
                        logits = network(windows.flip(2) if mirror else windows)
                    probabilities = (logits.half() if on_gpu else logits).softmax(1)
                    if mirror:
                        probabilities = probabilities.flip(2)[:, list(model.mirrored or ())]
                    total = probabilities if total is None else total.add_(probabilities)
                    count += 1
        assert total is not None  # noqa: S101 - there is at least one image and one network
        return total.div_(count).to(compute.accumulate_on)


def _inputs(
    images: Mapping[str, nib.Nifti1Image], channels: Sequence[str]
) -> list[list[nib.Nifti1Image]]:
    """Return what the network looks at: each image alone, or those of its channels together."""
    chosen = list(images.values())
    first = chosen[0]
    if nib.aff2axcodes(first.affine) != ('R', 'A', 'S'):
        raise GridMismatchError(
            f'The images run to {"".join(nib.aff2axcodes(first.affine))}, not to RAS.',
            'Bring them to the closest RAS+ order first.',
        )
    for image in chosen[1:]:
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise GridMismatchError(
                f'The images of the scan have shapes {first.shape} and {image.shape} or '
                'different affines.',
                'Give images of one scan, on one grid.',
            )
    if tuple(channels) == (ANY,):
        return [[image] for image in chosen]
    lacking = [name for name in channels if name not in images]
    if lacking:
        raise ModelError(
            f'The model needs the images {", ".join(channels)}; the scan lacks '
            f'{", ".join(lacking)}.',
            'Use a model for the images that are there; the default model takes any.',
        )
    return [[images[name] for name in channels]]


def _pad(
    grid: torch.Tensor, size: Sequence[int], before: Sequence[int], value: float | None
) -> torch.Tensor:
    """Pad (planes, channels, x, y) to a size (x, y, planes), by default with air: the least."""
    from torch.nn.functional import pad

    depth, _, width, height = grid.shape
    air = grid.amin((2, 3), keepdim=True) if value is None else torch.full((1,) * 4, value)
    x, y, z = before
    wide = pad(grid - air, (y, size[1] - height - y, x, size[0] - width - x)) + air
    if size[2] == depth:
        return wide
    more = wide.amin() if value is None else air[0]
    below, above = (more.expand(n, *wide.shape[1:]) for n in (z, size[2] - depth - z))
    return torch.cat([below, wide, above])


def _image(data: np.ndarray, like: nib.Nifti1Image) -> nib.Nifti1Image:
    image = nib.Nifti1Image(data, like.affine)
    image.header.set_xyzt_units('mm')
    return image


def _nothing_found(plane: str) -> SegmentationError:
    what = 'muscle' if plane == 'axial' else 'vertebrae and discs'
    return SegmentationError(
        f'The network found less than {LEAST_ML:g} ml of {what} in the scan.',
        f'Look at the scan: does it show the body region of the model in {plane} slices? '
        'See --region and --model.',
    )
