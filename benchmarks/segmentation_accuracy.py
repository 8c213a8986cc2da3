"""Dice, volume and MFI of a model against the labelled scans of the data folder.

    python benchmarks/segmentation_accuracy.py --data ../shared/data [--model NAME_OR_PATH ...] \
        [--weights 1 2 3]

The scans are prepared as in the application (N4, one grid) and each model segments every image
alone and, where a scan has several, all together. Prints one Markdown table per scan: Dice, the
volume as a share of the reference's, and from water and fat MFI less MFI by the reference.
`--weights` are weights of the background instead of the model's.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.measurement.images import ScanImages
from bids_muscle.measurement.table import measure_scan
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.statistics.overlap import overlap


@dataclass(frozen=True)
class Labelled:
    """A scan with a reference: image by contrast, label map, reference number -> our number."""

    name: str
    images: dict[str, str]
    reference: str
    codes: dict[int, int]


SCANS = (
    Labelled(
        'dixon-lumbar (expert labels)',
        {
            'water': 'dixon-lumbar/sub-TUM01/anat/sub-TUM01_acq-dixonwater_T1w.nii.gz',
            'fat': 'dixon-lumbar/sub-TUM01/anat/sub-TUM01_acq-dixonfat_T1w.nii.gz',
        },
        'dixon-lumbar/derivatives/manual/sub-TUM01/anat/'
        'sub-TUM01_acq-dixonwater_seg-paraspinal_dseg.nii.gz',
        {1: 3, 2: 1, 3: 2, 4: 4},
    ),
    Labelled(
        'oblique-lumbar (labels of a model)',
        {'T2w': 'oblique-lumbar/sub-0001/anat/sub-0001_T2w.nii.gz'},
        'oblique-lumbar/derivatives/model/sub-0001/anat/sub-0001_seg-paraspinal_dseg.nii.gz',
        {label: label for label in range(1, 9)},
    ),
)


def read_reference(data: Path, scan: Labelled) -> np.ndarray:
    """Read the reference map in RAS order with the numbers of our label table."""
    image = nib.as_closest_canonical(nib.load(data / scan.reference))
    codes = np.rint(np.asarray(image.dataobj)).astype(int)
    out = np.zeros(codes.shape, dtype=np.uint8)
    for code, label in scan.codes.items():
        out[codes == code] = label
    return out


def measure(
    predictor: Predictor, bundle: ModelBundle, images: dict[str, dict], truth: nib.Nifti1Image
) -> dict[str, pd.DataFrame]:
    """Dice, volume ratio and difference of MFI by label, for each image alone and for all."""
    corrected = images['corrected']
    choices = {name: {name: image} for name, image in corrected.items()}
    if len(choices) > 1:
        choices['+'.join(corrected)] = corrected
    reference = np.asarray(truth.dataobj)
    labels = [int(n) for n in np.unique(reference) if n]
    tables = {}
    for name, chosen in choices.items():
        began = time.perf_counter()
        found = predictor.segment(chosen).labels
        seconds = time.perf_counter() - began
        counts = overlap(np.asarray(found.dataobj), reference, labels)
        table = pd.DataFrame(
            {
                'Dice': [counts[i].dice for i in labels],
                'volume ratio': [counts[i].volume_ratio for i in labels],
            },
            index=labels,
        )
        if 'fat' in corrected:
            table['MFI difference'] = mfi(found, bundle, images) - mfi(truth, bundle, images)
        tables[f'{name} ({seconds:.1f} s)'] = table
    return tables


def mfi(labels: nib.Nifti1Image, bundle: ModelBundle, images: dict[str, dict]) -> pd.Series:
    """MFI of each muscle by its number, percent."""
    signals = {key: images['uncorrected'][key] for key in ('water', 'fat')}
    muscles = measure_scan(labels, bundle.labels, ScanImages(contrast='dixon', **signals)).muscles
    return muscles.set_index('index')['mfi_ratio_of_means_pct'].astype(float)


def read_images(data: Path, scan: Labelled) -> dict[str, dict[str, nib.Nifti1Image]]:
    """Images as the network sees them, and as MFI is measured in them."""
    prepared = prepare_scan({name: nib.load(data / path) for name, path in scan.images.items()})
    return {
        'corrected': {name: prepared.corrected[name] for name in scan.images},
        'uncorrected': {name: prepared.images[name] for name in scan.images},
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--model', nargs='*', default=[None], help='name or folder')
    parser.add_argument('--weights', type=float, nargs='*', default=[], help='of the background')
    options = parser.parse_args()
    for scan in SCANS:
        images = read_images(options.data, scan)
        like = next(iter(images['corrected'].values()))
        truth = nib.Nifti1Image(read_reference(options.data, scan), like.affine)
        for model in options.model:
            bundle = find_model(model, 'lumbar')
            short = {each.index: f'{each.abbreviation} {each.side}' for each in bundle.labels}
            for weight in options.weights or [bundle.background_weight]:
                print(f'\n{bundle.name} {bundle.version}, weight {weight:g}, on {scan.name}\n')
                predictor = Predictor(replace(bundle, background_weight=weight))
                found = measure(predictor, bundle, images, truth)
                names = [short[i] for i in sorted(scan.codes.values())]
                print('| images | measure | ' + ' | '.join(names) + ' | mean |')
                print('|---' * (len(names) + 3) + '|')
                for name, table in found.items():
                    for column in table:
                        values = [*table[column], table[column].mean()]
                        cells = ' | '.join(f'{value:.3f}' for value in values)
                        print(f'| {name} | {column} | {cells} |', flush=True)


if __name__ == '__main__':
    main()
