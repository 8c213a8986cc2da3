"""The folder of intermediate files: Nipype unpickles from it, so nobody else may write there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bids_muscle.errors import OutputError
from bids_muscle.temporary import sweep_temporary, temporary_folder

#: Name of the graph, and of its folder in the work folder.
WORKFLOW = 'bids_muscle_wf'


@contextmanager
def work_folder(folder: Path | None) -> Iterator[Path]:
    """Give the folder of intermediate files; a temporary one is removed afterwards.

    Parameters
    ----------
    folder
        That of ``--work-dir``, or None for a temporary one.

    Raises
    ------
    OutputError
        If it cannot be made, or if somebody else may write where the graph lies.
    """
    if folder is None:
        sweep_temporary()
        with temporary_folder() as temporary:
            yield temporary
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / WORKFLOW
        own.mkdir(mode=0o700, exist_ok=True)
        status = own.lstat()
    except OSError as error:
        raise OutputError(
            f'The work folder {folder} cannot be made: {error.strerror}.',
            'Name a folder that can be written with --work-dir.',
        ) from error
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or writable:
        raise OutputError(
            f'The work folder {own} can be written by somebody else, who could run programs '
            'through it.',
            f'Remove it, make it yours alone (chmod 700 {own}), or name another --work-dir.',
        )
    yield folder
