"""What the structures of models of other programs are, and the label table of such a model."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from bids_muscle.anatomy.labels import (
    BODY,
    MUSCLE,
    REGIONS,
    UNSIDED,
    Label,
    LabelTable,
    load_label_table,
    side_and_structure,
    synonyms,
)
from bids_muscle.anatomy.levels import level_of
from bids_muscle.tables import parse_rows, read_rows

#: Step of the hue from one structure to the next, so that neighbours in the table differ most.
_GOLDEN = 0.618034
#: Lightness by side, as in the tables of the package.
_LIGHTNESS = {'right': 0.68, 'left': 0.42, UNSIDED: 0.55}


@dataclass(frozen=True)
class Structure:
    """A muscle, bone or organ, whatever its side.

    Parameters
    ----------
    name
        What it is called in all tables.
    kind
        As in :class:`~bids_muscle.anatomy.labels.Label`.
    regions
        Body regions whose scans show it; empty where nothing is known of it.
    """

    name: str
    kind: str = 'unknown'
    regions: frozenset[str] = frozenset()


def identify(name: str) -> tuple[str, Structure]:
    """Return the side and the structure that a name from elsewhere means.

    Known are the muscles of the label tables, those of ``data/structures.tsv``, the synonyms of
    both in ``data/synonyms.tsv``, and vertebrae. Any other name is taken as it is.

    Examples
    --------
    >>> side, structure = identify('Thoracolumbar_multifidus_L')
    >>> side, structure.name, structure.kind
    ('left', 'multifidus', 'muscle')
    >>> identify('vertebrae_L3')[1].name, identify('rib_left_2')
    ('vertebra L3', ('left', Structure(name='rib 2', kind='unknown', regions=frozenset())))
    """
    side, words = side_and_structure(name)
    if level := level_of(name.replace('_', ' ')):
        side, words = '', side_and_structure(f'vertebra {level}')[1]
    known = _known().get(words)
    return side or UNSIDED, known or Structure(_plain(name, side))


def _plain(name: str, side: str) -> str:
    """Return the words of a name in small letters, without those of the side."""
    words = re.findall(r'[^\W_]+', name.lower())
    sides = {word for word in words if side and side_and_structure(word)[0] == side}
    return ' '.join(word for word in words if word not in sides)


def model_table(names: Mapping[int, str]) -> LabelTable:
    """Return the label table of a model of another program, for no region in particular.

    A muscle of the tables of the package has the name, abbreviation, colour and levels that it
    has there, so that it is the same muscle in the tables of a cohort.

    Parameters
    ----------
    names
        The model's own name of each structure by its number in the label map.

    Examples
    --------
    >>> table = model_table({5101: 'thoracolumbar multifidus left', 7132: 'R rectus femoris'})
    >>> [(label.index, label.name, label.abbreviation) for label in table]
    [(5101, 'left multifidus', 'MF'), (7132, 'right rectus femoris', 'RectusFemoris')]
    """
    structures = {index: identify(names[index]) for index in sorted(names)}
    own = {label.muscle: label for region in REGIONS for label in load_label_table(region)}
    colours = _colours({structure.name: structure.kind for _, structure in structures.values()})

    def label(index: int, side: str, structure: Structure) -> Label:
        muscle = structure.name or f'structure {index}'
        name = muscle if side == UNSIDED else f'{side} {muscle}'
        like = own.get(muscle)
        return Label(
            index,
            name,
            muscle,
            like.abbreviation if like else _abbreviation(muscle),
            side,
            colours[structure.name][side],
            like.levels if like else None,
            structure.kind,
            source=' '.join(names[index].split()),
        )

    return LabelTable(BODY, tuple(label(index, *each) for index, each in structures.items()))


def for_region(table: LabelTable, region: str) -> LabelTable | None:
    """Return the table of a model for scans of a region; None where the model is for another.

    A model is for every region if it has a structure of which it is not known where it lies.

    Examples
    --------
    >>> table = model_table({1: 'liver', 2: 'left psoas'})
    >>> [label.expected for label in for_region(table, 'lumbar')]
    [False, True]
    >>> for_region(table, 'thigh')
    """
    regions = [identify(label.name)[1].regions for label in table]
    if region != BODY and all(each and region not in each for each in regions):
        return None
    # What a scan of the neck or the back shows of other structures depends on its height.
    own = {label.name for label in load_label_table(region)} if region in REGIONS else None
    labels = (
        replace(label, expected=region in each if own is None else label.name in own)
        for label, each in zip(table, regions, strict=True)
    )
    return LabelTable(region, tuple(labels))


def read_published_table(path: Path, region: str, seg: str) -> LabelTable:
    """Read a lookup table (``_dseg.tsv``) that was written beside a label map.

    Raises
    ------
    OSError, KeyError, ValueError
        If it cannot be read or is no such table.
    """
    return _published_table(path.read_text(encoding='utf-8'), region, seg)


@cache  # the scans of a cohort share it
def _published_table(text: str, region: str, seg: str) -> LabelTable:
    labels = []
    for row in parse_rows(text.splitlines()):
        side, _, muscle = row['name'].partition(' ')
        side, muscle = (side, muscle) if side in ('left', 'right') else (UNSIDED, row['name'])
        short = row['abbreviation'].removesuffix('-L').removesuffix('-R')
        labels.append(
            Label(
                int(row['index']),
                row['name'],
                muscle,
                short,
                side,
                row['color'],
                kind=row.get('kind', MUSCLE),
                source=row.get('source_name', ''),
            )
        )
    return LabelTable(region, tuple(labels), seg)


def _colours(kinds: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Give each structure, by name, its colour by side.

    That of the package unless another one has it; what is no muscle is paler.
    """
    packaged: dict[str, dict[str, str]] = {}
    for label in (label for region in REGIONS for label in load_label_table(region)):
        packaged.setdefault(label.muscle, {})[label.side] = label.color
    colours: dict[str, dict[str, str]] = {}
    used: set[str] = set()
    for rank, (name, kind) in enumerate(kinds.items()):
        made = {side: _colour(rank, light, kind) for side, light in _LIGHTNESS.items()}
        own = packaged.get(name, {})
        if own and used.isdisjoint(own.values()):
            made |= own
        colours[name] = made
        used.update(made.values())
    return colours


def _colour(rank: int, lightness: float, kind: str) -> str:
    saturation = 0.6 if kind == MUSCLE else 0.2
    rgb = colorsys.hls_to_rgb(rank * _GOLDEN % 1, lightness, saturation)
    return '#' + ''.join(f'{round(255 * value):02X}' for value in rgb)


def _abbreviation(muscle: str) -> str:
    return ''.join(word[:1].upper() + word[1:] for word in muscle.split())


@cache
def _known() -> dict[frozenset[str], Structure]:
    """Give what is known of structures by the words of all their names."""
    found: dict[frozenset[str], Structure] = {}
    for structure, names in _named():
        for name in names:
            found.setdefault(side_and_structure(name)[1], structure)
    return found


def _named() -> Iterator[tuple[Structure, tuple[str, ...]]]:
    for region in REGIONS:
        for label in load_label_table(region):
            names = label.muscle, label.abbreviation, *synonyms().get(label.muscle, ())
            yield Structure(label.muscle, MUSCLE, frozenset({region})), names
    for row in read_rows(Path(str(resources.files('bids_muscle') / 'data/structures.tsv'))):
        name = row['structure']
        regions = frozenset(row['regions'].split())
        yield Structure(name, row['kind'], regions), (name, *synonyms().get(name, ()))
