"""What a worker sees of the GPUs, and how errors are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bids_muscle.engine.outcome import Key, NodeOutcome, RunReport, Status, problem_of_step
from bids_muscle.engine.worker import _visible
from bids_muscle.errors import DeviceError, ExitCode


@pytest.mark.parametrize(
    ('visible', 'device', 'expected'),
    [
        (None, None, ''),
        ('2,5', None, ''),
        (None, 'cuda:1', '1'),
        ('2,5', 'cuda:1', '5'),
        ('GPU-aaaa,GPU-bbbb', 'cuda:0', 'GPU-aaaa'),
    ],
)
def test_a_lease_counts_among_the_visible_devices(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str | None, expected: str
) -> None:
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert _visible(device) == expected


def test_a_full_gpu_is_a_temporary_failure() -> None:
    full = type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory')
    assert problem_of_step(full, 'wf.step', Path('x')).exit_code == ExitCode.TEMPORARY


@pytest.mark.parametrize(
    'text',
    [
        'CUDA error: an illegal memory access was encountered',
        'cuDNN error: CUDNN_STATUS_EXECUTION_FAILED',
    ],
)
def test_a_gpu_that_fails_is_a_temporary_failure(text: str) -> None:
    problem = problem_of_step(RuntimeError(text), 'wf.step', Path('x'))
    assert problem.exit_code == ExitCode.TEMPORARY
    assert '--device cpu' in problem.remedy
    assert (
        problem_of_step(RuntimeError('shapes'), 'wf.step', Path('x')).exit_code == ExitCode.FAILURE
    )


def test_an_error_for_the_user_is_kept_whole() -> None:
    error = DeviceError('The GPU was lost.', 'Run again.')
    assert problem_of_step(error, 'wf.step', Path('x')) == error.problem


def test_peak_memory_is_in_mb_and_outlasts_the_use() -> None:
    code = (
        'from bids_muscle.engine.worker import peak_mb\n'
        'block = bytearray(b"x") * 300_000_000\ndel block\nprint(peak_mb())'
    )
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert 300 < float(ran.stdout) < 600


def test_a_report_is_ok_only_if_all_is_done() -> None:
    def outcome(name: str, status: Status) -> NodeOutcome:
        return NodeOutcome(name=name, fullname=f'wf.{name}', key=Key('', name), status=status)

    done, skipped = outcome('a', Status.DONE), outcome('b', Status.SKIPPED)
    failed = outcome('c', Status.FAILED)
    assert RunReport((done,)).ok
    assert not RunReport((done, skipped)).ok
    assert not RunReport((done, failed)).ok
    assert RunReport((done, skipped))['wf.b'] is skipped
