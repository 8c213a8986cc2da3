"""Label maps of vertebrae and discs in the derivatives of other programs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.dataset.label_maps import read_lookup
from bids_muscle.dataset.names import io_spec

_NAME = re.compile(
    r'(sub-[0-9A-Za-z+]+(?:_[a-z]+-[0-9A-Za-z+]+)*)_seg-(vertebrae|discs)'
    r'(?:_desc-(?!network_)([0-9A-Za-z+]+))?_dseg\.nii(?:\.gz)?'
)


@dataclass(frozen=True)
class SpineMaps:
    """Label maps of one scan, at least one of the two.

    Parameters
    ----------
    stem
        Their names up to ``_seg-``.
    vertebrae, discs
        Files, or None.
    """

    stem: str
    vertebrae: Path | None
    discs: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are there."""
        return tuple(path for path in (self.vertebrae, self.discs) if path)

    @property
    def session(self) -> str | None:
        """Session label without ``ses-``, or None."""
        return dict(part.split('-', 1) for part in self.stem.split('_')).get('ses')


def find_spine_maps(
    folders: Sequence[Path], participant: str, scans: Collection[str] = ()
) -> list[SpineMaps]:
    """Find the label maps ``_seg-vertebrae_dseg`` and ``_seg-discs_dseg`` of a participant.

    Parameters
    ----------
    folders
        Derivatives datasets; of two maps of one name that of the first counts.
    participant
        Label without ``sub-``.
    scans
        Names of sagittal scans. The corrections of their maps, ``desc-manual...``, are left out,
        since the scans take these for their own.

    Returns
    -------
    list of SpineMaps
        Sorted by name.
    """
    by_stem: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted((folder / f'sub-{participant}').rglob('*_dseg.nii*')):
            if not (match := _NAME.fullmatch(path.name)):
                continue
            stem, kind, desc = match.groups()
            if not (stem in scans and (desc or '').startswith(io_spec()['correction'])):
                by_stem.setdefault(stem, {}).setdefault(kind, path)
    return [
        SpineMaps(stem, maps.get('vertebrae'), maps.get('discs'))
        for stem, maps in sorted(by_stem.items())
    ]


def read_label_names(path: Path, participant: str) -> dict[int, str]:
    """Return the names of the labels of a participant's map; see :func:`read_lookup`."""
    top = next(folder for folder in path.parents if folder.name == f'sub-{participant}').parent
    return read_lookup(path, top)
