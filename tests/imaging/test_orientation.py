"""Left stays left, however a scan is stored."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from dixon_phantom import DixonPhantom, make_dixon
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from nibabel.orientations import apply_orientation, inv_ornt_aff

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.imaging.conform import make_image, to_canonical, to_native
from bids_muscle.imaging.prepare import prepare_scan

ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope='module')
def scan() -> DixonPhantom:
    return make_dixon('lumbar', (48, 48, 8), bias=0)


@pytest.mark.parametrize('oblique', [False, True])
def test_left_stays_left_in_all_48_orientations(scan: DixonPhantom, oblique: bool) -> None:
    tilt = np.eye(4)
    if oblique:
        tilt[:3, :3] = euler2mat(0.2, -0.15, 0.25)
    upright = tilt @ scan.affine
    sides = {
        side: np.isin(scan.labels, [x.index for x in load_label_table('lumbar') if x.side == side])
        for side in ('left', 'right')
    }
    # A bright mark in a left muscle and the label map go the same way.
    signal = scan.water + 500 * sides['left']
    truth = apply_affine(upright, np.argwhere(sides['left'])).mean(axis=0)
    reference = None
    for ornt in ORIENTATIONS:
        affine = upright @ inv_ornt_aff(ornt, signal.shape)
        stored = make_image(np.ascontiguousarray(apply_orientation(signal, ornt)), affine)
        made = prepare_scan({'T2w': stored}, bias_correction=False)
        image = made.images['T2w']
        data = np.asarray(image.dataobj)
        assert np.array_equal(data, signal)
        assert np.allclose(apply_affine(image.affine, np.argwhere(sides['left'])).mean(0), truth)
        mask = np.asarray(made.body_mask.dataobj)
        reference = mask if reference is None else reference
        assert np.array_equal(mask, reference)
        labels = make_image(sides['left'].astype(np.uint8), image.affine)
        native = to_native(labels, made.native)
        assert native.shape == stored.shape
        back = apply_affine(native.affine, np.argwhere(np.asarray(native.dataobj))).mean(axis=0)
        assert np.allclose(back, truth)
        assert np.array_equal(np.asarray(to_canonical(native).dataobj), sides['left'])
    left, right = (
        apply_affine(scan.affine, np.argwhere(inside)).mean(axis=0) for inside in sides.values()
    )
    assert left[0] < right[0]
