"""Temporary folders that are swept by the next run where their own was killed.

Who uses a folder holds a lock on it, which ends with the process, on whichever computer it runs.
On a file system that knows no locks nothing is swept.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: A younger folder may not be locked yet.
_YOUNG_S = 60
#: Names that :func:`tempfile.mkdtemp` makes of these two, and hardly anybody else.
_NAME = re.compile(r'bids_muscle-[a-z0-9_]{8}\.tmp')


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder in TMPDIR; it is removed afterwards, or by the next run if this one is killed.

    Yields
    ------
    Path
        The folder, locked by this process.
    """
    folder = Path(tempfile.mkdtemp(prefix='bids_muscle-', suffix='.tmp'))
    with locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep_temporary() -> None:
    """Remove the temporary folders of this user's runs that were killed."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                status = entry.stat(follow_symlinks=False)
                is_own = status.st_uid == os.geteuid() and not status.st_mode & 0o077
                if is_own and time.time() - status.st_mtime > _YOUNG_S:
                    with suppress(OSError), locked_unused(Path(entry.path)):
                        shutil.rmtree(entry.path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, by which others see that it is in use."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks: nobody sweeps there either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_unused(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder that nobody uses.

    Raises
    ------
    OSError
        If it is in use, or is no folder, or its file system knows no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
