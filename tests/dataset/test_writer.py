from __future__ import annotations

import gzip
import json
import math
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_muscle.dataset import writer
from bids_muscle.dataset.writer import (
    read_tsv,
    remove_torn,
    write_bytes,
    write_image,
    write_json,
    write_text,
    write_tsv,
)
from bids_muscle.errors import FullDiskError, OutputError

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, 0.1, -0.3) @ np.diag([0.9, 0.9, 4]), [-80, 30, 1200]
)


def image(data: np.ndarray, affine: np.ndarray = OBLIQUE, code: int = 1) -> nib.Nifti1Image:
    img = nib.Nifti1Image(data, affine)
    img.set_sform(affine, code)
    img.set_qform(affine, code)
    return img


@pytest.mark.parametrize(
    ('kind', 'stored'),
    [
        ('uint8', 'uint8'),
        ('int16', 'int16'),
        ('uint16', 'uint16'),
        ('float32', 'float32'),
        ('float64', 'float32'),
        ('bool', 'uint8'),
        ('int64', 'int32'),
    ],
)
def test_values_types_and_grid(tmp_path: Path, kind: str, stored: str) -> None:
    data = (np.arange(24).reshape(2, 3, 4) % 2 if kind == 'bool' else np.arange(24)).reshape(
        2, 3, 4
    )
    path = tmp_path / 'x.nii.gz'
    img = nib.Nifti1Image(data.astype(np.uint8), OBLIQUE) if kind == 'bool' else None
    img = img or nib.Nifti1Image(data.astype(kind), OBLIQUE, dtype=kind)
    write_image(img, path)
    back = nib.load(path)
    assert back.get_data_dtype() == stored
    assert np.array_equal(np.asanyarray(back.dataobj), data)
    assert np.asanyarray(back.dataobj).dtype == stored  # no slope made floats of integers
    assert np.allclose(back.affine, OBLIQUE, atol=1e-4)
    assert back.header.get_xyzt_units()[0] == 'mm'


def test_labels_survive_a_scaled_source_header(tmp_path: Path) -> None:
    """A header with a slope, as scanners write it, must not scale the labels (PEERS, fault 9)."""
    source = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), OBLIQUE)
    source.header.set_slope_inter(35.647, 0)
    source.header['descrip'] = b'a name'
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_image(nib.Nifti1Image(labels, OBLIQUE, source.header), tmp_path / 'x.nii.gz')
    raw = gzip.decompress((tmp_path / 'x.nii.gz').read_bytes())
    slope, inter = struct.unpack('<2f', raw[112:120])
    assert (slope, inter) in ((1, 0), (0, 0)) or (np.isnan(slope) and np.isnan(inter))
    assert b'a name' not in raw
    assert np.array_equal(np.frombuffer(raw[352:], np.uint8), labels.ravel(order='F'))


@pytest.mark.parametrize('code', [0, 1, 2])
def test_form_codes_follow_the_image(tmp_path: Path, code: int) -> None:
    affine = np.diag([-2.0, -2, 4, 1]) if code else np.diag([2.0, 2, 4, 1])
    write_image(image(np.ones((2, 3, 4), np.uint8), affine, code), tmp_path / 'x.nii.gz')
    header = nib.load(tmp_path / 'x.nii.gz').header
    assert (int(header['sform_code']), int(header['qform_code'])) == (code, code)
    assert np.allclose(header.get_zooms(), (2, 2, 4))


def test_shear_is_kept_in_the_sform_only(tmp_path: Path) -> None:
    sheared = np.diag([1.0, 1, 4, 1])
    sheared[0, 2] = 1
    img = nib.Nifti1Image(np.ones((2, 3, 4), np.uint8), sheared)
    write_image(img, tmp_path / 'x.nii.gz')
    back = nib.load(tmp_path / 'x.nii.gz')
    assert np.allclose(back.affine, sheared)
    assert int(back.header['qform_code']) == 0


