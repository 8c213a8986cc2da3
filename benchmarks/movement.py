"""Planted movement between axial and sagittal scans of simulated people: how well it is found.

    bids_muscle-phantom AXIAL --participants 2 --seed 31 --region lumbar --contrasts dixon t1w
    bids_muscle-phantom SAGITTAL --participants 2 --seed 31 --region lumbar --plane sagittal \
        --contrasts t1w t2w
    python benchmarks/movement.py AXIAL SAGITTAL

One seed makes the same people in both. Each sagittal scan is moved by changing its header.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from bids_muscle.imaging.conform import load_image, to_canonical
from bids_muscle.imaging.movement import find_movement, moved

#: To the right, to anterior, to superior, mm.
SHIFTS = [(0, 0, 0), (8, 0, 0), (0, -7, 0), (0, 0, 9), (-5, 6, -12), (15, 0, 0), (0, 0, -18)]
#: Images of an axial scan that are compared with the sagittal one.
AXIAL = {
    'water and fat': ('acq-dixonwater_T1w', 'acq-dixonfat_T1w'),
    'water': ('acq-dixonwater_T1w',),
    'T1w': ('T1w',),
}


def shifted(image: nib.Nifti1Image, by_mm: tuple[float, ...]) -> nib.Nifti1Image:
    """Return an image that lies elsewhere in the world."""
    affine = image.affine.copy()
    affine[:3, 3] += by_mm
    return nib.Nifti1Image(np.asanyarray(image.dataobj), affine)


def main() -> None:
    """Move, find, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('axial', type=Path)
    parser.add_argument('sagittal', type=Path)
    arguments = parser.parse_args()
    rows = []
    for path in sorted(arguments.sagittal.glob('sub-*/anat/*_T?w.nii.gz')):
        person, contrast = path.name.removesuffix('.nii.gz').split('_')
        sagittal = to_canonical(load_image(path))
        truth = arguments.sagittal / f'derivatives/truth/{person}/anat'
        spine = nib.load(truth / f'{person}_acq-{contrast}_seg-lumbarspine_dseg.nii.gz')
        for name, images in AXIAL.items():
            folder = arguments.axial / person / 'anat'
            axial = [
                to_canonical(load_image(folder / f'{person}_{each}.nii.gz')) for each in images
            ]
            for shift in SHIFTS:
                back = tuple(-way for way in shift)
                began = time.process_time()
                found = find_movement(axial, shifted(sagittal, back), shifted(spine, back))
                took = time.process_time() - began
                error = np.subtract(found.shift_mm, shift) if found.shift_mm else [np.nan] * 3
                said = bool(found.shift_mm and moved(found.shift_mm))
                rows.append(
                    {'axial': name, 'sagittal': contrast, 'cpu_s': took}
                    | dict(zip(('right', 'front', 'up'), error, strict=True))
                    | {'false flag': said and not any(shift), 'missed': any(shift) and not said}
                )
    table = pd.DataFrame(rows)
    parts = table.groupby(['axial', 'sagittal'])
    shown = parts[['right', 'front', 'up']].mean().add_suffix(' mean')
    largest = parts[['right', 'front', 'up']].agg(lambda part: part.abs().max())
    shown = shown.join(largest.add_suffix(' max'))
    shown = shown.join(parts[['false flag', 'missed']].sum()).join(parts['cpu_s'].mean())
    print(shown.round(1).to_string())


if __name__ == '__main__':
    main()
