"""Fit how the Dice that a model promises relates to the true one, on people it has not seen.

    python benchmarks/quality_calibration.py --data ../shared/data --model HELD_OUT --output CARD
    bids_muscle-phantom PHANTOM --participants 4 --region lumbar --seed 7
    python benchmarks/quality_calibration.py --phantom PHANTOM [--model MODEL] --output CARD

With `--data` on the labelled scans of the data folder, which HELD_OUT must not have learned from;
with `--phantom` on simulated people. Some slices of each image, and of all together, are segmented
as they are, noisier, blurred, and with another contrast, so that good and bad outlines are seen. A
straight line between logits is fitted; its error is measured on the person left out of the fit
(with one person on the same). The field ``quality`` is added to the card of `--card` (default: of
the model), which is written to ``--output``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares
from segmentation_accuracy import SCANS, Labelled, read_images, read_reference

from bids_muscle.errors import SegmentationError
from bids_muscle.segmentation.bundle import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.quality import logit
from bids_muscle.statistics.overlap import overlap

#: Every how many-th slice is used, of simulated and of real people.
STEP, REAL_STEP = 6, 3


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


def read_phantom(folder: Path, person: str, region: str) -> tuple[np.ndarray, dict]:
    """Read the true labels, water and fat of a simulated person."""
    stem = f'{person}/anat/{person}_acq-dixon'
    truth = folder / f'derivatives/truth/{stem}_seg-{region}muscles_dseg.nii.gz'
    files = {name: folder / f'{stem}{name}_T1w.nii.gz' for name in ('water', 'fat')}
    images = {name: nib.as_closest_canonical(nib.load(file)) for name, file in files.items()}
    return np.asarray(nib.as_closest_canonical(nib.load(truth)).dataobj), images


def read_scan(data: Path, scan: Labelled) -> tuple[np.ndarray, dict]:
    """Read the labels by a reader and the corrected images of a real person."""
    return read_reference(data, scan), read_images(data, scan)['corrected']


def observe(
    predictor: Predictor, person: str, truth: np.ndarray, images: dict, step: int
) -> list[tuple]:
    """Promised and true Dice of every labelled muscle of one person under every degradation."""
    labels = truth[:, :, ::step]
    known = [int(number) for number in np.unique(truth) if number]
    affine = next(iter(images.values())).affine @ np.diag([1, 1, step, 1])
    choices = [(name,) for name in images] + ([tuple(images)] if len(images) > 1 else [])
    rows = []
    for worse in WORSE.values():
        degraded = {
            name: nib.Nifti1Image(
                worse(image.get_fdata(dtype=np.float32)[:, :, ::step]).astype(np.float32), affine
            )
            for name, image in images.items()
        }
        for names in choices:
            try:
                found = predictor.segment({name: degraded[name] for name in names})
            except SegmentationError:
                continue
            asked = [number for number in found.agreement if number in known]
            counts = overlap(np.asarray(found.labels.dataobj), labels, asked)
            rows += [
                (person, found.agreement[number], counts[number].dice)
                for number in asked
                if np.isfinite(counts[number].dice)
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
    parser.add_argument('--phantom', type=Path)
    parser.add_argument('--data', type=Path)
    parser.add_argument('--model', help='name or folder')
    parser.add_argument('--card', help='model whose card is written, by name or folder')
    parser.add_argument('--region', default='lumbar')
    parser.add_argument('--output', type=Path, required=True, help='card to write')
    options = parser.parse_args()
    bundle = find_model(options.model, options.region)
    predictor = Predictor(bundle)
    if options.data:
        scans = {scan.name: read_scan(options.data, scan) for scan in SCANS}
    else:
        names = sorted(path.name for path in options.phantom.glob('sub-*'))
        scans = {name: read_phantom(options.phantom, name, options.region) for name in names}
    people, step = list(scans), REAL_STEP if options.data else STEP
    rows = [
        row
        for person, (truth, images) in scans.items()
        for row in observe(predictor, person, truth, images, step)
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
        'people': people if options.data else len(people),
        'simulated': not options.data,
        'model': f'{bundle.name} {bundle.version}, {bundle.sha256[:12]}',
        'muscles': len(rows),
        'intercept': round(float(intercept), 4),
        'slope': round(float(slope), 4),
        'rmse': round(float(np.sqrt(np.mean(error**2))), 3),
        'bias': round(float(error.mean()), 3),
        'pearson_r': round(float(np.corrcoef(predicted, true)[0, 1]), 3),
        'rmse_uncalibrated': round(float(np.sqrt(np.mean((promised - true) ** 2))), 3),
    }
    print(json.dumps(quality, indent=2))
    card = {**find_model(options.card or options.model, options.region).card, 'quality': quality}
    options.output.write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
