"""The shipped lumbar model on the labelled real scans.

Both people are in its training data, so this guards against a broken model, grid or side; what to
expect of new people is the hold-out figure in docs/models.md.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.imaging.conform import load_image
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor

DIXON = 'dixon-lumbar/sub-TUM01/anat/sub-TUM01_acq-dixon{}_T1w.nii.gz'
DIXON_LABELS = (
    'dixon-lumbar/derivatives/manual/sub-TUM01/anat/'
    'sub-TUM01_acq-dixonwater_seg-paraspinal_dseg.nii.gz'
)
OBLIQUE = 'oblique-lumbar/sub-0001/anat/sub-0001_T2w.nii.gz'
OBLIQUE_LABELS = (
    'oblique-lumbar/derivatives/model/sub-0001/anat/sub-0001_seg-paraspinal_dseg.nii.gz'
)


@pytest.fixture(scope='module')
def predictor() -> Predictor:
    return Predictor(find_model(None, 'lumbar'))


@pytest.fixture(scope='module')
def dixon(real_data: Path) -> dict[str, nib.Nifti1Image]:
    images = {name: load_image(real_data / DIXON.format(name)) for name in ('water', 'fat')}
    return prepare_scan(images).corrected


def dice(found: nib.Nifti1Image, reference: Path, codes: dict[int, int]) -> dict[int, float]:
    truth = np.asarray(nib.as_closest_canonical(nib.load(reference)).dataobj)
    labels = np.asarray(found.dataobj)
    assert labels.shape == truth.shape
    return {
        label: 2
        * np.sum((labels == label) & (truth == code))
        / (np.sum(labels == label) + np.sum(truth == code))
        for code, label in codes.items()
    }


@pytest.mark.parametrize('names', [['water'], ['fat'], ['water', 'fat']])
def test_dixon(
    real_data: Path,
    predictor: Predictor,
    dixon: dict[str, nib.Nifti1Image],
    names: list[str],
) -> None:
    found = predictor.segment({name: dixon[name] for name in names}).labels
    # In this reference 1 and 2 are erector spinae and multifidus on the right, 3 and 4 left.
    scores = dice(found, real_data / DIXON_LABELS, {1: 3, 2: 1, 3: 2, 4: 4})
    assert np.mean(list(scores.values())) > 0.8, scores
    assert min(scores.values()) > 0.7, scores


def test_oblique(real_data: Path, predictor: Predictor) -> None:
    corrected = prepare_scan({'T2w': load_image(real_data / OBLIQUE)}).corrected
    scores = dice(
        predictor.segment({'T2w': corrected['T2w']}).labels,
        real_data / OBLIQUE_LABELS,
        {label: label for label in range(1, 9)},
    )
    assert np.mean(list(scores.values())) > 0.75, scores
