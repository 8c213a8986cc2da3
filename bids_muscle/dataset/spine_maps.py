"""Label maps of vertebrae and discs in the derivatives of other programs."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.errors import BadDataError

_NAME = re.compile(
    r'(sub-[0-9A-Za-z+]+(?:_[a-z]+-[0-9A-Za-z+]+)*)_seg-(vertebrae|discs)'
    r'(?:_desc-[0-9A-Za-z+]+)?_dseg\.nii(?:\.gz)?'
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
    def session(self) -> str | None:
        """Session label without ``ses-``, or None."""
        return dict(part.split('-', 1) for part in self.stem.split('_')).get('ses')


def find_spine_maps(folders: Sequence[Path], participant: str) -> list[SpineMaps]:
    """Find the label maps ``_seg-vertebrae_dseg`` and ``_seg-discs_dseg`` of a participant.

    Parameters
    ----------
    folders
        Derivatives datasets; of two maps of one name that of the first counts.
    participant
        Label without ``sub-``.

    Returns
    -------
    list of SpineMaps
        Sorted by name.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted((folder / f'sub-{participant}').rglob('*_dseg.nii*')):
            if match := _NAME.fullmatch(path.name):
                found.setdefault(match[1], {}).setdefault(match[2], path)
    return [
        SpineMaps(stem, maps.get('vertebrae'), maps.get('discs'))
        for stem, maps in sorted(found.items())
    ]


def read_label_names(path: Path, participant: str) -> dict[int, str]:
    """Return the names of the labels of a map, from its BIDS lookup table; empty without one.

    That is the table beside the map, else ``seg-<label>_dseg.tsv`` or ``dseg.tsv`` at the top of
    its dataset.

    Raises
    ------
    BadDataError
        If the table lacks the columns ``index`` and ``name`` or has an index that is no number.
    """
    stem = path.name.partition('.')[0]
    seg = re.search('_seg-(vertebrae|discs)_', path.name)
    top = next(folder for folder in path.parents if folder.name == f'sub-{participant}').parent
    shared = [f'seg-{seg[1]}_dseg.tsv'] if seg else []
    for table in (path.with_name(f'{stem}.tsv'), *(top / name for name in (*shared, 'dseg.tsv'))):
        if table.is_file():
            try:
                with table.open(encoding='utf-8-sig', newline='') as stream:
                    rows = csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE)
                    return {int(row['index']): row['name'] for row in rows}
            except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
                raise BadDataError(
                    f'{table} is not a lookup table.',
                    'Give it the columns index, a whole number, and name.',
                ) from error
    return {}
