"""Save what a reader drew: whole or not at all, and over nobody else's work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bids_muscle import __version__
from bids_muscle.dataset.corrections import (
    Correction,
    correction_path,
    find_corrections,
    sha256_of,
)
from bids_muscle.dataset.names import sidecar_of
from bids_muscle.dataset.writer import format_json, image_bytes, write_together
from bids_muscle.errors import BidsMuscleError, OutputError, UsageError
from bids_muscle.review.scans import EditorScan, inside
from bids_muscle.review.voxels import native_labels
from bids_muscle.tables import MISSING
from bids_muscle.temporary import locked


class ConflictError(BidsMuscleError):
    """Somebody saved the same correction after this reader had opened it."""

    def __init__(self, message: str, remedy: str, revision: str) -> None:
        super().__init__(message, remedy)
        self.revision = revision


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


def save_correction(
    output_dir: Path,
    scan: EditorScan,
    drawn: bytes,
    *,
    rater: str,
    revision: str,
    start: Correction,
    start_sha256: str,
    started: np.ndarray | None,
    passed: bool,
) -> dict[str, Any]:
    """Write the correction of a rater with its sidecar.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    scan
        The scan.
    drawn
        One byte for each voxel; see :func:`~bids_muscle.review.voxels.native_labels`.
    rater
        Who drew.
    revision
        SHA-256 of the correction of this rater as the reader knows it; empty if there was none.
    start, start_sha256, started
        The map that the work started from, its SHA-256, and its label positions; None where
        these are not known any more.
    passed
        Whether the map may be measured.

    Returns
    -------
    dict
        ``revision``, and the fields of the sidecar.

    Raises
    ------
    ConflictError
        If the file has changed since the reader opened it.
    UsageError
        If nobody is named.
    BadDataError
        If the voxels do not fit the scan.
    FullDiskError, OutputError
        If it cannot be written; what was there before is whole then.
    """
    if not rater:
        raise UsageError('Nobody is named as the rater.', 'Enter your name, then save again.')
    path = inside(output_dir, correction_path(scan.scan, rater))
    content = image_bytes(native_labels(drawn, scan.labels, scan.table))
    digest = hashlib.sha256(content).hexdigest()
    positions = np.frombuffer(drawn, np.uint8)
    sidecar = {
        'Description': 'Label map that a person corrected in the browser.',
        'Sources': [f'bids::{scan.labels.relative_to(output_dir).as_posix()}'],
        'SkullStripped': False,
        'SpatialReference': 'orig',
        'Manual': True,
        'Rater': rater,
        'SavedAt': timestamp(),
        'Passed': passed,
        'StartedFrom': start.path.name,
        'StartedFromRater': start.rater or MISSING,
        'StartedFromSHA256': start_sha256,
        'VoxelsChanged': MISSING
        if started is None
        else int(np.count_nonzero(started.reshape(-1, order='F') != positions)),
        'SoftwareVersion': f'bids_muscle {__version__}',
    }
    with writing_in(path.parent):
        present = sha256_of(path)
        if present not in (revision, digest):
            raise ConflictError(
                f'{path.name} was saved in another window after you had opened it here.',
                'Reload the page to go on from there, or save again to replace it.',
                present,
            )
        drawn_elsewhere = [e for e in find_corrections(scan.scan, output_dir) if not e.rater]
        if drawn_elsewhere:
            sidecar['Replaces'] = sha256_of(drawn_elsewhere[0].path)
        text = format_json(sidecar).encode('utf-8')
        write_together({path: [content], inside(output_dir, sidecar_of(path)): [text]})
    return {'revision': digest, **sidecar}
