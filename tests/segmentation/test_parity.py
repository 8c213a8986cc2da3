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
from peer_cases import CASES, REAL_CASES, Case
from peer_scans import REAL_DATA
from peers import GOLDENS, PEERS, run, values_of, write_case

from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.predictor import Predictor


def dice(found: np.ndarray, theirs: np.ndarray) -> dict[int, float]:
    return {
        int(n): 2
        * ((found == n) & (theirs == n)).sum()
        / ((found == n).sum() + (theirs == n).sum())
        for n in np.unique(theirs)
        if n
    }


def ours(case: Case, model: Path, images: dict[str, nib.Nifti1Image]) -> np.ndarray:
    """Return the label map of the application, in the voxel order of the images."""
    overlap = None
    if '-s' in case.options:
        overlap = float(case.options[case.options.index('-s') + 1]) / 100
    predictor = Predictor(find_model(str(model), case.region), overlap=overlap)
    canonical = {each: nib.as_closest_canonical(image) for each, image in images.items()}
    labels = predictor.segment(canonical).labels
    stored = next(iter(images.values()))
    turned = nib.orientations.ornt_transform(
        nib.io_orientation(labels.affine), nib.io_orientation(stored.affine)
    )
    return np.asarray(labels.as_reoriented(turned).dataobj)


@pytest.mark.parametrize('name', CASES)
def test_labels_are_those_of_the_program(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if case.program == 'nnunet':
        pytest.importorskip('dynamic_network_architectures')
    model, images = write_case(name, None, tmp_path)
    with np.load(GOLDENS / f'{name}.npz') as kept:
        theirs = kept['theirs']
    if peers := os.environ.get(PEERS):
        theirs = run(case, Path(peers), model, images, tmp_path / 'out')
    found = dice(ours(case, model, images), theirs)
    assert set(found) == set(values_of(case))
    assert min(found.values()) >= 0.999, found


@pytest.mark.parametrize('name', REAL_CASES)
def test_labels_of_real_scans_are_those_of_the_program(
    name: str, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (peers := os.environ.get(PEERS)):
        pytest.skip(f'{PEERS} is not set (make parity-test)')
    monkeypatch.setenv(REAL_DATA, str(real_data))
    case = REAL_CASES[name]
    model, images = write_case(name, Path(peers), tmp_path)
    theirs = run(case, Path(peers), model, images, tmp_path / 'out')
    labels = ours(case, model, images)
    print(f'{name}: {(labels != theirs).sum()} of {(theirs > 0).sum()} labelled voxels differ')
    found = dice(labels, theirs)
    assert len(found) >= 4
    assert min(found.values()) >= 0.999, found


def test_windows_overlap_as_in_the_program_unless_asked_otherwise(tmp_path: Path) -> None:
    path, _ = write_case('musclemap-abdomen', None, tmp_path)
    model = load_model(find_model(str(path), 'lumbar'))
    assert model.procedure is not None
    assert model.procedure.overlap == 0.9
    faster = Predictor(model, overlap=0.0).model.procedure
    assert faster is not None
    assert (faster.overlap, faster.mirrors) == (0.0, ())
