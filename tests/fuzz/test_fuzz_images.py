"""Whatever an image file holds: a valid image, or an error that says what to do."""

from __future__ import annotations

import gzip
import resource
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fuzzing import CORPUS, image_bytes, said_clearly, tries
from hypothesis import given
from hypothesis import strategies as st

from bids_muscle.imaging.conform import load_image, read_grid

#: Where header and header extensions of a NIfTI-1 file lie.
HEADER_BYTES = 360


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


def read(path: Path) -> None:
    """Read an image in both ways, and check what all later steps rely on."""
    with said_clearly():
        read_grid(path)
    with said_clearly():
        image = load_image(path)
        data = np.asarray(image.dataobj)
        assert data.ndim == 3
        assert np.isfinite(data[~np.isnan(data)]).all()
        assert np.nanmin(data) < np.nanmax(data)
        assert abs(np.linalg.det(image.affine[:3, :3])) > 0


@pytest.mark.parametrize('path', sorted((CORPUS / 'images').iterdir()), ids=lambda path: path.name)
def test_the_corpus(path: Path) -> None:
    read(path)


@tries(400)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, HEADER_BYTES - 1), st.binary(min_size=1, max_size=4))
    ),
    keep=st.none() | st.integers(0, 592),
    zipped=st.booleans(),
)
def test_headers(
    folder: Path, changes: list[tuple[int, bytes]], keep: int | None, zipped: bool
) -> None:
    content = bytearray(image_bytes())
    for place, new in changes:
        content[place : place + len(new)] = new
    path = folder / ('x.nii.gz' if zipped else 'x.nii')
    path.write_bytes(gzip.compress(bytes(content[:keep]), 1) if zipped else content[:keep])
    read(path)


_HEADER = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.eye(4)).header
_NUMBERS = st.sampled_from([-(2.0**127), -1, -0.0, 1e-30, 1, 2.0**127, np.nan, np.inf, -np.inf])


@tries(200)
@given(
    fields=st.dictionaries(
        st.sampled_from(sorted(_HEADER.structarr.dtype.names)),
        _NUMBERS | st.integers(-(2**15), 2**15 - 1),
        max_size=4,
    ),
    version=st.sampled_from([1, 2]),
)
def test_fields_of_headers(folder: Path, fields: dict[str, float], version: int) -> None:
    """Numbers in whole fields: quaternions, affines, dimensions, scales, places of the voxels."""
    image = nib.Nifti1Image.from_bytes(image_bytes())
    if version == 2:
        image = nib.Nifti2Image.from_image(image)
    content = bytearray(image.to_bytes())
    header = np.frombuffer(content, image.header.structarr.dtype, count=1)
    with np.errstate(all='ignore'):
        for name, value in fields.items():
            if name in (header.dtype.names or ()) and header[name].dtype.kind in 'fiu':
                header[name] = np.asarray(value).astype(header[name].dtype)
    path = folder / 'field.nii'
    path.write_bytes(content)
    read(path)


@tries(60)
@given(content=st.binary(max_size=400))
def test_files_that_are_no_images(folder: Path, content: bytes) -> None:
    for path in (folder / 'noise.nii', folder / 'noise.nii.gz'):
        path.write_bytes(content)
        read(path)


def test_a_small_file_that_unpacks_to_gigabytes_is_read_to_its_image_only(folder: Path) -> None:
    """A gigabyte of zeros after the voxels, in a megabyte."""
    path = folder / 'bomb.nii.gz'
    with gzip.open(path, 'wb', 1) as stream:
        stream.write(image_bytes())
        for _ in range(64):
            stream.write(bytes(2**24))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
