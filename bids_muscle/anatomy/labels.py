"""Label tables: which number in a label map is which muscle and side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

from bids_muscle.errors import UsageError
from bids_muscle.tables import read_rows

#: Body regions with a label table and an atlas in the package.
REGIONS = ('cervical', 'lumbar')
#: Body regions that models of other programs may know; the last covers several of them
#: together, and for what nobody named.
BODY = 'body'
OTHER_REGIONS = ('shoulder', 'arm', 'forearm', 'thorax', 'pelvis', 'thigh', 'leg', BODY)
#: What sagittal scans show: its table has vertebral bodies, discs and the sacrum.
SPINE = 'spine'
#: Values of the ``seg`` entity of label maps that use a table of the package.
OWN_SEGMENTATIONS = (*(f'{region}muscles' for region in REGIONS), SPINE, 'vertebrae', 'discs')
#: Words of a name that give the side, and words that distinguish no muscle from another.
_SIDES = {'left': 'left', 'l': 'left', 'lt': 'left', 'right': 'right', 'r': 'right', 'rt': 'right'}
_FILLERS = {'and', 'm', 'major', 'muscle', 'muscles', 'the'}


def side_and_structure(name: str) -> tuple[str, frozenset[str]]:
    """Split a name from elsewhere into the side and the words of the structure.

    The side is empty where the name has none, or both.

    Examples
    --------
    >>> side_and_structure('Psoas_major-L') == side_and_structure('the lt psoas muscle')
    True
    >>> side_and_structure('vertebra L1')[0]
    ''
    """
    words = [word for word in re.findall('[a-z0-9]+', name.lower()) if not word.isdigit()]
    sides = {_SIDES[word] for word in words if word in _SIDES}
    structure = frozenset(word for word in words if word not in _SIDES and word not in _FILLERS)
    return (sides.pop() if len(sides) == 1 else ''), structure


#: Side of a label whose name has none, such as that of the liver.
UNSIDED = 'unsided'
#: Kind of a structure; others of ``data/structures.tsv`` are bone and organ.
MUSCLE = 'muscle'


@dataclass(frozen=True)
class Label:
    """One muscle, or another structure, on one side.

    Parameters
    ----------
    index
        Its number in the label map.
    name, muscle, side
        Name with the side, name, and side: ``'left'``, ``'right'`` or :data:`UNSIDED`.
    abbreviation, color
        For lookup tables; the colour as ``'#RRGGBB'``.
    levels
        The highest and the lowest vertebra between which the muscle is measured, such as
        ``('C4', 'C6')``; None where it is measured wherever it is.
    kind
        ``'muscle'``, ``'bone'``, ``'organ'``, or ``'unknown'``.
    source
        What a model of another program calls it; empty in the tables of the package.
    expected
        Whether it lies in the region of the table, so that its absence is worth a row.
    """

    index: int
    name: str
    muscle: str
    abbreviation: str
    side: str
    color: str
    levels: tuple[str, str] | None = None
    kind: str = MUSCLE
    source: str = ''
    expected: bool = True

    @property
    def extent(self) -> str:
        """The levels between which it is measured, as people write them; nothing without any.

        Examples
        --------
        >>> load_label_table('lumbar').by_index[1].extent
        'T12-S1'
        >>> load_label_table('cervical').by_index[11].extent
        'C6'
        """
        return '-'.join(dict.fromkeys(self.levels or ()))

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Colour as 0-255 integers.

        Examples
        --------
        >>> Label(1, 'right multifidus', 'multifidus', 'MF', 'right', '#FF8000').rgb
        (255, 128, 0)
        """
        value = self.color.lstrip('#')
        return int(value[0:2], 16), int(value[2:4], 16), int(value[4:6], 16)


