"""What the browser sends back lies where it was drawn, in the voxel order of the scan."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
from flask.testing import FlaskClient
from small_output import ORIGIN, SHAPE, write_output

from bids_muscle.dataset.corrections import correction_path, find_correction
from bids_muscle.dataset.names import derivative_path
from bids_muscle.review.state import ReviewState

#: Oblique, as scans of the neck are.
ANGLE_RAD = 0.3
TURN = np.array(
    [
        [1, 0, 0],
        [0, np.cos(ANGLE_RAD), -np.sin(ANGLE_RAD)],
        [0, np.sin(ANGLE_RAD), np.cos(ANGLE_RAD)],
    ]
)


def affines() -> list[np.ndarray]:
    """Return an affine for each of the 48 voxel orders."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = TURN @ (np.eye(3)[:, order] * signs) @ np.diag([2.0, 1.5, 4.0])
            affine[:3, 3] = 10, -20, 30
            found.append(affine)
    return found


def test_left_stays_left_in_all_48_voxel_orders(
    tmp_path: Path, admitted: Callable[[Path], tuple[ReviewState, FlaskClient]]
) -> None:
    scans = [
        write_output(tmp_path / 'out', f'{number:02}', affine)
        for number, affine in enumerate(affines())
    ]
    assert len(scans) == 48
    review, client = admitted(tmp_path / 'out')
    for scan in scans:
        published = review.output_dir / derivative_path(scan, 'dseg')
        before = nib.load(published)
        answer = client.get(f'/scan/{scan.name}/labels/network')
        shape = nib.as_closest_canonical(before).shape
        seen = np.frombuffer(gzip.decompress(answer.data), np.uint8).reshape(shape, order='F')
        # As it is shown, the patient's right multifidus is where the first index is high.
        assert set(seen[0][seen[0] > 0]) == {2}
        assert set(seen[-1][seen[-1] > 0]) == {1}
        drawn = seen.copy(order='F')
        drawn[-1, 1, 2] = 5  # the right psoas, at a place without any symmetry
        query = {
            'rater': 'Anna',
            'start': 'network',
            'startSha256': answer.headers['X-SHA256'],
            'revision': '',
            'passed': 'true',
        }
        saved = client.post(
            f'/scan/{scan.name}/correction',
            query_string=query,
            data=drawn.tobytes(order='F'),
            headers=ORIGIN,
        )
        assert saved.status_code == 200, saved.text
        assert saved.json['VoxelsChanged'] == 1
        path = review.output_dir / correction_path(scan, 'Anna')
        assert find_correction(scan, [review.output_dir]) == (('dseg', path),)
        after = nib.load(path)
        # The header, to the last bit of the affine, is that of the published map.
        headers = [gzip.decompress(each.read_bytes())[:352] for each in (published, path)]
        assert headers[0] == headers[1]
        moved = np.argwhere(np.asarray(after.dataobj) != np.asarray(before.dataobj))
        assert len(moved) == 1
        assert after.dataobj[tuple(moved[0])] == 5
        # Where it is in the body: on the right, measured along the axis that runs to the right.
        canonical = nib.as_closest_canonical(after)
        assert np.argwhere(np.asarray(canonical.dataobj) == 5).tolist() == [[shape[0] - 1, 1, 2]]
        assert after.shape == SHAPE


def test_images_are_not_turned_or_scaled(
    output: Path, admitted: Callable[[Path], tuple[ReviewState, FlaskClient]]
) -> None:
    _, client = admitted(output)
    answer = client.get('/scan/sub-1_acq-dixon/image/water.nii')
    image = nib.Nifti1Image.from_bytes(gzip.decompress(answer.data))
    np.testing.assert_array_equal(image.affine, np.diag([2, 2, 5, 1]))
    stored = nib.load(next(output.glob('sub-1/anat/*preproc*')))
    wanted = nib.as_closest_canonical(stored).get_fdata()
    np.testing.assert_array_equal(np.asarray(image.dataobj), wanted)
    assert not np.isfinite(image.header['scl_slope']) or image.header['scl_slope'] == 1
