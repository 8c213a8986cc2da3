"""Label maps that a person drew or corrected, which take the place of the network's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bids_muscle.dataset.label_maps import read_entities
from bids_muscle.dataset.names import derivative_path, io_spec, segmentation
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import BadDataError


def find_correction(scan: Scan, folders: Sequence[Path]) -> Path | None:
    """Return the label map of a scan that a person made, or None.

    Its name is that of our label map with ``desc-manual``; ``seg`` may be left out.

    Parameters
    ----------
    scan
        A scan with a region.
    folders
        Derivatives datasets; the first that has one counts.

    Raises
    ------
    BadDataError
        If a folder has several.
    """
    anat = derivative_path(scan, 'dseg').parent
    wanted = {'desc': io_spec()['correction'], **dict(scan.entities)}
    names = (wanted, wanted | {'seg': segmentation(scan)})
    for folder in folders:
        found = [
            path
            for path in sorted((folder / anat).glob(f'{scan.name}_*dseg.nii*'))
            if path.name.endswith(('_dseg.nii', '_dseg.nii.gz')) and read_entities(path) in names
        ]
        if len(found) > 1:
            raise BadDataError(
                f'{scan.name} has several corrected label maps: '
                f'{", ".join(str(path) for path in found)}.',
                'Keep one of them.',
            )
        if found:
            return found[0]
    return None
