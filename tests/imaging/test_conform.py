"""Reading, checking, reconciling and reordering images."""

from __future__ import annotations

import gzip
import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff

from bids_muscle.errors import (
    BidsMuscleError,
    EmptyImageError,
    GridMismatchError,
    ImageShapeError,
    MissingInputError,
    UnreadableImageError,
)
from bids_muscle.imaging.conform import (
    VoxelGrid,
    grid_of,
    load_image,
    make_image,
    read_grid,
    reconcile_grids,
    to_canonical,
    to_native,
)

AFFINE = np.array([[-1.5, 0, 0, 60], [0, -1.5, 0, 40], [0, 0, 4, -20], [0, 0, 0, 1.0]])
DATA = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)

#: All 48 ways to store a volume: three axes in any order, each in either direction.
ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def saved(path: Path, data: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return saved(tmp_path / 'good.nii.gz', DATA)


def test_reads_what_was_written(good: Path) -> None:
    img = load_image(good)
    assert img.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(img.dataobj), DATA)
    assert np.allclose(img.affine, AFFINE)
    assert img.extra['warnings'] == ()
    assert grid_of(img).shape == read_grid(good).shape == (5, 6, 7)
    assert read_grid(good).zooms == pytest.approx((1.5, 1.5, 4))


def test_header_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    img = nib.Nifti1Image(DATA, AFFINE)
    img.header.set_slope_inter(0.5, 3)
    nib.save(img, tmp_path / 'scaled.nii.gz')
    loaded = np.asarray(load_image(tmp_path / 'scaled.nii.gz').dataobj)
    assert np.array_equal(loaded, 0.5 * DATA + 3)


def test_trailing_axes_of_one_element_are_dropped(tmp_path: Path) -> None:
    path = saved(tmp_path / 'x.nii', DATA[..., None, None])
    assert load_image(path).shape == read_grid(path).shape == (5, 6, 7)


def test_one_slice_is_three_dimensional(tmp_path: Path) -> None:
    assert load_image(saved(tmp_path / 'x.nii', DATA[:, :, :1])).shape == (5, 6, 1)


def test_a_few_bad_voxels_become_nan_and_are_reported(tmp_path: Path) -> None:
    data = DATA.astype(np.float32)
    data[1, 1, 1], data[2, 2, 2] = np.nan, np.inf
    img = load_image(saved(tmp_path / 'x.nii.gz', data))
    loaded = np.asarray(img.dataobj)
    assert np.array_equal(np.argwhere(np.isnan(loaded)), [[1, 1, 1], [2, 2, 2]])
    assert np.isfinite(loaded).sum() == loaded.size - 2
    (warning,) = img.extra['warnings']
    assert warning.startswith('x.nii.gz has 2 NaN or infinite voxels')


@pytest.mark.parametrize(
    ('data', 'error'),
    [
        (np.zeros((4, 4, 4)), EmptyImageError),
        (np.full((4, 4, 4), 7.0), EmptyImageError),
        (np.full((4, 4, 4), np.nan), EmptyImageError),
        (np.where(np.arange(64).reshape(4, 4, 4) % 2, 7, np.nan), EmptyImageError),
        (np.zeros((4, 4)), ImageShapeError),
        (np.ones((4, 4, 4, 2)), ImageShapeError),
        (np.ones((4, 4, 4, 1, 3)), ImageShapeError),
        (np.ones((4, 4, 4), np.complex64), UnreadableImageError),
        (np.ones((4, 4, 4), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')]), UnreadableImageError),
    ],
    ids=['zero', 'constant', 'nan', 'constant and nan', '2-D', '4-D', '5-D', 'complex', 'rgb'],
)
def test_useless_content_is_refused(
    tmp_path: Path, data: np.ndarray, error: type[BidsMuscleError]
) -> None:
    path = saved(tmp_path / 'bad.nii.gz', data)
    with pytest.raises(error, match='bad'):
        load_image(path)


@pytest.mark.parametrize('keep', [0, 10, 100, 300, -9, -1])
def test_truncated_compressed_file(good: Path, keep: int) -> None:
    content = good.read_bytes()
    good.write_bytes(content[:keep])
    with pytest.raises(UnreadableImageError, match='good'):
        load_image(good)


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    # Large enough not to fit one buffer of the decompressor.
    data = np.random.default_rng(0).integers(0, 4000, (64, 64, 40), dtype=np.int16)
    path = saved(tmp_path / 'x.nii.gz', data)
    assert np.array_equal(np.asarray(load_image(path).dataobj), data)
    content = bytearray(path.read_bytes())
    content[-5] ^= 0xFF  # all data decompress
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableImageError, match='CRC'):
        load_image(path)


def test_truncated_plain_file(tmp_path: Path) -> None:
    path = saved(tmp_path / 'x.nii', DATA)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableImageError, match=r'x\.nii'):
        load_image(path)


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / 'x.nii.gz'
    path.write_bytes(gzip.compress(b'hello' * 200))
    with pytest.raises(UnreadableImageError):
        read_grid(path)


