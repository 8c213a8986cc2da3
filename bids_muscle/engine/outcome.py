"""What became of each step of a workflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bids_muscle.errors import Problem, problem_of

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


def problem_of_step(error: BaseException, step: str, crash_file: Path) -> Problem:
    """Describe an error raised by a step.

    Parameters
    ----------
    error
        The exception.
    step
        Full name of the node.
    crash_file
        File that holds the traceback of an error that nobody foresaw.
    """
    remedy = f'Read {crash_file} and report it if the input is not to blame.'
    return problem_of(error, f'The step {step}', remedy)
