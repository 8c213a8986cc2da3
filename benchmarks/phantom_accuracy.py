"""Dice, volume and MFI of a model on simulated people that it has not seen, by contrast.

    bids_muscle-phantom PHANTOM --participants 3 --region lumbar --seed 777 \
        --contrasts dixon t1w t2w --artefacts ghosting=0.5 chemical-shift=1 wrap=0.3
    python benchmarks/phantom_accuracy.py PHANTOM [--model NAME_OR_PATH] [--weights 1 2 4]

The truth is that of the phantom: its label maps and `mfi_pct`. `dice_seen` is against the truth
moved as fat is displaced by the chemical shift, which is where a muscle seems to be between fat.
`mfi_difference` is what Weber compares: MFI with the network's labels less MFI with the true ones
in the same images, whose own errors (`mfi_error_true_labels`: noise, ghosts) count for both.
Also used to choose how much a model's background is weighted (`--weights`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from bids_muscle.imaging.prepare import PreparedScan, prepare_scan
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.table import measure_scan
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.statistics.overlap import overlap

#: Frequency between water and fat at 3 T, Hz.
FAT_HZ = 434
#: What is segmented together -> images of the scan.
CONTRASTS = {
    'dixon': {'water': 'acq-dixonwater_T1w', 'fat': 'acq-dixonfat_T1w'},
    'T1w': {'T1w': 'T1w'},
    'T2w': {'T2w': 'T2w'},
}


def read_scans(phantom: Path, region: str) -> Iterator[tuple[str, str, PreparedScan, Path]]:
    """Yield participant, contrast, prepared scan and the start of the names of its truth."""
    for person in sorted(path.name for path in phantom.glob('sub-*')):
        for contrast, names in CONTRASTS.items():
            images = {
                key: nib.load(phantom / person / 'anat' / f'{person}_{name}.nii.gz')
                for key, name in names.items()
            }
            stem = f'{person}_acq-{contrast}_seg-{region}muscles'
            truth = phantom / 'derivatives/truth' / person / 'anat' / stem
            yield person, contrast, prepare_scan(images), truth


def as_seen(truth: Path, image: Path) -> np.ndarray:
    """Return the truth moved by as many whole pixels as fat is in the image (stored order)."""
    reference = nib.load(f'{truth}_dseg.nii.gz')
    sidecar = json.loads(image.with_name(image.name.replace('.nii.gz', '.json')).read_text())
    moved = np.roll(np.asarray(reference.dataobj), round(FAT_HZ / sidecar['PixelBandwidth']), 0)
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(moved, reference.affine)).dataobj)


def score(
    predictor: Predictor, bundle: ModelBundle, contrast: str, scan: PreparedScan, truth: Path
) -> pd.DataFrame:
    """Dice, volume ratio and MFI error of each muscle of a scan, T1w and T2w also as seen."""
    reference = nib.as_closest_canonical(nib.load(f'{truth}_dseg.nii.gz'))
    planted = pd.read_csv(f'{truth}_morph.tsv', sep='\t')
    found = predictor.segment({key: scan.corrected[key] for key in CONTRASTS[contrast]}).labels
    numbers = [label.index for label in bundle.labels]
    counts = overlap(np.asarray(found.dataobj), np.asarray(reference.dataobj), numbers)
    table = pd.DataFrame(
        {
            'muscle': [label.abbreviation for label in bundle.labels],
            'dice': [counts[i].dice for i in numbers],
            'volume_ratio': [counts[i].volume_ratio for i in numbers],
        }
    )
    if contrast != 'dixon':
        person = truth.name.split('_')[0]
        image = (
            truth.parents[4] / person / 'anat' / f'{person}_{CONTRASTS[contrast][contrast]}.nii.gz'
        )
        moved = overlap(np.asarray(found.dataobj), as_seen(truth, image), numbers)
        table['dice_seen'] = [moved[i].dice for i in numbers]
    else:
        signals = {key: scan.images[key] for key in ('water', 'fat')}
        for column, labels in (('mfi_error', found), ('mfi_error_true_labels', reference)):
            measured = measure_scan(labels, bundle.labels, ScanImages(contrast='dixon', **signals))
            mfi = measured.muscles['mfi_ratio_of_means_pct'].to_numpy(dtype=float)
            table[column] = mfi - planted['mfi_pct'].to_numpy(dtype=float)
        table['mfi_difference'] = table['mfi_error'] - table['mfi_error_true_labels']
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('phantom', type=Path)
    parser.add_argument('--region', default='lumbar')
    parser.add_argument('--model', help='name or folder')
    parser.add_argument('--weights', type=float, nargs='+', help='weights of the background')
    options = parser.parse_args()
    bundle = find_model(options.model, options.region)
    scans = list(read_scans(options.phantom, options.region))
    for weight in options.weights or [bundle.background_weight]:
        predictor = Predictor(replace(bundle, background_weight=weight))
        tables = [
            score(predictor, bundle, contrast, scan, truth).assign(contrast=contrast)
            for _, contrast, scan, truth in scans
        ]
        rows = pd.concat(tables)
        for name in ('error', 'difference'):
            rows[f'mfi_abs_{name}'] = rows[f'mfi_{name}'].abs()
        print(f'\nbackground weight {weight:g}\n')
        print(rows.groupby('contrast').mean(numeric_only=True).round(3).to_string())
        print()
        dixon = rows[rows['contrast'] == 'dixon']
        print(dixon.groupby('muscle').mean(numeric_only=True).round(3).to_string(), flush=True)


if __name__ == '__main__':
    main()
