"""The predictor: a loaded model that turns images into a label map, apart from any file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from bids_muscle.errors import DeviceError, GridMismatchError, SegmentationError
from bids_muscle.segmentation.bundle import ModelBundle, load_networks
from bids_muscle.segmentation.intensity import normalize_planes
from bids_muscle.segmentation.networks import divisor
from bids_muscle.segmentation.postprocess import keep_muscles

if TYPE_CHECKING:
    import torch

#: Slices of the first look that finds where the muscles are.
LOCALIZER_SLICES = 12
#: Room around the muscles found by the first look, mm.
MARGIN_MM = 25.0
#: Less muscle than this in a scan is not believed, ml.
LEAST_ML = 1.0


class Predictor:
    """A model, loaded once, for any number of scans.

    Parameters
    ----------
    bundle
        The model.
    device
        ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
    batch_size
        Planes that the network sees at once. It changes speed and memory, not the labels.

    Raises
    ------
    ModelError
        If the weights are missing, changed, or do not fit.
    DeviceError
        If the device is not there.
    """

    def __init__(self, bundle: ModelBundle, device: str = 'cpu', batch_size: int = 8) -> None:
        import torch

        if device.startswith('cuda') and not torch.cuda.is_available():
            raise DeviceError(
                f'The device {device} was asked for, but PyTorch finds no CUDA device.',
                'Run with --device cpu, or give the container its GPU (--nv, --gpus all).',
            )
        self.bundle = bundle
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.networks = [network.to(self.device) for network in load_networks(bundle)]

    def segment(self, images: Sequence[nib.Nifti1Image]) -> nib.Nifti1Image:
        """Label the muscles of one scan.

        The planes are resampled to the pixel of the model. A first look at a few whole slices
        finds the muscles, a second at all slices, cut to the muscles' surroundings, labels them.
        Class probabilities are averaged over the images and brought back to the grid of the scan
        slice by slice.

        Parameters
        ----------
        images
            Images of one scan, on one grid in the closest RAS+ order, bias-corrected; water and
            fat, or in- and opposed-phase, or a single image.

        Returns
        -------
        nibabel.Nifti1Image
            uint8 on the grid of the images, numbers of the label table of the bundle. Left and
            right are those of the world coordinates.

        Raises
        ------
        GridMismatchError
            If the images do not share shape and affine, or are not in the closest RAS+ order.
        SegmentationError
            If no muscle is found.
        """
        import torch

        _check_grid(images)
        volumes = [np.asanyarray(image.dataobj) for image in images]
        zooms = images[0].header.get_zooms()[:3]
        with torch.inference_mode():
            box = self._localize(volumes, zooms)
            labels = self._label(volumes, zooms, box)
        labels = keep_muscles(labels, zooms)
        found_ml = float(np.count_nonzero(labels) * np.prod(zooms) / 1000)
        if found_ml < LEAST_ML:
            raise _nothing_found()
        out = nib.Nifti1Image(labels, images[0].affine)
        out.header.set_xyzt_units('mm')
        return out

    def _localize(
        self, volumes: Sequence[np.ndarray], zooms: Sequence[float]
    ) -> tuple[slice, slice]:
        """Native (x, y) box around the muscles; the whole plane where it is no larger."""
        shape = volumes[0].shape
        window_mm = [n * self.bundle.spacing_mm for n in self.bundle.window_px]
        whole = (slice(0, shape[0]), slice(0, shape[1]))
        if all(shape[a] * zooms[a] <= window_mm[a] for a in (0, 1)):
            return whole
        slices = np.unique(np.linspace(0, shape[2] - 1, LOCALIZER_SLICES).round().astype(int))
        muscle = np.zeros((*shape[:2], len(slices)), dtype=np.uint8)
        for k, probabilities in self._probabilities(volumes, slices, whole, zooms):
            muscle[..., k] = _arg_max(probabilities, shape[:2])
        muscle = keep_muscles(muscle, zooms)
        if not muscle.any():
            raise _nothing_found()
        box = []
        for axis in (0, 1):
            where = np.nonzero(muscle)[axis]
            # Robust ends, then room, and at least the extent that the network was trained on.
            low, high = np.quantile(where, [0.002, 0.998])
            middle = (low + high + 1) / 2
            half = max(
                (high - low) / 2 + MARGIN_MM / zooms[axis], window_mm[axis] / zooms[axis] / 2
            )
            box.append(slice(max(int(middle - half), 0), min(int(middle + half), shape[axis])))
        return box[0], box[1]

    def _label(
        self, volumes: Sequence[np.ndarray], zooms: Sequence[float], box: tuple[slice, slice]
    ) -> np.ndarray:
        shape = volumes[0].shape
        labels = np.zeros(shape, dtype=np.uint8)
        extent = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        for k, probabilities in self._probabilities(volumes, np.arange(shape[2]), box, zooms):
            labels[(*box, k)] = _arg_max(probabilities, extent)
        return labels

    def _probabilities(
        self,
        volumes: Sequence[np.ndarray],
        slices: np.ndarray,
        box: tuple[slice, slice],
        zooms: Sequence[float],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the position in ``slices`` and weighted class probabilities, (classes, x, y)."""
        import torch

        for start in range(0, len(slices), self.batch_size):
            chosen = slices[start : start + self.batch_size]
            total: torch.Tensor | None = None
            for volume in volumes:
                block = np.stack([volume[(*box, k)] for k in chosen]).astype(np.float32)
                planes = self._to_model_grid(torch.from_numpy(block)[:, None], zooms)
                softmax = self._fold_mean(planes)
                total = softmax if total is None else total + softmax
            assert total is not None  # noqa: S101 - there is at least one volume
            total[:, 0] *= self.bundle.background_weight
            yield from enumerate(total / len(volumes), start)

    def _to_model_grid(self, planes: torch.Tensor, zooms: Sequence[float]) -> torch.Tensor:
        from torch.nn.functional import interpolate

        spacing = self.bundle.spacing_mm
        size = [
            max(1, round(n * z / spacing)) for n, z in zip(planes.shape[2:], zooms, strict=False)
        ]
        small = interpolate(planes, size=size, mode='bilinear', antialias=True)
        return normalize_planes(small)

    def _fold_mean(self, planes: torch.Tensor) -> torch.Tensor:
        """Class probabilities; planes are padded with air to what the network needs."""
        from torch.nn.functional import pad

        step = divisor(self.bundle.network)
        width, height = planes.shape[2:]
        more = [
            max(-size % step, least - size)
            for size, least in zip((width, height), self.bundle.window_px, strict=True)
        ]
        air = planes.amin((2, 3), keepdim=True)
        padded = pad(planes - air, (0, more[1], 0, more[0])) + air
        ready = padded.to(self.device)
        folds = [network(ready).softmax(1) for network in self.networks]
        return (sum(folds) / len(folds))[:, :, :width, :height].float().cpu()


def _check_grid(images: Sequence[nib.Nifti1Image]) -> None:
    first = images[0]
    if nib.aff2axcodes(first.affine) != ('R', 'A', 'S'):
        raise GridMismatchError(
            f'The images run to {"".join(nib.aff2axcodes(first.affine))}, not to RAS.',
            'Bring them to the closest RAS+ order first.',
        )
    for image in images[1:]:
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise GridMismatchError(
                f'The images of the scan have shapes {first.shape} and {image.shape} or '
                'different affines.',
                'Give images of one scan, on one grid.',
            )


def _nothing_found() -> SegmentationError:
    return SegmentationError(
        f'The network found less than {LEAST_ML:g} ml of muscle in the scan.',
        'Look at the scan: does it show the body region of the model in axial slices? '
        'See --region and --model.',
    )


def _arg_max(probabilities: torch.Tensor, shape: Sequence[int]) -> np.ndarray:
    """Bring class probabilities (classes, x, y) to a shape, then take the likeliest class."""
    import torch
    from torch.nn.functional import interpolate

    fine = interpolate(probabilities[None], size=tuple(shape), mode='bilinear')[0]
    return fine.argmax(0).to(torch.uint8).numpy()
