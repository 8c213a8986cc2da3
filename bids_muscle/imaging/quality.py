"""Image quality figures of one scan, in the manner of MRIQC (Esteban 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.dictionaries import read_dictionary

#: Voxels that say something about a muscle, the air, the fat.
_ENOUGH = 100
#: Share of the body at exactly the highest value from which the image is called clipped.
_CLIPPED = 0.001
#: Median of the magnitude of pure noise over its standard deviation in one channel (Rayleigh).
_RAYLEIGH_MEDIAN = float(np.sqrt(2 * np.log(2)))
#: No head is this broad, and hardly any shoulders are narrower.
_SHOULDERS_MM = 200.0
#: Muscles that lie behind the middle of the spine, and in front of it, by region.
_BEHIND = {'lumbar': ('multifidus', 'erector'), 'cervical': ('semispinalis', 'splenius')}
_BEFORE = {'lumbar': ('psoas',), 'cervical': ('longus', 'sternocleidomastoid')}


def quality_dictionary() -> dict[str, dict[str, str]]:
    """Return the definition of each figure: LongName, Description, Units."""
    return read_dictionary('iqm')


def image_quality(
    raw: Mapping[str, Nifti1Image],
    corrected: Mapping[str, Nifti1Image],
    body_mask: Nifti1Image,
    labels: Nifti1Image,
    table: LabelTable,
    swap: np.ndarray | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Compute the quality figures of a scan.

    Parameters
    ----------
    raw, corrected
        Images by contrast with and without bias field, canonical, one grid.
    body_mask
        (X, Y, Z), the body.
    labels, table
        Label map of the muscles, and its labels.
    swap
        (X, Y, Z) bool, where water and fat are swapped; None where that was not searched.

    Returns
    -------
    figures
        Value by name, as in :func:`quality_dictionary`; None where it cannot be determined.
    flags
        Sentences about what is likely to be wrong.
    """
    name = next(key for key in ('inphase', 'water', *raw) if key in raw)
    image = np.asarray(raw[name].dataobj, np.float32)
    body = np.asarray(body_mask.dataobj) > 0
    numbers = np.asarray(labels.dataobj)
    noise = _noise(image, body)
    muscle = image[(numbers > 0) & np.isfinite(image)]
    snr = float(np.median(muscle)) / noise if noise and muscle.size >= _ENOUGH else None
    n_found, cut = _coverage(numbers, table)
    clipped = clipped_fraction(image, body)
    empty = int(sum(not np.nan_to_num(image[:, :, k]).any() for k in range(image.shape[2])))
    position, doubts = _plausible(body_mask.affine, body, numbers, table)
    figures: dict[str, Any] = {
        'snr_muscle': snr,
        'fat_muscle_contrast': _contrast(corrected, body, numbers),
        'bias_range': _bias_range(image, corrected[name], body),
        'ghost_ratio': _ghosts(image, body),
        'swap_fraction': None if swap is None else _share(swap & body, body),
        'clipped_fraction': clipped,
        'undefined_fraction': float(np.mean(~np.isfinite(image))),
        'n_empty_slices': empty,
        'n_muscles_found': n_found,
        'n_muscles_cut': len(cut),
        'muscles_cut': ', '.join(cut) or None,
        **position,
    }
    flags = list(doubts)
    if n_found == 0:
        flags.append('No muscle was found. The field of view may miss the spine.')
    if clipped > _CLIPPED:
        flags.append(
            f'{100 * clipped:.2g} % of the body has the highest value, so the image is clipped.'
        )
    if empty:
        flags.append(f'{empty} of {image.shape[2]} slices are empty.')
    return {key: _rounded(figures[key]) for key in quality_dictionary()}, flags


def _rounded(value: Any) -> Any:
    """Six digits are more than any of the figures has."""
    return float(f'{value:.6g}') if isinstance(value, float) else value


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(np.count_nonzero(part) / np.count_nonzero(whole)) if whole.any() else None


def _noise(image: np.ndarray, body: np.ndarray) -> float | None:
    """Return the SD of the noise of one channel, from the air; None if that is masked."""
    air = image[~body & (image > 0)]
    if air.size < max(_ENOUGH, 0.2 * np.count_nonzero(~body)):
        return None
    return float(np.median(air)) / _RAYLEIGH_MEDIAN


def _contrast(
    images: Mapping[str, Nifti1Image], body: np.ndarray, numbers: np.ndarray
) -> float | None:
    """(fat - muscle) / (fat + muscle), of water + fat or of the only image."""
    if {'water', 'fat'} <= images.keys():
        water, fat = (np.asarray(images[key].dataobj) for key in ('water', 'fat'))
        total = water + fat
        pure = body & (fat > 0.8 * total) & (total > 0)
    else:
        total = np.asarray(images[next(iter(images))].dataobj)
        pure = body & (total > np.percentile(total[body], 95)) if body.any() else body
    muscle = total[numbers > 0]
    if min(muscle.size, np.count_nonzero(pure)) < _ENOUGH:
        return None
    bright, dark = float(np.median(total[pure])), float(np.median(muscle))
    return (bright - dark) / (bright + dark) if bright + dark > 0 else None


def _bias_range(image: np.ndarray, corrected: Nifti1Image, body: np.ndarray) -> float | None:
    """99th over 1st percentile of the field in the body."""
    divided = np.asarray(corrected.dataobj)
    inside = body & (image > 0) & (divided > 0)
    if not inside.any():
        return None
    low, high = np.percentile(image[inside] / divided[inside], [1, 99])
    return float(high / low)


