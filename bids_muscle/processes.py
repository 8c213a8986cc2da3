"""Processes that end with the one that started them, forked from a server."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.context import ForkServerContext

Job = TypeVar('Job')
Result = TypeVar('Result')

_PR_SET_PDEATHSIG = 1
#: Set to the number of threads that libraries may start.
THREAD_VARIABLES = (
    'OMP_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'MKL_NUM_THREADS',
    'NUMEXPR_NUM_THREADS',
    'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS',
)
#: Have glibc keep freed memory, up to a limit, where images come and go by the second. By default
#: each large array is given back to the system and its pages are filled with zeros anew, which
#: took a third of the time of a network.
_MEMORY_VARIABLES = {
    'MALLOC_MMAP_THRESHOLD_': str(64 << 20),
    'MALLOC_TRIM_THRESHOLD_': str(128 << 20),
}
#: Characters of TMPDIR beyond which multiprocessing's sockets may not fit.
_LONGEST_TMPDIR = 60


def end_with_parent() -> None:
    """End this process when the main process ends, or the server, which then cannot report it."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=watch, daemon=True).start()
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start_forkserver(preload: Sequence[str]) -> ForkServerContext:
    """Start the server from which workers are forked, unless it runs.

    Called early, it loads its modules while this process does something else. The modules are
    those of the first call.

    Parameters
    ----------
    preload
        Modules to be loaded by the server.

    Returns
    -------
    ForkServerContext
        Context whose processes come from the server.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(preload))
    _keep_sockets_short()
    # The libraries must not start threads in the server: a fork copies only one of them.
    one_thread = dict.fromkeys(THREAD_VARIABLES, '1')
    multiprocessing.resource_tracker.ensure_running()  # it would let interrupts in again
    with _environment({**_MEMORY_VARIABLES, **os.environ, **one_thread}), _without_interrupts():
        multiprocessing.forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C, also in processes started meanwhile: it is for this one, which stops them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _keep_sockets_short() -> None:
    """Let multiprocessing put its sockets into /tmp where TMPDIR is long, as on clusters.

    The path of a socket has at most some 100 characters, and multiprocessing adds 30.
    """
    if len(tempfile.gettempdir()) > _LONGEST_TMPDIR:
        before, tempfile.tempdir = tempfile.tempdir, '/tmp'  # noqa: S108 - a private folder in it
        multiprocessing.util.get_temp_dir()
        tempfile.tempdir = before


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def map_in_processes(
    function: Callable[[Job], Result], jobs: Iterable[Job], n_procs: int
) -> Iterator[Result]:
    """Give the results of jobs in their order, each from one of several processes.

    Parameters
    ----------
    function
        Of a module, so that it can be found there.
    jobs
        What it is called with; of results, two a process wait at most.
    n_procs
        Number of processes.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        If a process is killed.
    """
    # A forked child could inherit locks of the caller's threads; a server starts clean.
    context = start_forkserver([function.__module__])
    pool = ProcessPoolExecutor(n_procs, mp_context=context, initializer=end_with_parent)
    pending: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(function, job))
            if len(pending) == 2 * n_procs:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException:  # also Ctrl-C, after which nobody waits for the others
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()
