"""Pairs of label maps, opened on one grid with one set of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import REGIONS, UNSIDED, Label, LabelTable, load_label_table
from bids_muscle.anatomy.levels import level_of
from bids_muscle.dataset.label_maps import LabelMap, sides_exchanged, translated
from bids_muscle.errors import BadDataError, GridMismatchError
from bids_muscle.imaging.conform import voxel_sizes
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.tables import name_some

#: Numbers of structures that no label table knows begin here; colours of them, in turn.
FIRST_OTHER = 101
#: More references of people without any prediction than this are counted, not named.
MANY = 3
_COLOURS = ('#BBBBBB', '#66CCEE', '#AA3377', '#CCBB44', '#228833', '#EE6677')


@dataclass(frozen=True)
class Pair:
    """Test and reference of one scan.

    Parameters
    ----------
    table
        The labels that both can have, by their numbers in `test` and `reference`.
    test, reference
        (X, Y, Z) label maps in RAS+ order, 0 where there is none of these labels.
    affine
        (4, 4) of the grid of the reference.
    lacking
        Names of the muscles of the reference that the lookup table of the test does not have.
    unnamed
        Numbers in either map that its lookup table does not have.
    apart_mm
        How far the maps lie from each other as their headers tell.
    """

    table: LabelTable
    test: np.ndarray
    reference: np.ndarray
    affine: np.ndarray
    lacking: tuple[str, ...] = ()
    unnamed: tuple[int, ...] = ()
    apart_mm: float = 0.0

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis."""
        x, y, z = voxel_sizes(self.affine)
        return float(x), float(y), float(z)


def kind_of(name: str) -> str | None:
    """Return what a name in a lookup table means: vertebra, disc, or neither.

    Examples
    --------
    >>> kind_of('L4'), kind_of('L4-L5'), kind_of('multifidus')
    ('vertebra', 'disc', None)
    """
    parts = name.split('-')
    if len(parts) > 2 or not all(map(level_of, parts)):
        return None
    return 'vertebra' if len(parts) == 1 else 'disc'


def scan_columns(entities: Mapping[str, str], stem: str) -> dict[str, str | None]:
    """Return the columns that say of which scan a row is."""
    session = entities.get('ses')
    return {
        'participant_id': f'sub-{entities["sub"]}',
        'session_id': f'ses-{session}' if session else None,
        'scan': stem,
    }


def stem_of(label_map: LabelMap) -> str:
    """Return the name of a label map without suffix and extension."""
    return label_map.path.name.split('.')[0].removesuffix('_dseg')


def leave_out(
    alone: Sequence[tuple[LabelMap, str]], readable: Sequence[LabelMap], left_out: list[str]
) -> None:
    """Say which references have no prediction: by name, but by number if many people have none."""
    people = {label_map.entities['sub'] for label_map in readable}
    others = [label_map for label_map, _ in alone if label_map.entities['sub'] not in people]
    many = len(others) > MANY
    left_out += [
        f'{label_map.path.name}: {why}.'
        for label_map, why in alone
        if not many or label_map.entities['sub'] in people
    ]
    if many:
        n_people = len({label_map.entities['sub'] for label_map in others})
        left_out.append(
            f'{len(others)} label maps of the reference ({n_people} participants) belong to '
            'people without any prediction.'
        )


def unreadable(references: Sequence[LabelMap], wanted: Sequence[LabelMap]) -> list[str]:
    """Say which references name no muscle that is known, while others of the same name do.

    Maps of other structures are called otherwise, and vertebrae and discs have their own tables.
    """
    segs, there = {each.entities.get('seg') for each in wanted}, {each.path for each in wanted}
    return [
        f'{each.path.name}: its lookup table names no known muscle'
        f'{f" ({name_some(each.names.values())})" if each.names else ", or there is none"}.'
        for each in references
        if each.path not in there
        and each.entities.get('seg') in segs
        and not any(map(kind_of, each.names.values()))
    ]


def other_files(
    pairs: Sequence[tuple[LabelMap, LabelMap]], left_out: list[str]
) -> list[tuple[LabelMap, LabelMap]]:
    """Leave out maps that would be compared with themselves, which agree whatever they show.

    In one folder, these are the maps that nobody has corrected.
    """
    other = [pair for pair in pairs if pair[0].path.resolve() != pair[1].path.resolve()]
    if count := len(pairs) - len(other):
        left_out.append(
            f'{count} label maps are prediction and reference at once: nobody has corrected them.'
        )
    return other


