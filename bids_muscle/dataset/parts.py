"""Which scans of a session show parts of one body, and which repeat each other.

Scans of one session, region and contrast are parts where their extents along the spine overlap by
at most half of the shorter one; those with another ``chunk`` always are. Scans at one place are
repeats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from nibabel.affines import apply_affine

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.names import ENTITIES
from bids_muscle.dataset.scan import DIXON, Scan
from bids_muscle.errors import BadDataError, BidsMuscleError, Problem
from bids_muscle.imaging.conform import VoxelGrid, read_grid, reconcile_grids

#: Two scans are at one place where they share more than this of the shorter one along the spine.
SAME_PLACE = 0.5
#: What the joined scan is called, behind its ``acq``.
JOINED = 'joined'

#: The scans at each place, from superior to inferior.
_Places = tuple[tuple[Scan, ...], ...]
#: A scan and its lowest and highest place along the spine, if it is known.
_Spanned = tuple[Scan, tuple[float, float] | None]


@dataclass(frozen=True)
class PartSet:
    """Scans that are parts of one body.

    Parameters
    ----------
    scan
        The joined scan: its name, region and suffix, without images.
    places
        The scans at each place, from superior to inferior; several at one place repeat each other.
    """

    scan: Scan
    places: _Places

    @property
    def members(self) -> tuple[Scan, ...]:
        """All its scans."""
        return tuple(scan for place in self.places for scan in place)


def find_part_sets(scans: Sequence[Scan]) -> list[PartSet]:
    """Find the parts among the scans of one participant.

    Scans that differ in nothing but ``chunk`` and ``run`` are looked at first, then those of other
    names that are alone at their place: ``acq-upper`` and ``acq-lower``.

    Parameters
    ----------
    scans
        All scans of a participant.

    Returns
    -------
    list of PartSet
        Sorted by name.
    """
    families: dict[Hashable, list[Scan]] = defaultdict(list)
    for scan in scans:
        if scan.region not in (None, SPINE):
            named = tuple(pair for pair in scan.entities if pair[0] not in ('chunk', 'run'))
            families[scan.region, scan.suffix, named].append(scan)
    pools: dict[Hashable, list[Scan]] = defaultdict(list)
    part_sets: list[_Places] = []
    for family in families.values():
        sets = _split(family)
        part_sets += sets
        for scan in family if not sets else ():
            # What is wrong with a scan may be that nobody knows what it shows.
            if scan.problem is None:
                kind = scan.fat_source or scan.images[0].contrast
                session = scan.session, scan.region, scan.suffix
                pools[*session, kind, scan.fat_suppressed].append(scan)
    part_sets += [places for pool in pools.values() for places in _split(pool)]
    taken = {scan.name for scan in scans}
    return sorted(
        (PartSet(_joined(places, taken), places) for places in part_sets),
        key=lambda each: each.scan.name,
    )


def check_places(parts: Iterable[Scan]) -> Problem | None:
    """Return why parts cannot be put together by their headers, or None."""
    spans = []
    for scan in parts:
        grid = _grid(scan)
        if grid is None or not grid.located:
            return BadDataError(
                f'The header of {scan.name} has no position, so it cannot be joined '
                'with the other parts.',
                'Convert the images again from DICOM, with their positions.',
            ).problem
        spans.append((scan, _span(grid)))
    for number, (scan, span) in enumerate(spans):
        for other, other_span in spans[number + 1 :]:
            if _shared(span, other_span) > SAME_PLACE:
                return BadDataError(
                    f'{scan.name} and {other.name} are named as parts of one body, but have the '
                    'same position in their headers.',
                    'Correct the positions in the headers, or the chunk labels in the names.',
                ).problem
    return None


def _places(scans: Sequence[Scan]) -> list[list[Scan]]:
    """Group scans by their place, from superior to inferior."""
    places: list[list[_Spanned]] = []
    for scan in sorted(scans, key=lambda each: each.name):
        grid = _grid(scan)
        span = _span(grid) if grid and grid.located else None
        for place in places:
            if any(_at_one_place((scan, span), other) for other in place):
                place.append((scan, span))
                break
        else:
            places.append([(scan, span)])
    places.sort(key=lambda place: next(-sum(span) if span else 0.0 for _, span in place))
    return [[scan for scan, _ in place] for place in places]


def _at_one_place(one: _Spanned, other: _Spanned) -> bool:
    chunks = {dict(scan.entities).get('chunk') for scan, _ in (one, other)}
    if None not in chunks:
        return len(chunks) == 1
    # Where a header does not say where a scan lies, nothing says that it is another part.
    return one[1] is None or other[1] is None or _shared(one[1], other[1]) > SAME_PLACE


def _split(scans: Sequence[Scan]) -> list[_Places]:
    """Return the sets of parts among scans that would else be repeats.

    One of each repetition of all parts, or one of all scans where only some parts were repeated.
    """
    places = _places(scans) if len(scans) > 1 else []
    if len(places) < 2:
        return []
    if len({len(place) for place in places}) > 1:
        return [tuple(map(tuple, places))]
    ordered = [sorted(place, key=_without_chunk) for place in places]
    return [tuple((part,) for part in parts) for parts in zip(*ordered, strict=True)]


def _without_chunk(scan: Scan) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in scan.entities if pair[0] != 'chunk')


def _joined(places: _Places, taken: set[str]) -> Scan:
    """Return the scan that parts make together, with the labels that all of them have."""
    first, *others = (scan for place in places for scan in place)
    labels = {
        key: label
        for key, label in first.entities
        if key != 'chunk' and all(dict(scan.entities).get(key) == label for scan in others)
    }
    labels['acq'] = labels.get('acq', _kind(first)) + JOINED
    run = 1
    while True:
        entities = tuple((key, labels[key]) for key, _ in ENTITIES if key in labels)
        scan = Scan(entities, first.suffix, first.region, (), seg=first.seg)
        if scan.name not in taken:
            taken.add(scan.name)
            return scan
        run += 1
        labels['run'] = str(run)


def _kind(scan: Scan) -> str:
    """Return what the ``acq`` of every scan of this kind ends with, or begins and ends with."""
    if scan.images and scan.images[0].contrast not in DIXON:
        return str(scan.images[0].contrast)
    return 'dixon' if scan.suffix == 'T1w' else f'{scan.suffix}dixon'


def _grid(scan: Scan) -> VoxelGrid | None:
    """Return the grid of a scan, of whose images one may have lost its position; None for none."""
    paths = [*(image.path for image in scan.images), *scan.echoes]
    try:
        grids = {path.name: read_grid(path) for path in paths}
        affine, _ = reconcile_grids(grids)
    except (BidsMuscleError, ValueError):
        return None
    located = any(grid.located for grid in grids.values())
    return replace(next(iter(grids.values())), affine=affine, located=located)


def _span(grid: VoxelGrid) -> tuple[float, float]:
    """Return the lowest and the highest place along the spine, mm, in the middle of the image."""
    axis = int(np.argmax(np.abs(grid.affine[2, :3])))
    ends = np.array([(np.array(grid.shape[:3]) - 1) / 2] * 2)
    ends[:, axis] = -0.5, grid.shape[axis] - 0.5
    low, high = sorted(apply_affine(grid.affine, ends)[:, 2].tolist())
    return low, high


def _shared(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return what two spans share, as a part of the shorter one.

    Examples
    --------
    >>> _shared((0, 100), (80, 200)), _shared((0, 10), (20, 30))
    (0.2, 0.0)
    """
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return max(shared, 0.0) / min(high - low for low, high in (one, other))
