"""Loads on the lumbar discs: ``python benchmarks/loading.py [DERIVATIVES BIDS]``.

Without arguments the base trunk stands for the person. With a derivatives dataset of a run with
``--derivatives`` or sagittal scans, and its raw dataset, each participant of it is computed.
Prints time and memory of a person, and the loads of each disc, standing and in flexion.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from bids_muscle.dataset.writer import write_tsv
from bids_muscle.loading.base import JOINTS, VERTEBRAE, base_trunk
from bids_muscle.settings import Settings
from bids_muscle.workflows.loading import measure_participant_loads


def write_base(folder: Path) -> None:
    """Write the spine of the base trunk as the table of a man of 72 kg."""
    base = base_trunk()
    places = [('vertebra', name, base.frames[name].origin_mm) for name in VERTEBRAE]
    places += [('disc', name, base.joints_mm[k]) for k, name in enumerate(JOINTS)]
    rows = [
        {
            'kind': kind,
            'name': name,
            'x_ras_mm': z,
            'y_ras_mm': x,
            'z_ras_mm': y,
            'reason': None,
            'tilt_deg': None,
        }
        for kind, name, (x, y, z) in places
    ]
    write_tsv(rows, folder / 'out/sub-base/anat/sub-base_desc-spine_morph.tsv')
    text = 'participant_id\tsex\theight\tweight\nsub-base\tM\t175\t72\n'
    (folder / 'participants.tsv').write_text(text)


def measure(bids_dir: Path, output_dir: Path) -> None:
    """Compute the loads of all participants and print them."""
    flags = {'bids_dir': bids_dir, 'output_dir': output_dir, 'level': 'participant'}
    settings = Settings.from_sources(flags | {'loading': True})
    for folder in sorted(output_dir.glob('sub-*/')):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        problems = measure_participant_loads(settings, folder.name.removeprefix('sub-'))
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(f'{folder.name}: {wall_s:.1f} s wall, {cpu_s:.1f} s CPU, peak {memory_mb:.0f} MB')
        for problem in problems:
            print(problem)
        for path in sorted(folder.rglob('*_loads.tsv')):
            for line in path.read_text(encoding='utf-8').splitlines():
                print('  ' + '  '.join(line.split('\t')[:5]))


def main() -> None:
    """Run."""
    if len(sys.argv) > 2:
        measure(Path(sys.argv[2]), Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        write_base(Path(name))
        measure(Path(name), Path(name) / 'out')


if __name__ == '__main__':
    main()
