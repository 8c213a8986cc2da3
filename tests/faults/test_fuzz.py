"""Whatever stands in a file of the user: a valid result, or an error that says what to do."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bids_muscle.cli.folders import check_input
from bids_muscle.dataset.contrasts import load_contrast_rules
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.index import read_filters
from bids_muscle.dataset.participants import height_m, read_participant_info, read_participants
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.spine_maps import read_label_names
from bids_muscle.errors import BidsMuscleError
from bids_muscle.imaging.conform import load_image, read_grid
from bids_muscle.reports.exclusions import read_exclusions
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.reports.ratings import COLUMNS, FORMAT, RATINGS, read_ratings
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.settings import Settings, read_config

#: `make fuzz` tries many times as much.
TIMES = int(os.environ.get('FUZZ_TIMES', '1'))
quick = settings(max_examples=60 * TIMES)

#: Deeper than Python's parsers go.
DEEP = b'[' * 100_000
words = st.text(st.characters(codec='utf-8'), max_size=12)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)
    ),
    max_leaves=8,
)


@contextmanager
def said_clearly() -> Iterator[None]:
    """Let nothing pass but errors meant for the user."""
    try:
        yield
    except BidsMuscleError as error:
        assert error.message.endswith('.')
        assert error.remedy.endswith(('.', '?'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


def image_bytes() -> bytes:
    data = np.random.default_rng(0).integers(1, 999, (6, 5, 4)).astype(np.int16)
    return nib.Nifti1Image(data, np.diag([2.0, 2, 5, 1])).to_bytes()


def wanted(image: nib.Nifti1Image) -> None:
    """Check what all later steps rely on."""
    data = np.asarray(image.dataobj)
    assert data.ndim == 3
    assert np.isfinite(data[~np.isnan(data)]).all()
    assert np.nanmin(data) < np.nanmax(data)
    assert abs(np.linalg.det(image.affine[:3, :3])) > 0


@settings(max_examples=400 * TIMES)
@given(
    changes=st.lists(st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=4))),
    keep=st.none() | st.integers(0, 592),
    zipped=st.booleans(),
)
@example(changes=[(108, b'\0\0\0\x7f')], keep=None, zipped=True)  # data begin after 10^38 bytes
@example(changes=[(108, b'\0\0\x80\x7f')], keep=None, zipped=True)  # or never
@example(changes=[(42, b'\xff\x7f\xff\x7f')], keep=None, zipped=True)  # a billion voxels
@example(changes=[(348, b'\1\0\0\0'), (352, b'\xff\xff\xff\x7f')], keep=None, zipped=False)
def test_headers(
    folder: Path, changes: list[tuple[int, bytes]], keep: int | None, zipped: bool
) -> None:
    content = bytearray(image_bytes())
    for place, new in changes:
        content[place : place + len(new)] = new
    path = folder / ('x.nii.gz' if zipped else 'x.nii')
    path.write_bytes(gzip.compress(bytes(content[:keep]), 1) if zipped else content[:keep])
    with said_clearly():
        read_grid(path)
    with said_clearly():
        wanted(load_image(path))


@quick
@given(content=st.binary(max_size=400))
def test_files_that_are_no_images(folder: Path, content: bytes) -> None:
    for path in (folder / 'noise.nii', folder / 'noise.nii.gz'):
        path.write_bytes(content)
        with said_clearly():
            wanted(load_image(path))


def test_a_small_file_that_unpacks_to_gigabytes_is_read_to_its_image_only(folder: Path) -> None:
    """A gigabyte of zeros after the voxels, in a megabyte."""
    import resource

    path = folder / 'bomb.nii.gz'
    with gzip.open(path, 'wb', 1) as stream:
        stream.write(image_bytes())
        for _ in range(64):
            stream.write(bytes(2**24))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with said_clearly():
        wanted(load_image(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


_KEYS = ('EchoTime', 'MagneticFieldStrength', 'ImageType', 'BodyPart', 'ScanOptions', 'run')


@settings(max_examples=30 * TIMES)  # pybids takes its time
@given(
    sidecar=st.one_of(
        st.dictionaries(st.sampled_from(_KEYS), json_values, max_size=4).map(json.dumps),
        json_values.map(json.dumps),
        words,
    ),
    suffix=st.sampled_from(['T2w', 'acq-dixon_echo-1_MEGRE', 'acq-dixonwater_T1w']),
)
@example(sidecar='[' * 100_000, suffix='T2w')
@example(sidecar='{"EchoTime": NaN, "MagneticFieldStrength": 1e999}', suffix='echo-1_MEGRE')
def test_sidecars(sidecar: str, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        anat = Path(name) / 'sub-01/anat'
        anat.mkdir(parents=True)
        (Path(name) / 'dataset_description.json').write_text('{"Name": "", "BIDSVersion": "1"}')
        (anat / f'sub-01_{suffix}.nii').write_bytes(image_bytes())
        (anat / f'sub-01_{suffix}.json').write_text(sidecar, encoding='utf-8')
        with said_clearly():
            assert len(find_scans(Path(name), '01')) == 1


def _description(path: Path) -> None:
    path.replace(path.parent / 'dataset_description.json')
    flags = {'bids_dir': path.parent, 'output_dir': path.parent / 'out', 'level': 'participant'}
    check_input(Settings.from_sources(flags))


def _people(path: Path) -> None:
    path.replace(path.parent / 'participants.tsv')
    for info in read_participants(path.parent).rows.values():
        height_m(info)
    height_m(read_participant_info(path.parent, '01'))


def _record(path: Path) -> None:
    place = path.parent / 'logs/sub-01/sub-01_acq-dixon.json'
    place.parent.mkdir(parents=True, exist_ok=True)
    path.replace(place)
    (record,) = read_records(path.parent)
    assert (record.participant, record.scan) == ('01', 'sub-01_acq-dixon')
    write_participant_report(path.parent, '01')


def _lookup(path: Path) -> None:
    image = path.parent / 'sub-01/sub-01_seg-discs_dseg.nii'
    image.parent.mkdir(exist_ok=True)
    path.replace(image.with_suffix('.tsv'))
    read_label_names(image, '01')


def _model(path: Path) -> None:
    path.replace(path.parent / 'model.json')
    find_model(str(path.parent), 'lumbar')


READERS: dict[str, Callable[[Path], Any]] = {
    'settings.toml': read_config,
    'filters.json': read_filters,
    'description.json': _description,
    'record.json': _record,
    'card.json': _model,
    'ratings.json': lambda path: read_ratings([path]),
    'ratings.tsv': lambda path: read_ratings([path]),
    'exclude.tsv': read_exclusions,
    'people.tsv': _people,
    'rules.tsv': load_contrast_rules,
    'lookup.tsv': _lookup,
}
_HEADERS = {
    'ratings.tsv': COLUMNS,
    'exclude.tsv': ('participant_id', 'scan', 'muscle', 'reason'),
    'people.tsv': ('participant_id', 'age', 'height'),
    'rules.tsv': ('contrast', 'suffix', 'acq', 'phase'),
    'lookup.tsv': ('index', 'name', 'side'),
}
_CELLS = st.one_of(words, st.sampled_from(['n/a', '1', 'T2w', '(', 'sub-01', '01', *RATINGS]))
_RECORD = ScanRecord(
    participant='01', session=None, scan='sub-01_acq-dixon', region='lumbar', status='done'
).as_dict()


def _near(name: str) -> st.SearchStrategy[bytes]:
    """Contents that come close to what a reader wants."""
    if name in _HEADERS:
        lines = st.lists(st.lists(_CELLS, max_size=8), max_size=4)
        return lines.map(
            lambda rows: '\n'.join(map('\t'.join, [list(_HEADERS[name]), *rows])).encode()
        )
    whole: dict[str, Any] = {
        'settings.toml': {'execution': {'nprocs': 1}, 'science': {'fat_method': 'auto'}},
        'filters.json': {'T2w': {'run': 1}, 'water': {'session': None}},
        'description.json': {'Name': '', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'},
        'record.json': _RECORD,
        'card.json': json.loads((find_model(None, 'lumbar').path / 'model.json').read_text()),
        'ratings.json': {
            'format': FORMAT,
            'ratings': [dict.fromkeys(COLUMNS, 'pass') | {'muscles': ['left psoas']}],
        },
    }[name]
    values = json_values
    if name.endswith('.toml'):
        values = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), words)
        values = values | st.lists(values, max_size=2) | st.dictionaries(words, values, max_size=2)

    def write(changed: dict[str, Any]) -> bytes:
        content = {**whole, **changed}
        text = tomli_w.dumps(content) if name.endswith('.toml') else json.dumps(content)
        return text.encode()

    return st.dictionaries(st.sampled_from(sorted(whole)) | words, values, max_size=2).map(write)


@pytest.mark.parametrize('name', READERS)
def test_files_of_the_user(folder: Path, name: str) -> None:
    place = folder / Path(name).stem / name
    place.parent.mkdir(exist_ok=True)

    @quick
    @given(content=st.binary(max_size=60) | words.map(str.encode) | _near(name))
    @example(content=b'')
    @example(content=DEEP)
    @example(content=b'x = ' + DEEP)
    @example(content=b'{"T2w":' * 100_000)
    @example(content=b'\t'.join([b'"'] * 9) + b'\n\0\n')
    @example(content=b'x' * 200_000)  # beyond what csv takes for a cell
    def check(content: bytes) -> None:
        place.write_bytes(content)
        with said_clearly():
            READERS[name](place)

    check()
