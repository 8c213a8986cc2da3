"""Nipype plugin: one process per node, so that a killed one is a failure like any other."""

from __future__ import annotations

import logging
import math
import signal
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
from nipype.pipeline.plugins.base import PluginBase

from bids_muscle.engine.lease import Lease, lease_gpu
from bids_muscle.engine.outcome import NodeOutcome, Status, outcome_of_node, problem_of_step
from bids_muscle.engine.watch import Watch
from bids_muscle.engine.worker import run_node, start_forkserver, write_crash_file
from bids_muscle.errors import NotEnoughMemoryError, Problem, WorkerDiedError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from nipype import Node

_SECONDS_TO_EXIT = 5.0
_SECONDS_TO_NOTICE = 0.5
#: Time (s) after which a step that uses no processor time is given up.
PATIENCE_S = 1800.0
#: How often a GPU is asked for that another run holds.
_SECONDS_TO_ASK = 1.0
_ROUNDING_GB = 1e-6
_SIGNALS = {each.value: each.name for each in signal.Signals}


@dataclass(frozen=True, eq=False)
class _Worker:
    """A running node: its process, what it may use, and where its outcome arrives."""

    node: Node
    process: BaseProcess
    pid: int
    connection: Connection
    start_s: float
    procs: int
    lease: Lease | None


class ProcessPlugin(PluginBase):
    """Run each node in a process of its own, as many at once as the resources allow.

    A node that raises, whose process is killed or that uses no processor time for
    :data:`PATIENCE_S` is recorded as failed, and what depends on it as skipped; all others are
    run, and nothing is raised. A node that wants more CPUs than there are runs alone. Where one
    needs more memory than there is, nothing that it is connected with is begun. A node whose
    input ``use_gpu`` is true holds one of the devices, which no process of this or another run on
    the host then gets, and sees no other one. A MapNode runs its parts one after the other in one
    process; ``run_without_submitting`` makes no difference, since no node may take this process
    down.

    Parameters
    ----------
    plugin_args
        ``n_procs`` (CPUs for all nodes together), ``memory_gb`` (memory for all together, GB),
        ``devices`` (GPUs such as ``'cuda:0'``; empty for none), ``crash_dir`` (folder of
        tracebacks), ``stop_on_first_crash``, ``log_level`` (of Nipype), ``on_start`` (called
        with the key of each node as it starts), ``on_outcome`` (called with each outcome as it
        arrives).

    Attributes
    ----------
    outcomes
        What became of the nodes, in the order in which they ended.
    """

    def __init__(self, plugin_args: dict[str, Any]) -> None:
        super().__init__(plugin_args)
        self.n_procs: int = plugin_args['n_procs']
        self.memory_gb: float = plugin_args['memory_gb']
        self.devices: tuple[str, ...] = tuple(plugin_args.get('devices', ()))
        self.crash_dir: Path = plugin_args['crash_dir']
        self.stop_on_first_crash: bool = plugin_args.get('stop_on_first_crash', False)
        self.log_level: int = plugin_args.get('log_level', logging.ERROR)
        self.on_start = plugin_args.get('on_start')
        self.on_outcome = plugin_args.get('on_outcome')
        self.outcomes: list[NodeOutcome] = []

    def run(self, graph: nx.DiGraph, config: Any, updatehash: bool = False) -> None:
        """Run all nodes of an expanded workflow graph."""
        waiting = {node: set(graph.predecessors(node)) for node in nx.topological_sort(graph)}
        running: list[_Worker] = []
        watch = Watch(PATIENCE_S)
        self._refuse(waiting, graph)
        try:
            while waiting or running:
                wants_gpu = False
                for node in [node for node, needs in waiting.items() if not needs]:
                    if node in waiting and self._fits(node, running):
                        lease = None
                        if self.devices and node.is_gpu_node():
                            lease = self._lease(running)
                            if lease is None:
                                wants_gpu = True
                                continue
                        del waiting[node]
                        try:
                            running.append(self._start(node, lease, updatehash))
                        except Exception as error:  # such as an input that cannot be pickled
                            if lease:
                                lease.give_back()
                            self._settle(node, self._not_started(node, error), waiting, graph)
                seconds = watch.interval_s if running else 0.0
                ended = _wait_for_any(running, _SECONDS_TO_ASK if wants_gpu else seconds)
                stalled = watch.stalled(worker.pid for worker in running)
                for worker in [w for w in running if w in ended or w.pid in stalled]:
                    running.remove(worker)
                    stop = worker not in ended
                    self._settle(worker.node, self._finish(worker, stop=stop), waiting, graph)
        finally:
            for worker in running:
                self._finish(worker, stop=True)

    def _refuse(self, waiting: dict[Node, set[Node]], graph: nx.DiGraph) -> None:
        """Record the nodes that need more memory than there is, and begin nothing around them."""
        for part in list(nx.weakly_connected_components(graph)):
            # A sum of decimal fractions may miss the budget by a rounding error.
            large = [node for node in part if node.mem_gb > self.memory_gb + _ROUNDING_GB]
            for node in [node for node in waiting if large and node in part]:
                del waiting[node]
                problem = _too_large(node, self.memory_gb) if node in large else None
                status = Status.FAILED if problem else Status.SKIPPED
                self._record(outcome_of_node(node, status, problem=problem))

    def _settle(
        self, node: Node, outcome: NodeOutcome, waiting: dict[Node, set[Node]], graph: nx.DiGraph
    ) -> None:
        """Record an outcome, and either release or skip the nodes that need it."""
        self._record(outcome)
        if outcome.status is Status.DONE:
            for needs in waiting.values():
                needs.discard(node)
            return
        lost = nx.descendants(graph, node)
        for other in [each for each in waiting if each in lost or self.stop_on_first_crash]:
            del waiting[other]
            self._record(outcome_of_node(other, Status.SKIPPED))

    def _procs(self, node: Node) -> int:
        """Return the CPUs that a node gets: at most all there are."""
        return int(min(node.n_procs, self.n_procs))

    def _lease(self, running: list[_Worker]) -> Lease | None:
        """Lease a GPU that neither this run nor another one holds."""
        ours = {worker.lease.device for worker in running if worker.lease}
        leases = (lease_gpu(device) for device in self.devices if device not in ours)
        return next((lease for lease in leases if lease), None)

    def _fits(self, node: Node, running: list[_Worker]) -> bool:
        """Return whether a node can start beside those that run; one always can."""
        if not running:
            return True
        procs = sum(worker.procs for worker in running)
        memory_gb = sum(worker.node.mem_gb for worker in running)
        return (
            procs + self._procs(node) <= self.n_procs
            and memory_gb + node.mem_gb <= self.memory_gb + _ROUNDING_GB
        )

    def _start(self, node: Node, lease: Lease | None, updatehash: bool) -> _Worker:
        procs = self._procs(node)
        context = start_forkserver()
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=run_node,
            args=(sender, node),
            kwargs={
                'updatehash': updatehash,
                'threads': procs,
                'device': lease.device if lease else None,
                'crash_file': self._crash_file(node),
                'log_level': self.log_level,
            },
            name=node.itername,
        )
        try:
            process.start()
        except (EOFError, ConnectionError):  # the server was killed a moment ago
            time.sleep(_SECONDS_TO_NOTICE)
            start_forkserver()
            process.start()
        sender.close()  # so that the end of the worker is the end of the pipe
        assert process.pid is not None  # noqa: S101 - it was started
        if self.on_start:
            self.on_start(node.key)
        return _Worker(node, process, process.pid, receiver, time.monotonic(), procs, lease)

    def _finish(self, worker: _Worker, *, stop: bool = False) -> NodeOutcome:
        """Return what a worker sent, or what is known of one that died or is stopped now."""
        outcome = None
        if stop:
            worker.process.kill()
        try:
            if worker.connection.poll():
                outcome = worker.connection.recv()
        except (EOFError, OSError):
            pass
        worker.connection.close()
        worker.process.join(_SECONDS_TO_EXIT)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(_SECONDS_TO_EXIT)  # no longer: the kernel may wait for a disk
        if worker.lease:
            worker.lease.give_back()
        if outcome is not None:
            return outcome
        return outcome_of_node(
            worker.node,
            Status.FAILED,
            problem=_stall(worker.node) if stop else _death(worker.node, worker.process.exitcode),
            wall_s=time.monotonic() - worker.start_s,
        )

    def _not_started(self, node: Node, error: Exception) -> NodeOutcome:
        text = ''.join(traceback.format_exception(error))
        crash_file = self._crash_file(node)
        write_crash_file(crash_file, node, text)
        problem = problem_of_step(error, node.itername, crash_file)
        return outcome_of_node(node, Status.FAILED, problem=problem, traceback=text)

    def _crash_file(self, node: Node) -> Path:
        return self.crash_dir / f'crash-{node.itername}.txt'

    def _record(self, outcome: NodeOutcome) -> None:
        self.outcomes.append(outcome)
        if self.on_outcome:
            self.on_outcome(outcome)


