from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_muscle.dataset.names import (
    ENTITIES,
    dataset_path,
    derivative_path,
    expected_outputs,
    io_spec,
    participant_path,
)
from bids_muscle.dataset.scan import DIXON, Contrast, Scan, ScanImage
from bids_muscle.errors import BadDataError

LABELS = st.from_regex(r'[0-9A-Za-z+]{1,8}', fullmatch=True)
OPTIONAL = {
    'ses': LABELS,
    'ce': LABELS,
    'rec': LABELS,
    'run': st.from_regex(r'[0-9]{1,3}', fullmatch=True),
    'chunk': st.from_regex(r'[0-9]{1,3}', fullmatch=True),
}


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    labels = draw(st.fixed_dictionaries({'sub': LABELS, 'acq': LABELS}, optional=OPTIONAL))
    weighted = st.sampled_from([{Contrast.T1W}, {Contrast.T2W}, {Contrast.PDW}])
    contrasts = draw(st.sets(st.sampled_from(DIXON), min_size=1) | weighted)
    return Scan(
        tuple((key, labels[key]) for key, _ in ENTITIES if key in labels),
        draw(st.sampled_from(['T1w', 'T2w', 'PDw', 'T2starw'])),
        draw(st.sampled_from(['lumbar', 'cervical'])),
        tuple(ScanImage(contrast, Path('x')) for contrast in contrasts),
    )


@given(scan=scans(), key=st.sampled_from(sorted(io_spec()['scan'])))
def test_pybids_reads_back_what_was_written(scan: Scan, key: str) -> None:
    from bids.layout import parse_file_entities

    path = derivative_path(scan, key, contrast=Contrast.WATER, desc='slices')
    found = parse_file_entities(f'/{path}', config=['bids', 'derivatives'])
    expected = dict(scan.entities)
    if key.startswith('preproc'):
        expected['acq'] += 'water'
    if key == 'record':
        return  # logs are not named as data
    names = dict(ENTITIES)
    assert {names[k]: v for k, v in expected.items()} == {
        name: str(found[name]) for name in names.values() if name in found
    }
    assert found.get('extension') == f'.{path.name.partition(".")[2]}'


@given(scan=scans())
def test_outputs_of_a_scan_are_distinct_and_stay_in_place(scan: Scan) -> None:
    paths = expected_outputs(scan)
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert not path.is_absolute()
        assert '..' not in path.parts
        assert f'sub-{scan.participant}' in path.parts


@pytest.mark.parametrize(
    ('contrasts', 'suppressed', 'fraction', 'fat_map'),
    [
        ('water fat', False, True, True),
        ('T1w', False, False, True),
        ('T2w', True, False, False),
        ('water', False, False, False),
    ],
)
def test_what_shows_fat_has_its_maps(
    contrasts: str, suppressed: bool, fraction: bool, fat_map: bool
) -> None:
    images = tuple(ScanImage(Contrast(each), Path('x')) for each in contrasts.split())
    labels = (('sub', '1'), ('acq', 'a'))
    scan = Scan(labels, 'T1w', 'lumbar', images, fat_suppressed=suppressed)
    names = [path.name for path in expected_outputs(scan)]
    for part, made in (
        ('_fatfrac.', fraction),
        ('_desc-fatfraction.', fraction),
        ('_desc-histograms.', fraction),
        ('_label-fat_probseg.', fat_map),
    ):
        assert any(part in name for name in names) == made, part


@given(pair=st.tuples(scans(), scans()))
def test_two_scans_never_share_an_output(pair: tuple[Scan, Scan]) -> None:
    one, other = pair
    if one.name.lower() == other.name.lower():
        return
    # The suffix is the same or the acq label tells the kind, as discovery sees to.
    shared = {str(p) for p in expected_outputs(one)} & {str(p) for p in expected_outputs(other)}
    assert not {path for path in shared if 'preproc' not in path}


@pytest.mark.parametrize(
    'label', ['', '..', '../x', '/etc', 'a/b', 'a_b', 'a-b', 'a b', 'a\n', 'é']
)
def test_hostile_labels_are_refused(label: str) -> None:
    scan = Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    for place in range(2):
        entities = [list(pair) for pair in scan.entities]
        entities[place][1] = label
        hostile = Scan(tuple(map(tuple, entities)), 'T1w', 'lumbar', ())
        for key in io_spec()['scan']:
            with pytest.raises(BadDataError):
                derivative_path(hostile, key, contrast='water', desc='slices')
    with pytest.raises(BadDataError):
        derivative_path(Scan(scan.entities, label, None, ()), 'preproc', contrast='water')
    with pytest.raises(BadDataError):
        participant_path(label, 'report')
    with pytest.raises(BadDataError):
        dataset_path('lookup', seg=label)
    if label:
        with pytest.raises(BadDataError):
            derivative_path(replace(scan, seg=label), 'dseg')
        with pytest.raises(BadDataError):
            derivative_path(scan, 'figure', desc=label)


def test_every_output_that_bids_does_not_know_is_ignored() -> None:
    """What the validator would complain about stands in .bidsignore; the rest does not."""
    patterns = io_spec()['bidsignore']
    scan = Scan((('sub', '01'), ('acq', 'dixon')), 'T1w', 'lumbar', ())

    def ignored(path: PurePosixPath) -> bool:
        return any(
            pattern in path.parts or re.fullmatch(pattern.replace('*', '.*'), path.name)
            for pattern in patterns
        )

    keys = {
        key: ignored(derivative_path(scan, key, contrast='water', desc='slices'))
        for key in io_spec()['scan']
    }
    assert {key for key, value in keys.items() if value} == {
        'confidence',
        'dseg_itksnap',
        'dseg_slicer',
        'dseg_fsleyes',
        'confidence_json',
        'fat_fraction',
        'fat_fraction_json',
        'morph',
        'morph_json',
        'morph_slices',
        'morph_slices_json',
        'morph_levels',
        'morph_levels_json',
        'levels',
        'levels_json',
        'xfm',
        'xfm_json',
        'xfm_field',
        'xfm_field_json',
        'figure',
        'packed_figures',
        'iqm',
    }
    assert ignored(participant_path('01', 'report'))
    for key in io_spec()['dataset']:
        path = dataset_path(key, seg='x', rater='x')
        assert ignored(path) == key.startswith(('group', 'ratings', 'lookup_'))


def test_the_tree_in_the_docs_is_true() -> None:
    text = (Path(__file__).parents[2] / 'docs/outputs.md').read_text(encoding='utf-8')
    _, default, _, fuller, _ = text.split('```', 4)
    images = tuple(ScanImage(contrast, Path()) for contrast in (Contrast.WATER, Contrast.FAT))
    scan = Scan((('sub', 'TUM01'), ('acq', 'dixon')), 'T1w', 'lumbar', images)
    kept = {str(path) for path in expected_outputs(scan, level='standard')}
    assert sorted(default.split()) == sorted(kept)
    every = {str(path) for path in expected_outputs(scan, level='full')}
    assert sorted(fuller.split()) == sorted(every - kept)
