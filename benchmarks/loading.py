"""Loads on the lumbar discs: ``python benchmarks/loading.py [DERIVATIVES BIDS]``.

Without arguments the base trunk stands for the person. With a derivatives dataset of a run with
``--derivatives`` or sagittal scans, and its raw dataset, each participant of it is computed.
Prints time and memory of a person, and the loads of each disc, standing and in flexion; without
arguments also how much errors of a segmentation change the compression in flexion.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_muscle.config import build_settings
from bids_muscle.dataset.writer import write_tsv
from bids_muscle.spinal_loads.base import JOINTS, VERTEBRAE, base_trunk
from bids_muscle.spinal_loads.opensim_model import TASKS, build_model, solve
from bids_muscle.spinal_loads.person import MuscleSection, crossing, fit_trunk
from bids_muscle.spinal_loads.table import IMAGED
from bids_muscle.workflows.participant import SessionStep
from bids_muscle.workflows.session import plan_sessions


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
    settings = build_settings(flags | {'loading': True})
    for folder in sorted(output_dir.glob('sub-*/')):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        problems = []
        for step in plan_sessions(settings, folder.name.removeprefix('sub-')):
            if not isinstance(step, SessionStep):
                problems.append(step.problem)
            elif step.kind == 'loads':
                step.interface.run(cwd=str(output_dir))
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(f'{folder.name}: {wall_s:.1f} s wall, {cpu_s:.1f} s CPU, peak {memory_mb:.0f} MB')
        for problem in problems:
            print(problem)
        for path in sorted(folder.rglob('*_loads.tsv')):
            for line in path.read_text(encoding='utf-8').splitlines():
                print('  ' + '  '.join(line.split('\t')[:5]))


def sensitivity() -> None:
    """Print what smaller areas, displaced muscles and displaced vertebrae do to the base trunk."""
    base = base_trunk()
    to_ras = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    vertebrae = {name: to_ras @ base.frames[name].origin_mm for name in VERTEBRAE}
    discs = {name: to_ras @ base.joints_mm[k] for k, name in enumerate(JOINTS)}
    places: dict[tuple[str, str, str], list[tuple[np.ndarray, float]]] = {}
    for level in VERTEBRAE:
        for each in base.fascicles:
            found = crossing(each, base.frames[level])
            if found and each.muscle in IMAGED:
                places.setdefault((each.muscle, each.side, level), []).append(found)
    task = TASKS[-1]

    def compression(area: float, back_mm: float, noise_mm: float = 0.0, seed: int = 0) -> list:
        rng = np.random.default_rng(seed)
        sections = {}
        for key, found in places.items():
            areas = np.array([size for _, size in found])
            middle = np.average([point for point, _ in found], axis=0, weights=areas)
            world = base.frames[key[2]].world(middle - [back_mm, 0, 0])
            sections[key] = MuscleSection(area * areas.sum(), to_ras @ world)
        noise = {name: rng.normal(0, noise_mm, 3) for name in (*vertebrae, *discs)}
        person = fit_trunk(
            base.height_m,
            {name: place + noise[name] for name, place in vertebrae.items()},
            {name: place + noise[name] for name, place in discs.items()},
            sections,
        )
        loads = solve(build_model(person.trunk, 'male', 72, task)).loads
        return [load.compression_n for load in loads]

    usual = np.array(compression(1, 0))
    print('compression in flexion, N, from L1-L2 to L5-S1:', usual.round().tolist())
    for name, case in (
        ('areas 20 % smaller', (0.8, 0)),
        ('muscles 3 mm further back', (1, 3)),
        ('muscles 3 mm further forward', (1, -3)),
    ):
        print(f'{name}:', (np.array(compression(*case)) - usual).round().tolist())
    drawn = [np.abs(np.array(compression(1, 0, 1.0, seed)) - usual) for seed in range(8)]
    print('centroids off by 1 mm, mean |error|:', np.mean(drawn, axis=0).round().tolist())


def main() -> None:
    """Run."""
    if len(sys.argv) > 2:
        measure(Path(sys.argv[2]), Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        write_base(Path(name))
        measure(Path(name), Path(name) / 'out')
    sensitivity()


if __name__ == '__main__':
    main()
