"""Fetch a model of others: download or take files, check them, convert them, put them in place."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bids_muscle.dataset.writer import write_json
from bids_muscle.errors import (
    PARSE_ERRORS,
    MissingInputError,
    ModelError,
    OutputError,
    TemporaryError,
    UsageError,
)
from bids_muscle.files import read_small
from bids_muscle.segmentation.external import checksums_beside, convert_external
from bids_muscle.segmentation.registry import (
    CERTIFICATE,
    USER_MODELS,
    Entry,
    certificate,
    registry,
    user_models,
)
from bids_muscle.workflows.download import download, read_listing
from bids_muscle.workflows.unpacking import lay_out

#: In the folder of models: the checksums of the first fetch of each.
PINNED = 'pinned.json'


@dataclass(frozen=True)
class _Source:
    """Where a file is, and what is known of it: from the list of models, or from its record."""

    name: str
    place: str
    sha256: str | None
    bytes: int | None
    md5: str | None = None


def find_entry(name: str) -> Entry:
    """Return a model of the list of those that can be fetched.

    Raises
    ------
    UsageError
        If it is not in it.
    """
    known = registry()
    if name not in known:
        raise UsageError(
            f'The model {name!r} is unknown to fetch.',
            f'Use one of {", ".join(known)}.',
        )
    return known[name]


def describe_model(entry: Entry) -> str:
    """Return what is known of a model that can be fetched, one line each."""
    facts = {
        'Version': entry.version or 'from the record',
        'Kind': entry.kind,
        'Regions': ', '.join(entry.regions),
        'Trained on': entry.trained_on,
        'Licence': entry.license,
        'Citation': entry.citation,
        'Home': entry.home,
        'Source': entry.source,
        'Files': ', '.join(file.name for file in entry.files),
        'SHA-256': 'published'
        if all(file.sha256 for file in entry.files)
        else 'not published: later downloads must match the checksum of the first one',
        'Read in': entry.read_in,
        'Not verified': ', '.join(entry.unverified) or 'nothing',
    }
    lines = [f'{entry.name}', *(f'  {what}: {text}' for what, text in facts.items())]
    return '\n'.join(lines) + '\n'


def fetch(
    name: str,
    *,
    accept_licence: bool,
    files: Sequence[Path] = (),
    say: Callable[[str], None],
) -> Path:
    """Put a model into the folder that ``BIDS_MUSCLE_MODELS`` names, whole or not at all.

    Parameters
    ----------
    name
        Of the list of models that can be fetched.
    accept_licence
        Whether the user accepts its licence.
    files
        Its files, or folders that hold them, where they are not to be downloaded.
    say
        Told what is done.

    Returns
    -------
    Path
        Folder of the model.

    Raises
    ------
    UsageError
        If the name is not known, the licence is not accepted, or no folder is named.
    BidsMuscleError
        If a file cannot be had, is not the expected one, or is no model. An interrupted download
        is kept and continued by the next call; nothing else is left.
    """
    entry = find_entry(name)
    folder = user_models()
    if folder is None:
        raise UsageError(f'{USER_MODELS} is not set.', 'Set it to the folder for models.')
    target = folder / name
    if target.exists():
        return _already_there(entry, target, say)
    if not accept_licence:
        raise UsageError(
            f'The licence of {name} is not accepted: {entry.license}; see {entry.home}.',
            'Read it, and add --accept-licence.',
        )
    _need_packages(entry)
    work = folder / f'.{name}-{entry.version}.part'
    with _alone(folder):
        work.mkdir(exist_ok=True)
        try:
            _fetch(entry, files, work, target, say)
        except (TemporaryError, KeyboardInterrupt):
            with suppress(OSError):
                work.rmdir()  # kept if it holds a download, which the next call continues
            raise
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
    return target


def _fetch(
    entry: Entry, files: Sequence[Path], work: Path, target: Path, say: Callable[[str], None]
) -> None:
    """Do all in a work folder, and rename what it holds in the end."""
    sources, stated = _local(entry, files) if files else _remote(entry)
    version = entry.version or stated.get('version')
    licence = entry.license
    if 'license' in stated:
        licence += f'; the record states {stated["license"]}'
    say(f'{entry.name} {version or ""}, licence: {licence}')
    pinned = _read_pinned(target.parent)
    had = {}
    for source in sources:
        path = Path(source.place)
        if not files:
            path = work / source.name
            if not path.exists():
                download(source.place, path, say)
        had[source.name] = path, _check(source, path, pinned.get(entry.name, {}), entry)
    model = work / 'model'
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    say('Verifying and converting the weights.')
    inner = lay_out(entry, {name: path for name, (path, _) in had.items()}, model)
    digest = convert_external(inner)
    fields = {
        'name': entry.name,
        'version': version,
        'kind': entry.kind,
        'folder': '.' if inner == model else inner.name,
        'license': licence,
        'citation': entry.citation,
        'trained_on': entry.trained_on,
        'home': entry.home,
        'source': 'files' if files else entry.source,
        'files': {
            name: {'sha256': sha, 'bytes': path.stat().st_size}
            for name, (path, sha) in had.items()
        },
        'sha256': digest,
        'beside': checksums_beside(inner),
    }
    write_json(fields, model / CERTIFICATE)
    write_json(
        {**pinned, entry.name: {name: sha for name, (_, sha) in had.items()}},
        target.parent / PINNED,
    )
    model.rename(target)


def _already_there(entry: Entry, target: Path, say: Callable[[str], None]) -> Path:
    known = certificate(target) if target.is_dir() else {}
    if known.get('name') == entry.name and entry.version in (None, known.get('version')):
        say(f'{entry.name} already exists.')
        return target
    raise OutputError(
        f'{target} already exists and is not version {entry.version} of {entry.name}.',
        'Rename or delete that folder first.',
    )


def _need_packages(entry: Entry) -> None:
    """Refuse before a long download what could not be used after it."""
    if entry.kind == 'nnU-Net':
        try:
            import dynamic_network_architectures  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f'{entry.name} is an nnU-Net, whose package is not installed ({error}).',
                "Install it: pip install 'bids_muscle[nnunet]'",
            ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make a folder of models and hold it, so that two processes do not write into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f'{folder} cannot be written: {error.strerror}.',
            f'Set {USER_MODELS} to a writable folder.',
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TemporaryError(
                f'Another process is fetching a model into {folder}.',
                'Run again after it has ended.',
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _local(entry: Entry, paths: Sequence[Path]) -> tuple[list[_Source], dict[str, str]]:
    """Find the files of a model among files and folders of the user."""
    sources = []
    for file in entry.files:
        places = [each / file.name if each.is_dir() else each for each in paths]
        path = next((p for p in places if p.name == file.name and p.is_file()), None)
        if path is None:
            raise MissingInputError(
                f'{file.name} is not among {", ".join(map(str, paths))}.',
                f'Give --from with {", ".join(each.name for each in entry.files)}, or their '
                f'folder. The files are at {entry.home}.',
            )
        sources.append(_Source(file.name, str(path.absolute()), file.sha256, file.bytes))
    return sources, {}


def _remote(entry: Entry) -> tuple[list[_Source], dict[str, str]]:
    """Find the addresses of the files of a model, and what its record states."""
    if entry.record is None:
        return [
            _Source(file.name, f'{entry.folder}/{file.name}', file.sha256, file.bytes)
            for file in entry.files
        ], {}
    record = read_listing(entry.record)
    moved = MissingInputError(
        f'The files of {entry.name} are missing from the record {entry.record}: '
        f'{", ".join(file.name for file in entry.files)}.',
        f'Download them from {entry.home}, and use --from FILE.',
    )
    try:
        listed = {str(listing['key']): listing for listing in record['files']}
        metadata = record.get('metadata', {})
        stated = {key: metadata[key] for key in ('version',) if key in metadata}
        licence = metadata.get('license')
        if licence:
            stated['license'] = licence['id'] if isinstance(licence, dict) else licence
        sources = []
        for file in entry.files:
            listing = listed[file.name]
            if listing['links']['self'].partition(':')[0] != entry.record.partition(':')[0]:
                raise moved
            kind, _, checksum = str(listing.get('checksum', '')).partition(':')
            sources.append(
                _Source(
                    file.name,
                    str(listing['links']['self']),
                    file.sha256,
                    file.bytes or listing.get('size'),
                    checksum if kind == 'md5' else None,
                )
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise moved from error
    return sources, {key: str(value) for key, value in stated.items()}


def _check(source: _Source, path: Path, pinned: Mapping[str, str], entry: Entry) -> str:
    """Compare a file with all that is known of it and return its SHA-256."""
    size = path.stat().st_size
    if source.bytes not in (None, size):
        raise ModelError(
            f'{source.place} is {size} bytes, not {source.bytes}.',
            f'Download it again from {entry.home}.',
        )
    sha256 = _digest(path, 'sha256')
    for checksum, expected, where in (
        (_digest(path, 'md5') if source.md5 else '', source.md5, 'in its record'),
        (sha256, source.sha256, 'in the list of models'),
        (sha256, pinned.get(source.name), f'at the first download ({PINNED})'),
    ):
        if expected and checksum != expected:
            raise ModelError(
                f'The checksum of {source.place} is {checksum}, not {expected} as {where}: the '
                'file is damaged or was replaced.',
                f'Run the same command again. If it fails again, ask at {entry.home}; to trust '
                f'the new file, remove {entry.name} from {PINNED}.',
            )
    return sha256


def _digest(path: Path, kind: str) -> str:
    with path.open('rb') as stream:
        new = partial(hashlib.new, kind, usedforsecurity=False)
        return hashlib.file_digest(stream, new).hexdigest()


def _read_pinned(folder: Path) -> dict[str, Any]:
    path = folder / PINNED
    if not path.exists():
        return {}
    try:
        content = json.loads(read_small(path))
        return {name: dict(sums) for name, sums in content.items()}
    except (OSError, AttributeError, TypeError, *PARSE_ERRORS) as error:
        raise ModelError(
            f'{path} cannot be read: {error}.',
            'Correct it, or delete it to trust the next download.',
        ) from error
