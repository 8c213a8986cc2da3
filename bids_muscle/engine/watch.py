"""Watch over workers: which of them wait for what never comes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

#: Looks in a row at which a worker must have done nothing to be given up.
_LOOKS = 10


class Watch:
    """Finds processes that have used no processor time for long.

    A step that computes, however slowly, uses some; one that uses none waits for a lost file
    server, a lost device or itself. Looks are counted rather than seconds, since a job that its
    scheduler suspends stops its workers and this clock together.

    Parameters
    ----------
    patience_s
        Time (s) after which a process that does nothing is given up.
    """

    def __init__(self, patience_s: float) -> None:
        self.interval_s = patience_s / _LOOKS
        self._last_look_s = time.monotonic()
        self._seen: dict[int, tuple[int, int]] = {}

    def stalled(self, pids: Iterable[int]) -> set[int]:
        """Return the processes to be given up; call it at least once an interval.

        Parameters
        ----------
        pids
            Those to be watched now.
        """
        if time.monotonic() - self._last_look_s < self.interval_s:
            return set()
        self._last_look_s = time.monotonic()
        seen = {}
        for pid in pids:
            used = _processor_ticks(pid)
            if used is not None:
                before, looks = self._seen.get(pid, (-1, 0))
                seen[pid] = (used, looks + 1 if used == before else 0)
        self._seen = seen
        return {pid for pid, (_, looks) in seen.items() if looks >= _LOOKS}


def _processor_ticks(pid: int) -> int | None:
    """Return the processor time of all threads of a process; None where nothing tells it."""
    try:
        # The name of the process, in brackets, may hold blanks.
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])  # utime and stime, see man 5 proc
