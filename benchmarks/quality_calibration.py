"""Fit how the Dice that a model promises relates to the true one, on people it has not seen.

    python benchmarks/quality_calibration.py --data ../shared/data --output model.json \
        --held-out dixon-lumbar=MODEL oblique-lumbar=MODEL [--plot predicted.png]
    python benchmarks/quality_calibration.py --data DIR/neck-outlined --region cervical \
        --held-out sub-01=MODEL sub-03=MODEL sub-ms=MODEL --output model.json
    bids_muscle-phantom PHANTOM --participants 4 --region lumbar --seed 7
    python benchmarks/quality_calibration.py --data PHANTOM --held-out sub-01 sub-02 --output CARD

Each scan or person left out is segmented by a model that was trained without it, else by that of
the package: a labelled scan of ``segmentation_accuracy.py``, a neck with outlines as
``neck_training.py`` writes it, or every sixth slice of a simulated person. The images are shown as
they are, noisier, blurred, and with another contrast, so that good and bad outlines are seen;
water and fat alone and together. A straight line between logits is fitted; its error is that on
the person left out of the fit (with one person on the same). The field ``quality`` is added to the
card of the model of the package, which is written to ``--output``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from neck_training import UNKNOWN
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares
from segmentation_accuracy import SCANS, Labelled, read_images, read_reference

from bids_muscle.errors import SegmentationError
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.quality import UNUSABLE_DICE, logit
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


def observe(predictor: Predictor, data: Path, name: str, region: str) -> list[tuple]:
    """Promised and true Dice of every muscle of one person under every degradation."""
    labelled = [scan for scan in SCANS if scan.name.startswith(f'{name} ')]
    if labelled:
        return _observe_labelled(predictor, data, labelled[0])
    if (data / 'derivatives/outlines').is_dir():
        return _observe_outlined(predictor, data, name)
    return _observe_simulated(predictor, data, name, region)


def _observe_labelled(predictor: Predictor, data: Path, scan: Labelled) -> list[tuple]:
    """Real scans with a label map, in the slices that it has."""
    labels = read_reference(data, scan)
    slices = np.flatnonzero(labels.any((0, 1)))
    corrected = read_images(data, scan)['corrected']
    images = {k: np.asarray(v.dataobj, np.float32)[..., slices] for k, v in corrected.items()}
    shown = [(key,) for key in images] + [tuple(images)][: len(images) - 1]
    affine = next(iter(corrected.values())).affine
    annotated = set(scan.codes.values())
    return _compare(predictor, labels[..., slices], images, affine, shown, annotated)


def _observe_simulated(predictor: Predictor, data: Path, name: str, region: str) -> list[tuple]:
    stem = f'{name}/anat/{name}_acq-dixon'
    truth = nib.as_closest_canonical(
        nib.load(data / f'derivatives/truth/{stem}_seg-{region}muscles_dseg.nii.gz')
    )
    labels = np.asarray(truth.dataobj)[:, :, ::STEP]
    images = {}
    for key in ('water', 'fat'):
        image = nib.as_closest_canonical(nib.load(data / f'{stem}{key}_T1w.nii.gz'))
        images[key] = image.get_fdata(dtype=np.float32)[:, :, ::STEP]
    affine = image.affine @ np.diag([1, 1, STEP, 1])
    return _compare(predictor, labels, images, affine, (('water',), ('fat',), ('water', 'fat')))


def _observe_outlined(predictor: Predictor, data: Path, name: str) -> list[tuple]:
    """Real scans in the slices in which every muscle is known."""
    rows = []
    for path in sorted((data / 'derivatives/outlines' / name / 'anat').glob('*_dseg.nii.gz')):
        labels = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
        slices = np.flatnonzero((labels > 0).any((0, 1)) & (labels != UNKNOWN).all((0, 1)))
        stem = path.name.removesuffix('_seg-outlines_dseg.nii.gz')
        scan = next((data / name / 'anat').glob(f'{stem}_*.nii.gz'))
        contrast = scan.name.removesuffix('.nii.gz').rsplit('_', 1)[1]
        image = prepare_scan({contrast: nib.load(scan)}).corrected[contrast]
        images = {contrast: np.asarray(image.dataobj, np.float32)[..., slices]}
        rows += _compare(predictor, labels[..., slices], images, image.affine, ((contrast,),))
    return rows


def _compare(
    predictor: Predictor,
    labels: np.ndarray,
    images: dict[str, np.ndarray],
    affine: np.ndarray,
    shown: Sequence[tuple[str, ...]],
    annotated: Collection[int] | None = None,
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
            agreement = {
                label: promised
                for label, promised in found.agreement.items()
                if annotated is None or label in annotated
            }
            counts = overlap(np.asarray(found.labels.dataobj), labels, list(agreement))
            rows += [
                (promised, counts[label].dice)
                for label, promised in agreement.items()
                if np.isfinite(counts[label].dice)
            ]
    return rows


def fit(promised: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intercept and slope between the logits, by least squares of the Dice itself."""
    return least_squares(lambda line: apply(line, promised) - true, [0.0, 1.0], loss='soft_l1').x


