"""Training data: label maps and scans brought to planes of one size and pixel."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation

from bids_muscle import __version__
from bids_muscle.errors import (
    BadDataError,
    MissingInputError,
    UnreadableImageError,
    UsageError,
)
from bids_muscle.files import file_sha256
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.segmentation.grid import AXES
from bids_muscle.segmentation.training.recipe import Source

#: Pixel of the stored planes, mm, and their extent to the right and to the front, in pixels.
PIXEL_MM = 0.8
PLANE = (560, 360)
#: Where the middle of the back muscles comes to lie in a plane, pixels.
CENTER = (280, 140)
#: Number of known structures that are not muscles of the table start here.
FIRST_OTHER = 20
#: Numbers of tissues that are not muscle start here, in the order of synthesis.py, by the names
#: that a recipe may use. The five organs have names of the neck and of the abdomen.
FIRST_TISSUE = 230
TISSUES = {
    **{name: k for k, name in enumerate(('air', 'skin fat', 'fat', 'wall', 'bone', 'canal'))},
    **{name: 6 + k for k, name in enumerate(('airway', 'thyroid', 'artery', 'gland', 'vein'))},
    **{name: 6 + k for k, name in enumerate(('kidney', 'bowel', 'vessel', 'viscus', 'disc'))},
}
#: Entities that say how a map was made, not of which scan.
NOT_OF_A_SCAN = ('seg', 'desc', 'label', 'space', 'den')
#: Number outside the field of view of the map, and of pixels that may be anything.
OUTSIDE, UNKNOWN = 255, 254


@dataclass(frozen=True)
class PlaneSet:
    """Planes of one source, as (n, right, front) arrays on the common grid.

    Sagittal planes are (n, up, front).

    Parameters
    ----------
    name
        Name of the source.
    labels
        uint8; 0 unknown tissue, 1.. labels of the table, 20.. other structures, 230.. tissues
        by name, 254 what may be any label, 255 outside.
    images
        float32 (n, channels, right, front) scaled to about 0..1, or None. Two channels are
        water and fat.
    fat
        bool, fat inside muscle as drawn in the map, or None.
    annotated
        Labels that the source has.
    weight
        Share among the planes seen in training.
    participant
        See :class:`TrainingCase`.
    joined
        See :class:`~bids_muscle.segmentation.training.recipe.Source`.
    images_sha256
        See :func:`images_digest`.
    """

    name: str
    labels: np.ndarray
    images: np.ndarray | None
    fat: np.ndarray | None
    annotated: tuple[int, ...]
    weight: float
    participant: str = ''
    joined: Mapping[int, int] = field(default_factory=dict)
    images_sha256: str = ''

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TrainingCase:
    """One label map of a source, with its images.

    Parameters
    ----------
    source
        How to read it.
    labels
        NIfTI label map, or a ``.zip`` of PNG planes.
    images
        Image by contrast; empty where there are only labels.
    participant
        Dataset and participant, such as ``'dixon-lumbar/sub-TUM01'``, so that all cases of a
        person are on one side of a split; empty where the map is not of a dataset.
    names
        What the numbers in the map are called in its lookup table; empty where it has none.
    beside
        Water and fat of the scan by contrast, where they are no channels of the network: fat is
        measured in them.
    """

    source: Source
    labels: Path
    images: Mapping[str, Path]
    participant: str = ''
    names: Mapping[int, str] = field(default_factory=dict)
    beside: Mapping[str, Path] = field(default_factory=dict)


def find_cases(source: Source, data: Sequence[Path]) -> list[TrainingCase]:
    """Find the label maps of a source by its patterns, and their images where it has them.

    Parameters
    ----------
    source
        What to find.
    data
        Folders to look in; the first that has the source is used.

    Raises
    ------
    MissingInputError
        If no label map matches, or an image is missing.
    """
    matches = ((folder, sorted(folder.glob(source.labels))) for folder in data)
    folder, paths = next(((f, p) for f, p in matches if p), (None, []))
    if folder is None:
        raise MissingInputError(
            f'The file {source.labels} of the source {source.name} is not in '
            f'{" or ".join(map(str, data))}.',
            f'Give the right --data folder, or exclude the source with --exclude {source.name}.',
        )
    return [
        TrainingCase(source, path, _images_of(source, path, folder), participant_key(path))
        for path in paths
    ]


def participant_key(path: Path) -> str:
    """Return the dataset and the participant of a file; nothing where it has none.

    Examples
    --------
    >>> participant_key(Path('/d/cohort/derivatives/manual/sub-01/anat/sub-01_dseg.nii.gz'))
    'cohort/sub-01'
    """
    root = dataset_of(path)
    if root is None:
        return ''
    person = next(part for part in path.absolute().parts if part.startswith('sub-'))
    return f'{root.name}/{person}'


def dataset_of(path: Path) -> Path | None:
    """Return the folder of the BIDS dataset, without derivatives, that a file lies in, or None."""
    parts = path.absolute().parts
    person = next((k for k, part in enumerate(parts[:-1]) if part.startswith('sub-')), None)
    if person is None:
        return None
    top = parts.index('derivatives') if 'derivatives' in parts[:person] else person
    return Path(*parts[:top])


def _images_of(source: Source, labels: Path, folder: Path) -> dict[str, Path]:
    match = re.search(r'sub-([A-Za-z0-9]+)', labels.name)
    keys = [part for part in labels.name.split('_') if part.partition('-')[0] not in NOT_OF_A_SCAN]
    person = next((k for k, part in enumerate(labels.parts) if part.startswith('sub-')), -1)
    names = {
        'participant': match.group(1) if match else '',
        'folder': '/'.join(labels.parts[person:-1]),
        'scan': '_'.join(part for part in keys if '-' in part),
    }
    usual = ('water', 'fat') if len(source.images) == 2 else ('T2w',)[: len(source.images)]
    contrasts = source.contrasts or usual
    if len(contrasts) != len(source.images):
        raise UsageError(
            f'The source {source.name} has {len(source.images)} images, but {len(contrasts)} '
            'contrasts.',
            'List one contrast per image in the recipe, in the same order.',
        )
    files = {
        key: folder / pattern.format(**names)
        for key, pattern in zip(contrasts, source.images, strict=True)
    }
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise MissingInputError(
            f'The image {missing[0]} of {labels} is missing.', 'Add it, or exclude the source.'
        )
    return files


def load_case(
    case: TrainingCase,
    weight: float,
    center_labels: Sequence[int] = (1, 2, 3, 4),
    cache: Path | None = None,
    plane: str = 'axial',
) -> PlaneSet:
    """Load one label map, and its images where it has them.

    Parameters
    ----------
    case
        What to load.
    weight
        Its share among the planes seen in training.
    center_labels
        The muscles whose middle is the origin of a plane; a slice must have all of them that are
        annotated, unless the source is complete (``all_slices``).
    cache
        Folder in which the planes are kept under the SHA-256 of all that they are made of: the
        content of the files, the source and the version of bids_muscle.
    plane
        ``'axial'`` or ``'sagittal'``.

    Raises
    ------
    BadDataError
        If no slice has the muscles that it needs.
    """
    kept = cache / f'{_fingerprint(case, center_labels, plane)}.npz' if cache else None
    if kept is not None and kept.is_file():
        planes = _read_planes(kept, case.source)
    else:
        planes = (
            _from_zip(case, center_labels)
            if case.labels.suffix == '.zip'
            else _from_volume(case, center_labels, plane)
        )
        if kept is not None:
            _write_planes(planes, kept)
    return replace(planes, weight=weight, participant=case.participant, joined=case.source.joined)


def _fingerprint(case: TrainingCase, center_labels: Sequence[int], plane: str) -> str:
    source = {**asdict(case.source), 'name': '', 'weight': 0}
    grid = (PIXEL_MM, PLANE, CENTER, tuple(center_labels), plane)
    digest = hashlib.sha256(repr((__version__, source, grid, sorted(case.images))).encode())
    for path in (case.labels, *(case.images[name] for name in sorted(case.images))):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def images_digest(case: TrainingCase) -> str:
    """Return the SHA-256 (hex) of the image files of a case; empty where there are only labels.

    Of the files, not of what is made of them, so that a training may go on on another computer,
    whose last digits may differ.
    """
    shas = [file_sha256(case.images[name]) for name in sorted(case.images)]
    return hashlib.sha256(''.join(shas).encode()).hexdigest() if shas else ''


def _write_planes(planes: PlaneSet, path: Path) -> None:
    arrays = {n: value for n, value in vars(planes).items() if isinstance(value, np.ndarray)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Folds may run side by side: each writes a file of its own, and the last one stays.
    part = path.with_name(f'{path.stem}.{os.getpid()}.part.npz')
    np.savez(part, allow_pickle=False, **arrays)
    part.replace(path)


def _read_planes(path: Path, source: Source) -> PlaneSet:
    with np.load(path, allow_pickle=False) as kept:
        arrays = {'images': None, 'fat': None, **kept}
    return PlaneSet(source.name, annotated=source.annotated, weight=source.weight, **arrays)


def _from_volume(case: TrainingCase, center_labels: Sequence[int], plane: str) -> PlaneSet:
    source, axes = case.source, AXES[plane]
    image = nib.as_closest_canonical(nib.load(case.labels))
    codes = whole_numbers(image, case.labels).transpose(axes)
    zooms = [float(image.header.get_zooms()[axis]) for axis in axes[:2]]
    labels = recode(codes, source)
    wanted = [label for label in center_labels if label in source.annotated]
    present = np.array(
        [[(labels[..., k] == b).any() for b in wanted] for k in range(codes.shape[2])]
    )
    first, last = source.slices or (0, codes.shape[2])
    whole = np.flatnonzero(present.all(1))
    usable = np.arange(codes.shape[2]) if source.all_slices else whole
    usable = usable[(labels[..., usable] != UNKNOWN).any((0, 1))]
    slices = [k for k in usable if first <= k < last][:: source.slice_step]
    if not slices or not len(whole):
        raise _lacks(case, sorted(set(wanted) - set(np.unique(labels).tolist())))
    volumes = {name: v.transpose(axes) for name, v in load_images(case).items()}
    planes, images, fat = [], [], []
    for k in slices:
        nearest = whole[np.abs(whole - k).argmin()]
        placement = _placement(labels[..., nearest], zooms, center_labels)
        planes.append(_label_plane(labels[..., k], zooms, placement, source.cropped))
        if source.fat_codes:
            inside = np.isin(codes[..., k], source.fat_codes).astype(np.float32)
            fat.append(_plane(inside, zooms, placement, order=1) > 0.5)
        if volumes:
            images.append([_plane(v[..., k], zooms, placement, order=1) for v in volumes.values()])
    return PlaneSet(
        source.name,
        np.stack(planes),
        np.asarray(images, dtype=np.float32) if images else None,
        np.stack(fat) if fat else None,
        source.annotated,
        source.weight,
    )


def _lacks(case: TrainingCase, labels: Sequence[int]) -> BadDataError:
    which = f'the label {" and ".join(map(str, labels))}' if labels else 'all of its labels'
    return BadDataError(
        f'The label map {case.labels} has no slice for training: {which} '
        f'{"" if labels else "in one slice "}not found (numbers of the label table, after '
        'mapping the codes).',
        f'Correct the codes of the source {case.source.name}, or exclude it with --exclude.',
    )


def load_images(case: TrainingCase) -> dict[str, np.ndarray]:
    """Load the bias-corrected images of a case, scaled by their 99.5th percentile, RAS+ order."""
    if not case.images:
        return {}
    from bids_muscle.imaging.prepare import prepare_scan

    try:
        prepared = prepare_scan(
            {key: nib.load(file) for key, file in case.images.items()},  # type: ignore[misc]
            bias_correction=case.source.bias_correction,
        )
    except (EOFError, OSError, zlib.error) as error:
        files = ' or '.join(map(str, case.images.values()))
        raise UnreadableImageError(
            f'{files} is truncated or corrupt ({error}).', 'Copy or convert it again.'
        ) from error
    volumes = {k: np.asarray(prepared.corrected[k].dataobj, np.float32) for k in case.images}
    drawn: Any = nib.load(case.labels)
    for key, file in case.images.items():
        image: Any = nib.load(file)
        _check_grid(case, drawn, image, volumes[key].shape)
    return {k: v / max(float(np.percentile(v, 99.5)), 1e-6) for k, v in volumes.items()}


def ras_affine(img: nib.Nifti1Image) -> np.ndarray:
    """Return the (4, 4) affine of an image in RAS+ order, from its header alone."""
    affine: np.ndarray = img.affine @ inv_ornt_aff(io_orientation(img.affine), img.shape[:3])
    return affine


def _check_grid(
    case: TrainingCase, drawn: nib.Nifti1Image, image: nib.Nifti1Image, shape: tuple[int, ...]
) -> None:
    """Refuse a label map whose header does not put it where the image is.

    Another origin is let pass, since some scanners and converters set it to zero. But with other
    axes as well one of the headers is mirrored, and left would be taught as right.
    """
    # From the headers alone: the voxels are read elsewhere.
    mine, its = ras_affine(drawn), ras_affine(image)
    steps, its_steps = mine[:3, :3], its[:3, :3]
    turned = np.linalg.norm(steps - its_steps, axis=0) > 0.05 * np.linalg.norm(its_steps, axis=0)
    apart = np.linalg.norm(mine[:3, 3] - its[:3, 3])
    axes, its_axes = (nib.aff2axcodes(img.affine) for img in (drawn, image))
    mirrored = axes != its_axes and apart > np.linalg.norm(its_steps, axis=0).min() / 2
    order = np.argsort(io_orientation(drawn.affine)[:, 0])
    drawn_shape = tuple(drawn.shape[axis] for axis in order)
    if drawn_shape != shape or turned.any() or mirrored:
        raise BadDataError(
            f'The label map {case.labels} is not on the grid of {image.get_filename()}: '
            f'{"x".join(map(str, drawn.shape))} voxels along {"".join(axes)} against '
            f'{"x".join(map(str, image.shape))} along {"".join(its_axes)}; number, size, '
            'orientation or position of the voxels differ in their headers.',
            'Redraw it on the image, or correct its header; left and right may be swapped.',
        )


def _from_zip(case: TrainingCase, center_labels: Sequence[int]) -> PlaneSet:
    """Planes drawn on screen: rows run to the back, columns to the person's left."""
    from PIL import Image

    source = case.source
    zooms = (source.pixel_mm, source.pixel_mm)
    planes = []
    with zipfile.ZipFile(case.labels) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith('.png'))
        for name in names[:: source.slice_step]:
            screen = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            labels = recode(screen[::-1, ::-1].T.astype(np.int32), source)
            if all((labels == label).any() for label in source.annotated):
                planes.append(
                    _label_plane(labels, zooms, _placement(labels, zooms, center_labels), False)
                )
    if not planes:
        raise _lacks(case, [])
    return PlaneSet(source.name, np.stack(planes), None, None, source.annotated, source.weight)


