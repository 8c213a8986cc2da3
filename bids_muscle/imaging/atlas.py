"""Atlases: the average of a labelled cohort, in TemplateFlow's layout."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Image

from bids_muscle.anatomy.labels import REGIONS, LabelTable, load_label_table
from bids_muscle.errors import PARSE_ERRORS, BadDataError, MissingInputError
from bids_muscle.files import read_small
from bids_muscle.imaging.levels import Boundary
from bids_muscle.imaging.registration import Target
from bids_muscle.tables import parse_rows

#: Name of the file that describes an atlas.
CARD = 'template_description.json'
#: Which contrast of an atlas is most like one that it lacks.
_NEXT_OF_KIN = {
    'inphase': 'T1w',
    'opposedphase': 'water',
    'PDw': 'T2w',
    'T2w': 'water',
    'T1w': 'water',
    'water': 'T1w',
    'fat': 'T1w',
}
#: Standard deviation of the smoothing of probabilities, voxels: few people represent many.
_SMOOTHING = 1.0
#: Nats of a point of a scan to units of log probability, chosen so that levels of real people
#: (tests/real/borders.tsv) are as often right as their confidence says. Muscles of the neck are
#: drawn less well, so each point says less.
_CERTAINTY = {'lumbar': 60.0, 'cervical': 30.0}


@dataclass(frozen=True, eq=False)
class Atlas:
    """An atlas of one region.

    Parameters
    ----------
    name
        Value of the ``tpl`` entity.
    region
        ``'cervical'`` or ``'lumbar'``.
    images
        (X, Y, Z) 0 to 1 by contrast, RAS+ voxel order, all on one grid.
    probabilities
        (n, X, Y, Z) 0 to 1 of each muscle, in the order of the label table.
    boundaries
        Between the vertebral levels, from top to bottom.
    sha256
        Checksum of its description, which holds those of all its files.
    """

    name: str
    region: str
    images: Mapping[str, Nifti1Image]
    probabilities: np.ndarray
    boundaries: tuple[Boundary, ...]
    sha256: str = ''

    @property
    def table(self) -> LabelTable:
        """Its label table."""
        return load_label_table(self.region)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel index to RAS+ mm."""
        return np.asarray(next(iter(self.images.values())).affine)

    @cached_property
    def labels(self) -> np.ndarray:
        """(X, Y, Z) uint8: the likeliest muscle where that is likelier than none."""
        indices = np.array([0, *(label.index for label in self.table)], np.uint8)
        return indices[_with_none(self.probabilities).argmax(axis=0)]

    def nearest_contrast(self, contrasts: Iterable[str]) -> tuple[str, str]:
        """Return the contrast of a scan that is most like one of the atlas, and that one."""
        found = list(contrasts)
        for name in found:
            if name in self.images:
                return name, name
        for name in found:
            if _NEXT_OF_KIN.get(name) in self.images:
                return name, _NEXT_OF_KIN[name]
        return found[0], next(iter(self.images))

    def target(self, contrast: str) -> Target:
        """Return what a scan is aligned with."""
        from scipy import ndimage

        smooth = _with_none(
            np.stack([ndimage.gaussian_filter(each, _SMOOTHING) for each in self.probabilities])
        )
        intensity = np.asarray(self.images[contrast].dataobj)
        return Target(self.affine, intensity, smooth, _CERTAINTY[self.region])


def _with_none(probabilities: np.ndarray) -> np.ndarray:
    none = np.clip(1 - probabilities.sum(axis=0, keepdims=True), 0, 1)
    return np.concatenate([none, probabilities])


def classes_of(labels: np.ndarray, table: LabelTable) -> np.ndarray:
    """Return the position of each number in the label table plus 1; 0 for none of them."""
    lookup = np.zeros(max(int(labels.max(initial=0)), max(table.by_index)) + 1, np.int16)
    for position, label in enumerate(table, start=1):
        lookup[label.index] = position
    return lookup[np.maximum(labels, 0).astype(int)]


def find_atlas(folder: Path | None, region: str) -> Path:
    """Return the folder of the atlas of a region.

    Parameters
    ----------
    folder
        ``tpl-...`` folder of the user or the folder that holds it; where it is of another region,
        or None, the atlas of the package is taken.
    region
        ``'cervical'`` or ``'lumbar'``.

    Raises
    ------
    MissingInputError
        If there is no atlas in the folder.
    BadDataError
        If its description cannot be read.
    """
    if folder is not None:
        folders = [folder] if (folder / CARD).is_file() else _templates(folder)
        if not folders:
            raise MissingInputError(
                f'There is no atlas in the folder {folder}.',
                f'Name a folder with {CARD}, as bids_muscle-atlas build writes it.',
            )
        for path in folders:
            if _read_card(path)['Region'] == region:
                return path
    packaged = Path(str(resources.files('bids_muscle') / 'data/atlas'))
    return next(path for path in _templates(packaged) if _read_card(path)['Region'] == region)


def atlas_name(folder: Path) -> str:
    """Return the name of the atlas in a folder.

    Raises
    ------
    BadDataError
        If its description cannot be read.
    """
    identifier: str = _read_card(folder)['Identifier']
    return identifier


def _templates(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f'tpl-*/{CARD}'))


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads(read_small(folder / CARD))
        if card['Region'] not in REGIONS or not isinstance(card['Files'], dict):
            raise KeyError('Region')
        if not re.fullmatch('[0-9A-Za-z+]+', card['Identifier']):
            raise KeyError('Identifier')
    except (OSError, KeyError, TypeError, *PARSE_ERRORS) as error:
        raise BadDataError(
            f'{folder / CARD} does not describe an atlas: {error!r}.',
            'Build the atlas again with bids_muscle-atlas build.',
        ) from error
    return card


