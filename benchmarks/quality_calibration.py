"""Fit how the Dice that a model promises relates to the true one, on people it has not seen.

    bids_muscle-phantom PHANTOM --participants 4 --region lumbar --seed 7
    python benchmarks/quality_calibration.py PHANTOM [--model NAME_OR_PATH] --output model.json
    python benchmarks/quality_calibration.py --outlined DIR/neck-outlined --people sub-03 \
        --region cervical --model FOLDER --output model.json

The second form takes real people with outlines, as benchmarks/neck_training.py writes them.

The people must not be in the training. Every sixth slice of water, fat and both is segmented as it
is, noisier, blurred, and with another contrast, so that good and bad outlines are seen. A straight
line between logits is fitted; its error is measured on the person left out of the fit (with one
person on the same). The field ``quality`` is added to the card of the model, which is written to
``--output``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from neck_training import UNKNOWN
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares

from bids_muscle.errors import SegmentationError
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.quality import logit
from bids_muscle.statistics.overlap import overlap

STEP = 6


def _noise(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def worse(image: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).normal(0, share * np.quantile(image, 0.98), image.shape)
        return np.abs(image + noise)

    return worse


WORSE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'as it is': lambda image: image,
    'noise 0.1': _noise(0.1),
    'noise 0.3': _noise(0.3),
    'noise 0.6': _noise(0.6),
    'blurred': lambda image: gaussian_filter(image, (4, 4, 0)),
    'inverted': lambda image: np.where(image > 0, image.max() - image, 0),
    'compressed': lambda image: np.sqrt(np.abs(image)),
}


def observe(predictor: Predictor, folder: Path, person: str, region: str) -> list[tuple]:
    """Promised and true Dice of every muscle of one person under every degradation."""
    stem = f'{person}/anat/{person}_acq-dixon'
    truth = nib.as_closest_canonical(
        nib.load(folder / f'derivatives/truth/{stem}_seg-{region}muscles_dseg.nii.gz')
    )
    labels = np.asarray(truth.dataobj)[:, :, ::STEP]
    images = {}
    for name in ('water', 'fat'):
        image = nib.as_closest_canonical(nib.load(folder / f'{stem}{name}_T1w.nii.gz'))
        images[name] = image.get_fdata(dtype=np.float32)[:, :, ::STEP]
    affine = image.affine @ np.diag([1, 1, STEP, 1])
    shown = (('water',), ('fat',), ('water', 'fat'))
    return _compare(predictor, person, labels, images, affine, shown)


def observe_outlined(predictor: Predictor, folder: Path, person: str) -> list[tuple]:
    """Do the same in the slices of real scans in which every muscle is known."""
    rows = []
    for path in sorted((folder / 'derivatives/outlines' / person / 'anat').glob('*_dseg.nii.gz')):
        labels = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
        slices = np.flatnonzero((labels > 0).any((0, 1)) & (labels != UNKNOWN).all((0, 1)))
        stem = path.name.removesuffix('_seg-outlines_dseg.nii.gz')
        scan = next((folder / person / 'anat').glob(f'{stem}_*.nii.gz'))
        contrast = scan.name.removesuffix('.nii.gz').rsplit('_', 1)[1]
        image = prepare_scan({contrast: nib.load(scan)}).corrected[contrast]
        images = {contrast: np.asarray(image.dataobj, np.float32)[..., slices]}
        rows += _compare(
            predictor, person, labels[..., slices], images, image.affine, ((contrast,),)
        )
    return rows


def _compare(
    predictor: Predictor,
    person: str,
    labels: np.ndarray,
    images: dict[str, np.ndarray],
    affine: np.ndarray,
    shown: Sequence[tuple[str, ...]],
) -> list[tuple]:
    rows = []
    for worse in WORSE.values():
        degraded = {
            name: nib.Nifti1Image(worse(values).astype(np.float32), affine)
            for name, values in images.items()
        }
        for names in shown:
            try:
                found = predictor.segment({name: degraded[name] for name in names})
            except SegmentationError:
                continue
            counts = overlap(np.asarray(found.labels.dataobj), labels, list(found.agreement))
            rows += [
                (person, promised, counts[label].dice)
                for label, promised in found.agreement.items()
                if np.isfinite(counts[label].dice)
            ]
    return rows


def fit(promised: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intercept and slope between the logits, by least squares of the Dice itself."""
    return least_squares(lambda line: apply(line, promised) - true, [0.0, 1.0], loss='soft_l1').x


def apply(line: np.ndarray, promised: np.ndarray) -> np.ndarray:
    """Predicted Dice."""
    return 1 / (1 + np.exp(-line[0] - line[1] * np.array([logit(value) for value in promised])))


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('phantom', type=Path, nargs='?')
    parser.add_argument('--outlined', type=Path, help='real scans with outlines')
    parser.add_argument('--people', nargs='+', help='who of them was not in the training')
    parser.add_argument('--model', help='name or folder')
    parser.add_argument('--region', default='lumbar')
    parser.add_argument('--output', type=Path, required=True, help='card to write')
    options = parser.parse_args()
    bundle = find_model(options.model, options.region)
    predictor = Predictor(bundle)
    if options.outlined:
        people = options.people
        rows = [row for p in people for row in observe_outlined(predictor, options.outlined, p)]
    else:
        people = sorted(path.name for path in options.phantom.glob('sub-*'))
        rows = [
            row
            for person in people
            for row in observe(predictor, options.phantom, person, options.region)
        ]
    who = np.array([row[0] for row in rows])
    promised, true = np.array([row[1:] for row in rows], dtype=float).T
    predicted = np.empty_like(true)
    for person in people:
        others = who != person if len(people) > 1 else who == person
        predicted[who == person] = apply(
            fit(promised[others], true[others]), promised[who == person]
        )
    intercept, slope = fit(promised, true)
    error = predicted - true
    quality = {
        'command': 'python benchmarks/quality_calibration.py',
        'people': len(people),
        'muscles': len(rows),
        'intercept': round(float(intercept), 4),
        'slope': round(float(slope), 4),
        'rmse': round(float(np.sqrt(np.mean(error**2))), 3),
        'bias': round(float(error.mean()), 3),
        'pearson_r': round(float(np.corrcoef(predicted, true)[0, 1]), 3),
        'rmse_uncalibrated': round(float(np.sqrt(np.mean((promised - true) ** 2))), 3),
    }
    print(json.dumps(quality, indent=2))
    card = {**bundle.card, 'quality': quality}
    options.output.write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
