"""Time and memory of the group level over a made-up cohort, statistics included.

    python benchmarks/group_level.py --participants 10000

The outputs of the participant level are written to a temporary folder first (14 muscles a scan,
all columns of the muscle table, no images); then the group level runs as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def write_outputs(output_dir: Path, n: int, sites: Sequence[str] = ()) -> None:
    """Write scan records, tables and data dictionaries of n participants.

    Where there are sites, they and figures of image quality are written too.
    """
    import numpy as np

    from bids_muscle.anatomy.labels import load_label_table
    from bids_muscle.dataset.names import derivative_path
    from bids_muscle.dataset.records import ScanRecord
    from bids_muscle.dataset.scan import Scan
    from bids_muscle.imaging.quality import quality_dictionary
    from bids_muscle.measurement.rows import morph_dictionary

    rng = np.random.default_rng(0)
    columns = morph_dictionary('morph')
    identity = ('index', 'name', 'muscle', 'side', 'reason')
    for i in range(n):
        label = f'{i:06d}'
        scan = Scan((('sub', label), ('acq', 'dixon')), 'T1w', 'cervical', ())
        person = rng.normal()
        lines = ['\t'.join(columns)]
        for muscle in load_label_table('cervical'):
            known = {name: str(getattr(muscle, name)) for name in identity[:-1]}
            known['reason'] = 'n/a'
            values = 10 + person + rng.normal(size=len(columns))
            cells = [
                known.get(
                    name, 'n/a' if name.startswith(('fat_', 'threshold_')) else f'{value:.8g}'
                )
                for name, value in zip(columns, values, strict=True)
            ]
            lines.append('\t'.join(cells))
        path = output_dir / derivative_path(scan, 'morph')
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(lines) + '\n')
        (output_dir / derivative_path(scan, 'morph_json')).write_text(json.dumps(columns))
        if sites:
            figures = {name: rng.normal(10) for name in quality_dictionary()}
            path = output_dir / derivative_path(scan, 'iqm')
            path.write_text(json.dumps({**figures, 'flags': []}))
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


def main() -> None:
    """Write the cohort and run the group level on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--participants', type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output_dir = Path(folder) / 'out'
        write_outputs(output_dir, args.participants)
        start = time.perf_counter()
        command = [sys.executable, '-m', 'bids_muscle', f'{folder}/raw', str(output_dir), 'group']
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, peak_gb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9
        print(
            f'{args.participants} participants: {wall:.1f} s, {cpu:.1f} s of CPU, {peak_gb:.2f} GB'
        )


if __name__ == '__main__':
    main()
