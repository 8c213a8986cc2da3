"""The log of a run, ``logs/run-<time>.log``: a line for each event, with the counts so far."""

from __future__ import annotations

import fcntl
import os
import shlex
import socket
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TextIO

from bids_muscle import __version__

#: How the last line of a run ends that came to its end.
ENDED = 'ended'
#: The end of a log is enough to find its last line.
_TAIL_BYTES = 2**16


class RunLog:
    """A text file that grows; where it cannot be written, a run goes on without it.

    It is locked while the run lives, so that a log without an end can be distinguished from one
    that still grows.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path: Path | None = None
        self._stream: TextIO | None = None
        try:
            folder = output_dir / 'logs'
            folder.mkdir(parents=True, exist_ok=True)
            self.path, self._stream = _open_new(folder)
        except OSError as error:
            self._give_up(error)
        else:
            _lock(self._stream, fcntl.LOCK_EX)
            where = f'process {os.getpid()} on {socket.gethostname()}'
            self.write(f'bids_muscle {__version__}, {where}: {shlex.join(sys.argv)}')

    def write(self, text: str) -> None:
        """Add a line with the time of the day before it."""
        if self._stream is None:
            return
        try:
            line = ' '.join(text.split())
            self._stream.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {line}\n')
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file, which ends its lock."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._stream = None
        print(
            f'bids_muscle: The log of the run cannot be written: {error.strerror}. '
            'The run goes on without it.',
            file=sys.stderr,
        )


def _open_new(folder: Path) -> tuple[Path, TextIO]:
    """Open a file that nobody has; jobs of an array start in the same second."""
    stamp = time.strftime('%Y%m%dT%H%M%S')
    for number in count(1):
        path = folder / f'run-{stamp}{f"-{number}" if number > 1 else ""}.log'
        try:
            return path, path.open('x', encoding='utf-8', errors='backslashreplace')
        except FileExistsError:
            continue
    raise AssertionError  # count() does not end


def _lock(stream: TextIO, kind: int) -> bool:
    """Lock a file, and say whether nobody else has; True where the file system knows no locks."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@dataclass(frozen=True)
class LogState:
    """What a log says of its run.

    Parameters
    ----------
    path
        The log.
    is_running
        Whether the run still writes it.
    last_line
        The last line that it wrote.
    """

    path: Path
    is_running: bool
    last_line: str

    @property
    def state(self) -> str:
        """Return ``'running'``, ``'ended'``, or ``'stopped early'`` where the end is missing."""
        if self.is_running:
            return 'running'
        return 'ended' if self.last_line.endswith(ENDED) else 'stopped early'


def read_logs(output_dir: Path) -> list[LogState]:
    """Return what the logs of an output folder say, the oldest first.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    """
    states = []
    for path in sorted((output_dir / 'logs').glob('run-*.log')):
        try:
            with path.open(encoding='utf-8', errors='replace') as stream:
                is_running = not _lock(stream, fcntl.LOCK_SH)
                stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                lines = stream.read().splitlines()
        except OSError:
            continue
        states.append(LogState(path, is_running, lines[-1] if lines else ''))
    return states
