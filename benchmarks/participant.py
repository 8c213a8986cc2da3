"""Time and memory of the participant level on one scan, and the share outside the science.

    python benchmarks/participant.py ../shared/data/dixon-lumbar

Science is what the steps take once their process is up; the rest is imports, Nipype, BIDS,
reports and the command itself. Memory is the proportional set size (PSS) of all processes of the
run together, sampled five times a second, so that shared pages count once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process in MB (10^6 bytes); 0 if it is gone."""
    try:
        lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith('Pss:'))


def main() -> None:
    """Run once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('bids_dir', type=Path)
    parser.add_argument('words', nargs='*', help='more words for bids_muscle')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'bids_muscle', str(args.bids_dir), folder, 'participant']
        start, peak = time.monotonic(), 0.0
        process = subprocess.Popen([*command, *args.words], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, sum(map(pss_mb, family(process.pid))))
            time.sleep(0.2)
        wall = time.monotonic() - start
        records = [json.loads(path.read_text()) for path in Path(folder).glob('logs/*/*.json')]
        steps = [step for record in records for step in record['steps']]
    science = sum(step['wall_s'] for step in steps)
    print(f'exit code {process.returncode}, {len(records)} scans')
    for step in steps:
        print(f'{step["name"]:<10} {step["wall_s"]:6.1f} s  {step["peak_mb"] or 0:6.0f} MB')
    print(
        f'wall {wall:.1f} s, of which {wall - science:.1f} s outside the steps; '
        f'peak {peak / 1000:.2f} GB'
    )


if __name__ == '__main__':
    main()
