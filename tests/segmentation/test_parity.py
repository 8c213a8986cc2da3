"""Models of MuscleMap and nnU-Net give the label maps of their own programs; MONAI's inferers too.

The label maps of the programs are in ``data/peers``, made by :mod:`peers`. Where the variable
``BIDS_MUSCLE_PEERS`` names the folder of their virtual environments (``make parity-test``), the
programs run again on the same models.
"""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from peers import (
    CASES,
    GOLDENS,
    PEERS,
    draw,
    run,
    values_of,
    weights_of,
    write_model,
)

from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.predictor import Predictor


def dice(ours: np.ndarray, theirs: np.ndarray) -> dict[int, float]:
    return {
        int(n): 2 * ((ours == n) & (theirs == n)).sum() / ((ours == n).sum() + (theirs == n).sum())
        for n in np.unique(theirs)
        if n
    }


@pytest.mark.parametrize('name', CASES)
def test_labels_are_those_of_the_program(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if case.program == 'nnunet':
        pytest.importorskip('dynamic_network_architectures')
    model = write_model(case, tmp_path / 'model', weights_of(name))
    # MONAI's grid of an oblique scan hangs on how its affine is rounded in the file.
    paths = {each: tmp_path / f'{each}.nii.gz' for each in case.channels}
    for each, image in draw(case).items():
        nib.save(image, paths[each])
    images = {each: nib.load(path) for each, path in paths.items()}
    with np.load(GOLDENS / f'{name}.npz') as kept:
        theirs = kept['theirs']
    if peers := os.environ.get(PEERS):
        theirs = run(case, Path(peers), model, list(paths.values()), tmp_path / 'out')
    overlap = None
    if '-s' in case.options:
        overlap = float(case.options[case.options.index('-s') + 1]) / 100
    predictor = Predictor(find_model(str(model), 'lumbar'), overlap=overlap)
    canonical = {each: nib.as_closest_canonical(image) for each, image in images.items()}
    labels = predictor.segment(canonical).labels
    stored = next(iter(images.values()))
    turned = nib.orientations.ornt_transform(
        nib.io_orientation(labels.affine), nib.io_orientation(stored.affine)
    )
    ours = np.asarray(labels.as_reoriented(turned).dataobj)
    found = dice(ours, theirs)
    assert set(found) == set(values_of(case))
    assert min(found.values()) >= 0.999, found


def test_windows_overlap_as_in_the_program_unless_asked_otherwise(tmp_path: Path) -> None:
    case = CASES['musclemap-abdomen']
    path = write_model(case, tmp_path, weights_of('musclemap-abdomen'))
    model = load_model(find_model(str(path), 'lumbar'))
    assert model.procedure is not None
    assert model.procedure.overlap == 0.9
    faster = Predictor(model, overlap=0.0).model.procedure
    assert faster is not None
    assert (faster.overlap, faster.mirrors) == (0.0, ())
