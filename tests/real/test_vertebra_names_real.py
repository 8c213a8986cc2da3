"""Vertebrae of real people whose image ends at the sacrum, named by the shipped model.

The eight people are in its training data, but not cut like this. A name is right or not given.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.imaging.conform import make_image, to_canonical
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.vertebrae import name_spine

#: Axes of the files, whose affine is lost: down, back, to one side. Every sixth slice is taken.
STEP, CUT_MM = 6, 8
AFFINE = np.array([[0, 0, STEP, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], float)
LEVELS = {1: 'L1', 2: 'L2', 3: 'L3', 4: 'L4', 5: 'L5'}


@pytest.fixture(scope='module')
def predictor() -> Predictor:
    return Predictor(find_model(None, SPINE))


@pytest.mark.parametrize('person', [f'{n:02d}' for n in range(3, 11)])
def test_names_are_right_or_open_wherever_the_image_ends(
    real_data: Path, predictor: Predictor, person: str
) -> None:
    name = f'sub-{person}/anat/sub-{person}_acq-sag'
    folder = real_data / 'sagittal-lumbar'
    scan, drawn = (
        np.asarray(to_canonical(nib.Nifti1Image(data[:, :, 2::STEP], AFFINE)).dataobj)
        for data in (
            np.asarray(nib.load(folder / f'{name}_T1w.nii.gz').dataobj, np.float32),
            np.asarray(
                nib.load(
                    folder / 'derivatives/manual' / f'{name}_seg-vertebrae_dseg.nii.gz'
                ).dataobj
            ),
        )
    )
    spacing = (float(STEP), 1.0, 1.0)
    for cut in range(0, int(np.nonzero(drawn == 5)[2].max()) + 1, CUT_MM):
        found = predictor.segment({'T1w': make_image(scan[:, :, cut:], np.diag([*spacing, 1]))})
        spine = name_spine(
            np.asarray(found.labels.dataobj),
            np.asarray(found.confidence.dataobj),
            spacing,
            predictor.model.numbers,
        )
        own = drawn[:, :, cut:]
        for number, level in spine.names.items():
            if level in LEVELS.values():
                under = own[(spine.vertebrae == number) & (own > 0)]
                assert under.size, (cut, level)
                assert LEVELS[int(np.bincount(under).argmax())] == level, (cut, level)
        # Of the others little more than S1 is in view.
        if cut == 0 and person in ('05', '07', '08', '09'):
            assert 'L5' in spine.names.values()
