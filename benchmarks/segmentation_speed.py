"""Time and memory of the segmentation of one scan as a process of its own, imports included.

    bids_muscle-phantom PHANTOM --participants 1 --region lumbar --seed 1
    python benchmarks/segmentation_speed.py PHANTOM/sub-01/anat/sub-01_acq-dixonwater_T1w.nii.gz \
        [--threads 2] [--device cuda]

Once with the default model, then with its network widened to 113 classes (random weights). CPU
time is what an idle core would take; wall time depends on what else the machine does. "Once
loaded" is the shortest of three scans in the same process after the first; slices a second are
those of the network alone, the planes of the scan in batches.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace

MANY = 113


def child(paths: list[str], classes: int, threads: int, device: str) -> None:
    """Segment the images, and print how."""
    import nibabel as nib
    import torch

    from bids_muscle.segmentation.catalogue import find_model, load_model
    from bids_muscle.segmentation.networks import build_network
    from bids_muscle.segmentation.predictor import Predictor

    torch.set_num_threads(threads)
    bundle = find_model(None, 'lumbar')
    model = load_model(bundle)
    if classes:
        torch.manual_seed(0)
        network = build_network({**bundle.network, 'out_channels': classes}).eval()
        numbers = tuple(range(classes))
        model = replace(model, networks=(network,), numbers=numbers, mirrored=None)
    images = {f'image {i}': nib.as_closest_canonical(nib.load(p)) for i, p in enumerate(paths)}
    began = time.process_time()
    predictor = Predictor(model, device)
    found = predictor.segment(images)
    print(json.dumps({**found.record(), 'predictor_cpu_s': time.process_time() - began}))


def loaded(paths: list[str], threads: int, device: str) -> tuple[float, float]:
    """Return seconds a scan once all is loaded, and slices a second of the network alone."""
    import nibabel as nib
    import torch

    from bids_muscle.segmentation.catalogue import find_model
    from bids_muscle.segmentation.predictor import Predictor

    torch.set_num_threads(threads)
    predictor = Predictor(find_model(None, 'lumbar'), device)
    images = {f'image {i}': nib.as_closest_canonical(nib.load(p)) for i, p in enumerate(paths)}
    batch = predictor.segment(images).compute.batch_size
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        predictor.segment(images)
        seconds.append(time.perf_counter() - began)
    network, window = predictor.model.networks[0], predictor.model.least_px
    planes, on_gpu = torch.rand(batch, 1, window[0], window[1]).to(device), device != 'cpu'
    with torch.inference_mode(), torch.autocast('cuda', torch.float16, enabled=on_gpu):
        network(planes).sum().item()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 5:
            network(planes).argmax(1).sum().item()
            count += batch
    return min(seconds), count / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', nargs='+', help='images of one scan, on one grid')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument('--classes', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.classes is not None:
        child(options.images, options.classes, options.threads, options.device)
        return
    print('| classes | wall (s) | CPU (s) | of it in the predictor | peak memory (MB) | batch |')
    print('|---|---|---|---|---|---|')
    for classes in (0, MANY):
        command = [sys.executable, __file__, *options.images]
        command += ['--classes', str(classes), '--threads', str(options.threads)]
        command += ['--device', options.device]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        wall_s = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        record = json.loads(ran.stdout)
        print(
            f'| {classes or "default"} | {wall_s:.1f} | {cpu_s:.1f} '
            f'| {record["predictor_cpu_s"]:.1f} | {after.ru_maxrss / 1024:.0f} '
            f'| {record["batch_size"]} |',
            flush=True,
        )
    scan_s, slices = loaded(options.images, options.threads, options.device)
    print(f'\nDefault model, once loaded: {scan_s:.2f} s a scan; network {slices:.0f} slices/s.')


if __name__ == '__main__':
    main()
