"""Training data: label maps and scans brought to planes of one size and pixel."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.errors import MissingInputError
from bids_muscle.segmentation.training.recipe import Source

#: Pixel of the stored planes, mm, and their extent to the right and to the front, in pixels.
PIXEL_MM = 0.8
PLANE = (560, 360)
#: Where the middle of the back muscles comes to lie in a plane, pixels.
CENTER = (280, 140)
#: Number of known structures that are not muscles of the table start here.
FIRST_OTHER = 20
#: Number outside the field of view of the map.
OUTSIDE = 255


@dataclass(frozen=True)
class PlaneSet:
    """Planes of one source, as (n, right, front) arrays on the common grid.

    Parameters
    ----------
    name
        Name of the source.
    labels
        uint8; 0 unknown tissue, 1.. labels of the table, 20.. other structures, 255 outside.
    images
        float32 (n, channels, right, front) scaled to about 0..1, or None. Two channels are
        water and fat.
    fat
        bool, fat inside muscle as drawn in the map, or None.
    annotated
        Labels that the source has.
    weight
        Share among the planes seen in training.
    """

    name: str
    labels: np.ndarray
    images: np.ndarray | None
    fat: np.ndarray | None
    annotated: tuple[int, ...]
    weight: float

    def __len__(self) -> int:
        return len(self.labels)


def load_source(
    source: Source, data: Sequence[Path], center_labels: Sequence[int] = (1, 2, 3, 4)
) -> list[PlaneSet]:
    """Load all label maps of a source, and their images where it has them.

    Parameters
    ----------
    source
        What to load.
    data
        Folders to look in; the first that has the source is used.
    center_labels
        The muscles whose middle is the origin of a plane; a slice must have all of them that are
        annotated, unless the source is complete (``all_slices``).

    Raises
    ------
    MissingInputError
        If no label map matches, or an image is missing.
    """
    matches = ((folder, sorted(folder.glob(source.labels))) for folder in data)
    folder, paths = next(((f, p) for f, p in matches if p), (None, []))
    if folder is None:
        raise MissingInputError(
            f'No file {source.labels} is in {" or ".join(map(str, data))}, '
            f'for the source {source.name}.',
            f'Give the right --data folder, or leave it out with --exclude {source.name}.',
        )
    sets = [
        _from_zip(source, path, center_labels)
        if path.suffix == '.zip'
        else _from_volume(source, path, folder, center_labels)
        for path in paths
    ]
    return [PlaneSet(**{**s.__dict__, 'weight': source.weight / len(sets)}) for s in sets]


def _from_volume(source: Source, path: Path, data: Path, center_labels: Sequence[int]) -> PlaneSet:
    image = nib.as_closest_canonical(nib.load(path))
    codes = np.rint(np.asarray(image.dataobj)).astype(np.int32)
    zooms = image.header.get_zooms()[:2]
    labels = recode(codes, source)
    wanted = [label for label in center_labels if label in source.annotated]
    present = np.array(
        [[(labels[..., k] == b).any() for b in wanted] for k in range(codes.shape[2])]
    )
    first, last = source.slices or (0, codes.shape[2])
    whole = np.flatnonzero(present.all(1))
    usable = np.arange(codes.shape[2]) if source.all_slices else whole
    slices = [k for k in usable if first <= k < last][:: source.slice_step]
    volumes = _load_images(source, path, data, codes.shape)
    planes, images, fat = [], [], []
    for k in slices:
        nearest = whole[np.abs(whole - k).argmin()]
        place = _placement(labels[..., nearest], zooms, center_labels)
        planes.append(_label_plane(labels[..., k], zooms, place, source.cropped))
        if source.fat_codes:
            inside = np.isin(codes[..., k], source.fat_codes).astype(np.float32)
            fat.append(_plane(inside, zooms, place, order=1) > 0.5)
        if volumes:
            images.append([_plane(v[..., k], zooms, place, order=1) for v in volumes])
    return PlaneSet(
        source.name,
        np.stack(planes),
        np.asarray(images, dtype=np.float32) if images else None,
        np.stack(fat) if fat else None,
        source.annotated,
        source.weight,
    )


def _load_images(source: Source, path: Path, data: Path, shape: tuple) -> list[np.ndarray]:
    """Bias-corrected images of a label map, scaled by their 99.5th percentile."""
    if not source.images:
        return []
    from bids_muscle.imaging.prepare import prepare_scan

    match = re.search(r'sub-([A-Za-z0-9]+)', path.name)
    participant = match.group(1) if match else ''
    keys = ('water', 'fat') if len(source.images) == 2 else ('T2w',)
    files = {
        k: data / p.format(participant=participant)
        for k, p in zip(keys, source.images, strict=True)
    }
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise MissingInputError(
            f'The image {missing[0]} of {path} is missing.', 'Copy it, or exclude the source.'
        )
    prepared = prepare_scan(
        {key: nib.load(file) for key, file in files.items()},  # type: ignore[misc]
        bias_correction=source.bias_correction,
    )
    volumes = [np.asarray(prepared.corrected[key].dataobj, dtype=np.float32) for key in keys]
    return [volume / max(float(np.percentile(volume, 99.5)), 1e-6) for volume in volumes]


def _from_zip(source: Source, path: Path, center_labels: Sequence[int]) -> PlaneSet:
    """Planes drawn on screen: rows run to the back, columns to the person's left."""
    from PIL import Image

    zooms = (source.pixel_mm, source.pixel_mm)
    planes = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith('.png'))
        for name in names[:: source.slice_step]:
            screen = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            labels = recode(screen[::-1, ::-1].T.astype(np.int32), source)
            if all((labels == label).any() for label in source.annotated):
                planes.append(
                    _label_plane(labels, zooms, _placement(labels, zooms, center_labels), False)
                )
    return PlaneSet(source.name, np.stack(planes), None, None, source.annotated, source.weight)


