"""The label maps of the network of a scan whose published ones are a person's.

They are kept under a name of their own, so that readers can be compared with the network and
corrections taken back.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
from nibabel import Nifti1Image

from bids_muscle.dataset.names import (
    derivative_path,
    io_spec,
    lookup_of,
    map_keys,
    map_path,
    sidecar_of,
)
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_together
from bids_muscle.errors import PARSE_ERRORS, BidsMuscleError
from bids_muscle.files import read_small
from bids_muscle.imaging.conform import read_grid


def kept_path(scan: Scan, key: str) -> PurePosixPath:
    """Return where a label map of the network is kept, relative to the output folder.

    Parameters
    ----------
    scan
        The scan.
    key
        Which map, see :func:`~bids_muscle.dataset.names.map_keys`.
    """
    return map_path(scan, key, io_spec()['kept'])


def kept_files(scan: Scan) -> list[str]:
    """List the files that maps of the network are kept in, relative to the output folder."""
    maps = [Path(kept_path(scan, key)) for key in map_keys(scan)]
    return [str(path) for each in maps for path in (each, sidecar_of(each), lookup_of(each))]


def is_of_person(path: Path) -> bool:
    """Say whether the sidecar of a label map tells that a person made it, or cannot be read."""
    try:
        return json.loads(read_small(sidecar_of(path)))['Manual'] is not False
    except (OSError, *PARSE_ERRORS, KeyError, TypeError):
        return True


def keep_network_maps(scan: Scan, output_dir: Path, native: Nifti1Image) -> list[str]:
    """Keep the published maps of the network before those of a person take their names.

    A map that was kept before stays: the published one may be half replaced, if a run was killed.

    Parameters
    ----------
    scan
        The scan; without a person's maps, nothing is kept.
    output_dir
        The derivatives dataset.
    native
        Its grid; a map on another one is of another image.

    Returns
    -------
    list of str
        What is kept, relative to the output folder.

    Raises
    ------
    FullDiskError, OutputError
        If it cannot be written.
    """
    for key in map_keys(scan) if scan.manual else ():
        published = output_dir / derivative_path(scan, key)
        kept = output_dir / kept_path(scan, key)
        if not kept.is_file() and published.is_file() and not is_of_person(published):
            places = {place(published): place(kept) for place in (Path, sidecar_of, lookup_of)}
            there = {path: to for path, to in places.items() if path.is_file()}
            write_together({to: [path.read_bytes()] for path, to in there.items()})
        if kept.is_file() and not _lies_on(kept, native):
            for path in (kept, sidecar_of(kept), lookup_of(kept)):
                path.unlink(missing_ok=True)
    names = kept_files(scan) if scan.manual else []
    return [name for name in names if (output_dir / name).is_file()]


def remove_network_maps(scan: Scan, output_dir: Path) -> None:
    """Remove the maps of the network of a scan whose images are others now.

    Also the published one, which would else be kept.
    """
    published = [str(derivative_path(scan, key)) for key in map_keys(scan)]
    for name in [*kept_files(scan), *published]:
        (output_dir / name).unlink(missing_ok=True)


def _lies_on(path: Path, native: Nifti1Image) -> bool:
    try:
        grid = read_grid(path)
    except BidsMuscleError:
        return False
    return grid.shape == native.shape and np.allclose(grid.affine, native.affine, atol=1e-3)
