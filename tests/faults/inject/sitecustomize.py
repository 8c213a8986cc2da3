"""Loaded by every Python started with this folder on PYTHONPATH: breaks the steps that are named.

``BIDS_MUSCLE_FAULTS`` is JSON: for the end of a step's full name, what happens to it.
``BIDS_MUSCLE_CGROUP`` is where a step that fills the memory does so.
``BIDS_MUSCLE_PATIENCE`` is after how many seconds a step that does nothing is given up.
``BIDS_MUSCLE_CLOCK`` makes the clock jump by years, forth or back, from process to process.
"""

import functools
import itertools
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import bids_muscle.engine.worker as worker

FAULTS = json.loads(os.environ.get('BIDS_MUSCLE_FAULTS', '{}'))
_run_node = worker.run_node


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    time.sleep(600)


def fill_memory():
    """Use memory until the kernel kills this process, or ask for more than any machine has."""
    if group := os.environ.get('BIDS_MUSCLE_CGROUP'):
        Path(group, 'cgroup.procs').write_text(str(os.getpid()))
    return [b'x' * 10_000_000 for _ in itertools.count()] if group else bytearray(1 << 60)


def break_step(interface, fault):
    """Change the class of an interface, or what it calls, in this process alone."""
    kind = type(interface)
    if fault == 'kill':
        kind._run_interface = lambda self, runtime: kill(os.getpid())
    elif fault == 'stop':
        kind._run_interface = lambda self, runtime: os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == 'memory':
        kind._run_interface = lambda self, runtime: fill_memory()
    elif fault == 'gpu':

        def lose_gpu(self, runtime):
            raise RuntimeError('CUDA error: unspecified launch failure')

        kind._run_interface = lose_gpu
    elif fault == 'change':
        run = kind._run_interface

        def run_and_change(self, runtime):
            result = run(self, runtime)
            for path in map(Path, self.inputs.images.values()):
                path.write_bytes(path.read_bytes() + b'\0')
            return result

        kind._run_interface = run_and_change
    else:  # in the middle of the files that are published
        calls, fsync = itertools.count(), os.fsync
        victim = os.getpid() if fault == 'kill-late' else multiprocessing.parent_process().pid

        def fsync_or_kill(descriptor):
            fsync(descriptor)
            if next(calls) == 3:
                kill(victim)

        os.fsync = fsync_or_kill


@functools.wraps(_run_node)
def run_node(connection, node, **keywords):
    for name, fault in FAULTS.items():
        if node.itername.endswith(name):
            break_step(node.interface, fault)
    return _run_node(connection, node, **keywords)


worker.run_node = run_node

if 'BIDS_MUSCLE_PATIENCE' in os.environ:
    import bids_muscle.engine.plugin as plugin

    plugin.PATIENCE_S = float(os.environ['BIDS_MUSCLE_PATIENCE'])

if 'BIDS_MUSCLE_CLOCK' in os.environ:
    _now = time.time
    time.time = lambda: _now() + 1e8 * (-1) ** os.getpid()
