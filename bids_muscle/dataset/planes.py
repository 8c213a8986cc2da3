"""How the slices of a scan lie, by its header and by its sidecar."""

from __future__ import annotations

import numpy as np

from bids_muscle.dataset.index import IndexedImage
from bids_muscle.imaging.conform import VoxelGrid

#: Thick slices: the voxel is this much longer through the slice than in it.
_THICK_SLICE_RATIO = 1.5
#: A scan of equal voxels is sagittal where it is no wider than this, mm, and this share of its
#: other extents: muscles of both sides are not in it.
_SLAB_MM, _SLAB_SHARE = 130.0, 0.6
#: Slices lie apart by more than their thickness, or by just that, up to this share of it.
_GAP = 0.02
#: Headers and sidecars that differ by more than this angle do not describe the same scan.
_TURNED_DEG = 10.0


def is_sagittal(grid: VoxelGrid) -> bool:
    """Return whether a scan has sagittal slices, by its affine.

    The slices are where the voxels are long; where they are not, a slab from right to left that
    is too narrow for the muscles of both sides is taken for sagittal.
    """
    world = np.abs(grid.affine[:3, :3]) @ np.eye(3)
    across = int(np.argmax(world[0] / np.linalg.norm(world, axis=0)))
    others = [axis for axis in range(3) if axis != across]
    if grid.zooms[across] >= _THICK_SLICE_RATIO * max(grid.zooms[axis] for axis in others):
        return True
    if max(grid.zooms) >= _THICK_SLICE_RATIO * sorted(grid.zooms)[1]:
        return False
    extent = [n * zoom for n, zoom in zip(grid.shape, grid.zooms, strict=True)]
    least = min(extent[axis] for axis in others)
    return extent[across] <= min(_SLAB_MM, _SLAB_SHARE * least)


def plane_warnings(grid: VoxelGrid) -> list[str]:
    """Warn where a scan is not axial, as muscles are segmented on axial slices.

    Its thick slices are not, or it is a sagittal slab of equal voxels.
    """
    thickest = int(np.argmax(grid.zooms))
    others = [zoom for axis, zoom in enumerate(grid.zooms) if axis != thickest]
    world_axis = int(np.argmax(np.abs(grid.affine[:3, thickest])))
    if world_axis == 2 or grid.zooms[thickest] < _THICK_SLICE_RATIO * max(others):
        if not is_sagittal(grid):
            return []
        width_mm = min(n * zoom for n, zoom in zip(grid.shape, grid.zooms, strict=True))
        return [
            f'The scan is a sagittal slab, {width_mm:.0f} mm wide from left to right. Muscles of '
            'both sides do not fit in it.'
        ]
    plane = ('sagittal', 'coronal')[world_axis]
    return [
        f'The slices are {plane} and {grid.zooms[thickest]:.3g} mm thick. Muscles are segmented '
        'in axial slices, which have a low resolution in this scan.'
    ]


def turned(image: IndexedImage, grid: VoxelGrid) -> list[str]:
    """Warn where the sidecar turns the slices otherwise than the header.

    Axes are compared without their direction, since programs that store a volume in another voxel
    order mend the header and not the sidecar: an exchange of left and right does not show.
    """
    try:
        given = np.array(image.metadata.get('ImageOrientationPatientDICOM'), float)
        row, column = given.reshape(2, 3)
    except (TypeError, ValueError):
        return []
    axes = np.array([row, column, np.cross(row, column)]) * (-1, -1, 1)  # DICOM is LPS+
    if not np.allclose(axes @ axes.T, np.eye(3), atol=0.01):
        return []
    cosines = np.abs(axes @ (grid.affine[:3, :3] / grid.zooms)).max(axis=1)
    angle = np.rad2deg(np.arccos(min(cosines.min(), 1)))
    if angle < _TURNED_DEG:
        return []
    return [
        f'The slices of {image.path.name} are rotated by {angle:.0f} degrees between its header '
        'and ImageOrientationPatientDICOM in its sidecar. The header is used. Check left and '
        'right.'
    ]


def lost_gaps(image: IndexedImage, grid: VoxelGrid) -> list[str]:
    """Warn where the header has slices as far apart as they are thick, and the sidecar farther.

    Programs that take the thickness of a slice for the distance of two make volumes and lengths
    too small by the gaps. Slices of 3-D scans have none, whatever their sidecars say.
    """
    keys = ('SliceThickness', 'SpacingBetweenSlices')
    values = [image.metadata.get(key) for key in keys]
    if image.metadata.get('MRAcquisitionType') == '3D' or not all(
        isinstance(value, int | float) and value > 0 for value in values
    ):
        return []
    thick, apart = (float(value) for value in values if value is not None)
    stored = max(grid.zooms)
    if apart <= (1 + _GAP) * thick or abs(stored - thick) > _GAP * thick:
        return []
    return [
        f'The slices of {image.path.name} are {stored:.3g} mm apart by its header, which is their '
        f'thickness, and {apart:.3g} mm by SpacingBetweenSlices in its sidecar. The header is '
        'used: if the gaps were lost, volumes and lengths are too small by '
        f'{100 * (1 - stored / apart):.0f} %. Convert the scan again with dcm2niix.'
    ]
