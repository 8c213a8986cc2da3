"""Time and memory of the group level over a made-up cohort, statistics included.

    python benchmarks/group_level.py --participants 10000

The outputs of the participant level are written to a temporary folder first (14 muscles a scan,
all columns of the muscle table, image quality, predicted Dice, no images); then the group level
runs three times, each as a process of its own: at first, again, and with some people more.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bids_muscle.anatomy.labels import Label

_PR_SET_CHILD_SUBREAPER = 36


def write_outputs(output_dir: Path, n: int, sites: Sequence[str] = (), *, first: int = 0) -> None:
    """Write scan records, tables and sidecars of n participants, the first of which has a number.

    Where there are sites, each participant has one.
    """
    import numpy as np

    from bids_muscle.anatomy.labels import load_label_table
    from bids_muscle.dataset.names import derivative_path
    from bids_muscle.dataset.records import ScanRecord
    from bids_muscle.dataset.scan import Scan
    from bids_muscle.imaging.quality import quality_dictionary
    from bids_muscle.measurement.rows import morph_dictionary

    rng = np.random.default_rng(first)
    columns, table = morph_dictionary('morph'), list(load_label_table('cervical'))
    definitions, qualities = json.dumps(columns), list(quality_dictionary())
    rows = [_row_format(muscle, columns) for muscle in table]
    numbers = rows[0].count('%')
    for i in range(first, first + n):
        label = f'{i:06d}'
        scan = Scan((('sub', label), ('acq', 'dixon')), 'T1w', 'cervical', ())
        values = 10 + rng.normal() + rng.normal(size=(len(rows), numbers))
        of_rows = zip(rows, values.tolist(), strict=True)
        lines = ['\t'.join(columns), *(row % tuple(cells) for row, cells in of_rows)]
        path = output_dir / derivative_path(scan, 'morph')
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(lines) + '\n')
        (output_dir / derivative_path(scan, 'morph_json')).write_text(definitions)
        figures = dict(zip(qualities, rng.normal(10, size=len(qualities)), strict=True))
        path = output_dir / derivative_path(scan, 'iqm')
        path.write_text(json.dumps({**figures, 'flags': []}))
        dice = {muscle.name: round(float(rng.uniform(0.8, 0.95)), 3) for muscle in table}
        path = output_dir / derivative_path(scan, 'dseg_json')
        path.write_text(json.dumps({'PredictedDice': dice}))
        record = ScanRecord(
            participant=label,
            session=None,
            scan=scan.name,
            region='cervical',
            status='done',
            inputs={'water': 'water.nii.gz', 'fat': 'fat.nii.gz'},
            participant_info={
                'age': f'{rng.normal(45, 14):.1f}',
                'sex': str(rng.choice(['F', 'M'])),
                'bmi': f'{rng.normal(26, 4):.1f}',
                **({'site': str(rng.choice(sites))} if sites else {}),
            },
        )
        path = output_dir / derivative_path(scan, 'record')
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record.as_dict()))


def _row_format(muscle: Label, columns: Iterable[str]) -> str:
    """Return a row of a muscle table with places for its numbers."""
    known = {name: str(getattr(muscle, name)) for name in ('index', 'name', 'muscle', 'side')}
    known |= {'reason': 'n/a', 'extent': 'scan'}
    # No scan has both thresholds and water and fat.
    cells = ('n/a' if name.startswith(('fat_', 'threshold_')) else '%.8g' for name in columns)
    pairs = zip(columns, cells, strict=True)
    return '\t'.join(known.get(name, cell) for name, cell in pairs)


def measure(what: str, folder: Path) -> None:
    """Run the group level as a process of its own and print what it took."""
    command = [sys.executable, '-m', 'bids_muscle', f'{folder}/raw', f'{folder}/out', 'group']
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f'the group level ended with status {status}')
    wall_s, cpu_s = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    with suppress(ChildProcessError):
        while True:  # the server of the processes that read, which are gone before the peak
            *_, server = os.wait3(0)
            cpu_s += server.ru_utime + server.ru_stime
    peak_gb = usage.ru_maxrss * 1024 / 1e9
    print(f'{what}: {wall_s:.1f} s, {cpu_s:.1f} s of CPU, {peak_gb:.2f} GB', flush=True)


def main() -> None:
    """Write the cohort, run the group level on it, and again with some people more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--participants', type=int, default=10_000)
    parser.add_argument('--new', type=int, default=100, help='participants added for the last run')
    args = parser.parse_args()
    # Processes whose parent has ended are those of this one, so that they count.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_outputs(folder / 'out', args.participants)
        time.sleep(3)  # files that have just changed are not kept
        measure(f'{args.participants} participants, nothing kept', folder)
        measure('again', folder)
        write_outputs(folder / 'out', args.new, first=args.participants)
        time.sleep(3)
        measure(f'{args.new} participants more', folder)


if __name__ == '__main__':
    main()
