"""What pybids knows about the anatomical images of one participant."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle.dataset.image_names import read_labels
from bids_muscle.dataset.names import ENTITIES
from bids_muscle.dataset.scan import Contrast
from bids_muscle.errors import PARSE_ERRORS, MissingInputError, Problem, UsageError
from bids_muscle.files import how_to_fetch, read_small

if TYPE_CHECKING:
    from bids import BIDSLayout

_EXTENSIONS = ['.nii', '.nii.gz']
#: Folders inside a participant or session that hold no anatomical images.
_OTHER_DATATYPES = re.compile(r'^/sub-[^/]+/(?:ses-[^/]+/)?(?!ses-|anat$)[^/.]+$')
#: A whole number with more digits does not fit into a number of a computer.
_MOST_DIGITS = 300
#: The keys of a sidecar that pybids takes for parts of the file name.
_NAME_KEYS = frozenset(name for _, name in ENTITIES) | {'suffix', 'extension', 'datatype'}

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
    known = {str(contrast) for contrast in Contrast}
    names = {name for _, name in ENTITIES} | {'suffix', 'extension', 'datatype'}
    if not isinstance(content, dict) or not all(isinstance(q, dict) for q in content.values()):
        raise UsageError(
            f'The filter file {path} is not an object of objects.',
            'Write it as {"T2w": {"run": 1}}.',
        )
    for contrast, query in content.items():
        unknown = [contrast] if contrast not in known else sorted(set(query) - names)
        if unknown:
            raise UsageError(
                f'The filter file {path} names the unknown {", ".join(unknown)}.',
                f'Contrasts are {", ".join(sorted(known))}; filters are '
                f'{", ".join(sorted(names))}.',
            )
    return {Contrast(contrast): query for contrast, query in content.items()}


def index_participant(
    bids_dir: Path, participant: str, filters: Filters | None = None
) -> tuple[list[IndexedImage], dict[Contrast, set[Path]]]:
    """Index the anatomical images of one participant with pybids.

    pybids walks through the whole root folder even where it is told to ignore it, 0.9 s with 5,000
    participants; so it is shown a folder of links to one participant and the sidecars at the root,
    0.1 s whatever the size of the cohort. The index lives in memory.

    Parameters
    ----------
    bids_dir
        The dataset.
    participant
        Label without ``sub-``.
    filters
        From :func:`read_filters`.

    Returns
    -------
    images
        All NIfTI files under ``anat``, sorted by path; names need not be valid BIDS, but phase,
        real and imaginary images are left out.
    selected
        For each contrast with a filter, the files that fit it.
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    sidecars, loops, unnamed = _walk(bids_dir, participant)
    broken = _broken_sidecars(bids_dir, sidecars)
    said = tuple(f'{name!a} is left out: its name is not UTF-8.' for name in unnamed)
    with tempfile.TemporaryDirectory(prefix='bids_muscle-') as folder:
        view = Path(folder)
        for name in (f'sub-{participant}', *_root_sidecars(bids_dir)):
            if name not in broken:
                (view / name).symlink_to((bids_dir / name).absolute())
        hidden = (re.compile(f'^/{re.escape(name)}$') for name in (*broken, *loops, *unnamed))
        ignore = [_OTHER_DATATYPES, *hidden]
        layout = BIDSLayout(view, validate=False, indexer=BIDSLayoutIndexer(ignore=ignore))
        images = [
            _read_image(file, bids_dir, broken)
            for file in layout.get(datatype='anat', extension=_EXTENSIONS)
        ]
        selected = {
            contrast: {bids_dir / file.relpath for file in _query(layout, query)}
            for contrast, query in (filters or {}).items()
        }
        layout.connection_manager.session.close()
    images += _unindexed(bids_dir, participant, {image.path for image in images})
    magnitudes = [
        replace(image, warnings=(*image.warnings, *said))
        for image in images
        if image.entities.get('part') not in _NO_MAGNITUDE
    ]
    return sorted(magnitudes, key=lambda image: image.path), selected


def _query(layout: BIDSLayout, query: Mapping[str, Any]) -> list[Any]:
    from bids.layout import Query

    words = {None: Query.NONE, '*': Query.ANY}
    plain = {
        key: words.get(value, value) if not isinstance(value, list) else value
        for key, value in {'datatype': 'anat', 'extension': _EXTENSIONS, **query}.items()
    }
    # An entity that no file has is unknown to this index, but not wrong.
    found: list[Any] = layout.get(invalid_filters='allow', **plain)
    return found


