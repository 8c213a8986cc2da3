"""What half precision, in which the network runs on a GPU, changes in the labels of a scan.

    python benchmarks/half_precision.py REGION IMAGE [IMAGE ...]

On CUDA where there is a GPU; else the CPU imitates it, with the same operations in half precision
and slowly. The images are those of one scan; bias correction is left out.
"""

from __future__ import annotations

import argparse
import functools

import nibabel as nib
import numpy as np
import torch

from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('region', choices=('lumbar', 'cervical'))
    parser.add_argument('images', nargs='+')
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = {f'{i}': nib.as_closest_canonical(nib.load(p)) for i, p in enumerate(options.images)}
    bundle = find_model(None, options.region)
    whole = Predictor(bundle).segment(images)
    predictor, how = Predictor(bundle), 'CUDA'
    if torch.cuda.is_available():
        predictor.device = 'cuda'
    else:
        # The predictor knows the CPU by its short name alone.
        predictor.device, how, autocast = 'cpu:0', 'imitated on the CPU', torch.autocast
        torch.autocast = functools.wraps(autocast)(
            lambda kind, dtype, enabled: autocast('cpu', dtype, enabled=enabled)
        )
    half = predictor.segment(images)
    labels, others = (np.asarray(each.labels.dataobj) for each in (whole, half))
    print(f'{how}: of {np.count_nonzero(labels)} voxels with a label in single precision')
    print(f'{np.count_nonzero(labels != others)} have another one, or none, or are new.')
    for number in sorted(whole.agreement):
        mine, theirs = labels == number, others == number
        dice = 2 * np.count_nonzero(mine & theirs) / (mine.sum() + theirs.sum())
        print(f'{bundle.labels.by_index[number].name}: Dice {dice:.5f}')


if __name__ == '__main__':
    main()
