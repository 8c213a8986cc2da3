"""Dice of a model against the labelled scans of the data folder.

    python benchmarks/segmentation_accuracy.py --data ../shared/data [--model NAME_OR_PATH ...]

The scans are prepared as in the application (N4, one grid) and each model segments every image
alone and, where a scan has several, all together. Prints one Markdown table per scan.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.segmentation.bundle import find_model
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


def measure(predictor: Predictor, data: Path, scan: Labelled) -> dict[str, dict[int, float]]:
    """Dice per label for each image alone and for all together."""
    from bids_muscle.imaging.prepare import prepare_scan

    truth = read_reference(data, scan)
    images = {name: nib.load(data / path) for name, path in scan.images.items()}
    corrected = prepare_scan(images).corrected
    choices = {name: {name: corrected[name]} for name in scan.images}
    if len(choices) > 1:
        choices['+'.join(scan.images)] = {name: corrected[name] for name in scan.images}
    scores = {}
    for name, chosen in choices.items():
        began = time.perf_counter()
        found = np.asarray(predictor.segment(chosen).labels.dataobj)
        seconds = time.perf_counter() - began
        counts = overlap(found, truth, list(scan.codes.values()))
        scores[name] = {label: count.dice for label, count in counts.items()}
        scores[name][0] = seconds
    return scores


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--model', nargs='*', default=[None], help='name or folder')
    options = parser.parse_args()
    for model in options.model:
        bundle = find_model(model, 'lumbar')
        predictor = Predictor(bundle)
        for scan in SCANS:
            print(f'\n{bundle.name} {bundle.version} on {scan.name}\n')
            short = {label.index: f'{label.abbreviation} {label.side}' for label in bundle.labels}
            labels = sorted(scan.codes.values())
            print('| images | ' + ' | '.join(short[i] for i in labels) + ' | mean | time (s) |')
            print('|---' * (len(labels) + 3) + '|')
            for name, score in measure(predictor, options.data, scan).items():
                values = [score[label] for label in labels]
                row = [f'{v:.3f}' for v in [*values, float(np.nanmean(values))]]
                print(f'| {name} | ' + ' | '.join(row) + f' | {score[0]:.1f} |', flush=True)


if __name__ == '__main__':
    main()
