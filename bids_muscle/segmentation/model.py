"""A model in memory: its networks, and all that must be known to use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bids_muscle.segmentation.bundle import ModelBundle, load_networks
from bids_muscle.segmentation.intensity import NORMALIZERS, normalize_planes
from bids_muscle.segmentation.networks import divisor
from bids_muscle.segmentation.postprocess import BRIDGE_MM

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bids_muscle.segmentation.procedure import Procedure

#: Pixel size along (x, y, slices) in mm; None keeps that of the scan.
Spacing = tuple[float | None, float | None, float | None]

#: The channel of a model that takes any contrast.
ANY = 'any'


@dataclass(frozen=True, eq=False)
class Model:
    """Networks that were trained alike, and how an image must be given to them.

    Parameters
    ----------
    networks
        One, or the folds of a cross-validation, whose probabilities are averaged. From
        (batch, channels, x, y[, z]) to logits (batch, classes, x, y[, z]).
    spatial_dims
        2 or 3.
    numbers
        The number in the label map of each class; 0 for the background, which is class 0, and for
        classes that are no muscle of the table.
    mirrored
        The class of the same structure on the other side, for each class; None where the sides
        are not known, so that the model cannot be used on a mirrored image.
    spacing_mm
        Pixel size at which the networks work.
    normalize
        Scales the intensities of a volume (planes, 1, x, y).
    landmarks
        Of the histogram standardisation that goes before, by channel; see
        :func:`~bids_muscle.segmentation.intensity.standardize_histogram`.
    pad_px
        Air around a volume (x, y, planes) that counts in its intensities; see
        :func:`~bids_muscle.segmentation.intensity.normalize_padded`.
    channels
        Contrast of each channel; ``('any',)`` where every image is looked at by itself.
    least_px
        Least extent (x, y, planes) of what the networks see; less is padded.
    multiple_px
        What the extents must be multiples of.
    patch_px
        Extent of a sliding window, or None where whole planes are seen at once.
    overlap
        Share of a window that the next one covers too.
    pad_value
        What lies beyond the image; None for the least value of each plane.
    background_weight
        See :class:`~bids_muscle.segmentation.bundle.ModelBundle`.
    neighbours_mm
        See :func:`~bids_muscle.segmentation.grid.with_neighbours`; 0 to label each slice alone.
    plane
        ``'axial'`` or ``'sagittal'``.
    postprocess
        Steps of :func:`~bids_muscle.segmentation.postprocess.postprocess`.
    bridge_mm
        How far muscles of one group lie apart at most; see
        :func:`~bids_muscle.segmentation.postprocess.keep_muscles`.
    procedure
        What another program does around its network, for a model of its own; spacing, intensities
        and windows are then those of the procedure.
    """

    networks: tuple[nn.Module, ...]
    spatial_dims: int
    numbers: tuple[int, ...]
    mirrored: tuple[int, ...] | None
    spacing_mm: Spacing
    normalize: Callable[[torch.Tensor], torch.Tensor] = normalize_planes
    landmarks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pad_px: tuple[int, int, int] = (0, 0, 0)
    channels: tuple[str, ...] = (ANY,)
    least_px: tuple[int, int, int] = (1, 1, 1)
    multiple_px: tuple[int, int, int] = (1, 1, 1)
    patch_px: tuple[int, int, int] | None = None
    overlap: float = 0.5
    pad_value: float | None = None
    background_weight: float = 1.0
    neighbours_mm: float = 0.0
    plane: str = 'axial'
    postprocess: tuple[str, ...] = ('muscles',)
    bridge_mm: float = BRIDGE_MM
    procedure: Procedure | None = None


def load_own(bundle: ModelBundle) -> Model:
    """Load a bundle of this project with its checked weights.

    Raises
    ------
    ModelError
        If the weights are missing, changed, or do not fit.
    """
    card = bundle.card
    step = divisor(bundle.network)
    mirrored = bundle.labels.mirrored
    numbers = tuple(card.get('numbers') or (0, *mirrored))
    classes = {number: index for index, number in enumerate(numbers)}
    window = [*(int(extent) for extent in card['window_px']), 1][:3]
    solid = bundle.network['spatial_dims'] == 3
    # Where a volume is normalised as a whole, the network was trained on windows of it.
    normalization = card.get('normalization', 'planes')
    patch = None if normalization == 'planes' else (window[0], window[1], window[2])
    return Model(
        networks=load_networks(bundle),
        spatial_dims=3 if solid else 2,
        numbers=numbers,
        # Up and down are no mirror images.
        mirrored=tuple(classes[mirrored[n]] if n else i for i, n in enumerate(numbers))
        if card.get('plane', 'axial') == 'axial'
        else None,
        spacing_mm=(bundle.spacing_mm, bundle.spacing_mm, card.get('slice_mm') or None),
        normalize=NORMALIZERS[normalization],
        landmarks=card.get('landmarks', {}),
        pad_px=tuple(card.get('pad_px') or (0, 0, 0)),
        channels=tuple(card.get('channels', [ANY])),
        least_px=(window[0], window[1], window[2]),
        multiple_px=(step, step, step if solid else 1),
        patch_px=patch,
        background_weight=bundle.background_weight,
        neighbours_mm=float(card.get('neighbours_mm', 0)),
        plane=card.get('plane', 'axial'),
        postprocess=tuple(card.get('postprocess', ['muscles'])),
        bridge_mm=float(card.get('bridge_mm', BRIDGE_MM)),
    )