@dataclass(frozen=True)
class LabelTable:
    """The labels of one region, ordered by index.

    In the tables of the package even numbers are left and odd numbers right, as in Weber 2021,
    Table 1. ``seg`` names the table of a model of another program; it is empty in these.
    """

    region: str
    labels: tuple[Label, ...]
    seg: str = ''

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def segmentation(self) -> str:
        """Value of the ``seg`` entity of label maps that use this table."""
        if self.seg:
            return self.seg
        return self.region if self.region == SPINE else f'{self.region}muscles'

    def numbers_in(self, other: LabelTable) -> dict[int, int]:
        """Return the number in another table of each label that is there, too.

        Examples
        --------
        >>> load_label_table('lumbar').numbers_in(load_label_table('cervical'))
        {}
        """
        known = {label.name: label.index for label in other}
        return {label.index: known[label.name] for label in self if label.name in known}

    @property
    def dtype(self) -> str:
        """Type of label maps that hold its numbers."""
        return 'uint8' if max(self.by_index) < 256 else 'int16'

    @cached_property
    def by_index(self) -> dict[int, Label]:
        """Label by its number in the label map."""
        return {label.index: label for label in self.labels}

    def find(self, name: str) -> Label | None:
        """Return the label that a name from elsewhere means, or None.

        The name has the muscle, in full, as its abbreviation or as a synonym of
        ``data/synonyms.tsv``, and the side, in any order.

        Examples
        --------
        >>> table = load_label_table('lumbar')
        >>> names = 'Multifidus_left', 'MF (R)', 'psoas right', 'left_erector_spinae_2'
        >>> [table.find(name).index for name in names]
        [2, 1, 5, 4]
        >>> table.find('thoracolumbar multifidus L').index
        2
        >>> table.find('left kidney')
        """
        side, structure = side_and_structure(name)
        for label in self.labels:
            muscles = label.muscle, *synonyms().get(label.muscle, ())
            names = [side_and_structure(muscle)[1] for muscle in muscles]
            if label.side == side and structure in (*names, {label.abbreviation.lower()}):
                return label
        return None

    @cached_property
    def mirrored(self) -> dict[int, int]:
        """Number of the same muscle on the other side, for left-right flips.

        Examples
        --------
        >>> load_label_table('lumbar').mirrored[1]
        2
        """
        by_name = {(label.muscle, label.side): label.index for label in self.labels}
        other = {'left': 'right', 'right': 'left', 'middle': 'middle'}
        return {label.index: by_name[label.muscle, other[label.side]] for label in self.labels}


@cache
def load_label_table(region: str) -> LabelTable:
    """Read the label table of a body region from the package.

    Parameters
    ----------
    region
        ``'cervical'`` (Weber 2021, Table 1), ``'lumbar'`` or ``'spine'``.

    Raises
    ------
    UsageError
        If the region is unknown.

    Examples
    --------
    >>> [label.name for label in load_label_table('lumbar')][:2]
    ['right multifidus', 'left multifidus']
    """
    if region not in (*REGIONS, SPINE):
        raise UsageError(
            f'There is no label table for the region {region!r}.',
            f'Use one of {", ".join(REGIONS)}.',
        )
    return read_label_table(
        Path(str(resources.files('bids_muscle') / f'data/labels/{region}.tsv'))
    )


def read_label_table(path: Path) -> LabelTable:
    """Read a label table: columns index, name, muscle, abbreviation, side, color and levels."""
    rows = read_rows(path)
    labels = tuple(
        Label(
            int(row['index']),
            row['name'],
            row['muscle'],
            row['abbreviation'],
            row['side'],
            row['color'],
            _levels(row['levels']),
        )
        for row in rows
    )
    return LabelTable(path.stem, tuple(sorted(labels, key=lambda label: label.index)))


def _levels(text: str) -> tuple[str, str] | None:
    upper, _, lower = text.partition('-')
    return (upper, lower) if lower else None


@cache
def synonyms() -> dict[str, list[str]]:
    """Return other names of structures by their name here."""
    found: dict[str, list[str]] = {}
    for row in read_rows(Path(str(resources.files('bids_muscle') / 'data/synonyms.tsv'))):
        found.setdefault(row['muscle'], []).append(row['synonym'])
    return found
