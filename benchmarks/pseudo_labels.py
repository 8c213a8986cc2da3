"""Label slices that nobody outlined by a model, where it agrees with itself, for training.

    python benchmarks/pseudo_labels.py FOLDER OUTPUT [--model NAME_OR_PATH] [--pixel-mm 0.6875]

Each PNG in FOLDER is one axial slice as on screen: front up, the person's right at the left. It is
looked at in twelve views: as it is and mirrored, each also darker, brighter, noisier, and as if it
were smaller and larger. A pixel keeps its label where ten views agree and their mean confidence is
60 %; it is unknown (254) elsewhere, and where a muscle found on one side only would be on the
other. OUTPUT becomes a BIDS dataset with ``derivatives/pseudo``, which the recipe
``lumbar-slices`` reads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.predictor import Predictor

SLICE_MM = 4.0
UNKNOWN = 254
LEAST_VIEWS, LEAST_PERCENT = 10, 60
#: Room around where the muscle of the other side would be, mm.
ROOM_MM = 6.0


def _noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.05 * np.quantile(image, 0.98), image.shape)
    return np.abs(image + noise).astype(np.float32)


#: Change of the signal, and of the size of a pixel.
VIEWS: tuple[tuple[Callable[[np.ndarray], np.ndarray], float], ...] = (
    (lambda image: image, 1.0),
    (lambda image: image**0.7, 1.0),
    (lambda image: image**1.4, 1.0),
    (_noisy, 1.0),
    (lambda image: image, 0.9),
    (lambda image: image, 1.12),
)


def read_slice(path: Path, pixel_mm: float) -> nib.Nifti1Image:
    """Read a slice as on screen into RAS+ order."""
    screen = np.asarray(Image.open(path).convert('L'))
    return as_image(screen[::-1, ::-1].T.astype(np.float32), pixel_mm)


def read_slices(
    folder: Path, pixel_mm: float
) -> Iterator[tuple[Path, nib.Nifti1Image, nib.Nifti1Image]]:
    """Give each slice of a folder, as it is and bias-corrected."""
    for path in sorted(folder.glob('*.png')):
        image = read_slice(path, pixel_mm)
        yield path, image, prepare_scan({'T2w': image}).corrected['T2w']


def as_image(plane: np.ndarray, pixel_mm: float) -> nib.Nifti1Image:
    """Make a volume of one slice."""
    image = nib.Nifti1Image(plane[..., None], np.diag([pixel_mm, pixel_mm, SLICE_MM, 1.0]))
    image.header.set_xyzt_units('mm')
    return image


def label(predictor: Predictor, plane: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Labels of a bias-corrected slice that hold in the views; 254 elsewhere."""
    sides = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7], dtype=np.uint8)
    found, confidence = [], []
    for mirrored in (False, True):
        for change, zoom in VIEWS:
            seen = as_image(change(plane[::-1] if mirrored else plane), pixel_mm * zoom)
            result = predictor.segment({'T2w': seen})
            labels = np.asarray(result.labels.dataobj)[..., 0]
            share = np.asarray(result.confidence.dataobj)[..., 0].astype(float)
            # Far from the muscles nothing was looked at, and nothing is there.
            share[(labels == 0) & (share == 0)] = 100
            found.append(sides[labels[::-1]] if mirrored else labels)
            confidence.append(share[::-1] if mirrored else share)
    votes = np.stack([(np.stack(found) == number).sum(0) for number in range(9)])
    best = votes.argmax(0).astype(np.uint8)
    sure = (votes.max(0) >= LEAST_VIEWS) & (np.mean(confidence, 0) >= LEAST_PERCENT)
    out = np.where(sure, best, UNKNOWN).astype(np.uint8)
    back = np.nonzero((best > 0) & (best <= 4))[0]
    middle = (back.min() + back.max()) // 2
    for right in (1, 3, 5, 7):
        sizes = [(best == number).sum() for number in (right, right + 1)]
        if min(sizes) < 0.3 * max(sizes):
            larger = best == right + int(sizes[1] > sizes[0])
            other = np.zeros_like(larger)
            x, y = np.nonzero(larger)
            inside = (2 * middle - x >= 0) & (2 * middle - x < len(other))
            other[2 * middle - x[inside], y[inside]] = True
            near = binary_dilation(other, iterations=round(ROOM_MM / pixel_mm))
            out[near & (out == 0)] = UNKNOWN
    return out


def main() -> None:
    """Write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--model', help='name or folder')
    parser.add_argument('--pixel-mm', type=float, default=0.6875)
    options = parser.parse_args()
    bundle = replace(find_model(options.model, 'lumbar'), background_weight=1.0)
    predictor = Predictor(replace(load_model(bundle), postprocess=()))
    for path, image, corrected in read_slices(options.folder, options.pixel_mm):
        plane = np.asarray(corrected.dataobj, np.float32)[..., 0]
        labels = label(predictor, plane, options.pixel_mm)
        name = f'sub-{path.stem.replace("-", "")}'
        for folder, end, values in (
            (options.output, 'T2w', np.asarray(image.dataobj)[..., 0]),
            (options.output / 'derivatives/pseudo', 'seg-pseudo_dseg', labels),
        ):
            (folder / name / 'anat').mkdir(parents=True, exist_ok=True)
            nib.save(
                as_image(values, options.pixel_mm), folder / name / 'anat' / f'{name}_{end}.nii.gz'
            )
        unknown = (labels == UNKNOWN).sum() / max(1, (labels > 0).sum())
        print(f'{name}: {unknown:.0%} of what is not background is unknown', flush=True)
    description = {'Name': 'Slices with pseudo-labels', 'BIDSVersion': '1.11.0'}
    (options.output / 'dataset_description.json').write_text(json.dumps(description) + '\n')


if __name__ == '__main__':
    main()
