"""Label maps that a person drew or corrected, which take the place of the network's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bids_muscle.dataset.names import (
    derivative_path,
    io_spec,
    map_keys,
    map_path,
    read_entities,
    segmentation,
    sidecar_of,
)
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import PARSE_ERRORS, BadDataError
from bids_muscle.files import file_sha256, read_small

#: A name of a rater in a file name is no longer than this.
_MOST_LETTERS = 40


@dataclass(frozen=True)
class Correction:
    """A label map that a person made.

    Parameters
    ----------
    path
        The file.
    rater
        Who saved it in the browser; empty where it was drawn in another program.
    saved_at
        When, in ISO 8601, UTC; empty as well.
    passed
        Whether it may be measured; a draft may not.
    replaces
        SHA-256 of the map drawn in another program that was there when it was saved.
    withdrawn
        Whether the person has withdrawn it; it is a draft then.
    images_sha256
        :func:`images_digest` of what it was drawn on; empty where that is not known.
    """

    path: Path
    rater: str = ''
    saved_at: str = ''
    passed: bool = True
    replaces: str = ''
    withdrawn: bool = False
    images_sha256: str = ''

    def is_on_others(self, images_sha256: str) -> bool:
        """Return whether it was drawn on other images than these, as far as both are known."""
        return images_sha256 != self.images_sha256 and '' not in (
            images_sha256,
            self.images_sha256,
        )


def find_correction(scan: Scan, folders: Sequence[Path]) -> tuple[tuple[str, Path], ...]:
    """Return the label maps of a scan that a person made, as in ``Scan.manual``.

    Parameters
    ----------
    scan
        A scan with a region.
    folders
        Derivatives datasets; the first that has a map counts.

    Raises
    ------
    BadDataError
        If a folder has several that were drawn in other programs.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for key in map_keys(scan):
            counting = choose_correction(find_corrections(scan, folder, key), scan.name)
            if counting:
                found.setdefault(key, counting.path)
    return tuple(found.items())


def find_corrections(scan: Scan, folder: Path, key: str = 'dseg') -> list[Correction]:
    """Return all label maps of a scan that persons made, sorted by path.

    The name is that of our label map with ``desc-manual``; ``seg`` may be left out where a scan
    has one map. A map saved in the browser has ``desc-manual<rater>``, see :func:`rater_label`,
    and a sidecar.

    Parameters
    ----------
    scan
        A scan with a region.
    folder
        A derivatives dataset.
    key
        Which of its maps, see :func:`~bids_muscle.dataset.names.map_keys`.
    """
    anat = derivative_path(scan, key).parent
    plain = dict(scan.entities)
    alone = key == 'dseg'
    names = [plain | {'seg': segmentation(scan) if alone else key}, *[plain] * alone]
    facts = (
        read_correction_facts(path)
        for path in sorted((folder / anat).glob(f'{scan.name}_*dseg.nii*'))
        if path.name.endswith(('_dseg.nii', '_dseg.nii.gz'))
        and {k: v for k, v in read_entities(path).items() if k != 'desc'} in names
    )
    return [correction for correction in facts if correction]


def read_correction_facts(path: Path) -> Correction | None:
    """Return what is known of a label map that a person made; None for any other file.

    Parameters
    ----------
    path
        A label map with BIDS entities in its name.
    """
    desc, manual = read_entities(path).get('desc', ''), io_spec()['correction']
    if desc == manual:
        return Correction(path)
    if not desc.startswith(manual):
        return None
    try:
        sidecar = json.loads(read_small(sidecar_of(path)))
        return Correction(
            path,
            str(sidecar['Rater']),
            str(sidecar['SavedAt']),
            sidecar['Passed'] is True,
            str(sidecar.get('Replaces', '')),
            sidecar.get('Withdrawn') is True,
            str(sidecar.get('ImagesSHA256', '')),
        )
    except (OSError, *PARSE_ERRORS, KeyError, TypeError):
        return None


def choose_correction(corrections: Iterable[Correction], scan: str = '') -> Correction | None:
    """Return the correction that counts, or None: of those saved in the browser the newest passed.

    A map that was drawn in another program counts before it, unless it was there already when
    that one was saved.

    Parameters
    ----------
    corrections
        Those of one scan.
    scan
        Its name, for the message.

    Raises
    ------
    BadDataError
        If several were drawn in other programs.
    """
    corrections = list(corrections)
    drawn = [correction for correction in corrections if not correction.rater]
    if len(drawn) > 1:
        raise BadDataError(
            f'{scan or drawn[0].path.name} has several corrected label maps: '
            f'{", ".join(str(correction.path) for correction in drawn)}.',
            'Keep one of them.',
        )
    passed = [correction for correction in corrections if correction.rater and correction.passed]
    newest = max(
        passed, key=lambda correction: (correction.saved_at, correction.path.name), default=None
    )
    if newest and drawn and sha256_of(drawn[0].path) == newest.replaces:
        return newest
    return drawn[0] if drawn else newest


def correction_path(scan: Scan, rater: str, key: str = 'dseg') -> PurePosixPath:
    """Return where the correction of a rater goes, relative to the output folder.

    Parameters
    ----------
    scan, key
        As for :func:`find_corrections`.
    rater
        Name of the person.

    Examples
    --------
    >>> scan = Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    >>> correction_path(scan, 'Anna').name
    'sub-01_acq-dixon_seg-lumbarmuscles_desc-manualAnna_dseg.nii.gz'
    """
    return map_path(scan, key, f'{io_spec()["correction"]}{rater_label(rater)}')


def rater_label(rater: str) -> str:
    """Return the name of a rater as part of a file name; different names stay different.

    Examples
    --------
    >>> rater_label('Anna'), rater_label('A. B.')
    ('Anna', 'AB590156')
    """
    label = re.sub('[^0-9A-Za-z]', '', rater)[:_MOST_LETTERS]
    return label if label == rater else label + hashlib.sha256(rater.encode()).hexdigest()[:6]


def images_digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 (hex) of the contents of images; empty where one cannot be read.

    Neither their names and order count, nor how they are prepared: a person sees what they show.
    """
    digests = sorted(sha256_of(path) for path in paths)
    return (
        hashlib.sha256(','.join(digests).encode()).hexdigest() if digests and all(digests) else ''
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file; empty where it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ''
