"""Time until a scan of 320x320x40 voxels and its labels are on screen in the editor.

    python benchmarks/editor.py [--runs 3] [--size 320 320 40]

A server on this computer and a real Chromium without a GPU (WebGL by SwiftShader), from the click
on a link until all that was drawn is in the canvas. The first run of each browser has an empty
cache; the others find the programs of the page in it, as all scans of a reader but the first do.
CPU seconds are those of the processes of the browser and of the server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright
from waitress.server import create_server

from bids_muscle.dataset.names import dataset_path, derivative_path
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_image, write_json
from bids_muscle.review.access import LOOPBACK
from bids_muscle.review.server import create_app
from bids_muscle.review.state import ReviewState

SCAN = Scan((('sub', '1'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
VOXEL_MM = (1.0, 1.0, 4.0)
SOFTWARE_GL = ('--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader')
#: Reading a pixel waits for all that was drawn.
FINISH = """() => {
  const { gl } = editor.nv;
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
}"""


def write_scan(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write the outputs of a finished scan: noise, and eight rods of muscle in it."""
    rng = np.random.default_rng(0)
    water = derivative_path(SCAN, 'preproc', contrast='water')
    record = ScanRecord(
        participant='1',
        session=None,
        scan=SCAN.name,
        region='lumbar',
        status='done',
        outputs=(str(water),),
    )
    write_record(record, SCAN, folder)
    x, y, _ = np.indices(shape)
    labels = np.zeros(shape, np.uint8)
    for number in range(8):
        middle = shape[0] * (2 + number % 4 * 2) / 10, shape[1] * (3 + number // 4 * 2) / 10
        labels[np.hypot(x - middle[0], y - middle[1]) < shape[0] / 14] = number + 1
    image = rng.rayleigh(100, shape) + 800 * (labels > 0)
    affine = np.diag([*VOXEL_MM, 1.0])
    write_image(nib.Nifti1Image(image.astype(np.float32), affine), folder / water)
    write_image(nib.Nifti1Image(labels, affine), folder / derivative_path(SCAN, 'dseg'))
    write_json({'Manual': False}, folder / derivative_path(SCAN, 'dseg_json'))
    write_json({}, folder / dataset_path('description'))


def cpu_s() -> tuple[float, float]:
    """Return the CPU seconds of the browser's processes and of this one, the server."""
    own = psutil.Process()
    browser = [each.cpu_times() for each in own.children(recursive=True)]
    spent = own.cpu_times()
    return sum(each.user + each.system for each in browser), spent.user + spent.system


def open_editor(page: Page, address: str) -> tuple[float, float, float]:
    """Open the scan; return wall seconds, and CPU seconds of browser and server."""
    page.goto('about:blank')
    before, start = cpu_s(), time.perf_counter()
    page.goto(f'{address}edit/{SCAN.name}', wait_until='commit')
    page.wait_for_selector('html[data-ready=yes]', state='attached')
    page.evaluate(FINISH)
    wall_s, after = time.perf_counter() - start, cpu_s()
    return wall_s, after[0] - before[0], after[1] - before[1]


def main() -> None:
    """Print the times of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--size', type=int, nargs=3, default=(320, 320, 40))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name).resolve()
        write_scan(folder, tuple(options.size))
        review = ReviewState(folder, LOOPBACK)
        server = create_server(create_app(review), host=LOOPBACK[0], port=0, threads=8)
        threading.Thread(target=server.run, daemon=True).start()
        address = f'http://{LOOPBACK[0]}:{server.effective_port}/'
        browser = driver.chromium.launch(
            executable_path=os.environ.get('BIDS_MUSCLE_CHROMIUM', shutil.which('chromium')),
            args=[*SOFTWARE_GL, '--enable-unsafe-swiftshader'],
        )
        page = browser.new_page(viewport={'width': 1400, 'height': 900})
        page.set_default_timeout(300_000)
        page.goto(f'{address}?token={review.tokens.next}')
        page.wait_for_url('**/group_review.html*')
        for number in range(options.runs):
            load = os.getloadavg()[0]
            wall_s, browser_s, server_s = open_editor(page, address)
            print(
                f'run {number + 1}: {wall_s:.1f} s; CPU: browser {browser_s:.1f} s, '
                f'server {server_s:.2f} s; load {load:.1f} on {os.cpu_count()} CPUs',
                flush=True,
            )
        browser.close()
        server.close()


if __name__ == '__main__':
    main()