def _read_image(file: Any, bids_dir: Path, broken: Mapping[str, str]) -> IndexedImage:
    relative = Path(file.relpath)
    labels, suffix, problem = read_labels(relative)
    return IndexedImage(
        path=bids_dir / relative,
        suffix=suffix,
        entities=labels,
        metadata=dict(file.get_metadata()),
        problem=problem,
        warnings=tuple(
            f'The sidecar {name} is left out: {why}.'
            for name, why in broken.items()
            if _applies(Path(name), relative)
        ),
    )


def _unindexed(bids_dir: Path, participant: str, indexed: set[Path]) -> list[IndexedImage]:
    """Find images that pybids passes over for their names, such as ``ses-2019.01``."""
    folder = bids_dir / f'sub-{participant}'
    found = []
    for path in (*folder.glob('anat/*.nii*'), *folder.glob('*/anat/*.nii*')):
        labels, suffix, problem = read_labels(path.relative_to(bids_dir))
        if (
            path not in indexed
            and problem
            and _is_utf8(path.name)
            and path.name.endswith(tuple(_EXTENSIONS))
        ):
            found.append(IndexedImage(path, suffix, labels, {}, problem=problem))
    return found


def _root_sidecars(bids_dir: Path) -> list[str]:
    with os.scandir(bids_dir) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.endswith('.json') and not entry.is_dir() and _is_utf8(entry.name)
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(bids_dir: Path, participant: str) -> tuple[list[str], list[str], list[str]]:
    """Return the sidecars of a participant, links that lead back, and names that are not UTF-8.

    As pybids does, this goes through links. Paths are relative to the dataset.
    """
    sidecars, loops, unnamed = [], [], []
    top = bids_dir / f'sub-{participant}'
    for folder, names, files in os.walk(top, followlinks=True):
        place = Path(folder)
        above = {parent.resolve() for parent in (place, *place.parents)}
        back = [name for name in names if (place / name).resolve() in above]
        odd = [name for name in (*names, *files) if not _is_utf8(name)]
        names[:] = [name for name in names if name not in (*back, *odd)]
        unnamed += [(place / name).relative_to(bids_dir).as_posix() for name in odd]
        loops += [(place / name).relative_to(bids_dir).as_posix() for name in back]
        sidecars += [
            (place / name).relative_to(bids_dir).as_posix()
            for name in files
            if name.endswith('.json') and name not in odd
        ]
    return sidecars, loops, unnamed


def _broken_sidecars(bids_dir: Path, sidecars: Sequence[str]) -> dict[str, str]:
    """Find sidecars on which pybids would stop, and why, by path relative to the dataset."""
    names = sorted([*_root_sidecars(bids_dir), *sidecars])
    reasons = {name: _why_broken(bids_dir / name) for name in names}
    return {name: why for name, why in reasons.items() if why}


def _number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f'a number of {len(text)} digits')
    return int(text)


def _why_broken(path: Path) -> str | None:
    if fetch := how_to_fetch(path):
        return f'it is a placeholder of git-annex or Git LFS. {fetch.rstrip(".")}'
    try:
        content = json.loads(read_small(path).decode(), parse_int=_number)
        json.dumps(content, ensure_ascii=False).encode()
    except OSError as error:
        return f'it cannot be read ({error.strerror})'
    except UnicodeEncodeError:
        return 'it holds characters that are no text'
    except PARSE_ERRORS as error:
        return f'it is not JSON ({error})'
    if not isinstance(content, dict):
        return 'it is not a JSON object'
    # pybids takes such keys for entities and stops where they contradict the file name.
    intended = content.get('IntendedFor', [])
    intended = intended if isinstance(intended, list) else [intended]
    if not all(isinstance(name, str) for name in intended):
        return 'its IntendedFor is not a path'
    clashes = sorted(_NAME_KEYS & set(content))
    return f'it defines {", ".join(clashes)}, which belongs to file names' if clashes else None


def _applies(sidecar: Path, image: Path) -> bool:
    """Whether an image inherits from a sidecar: same suffix, no label that the image lacks."""
    sidecar_parts = sidecar.name.removesuffix('.json').split('_')
    image_parts = image.name.split('.')[0].split('_')
    return (
        image.is_relative_to(sidecar.parent)
        and sidecar_parts[-1] == image_parts[-1]
        and set(sidecar_parts) <= set(image_parts)
    )
