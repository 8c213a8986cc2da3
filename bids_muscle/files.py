"""Reading small files of a person: sidecars, tables, settings."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

#: No sidecar comes near this size, and no table of a cohort; more would fill the memory of a job.
MAX_BYTES, MAX_TABLE_BYTES = 2**24, 2**28


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