def apply(line: np.ndarray, promised: np.ndarray) -> np.ndarray:
    """Predicted Dice."""
    return 1 / (1 + np.exp(-line[0] - line[1] * np.array([logit(value) for value in promised])))


def leave_one_out(who: np.ndarray, promised: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Predicted Dice of each person by the fit to all others; to the same where there are none."""
    predicted = np.empty_like(true)
    for person in np.unique(who):
        mine = who == person
        others = mine if mine.all() else ~mine
        predicted[mine] = apply(fit(promised[others], true[others]), promised[mine])
    return predicted


def plot(path: Path, who: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> None:
    """Predicted against true Dice, one point a muscle and view."""
    import matplotlib as mpl

    mpl.use('agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.2, 4), layout='constrained')
    axes.plot([0, 1], [0, 1], color='0.6', linewidth=1)
    for person in np.unique(who):
        mine = who == person
        axes.scatter(predicted[mine], true[mine], s=9, alpha=0.6, linewidths=0, label=person)
    axes.set(xlabel='predicted Dice', ylabel='Dice with the reference', xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect('equal')
    axes.legend(frameon=False, title='held out')
    figure.savefig(path, dpi=110, metadata={'Software': None})


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--held-out', nargs='+', required=True, metavar='NAME[=MODEL]')
    parser.add_argument('--region', default='lumbar')
    parser.add_argument('--output', type=Path, required=True, help='card to write')
    parser.add_argument('--plot', type=Path, help='picture of predicted against true')
    options = parser.parse_args()
    rows: list[tuple] = []
    for item in options.held_out:
        name, _, model = item.partition('=')
        predictor = Predictor(find_model(model or None, options.region))
        found = observe(predictor, options.data, name, options.region)
        print(f'{name}: {len(found)} muscles', flush=True)
        rows += [(name, *row) for row in found]
    who = np.array([row[0] for row in rows])
    promised, true = np.array([row[1:] for row in rows], dtype=float).T
    predicted = leave_one_out(who, promised, true)
    if options.plot:
        plot(options.plot, who, predicted, true)
    intercept, slope = fit(promised, true)
    error = predicted - true
    quality = {
        'held_out': [item.partition('=')[0] for item in options.held_out],
        'muscles': len(rows),
        'intercept': round(float(intercept), 4),
        'slope': round(float(slope), 4),
        'rmse': round(float(np.sqrt(np.mean(error**2))), 3),
        'bias': round(float(error.mean()), 3),
        'pearson_r': round(float(np.corrcoef(predicted, true)[0, 1]), 3),
        'rmse_uncalibrated': round(float(np.sqrt(np.mean((promised - true) ** 2))), 3),
    }
    print(json.dumps(quality, indent=2))
    flagged, bad = predicted < UNUSABLE_DICE, true < UNUSABLE_DICE
    print(
        f'below {UNUSABLE_DICE:g}: predicted {flagged.sum()}, true {bad.sum()}, both '
        f'{(flagged & bad).sum()}; true Dice of the best flagged '
        f'{max(true[flagged], default=0):.2f}, of the worst of the others '
        f'{min(true[~flagged], default=1):.2f}'
    )
    card = {**find_model(None, options.region).card, 'quality': quality}
    options.output.write_text(json.dumps(card, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
