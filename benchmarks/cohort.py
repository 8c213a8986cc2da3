"""A cohort through both levels: throughput, processor time, peak memory, failures, files.

    python benchmarks/cohort.py 200 --nprocs 2

The scans are those of ten small simulated people, copied under other labels. Memory is the
proportional set size (PSS) of all processes together, sampled every two seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from participant import family, pss_mb

PEOPLE = 10


def make_cohort(folder: Path, scans: int, shape: list[str], voxel_size: list[str]) -> None:
    """Simulate ten people and copy them until there are enough."""
    command = [sys.executable, '-m', 'bids_muscle.cli.phantom', str(folder), '--nprocs', '1']
    command += ['--participants', str(min(PEOPLE, scans)), '--shape', *shape]
    subprocess.run([*command, '--voxel-size', *voxel_size], check=True)
    shutil.rmtree(folder / 'derivatives')
    header, *rows = (folder / 'participants.tsv').read_text().splitlines()
    lines = [header]
    for number in range(1, scans + 1):
        source, label = f'sub-{(number - 1) % PEOPLE + 1:02d}', f'sub-c{number:04d}'
        (folder / label / 'anat').mkdir(parents=True)
        for path in (folder / source / 'anat').iterdir():
            os.link(path, folder / label / 'anat' / path.name.replace(source, label))
        row = next(row for row in rows if row.startswith(f'{source}\t'))
        lines.append(row.replace(source, label, 1))
    for row in rows:
        shutil.rmtree(folder / row.split('\t')[0])
    (folder / 'participants.tsv').write_text('\n'.join([*lines, '']))


def cpu_s(pid: int) -> float:
    """Return the processor time (s) of a process and of its children that have ended."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def measure(words: list[str]) -> None:
    """Run the command and print what it took."""
    start, memory_mb, used_s = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(
        [sys.executable, '-m', 'bids_muscle', *words], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        pids = family(process.pid)
        memory_mb = max(memory_mb, sum(map(pss_mb, pids)))
        used_s = max(used_s, sum(map(cpu_s, pids)))
        time.sleep(2)
    print(
        f'{words[2]}: exit code {process.returncode}, {time.monotonic() - start:.0f} s, '
        f'{used_s:.0f} s of processor time, peak {memory_mb / 1000:.2f} GB',
        flush=True,
    )


def main() -> None:
    """Run both levels and print what was left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scans', type=int)
    parser.add_argument('--nprocs', default='2')
    parser.add_argument('--shape', nargs=3, default=['96', '80', '8'])
    parser.add_argument('--voxel-size', nargs=3, default=['3', '3', '10'])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bids_dir, output_dir = Path(folder) / 'bids', Path(folder) / 'out'
        make_cohort(bids_dir, args.scans, args.shape, args.voxel_size)
        words = [str(bids_dir), str(output_dir)]
        measure([*words, 'participant', '--nprocs', args.nprocs])
        measure([*words, 'group'])
        records = [json.loads(path.read_text()) for path in output_dir.glob('logs/sub-*/*.json')]
        print(f'records: {dict(Counter(record["status"] for record in records))}')
        files = [path for path in output_dir.rglob('*') if path.is_file()]
        print(f'{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.0f} MB')


if __name__ == '__main__':
    main()
