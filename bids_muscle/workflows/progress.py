"""How far a run is: a refreshing line on a terminal, plain lines elsewhere, and the log."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from bids_muscle.durations import duration
from bids_muscle.workflows.run_log import ENDED, RunLog
from bids_muscle.workflows.summary import summary

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from bids_muscle.dataset.records import ScanRecord
    from bids_muscle.dataset.scan import Scan
    from bids_muscle.engine.outcome import Key, NodeOutcome
    from bids_muscle.errors import Problem
    from bids_muscle.settings import Settings

#: What the steps of scans and of sessions are called.
STEP_NAMES = {
    'prepare': 'preparation',
    'segment': 'segmentation',
    'correct': 'corrected outlines',
    'align': 'alignment',
    'measure': 'measures',
    'quality': 'image quality',
    'figures': 'pictures',
    'publish': 'outputs',
    'measure_maps': 'measures of vertebrae',
    'join_planes': 'table of levels',
    'loads': 'spinal loads',
}


class Tally:
    """Counts of the scans of a run, and the time left.

    The scans of a participant are known once its images were looked up. Until then it is taken to
    have as many as the others, and where it has records of an earlier run, to be finished.

    Parameters
    ----------
    participants
        How many there are.
    new
        How many of them have no record.
    clock
        Tells the time (s).
    """

    def __init__(
        self, participants: int, new: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._unseen, self._unseen_new, self._seen = participants, new, 0
        self._known = self._waiting = self._computed = 0
        self._began_s = self._last_s = clock()
        self.done = self.failed = 0

    def add(self, scans: int, *, finished: int = 0, failed: int = 0, new: bool = True) -> None:
        """Count the scans of a participant: all, those done before, and those that cannot run."""
        self._unseen -= 1
        self._unseen_new -= new
        self._seen += 1
        self._known += scans
        self._waiting += scans - finished - failed
        self.done += finished
        self.failed += failed

    def end(self, *, failed: bool) -> None:
        """Count a scan that has just ended."""
        self.done += not failed
        self.failed += failed
        self._waiting -= 1
        self._computed += 1
        self._last_s = self._clock()

    def left_s(self) -> float | None:
        """Return the time left (s); None before a scan has ended."""
        if not self._computed:
            return None
        pace_s = (self._last_s - self._began_s) / self._computed
        scans = self._waiting + self._unseen_new * self._known / self._seen
        return max(0.0, pace_s * scans - (self._clock() - self._last_s))

    def __str__(self) -> str:
        if not self._seen:
            return f'{self._unseen} {"participants" if self._unseen != 1 else "participant"}'
        known = math.ceil(self._known * (1 + self._unseen / self._seen))
        parts = [f'{self.done}/{"~" if self._unseen else ""}{known} scans']
        if self.failed:
            parts.append(f'{self.failed} failed')
        left_s = self.left_s()
        if left_s is not None and self.done + self.failed < known:
            parts.append(f'{duration(left_s)} left')
        return ', '.join(parts)


class Progress:
    """Report the progress of the participant level, while used as a context.

    Parameters
    ----------
    settings
        Those of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self._output_dir = settings.output_dir
        self._overwrite = settings.overwrite
        self._quiet, self._verbosity = settings.quiet, settings.verbosity
        self._began_s = time.monotonic()
        self._tally = Tally(0, 0)
        self._log: RunLog | None = None
        self._live: Live | None = None
        self._new: set[str] = set()
        self._waiting: set[str] = set()
        self._running: list[Key] = []

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hide()
        if self._log:
            if kind:
                what = 'interrupted' if kind is KeyboardInterrupt else f'ended by {kind.__name__}'
                self._log.write(f'{self._tally}: {what}')
            self._log.close()

    def begin(self, participants: Sequence[str]) -> None:
        """Open the log and show the line, once it is known who is to run."""
        logs = self._output_dir / 'logs'
        self._new = {
            label
            for label in participants
            if self._overwrite or not (logs / f'sub-{label}').is_dir()
        }
        self._tally = Tally(len(participants), len(self._new))
        self._log = RunLog(self._output_dir)
        if not self._quiet and sys.stderr.isatty():
            self._show()
        log = f'log: {self._log.path}' if self._log.path else 'no log'
        self._tell(log, show=self._live is None)

    def plan(self, participant: str, scans: Sequence[Scan], finished: Collection[str]) -> None:
        """Count the scans of a participant who was just looked up.

        Parameters
        ----------
        participant
            Label without ``sub-``.
        scans
            All of its scans.
        finished
            Names of those that an earlier run has done.
        """
        self._waiting |= {scan.name for scan in scans}
        bad = sum(scan.problem is not None and scan.name not in finished for scan in scans)
        self._tally.add(
            len(scans), finished=len(finished), failed=bad, new=participant in self._new
        )

    def begin_step(self, key: Key) -> None:
        """Take notice of a step that starts."""
        self._running.append(key)
        self._tell(f'{key.scan} {STEP_NAMES[key.step]} began', show=self._verbosity > 0)

    def end_step(self, outcome: NodeOutcome) -> None:
        """Take notice of a step that has ended, and of its scan where that has ended with it."""
        key = outcome.key
        if key in self._running:
            self._running.remove(key)
        failed = outcome.status == 'failed'
        over = (failed or key.step == 'publish') and outcome.status != 'skipped'
        over = over and key.scan in self._waiting
        if over:
            self._waiting.remove(key.scan)
            self._tally.end(failed=failed)
        spent = '' if outcome.status == 'skipped' else f' in {outcome.wall_s:.1f} s'
        why = f': {outcome.problem}' if outcome.problem else ''
        show = self._verbosity > 0 or (over and self._live is None)
        self._tell(f'{key.scan} {STEP_NAMES[key.step]} {outcome.status}{spent}{why}', show=show)
        if self._verbosity > 1:
            print(outcome.traceback, end='', file=sys.stderr, flush=True)

    def end(self, records: Sequence[ScanRecord], problems: Sequence[Problem] = ()) -> None:
        """Return how all scans ended.

        Parameters
        ----------
        records
            Of all scans, those of earlier runs as well.
        problems
            What else went wrong.
        """
        self._hide()
        lines = summary(records, self._output_dir)
        lines[0] += f', in {duration(time.monotonic() - self._began_s)}'
        lines += [f'  {problem}' for problem in problems]
        if self._log:
            for line in lines:
                self._log.write(line)
            self._log.write(f'{lines[0]}: {ENDED}')
            lines.append(f'Log: {self._log.path or "none"}')
        if not self._quiet:
            print(*lines, sep='\n', file=sys.stderr, flush=True)

    def _tell(self, text: str, *, show: bool) -> None:
        """Write a line into the log, and where it is wanted on standard error."""
        line = f'{self._tally}: {text}'
        if self._log:
            self._log.write(line)
        if show and not self._quiet:
            print(f'{time.strftime("%H:%M:%S")} {line}', file=sys.stderr, flush=True)

    def _show(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # Lines of others go above the refreshed one, and long ones, such as paths, stay whole.
        console = Console(stderr=True, soft_wrap=True, force_terminal=True)
        if console.is_dumb_terminal:
            return
        self._live = Live(
            # A line as wide as the terminal would make some begin another one.
            get_renderable=lambda: self._line(console.width - 1),
            console=console,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()

    def _hide(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _line(self, width: int) -> Text:
        from rich.text import Text

        # Counts and time left come first, for a narrow terminal, and a step before its scan.
        steps = [f'{STEP_NAMES[each.step]} {each.scan}' for each in list(self._running)]
        what = ', '.join(steps) or 'looking up scans, writing pages'
        spent = duration(time.monotonic() - self._began_s)
        return Text(f'{self._tally} ({spent}): {what}'[:width], no_wrap=True)
