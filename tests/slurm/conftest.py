"""A real Slurm on this machine: munge, a controller and a node, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=3000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope='session')
def slurm() -> Iterator[dict[str, str]]:
    """Give the environment in which sbatch and squeue speak to a Slurm started for the tests."""
    if not all(map(shutil.which, ('slurmctld', 'slurmd', 'munged'))) or os.getuid():
        pytest.skip('needs root, and the packages slurm-wlm and munge')
    host = socket.gethostname().partition('.')[0]
    folder = Path(tempfile.mkdtemp(prefix='slurm-', dir='/tmp'))
    folder.chmod(0o755)
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    ports = _free_ports()
    config = CONFIG.format(host=host, folder=folder, ports=ports, cpus=os.cpu_count())
    (folder / 'slurm.conf').write_text(config)
    environment = {**os.environ, 'SLURM_CONF': str(folder / 'slurm.conf')}
    daemons = [
        ['munged', '--foreground', f'--key-file={key}', '--force']
        + [f'--{kind}-file={folder}/munge.{kind}' for kind in ('pid', 'log', 'seed')]
        + [f'--socket={folder}/munge.sock'],
        ['slurmctld', '-D', '-c'],
        ['slurmd', '-D', '-c', '-N', host],
    ]
    running = []
    try:
        for command in daemons:
            running.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
            while command[0] == 'munged' and not (folder / 'munge.sock').exists():
                assert running[0].poll() is None
                time.sleep(0.05)
        _wait_for_node(environment, folder)
        yield environment
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports() -> list[int]:
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    for _ in range(600):
        state = subprocess.run(
            ['sinfo', '--noheader', '--format=%t'], env=environment, capture_output=True, text=True
        )
        if state.stdout.strip() == 'idle':
            return
        time.sleep(0.1)
    logs = ''.join(path.read_text() for path in folder.glob('*.log'))
    raise AssertionError(f'Slurm does not start:\n{state}\n{logs}')
