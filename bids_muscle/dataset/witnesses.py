"""Name and sidecar as two witnesses of what an image of a Dixon scan shows, scan by scan."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bids_muscle.dataset.contrasts import Classified, echo_and_field, echo_phase
from bids_muscle.dataset.index import IndexedImage
from bids_muscle.dataset.names import ENTITIES
from bids_muscle.dataset.scan import DIXON, Contrast
from bids_muscle.errors import BadDataError, BidsMuscleError, GridMismatchError
from bids_muscle.imaging.conform import read_grid, reconcile_grids
from bids_muscle.imaging.dixon import fat_source

Entities = tuple[tuple[str, str], ...]
_ORDER = [key for key, _ in ENTITIES]
#: Images of one Dixon scan that are acquired one after the other are no further apart, s.
LONGEST_S = 600.0
_TIME = re.compile(r'(\d{1,2}):?(\d\d):?(\d\d(?:\.\d*)?)?')
#: How messages call the contrasts whose names are one word in file names.
WORDS = {
    Contrast.IN_PHASE: 'in-phase',
    Contrast.OPPOSED_PHASE: 'opposed-phase',
    Contrast.FAT_FRACTION: 'fat fraction',
}


@dataclass
class ImageGroup:
    """Images that belong to one scan.

    Parameters
    ----------
    members
        Images, each with what it shows.
    unusable
        Echoes of which nothing can be made, and why.
    echoes
        All echoes.
    remarks
        Sentences about which witness is believed.
    """

    members: list[tuple[Classified, IndexedImage]] = field(default_factory=list)
    unusable: list[tuple[IndexedImage, BadDataError]] = field(default_factory=list)
    echoes: list[IndexedImage] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def contrasts(self) -> list[Contrast]:
        """What the images show."""
        return [found.contrast for found, _ in self.members if found.contrast]

    @property
    def images(self) -> list[IndexedImage]:
        """Every image of it."""
        used = [image for _, image in self.members] + [image for image, _ in self.unusable]
        return used + [image for image in self.echoes if image not in used]


def settle(group: ImageGroup) -> None:
    """Decide between name and sidecar where they contradict each other, and say it.

    The witness that the contrast rules read first is believed, unless two images of the scan would
    be the same by it and not by the other: one sidecar for all images says nothing of each.
    """
    first, second = (
        [match.contrast for match, _ in group.members],
        [match.other or match.contrast for match, _ in group.members],
    )
    if first != second:
        turned = len(set(first)) < len(first) and len(set(second)) == len(second)
        group.remarks += [
            _contradiction(match, image, turned=turned)
            for match, image in group.members
            if match.other
        ]
        if turned:
            group.members = [
                (replace(match, contrast=match.other or match.contrast), image)
                for match, image in group.members
            ]
    _settle_echo_times(group)


def _contradiction(match: Classified, image: IndexedImage, *, turned: bool) -> str:
    sources = {match.source: match.contrast, match.other_source: match.other}
    said = ' and its '.join(f'{source} {word(contrast)}' for source, contrast in sources.items())
    if turned:
        believed = (
            f'The {match.other_source} is used, because by the {match.source} two images of the '
            'scan would have the same contrast.'
        )
    elif match.source == 'name':
        believed = 'The name is used, because the contrast rules prefer it.'
    else:
        believed = f'The {match.source} is used, because the scanner wrote it.'
    return f'{image.path.name} contradicts its sidecar: its {said}. {believed} Correct one.'


def word(contrast: Contrast | None) -> str:
    """Return how messages call a contrast."""
    return WORDS.get(contrast, str(contrast)) if contrast else 'nothing'


def _settle_echo_times(group: ImageGroup) -> None:
    """Swap in- and opposed-phase where both echo times contradict both names.

    Images that the scanner computed from several echoes often share an echo time; that tells
    nothing.
    """
    pair = {
        match.contrast: image
        for match, image in group.members
        if match.source == 'name' and image not in group.echoes
    }
    phases = (Contrast.IN_PHASE, Contrast.OPPOSED_PHASE)
    if not all(contrast in pair for contrast in phases):
        return
    if [_phase(pair[contrast].metadata) for contrast in phases] != ['opposed', 'in']:
        return
    exchanged: dict[Contrast | None, Contrast] = dict(zip(phases, reversed(phases), strict=True))
    group.members = [
        (
            replace(match, contrast=exchanged.get(match.contrast, match.contrast)),
            image,
        )
        for match, image in group.members
    ]
    group.remarks.append(
        f'By their EchoTime {pair[phases[0]].path.name} is the opposed-phase and '
        f'{pair[phases[1]].path.name} the in-phase image, against their names. The echo times are '
        'used, because the scanner wrote them. Correct the names or the sidecars.'
    )


def _phase(metadata: Mapping[str, Any]) -> str | None:
    try:
        return echo_phase(*echo_and_field(metadata))
    except BadDataError:
        return None


def _acquisitions(
    groups: Mapping[Entities, ImageGroup], keys: Sequence[Entities]
) -> list[list[Entities]]:
    """Put groups together whose images may be of one acquisition: one grid, about one time."""
    found: list[list[Entities]] = []
    for key in keys:
        image = groups[key].members[0][1]
        with_it = (each for each in found if _may_be_one(groups[each[0]].members[0][1], image))
        if (member := next(with_it, None)) is not None:
            member.append(key)
        else:
            found.append([key])
    return found


def _may_be_one(one: IndexedImage, other: IndexedImage) -> bool:
    """Return whether nothing says that two images are of different acquisitions."""
    first_s, second_s = (
        seconds_of(image.metadata.get('AcquisitionTime')) for image in (one, other)
    )
    if first_s and second_s and abs(first_s - second_s) > LONGEST_S:
        return False
    try:
        reconcile_grids({image.path.name: read_grid(image.path) for image in (one, other)})
    except GridMismatchError:
        return False
    except BidsMuscleError:
        return True  # it is said where the scan is made
    return True


def seconds_of(time: object) -> float | None:
    """Return an AcquisitionTime in seconds after midnight; None where it tells nothing.

    Midnight is what programs that remove names leave.

    Examples
    --------
    >>> seconds_of('10:01:02.5'), seconds_of('100102'), seconds_of('00:00:00'), seconds_of(None)
    (36062.5, 36062.0, None, None)
    """
    match = _TIME.fullmatch(time) if isinstance(time, str) else None
    if not match:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds or None


def join_partners(groups: dict[Entities, ImageGroup]) -> None:
    """Join lone images of a Dixon scan that only the sidecars know, whatever their labels.

    Converters number what they cannot name: water is ``run-1`` and fat ``run-2``. That is done
    where a folder has each image of one acquisition once.
    """
    places: dict[Any, list[Entities]] = defaultdict(list)
    for entities, group in groups.items():
        if group.members and all(
            found.source != 'name' and not found.other and found.contrast in DIXON
            for found, _ in group.members
        ):
            image = group.members[0][1]
            places[image.path.parent, image.suffix].append(entities)
    for keys in (each for found in places.values() for each in _acquisitions(groups, found)):
        contrasts = [contrast for key in keys for contrast in groups[key].contrasts]
        lone = any(fat_source(groups[key].contrasts) is None for key in keys)
        shared = tuple(pair for pair in keys[0] if all(pair in key for key in keys))
        if not any(key == 'acq' for key, _ in shared):
            shared = tuple(
                sorted((*shared, ('acq', 'dixon')), key=lambda pair: _ORDER.index(pair[0]))
            )
        if len(keys) > 1 and lone and len(set(contrasts)) == len(contrasts):
            if shared in groups and shared not in keys:
                continue
            parts = [groups.pop(key) for key in keys]
            groups[shared] = ImageGroup(members=[pair for part in parts for pair in part.members])