def recode(codes: np.ndarray, source: Source) -> np.ndarray:
    """Bring the numbers of a map to those of the label table; others become structures."""
    out = np.zeros(codes.shape, dtype=np.uint8)
    known = {*source.codes, *source.unknown, *source.tissues}
    others = [code for code in np.unique(codes) if code and code not in known]
    for number, code in enumerate(others):
        out[codes == code] = FIRST_OTHER + number % 200
    for code, label in source.codes.items():
        out[codes == code] = label
    for code, name in source.tissues.items():
        out[codes == code] = FIRST_TISSUE + TISSUES[name]
    out[np.isin(codes, source.unknown)] = UNKNOWN
    return out


def counts_as(annotated: Sequence[int], joined: Mapping[int, int], classes: int) -> list[int]:
    """For each label of a network the one that it counts as in a source, 0 for the background.

    An annotated label counts as itself, one that is joined to another as the other, and one that
    the source lacks as background.

    Examples
    --------
    >>> counts_as((3, 4), {1: 3}, 5)
    [3, 0, 3, 4]
    """
    return [label if label in annotated else joined.get(label, 0) for label in range(1, classes)]


def _placement(
    labels: np.ndarray, zooms: Sequence[float], center_labels: Sequence[int]
) -> np.ndarray:
    """Position in mm of the middle of the back muscles, from the corner of the plane."""
    where = np.argwhere(np.isin(labels, center_labels))
    return (np.array([(w.min() + w.max()) / 2 for w in where.T]) + 0.5) * np.asarray(zooms)


