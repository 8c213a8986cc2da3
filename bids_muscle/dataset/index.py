"""The anatomical images of one participant, with the metadata that they inherit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.image_names import read_labels
from bids_muscle.dataset.names import ENTITIES
from bids_muscle.dataset.scan import Contrast
from bids_muscle.errors import PARSE_ERRORS, MissingInputError, Problem, UsageError
from bids_muscle.files import how_to_fetch, is_folder, read_small
from bids_muscle.tables import number

if TYPE_CHECKING:
    from bids.layout import Entity

_EXTENSIONS = ('.nii', '.nii.gz')
#: Folders inside a participant or session that hold no anatomical images.
_OTHER_DATATYPES = re.compile(r'sub-[^/]+/(?:ses-[^/]+/)?(?!ses-|anat$)[^/.]+')
#: Places of images in the folder of a participant, whatever their names.
_ANAT = re.compile(r'sub-[^/]+/(?:[^/]+/)?anat/[^/]+')
#: Folders that are meant for sessions or anatomical images.
_MEANT = re.compile(r'(?!ses-|anat$)(?i:anat|ses).*')
#: Endings that are meant for images.
_IMAGE = re.compile(r'.*\.nii(?:\.gz)?', re.IGNORECASE)
#: Why images are left alone whose place or name is nearly right.
NOT_A_PLACE = 'is not in a folder that BIDS has (ses-<label>/anat or anat)'
NOT_AN_ENDING = 'does not end in _<suffix>.nii or _<suffix>.nii.gz'
#: Folders in folders of a participant that are looked into: session, anat, one more. A link may
#: lead to a whole disk.
_MOST_FOLDERS = 3
#: A whole number with more digits does not fit into a number of a computer.
_MOST_DIGITS = 300

#: Keys of sidecars whose values are numbers.
_NUMBERS = (
    'EchoTime',
    'MagneticFieldStrength',
    'PhilipsRescaleSlope',
    'PhilipsScaleSlope',
    'SliceThickness',
    'SpacingBetweenSlices',
    'UsePhilipsFloatNotDisplayScaling',
)
#: Labels of ``part-`` as BIDS has them.
_NO_MAGNITUDE = ('phase', 'real', 'imag')

#: By contrast, a pybids query that images of this contrast must fit.
Filters = Mapping[Contrast, Mapping[str, Any]]


@dataclass(frozen=True)
class IndexedImage:
    """One image file of a participant.

    Parameters
    ----------
    path
        In the dataset.
    suffix
        Suffix of the file name.
    entities
        Labels by key (``'sub'``, ``'acq'``), in BIDS order.
    metadata
        Sidecars, merged by the inheritance principle.
    warnings
        Sentences about sidecars that were left out.
    problem
        What is wrong with its name, or None.
    """

    path: Path
    suffix: str
    entities: Mapping[str, str]
    metadata: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True)
class IndexedParticipant:
    """What lies in the folder of a participant.

    Parameters
    ----------
    images
        All NIfTI files under ``anat``, sorted by path; names need not be valid BIDS, but phase,
        real and imaginary images are left out.
    selected
        For each contrast with a filter, the files that fit it.
    stray
        Images and folders of images, relative to the dataset, whose place or ending is not that
        of BIDS, with :data:`NOT_A_PLACE` or :data:`NOT_AN_ENDING`.
    unreadable
        Folders, relative to the dataset, that cannot be listed, and why.
    """

    images: list[IndexedImage]
    selected: dict[Contrast, set[Path]]
    stray: Mapping[str, str]
    unreadable: Mapping[str, str]


def read_filters(path: Path) -> Filters:
    """Read a filter file: JSON with a pybids query by contrast, as in fMRIPrep.

    ``null`` asks for the absence of an entity and ``"*"`` for its presence:
    ``{"water": {"run": 1}, "fat": {"run": 1}, "T2w": {"session": null}}``.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If it is not such JSON.
    """
    try:
        content = json.loads(read_small(path).decode())
    except OSError as error:
        raise MissingInputError(
            f'The filter file {path} cannot be read: {error.strerror}.',
            'Check --bids-filter-file.',
        ) from error
    except PARSE_ERRORS as error:
        raise UsageError(
            f'The filter file {path} is not JSON: {error}.', 'Correct it at that place.'
        ) from error
    contrasts = {str(contrast) for contrast in Contrast}
    names = {name for _, name in ENTITIES} | {'suffix', 'extension', 'datatype'}
    if not isinstance(content, dict) or not all(isinstance(q, dict) for q in content.values()):
        raise UsageError(
            f'The filter file {path} is not an object of objects.',
            'Write it as {"T2w": {"run": 1}}.',
        )
    for contrast, query in content.items():
        unknown = [contrast] if contrast not in contrasts else sorted(set(query) - names)
        if unknown:
            raise UsageError(
                f'The filter file {path} names the unknown {", ".join(unknown)}.',
                f'Contrasts are {", ".join(sorted(contrasts))}; filters are '
                f'{", ".join(sorted(names))}.',
            )
    return {Contrast(contrast): query for contrast, query in content.items()}


def index_participant(
    bids_dir: Path, participant: str, filters: Filters | None = None
) -> IndexedParticipant:
    """Index the anatomical images of one participant.

    pybids reads the names. Its layout, a database, takes 0.1 s per participant whatever is in it,
    and stops on odd sidecars; so the sidecars are merged here, which takes milliseconds.

    Parameters
    ----------
    bids_dir
        The dataset.
    participant
        Label without ``sub-``.
    filters
        From :func:`read_filters`.
    """
    found = _walk(bids_dir, participant)
    said = tuple(f'{name!a} is left out: its name is not UTF-8.' for name in found.unnamed)
    sidecars = _sidecars(bids_dir, found.names)
    stray = dict.fromkeys(found.meant, NOT_A_PLACE)
    contents: dict[str, Mapping[str, Any] | str] = {}
    images = []
    selected: dict[Contrast, set[Path]] = {contrast: set() for contrast in filters or {}}
    for name in found.names:
        entities, path = _entities(name), bids_dir / name
        labels, suffix, problem = read_labels(Path(name))
        if not _is_anatomical(name, entities, named_badly=problem is not None):
            if _IMAGE.fullmatch(name) and not _is_hidden(name):
                stray[name] = NOT_AN_ENDING if _ANAT.fullmatch(name) else NOT_A_PLACE
            continue
        for contrast, query in (filters or {}).items():
            if _fits(entities, query):
                selected[contrast].add(path)
        metadata: dict[str, Any] = {}
        left_out = []
        for sidecar in sidecars:
            if not _applies(sidecar, name):
                continue
            if sidecar not in contents:
                contents[sidecar] = _read_sidecar(bids_dir / sidecar)
            content = contents[sidecar]
            if isinstance(content, str):
                left_out.append(f'The sidecar {sidecar} is left out: {content}.')
            else:
                metadata |= content
        if labels.get('part') not in _NO_MAGNITUDE:
            warnings = (*sorted(left_out), *said)
            images.append(IndexedImage(path, suffix, labels, metadata, warnings, problem))
    images.sort(key=lambda image: image.path)
    return IndexedParticipant(images, selected, stray, found.unreadable)


@cache
def _patterns() -> Mapping[str, Entity]:
    """Return by name what pybids looks for in a file name."""
    from bids.layout import Config

    return dict(Config.load('bids').entities)


@lru_cache(maxsize=4096)
def _entities(name: str) -> Mapping[str, Any]:
    """Return what pybids finds in the name of a file, by the names of its entities."""
    from bids.layout import parse_file_entities

    found: Mapping[str, Any] = parse_file_entities(f'/{name}', _patterns().values())
    return found


def _is_anatomical(name: str, entities: Mapping[str, Any], *, named_badly: bool) -> bool:
    """Return whether a file is an anatomical image, to pybids or by its place alone."""
    if not name.endswith(_EXTENSIONS):
        return False
    if named_badly and _ANAT.fullmatch(name):
        return True
    return (
        entities.get('datatype') == 'anat'
        and entities.get('extension') in _EXTENSIONS
        and not _is_hidden(name)
    )


def _fits(entities: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Return whether a file fits a filter."""
    return all(_has(entities.get(key), key, wanted) for key, wanted in query.items())


