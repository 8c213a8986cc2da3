"""Size of a participant page and time to its first paint, for ten scans, in a real Chromium.

    python benchmarks/pages.py OUTPUTS [--scans 10]

OUTPUTS is what the participant level wrote. Its first finished scan is taken as many times as
asked for, as sessions of one participant; the page is made from these and opened from disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from bids_muscle.dataset.records import read_records
from bids_muscle.reports.participant import write_participant_report

RUNS = 3
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"

TO_SCROLLER = "document.querySelector('.viewer').previousElementSibling.scrollIntoView()"


def multiply(outputs: Path, target: Path, count: int) -> str:
    """Copy the outputs of one scan as sessions of its participant, and return their label."""
    record = next(each for each in read_records(outputs) if each.status == 'done')
    label = record.participant
    rest = record.scan.removeprefix(f'sub-{label}')
    for number in range(count):
        scan = f'sub-{label}_ses-{number:02d}{rest}'
        for path in (outputs / f'sub-{label}').rglob(f'{record.scan}_*'):
            if path.name.endswith('.nii.gz'):
                continue
            folder = f'sub-{label}/' + (
                'figures' if path.parent.name == 'figures' else f'ses-{number:02d}/anat'
            )
            copy = target / folder / path.name.replace(record.scan, scan)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        content = {**record.as_dict(), 'scan': scan, 'session': f'{number:02d}', 'outputs': []}
        place = target / f'logs/sub-{label}/{scan}.json'
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(content))
    return label


def main() -> None:
    """Print the size, the time to make the page and to its first paint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('outputs', type=Path)
    parser.add_argument('--scans', type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        target = Path(folder)
        label = multiply(options.outputs, target, options.scans)
        start = time.process_time()
        page = write_participant_report(target, label)
        made_s = time.process_time() - start
        browser = driver.chromium.launch(
            executable_path=os.environ.get('BIDS_MUSCLE_CHROMIUM', shutil.which('chromium')),
            args=['--no-sandbox', '--disable-gpu'],
        )
        paints, ready = [], []
        for _ in range(RUNS):
            tab = browser.new_page(viewport={'width': 1300, 'height': 900})
            tab.goto(page.as_uri())
            paints.append(tab.evaluate(FIRST_PAINT) / 1000)
            start = time.perf_counter()
            tab.evaluate(TO_SCROLLER)
            tab.wait_for_selector('.viewer[data-ready]')
            ready.append(time.perf_counter() - start)
            tab.close()
        browser.close()
        size_mb = page.stat().st_size / 1e6
    print(f'{options.scans} scans: {size_mb:.1f} MB, {size_mb / options.scans:.2f} MB a scan')
    print(f'made in {made_s:.2f} s of CPU')
    print(f'first paint {statistics.median(paints):.2f} s, {max(paints):.2f} s at most')
    print(f'a scroller ready {statistics.median(ready):.2f} s after one scrolls to it')
    print(f'load of the machine {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()