def _plane(
    values: np.ndarray,
    zooms: Sequence[float],
    middle_mm: np.ndarray,
    order: int,
    box: tuple[slice, slice] = (slice(0, PLANE[0]), slice(0, PLANE[1])),
) -> np.ndarray:
    """Resample a plane, or the part of it in a box of the common grid."""
    from scipy.ndimage import affine_transform, gaussian_filter

    step = PIXEL_MM / np.asarray(zooms, dtype=float)
    if order and (step > 1).any():
        values = gaussian_filter(values, 0.35 * np.maximum(step - 1, 0))
    corner = np.array([part.start for part in box])
    offset = middle_mm / np.asarray(zooms) - 0.5 + step * (corner - np.asarray(CENTER))
    shape = tuple(part.stop - part.start for part in box)
    return affine_transform(
        values, np.diag(step), offset, shape, order=order, mode='constant', cval=0.0
    )


def _box_of(
    mask: np.ndarray, zooms: Sequence[float], middle_mm: np.ndarray
) -> tuple[slice, slice]:
    """Return the part of the common grid that a mask reaches, smoothing included."""
    step = PIXEL_MM / np.asarray(zooms, dtype=float)
    margin = 2 + 1.5 * np.maximum(step - 1, 0)
    where = np.argwhere(mask)
    middle = middle_mm / np.asarray(zooms) - 0.5
    low = np.floor((where.min(0) - margin - middle) / step + CENTER).astype(int)
    high = np.ceil((where.max(0) + margin - middle) / step + CENTER).astype(int) + 1
    low, high = np.clip(low, 0, PLANE), np.clip(high, 0, PLANE)
    return slice(low[0], max(low[0], high[0])), slice(low[1], max(low[1], high[1]))


def _label_plane(
    labels: np.ndarray, zooms: Sequence[float], middle_mm: np.ndarray, cropped: bool
) -> np.ndarray:
    """Resample labels by their smoothed shares, so that coarse maps do not become stairs."""
    out = np.zeros(PLANE, dtype=np.uint8)
    best = 1 - _plane((labels > 0).astype(np.float32), zooms, middle_mm, order=1)
    for number in (int(n) for n in np.unique(labels) if n):
        mask = labels == number
        box = _box_of(mask, zooms, middle_mm)
        share = _plane(mask.astype(np.float32), zooms, middle_mm, 1, box)
        out[box][share > best[box]] = number
        best[box] = np.maximum(best[box], share)
    if cropped:
        inside = _plane(np.ones(labels.shape, np.float32), zooms, middle_mm, order=0)
        out[inside < 0.5] = OUTSIDE
    return out
