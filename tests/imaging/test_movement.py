"""How far a patient moved between an axial and a sagittal scan."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.ndimage import gaussian_filter

from bids_muscle.imaging.movement import Movement, find_movement, moved, remarks

#: Edge of the voxels in which the body is drawn, mm, and planes of it in a slice.
FINE_MM, THICK = 1.5, 3
SHAPE = (60, 60, 108)


def body(seed: int = 0) -> np.ndarray:
    """Return tissue of three kinds in blobs of a centimetre."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 4)
    return np.digitize(noise / noise.std(), [-0.5, 0.5])


def scan(data: np.ndarray, axis: int, at_mm: tuple[float, ...] = (0, 0, 0)) -> nib.Nifti1Image:
    """Return a scan with thick slices along an axis, with noise and a coil that is near."""
    parts = np.moveaxis(data.astype(float), axis, 0)
    parts = parts.reshape(-1, THICK, *parts.shape[1:]).mean(1)
    data = np.moveaxis(parts, 0, axis)
    data = data * np.linspace(2.5, 1, data.shape[1])[None, :, None]
    data = np.abs(data + np.random.default_rng(1).normal(0, 5, data.shape))
    affine = np.diag([FINE_MM, FINE_MM, FINE_MM, 1.0])
    affine[axis, axis] *= THICK
    affine[:3, 3] = at_mm
    affine[axis, 3] += FINE_MM * (THICK - 1) / 2
    return nib.Nifti1Image(data, affine)


def spine(at_mm: tuple[float, ...] = (0, 0, 0)) -> nib.Nifti1Image:
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:40, 20:40, 10:-10] = 1
    affine = np.diag([FINE_MM, FINE_MM, FINE_MM, 1.0])
    affine[:3, 3] = at_mm
    return nib.Nifti1Image(labels, affine)


#: Signal of each kind of tissue; no contrast is a copy of another.
T1, T2 = np.array([40.0, 100, 180]), np.array([150.0, 20, 110])


@settings(max_examples=8, deadline=None)
@given(st.tuples(*[st.floats(-15, 15)] * 3), st.booleans())
def test_a_planted_shift_is_found_along_each_axis(
    shift: tuple[float, float, float], same: bool
) -> None:
    people = body()
    back = (-shift[0], -shift[1], -shift[2])
    axial = scan(T1[people], 2)
    sagittal = scan((T1 if same else T2)[people], 0, back)
    found = find_movement([axial], sagittal, spine(back))
    assert found.shift_mm == pytest.approx(shift, abs=1.0)
    assert found.sd_mm is not None and max(found.sd_mm) < 1


def test_neither_voxel_order_nor_a_second_image_matters() -> None:
    people = body()
    axial, other = scan(T1[people], 2), scan(T2[people], 2)
    sagittal = scan(T2[people], 0, (-6, 0, 4))
    order = np.array([[1, -1], [2, 1], [0, -1]])
    turned = nib.Nifti1Image(
        apply_orientation(np.asarray(sagittal.dataobj), order),
        sagittal.affine @ inv_ornt_aff(order, sagittal.shape),
    )
    one = find_movement([axial], turned, spine((-6, 0, 4)))
    two = find_movement([axial, other], sagittal, spine((-6, 0, 4)))
    assert one.shift_mm == pytest.approx((6, 0, -4), abs=1)
    assert two.shift_mm == pytest.approx((6, 0, -4), abs=1)


def test_oblique_slices_are_compared_in_the_world() -> None:
    people = body()
    angle = np.radians(15)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    axial, sagittal = (
        nib.Nifti1Image(np.asarray(each.dataobj), turn @ each.affine)
        for each in (scan(T1[people], 2), scan(T2[people], 0))
    )
    sagittal.affine[:3, 3] -= (0, 8, 0)
    middle = np.zeros(sagittal.shape, np.uint8)
    middle[7:13, 20:40, 10:-10] = 1
    labels = nib.Nifti1Image(middle, sagittal.affine)
    assert find_movement([axial], sagittal, labels).shift_mm == pytest.approx((0, 8, 0), abs=1)


def test_what_cannot_be_known_is_not_told() -> None:
    people = body()
    axial = scan(T1[people], 2)
    stranger = find_movement([axial], scan(T2[body(7)], 0), spine())
    # 28 mm to the right: the last look goes on beyond the reach, as far as it ever does.
    aside = find_movement([axial], scan(T2[people], 0, (-28, 0, 0)), spine((-28, 0, 0)))
    far = find_movement([axial], scan(T2[people], 0, (0, 0, -30)), spine((0, 0, -30)))
    elsewhere = find_movement([axial], scan(T2[people], 0, (0, 0, 900)), spine((0, 0, 900)))
    empty = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4))
    nothing = find_movement([axial], scan(T2[people], 0), empty)
    assert {each.shift_mm for each in (stranger, aside, far, elsewhere, nothing)} == {None}
    assert 'no shift of the images' in str(stranger.reason)
    assert 'shifted by' in str(far.reason) and far.reason == aside.reason
    assert str(elsewhere.reason) == str(nothing.reason)
    assert 'too little' in str(nothing.reason)


def test_only_what_is_long_is_called_a_movement() -> None:
    assert moved((4.9, -4.9, 0)) is None
    assert moved((-5, 0, 12.4)) == '5 mm to the left, 12 mm up'


def test_what_makes_a_place_doubtful_is_said() -> None:
    known = Movement((0.0, 1.0, -7.0), (1.0, 1.0, 1.0))
    assert remarks(Movement((0.0, 1.0, -2.0), (1.0, 1.0, 1.0)), 'T2w', ('1.2', '1.2')) == []
    assert remarks(known, 'T2w', ('1.2', None)) == [
        'the patient moved between the scans: the anatomy lies 7 mm down relative to T2w'
    ]
    frame, unknown = remarks(Movement(None, reason='too dark'), 'T2w', ('1.2', '1.3'))
    assert 'different frames of reference' in frame
    assert unknown.endswith('T2w cannot be excluded: too dark')
