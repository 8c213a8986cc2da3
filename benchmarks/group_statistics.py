"""Time and memory of the statistics of a simulated cohort, and of thresholds on one scan.

    python benchmarks/group_statistics.py --participants 10000

Each part runs in a process of its own, imports counted; memory is its largest resident set.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

MEASURES = {
    'mfi_ratio_of_means_pct': (15, 4),
    'mfi_mean_of_voxels_pct': (14, 4),
    'volume_ml': (60, 12),
    'mean_csa_cm2': (5, 1),
    'max_csa_cm2': (7, 1),
}


def statistics(n: int, sessions: int) -> None:
    """Analyse a cohort with seven muscles, left and right."""
    import numpy as np
    import pandas as pd

    from bids_muscle.statistics.cohort import analyse

    rng = np.random.default_rng(0)
    ids = [f'sub-{i:06d}' for i in range(n)]
    rows = pd.MultiIndex.from_product(
        [ids, [f'ses-{i}' for i in range(sessions)], range(7), ['left', 'right']],
        names=['participant_id', 'session_id', 'muscle', 'side'],
    )
    table = rows.to_frame(index=False)
    table['muscle'] = 'muscle ' + table['muscle'].astype(str)
    table.insert(2, 'region', 'cervical')
    table.insert(3, 'contrast', 'fat+water')
    person = table['participant_id'].str[4:].astype(int).to_numpy()
    people = {
        'age': rng.normal(45, 14, n).round(1),
        'sex': rng.choice(['F', 'M'], n),
        'bmi': rng.normal(26, 4, n).round(1),
    }
    for name, (mean, sd) in MEASURES.items():
        values = mean + sd * (0.6 * rng.normal(size=n)[person] + 0.8 * rng.normal(size=len(table)))
        table[name] = np.char.mod('%.4f', values)
    table['reason'] = 'n/a'
    for name, values in people.items():
        table[name] = values[person].astype(str)
    start = time.perf_counter()
    analyses = analyse(table)
    count = sum(len(each.table) for each in analyses.values())
    print(f'  {count} results in {time.perf_counter() - start:.1f} s without making the cohort')


def thresholds(n_labels: int) -> None:
    """Split muscles of a 320 x 320 x 40 scan, 16,000 voxels each, by all methods."""
    import numpy as np

    from bids_muscle.measurement.methods import THRESHOLDS
    from bids_muscle.measurement.thresholds import threshold_fat

    rng = np.random.default_rng(0)
    values = rng.normal(200, 25, (n_labels, 16_000))
    values[:, :1600] = rng.normal(500, 60, (n_labels, 1600))
    values = np.rint(values)
    for method in THRESHOLDS:
        start = time.perf_counter()
        found = [threshold_fat(each, method).fat_pct for each in values]
        wall = time.perf_counter() - start
        print(f'  {method}: {wall:.3f} s for {n_labels} labels, fat {np.mean(found):.2f} %')


def main() -> None:
    """Run each part in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--participants', type=int, default=10_000)
    parser.add_argument('--part', choices=['cohort', 'sessions', 'thresholds'])
    args = parser.parse_args()
    parts = {
        'cohort': lambda: statistics(args.participants, 1),
        'sessions': lambda: statistics(args.participants, 2),
        'thresholds': lambda: thresholds(8),
    }
    if args.part:
        parts[args.part]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f'  peak {peak / 1e9:.2f} GB')
        return
    for part in parts:
        print(f'{part}:', flush=True)
        start = time.perf_counter()
        command = [sys.executable, __file__, '--part', part]
        subprocess.run([*command, '--participants', str(args.participants)], check=True)
        print(f'  {time.perf_counter() - start:.1f} s as a whole process', flush=True)


if __name__ == '__main__':
    main()
