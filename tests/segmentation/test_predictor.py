"""The predictor finds known shapes and does not depend on how the work is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.errors import DeviceError, GridMismatchError, SegmentationError
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.predictor import Predictor

MakeScan = Callable[..., tuple[nib.Nifti1Image, np.ndarray]]


def dices(found: np.ndarray, truth: np.ndarray) -> list[float]:
    return [
        2 * np.sum((found == i) & (truth == i)) / np.sum((found == i) * 1.0 + (truth == i))
        for i in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ('shape', 'zooms'),
    [
        ((120, 96, 5), (1.0, 1.0, 4.0)),
        ((121, 95, 1), (1.0, 1.0, 4.0)),  # one slice, odd extents
        ((60, 48, 3), (2.0, 2.0, 4.0)),
        ((240, 190, 2), (0.5, 0.5, 4.0)),
    ],
)
def test_finds_the_muscles(
    bundle: ModelBundle, make_scan: MakeScan, shape: tuple, zooms: tuple
) -> None:
    image, truth = make_scan(shape, zooms)
    labels = Predictor(bundle).segment([image])
    assert labels.shape == image.shape
    assert labels.get_data_dtype() == np.uint8
    assert np.allclose(labels.affine, image.affine)
    assert min(dices(np.asarray(labels.dataobj), truth)) > 0.8


def test_finds_the_muscles_off_the_middle_of_a_wide_field_of_view(
    bundle: ModelBundle, make_scan: MakeScan
) -> None:
    image, truth = make_scan()
    room = [(90, 10), (60, 0), (0, 0)]
    wide = nib.Nifti1Image(np.pad(np.asarray(image.dataobj), room), image.affine)
    found = np.asarray(Predictor(bundle).segment([wide]).dataobj)
    assert min(dices(found, np.pad(truth, room))) > 0.8


def test_labels_do_not_depend_on_batches_or_threads(
    bundle: ModelBundle, make_scan: MakeScan
) -> None:
    import torch

    image, _ = make_scan((120, 96, 7))
    noisy = np.asarray(image.dataobj) + np.random.default_rng(1).normal(0, 0.3, image.shape)
    image = nib.Nifti1Image(noisy.astype(np.float32), image.affine)
    threads = torch.get_num_threads()
    found = []
    try:
        for batch_size, count in ((1, 1), (3, 1), (8, 2)):
            torch.set_num_threads(count)
            labels = Predictor(bundle, batch_size=batch_size).segment([image])
            found.append(np.asarray(labels.dataobj).tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(set(found)) == 1


def test_averages_over_the_images_of_a_scan(bundle: ModelBundle, make_scan: MakeScan) -> None:
    image, _ = make_scan()
    twice = Predictor(bundle).segment([image, image])
    once = Predictor(bundle).segment([image])
    assert np.array_equal(twice.dataobj, once.dataobj)


def test_refuses_images_on_different_grids(bundle: ModelBundle, make_scan: MakeScan) -> None:
    image, _ = make_scan()
    moved = image.affine.copy()
    moved[0, 3] += 5
    with pytest.raises(GridMismatchError):
        Predictor(bundle).segment([image, nib.Nifti1Image(image.dataobj, moved)])


def test_refuses_an_order_in_which_left_would_be_right(
    bundle: ModelBundle, make_scan: MakeScan
) -> None:
    image, _ = make_scan()
    flipped = image.as_reoriented([[0, -1], [1, 1], [2, 1]])
    with pytest.raises(GridMismatchError):
        Predictor(bundle).segment([flipped])


def test_nothing_found_is_an_error_not_an_empty_map(
    bundle: ModelBundle, make_scan: MakeScan
) -> None:
    image, _ = make_scan()
    with pytest.raises(SegmentationError):
        Predictor(bundle).segment([nib.Nifti1Image(np.zeros(image.shape, 'f4'), image.affine)])


def test_names_the_missing_device(bundle: ModelBundle) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip('there is a CUDA device')
    with pytest.raises(DeviceError, match='--device cpu'):
        Predictor(bundle, device='cuda')


def test_a_heavier_background_only_narrows_the_outlines(
    bundle: ModelBundle, make_scan: MakeScan
) -> None:
    image, _ = make_scan()
    plain, narrow = (
        np.asarray(Predictor(replace(bundle, background_weight=w)).segment([image]).dataobj) > 0
        for w in (1.0, 8.0)
    )
    assert 0 < narrow.sum() < plain.sum()
    assert not (narrow & ~plain).any()
