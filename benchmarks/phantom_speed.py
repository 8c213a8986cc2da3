"""Time and memory of one simulated lumbar Dixon scan, and how participants scale with processes.

    python benchmarks/phantom_speed.py [--participants N] [--nprocs P]

Prints CPU time, wall time and peak memory. CPU time is what a quiet core would take.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(participants: int, nprocs: int) -> dict[str, float]:
    """Write a cohort of 320x320x40 lumbar Dixon scans in a fresh process and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / 'bids'
        command = [sys.executable, '-m', 'bids_muscle.cli.phantom', str(target)]
        command += ['--participants', str(participants), '--nprocs', str(nprocs)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        'participants': participants,
        'processes': nprocs,
        'wall_s': wall_s,
        # The processes of a pool are not our children, so that their time is not counted.
        'cpu_s': cpu_s if nprocs == 1 else float('nan'),
        'peak_mb': after.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure one scan on one core, then a cohort on one and on several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--participants', type=int, default=4)
    parser.add_argument('--nprocs', type=int, default=2)
    args = parser.parse_args()
    print('participants\tprocesses\twall_s\tcpu_s\tpeak_mb')
    for participants, nprocs in ((1, 1), (args.participants, 1), (args.participants, args.nprocs)):
        values = run(participants, nprocs)
        print(
            '\t'.join(f'{value:.1f}'.removesuffix('.0') for value in values.values()), flush=True
        )


if __name__ == '__main__':
    main()
