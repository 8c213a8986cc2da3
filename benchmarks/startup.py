"""Dry runs in a large cohort: ``python benchmarks/startup.py 5000 10000``.

Participants have two sessions of water and fat images of a few bytes each. A dry run does all that
comes before the computation: imports, listing the cohort, indexing, the plan. That of one
participant is the start-up of a job; that of the whole cohort is what people look at first.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np


def make_cohort(folder: Path, participants: int) -> None:
    """Write a cohort; the images of a thousand participants are links to one."""
    folder.mkdir()
    (folder / 'dataset_description.json').write_text(
        json.dumps({'Name': 'large', 'BIDSVersion': '1.10.0'})
    )
    rows = ''.join(f'sub-{number:05d}\t50\tF\n' for number in range(participants))
    (folder / 'participants.tsv').write_text(f'participant_id\tage\tsex\n{rows}')
    image = folder / 'image.nii.gz'
    for number in range(participants):
        if number % 1000 == 0:  # file systems bound the links of a file
            image.unlink(missing_ok=True)
            content = nib.Nifti1Image(np.ones((8, 8, 4), np.int16), np.diag([1, 1, 4, 1]))
            nib.save(content, image)
        for session in ('a', 'b'):
            stem = f'sub-{number:05d}_ses-{session}_acq-dixon'
            anat = folder / f'sub-{number:05d}/ses-{session}/anat'
            anat.mkdir(parents=True)
            for kind in ('water', 'fat'):
                os.link(image, anat / f'{stem}{kind}_T1w.nii.gz')
    image.unlink()


def measure(folder: Path, *labels: str) -> tuple[float, float, float]:
    """Return wall time (s), CPU time (s) and peak memory (MB) of a dry run; of all by default."""
    command = [sys.executable, '-m', 'bids_muscle', str(folder), str(folder.parent / 'out')]
    command += ['participant', '--region', 'lumbar', '--dry-run']
    command += ['--participant-label', *labels] if labels else []
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s, after.ru_maxrss * 1024 / 1e6


def main(sizes: list[int]) -> None:
    """Print two rows per cohort: one participant, the quickest of three runs, and all."""
    print('participants  dry run of  wall (s)  CPU (s)  peak memory (MB)')
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            bids_dir = Path(folder) / 'bids'
            make_cohort(bids_dir, size)
            one = min(measure(bids_dir, f'{size - 1:05d}') for _ in range(3))
            for what, (wall_s, cpu_s, peak_mb) in (('one', one), ('all', measure(bids_dir))):
                row = f'{size:12d}  {what:>10}  {wall_s:8.2f}  {cpu_s:7.2f}  {peak_mb:16.0f}'
                print(row, flush=True)


if __name__ == '__main__':
    main([int(word) for word in sys.argv[1:]])