def recode(codes: np.ndarray, source: Source) -> np.ndarray:
    """Bring the numbers of a map to those of the label table; others become structures."""
    out = np.zeros(codes.shape, dtype=np.uint8)
    others = [code for code in np.unique(codes) if code and code not in source.codes]
    for number, code in enumerate(others):
        out[codes == code] = FIRST_OTHER + number % 200
    for code, label in source.codes.items():
        out[codes == code] = label
    return out


def _placement(
    labels: np.ndarray, zooms: Sequence[float], center_labels: Sequence[int]
) -> np.ndarray:
    """Position in mm of the middle of the back muscles, from the corner of the plane."""
    where = np.argwhere(np.isin(labels, center_labels))
    return (np.array([(w.min() + w.max()) / 2 for w in where.T]) + 0.5) * np.asarray(zooms)


def _plane(
    values: np.ndarray, zooms: Sequence[float], middle_mm: np.ndarray, order: int
) -> np.ndarray:
    from scipy.ndimage import affine_transform, gaussian_filter

    step = PIXEL_MM / np.asarray(zooms, dtype=float)
    if order and (step > 1).any():
        values = gaussian_filter(values, 0.35 * np.maximum(step - 1, 0))
    offset = middle_mm / np.asarray(zooms) - 0.5 - step * np.asarray(CENTER)
    return affine_transform(
        values, np.diag(step), offset, PLANE, order=order, mode='constant', cval=0.0
    )


def _label_plane(
    labels: np.ndarray, zooms: Sequence[float], middle_mm: np.ndarray, cropped: bool
) -> np.ndarray:
    """Resample labels by their smoothed shares, so that coarse maps do not become stairs."""
    out = np.zeros(PLANE, dtype=np.uint8)
    best = 1 - _plane((labels > 0).astype(np.float32), zooms, middle_mm, order=1)
    for number in (int(n) for n in np.unique(labels) if n):
        share = _plane((labels == number).astype(np.float32), zooms, middle_mm, order=1)
        out[share > best] = number
        best = np.maximum(best, share)
    if cropped:
        inside = _plane(np.ones(labels.shape, np.float32), zooms, middle_mm, order=0)
        out[inside < 0.5] = OUTSIDE
    return out
