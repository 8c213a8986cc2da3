"""What a GPU must show before it is relied on, in one table for docs/benchmarks.md.

    make gpu-check
    python benchmarks/gpu_check.py [--device cpu] [--shape 320 320 40]

A simulated Dixon scan is segmented on the CPU and on the device, with less and less memory; two
processes ask for the same GPU; the slices a second of the network are counted; the scan goes
through the participant level. No check begins after seven minutes. `--device cpu` tries the script
itself where there is no GPU. It ends with 1 where an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from segmentation_speed import loaded

from bids_muscle.engine.lease import lease_gpu
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor

#: No check begins later, s.
LATEST_S = 420.0
#: Aims: labels that differ between CPU and GPU (%), slices a second, seconds of a scan.
DIFFERENT_PCT, SLICES_A_SECOND, SCAN_S = 0.1, 2000.0, 1.0
#: Shares of the GPU's memory that the segmentation must do with.
SHARES = (1.0, 0.02, 0.005)

#: What was found, the aim, and whether it is met; None where there is none.
Outcome = tuple[str, str, bool | None]


def segment(images: Mapping[str, nib.Nifti1Image], device: str) -> tuple[np.ndarray, dict]:
    """Return the label map of a scan and how it was computed."""
    found = Predictor(find_model(None, 'lumbar'), device).segment(images)
    return np.asarray(found.labels.dataobj), found.record()


def parity(images: Mapping[str, nib.Nifti1Image], device: str) -> Outcome:
    """Compare the label map with that of the CPU."""
    expected, _ = segment(images, 'cpu')
    labels, _ = segment(images, device)
    pct = 100 * np.mean((labels != expected)[(labels > 0) | (expected > 0)])
    return f'{pct:.3f} %', f'at most {DIFFERENT_PCT:g} %', bool(pct <= DIFFERENT_PCT)


def memory(images: Mapping[str, nib.Nifti1Image], device: str) -> Outcome:
    """Segment with less and less memory of the GPU: slower, not other labels."""
    if device == 'cpu':
        return 'no GPU', '', None
    total_mb = torch.cuda.get_device_properties(device).total_memory / 1e6
    ways, same, first = [], True, None
    try:
        for share in SHARES:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(share, device)
            labels, record = segment(images, device)
            first = labels if first is None else first
            same &= bool(np.mean((labels != first)[first > 0]) < DIFFERENT_PCT / 100)
            ways.append(f'{share * total_mb:.0f} MB: {record["device"]}, {record["batch_size"]}')
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return '; '.join(ways), 'the same labels', same


def lease(device: str) -> Outcome:
    """Let another process ask for the GPU that this one holds, and again once it is given back."""
    name = 'cuda:0' if device in ('cpu', 'cuda') else device
    code = (
        f'from bids_muscle.engine.lease import lease_gpu; print(lease_gpu({name!r}) is not None)'
    )

    def other_gets_it() -> bool:
        ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        return ran.stdout.strip() == 'True'

    held = lease_gpu(name)
    if held is None:
        return 'held by another run', 'free', False
    during = other_gets_it()
    held.give_back()
    after = other_gets_it()
    said = (
        f'{"given" if during else "refused"} while held, {"given" if after else "refused"} after'
    )
    return said, 'refused, then given', not during and after


def speed(paths: list[str], device: str) -> Outcome:
    """Time a scan once all is loaded, and count the slices a second of the network."""
    scan_s, slices = loaded(paths, 1, device)
    return (
        f'{slices:.0f} slices/s, {scan_s:.2f} s a scan',
        f'{SLICES_A_SECOND:.0f} slices/s, {SCAN_S:g} s',
        slices >= SLICES_A_SECOND and scan_s <= SCAN_S,
    )


def participant(bids_dir: Path, output_dir: Path, device: str) -> Outcome:
    """Run the participant level on the scan."""
    command = [sys.executable, '-m', 'bids_muscle', str(bids_dir), str(output_dir), 'participant']
    began = time.perf_counter()
    ran = subprocess.run([*command, '--device', device], capture_output=True, text=True)
    spent_s = time.perf_counter() - began
    records = [json.loads(path.read_text()) for path in output_dir.glob('logs/sub-*/sub-*.json')]
    used = [record.get('device') for record in records]
    on_it = bool(used) and all(device.split(':')[0] in str(each) for each in used)
    said = f'exit code {ran.returncode}, {spent_s:.0f} s, on {", ".join(map(str, used))}'
    return said, 'exit code 0 on the device', ran.returncode == 0 and on_it


def main() -> int:
    """Print the table; return 0 if all aims are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda', help='cuda (default), cuda:N, or cpu')
    parser.add_argument('--shape', nargs=3, default=['320', '320', '40'])
    parser.add_argument('--voxel-size', nargs=3, default=['0.8', '0.8', '4'])
    options = parser.parse_args()
    device = options.device
    if device != 'cpu' and not torch.cuda.is_available():
        print('No CUDA GPU is at hand. Run make gpu-check on a machine with an NVIDIA GPU.')
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bids_dir = Path(folder) / 'bids'
        words = [
            '--participants',
            '1',
            '--region',
            'lumbar',
            '--contrasts',
            'dixon',
            '--seed',
            '1',
        ]
        words += ['--shape', *options.shape, '--voxel-size', *options.voxel_size]
        command = [sys.executable, '-m', 'bids_muscle.cli.phantom', str(bids_dir), *words]
        subprocess.run(command, check=True, capture_output=True)
        paths = {
            name: bids_dir / f'sub-01/anat/sub-01_acq-dixon{name}_T1w.nii.gz'
            for name in ('water', 'fat')
        }
        images = {name: nib.as_closest_canonical(nib.load(path)) for name, path in paths.items()}
        checks: dict[str, Callable[[], Outcome]] = {
            'labels that differ from the CPU': lambda: parity(images, device),
            'less memory: device and batch': lambda: memory(images, device),
            'lease, second process': lambda: lease(device),
            'speed, default model': lambda: speed([str(paths['water'])], device),
            'one participant': lambda: participant(bids_dir, Path(folder) / 'out', device),
        }
        name = 'CPU' if device == 'cpu' else torch.cuda.get_device_name(device)
        print(f'{name}, torch {torch.__version__}, scan of {"x".join(options.shape)} voxels\n')
        print('| check | found | aim | met |\n|---|---|---|---|')
        met = []
        for title, check in checks.items():
            if time.monotonic() - began > LATEST_S:
                outcome: Outcome = 'not run: seven minutes are over', '', False
            else:
                outcome = check()
            found, aim, ok = outcome
            met.append(ok is not False)
            print(f'| {title} | {found} | {aim} | {"" if ok is None else "yes" if ok else "no"} |')
    print(f'\n{time.monotonic() - began:.0f} s in all.')
    return 0 if all(met) else 1


if __name__ == '__main__':
    sys.exit(main())
