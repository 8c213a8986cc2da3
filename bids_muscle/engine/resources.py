"""CPUs, memory and GPUs that this process may really use, not those that the machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bids_muscle.settings import Settings

#: Share of the memory allowed that steps get; the rest is for this process and the system.
MEMORY_SHARE = 0.9
#: The network is small: a second thread gained nothing, and on busy cores it cost fourfold.
THREADS_PER_STEP = 1

#: Written in another process: the GPUs with their ids, none for one that torch was not built for,
#: which it lists all the same. A build has code for some generations, or code to be translated.
#: CUDA may give the parts of a GPU (MIG) the id of the whole; what makes them visible does not.
_QUESTION = """
import os, torch
visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
made_for = [name.split('_') for name in torch.cuda.get_arch_list()]
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    gpu = torch.cuda.get_device_properties(i)
    here = 10 * gpu.major + gpu.minor
    usable = any(
        (kind == 'sm' and here // 10 == number // 10 and here >= number)
        or (kind == 'compute' and here >= number)
        for kind, number in ((kind, int(number.rstrip('af'))) for kind, number in made_for)
    )
    part = visible[i].strip() if i < len(visible) else ''
    name = part.replace('/', '-') if part.startswith('MIG-') else getattr(gpu, 'uuid', i)
    print('gpu-id', name if usable else 'none')
"""
_GPU_DRIVERS = (Path('/dev/nvidiactl'), Path('/dev/dxg'))


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the steps of a run may use together.

    Parameters
    ----------
    nprocs
        CPUs for all steps together.
    omp_nthreads
        Threads of one step.
    memory_gb
        Memory for all steps together, in GB (10^9 bytes).
    devices
        ``('cpu',)``, or the GPUs to be leased, such as ``('cuda:0', 'cuda:1')``.
    """

    nprocs: int
    omp_nthreads: int = THREADS_PER_STEP
    memory_gb: float
    devices: tuple[str, ...] = ('cpu',)

    @property
    def use_gpu(self) -> bool:
        """Whether steps that can use a GPU get one."""
        return self.devices != ('cpu',)


def resolve_resources(settings: Settings) -> Resources:
    """Fill in what the settings leave open from what is allowed here.

    Raises
    ------
    DeviceError
        If the requested device is not there.
    """
    nprocs = settings.nprocs or allowed_cpus()
    return Resources(
        nprocs=nprocs,
        omp_nthreads=min(settings.omp_nthreads or THREADS_PER_STEP, nprocs),
        memory_gb=settings.memory_gb or MEMORY_SHARE * allowed_memory_gb(),
        devices=tuple(resolve_device(settings.device)),
    )


def allowed_cpus(root: Path = Path('/'), environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of CPUs allowed by affinity, cgroup (v1, v2) and Slurm.

    Parameters
    ----------
    root
        Folder below which ``proc`` and ``sys`` are found.
    environ
        Environment variables.
    """
    limits = [_affinity()]
    for folder in _cgroup_folders(root, 'cpu'):
        quota, period = (_read(folder / 'cpu.max') or 'max 1').split()[:2]
        if quota == 'max':
            quota = _read(folder / 'cpu.cfs_quota_us')
            period = _read(folder / 'cpu.cfs_period_us')
        if quota.isdigit() and period.isdigit():  # 'max' and -1 mean no limit
            limits.append(max(1, int(quota) // max(1, int(period))))
    if environ.get('SLURM_CPUS_PER_TASK', '').isdigit():
        limits.append(max(1, int(environ['SLURM_CPUS_PER_TASK'])))
    return min(limits)


def allowed_memory_gb(root: Path = Path('/'), environ: Mapping[str, str] = os.environ) -> float:
    """Return the memory allowed by the machine, cgroup (v1, v2) and Slurm, in GB (10^9 bytes).

    Parameters
    ----------
    root
        Folder below which ``proc`` and ``sys`` are found.
    environ
        Environment variables.
    """
    limits = [
        1024.0 * int(size)
        for size in re.findall(r'^MemTotal:\s*(\d+) kB', _read(root / 'proc/meminfo'), re.M)
    ]
    for folder in _cgroup_folders(root, 'memory'):
        for name in ('memory.max', 'memory.limit_in_bytes'):
            if (value := _read(folder / name)).isdigit():
                limits.append(float(value))
    mebibytes_per_node = environ.get('SLURM_MEM_PER_NODE', '')
    if mebibytes_per_node.isdigit() and int(mebibytes_per_node):  # 0 means the whole node
        limits.append(2.0**20 * int(mebibytes_per_node))
    mebibytes_per_cpu = environ.get('SLURM_MEM_PER_CPU', '')
    if mebibytes_per_cpu.isdigit() and environ.get('SLURM_CPUS_ON_NODE', '').isdigit():
        limits.append(2.0**20 * int(mebibytes_per_cpu) * int(environ['SLURM_CPUS_ON_NODE']))
    return min(limits, default=4e9) / 1e9


def resolve_device(device: str) -> list[str]:
    """Turn the device asked for into the list of devices to be used.

    Parameters
    ----------
    device
        ``'auto'``, ``'cpu'``, ``'cuda'`` (all GPUs) or ``'cuda:N'``.

    Returns
    -------
    list of str
        ``['cpu']``, or the GPUs that torch can use, counted from 0 among the visible ones.

    Raises
    ------
    DeviceError
        If a GPU is asked for that torch cannot use here.

    Examples
    --------
    >>> resolve_device('cpu')
    ['cpu']
    """
    if device == 'cpu':
        return ['cpu']
    devices = [f'cuda:{index}' for index, gpu in enumerate(gpu_ids()) if gpu != 'none']
    if device == 'auto':
        return devices or ['cpu']
    wanted = devices if device == 'cuda' else [device]
    if not wanted or not set(wanted) <= set(devices):
        there = ', '.join(devices) if devices else 'no GPU that torch can use'
        raise DeviceError(
            f"The device '{device}' is not here: there is {there}.",
            'Use --device auto, or take a CUDA build of torch made for this GPU and start the '
            'container with its GPU option (--gpus all, --nv).',
        )
    return wanted


@cache
def gpu_ids() -> tuple[str, ...]:
    """Return what names each visible GPU on the whole host; ``'none'`` if torch cannot use it.

    It is asked in another process: CUDA in this one would spoil every process forked from it, and
    importing torch takes seconds, so nothing is asked where there is no driver.
    """
    if not any(path.exists() for path in _GPU_DRIVERS):
        return ()
    try:
        answer = subprocess.run(  # noqa: S603
            [sys.executable, '-c', _QUESTION], capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return ()
    return tuple(re.findall(r'^gpu-id (\S+)$', answer.stdout, re.M)) * (answer.returncode == 0)


def _affinity() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Return the folders whose limits hold for this process: its own and those above it."""
    folders = []
    for line in _read(root / 'proc/self/cgroup').splitlines():
        hierarchy, controllers, path = line.split(':', 2)
        if hierarchy == '0':  # version 2
            top = root / 'sys/fs/cgroup'
        elif controller in controllers.split(','):
            top = root / 'sys/fs/cgroup' / controllers
            top = top if top.exists() else root / 'sys/fs/cgroup' / controller
        else:
            continue
        folder = top / path.strip('/')
        # Inside a container the path may be that of the host: the top is then the own group.
        folders += [each for each in (folder, *folder.parents) if each.is_relative_to(top)]
    return folders


def _read(path: Path) -> str:
    """Return the stripped content, or nothing where the file cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ''
