"""The packaged network by PyTorch, ONNX Runtime and OpenVINO, and what a whole scan would gain.

    pip install onnx onnxruntime openvino   # in an environment of its own
    python benchmarks/cpu_backends.py IMAGE [--region lumbar]

One thread each. The network alone is timed on planes of the scan; then the segmentation of the
scan as a process of its own is timed with PyTorch, and what it would take with the network as
fast as the others are is worked out. CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.predictor import Predictor

ROUNDS = 6


def onnx_runtime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the network by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda planes: session.run(None, {'planes': planes})[0]


def openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the network by OpenVINO."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(path, 'CPU', {'INFERENCE_NUM_THREADS': 1})
    return lambda planes: compiled(planes)[0]


def best_cpu_s(run: Callable[[], object]) -> float:
    """CPU time of the quickest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)


def child(image: str, region: str) -> None:
    """Segment an image in this process, and print the CPU seconds spent in the network."""
    torch.set_num_threads(1)
    model = load_model(find_model(None, region))
    spent = 0.0

    def begin(*_: object) -> None:
        nonlocal spent
        spent -= time.process_time()

    def end(*_: object) -> None:
        nonlocal spent
        spent += time.process_time()

    for network in model.networks:
        network.register_forward_pre_hook(begin)
        network.register_forward_hook(end)
    Predictor(model).segment({'image': nib.as_closest_canonical(nib.load(image))})
    print(json.dumps({'network_s': spent, 'process_s': sum(os.times()[:2])}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('image')
    parser.add_argument('--region', default='lumbar')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.image, options.region)
        return
    torch.set_num_threads(1)
    network = load_model(find_model(None, options.region)).networks[0]
    volume = nib.as_closest_canonical(nib.load(options.image)).get_fdata(dtype=np.float32)
    middle = [n // 2 for n in volume.shape]
    x, y = (slice(max(c - 72, 0), max(c - 72, 0) + 144) for c in middle[:2])
    planes = np.moveaxis(volume[x, y, middle[2] - 4 : middle[2] + 4], 2, 0)[:, None]
    planes = np.ascontiguousarray((planes - planes.mean()) / planes.std())
    batch = torch.from_numpy(planes)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder, 'network.onnx')
        torch.onnx.export(network, (batch,), path, input_names=['planes'], dynamo=False)
        backends = {
            'PyTorch': lambda planes: network(torch.from_numpy(planes)).numpy(),
            'ONNX Runtime': onnx_runtime(path),
            'OpenVINO': openvino(path),
        }
        labels = backends['PyTorch'](planes).argmax(1)
        times_s = {
            name: best_cpu_s(lambda run=run: run(planes))  # type: ignore[misc]
            for name, run in backends.items()
        }
        other = {name: run(planes).argmax(1) != labels for name, run in backends.items()}
    command = [sys.executable, __file__, options.image, '--region', options.region, '--child']
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    scan = json.loads(ran.stdout)
    print('| backend | 8 planes of 144x144 (ms) | other labels (%) | whole scan (s) | gain |')
    print('|---|---|---|---|---|')
    for name, seconds in times_s.items():
        faster = seconds / times_s['PyTorch']
        whole_s = scan['process_s'] - scan['network_s'] * (1 - faster)
        print(
            f'| {name} | {1000 * seconds:.0f} | {100 * other[name].mean():.2f} '
            f'| {whole_s:.1f} | {scan["process_s"] / whole_s:.2f} |'
        )


if __name__ == '__main__':
    main()
