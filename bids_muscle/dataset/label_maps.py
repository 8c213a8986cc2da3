"""Label maps in derivatives: their names, what their numbers mean, what they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import SPINE, LabelTable, load_label_table
from bids_muscle.anatomy.levels import disc_of, level_of
from bids_muscle.dataset.corrections import choose_correction, read_correction_facts
from bids_muscle.dataset.names import io_spec, read_entities, sidecar_of
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import (
    PARSE_ERRORS,
    BadDataError,
    BidsMuscleError,
    MissingInputError,
    UnreadableImageError,
)
from bids_muscle.files import read_small
from bids_muscle.tables import MISSING
from bids_muscle.user_tables import read_table

#: A label map that lies farther from its image, or another map, has a word said about it: a share
#: of the smallest voxel edge.
MOST_APART = 0.25
#: Entities that say how a map was made, not of which scan.
_NOT_OF_THE_SCAN = frozenset(('seg', 'desc', 'label', 'space', 'den'))


@dataclass(frozen=True)
class LabelMap:
    """A ``_dseg`` file.

    Parameters
    ----------
    path
        The file.
    entities
        Labels by key, such as ``'sub'`` and ``'seg'``.
    names
        What its lookup table says about each number; empty where there is none.
    """

    path: Path
    entities: Mapping[str, str]
    names: Mapping[int, str]

    @property
    def scan_entities(self) -> dict[str, str]:
        """The entities that say of which scan it is."""
        return {k: v for k, v in self.entities.items() if k not in _NOT_OF_THE_SCAN}

    def codes(self, table: LabelTable) -> dict[int, int]:
        """Return the number in the label table of each number in the map that is a muscle there.

        Without a lookup table the numbers are those of the label table if the map is named as
        bids_muscle names its own.

        Raises
        ------
        MissingInputError
            If nothing says what the numbers mean.
        """
        if not self.names:
            if self.entities.get('seg') == table.segmentation:
                return {label.index: label.index for label in table}
            raise MissingInputError(
                f'The label map {self.path} has no lookup table.',
                f'Add {self.path.name.split(".")[0]}.tsv with the columns index and name in the '
                'same folder.',
            )
        if table.region == SPINE:  # single vertebrae and discs are what the table has as one
            return {number: kind for number, name in self.names.items() if (kind := _kind(name))}
        found = {number: table.find(name) for number, name in self.names.items()}
        return {number: label.index for number, label in found.items() if label}

    def unnamed(self, data: np.ndarray, table: LabelTable) -> list[int]:
        """Return the numbers in the map to which nothing gives a meaning, sorted.

        Parameters
        ----------
        data
            Its numbers, of any shape.
        table
            What they mean where it has no lookup table.
        """
        return sorted(set(np.unique(data).tolist()) - {0, *(self.names or table.by_index)})


def translated(data: np.ndarray, codes: Mapping[int, int]) -> np.ndarray:
    """Bring the numbers of a map to others; those that are not among them become background.

    Parameters
    ----------
    data
        Numbers, of any shape.
    codes
        The other number of each, see :meth:`LabelMap.codes`.

    Returns
    -------
    numpy.ndarray
        int16, of the shape of `data`.
    """
    out = np.zeros(data.shape, dtype=np.int16)
    for code, number in codes.items():
        out[data == code] = number
    return out


def sides_exchanged(labels: np.ndarray, table: LabelTable) -> bool:
    """Whether all muscles of the right lie left of those of the left, as by a wrong lookup table.

    Parameters
    ----------
    labels
        (X, Y, Z) numbers of the label table, in RAS+ order.
    table
        What they mean.

    Examples
    --------
    >>> row = np.array([2, 2, 0, 1, 1])[:, None, None]  # left, right multifidus
    >>> table = load_label_table('lumbar')
    >>> sides_exchanged(row, table), sides_exchanged(row[::-1], table)
    (False, True)
    """
    places = {}
    for number in set(np.unique(labels).tolist()) & table.by_index.keys():
        label, along = table.by_index[number], (labels == number).any(axis=(1, 2))
        places[label.muscle, label.side] = np.flatnonzero(along).mean()
    both = [
        (x, places[muscle, 'left'])
        for (muscle, side), x in places.items()
        if side == 'right' and (muscle, 'left') in places
    ]
    return bool(both) and all(right < left for right, left in both)


def _kind(name: str) -> int | None:
    """Return the number in the table of the spine of a vertebra or disc that a name means."""
    kinds = {label.muscle: label.index for label in load_label_table(SPINE)}
    if level_of(name):
        return kinds['vertebral body']
    return kinds['disc'] if disc_of(name) else kinds.get(name)


def find_label_maps(
    derivatives: Path, seg: str | None = None, *, predicted: bool = False, rater: str = ''
) -> list[LabelMap]:
    """Find the label maps of a derivatives dataset, sorted by path.

    Of one scan and segmentation, a map on the grid of the scan replaces those in another space,
    and a person's correction (``desc-manual``, see
    :func:`~bids_muscle.dataset.corrections.choose_correction`) for the map that it corrects.

    Parameters
    ----------
    derivatives
        Its folder.
    seg
        Value of the ``seg`` entity, or None for all.
    predicted
        Whether to leave out what a person drew or corrected, as ``desc-manual`` or a sidecar with
        ``Manual`` tells.
    rater
        If given, only what this person saved in the browser.

    Raises
    ------
    MissingInputError
        If the folder is not there.
    """
    if not derivatives.is_dir():
        raise MissingInputError(
            f'The folder {derivatives} does not exist.', 'Name a folder with derivatives.'
        )
    groups: dict[tuple[object, ...], list[tuple[Path, dict[str, str]]]] = {}
    for path in sorted(derivatives.glob('sub-*/**/*_dseg.nii*')):
        entities = read_entities(path)
        if seg in (None, entities.get('seg')):
            scan = frozenset(LabelMap(path, entities, {}).scan_entities.items())
            groups.setdefault((scan, entities.get('seg')), []).append((path, entities))
    chosen = []
    for group in groups.values():
        group = _one_of_network(group, predicted=predicted)
        own = [pair for pair in group if 'space' not in pair[1]] or group
        corrections = [fact for path, _ in own if (fact := read_correction_facts(path))]
        if rater:
            kept = [drawn.path for drawn in corrections if drawn.rater == rater]
            chosen += [pair for pair in own if pair[0] in kept]
        elif predicted:
            chosen += [pair for pair in own if not _is_manual(*pair)]
        else:
            counting = choose_correction(corrections)
            chosen += [pair for pair in own if counting and pair[0] == counting.path] or [
                pair for pair in own if pair[0] not in {other.path for other in corrections}
            ]
    return [
        LabelMap(path, entities, read_lookup(path, derivatives))
        for path, entities in sorted(chosen, key=lambda pair: pair[0])
    ]


def _one_of_network(
    group: list[tuple[Path, dict[str, str]]], *, predicted: bool
) -> list[tuple[Path, dict[str, str]]]:
    """Leave out what the network said of a corrected scan, unless this is what is asked for."""
    kept = [each for each in group if each[1].get('desc') == io_spec()['kept']]
    return kept if kept and predicted else [each for each in group if each not in kept]


def _is_manual(path: Path, entities: Mapping[str, str]) -> bool:
    if entities.get('desc', '').startswith('manual'):
        return True
    try:
        return json.loads(read_small(sidecar_of(path))).get('Manual') is True
    except (OSError, *PARSE_ERRORS, AttributeError):
        return False


def candidate_scans(label_map: LabelMap, scans: Iterable[Scan]) -> list[Scan]:
    """Return the scans that a label map may lie on: by their names, and of the same size.

    The names of a scan are its own and those of its images, so a map may be named after the scan
    (``acq-dixon``) or after the image that it was drawn on (``acq-dixonwater``).

    Raises
    ------
    UnreadableImageError
        If an image is not NIfTI.
    """
    wanted = label_map.scan_entities.items()
    shape = _shape(label_map.path)
    found = []
    for scan in scans:
        names = [dict(scan.entities), *(read_entities(image.path) for image in scan.images)]
        of_session = names[0].get('ses') == label_map.entities.get('ses')
        named = any(wanted <= {**each}.items() for each in names)
        if of_session and named and scan.images and _shape(scan.images[0].path) == shape:
            found.append(scan)
    return found


def pair_maps(
    predictions: Sequence[LabelMap], references: Sequence[LabelMap]
) -> tuple[list[tuple[LabelMap, LabelMap]], list[tuple[LabelMap, str]]]:
    """Pair the label maps of two derivatives datasets by their names.

    Participant, session and run must be the same. The ``acq`` label of one may go on where that
    of the other ends (``dixon`` and ``dixonwater``) or be missing; the same label is better.

    Returns
    -------
    pairs
        Prediction and reference, in the order of the references.
    alone
        References without a prediction, each with the reason.
    """
    pairs, alone = [], []
    for reference in references:
        scores = {id(p): _likeness(p.scan_entities, reference.scan_entities) for p in predictions}
        best = max(scores.values(), default=0)
        fitting = [p for p in predictions if scores[id(p)] == best > 0]
        if len(fitting) == 1:
            pairs.append((fitting[0], reference))
        else:
            names = ', '.join(p.path.name for p in fitting)
            alone.append((reference, f'several fit: {names}' if fitting else 'no prediction'))
    return pairs, alone


def _likeness(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    """Return 0 where two maps cannot be of one scan, 2 where all labels are the same, else 1."""
    if {**one} == {**other}:
        return 2
    for key in (one.keys() | other.keys()) - {'acq'}:
        if one.get(key) != other.get(key):
            return 0
    a, b = sorted((one.get('acq', ''), other.get('acq', '')), key=len)
    return int(b.startswith(a))


def _shape(path: Path) -> tuple[int, ...]:
    try:
        return tuple(nib.load(path).shape)  # type: ignore[attr-defined]
    except (OSError, nib.filebasedimages.ImageFileError) as error:
        raise UnreadableImageError(
            f'{path} cannot be read: {error}.', 'Copy or convert it again.'
        ) from error


def read_lookup(path: Path, root: Path) -> dict[int, str]:
    """Read the nearest lookup table that applies to a map (BIDS inheritance).

    Parameters
    ----------
    path
        The map.
    root
        Its dataset.

    Returns
    -------
    dict
        Name, with the side where the table has one, by number; empty without a table.

    Raises
    ------
    BadDataError
        If the table lacks the columns ``index`` and ``name``, or has an index that is no number or
        occurs twice.
    """
    mine = read_entities(path).items()
    folder = path.parent
    while True:
        fitting = [p for p in folder.glob('*dseg.tsv') if read_entities(p).items() <= mine]
        if fitting:
            return _read_names(max(fitting, key=lambda p: len(read_entities(p))))
        if folder == root:
            return {}
        folder = folder.parent


def _read_names(path: Path) -> dict[int, str]:
    try:
        table = read_table(path)
        if table.left_out:
            raise ValueError(' '.join(table.left_out))
        names = {}
        for row in table.rows:
            parts = (row.get('side', MISSING), row.get('hemi', MISSING))
            side = next((part for part in parts if part != MISSING), '')
            names[int(row['index'])] = f'{side} {row["name"]}'.strip()
        if len(names) < len(table.rows):
            raise ValueError('it contains an index twice')
        return names
    except (KeyError, ValueError, BidsMuscleError) as error:
        raise BadDataError(
            f'The lookup table {path} cannot be read: {error!r}.',
            'It needs the columns index (whole numbers) and name.',
        ) from error
