"""What may be used is what cgroups and Slurm leave of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_muscle.config import build_settings
from bids_muscle.engine import resources
from bids_muscle.engine.resources import (
    allowed_cpus,
    allowed_memory_gb,
    resolve_device,
    resolve_resources,
)
from bids_muscle.errors import DeviceError, ExitCode

GIB = 1024**3


@pytest.fixture(autouse=True)
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(16)), raising=False)


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Make the files of /proc and /sys of a machine with 64 GiB."""
    contents = {
        'proc/meminfo': 'MemTotal:       67108864 kB\nMemFree:        1 kB\n',
        'proc/self/cgroup': cgroup,
        **{f'sys/fs/cgroup/{name}': content for name, content in files.items()},
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


CASES = [
    ('no limit', '0::/\n', {}, 16, 64),
    (
        'v2 without a limit',
        '0::/a\n',
        {'a/memory.max': 'max\n', 'a/cpu.max': 'max 100000'},
        16,
        64,
    ),
    ('v2', '0::/a/b\n', {'a/b/memory.max': str(8 * GIB), 'a/b/cpu.max': '400000 100000'}, 4, 8),
    (
        'v2, limit above',
        '0::/a/b\n',
        {'a/memory.max': str(8 * GIB), 'a/b/memory.max': 'max'},
        16,
        8,
    ),
    (
        'v2, path of the host',
        '0::/docker/x\n',
        {'memory.max': str(2 * GIB), 'cpu.max': '50000 100000'},
        1,
        2,
    ),
    (
        'v1',
        '4:memory:/a\n1:cpu,cpuacct:/a\n0::/\n',
        {
            'memory/a/memory.limit_in_bytes': str(4 * GIB),
            'cpu,cpuacct/a/cpu.cfs_quota_us': '250000',
            'cpu,cpuacct/a/cpu.cfs_period_us': '100000',
        },
        2,
        4,
    ),
    (
        'v1 without a limit',
        '4:memory:/a\n1:cpu,cpuacct:/a\n',
        {
            'memory/a/memory.limit_in_bytes': '9223372036854771712',
            'cpu/a/cpu.cfs_quota_us': '-1',
            'cpu/a/cpu.cfs_period_us': '100000',
        },
        16,
        64,
    ),
]


@pytest.mark.parametrize(
    ('cgroup', 'files', 'cpus', 'gib'),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_cgroup_limits_hold(
    tmp_path: Path, cgroup: str, files: dict[str, str], cpus: int, gib: int
) -> None:
    root = machine(tmp_path, cgroup, files)
    assert allowed_cpus(root, {}) == cpus
    assert allowed_memory_gb(root, {}) == pytest.approx(gib * GIB / 1e9)


def test_slurm_limits_hold(tmp_path: Path) -> None:
    root = machine(tmp_path, '0::/\n', {})
    assert allowed_cpus(root, {'SLURM_CPUS_PER_TASK': '3'}) == 3
    assert allowed_memory_gb(root, {'SLURM_MEM_PER_NODE': '6144'}) == pytest.approx(6 * GIB / 1e9)
    assert allowed_memory_gb(root, {'SLURM_MEM_PER_NODE': '0'}) == pytest.approx(64 * GIB / 1e9)
    per_cpu = {'SLURM_MEM_PER_CPU': '2048', 'SLURM_CPUS_ON_NODE': '4'}
    assert allowed_memory_gb(root, per_cpu) == pytest.approx(8 * GIB / 1e9)


def test_a_machine_that_says_nothing_has_a_little(tmp_path: Path) -> None:
    assert allowed_cpus(tmp_path, {}) == 16
    assert allowed_memory_gb(tmp_path, {}) == 4


def test_devices_are_those_that_torch_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, 'gpu_ids', lambda: ('a', 'b'))
    assert resolve_device('auto') == ['cuda:0', 'cuda:1']
    assert resolve_device('cuda') == ['cuda:0', 'cuda:1']
    assert resolve_device('cuda:1') == ['cuda:1']
    assert resolve_device('cpu') == ['cpu']
    with pytest.raises(DeviceError, match='there is cuda:0, cuda:1'):
        resolve_device('cuda:2')


def test_a_gpu_that_is_not_there_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, 'gpu_ids', lambda: ())
    assert resolve_device('auto') == ['cpu']
    for device in ('cuda', 'cuda:0'):
        with pytest.raises(DeviceError) as caught:
            resolve_device(device)
        assert caught.value.exit_code == ExitCode.TEMPORARY
        assert device in caught.value.message