def _has(label: Any, key: str, wanted: Any) -> bool:
    """Return whether a label is one of those wanted; an empty list wants nothing in particular."""
    if wanted == '*':
        return label is not None
    options = wanted if isinstance(wanted, list) else [wanted]
    return not options or any(_is(label, key, option) for option in options)


def _is(label: Any, key: str, option: Any) -> bool:
    if option is None or label is None:
        return option is label
    if key == 'extension':
        return bool(label == f'.{str(option).lstrip(".")}')
    try:
        # A number, such as that of a run, is the same with zeros before it.
        return bool(label == _patterns()[key].dtype(option))
    except (TypeError, ValueError, OverflowError):
        return False


@dataclass(frozen=True)
class _Walked:
    """Files of a participant, names that are not UTF-8, folders meant for images, and the rest."""

    names: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    meant: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def _walk(bids_dir: Path, participant: str) -> _Walked:
    """List the files of a participant, through links, but not back.

    Paths are relative to the dataset.
    """
    walked = _Walked()

    def refuse(error: OSError) -> None:
        folder = Path(error.filename).relative_to(bids_dir).as_posix()
        walked.unreadable[folder] = error.strerror or 'unknown error'

    top = bids_dir / f'sub-{participant}'
    for folder, names, files in os.walk(top, onerror=refuse, followlinks=True):
        path = Path(folder)
        relative = path.relative_to(bids_dir).as_posix()
        above = {parent.resolve() for parent in (path, *path.parents)} if names else set()
        walked.unnamed.extend(
            f'{relative}/{name}' for name in (*names, *files) if not _is_utf8(name)
        )
        walked.names.extend(f'{relative}/{name}' for name in files if _is_utf8(name))
        walked.meant.extend(
            f'{relative}/{name}'
            for name in names
            if _is_utf8(name)
            and _MEANT.fullmatch(name)
            and _OTHER_DATATYPES.fullmatch(f'{relative}/{name}')
        )
        names[:] = [
            name
            for name in names
            if relative.count('/') < _MOST_FOLDERS
            and _is_utf8(name)
            and not _OTHER_DATATYPES.fullmatch(f'{relative}/{name}')
            and (path / name).resolve() not in above
        ]
    return walked


