"""N4 against a known field."""

from __future__ import annotations

import numpy as np
import pytest
from abdomen import ABDOMEN, AFFINE
from nibabel.affines import voxel_sizes

from bids_muscle.imaging.bias import _sampling_steps, _without_locally_dark, estimate_bias_field
from bids_muscle.imaging.conform import make_image
from bids_muscle.imaging.n4 import n4_log_field


@pytest.fixture(scope='module')
def biased() -> np.ndarray:
    return (ABDOMEN.water + ABDOMEN.fat) * ABDOMEN.field + ABDOMEN.air_noise()


@pytest.fixture(scope='module')
def found(biased: np.ndarray) -> np.ndarray:
    return estimate_bias_field(make_image(biased, AFFINE), ABDOMEN.body)


def test_most_of_a_known_field_is_found(found: np.ndarray) -> None:
    planted = np.log(ABDOMEN.field[ABDOMEN.body])
    left = np.log(found[ABDOMEN.body]) - planted
    assert planted.std() > 0.2
    assert left.std() < 0.3 * planted.std()


def test_the_field_is_positive_with_a_geometric_mean_of_one(found: np.ndarray) -> None:
    assert found.dtype == np.float32
    assert (found > 0).all()
    assert np.log(found[ABDOMEN.body], dtype=float).mean() == pytest.approx(0, abs=1e-5)


def test_same_bytes_twice_and_scale_does_not_matter(biased: np.ndarray) -> None:
    first, again, scaled = (
        estimate_bias_field(make_image(image, AFFINE), ABDOMEN.body, iterations=(3, 3))
        for image in (biased, biased, 256 * biased)
    )
    assert first.std() > 0.01
    assert again.tobytes() == first.tobytes()
    assert np.allclose(scaled, first, rtol=1e-3)


@pytest.mark.parametrize('planes', [slice(None), 4])
def test_the_field_is_that_of_itk(biased: np.ndarray, planes: slice | int) -> None:
    import ants

    values, mask = (
        biased[::3, ::3, planes],
        ABDOMEN.body[::3, ::3, planes] & (biased > 0)[::3, ::3, planes],
    )
    spacing = voxel_sizes(AFFINE)[: values.ndim] * [3, 3, 1][: values.ndim]
    own = n4_log_field(
        values, mask, spacing, knot_mm=150.0, iterations=(20, 10, 10), tolerance=1e-3
    )
    image, region = (
        ants.from_numpy(np.ascontiguousarray(each, np.float32), spacing=spacing.tolist())
        for each in (values, mask)
    )
    theirs = ants.n4_bias_field_correction(
        image,
        mask=region,
        shrink_factor=1,
        convergence={'iters': [20, 10, 10], 'tol': 1e-3},
        spline_param=150,
        return_bias_field=True,
    )
    assert own[mask].std() > 0.1
    np.testing.assert_allclose(own[mask], np.log(theirs.numpy())[mask], atol=2e-3)


@pytest.mark.parametrize('n_slices', [1, 2, 3])
def test_few_slices(biased: np.ndarray, n_slices: int) -> None:
    few = biased[:, :, :n_slices]
    mask = ABDOMEN.body[:, :, :n_slices]
    field = estimate_bias_field(make_image(few, AFFINE), mask, iterations=(2,))
    assert field.shape == few.shape
    assert np.isfinite(field).all()


def test_coarse_voxels_are_thinned_out_and_thick_slices_are_not() -> None:
    coarse = _sampling_steps((120, 120, 20), np.array([3.0, 3.0, 8.8]))
    assert coarse[2] == 1
    assert coarse[0] == coarse[1] > 1
    assert np.prod(np.ceil((120, 120, 20) / coarse)) <= 15_000
    assert np.ptp(_sampling_steps((200, 200, 200), np.array([3.0, 3.0, 3.0]))) == 0


def test_too_little_body_leaves_the_image_alone() -> None:
    img = make_image(np.ones((9, 9, 9), np.float32), AFFINE)
    mask = np.zeros((9, 9, 9), bool)
    assert (estimate_bias_field(img, mask) == 1).all()
    mask[4, 4, 4] = True
    assert (estimate_bias_field(img, mask) == 1).all()


def test_what_lies_outside_the_body_does_not_count(biased: np.ndarray) -> None:
    ramp = np.linspace(0, 3 * biased.max(), biased.shape[0], dtype=np.float32)
    other = np.where(ABDOMEN.body, biased, ramp[:, None, None])
    fields = [
        estimate_bias_field(make_image(image, AFFINE), ABDOMEN.body, iterations=(5, 5))
        for image in (biased, other)
    ]
    assert np.ptp(fields[0][ABDOMEN.body]) > 0.1
    np.testing.assert_array_equal(*fields)


def test_gas_and_bone_are_left_out_and_a_smooth_field_is_not(biased: np.ndarray) -> None:
    gas = np.zeros(biased.shape, bool)
    gas[60:64, 40:44] = True
    gas &= ABDOMEN.body
    values = np.where(gas, 0.05, 1.0) * ABDOMEN.field
    kept = _without_locally_dark(values, ABDOMEN.body, np.array(voxel_sizes(AFFINE)))
    assert gas.any()
    np.testing.assert_array_equal(kept, ABDOMEN.body & ~gas)