def _ghosts(image: np.ndarray, body: np.ndarray) -> float | None:
    """Signal of the air beside the body along either image axis, above that of the corners.

    Ghosts lie along the phase-encoding axis, whichever that is; the corners of a slice that share
    neither a row nor a column with the body have none.
    """
    rows, columns = (body.any(axis=axis, keepdims=True) for axis in (0, 1))
    air = ~body & np.isfinite(image)
    corners = air & ~rows & ~columns
    bands = (air & rows & ~columns, air & columns & ~rows)
    if np.count_nonzero(corners & (image > 0)) < _ENOUGH or not body.any():
        return None
    base = float(image[corners].mean())
    beside = max(float(image[band].mean()) if band.sum() >= _ENOUGH else 0.0 for band in bands)
    return max(beside - base, 0.0) / float(np.nanmean(image[body]))


def clipped_fraction(image: np.ndarray, body: np.ndarray) -> float:
    """Return the share of the body that has the highest value of the image."""
    inside = image[body & np.isfinite(image)]
    # One voxel always has the highest value.
    return (np.count_nonzero(inside == inside.max()) - 1) / inside.size if inside.size else 0.0


def _coverage(numbers: np.ndarray, table: LabelTable) -> tuple[int, list[str]]:
    """Count the muscles that are there, and name those that reach the edge of the image."""
    edge = np.ones(numbers.shape, bool)
    edge[tuple(slice(1, -1) if n > 2 else slice(None) for n in numbers.shape)] = False
    there, cut = set(np.unique(numbers)), set(np.unique(numbers[edge]))
    return len(there - {0}), [label.name for label in table if label.index in cut]


def _plausible(
    affine: np.ndarray, body: np.ndarray, numbers: np.ndarray, table: LabelTable
) -> tuple[dict[str, Any], list[str]]:
    """Check the affine against itself and against the body; left and right cannot be checked."""
    zooms = voxel_sizes(affine)
    direction = affine[:3, :3] / zooms
    tilt = float(np.rad2deg(np.arccos(np.clip(np.abs(direction).max(axis=0).min(), 0, 1))))
    shear = float(np.abs(direction.T @ direction - np.eye(3)).max())
    doubts = []
    if shear > 0.01:
        doubts.append('The axes of the affine are not orthogonal.')
    if zooms.min() < 0.1 or zooms.max() > 25 or np.any(zooms[:2] * body.shape[:2] > 700):
        size = ' x '.join(f'{zoom:.3g}' for zoom in zooms)
        doubts.append(f'The voxel size of {size} mm is impossible for a scan of this matrix.')
    front_ok = _front_is_front(affine, numbers, table)
    if front_ok is False:
        doubts.append('The back muscles are anterior, so front and back of the image are swapped.')
    up_ok = _up_is_up(zooms, body, numbers, table)
    if up_ok is False:
        doubts.append('The body narrows where it should widen, so the image may be upside down.')
    if io_orientation(affine)[:, 0].tolist() != [0, 1, 2]:
        raise ValueError('image is not canonical')
    return {'tilt_deg': tilt, 'front_plausible': front_ok, 'up_plausible': up_ok}, doubts


def _centre_y(affine: np.ndarray, inside: np.ndarray) -> float | None:
    if np.count_nonzero(inside) < _ENOUGH:
        return None
    middle = np.argwhere(inside).mean(axis=0)
    return float(affine[1, :3] @ middle + affine[1, 3])


def _belongs(table: LabelTable, words: tuple[str, ...]) -> list[int]:
    return [label.index for label in table if label.muscle.startswith(words)]


def _front_is_front(affine: np.ndarray, numbers: np.ndarray, table: LabelTable) -> bool | None:
    behind, before = (
        _centre_y(affine, np.isin(numbers, _belongs(table, words.get(table.region, ()))))
        for words in (_BEHIND, _BEFORE)
    )
    return None if behind is None or before is None else behind < before


def _up_is_up(
    zooms: np.ndarray, body: np.ndarray, numbers: np.ndarray, table: LabelTable
) -> bool | None:
    """Psoas grows downwards from L1 to L5; shoulders are broader than any head."""
    if table.region not in _BEHIND:
        return None
    if table.region != 'lumbar':
        return _shoulders_below(zooms[0], body)
    psoas = np.isin(numbers, _belongs(table, ('psoas',)))
    area = np.count_nonzero(psoas, axis=(0, 1)) * zooms[0] * zooms[1]
    there = np.flatnonzero(area)
    if there.size < 5 or np.ptp(there) * zooms[2] < 60:
        return None
    trend = float(np.corrcoef(there, area[there])[0, 1]) if np.ptp(area[there]) else 0.0
    # A weak trend proves nothing either way.
    return None if abs(trend) < 0.7 else trend < 0


def _shoulders_below(pixel_mm: float, body: np.ndarray) -> bool | None:
    """Return whether the shoulders are at the lower end; None where no shoulders are seen."""
    rows = np.any(body, axis=1).T
    widths = [np.ptp(np.flatnonzero(row)) * pixel_mm for row in rows if row.any()]
    if len(widths) < 5:
        return None
    fifth = max(len(widths) // 5, 1)
    low, high = float(np.median(widths[:fifth])), float(np.median(widths[-fifth:]))
    if max(low, high) < _SHOULDERS_MM or max(low, high) < 1.2 * min(low, high):
        return None
    return low > high
