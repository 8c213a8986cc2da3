"""Heights of discs through the sagittal network, against the true label maps of a phantom.

    bids_muscle-phantom PHANTOM --participants 4 --seed 555 --region lumbar --plane sagittal \
        --contrasts t1w t2w
    python benchmarks/disc_heights.py PHANTOM [--model MODEL]
    python benchmarks/disc_heights.py PHANTOM --planted

With --planted the true maps alone are measured, against the heights that the phantom planted.
Else both maps are measured alike. Prints by disc the mean difference and mean absolute
difference of the height of the rectangle and of that by area, of the centroid, and the Dice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from bids_muscle.imaging.conform import load_image, make_image, to_canonical
from bids_muscle.measurement.spine import measure_spine
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.vertebrae import name_spine

#: Discs in the true maps of the phantom.
DISCS = dict(enumerate(('T12-L1', 'L1-L2', 'L2-L3', 'L3-L4', 'L4-L5', 'L5-S1'), start=101))
MEASURES = ('height_mm', 'mean_height_mm')


def _print_planted(phantom: Path) -> None:
    """Print both heights of true label maps less the planted height, by disc."""
    rows = []
    for path in sorted(phantom.glob('derivatives/truth/sub-*/anat/*_seg-lumbarspine_dseg.nii.gz')):
        truth = nib.load(path)
        drawn = np.asarray(truth.dataobj)
        discs = make_image(np.where(drawn > 100, drawn, 0), truth.affine)
        found = measure_spine(None, (discs, DISCS)).set_index('name')
        planted = pd.read_csv(
            path.with_name(path.name.replace('_dseg.nii.gz', '_morph.tsv')), sep='\t'
        ).set_index('name')['height_mm']
        rows += [
            {'disc': name, 'planted_mm': planted[name]}
            | {key: found.loc[name, key] - planted[name] for key in MEASURES}
            for name in DISCS.values()
        ]
    table = pd.DataFrame(rows)
    print(table.groupby('disc', sort=False).mean().round(2).to_string())
    errors = table[list(MEASURES)]
    print(f'bias {errors.mean().round(2).to_dict()}')
    print(f'mean absolute error {errors.abs().mean().round(2).to_dict()}')


def main() -> None:
    """Segment, measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('phantom', type=Path)
    parser.add_argument('--model')
    parser.add_argument('--planted', action='store_true')
    arguments = parser.parse_args()
    if arguments.planted:
        _print_planted(arguments.phantom)
        return
    bundle = find_model(arguments.model, 'spine')
    predictor = Predictor(bundle)
    rows = []
    for path in sorted(arguments.phantom.glob('sub-*/anat/*_T?w.nii.gz')):
        person, contrast = path.name.removesuffix('.nii.gz').split('_')
        image = to_canonical(load_image(path))
        found = predictor.segment({contrast: make_image(image.get_fdata(), image.affine)})
        classes, confidence = (np.asarray(i.dataobj) for i in (found.labels, found.confidence))
        spine = name_spine(classes, confidence, image.header.get_zooms()[:3])
        folder = arguments.phantom / 'derivatives/truth' / person / 'anat'
        truth = to_canonical(
            nib.load(folder / f'{person}_acq-{contrast}_seg-lumbarspine_dseg.nii.gz')
        )
        drawn = np.asarray(truth.dataobj)
        labels = {
            'mine': (make_image(spine.discs, image.affine), spine.names),
            'true': (make_image(np.where(drawn > 100, drawn, 0), image.affine), DISCS),
        }
        tables = {key: measure_spine(None, each).set_index('name') for key, each in labels.items()}
        numbers = {name: number for number, name in spine.names.items()}
        for number, name in DISCS.items():
            if name not in tables['mine'].index:
                print(f'{path.name}: {name} not found')
                continue
            mine, true = (tables[key].loc[name] for key in ('mine', 'true'))
            inside = (spine.discs == numbers[name]), (drawn == number)
            places = [[row[f'{axis}_ras_mm'] for axis in 'xyz'] for row in (mine, true)]
            rows.append(
                {'contrast': contrast, 'disc': name, 'true_mm': true['height_mm']}
                | {key: mine[key] - true[key] for key in MEASURES}
                | {'centroid_mm': float(np.linalg.norm(np.subtract(*places)))}
                | {'dice': 2 * (inside[0] & inside[1]).sum() / sum(i.sum() for i in inside)}
            )
    table = pd.DataFrame(rows)
    print(f'{bundle.name} {bundle.version}, {len(table)} discs')
    for key in ('contrast', 'disc'):
        parts = table.groupby(key, sort=False)
        shown = parts[['true_mm', 'centroid_mm', 'dice']].mean()
        for measure in MEASURES:
            shown[f'{measure} bias'] = parts[measure].mean()
            shown[f'{measure} |error|'] = parts[measure].agg(lambda part: part.abs().mean())
        print(shown.round(2).to_string())


if __name__ == '__main__':
    main()
