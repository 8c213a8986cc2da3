"""Measure a corrected scan again: the participant level in a process of its own, watched."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from bids_muscle.dataset.names import participant_path
from bids_muscle.errors import PARSE_ERRORS, TemporaryError
from bids_muscle.files import read_small
from bids_muscle.reports.outputs import ScanOutputs, read_scans
from bids_muscle.review.measures import ShownMeasures, compare_measures, read_measures
from bids_muscle.review.raw import raw_dataset
from bids_muscle.workflows.run_log import read_logs

#: What the settings of the earlier run say of the run alone.
_OF_THE_RUN = ('bids_dir', 'output_dir', 'level', 'participants', 'sessions')
#: A failed run says why at its end.
_LAST_LINES = 8


@dataclass
class MeasuringJob:
    """A run for one scan.

    Parameters
    ----------
    before, measures
        The scan as the reports saw it when the run was started, and what it measured then.
    process
        The run.
    lines
        What it has said.
    after, measured
        As it is once the run has ended.
    """

    before: ScanOutputs
    measures: ShownMeasures
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    after: ScanOutputs | None = None
    measured: ShownMeasures | None = None

    @property
    def scan(self) -> str:
        """Its name."""
        return self.before.record.scan

    def watch(self, output_dir: Path) -> None:
        """Read what the run says until it has ended."""
        assert self.process.stderr is not None  # noqa: S101 - a pipe was asked for
        for line in self.process.stderr:
            self.lines.append(line.strip())
        self.process.wait()
        found = read_scans(output_dir, self.before.record.participant)
        # A run that never began has left everything as it was.
        after = next((each for each in found if each.record.scan == self.scan), self.before)
        self.measured = read_measures(output_dir, after)
        self.after = after

    @property
    def state(self) -> dict[str, Any]:
        """How far it is, JSON-ready."""
        if self.after is None or self.measured is None:
            steps = [line.partition(': ')[2] for line in self.lines if f': {self.scan} ' in line]
            step = steps[-1].removeprefix(f'{self.scan} ') if steps else 'starting'
            return {'state': 'running', 'step': step}
        # Another scan of the participant may fail each time.
        ran = self.after.done and self.after.record != self.before.record
        if self.process.returncode and not ran:
            return {'state': 'failed', 'step': ' '.join(self.lines[-_LAST_LINES:])}
        return {
            'state': 'done',
            'step': '',
            'segmentation': self.after.segmentation,
            **compare_measures(self.measures, self.measured),
        }


class Measurements:
    """The runs that a server has started, the last one of each scan.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    """

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir
        self._lock = threading.Lock()
        self._jobs: dict[str, MeasuringJob] = {}
        self._folder = tempfile.TemporaryDirectory(prefix='bids_muscle-review-')

    def start(self, scan: ScanOutputs) -> None:
        """Start the participant level for the participant of a scan.

        What is finished is not run again, so that only this scan is measured.

        Raises
        ------
        TemporaryError
            If a run for this participant is going on.
        MissingInputError, BadDataError
            If the raw dataset cannot be found.
        """
        name, participant = scan.record.scan, scan.record.participant
        with self._lock:
            busy = [job for job in self._jobs.values() if job.process.poll() is None]
            own = [job for job in busy if job.before.record.participant == participant]
            if own or is_running(self._output_dir, participant):
                raise TemporaryError(
                    f'A run of the participant level is working on sub-{participant}.',
                    'Your correction is saved. Measure again when that run has ended.',
                )
            job = MeasuringJob(
                scan,
                read_measures(self._output_dir, scan),
                _run(self._output_dir, participant, Path(self._folder.name)),
            )
            self._jobs[name] = job
        threading.Thread(target=job.watch, args=(self._output_dir,), daemon=True).start()

    def state(self, scan: str) -> dict[str, Any]:
        """Return how far the run of a scan is, JSON-ready."""
        job = self._jobs.get(scan)
        return job.state if job else {'state': 'none', 'step': ''}

    def stop(self) -> None:
        """End the runs."""
        for job in self._jobs.values():
            job.process.terminate()
        self._folder.cleanup()


def is_running(output_dir: Path, participant: str) -> bool:
    """Say whether a run of the participant level that may touch a participant is going on."""
    running = [log.path for log in read_logs(output_dir) if log.is_running]
    return any(_names(path, participant) for path in running)


def _names(log: Path, participant: str) -> bool:
    """Say whether the command in a log is about a participant, among others or as one of all."""
    try:
        with log.open(encoding='utf-8', errors='replace') as stream:
            words = shlex.split(stream.readline())
    except (OSError, ValueError):
        return True
    options = [
        n for n, word in enumerate(words) if word.replace('_', '-') == '--participant-label'
    ]
    named: list[str] = []
    for place in options:
        for word in words[place + 1 :]:
            if word.startswith('-'):
                break
            named.append(word.removeprefix('sub-'))
    return not options or participant in named


def _run(output_dir: Path, participant: str, folder: Path) -> subprocess.Popen[str]:
    words: Sequence[str | Path] = [
        *(sys.executable, '-m', 'bids_muscle', raw_dataset(output_dir), output_dir, 'participant'),
        *('--participant-label', participant, '-v'),
        *_config(output_dir / participant_path(participant, 'settings'), folder),
    ]
    return subprocess.Popen(  # noqa: S603 - our own command, without a shell
        list(map(str, words)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding='utf-8',
        errors='replace',
    )


def _config(settings: Path, folder: Path) -> list[str | Path]:
    """Return the option for the settings of the earlier run, without which scans it was for."""
    try:
        tables = tomllib.loads(read_small(settings).decode('utf-8'))
        given = {key: value for key, value in tables['input'].items() if key not in _OF_THE_RUN}
        kept = {**tables, 'input': given}
    except (OSError, *PARSE_ERRORS, KeyError, AttributeError):
        return []
    for name in ('execution', 'group'):
        kept.pop(name, None)
    path = folder / f'{settings.parent.name}.toml'
    path.write_text(tomli_w.dumps(kept), encoding='utf-8')
    return ['--config-file', path]