def _wait_for_any(running: list[_Worker], seconds: float) -> list[_Worker]:
    """Sleep until a worker has sent something or ended, or for a time; return those that have."""
    if not running:  # wait() would return at once
        time.sleep(seconds)
        return []
    ends = [end for w in running for end in (w.connection, w.process.sentinel)]
    ready = set(wait(ends, seconds))
    return [w for w in running if w.connection in ready or w.process.sentinel in ready]


def _too_large(node: Node, memory_gb: float) -> Problem:
    """Describe a node that needs more memory than there is."""
    need_gb = math.ceil(10 * node.mem_gb) / 10
    return NotEnoughMemoryError(
        f'The step {node.itername} needs {need_gb} GB of memory, but only {memory_gb:.2f} GB may '
        'be used.',
        f'Run again with --mem {need_gb}G or more, on a machine with enough memory.',
    ).problem


def _stall(node: Node) -> Problem:
    """Describe a worker that was stopped because it did nothing."""
    return WorkerDiedError(
        f'The step {node.itername} was stopped because it used no CPU time for '
        f'{PATIENCE_S / 60:.0f} minutes.',
        'Check the disks and the GPU that it uses, and run again.',
    ).problem


def _death(node: Node, exit_code: int | None) -> Problem:
    """Describe the death of a worker from its exit code, negative for a signal."""
    process = f'The process of the step {node.itername}'
    if exit_code is not None and exit_code < 0:
        name = _SIGNALS.get(-exit_code, 'a signal')
        return WorkerDiedError(
            f'{process} was killed by {name} ({-exit_code}).',
            'The usual cause is lack of memory. Run again with more memory, or with a smaller '
            '--mem or --nprocs.',
        ).problem
    return WorkerDiedError(
        f'{process} ended with status {exit_code} without a result.',
        "Run again. If it fails again, report it with the step's standard error.",
    ).problem
