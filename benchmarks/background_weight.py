"""Choose how much a model's background is weighted, on simulated people it has not seen.

    bids_muscle-phantom PHANTOM --participants 2 --region lumbar --seed 1
    python benchmarks/background_weight.py PHANTOM [--model NAME_OR_PATH]

Prints mean Dice, volume ratio and MFI bias over the muscles for each weight.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.measurement.table import measure_scan
from bids_muscle.segmentation.bundle import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.statistics.overlap import overlap

WEIGHTS = (1, 2, 3, 4, 6, 8)
SCAN = '{0}/anat/{0}_acq-dixon'


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('phantom', type=Path)
    parser.add_argument('--model', help='name or folder')
    options = parser.parse_args()
    bundle = find_model(options.model, 'lumbar')
    people = sorted(path.name for path in options.phantom.glob('sub-*'))
    scans = []
    for person in people:
        stem = SCAN.format(person)
        images = {
            name: nib.load(options.phantom / f'{stem}{name}_T1w.nii.gz')
            for name in ('water', 'fat')
        }
        truth = options.phantom / f'derivatives/truth/{stem}_seg-lumbarmuscles_dseg.nii.gz'
        scans.append((prepare_scan(images), nib.as_closest_canonical(nib.load(truth))))
    print('| weight | Dice | volume ratio | MFI bias (points) |\n|---|---|---|---|')
    for weight in WEIGHTS:
        predictor = Predictor(replace(bundle, background_weight=weight))
        rows = []
        for prepared, truth in scans:
            found = predictor.segment(
                {name: prepared.corrected[name] for name in ('water', 'fat')}
            ).labels
            counts = overlap(np.asarray(found.dataobj), np.asarray(truth.dataobj), range(1, 9))
            mfi = [
                measure_scan(
                    labels,
                    bundle.labels,
                    water=prepared.images['water'],
                    fat=prepared.images['fat'],
                    contrast='dixon',
                )
                .muscles['mfi_ratio_of_means_pct']
                .to_numpy(dtype=float)
                for labels in (found, truth)
            ]
            rows += [
                (count.dice, count.volume_ratio, error)
                for count, error in zip(counts.values(), mfi[0] - mfi[1], strict=True)
            ]
        dice, ratio, bias = np.mean(rows, axis=0)
        print(f'| {weight} | {dice:.3f} | {ratio:.2f} | {bias:+.1f} |', flush=True)


if __name__ == '__main__':
    main()
