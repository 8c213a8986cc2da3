"""What became of each step of a workflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_muscle.errors import Problem, problem_of

if TYPE_CHECKING:
    from pathlib import Path

    from nipype import Node


class Status(StrEnum):
    """How a step ended."""

    DONE = 'done'
    FAILED = 'failed'
    SKIPPED = 'skipped'


class Key(NamedTuple):
    """What a node works on, such as the name of a scan, and what it does."""

    scan: str
    step: str


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
    key
        The attribute ``key`` of the node; of a node without one, its name as that of the step.
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
    key: Key
    problem: Problem | None = None
    traceback: str = ''
    wall_s: float = 0.0
    peak_mb: float | None = None
    outputs: dict[str, Any] = field(default_factory=dict)


def outcome_of_node(node: Node, status: Status, **more: Any) -> NodeOutcome:
    """Return the outcome of a node with its names and its key."""
    key = getattr(node, 'key', Key('', node.name))
    return NodeOutcome(name=node.name, fullname=node.itername, key=key, status=status, **more)


@dataclass(frozen=True)
class RunReport:
    """What became of all nodes of a workflow, in the order in which they ended."""

    outcomes: tuple[NodeOutcome, ...]

    @property
    def ok(self) -> bool:
        """Whether every node is done."""
        return all(each.status is Status.DONE for each in self.outcomes)

    def of(self, scan: str) -> dict[str, NodeOutcome]:
        """Return what became of the steps of a scan, by step, in the order they ended."""
        return {each.key.step: each for each in self.outcomes if each.key.scan == scan}

    def __add__(self, other: RunReport) -> RunReport:
        return RunReport((*self.outcomes, *other.outcomes))

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
    remedy = f'Read {crash_file}. If the input is correct, report it.'
    return problem_of(error, f'The step {step}', remedy)
