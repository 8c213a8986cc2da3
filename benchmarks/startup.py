"""Start-up of a participant's job in a large cohort: ``python benchmarks/startup.py 5000 20000``.

Participants have two sessions of water and fat images of a few bytes each. A dry run does all that
comes before the computation: imports, listing the cohort, indexing one participant, the plan.
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


def measure(folder: Path, label: str) -> tuple[float, float, float]:
    """Return wall time (s), CPU time (s) and peak memory (MB) of a dry run."""
    command = [sys.executable, '-m', 'bids_muscle', str(folder), str(folder.parent / 'out')]
    command += ['participant', '--participant-label', label, '--region', 'lumbar', '--dry-run']
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s, after.ru_maxrss * 1024 / 1e6


def main(sizes: list[int]) -> None:
    """Print a row per cohort, the quickest of three runs each."""
    print('participants  wall (s)  CPU (s)  peak memory (MB)')
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            make_cohort(Path(folder) / 'bids', size)
            runs = [measure(Path(folder) / 'bids', f'{size - 1:05d}') for _ in range(3)]
            print(f'{size:12d}  {min(runs)[0]:8.2f}  {min(r[1] for r in runs):7.2f}', end='')
            print(f'  {max(r[2] for r in runs):16.0f}', flush=True)


if __name__ == '__main__':
    main([int(word) for word in sys.argv[1:]])