def test_same_bytes_whatever_name_and_time(tmp_path: Path) -> None:
    img = image(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    for name in ('a.nii.gz', 'b.nii.gz'):
        write_image(img, tmp_path / name)
    content = (tmp_path / 'a.nii.gz').read_bytes()
    assert content == (tmp_path / 'b.nii.gz').read_bytes()
    assert content[3] == 0  # gzip flags: no file name
    assert content[4:8] == b'\0\0\0\0'  # no time


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / 'x.txt'
    write_text('old', path)

    def no_space(_: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', no_space)
    with pytest.raises(FullDiskError, match='No space left'):
        write_text('new', path)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet_and_neither_is_swept(tmp_path: Path) -> None:
    path = tmp_path / 'x.txt'
    torn = tmp_path / '.y.txt.1-abc.tmp'
    torn.write_text('of a writer that was killed')

    def content() -> Iterator[bytes]:
        yield b'first '
        write_text('second', path)
        remove_torn(tmp_path)
        yield b'writer'

    write_bytes(content(), path)
    assert path.read_text() == 'first writer'
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_swept_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch
) -> None:
    lock, swept = writer._lock, []

    def late(stream: IO[bytes], **options: bool) -> bool:
        if options and not swept:
            swept.extend(tmp_path.glob('.*.tmp'))
            remove_torn(tmp_path)
        return lock(stream, **options)

    monkeypatch.setattr(writer, '_lock', late)
    write_text('whole', tmp_path / 'x.txt')
    assert swept and (tmp_path / 'x.txt').read_text() == 'whole'
    assert [path.name for path in tmp_path.iterdir()] == ['x.txt']


def test_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError) as error:
        write_bytes(b'', tmp_path / 'file' / 'x' / 'y.txt')
    assert int(error.value.exit_code) == 73


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    """A temporary file made for one user only would lock colleagues out."""
    (tmp_path / 'ordinary').touch()
    write_text('x', tmp_path / 'deep' / 'written')
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ('ordinary', 'deep/written')]
    assert modes[0] == modes[1]


def test_long_names(tmp_path: Path) -> None:
    name = 'x' * 240 + '.nii.gz'
    write_bytes(b'x', tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_json_is_plain(tmp_path: Path) -> None:
    path = tmp_path / 'x.json'
    write_json(
        {'a': np.float32(0.5), 'b': [np.int64(1), float('nan')], 'c': Path('p'), 'd': {'e': 'é'}},
        path,
    )
    assert json.loads(path.read_text()) == {'a': 0.5, 'b': [1, 'n/a'], 'c': 'p', 'd': {'e': 'é'}}
    assert 'é' in path.read_text(encoding='utf-8')


def test_tables_from_frames_and_rows_are_the_same(tmp_path: Path) -> None:
    rows = [
        {'name': 'a', 'x_mm': 0.1 + 0.2, 'n': 3, 'ok': True},
        {'name': 'tab\tnew\nline', 'x_mm': float('nan'), 'n': 4640001, 'ok': False},
    ]
    write_tsv(rows, tmp_path / 'rows.tsv')
    write_tsv(pd.DataFrame(rows), tmp_path / 'frame.tsv')
    expected = 'name\tx_mm\tn\tok\na\t0.3\t3\ttrue\ntab new line\tn/a\t4640001\tfalse\n'
    assert (tmp_path / 'rows.tsv').read_text() == expected
    assert (tmp_path / 'frame.tsv').read_text() == expected


def test_missing_marks_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({'a': pd.array([1, None], dtype='Int64'), 'b': [None, 'x']})
    write_tsv(frame, tmp_path / 'x.tsv')
    assert (tmp_path / 'x.tsv').read_text() == 'a\tb\n1\tn/a\nn/a\tx\n'


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [{'name': '01', 'note': '"so', 'n': 1.5}, {'name': '02', 'note': 'NA', 'n': None}]
    write_tsv(rows, tmp_path / 'a.tsv')
    table = read_tsv(tmp_path / 'a.tsv', ['name'])
    assert table['name'].tolist() == ['01', '02']
    assert table['note'].tolist() == ['"so', 'NA']
    assert table['n'].tolist() == pytest.approx([1.5, math.nan], nan_ok=True)


def test_empty_frame_keeps_its_header(tmp_path: Path) -> None:
    write_tsv(pd.DataFrame(columns=['a', 'b']), tmp_path / 'x.tsv')
    assert (tmp_path / 'x.tsv').read_text() == 'a\tb\n'


@settings(max_examples=50)
@given(value=st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.booleans()))
def test_no_value_breaks_a_table(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp('t') / 'x.tsv'
    write_tsv([{'a': 1, 'b': value, 'c': 2}], path)
    lines = path.read_text(encoding='utf-8').split('\n')
    assert len(lines) == 3
    assert lines[1].count('\t') == 2
    assert lines[1].split('\t')[1].strip()