@pytest.mark.parametrize('name', ['absent.nii.gz', 'folder'])
def test_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / 'folder').mkdir()
    with pytest.raises(MissingInputError, match=name.split('.')[0]):
        load_image(tmp_path / name)


def edited_header(path: Path, **fields: object) -> Path:
    """Write fields into the header of an uncompressed image, whatever they mean."""
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]))
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


def test_header_without_spacing(tmp_path: Path) -> None:
    img = nib.Nifti1Image(DATA, None)
    nib.save(img, tmp_path / 'x.nii')
    path = edited_header(tmp_path / 'x.nii', pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ImageShapeError, match='spacing'):
        read_grid(path)


@pytest.mark.parametrize('edge', [0, np.nan, np.inf])
@pytest.mark.parametrize('qform', [0, 1])
def test_one_edge_that_is_no_length(tmp_path: Path, edge: float, qform: int) -> None:
    path = edited_header(
        saved(tmp_path / 'x.nii', DATA),
        sform_code=0,
        qform_code=qform,
        pixdim=[1, 1.5, 1.5, edge, 0, 0, 0, 0],
    )
    with pytest.raises(ImageShapeError, match='spacing'):
        load_image(path)


def test_a_negative_spacing_is_told(tmp_path: Path) -> None:
    pixdim = [1, -1.5, 1.5, 4, 0, 0, 0, 0]
    path = edited_header(saved(tmp_path / 'x.nii', DATA), sform_code=0, pixdim=pixdim)
    loaded = load_image(path)
    assert grid_of(loaded).zooms == pytest.approx((1.5, 1.5, 4))
    assert 'negative' in loaded.extra['warnings'][0]


@pytest.mark.parametrize('edge', [0, np.nan, 3.0, -1.5])
def test_a_spacing_that_is_not_that_of_the_sform(tmp_path: Path, edge: float) -> None:
    path = saved(tmp_path / 'x.nii', DATA)
    loaded = load_image(edited_header(path, pixdim=[1, edge, 1.5, 4, 0, 0, 0, 0]))
    (warning,) = loaded.extra['warnings']
    assert 'spacing' in warning
    assert '1.5 x 1.5 x 4' in warning
    assert np.allclose(loaded.affine, AFFINE)


def test_singular_affine(tmp_path: Path) -> None:
    path = edited_header(saved(tmp_path / 'x.nii', DATA), srow_x=[0, 0, 0, 0])
    with pytest.raises(ImageShapeError, match='spacing'):
        load_image(path)


@pytest.mark.parametrize(
    ('shape', 'edges', 'told'),
    [
        ((300, 300, 20), (0.1, 0.1, 0.4), True),  # cm
        ((160, 160, 20), (0.22, 0.22, 0.5), True),
        ((300, 300, 20), (1000, 1000, 4000), True),  # micrometres
        ((512, 512, 20), (0.18, 0.18, 3), False),
        ((64, 64, 4), (0.5, 0.5, 0.5), False),
        ((224, 174, 20), (2.2, 2.2, 50), False),
    ],
)
def test_voxels_that_are_not_in_mm(
    tmp_path: Path, shape: tuple[int, ...], edges: tuple[float, ...], *, told: bool
) -> None:
    path = saved(tmp_path / 'x.nii.gz', np.zeros(shape, np.uint8), np.diag([*edges, 1.0]))
    if told:
        with pytest.raises(ImageShapeError, match=r'cannot be mm\.'):
            read_grid(path)
    else:
        assert read_grid(path).zooms == pytest.approx(edges)