def table_of(label_map: LabelMap) -> LabelTable | None:
    """Return the label table that knows most of a map's muscles."""
    tables = [load_label_table(region) for region in REGIONS]
    if not label_map.names:
        seg = label_map.entities.get('seg')
        return next((table for table in tables if table.segmentation == seg), None)
    best = max(tables, key=lambda table: len(label_map.codes(table)))
    return best if label_map.codes(best) else None


def on_one_grid(mine: LabelMap, truth: LabelMap) -> list[nib.Nifti1Image]:
    """Open both maps in RAS+ order.

    Raises
    ------
    GridMismatchError
        If they are not on the same grid, or one of the headers is mirrored. Another origin alone
        is let pass, since some converters set it to zero.
    """
    stored: list[Any] = [nib.load(each.path) for each in (mine, truth)]
    images = [nib.as_closest_canonical(image) for image in stored]
    zooms, other = (voxel_sizes(image.affine) for image in images)
    if images[0].shape != images[1].shape or not np.allclose(zooms, other, rtol=0.02):
        raise GridMismatchError(
            f'{mine.path} and {truth.path} are not on the same grid.',
            'Resample one of them, or segment the scan that the reference was drawn on.',
        )
    orders = [''.join(nib.aff2axcodes(image.affine)) for image in stored]
    if orders[0] != orders[1] and _apart_mm(images) > min(zooms) / 2:
        raise GridMismatchError(
            f'{mine.path} and {truth.path} have the voxel orders {orders[0]} and {orders[1]} and '
            f'lie {_apart_mm(images):.0f} mm apart, so one of the headers is mirrored.',
            'Correct that header, or save the map again with the header of its image.',
        )
    return images


def _apart_mm(images: Sequence[nib.Nifti1Image]) -> float:
    one, other = (image.affine[:3, 3] for image in images)
    return float(np.linalg.norm(one - other))


def read_pair(mine: LabelMap, truth: LabelMap) -> Pair:
    """Open both maps in the numbers of a label table of the package, RAS+ order.

    Structures that this table does not know, but both lookup tables name alike, such as bone and
    disc of Xia 2019, get numbers from :data:`FIRST_OTHER` on.

    Raises
    ------
    BadDataError
        If they have nothing in common, one is interpolated, or the reference outlines nothing of
        it or has its sides exchanged.
    GridMismatchError
        If they are not on the same grid.
    """
    whole_table = table_of(truth)
    assert whole_table is not None  # noqa: S101 - others were left out before
    codes = [dict(label_map.codes(whole_table)) for label_map in (mine, truth)]
    others = [
        {
            name.lower(): k
            for k, name in label_map.names.items()
            if k not in code and k != 0 and kind_of(name) is None
        }
        for label_map, code in zip((mine, truth), codes, strict=True)
    ]
    labels = [
        whole_table.by_index[k] for k in sorted(set(codes[0].values()) & set(codes[1].values()))
    ]
    for place, name in enumerate(sorted(others[0].keys() & others[1].keys() - {'background'})):
        number = FIRST_OTHER + place
        colour = _COLOURS[place % len(_COLOURS)]
        labels.append(Label(number, name, name, name, UNSIDED, colour, kind='unknown'))
        for code, other in zip(codes, others, strict=True):
            code[other[name]] = number
    if not labels:
        raise BadDataError(
            f'the lookup tables of {mine.path} and {truth.path} name no muscle in common.',
            'Correct the names, or remove one of the maps.',
        )
    numbers = {label.index for label in labels}
    images = on_one_grid(mine, truth)
    drawn = [
        whole_numbers(image, each.path) for image, each in zip(images, (mine, truth), strict=True)
    ]
    test, reference = (
        translated(data, {k: v for k, v in code.items() if v in numbers})
        for data, code in zip(drawn, codes, strict=True)
    )
    if not reference.any():
        raise BadDataError(
            f'the reference {truth.path} is empty: it outlines no muscle that both lookup tables '
            'name.',
            'Outline the muscles, or remove the map.',
        )
    table = LabelTable(whole_table.region, tuple(labels), whole_table.segmentation)
    if sides_exchanged(reference, table) and not sides_exchanged(test, table):
        raise BadDataError(
            f'the reference {truth.path} has its sides exchanged: all muscles that its lookup '
            'table calls right lie left of those that it calls left, as its header tells.',
            'Correct the lookup table, or the header.',
        )
    lacking = tuple(
        whole_table.by_index[number].name
        for code, number in truth.codes(whole_table).items()
        if number not in numbers and (drawn[1] == code).any()
    )
    unnamed = [
        number
        for data, each in zip(drawn, (mine, truth), strict=True)
        for number in each.unnamed(data, whole_table)
    ]
    affine = images[1].affine
    return Pair(table, test, reference, affine, lacking, tuple(unnamed), _apart_mm(images))