def read_atlas(folder: Path) -> Atlas:
    """Read an atlas, and check that its files are those that were written.

    Raises
    ------
    BadDataError
        If a file is missing, changed, or does not fit the others.
    """
    card = _read_card(folder)
    contents = _read_files(folder, card['Files'])
    checksum = hashlib.sha256((folder / CARD).read_bytes()).hexdigest()
    try:
        return _assemble(card, contents, checksum)
    except (LookupError, TypeError, OSError, EOFError, zlib.error, *PARSE_ERRORS) as error:
        raise BadDataError(
            f'The files in {folder} are not those of an atlas: {error!r}.',
            'Copy the whole folder of the atlas again, or build it again.',
        ) from error


def _read_files(folder: Path, sums: Mapping[str, str]) -> dict[str, bytes]:
    """Return the contents of files that have their checksums, by name without the template's."""
    contents = {}
    for name, checksum in sums.items():
        path = folder / Path(name).name
        content = path.read_bytes() if path.is_file() else b''
        if hashlib.sha256(content).hexdigest() != checksum:
            raise BadDataError(
                f'{path} is missing or not the file that belongs to this atlas.',
                'Copy the whole folder of the atlas again, or build it again.',
            )
        contents[name.partition('_')[2]] = content
    return contents


def _assemble(card: Mapping[str, Any], contents: Mapping[str, bytes], checksum: str) -> Atlas:
    region = card['Region']
    segmentation = load_label_table(region).segmentation
    stacked = _image(contents[f'seg-{segmentation}_probseg.nii.gz'])
    images = {}
    for name, content in contents.items():
        if name.startswith('desc-') and name.endswith('.nii.gz'):
            img = _image(content)
            scaled = np.asarray(img.dataobj, np.float32) / 255
            images[name.split('_')[0].removeprefix('desc-')] = Nifti1Image(scaled, img.affine)
    rows = parse_rows(contents['levels.tsv'].decode().splitlines())
    boundaries = tuple(
        Boundary(
            row['upper'],
            row['lower'],
            (float(row['x_mm']), float(row['y_mm']), float(row['z_mm'])),
            float(row['sd_mm']),
        )
        for row in rows
    )
    probabilities = np.moveaxis(np.asarray(stacked.dataobj, np.float32) / 100, 3, 0)
    return Atlas(card['Identifier'], region, images, probabilities, boundaries, checksum)


def _image(content: bytes) -> Nifti1Image:
    import gzip

    return Nifti1Image.from_bytes(gzip.decompress(content))


def atlas_files(atlas: Atlas, recipe: Mapping[str, object]) -> dict[str, bytes]:
    """Return the files of an atlas by name, with the description last.

    Parameters
    ----------
    atlas
        The atlas.
    recipe
        How it was made, for the description.
    """
    prefix, seg = f'tpl-{atlas.name}', f'seg-{atlas.table.segmentation}'
    percent = np.moveaxis(np.rint(100 * atlas.probabilities), 0, 3).astype(np.uint8)
    files = {
        f'{prefix}_desc-{contrast}_{_suffix(contrast)}.nii.gz': _nifti(
            np.rint(255 * np.asarray(img.dataobj)).astype(np.uint8), atlas.affine
        )
        for contrast, img in sorted(atlas.images.items())
    }
    files[f'{prefix}_{seg}_dseg.nii.gz'] = _nifti(atlas.labels, atlas.affine)
    files[f'{prefix}_{seg}_probseg.nii.gz'] = _nifti(percent, atlas.affine)
    lookup = ['index\tname\tcolor', *(f'{x.index}\t{x.name}\t{x.color}' for x in atlas.table)]
    files[f'{prefix}_{seg}_dseg.tsv'] = ('\n'.join(lookup) + '\n').encode()
    levels = ['upper\tlower\tx_mm\ty_mm\tz_mm\tsd_mm']
    for each in atlas.boundaries:
        numbers = '\t'.join(f'{value:.2f}' for value in (*each.ras_mm, each.sd_mm))
        levels.append(f'{each.upper}\t{each.lower}\t{numbers}')
    files[f'{prefix}_levels.tsv'] = ('\n'.join(levels) + '\n').encode()
    card = {
        'Name': f'Average {atlas.region} muscles ({atlas.name})',
        'Identifier': atlas.name,
        'BIDSVersion': '1.11.0',
        'Region': atlas.region,
        **recipe,
        'Units': 'Images 0 to 255; probabilities in percent, one volume per row of the dseg.tsv; '
        'levels.tsv holds the middles of the discs.',
        'Files': {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files[CARD] = (json.dumps(card, indent=2) + '\n').encode()
    return files


def _suffix(contrast: str) -> str:
    return contrast if contrast in ('T1w', 'T2w', 'PDw') else 'T1w'


def _nifti(data: np.ndarray, affine: np.ndarray) -> bytes:
    import gzip

    img = Nifti1Image(data, affine)
    img.header.set_xyzt_units('mm')
    return gzip.compress(img.to_bytes(), compresslevel=9, mtime=0)


def renumbered(labels: Nifti1Image, table: LabelTable, other: LabelTable) -> Nifti1Image:
    """Return a label map with the numbers of another table; 0 for what is not in it."""
    if table.labels == other.labels:
        return labels
    numbers = np.zeros(max(table.by_index) + 1, np.uint8)
    for own, theirs in table.numbers_in(other).items():
        numbers[own] = theirs
    return Nifti1Image(numbers[np.asarray(labels.dataobj)], labels.affine)
