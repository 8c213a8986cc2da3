"""Leases of GPUs that hold among all runs on one host."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from bids_muscle.engine.resources import gpu_ids

#: Not TMPDIR: on clusters each job has its own, and all jobs must meet.
_FOLDER = Path('/tmp')  # noqa: S108 - nothing is written into the files


@dataclass(frozen=True)
class Lease:
    """A GPU that is held until it is given back, or until this process ends, however it ends.

    Parameters
    ----------
    device
        Such as ``'cuda:0'``.
    descriptor
        Open file that carries the lock; None where no lock was possible.
    """

    device: str
    descriptor: int | None

    def give_back(self) -> None:
        """Let others have the GPU."""
        if self.descriptor is not None:
            os.close(self.descriptor)


def lease_gpu(device: str) -> Lease | None:
    """Lease a GPU by locking a file that is named after the device itself.

    Where the file cannot be opened, as in a container without a writable ``/tmp``, it is for the
    scheduler alone to tell jobs apart, and the lease is given.

    Parameters
    ----------
    device
        Such as ``'cuda:0'``, counted among the visible ones.

    Returns
    -------
    Lease or None
        None if somebody else holds it.
    """
    index = int(device.removeprefix('cuda:'))
    # An index is another GPU in each job; the id is the same for all.
    name = gpu_ids()[index] if index < len(gpu_ids()) else str(index)
    try:
        descriptor = _open(_FOLDER / f'bids_muscle-gpu-{name}.lock')
    except OSError:
        return Lease(device, None)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return Lease(device, None)
    return Lease(device, descriptor)


def _open(path: Path) -> int:
    """Open a file to lock it, of whomever it is; never one that a link leads to."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        # A pipe under this name must not make the job wait.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, 'not a regular file', str(path)) from None
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
