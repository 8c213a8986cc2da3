"""Compare two versions of bids_muscle on real scans: CPU time, MFI and volume of each muscle.

    python benchmarks/versions.py OLD NEW ../shared/data/dixon-lumbar ../shared/data/neck ...

OLD and NEW are folders with a checkout; both run with this Python, in turn, `--runs` times each.
CPU time is that of all processes of a run. Exit codes are printed, since some scans may be meant
to fail. Files with another content are counted among images, tables and sidecars, unpacked.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gzip
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

_PR_SET_CHILD_SUBREAPER = 36
#: Columns that are compared; a volume by its share.
MFI, VOLUME = 'mfi_ratio_of_means_pct', 'volume_ml'

Rows = dict[tuple[str, str], dict[str, str]]
Contents = dict[str, bytes]


def run(checkout: Path, bids_dir: Path, output_dir: Path, words: list[str]) -> tuple[float, int]:
    """Run the participant level; return the CPU seconds of all its processes and its exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, '-m', 'bids_muscle', str(bids_dir), str(output_dir), 'participant']
    command += words
    environment = {**os.environ, 'PYTHONPATH': str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=False
    )
    while True:  # the server of the workers ends after the command
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used_s, done.returncode


def read(output_dir: Path) -> tuple[Rows, Contents]:
    """Return the rows of tables of muscles by table and muscle, and the SHA-256 of each file."""
    rows: Rows = {}
    contents = {}
    for path in output_dir.glob('sub-*/**/anat/*'):
        unpack = gzip.decompress if path.suffix == '.gz' else bytes
        contents[path.name] = hashlib.sha256(unpack(path.read_bytes())).digest()
    for path in sorted(output_dir.glob('sub-*/**/*muscles_morph.tsv')):
        with path.open(encoding='utf-8', newline='') as stream:
            for row in csv.DictReader(stream, delimiter='\t'):
                rows[path.name, row['index']] = row
    return rows, contents


def differences(old: tuple[Rows, Contents], new: tuple[Rows, Contents]) -> str:
    """Return how many muscles there are, the largest differences, and how many files differ."""
    (before, old_files), (after, new_files) = old, new
    both = old_files.keys() & new_files.keys()
    found: dict[str, list[float]] = {MFI: [], VOLUME: []}
    odd = len(before.keys() ^ after.keys())
    for key in before.keys() & after.keys():
        for column, values in found.items():
            one, other = before[key][column], after[key][column]
            if 'n/a' in (one, other):
                odd += one != other
            else:
                step = abs(float(other) - float(one))
                values.append(step if column == MFI else 100 * step / float(one))
    mfi, volume = (max(values, default=0) for values in found.values())
    changed = sum(old_files[name] != new_files[name] for name in both)
    return (
        f'{len(before)} muscles, {odd} values only in one; MFI differs by {mfi:.3f} points at '
        f'most, volume by {volume:.3f} %; {changed} of {len(both)} files differ'
    )


def main() -> None:
    """Run both versions in turn and print a line for each dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('old', type=Path)
    parser.add_argument('new', type=Path)
    parser.add_argument('bids_dirs', type=Path, nargs='+')
    parser.add_argument('--runs', type=int, default=1)
    parser.add_argument('--words', default='', help='more words for bids_muscle')
    args = parser.parse_args()
    # Processes whose parent has ended become children of this one, and their time counts.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for bids_dir in args.bids_dirs:
        used: dict[Path, list[float]] = {args.old: [], args.new: []}
        outputs = {}
        codes = []
        for _ in range(args.runs):
            for checkout in (args.old, args.new):
                with tempfile.TemporaryDirectory() as folder:
                    used_s, code = run(
                        checkout.resolve(), bids_dir.resolve(), Path(folder), args.words.split()
                    )
                    used[checkout].append(used_s)
                    codes.append(code)
                    outputs[checkout] = read(Path(folder))
        seconds = '; '.join(' '.join(f'{s:.1f}' for s in times) for times in used.values())
        ratio = mean(used[args.new]) / mean(used[args.old])
        said = differences(outputs[args.old], outputs[args.new])
        print(f'{bids_dir.name}: CPU {seconds} s, ratio {ratio:.2f}; exit codes {codes}; {said}')


if __name__ == '__main__':
    main()