def test_torch_is_asked_only_where_there_is_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(command: list[str], **_: object) -> object:
        asked.append(command)
        return type('Answer', (), {'returncode': 0, 'stdout': 'some words\ngpu-id a\ngpu-id b\n'})

    monkeypatch.setattr(resources.subprocess, 'run', run)
    monkeypatch.setattr(resources, '_GPU_DRIVERS', (tmp_path / 'none',))
    assert resolve_device('auto') == ['cpu']
    assert asked == []
    resources.gpu_ids.cache_clear()
    monkeypatch.setattr(resources, '_GPU_DRIVERS', (tmp_path,))
    assert resolve_device('auto') == ['cuda:0', 'cuda:1']
    assert resources.gpu_ids() == ('a', 'b')
    assert len(asked) == 1
    resources.gpu_ids.cache_clear()


def test_a_gpu_that_torch_was_not_built_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for a CUDA build of torch with code for 7.5, 8.x, 9.0 and what translates 12.0's.
    (tmp_path / 'torch.py').write_text(
        'from types import SimpleNamespace as Thing\n'
        'ARCHS = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_120", "compute_120"]\n'
        'GPUS = [(7, 0), (9, 0), (6, 1), (8, 9), (12, 1), (13, 0), (10, 0)]\n'
        'cuda = Thing(\n'
        '    get_arch_list=lambda: ARCHS,\n'
        '    is_available=lambda: True,\n'
        '    device_count=lambda: len(GPUS),\n'
        '    get_device_properties=lambda i: Thing(\n'
        '        major=GPUS[i][0], minor=GPUS[i][1], uuid=f"u{i}"),\n'
        ')\n'
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr(resources, '_GPU_DRIVERS', (tmp_path,))
    resources.gpu_ids.cache_clear()
    assert resources.gpu_ids() == ('none', 'u1', 'none', 'u3', 'u4', 'u5', 'none')
    # A device keeps the number by which CUDA knows it.
    assert resolve_device('auto') == ['cuda:1', 'cuda:3', 'cuda:4', 'cuda:5']
    with pytest.raises(DeviceError, match='CUDA build of torch made for this GPU'):
        resolve_device('cuda:0')
    # Parts of one GPU are leased each by itself.
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'MIG-GPU-aa/1/0, MIG-bb')
    resources.gpu_ids.cache_clear()
    assert resources.gpu_ids()[:4] == ('none', 'MIG-bb', 'none', 'u3')
    resources.gpu_ids.cache_clear()


def test_settings_win_over_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, 'allowed_cpus', lambda: 12)
    monkeypatch.setattr(resources, 'allowed_memory_gb', lambda: 10.0)
    monkeypatch.setattr(resources, 'gpu_ids', lambda: ())

    def resolve(**flags: object) -> tuple[int, int, float, bool]:
        base = {'bids_dir': '/in', 'output_dir': '/out', 'level': 'participant'}
        found = resolve_resources(build_settings({**base, **flags}))
        return found.nprocs, found.omp_nthreads, found.memory_gb, found.use_gpu

    assert resolve() == (12, 1, 9.0, False)
    assert resolve(nprocs=3, memory_gb=2.5) == (3, 1, 2.5, False)
    assert resolve(nprocs=3, omp_nthreads=5) == (3, 3, 9.0, False)
    assert resolve(omp_nthreads=2) == (12, 2, 9.0, False)
    monkeypatch.setattr(resources, 'gpu_ids', lambda: ('a',))
    assert resolve(device='cuda')[3]
