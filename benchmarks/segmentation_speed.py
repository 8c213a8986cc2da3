"""Time and memory of the segmentation of one scan as a process of its own, imports included.

    bids_muscle-phantom PHANTOM --participants 1 --region lumbar --seed 1
    python benchmarks/segmentation_speed.py PHANTOM/sub-01/anat/sub-01_acq-dixonwater_T1w.nii.gz

Once with the default model, then with its network widened to 113 classes (random weights). CPU
time is what an idle core would take; wall time depends on what else the machine does.
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


def child(paths: list[str], classes: int, threads: int) -> None:
    """Segment the images, and print how."""
    import nibabel as nib
    import torch

    from bids_muscle.segmentation.bundle import find_model
    from bids_muscle.segmentation.model import load_model
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
    found = Predictor(model).segment(images)
    print(json.dumps({**found.record(), 'predictor_cpu_s': time.process_time() - began}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('images', nargs='+', help='images of one scan, on one grid')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--classes', type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.classes is not None:
        child(options.images, options.classes, options.threads)
        return
    print('| classes | wall (s) | CPU (s) | of it in the predictor | peak memory (MB) | batch |')
    print('|---|---|---|---|---|---|')
    for classes in (0, MANY):
        command = [sys.executable, __file__, *options.images]
        command += ['--classes', str(classes), '--threads', str(options.threads)]
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


if __name__ == '__main__':
    main()