def _sidecars(bids_dir: Path, names: Iterable[str]) -> list[str]:
    """Return the sidecars at the root and among some files; those that overrule others last."""
    from bids.utils import natural_sort

    every = [*_root_sidecars(bids_dir, bids_dir.stat().st_mtime_ns), *names]
    every = [name for name in every if name.endswith('.json') and not _is_hidden(name)]
    every = natural_sort(every)[::-1]  # as in pybids, the first of a folder overrules the others
    return sorted(every, key=lambda name: name.count('/'))


@lru_cache(maxsize=2)
def _root_sidecars(bids_dir: Path, _changed_ns: int) -> list[str]:
    with os.scandir(bids_dir) as entries:
        return [
            entry.name
            for entry in entries
            if entry.name.endswith('.json') and not is_folder(entry) and _is_utf8(entry.name)
        ]


def _is_hidden(name: str) -> bool:
    return '/.' in f'/{name}'


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _applies(sidecar: str, image: str) -> bool:
    """Return whether an image inherits from a sidecar: same suffix, no label that it lacks."""
    if not image.startswith(sidecar[: sidecar.rfind('/') + 1]):
        return False
    entities, labels = dict(_entities(sidecar)), _entities(image)
    return (
        entities.pop('extension', None) == '.json'
        and 'suffix' in entities
        and all(labels.get(key) == value for key, value in entities.items())
    )


def _number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f'a number of {len(text)} digits')
    return int(text)


def _read_sidecar(path: Path) -> Mapping[str, Any] | str:
    """Return the content of a sidecar, or why it cannot be used."""
    if fetch := how_to_fetch(path):
        return f'it is a placeholder of git-annex or Git LFS. {fetch.rstrip(".")}'
    try:
        # Editors of Windows write a byte-order mark.
        content = json.loads(read_small(path).decode('utf-8-sig'), parse_int=_number)
        json.dumps(content, ensure_ascii=False).encode()
    except OSError as error:
        return f'it cannot be read ({error.strerror})'
    except UnicodeEncodeError:
        return 'it holds characters that are no text'
    except PARSE_ERRORS as error:
        return f'it is not JSON ({error})'
    if not isinstance(content, dict):
        return 'it is not a JSON object'
    return {key: _plain(key, value) for key, value in content.items() if value is not None}


def _plain(key: str, value: Any) -> Any:
    """Return a value that a program wrote as a list of one, or a number that it wrote as text.

    Examples
    --------
    >>> _plain('EchoTime', ['0.00246']), _plain('BodyPart', ['LSPINE']), _plain('EchoTime', 'x')
    (0.00246, 'LSPINE', 'x')
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    found = number(value) if key in _NUMBERS and isinstance(value, str) else None
    return value if found is None else found
