"""Models of other programs in theirs and in ours: CPU time and peak memory of whole processes.

    python benchmarks/peers.py PEERS SCAN [--slices 4] [--classes 114] [--only PATTERN]

PEERS holds the programs, as for ``tests/segmentation/peers.py``. The networks are those that the
programs use, with random weights: MuscleMap's whole body (26 million parameters, windows of
256x256 at 1 mm) and a 2-D nnU-Net (33 million, 256x256 at 0.8 mm). Random weights give noise for
a label map, which is the worst case for what comes after the network. All run one after the
other on one thread with the same environment, on the same slices from the middle of the scan;
measures are those of 320x320x40 voxels. Peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests/segmentation'))
MUSCLEMAP = {
    'spatial_dims': 2,
    'in_channels': 1,
    'channels': [64, 128, 256, 512, 1024],
    'strides': [2, 2, 2, 2],
    'act': 'LeakyReLU',
    'num_res_units': 1,
}
#: As nnU-Net plans it for planes of 256x256.
FEATURES = [32, 64, 128, 256, 512, 512, 512]


def write_musclemap(folder: Path, classes: int) -> Path:
    """Write a model of MuscleMap with random weights, as its card of the whole body has it."""
    import torch
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    shape = {**MUSCLEMAP, 'out_channels': classes}
    labels = [
        {'anatomy': f'structure {number}', 'side': 'no side', 'value': 2000 + number}
        for number in range(1, classes - 1)
    ]
    labels.append({'anatomy': 'multifidus', 'side': 'left', 'value': 5101})
    parameters = {'roi_size': [256, 256], 'pix_dim': [1, 1, -1], 'spatial_window_batch_size': 1}
    card = {'parameters': parameters, 'labels': labels}
    card['model'] = {**shape, 'norm': 'instance', 'version': '0'}
    folder.mkdir()
    (folder / 'model.json').write_text(json.dumps(card))
    torch.save(UNet(**shape, norm='INSTANCE').state_dict(), folder / 'model.pth')
    return folder / 'model.pth'


def write_nnunet(folder: Path, order: str) -> Path:
    """Write a 2-D nnU-Net of nine classes with random weights."""
    import torch
    from peer_cases import Case
    from peers import network_of, write_model

    class Plan(Case):
        @property
        def features(self) -> list[int]:
            return FEATURES

    torch.manual_seed(0)
    fields = {'patch_size': [256, 256], 'spacing': [0.8, 0.8]}
    case = Plan('nnunet', (0, 0, 0), fields=fields, scan='dixon', channels=('T2w',))
    return write_model(case, folder, [network_of(case)[1]().state_dict()], order)


def commands(
    peers: Path, folder: Path, scan: Path, classes: int, order: str
) -> dict[str, list[str]]:
    """Return the programs to run."""
    python = sys.executable
    musclemap, nnunet = write_musclemap(folder / 'mm', classes), write_nnunet(folder / 'nn', order)
    theirs = [
        str(peers / 'musclemap/bin/python'),
        str(peers / 'MuscleMap/scripts/mm_segment.py'),
        *('-i', str(scan), '-o', str(folder / 'out'), '-m', str(musclemap)),
        *('-g', 'N', '-r', 'wholebody'),
    ]
    scans = folder / 'scans'
    scans.mkdir()
    (scans / 'scan_0000.nii.gz').write_bytes(scan.read_bytes())
    predict = [
        str(peers / 'nnunet/bin/nnUNetv2_predict_from_modelfolder'),
        *('-i', str(scans), '-o', str(folder / 'out'), '-m', str(nnunet), '-device', 'cpu'),
        *('-f', '0', '-npp', '1', '-nps', '1'),
    ]

    def ours(model: Path | None, overlap: float | None) -> list[str]:
        code = 'from bids_muscle.cli.segment import main; import sys; sys.exit(main())'
        words = [python, '-c', code, f'T2w={scan}', str(folder / 'ours.nii.gz')]
        words += ['--region', 'lumbar', *(['--model', str(model)] if model else [])]
        return words + (['--model-overlap', str(overlap)] if overlap is not None else [])

    return {
        'MuscleMap, overlap 90 % (default): its program': theirs,
        'MuscleMap, overlap 90 % (default): ours': ours(musclemap, None),
        'MuscleMap, overlap 50 %: its program': [*theirs, '-s', '50'],
        'MuscleMap, overlap 50 %: ours': ours(musclemap, 0.5),
        'MuscleMap, fast (overlap 0): ours': ours(musclemap, 0.0),
        'nnU-Net: its program': predict,
        'nnU-Net: ours': ours(nnunet, None),
        'nnU-Net, fast (overlap 0): ours': ours(nnunet, 0.0),
        'default model, N4 first: ours': ours(None, None),
        **measures(peers, folder),
    }


def measures(peers: Path, folder: Path) -> dict[str, list[str]]:
    """Return the programs that measure the scan of ``measures.py``, ours by all its methods."""
    from measures import __file__ as own
    from measures import make_scan

    make_scan(folder)
    script = peers / 'MuscleMap/scripts/mm_extract_metrics.py'
    theirs = [str(peers / 'musclemap/bin/python'), str(script), '-o', str(folder / 'out')]
    theirs += ['-s', str(folder / 'labels.nii')]
    dixon = ['-m', 'dixon', '-f', str(folder / 'fat.nii'), '-w', str(folder / 'water.nii')]
    plain = ['-i', str(folder / 'T2w.nii'), '-c', '3']
    return {
        'measures, water and fat: MuscleMap': [*theirs, *dixon],
        'measures, water and fat: ours': [sys.executable, str(own), str(folder), 'dixon'],
        'measures, gmm 3: MuscleMap': [*theirs, '-m', 'gmm', *plain],
        'measures, kmeans 3: MuscleMap': [*theirs, '-m', 'kmeans', *plain],
        'measures, four thresholds at once: ours': [sys.executable, str(own), str(folder), 'T2w'],
    }


def run(command: list[str], threads: int) -> tuple[float, float, float]:
    """Run a program; return wall and CPU seconds and the peak memory in MB, with its children."""
    names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
    environment: dict[str, Any] = {**os.environ, **dict.fromkeys(names, str(threads))}
    environment |= dict.fromkeys(
        ('nnUNet_raw', 'nnUNet_preprocessed', 'nnUNet_results'), tempfile.gettempdir()
    )
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    wall_s = time.perf_counter() - began
    return wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('peers', type=Path)
    parser.add_argument('scan', type=Path)
    parser.add_argument('--slices', type=int, default=4)
    parser.add_argument('--classes', type=int, default=114)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--only', default='', help='rows whose name matches')
    options = parser.parse_args()
    image = nib.load(options.scan)
    first = (image.shape[2] - options.slices) // 2
    image = image.slicer[..., first : first + options.slices]
    order = ''.join(nib.aff2axcodes(image.affine))
    print(f'{"x".join(map(str, image.shape))} voxels, {options.classes} classes of MuscleMap')
    print('| program | CPU (s) | wall (s) | peak memory (MB) |\n|---|---|---|---|')
    with tempfile.TemporaryDirectory() as temporary:
        scan = Path(temporary) / 'scan.nii.gz'
        nib.save(image, scan)
        # In a process of its own: the peak memory of a child begins with that of its parent.
        with ProcessPoolExecutor(1, get_context('spawn')) as pool:
            given = options.peers, Path(temporary), scan, options.classes, order
            todo = pool.submit(commands, *given).result()
        for name, command in todo.items():
            if re.search(options.only, name):
                wall_s, cpu_s, peak_mb = run(command, options.threads)
                print(f'| {name} | {cpu_s:.1f} | {wall_s:.0f} | {peak_mb:.0f} |', flush=True)


if __name__ == '__main__':
    main()
