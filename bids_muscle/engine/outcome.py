"""What became of each step of a workflow."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import BidsMuscleError, ExitCode, Problem

if TYPE_CHECKING:
    from pathlib import Path


class Status(StrEnum):
    """How a step ended."""

    DONE = 'done'
    FAILED = 'failed'
    SKIPPED = 'skipped'


@dataclass(frozen=True, kw_only=True)
class NodeOutcome:
    """What became of one node.

    Parameters
    ----------
    name
        Name of the node.
    fullname
        Name with those of the workflows around it, unique in the graph:
        ``'sub_01_wf.scan_dixon_wf.segment'``.
    status
        Done, failed, or skipped because another step failed.
    problem
        Why it failed; None unless it did.
    traceback
        Python's traceback of the failure; empty for a worker that was killed.
    wall_s
        Seconds spent, imports included; 0 if skipped.
    peak_mb
        Peak resident memory (MB, 10^6 bytes) of its process, modules included; None if unknown.
    outputs
        Outputs of the interface by name, without the undefined ones.
    """

    name: str
    fullname: str
    status: Status
    problem: Problem | None = None
    traceback: str = ''
    wall_s: float = 0.0
    peak_mb: float | None = None
    outputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReport:
    """What became of all nodes of a workflow, in the order in which they ended."""

    outcomes: tuple[NodeOutcome, ...]

    @property
    def failures(self) -> tuple[NodeOutcome, ...]:
        """The nodes that failed themselves, not those skipped because of them."""
        return tuple(each for each in self.outcomes if each.status is Status.FAILED)

    @property
    def ok(self) -> bool:
        """Whether every node is done."""
        return all(each.status is Status.DONE for each in self.outcomes)

    def __getitem__(self, fullname: str) -> NodeOutcome:
        return {each.fullname: each for each in self.outcomes}[fullname]


def problem_of(error: BaseException, step: str, crash_file: Path) -> Problem:
    """Describe an error raised by a step.

    Parameters
    ----------
    error
        The exception.
    step
        Full name of the node.
    crash_file
        File that holds the traceback of an error that nobody foresaw.

    Returns
    -------
    Problem
        That of the error itself if it is meant for the user.
    """
    if isinstance(error, BidsMuscleError):
        return error.problem
    kind = type(error).__name__
    # torch's error of a full GPU is a RuntimeError of this name.
    if isinstance(error, MemoryError) or kind == 'OutOfMemoryError':
        return Problem(
            kind,
            f'The step {step} ran out of memory{f": {error}" if str(error) else ""}.',
            'Run again with more memory or with a smaller --nprocs.',
            ExitCode.TEMPORARY,
        )
    if kind == 'AcceleratorError' or (
        isinstance(error, RuntimeError) and re.search('CUDA|cuDNN', str(error))
    ):
        return Problem(
            kind,
            f'The step {step} lost its GPU: {str(error).splitlines()[0]}.',
            'Run again, and if it stays use --device cpu.',
            ExitCode.TEMPORARY,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            kind,
            f'The step {step} found no space left to write: {error}.',
            'Free space in the output and work folders and run again.',
            ExitCode.IO_ERROR,
        )
    return Problem(
        kind,
        f'The step {step} failed with {kind}: {error}.',
        f'Read {crash_file} and report it if the input is not to blame.',
        ExitCode.IO_ERROR if isinstance(error, OSError) else ExitCode.FAILURE,
    )
