"""The process that runs one node: forked from a server that has the heavy modules loaded."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_muscle import processes
from bids_muscle.engine.outcome import NodeOutcome, Status, outcome_of_node, problem_of_step
from bids_muscle.processes import THREAD_VARIABLES, end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext

    from nipype import Node

#: Module that the server loads, and with it all that steps need.
PRELOAD = ('bids_muscle.engine.preload',)


def start_forkserver(preload: Sequence[str] = PRELOAD) -> ForkServerContext:
    """Start the server of :func:`~bids_muscle.processes.start_forkserver` with what steps need."""
    return processes.start_forkserver(preload)


def run_node(
    connection: Connection,
    node: Node,
    *,
    updatehash: bool,
    threads: int,
    device: str | None,
    crash_file: Path,
    log_level: int,
) -> None:
    """Run a node in this process and send its outcome.

    Parameters
    ----------
    connection
        Where the :class:`NodeOutcome` is sent to.
    node
        The node.
    updatehash
        Passed on to the node.
    threads
        Threads that the node may use.
    device
        GPU leased to it, such as ``'cuda:1'``; it sees no other one, so for the node it is
        ``'cuda:0'``. None hides all GPUs.
    crash_file
        Where the traceback of an error goes that is not meant for the user.
    log_level
        Level of Nipype's loggers.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    os.dup2(2, 1)  # standard output belongs to the command's results
    limit_threads(threads)
    os.environ['CUDA_VISIBLE_DEVICES'] = _visible(device)
    quiet_nipype(log_level)

    outcome, _ = outcome_of(node, lambda: node.run(updatehash=updatehash), crash_file)
    connection.send(outcome)


def outcome_of(node: Node, run: Callable[[], Any], crash_file: Path) -> tuple[NodeOutcome, Any]:
    """Run a node and return what became of it, and its result; it raises nothing.

    Parameters
    ----------
    node
        The node.
    run
        Runs it and returns Nipype's result.
    crash_file
        Where the traceback of an error goes that is not meant for the user.
    """
    outputs: dict[str, Any] = {}
    problem, text, result = None, '', None
    start = time.perf_counter()
    with _remembered_errors() as raised:
        try:
            result = run()
            outputs = _plain_outputs(result.outputs)
        except BaseException as error:
            cause = raised[-1] if raised else error
            text = ''.join(traceback.format_exception(cause))
            problem = problem_of_step(cause, node.itername, crash_file)
            if str(crash_file) in problem.remedy:
                write_crash_file(crash_file, node, text)
    outcome = outcome_of_node(
        node,
        Status.FAILED if problem else Status.DONE,
        problem=problem,
        traceback=text,
        wall_s=time.perf_counter() - start,
        peak_mb=peak_mb(),
        outputs=outputs,
    )
    return outcome, result


def quiet_nipype(level: int) -> None:
    """Set the level of Nipype's loggers, which are verbose and write to standard output."""
    for name in ('workflow', 'utils', 'filemanip', 'interface'):
        logging.getLogger(f'nipype.{name}').setLevel(level)


def write_crash_file(path: Path, node: Node, text: str) -> None:
    """Write the traceback of a node's error and its inputs, if that is possible."""
    with contextlib.suppress(OSError):  # the problem is reported all the same
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'Step: {node.itername}\n\n{text}\nInputs:\n{node.inputs}\n')


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB (10^6 bytes)."""
    # On Linux ru_maxrss also remembers the process that started this one.
    with contextlib.suppress(OSError, IndexError):
        status = Path('/proc/self/status').read_text()
        return int(re.findall(r'^VmHWM:\s*(\d+) kB', status, re.M)[0]) * 1024 / 1e6
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def limit_threads(threads: int) -> None:
    """Let the libraries of this process use so many threads."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    # A library that is loaded already does not read its variable again.
    if 'torch' in sys.modules:
        sys.modules['torch'].set_num_threads(threads)


def _visible(device: str | None) -> str:
    """Return CUDA_VISIBLE_DEVICES for a device that is counted among those visible here."""
    if device is None:
        return ''
    index = int(device.removeprefix('cuda:'))
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    return visible.split(',')[index] if visible else str(index)


@contextlib.contextmanager
def _remembered_errors() -> Iterator[list[BaseException]]:
    """Give a list that will hold what interfaces raise; Nipype itself keeps only text."""
    from nipype.interfaces.base.support import RuntimeContext

    raised: list[BaseException] = []
    leave = RuntimeContext.__exit__

    def remember_and_leave(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        if error is not None:
            raised.append(error)
        return leave(self, kind, error, trace)

    RuntimeContext.__exit__ = remember_and_leave
    try:
        yield raised
    finally:
        RuntimeContext.__exit__ = leave


def _plain_outputs(outputs: Any) -> dict[str, Any]:
    if outputs is None:
        return {}
    # A MapNode has a Bunch, any other node a traited specification.
    free = getattr(outputs, 'get_traitsfree', None)
    return dict(free() if free else outputs.items())
