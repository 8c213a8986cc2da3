"""Reading files of a person: small ones, and those whose content is elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

#: No sidecar comes near this size, and no table of a cohort; more would fill the memory of a job.
MAX_BYTES, MAX_TABLE_BYTES = 2**24, 2**28

_ANNEX = '.git/annex/objects'
#: First characters of the pointer files that replace the content, and what fetches it.
_NOTES = {b'/annex/objects/': 'datalad get', b'version https://git-lfs': 'git lfs pull --include'}

#: What to do about a link to nothing.
RESTORE = (
    'Restore what is linked. A container sees mounted folders only: mount that folder, too, '
    'at the same path.'
)


def read_small(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file of limited size.

    Parameters
    ----------
    path
        The file.
    max_bytes
        Largest size to be read.

    Raises
    ------
    OSError
        If it cannot be read, is larger, or is a pipe, a socket or a device, on which a read could
        wait for ever.
    """
    # Not opened before it is known: opening a pipe waits, and a device may act on it.
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, 'not a regular file', str(path))
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f'larger than {max_bytes // 2**20} MB', str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, 'rb') as stream:
        return stream.read(max_bytes)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry of a folder is a folder; a link to itself is none."""
    with suppress(OSError):
        return entry.is_dir()
    return False


def how_to_fetch(path: Path) -> str | None:
    """Return what to do about a file whose content is elsewhere, or None where it is here.

    git-annex (DataLad) leaves a link to nothing or a note, Git LFS a note.

    Parameters
    ----------
    path
        A file, or a link to nothing.
    """
    if target := leads_to(path):
        return _sentence('datalad get', path) if _ANNEX in target else None
    try:
        if not path.is_file():
            return None
        with path.open('rb') as stream:
            start = stream.read(64)
    except OSError:
        return None
    commands = (command for note, command in _NOTES.items() if start.startswith(note))
    return next((_sentence(command, path) for command in commands), None)


def leads_to(path: Path) -> str | None:
    """Return where a link leads of which nothing is there, else None.

    Parameters
    ----------
    path
        A file, a link, or nothing.
    """
    with suppress(OSError):
        if path.is_symlink() and not path.exists():
            return path.readlink().as_posix()
    return None


def _sentence(command: str, path: Path) -> str:
    return f'Its content is not on this computer. Fetch it: {command} {path.name}.'
