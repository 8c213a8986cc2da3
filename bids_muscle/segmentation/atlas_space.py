"""Models that work on axial slices in the space of an atlas (Xia et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.errors import SegmentationError
from bids_muscle.imaging.alignment import Alignment, align_scan, resample
from bids_muscle.imaging.atlas import Atlas
from bids_muscle.segmentation.predictor import Predictor, Segmentation


def segment_in_atlas(
    predictor: Predictor,
    guide: Predictor,
    images: Mapping[str, Nifti1Image],
    mask: Nifti1Image,
    atlas: Atlas,
) -> Segmentation:
    """Label a scan with a model that asks for slices in atlas space.

    The muscles that another model finds lead the affine alignment. The scan is cut into axial
    slices of 256 x 256 pixels of 1 mm in the atlas, these are labelled, and the labels are brought
    back to the voxels of the scan, so that what is measured in them needs no correction for the
    scaling.

    Parameters
    ----------
    predictor
        The model in atlas space.
    guide
        A model of the same region in native space.
    images, mask
        Images without bias field and body, canonical, on one grid.
    atlas
        Of the region.

    Raises
    ------
    SegmentationError
        If no muscle is found, or the alignment is not trusted.
    """
    alignment = align_scan(images, guide.segment(images).labels, mask, atlas)
    if not alignment.trusted:
        raise SegmentationError(
            'The model works in the space of an atlas, and the alignment of the scan with '
            f'{atlas.name} is not trusted: {"; ".join(alignment.reasons)}.',
            'Look at the scan, name an atlas that fits with --atlas, or use a model in native '
            'space.',
        )
    first = next(iter(images.values()))
    ones = Nifti1Image(np.ones(first.shape, np.uint8), first.affine)
    area = np.count_nonzero(axial_slices(alignment, atlas, ones, order=0).dataobj, axis=(0, 1))
    seen = np.flatnonzero(area > area.max() / 2)
    slices = slice(int(seen[0]), int(seen[-1]) + 1)
    made = predictor.segment(
        {
            key: axial_slices(alignment, atlas, img).slicer[:, :, slices]
            for key, img in images.items()
        }
    )

    def back(img: Nifti1Image) -> Nifti1Image:
        data = np.asarray(img.dataobj)
        moved = resample(data, img.affine, first.shape, first.affine, alignment.to_atlas, order=0)
        return Nifti1Image(moved, first.affine)

    return replace(made, labels=back(made.labels), confidence=back(made.confidence))


def axial_slices(
    found: Alignment, atlas: Atlas, img: Nifti1Image, *, order: int = 1, size: int = 256
) -> Nifti1Image:
    """Resample to axial slices of `size` x `size` pixels of 1 mm in atlas space.

    The preprocessing of Xia et al. 2019: after bias correction and linear registration, each slice
    is an image of its own for a two-dimensional network. Slices are those of the atlas; the plane
    is centred on that of the atlas.

    Parameters
    ----------
    found
        The alignment.
    atlas
        The atlas.
    img
        Image (order 1) or label map (order 0) of the scan.

    Returns
    -------
    Nifti1Image
        (size, size, Z).
    """
    shape = next(iter(atlas.images.values())).shape
    height_mm = voxel_sizes(atlas.affine)[2]
    centre = apply_affine(atlas.affine, [(shape[0] - 1) / 2, (shape[1] - 1) / 2, 0])
    onto = np.diag([1.0, 1.0, height_mm, 1.0])
    onto[:3, 3] = centre - [(size - 1) / 2, (size - 1) / 2, 0]
    data = np.asarray(img.dataobj)
    moved = resample(data, img.affine, (size, size, shape[2]), onto, found.to_scan, order=order)
    return Nifti1Image(moved, onto)