def test_a_header_that_claims_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = edited_header(saved(tmp_path / 'x.nii', DATA), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with pytest.raises(ImageShapeError, match='claims'):
        load_image(path)


def grid(affine: np.ndarray = AFFINE, shape: tuple[int, int, int] = (5, 6, 7)) -> VoxelGrid:
    return grid_of(make_image(np.zeros(shape, np.uint8), affine))


def blank() -> VoxelGrid:
    """Grid of a header that has spacing and nothing else."""
    img = nib.Nifti1Image(DATA, None)
    img.header.set_zooms((1.5, 1.5, 4))
    return grid_of(nib.Nifti1Image.from_bytes(img.to_bytes()))


def moved(*origin: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize('kind', [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize('claimed', [2**30, 2**24, 8, 0, -1, -(2**31)])
@pytest.mark.parametrize('order', ['<', '>'])
def test_an_extension_that_claims_too_much_is_refused_unread(
    tmp_path: Path, kind: type, claimed: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = kind.header_class(endianness=order)
    header.extensions.append(nib.nifti1.Nifti1Extension('comment', b'x' * 40))
    nib.save(kind(DATA, np.eye(4), header), tmp_path / 'good.nii')
    content = bytearray((tmp_path / 'good.nii').read_bytes())
    size = kind.header_class.sizeof_hdr + 4
    assert int.from_bytes(content[size : size + 4], 'little' if order == '<' else 'big') == 48
    content[size : size + 4] = np.array(claimed, np.int32).astype(f'{order}i4').tobytes()
    path = tmp_path / 'x.nii.gz'
    path.write_bytes(gzip.compress(bytes(content)))
    monkeypatch.setattr(nib, 'load', lambda path: pytest.fail('nibabel was asked'))
    with pytest.raises(UnreadableImageError, match=f'extension claims {claimed} bytes'):
        read_grid(path)


@pytest.mark.parametrize('order', ['<', '>'])
def test_an_ordinary_extension_is_no_obstacle(tmp_path: Path, order: str) -> None:
    data = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    header = nib.Nifti1Header(endianness=order)
    for text in (b'x' * 40, b'y' * 70_000):
        header.extensions.append(nib.nifti1.Nifti1Extension('comment', text))
    nib.save(nib.Nifti1Image(data, np.eye(4), header), tmp_path / 'x.nii.gz')
    np.testing.assert_array_equal(load_image(tmp_path / 'x.nii.gz').get_fdata(), data)


@pytest.mark.parametrize('name', ['x.nii', 'x.nii.gz'])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UnreadableImageError, match='not a regular file'):
        read_grid(tmp_path / name)


@pytest.mark.parametrize('quaternion', [(2.0, 0, 0), (np.nan, 0, 0), (np.inf, 1, 1), (1e30, 0, 0)])
def test_a_damaged_quaternion_beside_a_good_sform_is_a_warning(
    tmp_path: Path, quaternion: tuple[float, ...]
) -> None:
    image = nib.Nifti1Image(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.eye(4), 1)
    for axis, value in zip('bcd', quaternion, strict=True):
        image.header[f'quatern_{axis}'] = value
    path = tmp_path / 'x.nii'
    path.write_bytes(image.to_bytes())
    loaded = load_image(path)
    np.testing.assert_array_equal(loaded.affine, np.eye(4))
    assert 'is not a rotation. The sform is used' in ' '.join(loaded.extra['warnings'])


def test_equal_grids_need_no_word() -> None:
    rounded = AFFINE + 1e-4
    affine, warnings = reconcile_grids({'a': grid(), 'b': grid(rounded)})
    assert np.array_equal(affine, AFFINE)
    assert warnings == []


@pytest.mark.parametrize('order', ['lost first', 'lost last'])
def test_lost_origin_takes_the_real_one(order: str) -> None:
    lost = moved(0, 0, 0)
    lost[0, 0] *= 1.00002
    grids = {'water.nii.gz': grid(lost), 'fat.nii.gz': grid()}
    if order == 'lost last':
        grids = dict(reversed(grids.items()))
    affine, (warning,) = reconcile_grids(grids)
    assert np.array_equal(affine, AFFINE)
    assert warning.startswith('water.nii.gz has lost its position')
    assert 'fat.nii.gz (60, 40, -20 mm)' in warning


def test_header_without_any_affine_takes_that_of_its_partner() -> None:
    affine, (warning,) = reconcile_grids({'a': blank(), 'b': grid(moved(9, 9, 9))})
    assert np.array_equal(affine, moved(9, 9, 9))
    assert 'neither sform nor qform' in warning


def test_no_affine_at_all_is_said() -> None:
    _, (warning,) = reconcile_grids({'a': blank()})
    assert 'its orientation is assumed' in warning


@pytest.mark.parametrize(
    ('other', 'difference'),
    [
        (grid(shape=(5, 6, 8)), 'shape 5 x 6 x 7 and 5 x 6 x 8 voxels'),
        (grid(AFFINE @ np.diag([1, 1, 1.5, 1])), 'voxel size'),
        (grid(np.diag([-1, 1, 1, 1]) @ AFFINE), 'orientation'),
        (grid(moved(60, 40, -24)), 'origin'),
        (grid(moved(0, 0, 0) @ np.diag([-1, 1, 1, 1])), 'orientation'),
        (grid(moved(0, 0, 0) @ np.diag([1, 1, 1.02, 1])), 'voxel size'),
    ],
    ids=['shape', 'zooms', 'flip', 'shift', 'flip with lost origin', 'zooms with lost origin'],
)
def test_true_differences_are_refused(other: VoxelGrid, difference: str) -> None:
    for grids in ({'a.nii': grid(), 'b.nii': other}, {'b.nii': other, 'a.nii': grid()}):
        with pytest.raises(GridMismatchError, match='do not share a grid') as caught:
            reconcile_grids(grids)
        assert 'a.nii' in caught.value.message
        assert 'b.nii' in caught.value.message
        assert difference.split()[0] in caught.value.message


@pytest.mark.parametrize('ornt', ORIENTATIONS, ids=str)
def test_all_48_orientations_there_and_back(ornt: np.ndarray) -> None:
    tilt = np.eye(4)
    tilt[:3, :3] = nib.eulerangles.euler2mat(0.2, -0.15, 0.1)
    upright = make_image(DATA, tilt @ np.diag([1.5, 1.2, 4, 1]))
    stored = make_image(
        np.ascontiguousarray(apply_orientation(DATA, ornt)),
        upright.affine @ inv_ornt_aff(ornt, DATA.shape),
    )
    canonical = to_canonical(stored)
    assert aff2axcodes(canonical.affine) == ('R', 'A', 'S')
    assert np.array_equal(np.asarray(canonical.dataobj), DATA)
    assert np.allclose(canonical.affine, upright.affine)
    native = to_native(canonical, stored)
    assert np.array_equal(np.asarray(native.dataobj), np.asarray(stored.dataobj))
    assert np.allclose(native.affine, stored.affine)
    assert native.get_data_dtype() == np.int16


def test_native_refuses_another_grid() -> None:
    img = make_image(DATA, AFFINE)
    with pytest.raises(GridMismatchError):
        to_native(to_canonical(make_image(DATA, moved(1, 2, 3))), img)


def test_both_forms_survive_writing(tmp_path: Path) -> None:
    nib.save(make_image(DATA, AFFINE), tmp_path / 'x.nii')
    header = nib.load(tmp_path / 'x.nii').header
    assert np.allclose(header.get_sform(), AFFINE)
    assert np.allclose(header.get_qform(), AFFINE)
    assert read_grid(tmp_path / 'x.nii').located
    nib.save(make_image(DATA, blank().affine, located=False), tmp_path / 'y.nii')
    assert not read_grid(tmp_path / 'y.nii').located


def test_forms_that_disagree_are_told_and_the_sform_is_used(tmp_path: Path) -> None:
    img = nib.Nifti1Image(DATA, AFFINE)
    img.set_sform(AFFINE, code=1)
    img.set_qform(moved(9, 9, 9), code=1)
    nib.save(img, tmp_path / 'x.nii')
    loaded = load_image(tmp_path / 'x.nii')
    (warning,) = loaded.extra['warnings']
    assert 'The sform is used' in warning
    assert np.allclose(loaded.affine, AFFINE)
    img.set_qform(AFFINE, code=1)
    nib.save(img, tmp_path / 'y.nii')
    assert load_image(tmp_path / 'y.nii').extra['warnings'] == ()


@pytest.mark.parametrize(('degrees', 'said'), [(0.5, None), (30, 'differs by 30 degrees')])
def test_forms_that_are_turned_a_little_are_no_news(
    tmp_path: Path, degrees: float, said: str | None
) -> None:
    turn = nib.eulerangles.euler2mat(np.deg2rad(degrees), 0, 0)
    img = nib.Nifti1Image(DATA, AFFINE)
    img.set_sform(AFFINE, 1)
    img.set_qform(nib.affines.from_matvec(turn @ AFFINE[:3, :3], AFFINE[:3, 3]), 1)
    nib.save(img, tmp_path / 'x.nii')
    warnings = ' '.join(load_image(tmp_path / 'x.nii').extra['warnings'])
    assert said in warnings if said else warnings == ''


def test_forms_that_mirror_each_other_are_told(tmp_path: Path) -> None:
    img = nib.Nifti1Image(DATA, AFFINE)
    img.set_sform(AFFINE, code=1)
    img.set_qform(np.diag([-1, 1, 1, 1]) @ AFFINE, code=1)
    nib.save(img, tmp_path / 'x.nii')
    (warning,) = load_image(tmp_path / 'x.nii').extra['warnings']
    assert 'check left and right' in warning
    edited_header(tmp_path / 'x.nii', pixdim=[-1, 3, 1.5, 4, 0, 0, 0, 0])
    spacing, mirror = load_image(tmp_path / 'x.nii').extra['warnings']
    assert 'spacing' in spacing and 'check left and right' in mirror
    img.set_qform(np.diag([-1, -1, 1, 1]) @ AFFINE, code=1)
    nib.save(img, tmp_path / 'y.nii')
    (warning,) = load_image(tmp_path / 'y.nii').extra['warnings']
    assert 'left and right' not in warning
