"""Agreement of a model with itself on images of one person that differ only in contrast.

    bids_muscle-phantom PHANTOM --participants 2 --region lumbar --seed 555 \
        --contrasts dixon t1w t2w
    python benchmarks/repeatability.py --data ../shared/data --phantom PHANTOM [--model MODEL]

Dice of the label maps of water and fat, of in-phase and opposed-phase, and of a simulated person
as T1w and T2w, each image segmented alone; and of a real Dixon scan when the box that the second
look is cut to is 1 to 4 pixels larger or smaller. The mean is over muscles that have 1 ml.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import nibabel as nib
import numpy as np

from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Box, Predictor
from bids_muscle.statistics.overlap import overlap

DIXON = 'dixon-lumbar/sub-TUM01/anat/sub-TUM01_acq-dixon{}_T1w.nii.gz'
IN_OUT = 'inout-abdomen/sub-11/anat/sub-11_acq-dixon{}_T1w.nii.gz'
LEAST_ML = 1.0


def pairs(data: Path, phantom: Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield what is compared."""
    yield 'water, fat', {name: data / DIXON.format(name) for name in ('water', 'fat')}
    phases = {'inphase': 'in', 'outphase': 'out'}
    yield 'in-phase, opposed-phase', {k: data / IN_OUT.format(n) for k, n in phases.items()}
    for person in sorted(path.name for path in phantom.glob('sub-*')):
        start = phantom / person / 'anat' / person
        names = ('T1w', 'T2w')
        yield f'phantom {person}, T1w, T2w', {n: Path(f'{start}_{n}.nii.gz') for n in names}


def compare(first: np.ndarray, second: np.ndarray, voxel_ml: float) -> str:
    """Mean and least Dice, share of labelled voxels that change, and change of the volumes."""
    numbers = [int(n) for n in np.unique(first) if n]
    sizes = {n: max((first == n).sum(), (second == n).sum()) * voxel_ml for n in numbers}
    counts = overlap(second, first, [n for n in numbers if sizes[n] >= LEAST_ML])
    dices = [each.dice for each in counts.values()]
    changed = (first != second).sum() / max(1, (first > 0).sum())
    worst = max(abs(each.volume_ratio - 1) for each in counts.values())
    return (
        f'{np.mean(dices):.3f} | {min(dices):.3f} | {changed:.2%} | {worst:.2%} | '
        f'{(second > 0).sum() / (first > 0).sum() - 1:+.2%}'
    )


def widened(predictor: Predictor, image: dict[str, nib.Nifti1Image], pixels: int) -> np.ndarray:
    """Labels when the box is larger by some pixels on each side."""
    usual = Predictor._localize

    def larger(self: Predictor, *args: object) -> Box:
        x, y = usual(self, *args)  # type: ignore[arg-type]
        return (
            slice(max(x.start - pixels, 0), x.stop + pixels),
            slice(max(y.start - pixels, 0), y.stop + pixels),
        )

    with patch.object(Predictor, '_localize', larger):
        return np.asarray(predictor.segment(image).labels.dataobj)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--phantom', type=Path, required=True)
    parser.add_argument('--model', help='name or folder')
    options = parser.parse_args()
    predictor = Predictor(find_model(options.model, 'lumbar'))
    print('| images | mean Dice | least | voxels changed | worst volume | all volume |')
    print('|---|---|---|---|---|---|')
    for name, files in pairs(options.data, options.phantom):
        prepared = prepare_scan({key: nib.load(file) for key, file in files.items()})
        images = {key: prepared.corrected[key] for key in files}
        voxel_ml = float(np.prod(next(iter(images.values())).header.get_zooms()[:3])) / 1000
        found = [
            np.asarray(predictor.segment({key: image}).labels.dataobj)
            for key, image in images.items()
        ]
        print(f'| {name} | {compare(*found, voxel_ml)} |', flush=True)
        if 'water' in images:
            for pixels in (-4, -2, -1, 1, 2, 4):
                other = widened(predictor, {'water': images['water']}, pixels)
                print(
                    f'| water, box {pixels:+d} px | {compare(found[0], other, voxel_ml)} |',
                    flush=True,
                )


if __name__ == '__main__':
    main()
