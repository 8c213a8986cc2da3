"""Save what a reader drew: whole or not at all, and over nobody else's work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bids_muscle.anatomy.labels import LabelTable
from bids_muscle.anatomy.lookups import bids_lookup
from bids_muscle.dataset.corrections import correction_path, find_corrections, sha256_of
from bids_muscle.dataset.names import lookup_of, sidecar_of
from bids_muscle.dataset.provenance import SOFTWARE
from bids_muscle.dataset.writer import format_json, image_bytes, write_together
from bids_muscle.errors import (
    PARSE_ERRORS,
    BidsMuscleError,
    MissingInputError,
    OutputError,
    UsageError,
)
from bids_muscle.files import read_small
from bids_muscle.review.scans import EditorScan, StartMaps, inside
from bids_muscle.review.voxels import native_labels
from bids_muscle.tables import MISSING
from bids_muscle.temporary import locked


class ConflictError(BidsMuscleError):
    """What a reader had opened has changed: the correction, or the scan itself."""

    def __init__(self, message: str, remedy: str, revision: str) -> None:
        super().__init__(message, remedy)
        self.revision = revision


@dataclass(frozen=True)
class ReaderWork:
    """What a reader did.

    Parameters
    ----------
    rater
        Who drew.
    drawn
        One byte for each voxel; see :func:`~bids_muscle.review.voxels.native_labels`.
    passed
        Whether the map may be measured.
    revision
        SHA-256 of each file of the correction of this rater as the reader knows it, with commas
        between; empty if there was none.
    start
        What the work started from.
    start_sha256
        SHA-256 of each file of it when it was opened, likewise.
    started
        Its label positions; None where these are not known any more.
    images_sha256
        Digest of the images that the reader saw; empty where it is not known.
    """

    rater: str
    drawn: bytes
    passed: bool
    revision: str
    start: StartMaps
    start_sha256: str
    started: np.ndarray | None
    images_sha256: str = ''


def timestamp() -> str:
    """Return the present time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of which several windows, or servers, may change one file.

    Raises
    ------
    OutputError
        If there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield
    except OSError as error:
        raise OutputError(
            f'{folder} cannot be written: {error.strerror}.', 'Check its permissions.'
        ) from error


def save_correction(output_dir: Path, scan: EditorScan, work: ReaderWork) -> dict[str, Any]:
    """Write the correction of a rater: each map with its sidecar, vertebrae with their names.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    scan
        The scan.
    work
        What was drawn.

    Returns
    -------
    dict
        ``revision``, and the fields of the sidecar of the first map.

    Raises
    ------
    ConflictError
        If the correction, or the images of the scan, have changed since the reader opened it.
    UsageError
        If nobody is named.
    BadDataError
        If the voxels do not fit the scan.
    FullDiskError, OutputError
        If it cannot be written; what was there before is whole then.
    """
    if not work.rater:
        raise UsageError('Nobody is named as the rater.', 'Enter your name, then save again.')
    if work.images_sha256 not in ('', scan.images_sha256):
        raise ConflictError(
            'The scan has changed since the editor was opened.', 'Reload the page.', work.revision
        )
    images = native_labels(work.drawn, scan.like, scan.tables)
    contents = {key: image_bytes(image) for key, image in images.items()}
    paths = _places(output_dir, scan, work.rater)
    revision = ','.join(hashlib.sha256(content).hexdigest() for content in contents.values())
    facts = _facts(work)
    with writing_in(next(iter(paths.values())).parent):
        _check_revision(paths, {work.revision, revision})
        files: dict[Path, list[bytes]] = {}
        for place, (key, path) in enumerate(paths.items()):
            sidecar = {**facts, **_of_map(output_dir, scan, key, work, place)}
            files |= {path: [contents[key]], _beside(output_dir, path): [_text(sidecar)]}
            if len(paths) > 1:  # other programs read the names of its vertebrae there
                found = set(np.unique(np.asarray(images[key].dataobj)).tolist())
                lookup = bids_lookup(_only(scan.tables[key], found)).encode('utf-8')
                files[inside(output_dir, lookup_of(path))] = [lookup]
        write_together(files)
    return {'revision': revision, **facts}


def withdraw_correction(output_dir: Path, scan: EditorScan, rater: str) -> None:
    """Make the correction of a rater a draft that is not measured and not opened by itself.

    Raises
    ------
    MissingInputError
        If there is none.
    FullDiskError, OutputError
        If it cannot be written.
    """
    paths = _places(output_dir, scan, rater)
    with writing_in(next(iter(paths.values())).parent):
        files = {}
        for path in paths.values():
            sidecar_path = _beside(output_dir, path)
            try:
                sidecar = json.loads(read_small(sidecar_path))
                files[sidecar_path] = [_text({**sidecar, 'Passed': False, 'Withdrawn': True})]
            except (OSError, *PARSE_ERRORS, TypeError) as error:
                raise MissingInputError(
                    f'{rater or "Nobody"} has no correction of {scan.scan.name}.',
                    'Enter the name under which it was saved.',
                ) from error
        write_together(files)


def _places(output_dir: Path, scan: EditorScan, rater: str) -> dict[str, Path]:
    return {key: inside(output_dir, correction_path(scan.scan, rater, key)) for key in scan.labels}


def _beside(output_dir: Path, path: Path) -> Path:
    return inside(output_dir, sidecar_of(path).relative_to(output_dir))


def _text(sidecar: Mapping[str, Any]) -> bytes:
    return format_json(sidecar).encode('utf-8')


def _check_revision(paths: Mapping[str, Path], known: set[str]) -> None:
    there = [sha256_of(path) for path in paths.values()]
    present = ','.join(there) if any(there) else ''
    if present not in known:
        name = next(iter(paths.values())).name
        raise ConflictError(
            f'{name} was saved in another window after you had opened it here.',
            'Reload the page to go on from there, or save again to replace it.',
            present,
        )


def _facts(work: ReaderWork) -> dict[str, Any]:
    """Return what the sidecars of all maps say."""
    positions = np.frombuffer(work.drawn, np.uint8)
    changed: int | str = MISSING
    if work.started is not None:
        changed = int(np.count_nonzero(work.started.reshape(-1, order='F') != positions))
    return {
        'Description': 'Label map that a person corrected in the browser.',
        'SkullStripped': False,
        'SpatialReference': 'orig',
        'Manual': True,
        'Rater': work.rater,
        'SavedAt': timestamp(),
        'Passed': work.passed,
        'StartedFromManual': work.start.manual,
        'StartedFromRater': work.start.rater or MISSING,
        'VoxelsChanged': changed,
        **({'ImagesSHA256': work.images_sha256} if work.images_sha256 else {}),
        'SoftwareVersion': SOFTWARE,
    }


def _of_map(
    output_dir: Path, scan: EditorScan, key: str, work: ReaderWork, place: int
) -> dict[str, Any]:
    """Return what the sidecar of one map says: what it started from, and what it replaces."""
    digests = work.start_sha256.split(',')
    drawn = [each for each in find_corrections(scan.scan, output_dir, key) if not each.rater]
    return {
        'Sources': [f'bids::{scan.labels[key].relative_to(output_dir).as_posix()}'],
        'StartedFrom': work.start.paths[key].name,
        'StartedFromSHA256': digests[place] if place < len(digests) else '',
        **({'Replaces': sha256_of(drawn[0].path)} if drawn else {}),
    }


def _only(table: LabelTable, numbers: set[int]) -> LabelTable:
    return LabelTable(table.region, tuple(label for label in table if label.index in numbers))
