"""Vertebrae of people with drawn bodies: Dice, names, and how long one scan takes.

    python benchmarks/sagittal_accuracy.py DATA --model MODEL [--people 04 07 10]

``DATA`` is the output of benchmarks/sagittal_data.py, ``MODEL`` a model of the spine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.imaging.conform import load_image, make_image, to_canonical
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.vertebrae import name_spine

#: Numbers of L1-L5 in the drawn maps and in those of bids_muscle.
NUMBERS = {1: 20, 2: 21, 3: 22, 4: 23, 5: 24}


def main() -> None:
    """Segment, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path)
    parser.add_argument('drawn', type=Path, help='derivatives/manual of sagittal-lumbar')
    parser.add_argument('--model')
    parser.add_argument('--people', nargs='+', default=[])
    arguments = parser.parse_args()
    predictor = Predictor(find_model(arguments.model, 'spine'))
    means, right, count = [], 0, 0
    for path in sorted(arguments.data.glob('sub-*/anat/*_T1w.nii.gz')):
        person = path.name.split('_')[0].removeprefix('sub-')
        if arguments.people and person not in arguments.people:
            continue
        image = to_canonical(load_image(path))
        began = time.perf_counter()
        found = predictor.segment({'T1w': make_image(np.asarray(image.dataobj), image.affine)})
        classes, confidence = (np.asarray(i.dataobj) for i in (found.labels, found.confidence))
        spine = name_spine(classes, confidence, image.header.get_zooms()[:3])
        took = time.perf_counter() - began
        name = path.name.replace('_T1w', '_seg-vertebrae_dseg')
        drawn = nib.load(arguments.drawn / f'sub-{person}/anat/{name}')
        # Drawn in the voxel order of the file; its affine is that of the image.
        truth = to_canonical(nib.Nifti1Image(np.asarray(drawn.dataobj), nib.load(path).affine))
        numbers = np.asarray(truth.dataobj)
        dice = {}
        for label, number in NUMBERS.items():
            mine, theirs = spine.vertebrae == number, numbers == label
            dice[f'L{label}'] = 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
            named = np.bincount(spine.vertebrae[theirs]).argmax() if theirs.any() else 0
            right, count = right + (named == number), count + 1
        means.append(np.mean(list(dice.values())))
        shown = ' '.join(f'{level} {value:.3f}' for level, value in dice.items())
        print(f'{person}: {shown}; mean {means[-1]:.3f}; {took:.1f} s')
        print(f'    {spine.names}\n    {spine.reasons}')
        print('    ' + ' '.join(f'{spine.names[n]} {c:.2f}' for n, c in spine.confidence.items()))
    print(f'mean Dice {np.mean(means):.3f}, {right} of {count} names right')


if __name__ == '__main__':
    main()
