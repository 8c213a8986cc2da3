"""What a command needs of its process: standard streams that may fail, and a name for its user."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from typing import TextIO


class QuietStream:
    """A text stream that falls silent, and fails no work, where it cannot be written any more.

    Parameters
    ----------
    stream
        Standard output or standard error: its reader may end, its disk may be full.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, if possible."""
        try:
            return self._stream.write(text)
        except OSError:
            silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what is kept, if possible."""
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def silence(stream: TextIO) -> None:
    """Lead all that is, and will be, written to a stream to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def own_process() -> Iterator[TextIO]:
    """Prepare the process for a command; standard streams that fail do not fail its work.

    Yields
    ------
    TextIO
        Standard output as it was, which raises errors: for commands that do nothing but print.
    """
    _name_user()
    _open_streams()
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(QuietStream, streams)
    try:
        yield streams[0]
    finally:
        for stream in streams:
            QuietStream(stream).flush()
        sys.stdout, sys.stderr = streams


def end_in_order() -> None:
    """From now on, Ctrl-C, SIGTERM of Slurm and docker, and the end of a terminal close first.

    ``nohup`` ignores the end of a terminal.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _name_user() -> None:
    """Give a user number without a name one: libraries ask for it when they are imported."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault('LOGNAME', f'user{os.getuid()}')


def _open_streams() -> None:
    """Open streams that the caller has closed, or the next file would take their place."""
    for number, name, mode in ((0, 'stdin', 'r'), (1, 'stdout', 'w'), (2, 'stderr', 'w')):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
