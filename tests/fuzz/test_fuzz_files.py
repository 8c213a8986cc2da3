"""Whatever a file of the user holds: a valid result, or an error that says what to do."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from fuzzing import (
    CORPUS,
    as_json,
    corpus,
    image_bytes,
    json_values,
    mutations,
    said_clearly,
    tries,
    words,
)
from hypothesis import example, given
from hypothesis import strategies as st

from bids_muscle.cli.folders import check_input
from bids_muscle.config import build_settings, read_config
from bids_muscle.dataset.bidsignore import is_ignored
from bids_muscle.dataset.contrasts import load_contrast_rules
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.index import read_filters
from bids_muscle.dataset.participants import height_m, read_participant_info, read_participants
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.sessions import read_visits
from bids_muscle.dataset.spine_maps import read_label_names
from bids_muscle.imaging.atlas import find_atlas, read_atlas
from bids_muscle.imaging.marks import read_marks
from bids_muscle.phantom.effects import load_effects
from bids_muscle.reports.exclusions import read_exclusions
from bids_muscle.reports.participant import write_participant_report
from bids_muscle.reports.ratings import COLUMNS, FORMAT, RATINGS, read_ratings
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.training.recipe import read_recipe

#: Deeper than Python's parsers go.
DEEP = b'[' * 100_000
_KEYS = ('EchoTime', 'MagneticFieldStrength', 'ImageType', 'BodyPart', 'IntendedFor', 'run')


@tries(30)  # pybids takes its time
@given(
    sidecar=st.one_of(
        st.dictionaries(st.sampled_from(_KEYS), json_values, max_size=4).map(as_json),
        json_values.map(as_json),
        words.map(str.encode),
    ),
    suffix=st.sampled_from(['T2w', 'acq-dixon_echo-1_MEGRE', 'acq-dixonwater_T1w']),
)
@example(sidecar=DEEP, suffix='T2w')
def test_sidecars(sidecar: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        anat = Path(name) / 'sub-01/anat'
        anat.mkdir(parents=True)
        (Path(name) / 'dataset_description.json').write_text('{"Name": "", "BIDSVersion": "1"}')
        (anat / f'sub-01_{suffix}.nii').write_bytes(image_bytes())
        (anat / f'sub-01_{suffix}.json').write_bytes(sidecar)
        with said_clearly():
            assert len(find_scans(Path(name), '01')) == 1


@pytest.mark.parametrize(
    'path', sorted((CORPUS / 'sidecar.json').iterdir()), ids=lambda path: path.name
)
def test_the_corpus_of_sidecars(path: Path) -> None:
    test_sidecars.hypothesis.inner_test(path.read_bytes(), 'acq-dixonwater_T1w')


def _description(path: Path) -> None:
    path.replace(path.parent / 'dataset_description.json')
    flags = {'bids_dir': path.parent, 'output_dir': path.parent / 'out', 'level': 'participant'}
    check_input(build_settings(flags))


def _people(path: Path) -> None:
    path.replace(path.parent / 'participants.tsv')
    for info in read_participants(path.parent).rows.values():
        height_m(info)
    height_m(read_participant_info(path.parent, '01'))


def _definitions(path: Path) -> None:
    path.replace(path.parent / 'participants.json')
    people = 'participant_id\tsex\tage\theight\nsub-01\t1\t5\t1.7\n'
    (path.parent / 'participants.tsv').write_text(people)
    read_participants(path.parent)


def _visits(path: Path) -> None:
    for place in ('sub-01/sub-01_sessions.tsv', 'sub-01/ses-a/sub-01_ses-a_scans.tsv'):
        target = path.parent / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    read_visits(path.parent, ['01'])


def _ignored(path: Path) -> None:
    path.replace(path.parent / '.bidsignore')
    is_ignored(path.parent, 'sub-01/anat/' + 30 * 'a')


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


def _atlas(path: Path) -> None:
    path.replace(path.parent / 'template_description.json')
    if find_atlas(path.parent, 'lumbar') == path.parent:
        read_atlas(path.parent)


READERS: dict[str, Callable[[Path], Any]] = {
    'settings.toml': read_config,
    'effects.toml': load_effects,
    'recipe.toml': read_recipe,
    'filters.json': read_filters,
    'description.json': _description,
    'definitions.json': _definitions,
    'record.json': _record,
    'card.json': _model,
    'atlas.json': _atlas,
    'ratings.json': lambda path: read_ratings([path]),
    'ratings.tsv': lambda path: read_ratings([path]),
    'exclude.tsv': read_exclusions,
    'people.tsv': _people,
    'visits.tsv': _visits,
    'rules.tsv': load_contrast_rules,
    'lookup.tsv': _lookup,
    'marks.tsv': lambda path: read_marks(path, '01', None),
    'bidsignore': _ignored,
}
_HEADERS = {
    'ratings.tsv': COLUMNS,
    'exclude.tsv': ('participant_id', 'scan', 'muscle', 'reason'),
    'people.tsv': ('participant_id', 'sex', 'age', 'height', 'weight'),
    'visits.tsv': ('session_id', 'filename', 'acq_time'),
    'rules.tsv': ('contrast', 'suffix', 'acq', 'phase'),
    'lookup.tsv': ('index', 'name', 'side'),
    'marks.tsv': ('participant_id', 'level', 'slice', 'z_mm'),
    'bidsignore': (),
}
_CELLS = st.one_of(
    words,
    st.sampled_from(['n/a', '1', 'T2w', '(', '[!', '**', 'sub-01', '01', 'L4', 'ses-a', *RATINGS]),
    st.sampled_from(['1e999', 'nan', '-inf', '9' * 400, '2020-02-30T25:00:00', '0001-01-01']),
)
_WHOLE: dict[str, Any] = {
    'settings.toml': {'execution': {'nprocs': 1}, 'science': {'fat_method': 'auto'}},
    'effects.toml': {'sites': {'a': 1.0}, 'cohort': {'age_sd_years': 1.0}},
    'recipe.toml': {
        'base': 'lumbar',
        'name': 'own',
        'network': {'width': 4},
        'source': [{'bids_dir': 'raw', 'labels': 'lumbarmuscles'}],
    },
    'filters.json': {'T2w': {'run': 1}, 'water': {'session': None}},
    'description.json': {'Name': '', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'},
    'definitions.json': {
        'sex': {'Levels': {'1': {'Description': 'male'}}},
        'age': {'Units': 'years'},
    },
    'record.json': ScanRecord(
        participant='01', session=None, scan='sub-01_acq-dixon', region='lumbar', status='done'
    ).as_dict(),
    'card.json': json.loads((find_model(None, 'lumbar').path / 'model.json').read_text()),
    'atlas.json': {'Region': 'lumbar', 'Identifier': 'own', 'Files': {'T1w': 'x.nii.gz'}},
    'ratings.json': {
        'format': FORMAT,
        'ratings': [dict.fromkeys(COLUMNS, 'pass') | {'muscles': ['left psoas']}],
    },
}
_TOML = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), words)
_TOML |= st.lists(_TOML, max_size=2) | st.dictionaries(words, _TOML, max_size=2)


def _near(name: str) -> st.SearchStrategy[bytes]:
    """Contents that come close to what a reader wants."""
    if name in _HEADERS:
        lines = st.lists(st.lists(_CELLS, max_size=8), max_size=4)
        return lines.map(
            lambda rows: '\n'.join(map('\t'.join, [list(_HEADERS[name]), *rows])).encode()
        )
    if name.endswith('.toml'):
        return mutations(_WHOLE[name], _TOML).map(lambda content: tomli_w.dumps(content).encode())
    return mutations(_WHOLE[name]).map(as_json)


@pytest.mark.parametrize('name', READERS)
def test_files_of_the_user(tmp_path: Path, name: str) -> None:
    def check(content: bytes) -> None:
        place = tmp_path / name
        place.write_bytes(content)
        with said_clearly():
            READERS[name](place)

    for content in corpus(name):
        check(content)
    check(DEEP)
    check(b'x = ' + DEEP)
    check(b'{"T2w":' * 100_000)
    check(b'x' * 200_000)  # beyond what csv takes for a cell
    near = st.binary(max_size=60) | words.map(str.encode) | _near(name)
    tries(20 if name == 'record.json' else 50)(given(content=near)(check))()
