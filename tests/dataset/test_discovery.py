from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.cli.folders import check_input
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_unusable
from bids_muscle.dataset.index import read_filters
from bids_muscle.dataset.scan import Scan
from bids_muscle.errors import InvalidDatasetError, MissingInputError, UsageError
from bids_muscle.imaging.dixon import FatSource
from bids_muscle.imaging.multi_echo import EchoTrain
from bids_muscle.settings import Settings

TinyDataset = Callable[..., Path]
LUMBAR = {'BodyPart': 'LSPINE'}


def contents(scan: Scan) -> dict[str, str]:
    return {str(image.contrast): image.path.name for image in scan.images}


def kinds(scans: list[Scan]) -> dict[str, str | None]:
    """Problem by scan name, so that a test says everything about what was found."""
    return {scan.name: scan.problem.kind if scan.problem else None for scan in scans}


def images(*names: str, session: str = '', values: object = None) -> dict[str, object]:
    folder = f'sub-01/{session}/anat' if session else 'sub-01/anat'
    prefix = f'sub-01_{session}_' if session else 'sub-01_'
    return {f'{folder}/{prefix}{name}': values for name in names}


def test_dixon_images_form_one_scan(tiny_dataset: TinyDataset) -> None:
    names = [f'acq-dixon{c}_T1w' for c in ('fat', 'water', 'out', 'in', 'ff')]
    root = tiny_dataset(
        images(*names, 'T2w') | images('acq-ax_T2w', values=np.ones((5, 4, 3), np.uint8)),
        {'T1w.json': LUMBAR, 'T2w.json': LUMBAR},
    )
    scans = {scan.name: scan for scan in find_scans(root, '01')}
    assert list(scans) == ['sub-01_acq-T2w', 'sub-01_acq-axT2w', 'sub-01_acq-dixon']
    assert contents(scans['sub-01_acq-dixon']) == {
        'water': 'sub-01_acq-dixonwater_T1w.nii.gz',
        'fat': 'sub-01_acq-dixonfat_T1w.nii.gz',
        'inphase': 'sub-01_acq-dixonin_T1w.nii.gz',
        'opposedphase': 'sub-01_acq-dixonout_T1w.nii.gz',
        'fatfraction': 'sub-01_acq-dixonff_T1w.nii.gz',
    }
    assert {scan.region for scan in scans.values()} == {'lumbar'}
    assert all(scan.problem is None and not scan.warnings for scan in scans.values())


def dixon(kind: str, time: str = '10:00:00') -> dict[str, object]:
    return {'ImageType': ['DERIVED', 'PRIMARY', kind], 'AcquisitionTime': time, **LUMBAR}


def test_strangers_are_not_joined_to_a_dixon_scan(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(
        images('acq-neck_run-1_T1w', 'acq-neck_run-2_T1w')
        | images('acq-low_T1w', values=np.ones((5, 4, 3), np.uint8)),
        {
            'sub-01/anat/sub-01_acq-neck_run-1_T1w.json': dixon('WATER'),
            'sub-01/anat/sub-01_acq-neck_run-2_T1w.json': dixon('FAT'),
            'sub-01/anat/sub-01_acq-low_T1w.json': dixon('IN_PHASE'),
        },
    )
    found = {scan.name: list(contents(scan)) for scan in find_scans(root, '01')}
    assert found['sub-01_acq-neckdixon'] == ['water', 'fat']


@pytest.mark.parametrize(('later', 'together'), [('10:00:40', True), ('11:00:00', False)])
def test_water_and_fat_of_one_grid_are_of_one_time(
    tiny_dataset: TinyDataset, later: str, *, together: bool
) -> None:
    root = tiny_dataset(
        images('acq-a_T1w', 'acq-b_T1w'),
        {
            'sub-01/anat/sub-01_acq-a_T1w.json': dixon('WATER'),
            'sub-01/anat/sub-01_acq-b_T1w.json': dixon('FAT', later),
        },
    )
    scans = find_scans(root, '01')
    assert len(scans) == (1 if together else 2)
    assert all((scan.problem is None) == together for scan in scans)


def test_what_lies_nearly_right_is_said(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(
        {
            'sub-01/ses-1/anat/sub-01_ses-1_T2w': None,
            'sub-01/ses-2/Anat/sub-01_ses-2_T2w': None,
            'sub-01/ses-3/sub-01_ses-3_T2w': None,
            'sub-01/ses-4/anat/sub-01_ses-4_T2w.defaced': None,
            'sub-01/Ses-6/anat/sub-01_ses-6_T2w': None,
            'sub-01/ses-1/func/sub-01_ses-1_bold': None,
        },
        {'T2w.json': LUMBAR},
    )
    upper = root / 'sub-01/ses-1/anat/sub-01_ses-1_acq-b_T2w'
    (root / 'sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz').rename(f'{upper}.NII.GZ')
    tiny_dataset({'sub-01/ses-1/anat/sub-01_ses-1_T2w': None})
    (scan,) = find_scans(root, '01')
    said = ' '.join(scan.warnings)
    for name in ('ses-2/Anat', 'ses-3_T2w', 'ses-4_T2w.defaced', 'b_T2w.NII.GZ', 'sub-01/Ses-6'):
        assert name in said
    assert 'bold' not in said
    # What is not asked for is not missed.
    (scan,) = find_scans(root, '01', sessions=['1'])
    assert 'ses-3' not in ' '.join(scan.warnings)


def test_a_sidecar_with_a_byte_order_mark_is_read(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(images('T2w'))
    (root / 'T2w.json').write_text('{"BodyPart": "LSPINE"}', encoding='utf-8-sig')
    (scan,) = find_scans(root, '01')
    assert (scan.region, scan.problem, scan.warnings) == ('lumbar', None, ())


@pytest.mark.parametrize('separate', ['acq-{}_T1w', 'acq-vol_rec-{}_T1w', 'acq-dixon_{}', '{}'])
def test_ways_to_name_a_pair(tiny_dataset: TinyDataset, separate: str) -> None:
    root = tiny_dataset(images(separate.format('water'), separate.format('fat')))
    (scan,) = find_scans(root, '01', region='lumbar')
    assert list(contents(scan)) == ['water', 'fat']
    assert scan.problem is None
    assert scan.suffix == 'T1w'


def test_sessions_and_runs_stay_apart(tiny_dataset: TinyDataset) -> None:
    pair = ('acq-dixonwater_run-{}_T1w', 'acq-dixonfat_run-{}_T1w')
    everything = {}
    for session in ('ses-abdomen', 'ses-neck'):
        for run in ('01', '02'):
            everything |= images(*(name.format(run) for name in pair), session=session)
    root = tiny_dataset(everything, {'T1w.json': {'BodyPartExamined': 'SPINE'}})
    scans = find_scans(root, '01')
    assert {scan.name: scan.region for scan in scans} == {
        f'sub-01_ses-{session}_acq-dixon_run-{run}': region
        for session, region in (('abdomen', 'lumbar'), ('neck', 'cervical'))
        for run in ('01', '02')
    }
    assert all(len(scan.images) == 2 and scan.problem is None for scan in scans)
    assert {s.session for s in find_scans(root, '01', sessions=['neck'])} == {'neck'}
    assert find_scans(root, '01', sessions=['foot']) == []


def test_t1w_and_t2w_dixon_get_different_names(tiny_dataset: TinyDataset) -> None:
    names = [f'acq-dixon{c}_{s}' for c in ('water', 'fat') for s in ('T1w', 'T2w')]
    root = tiny_dataset(images(*names))
    scans = find_scans(root, '01', region='lumbar')
    assert kinds(scans) == {'sub-01_acq-T2wdixon': None, 'sub-01_acq-dixon': None}
    assert [scan.suffix for scan in scans] == ['T2w', 'T1w']


def test_region_order(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(
        images('acq-lumbar_T2w', 'acq-neckax_T2w', 'T1w', 'PDw', 'acq-spine_PDw'),
        {
            'sub-01/anat/sub-01_acq-neckax_T2w.json': {'BodyPart': 'SPINE'},
            'sub-01/anat/sub-01_T1w.json': {'BodyPart': 'cspine', 'BodyPartExamined': 'ABDOMEN'},
            'PDw.json': {'BodyPartExamined': 'CERVICAL SPINE'},
            'sub-01/anat/sub-01_acq-spine_PDw.json': {'BodyPartExamined': 'SPINE'},
        },
    )
    assert {
        scan.name.removeprefix('sub-01_acq-'): scan.region for scan in find_scans(root, '01')
    } == {
        'lumbarT2w': 'lumbar',
        'neckaxT2w': 'cervical',
        'T1w': 'cervical',
        'PDw': 'cervical',
        'spinePDw': None,
    }
    as_lumbar = find_scans(root, '01', region='lumbar')
    assert {scan.region for scan in as_lumbar} == {'lumbar'}
    # The network of the back is not run on a neck without a word.
    warned = [scan.name for scan in as_lumbar if '--region' in ' '.join(scan.warnings)]
    assert warned == [f'sub-01_acq-{name}' for name in ('PDw', 'T1w', 'neckaxT2w')]


def test_unknown_region_is_a_problem_of_that_scan(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(images('T1w', 'acq-lumbar_T1w'))
    scans = find_scans(root, '01')
    assert kinds(scans) == {'sub-01_acq-T1w': 'UnknownRegionError', 'sub-01_acq-lumbarT1w': None}
    assert '--region' in scans[0].problem.remedy


@pytest.mark.parametrize(
    ('names', 'problem'),
    [
        (['acq-dixonwater_T1w'], 'IncompleteScanError'),
        (['acq-dixonfat_T1w'], 'IncompleteScanError'),
        (['acq-dixonout_T1w'], 'IncompleteScanError'),
        (['acq-dixonin_T1w'], None),
        (['acq-dixonff_T1w'], None),
        (['acq-dixonff_T1w', 'acq-dixonwater_T1w'], None),
        (['acq-dixonff_T1w', 'acq-dixonout_T1w'], None),
        (['acq-dixonin_T1w', 'acq-dixonout_T1w'], None),
        (['acq-dixonwater_T1w', 'acq-dixonout_T1w'], 'IncompleteScanError'),
        (['acq-dixonwater_T1w', 'acq-dixonfat_T1w', 'acq-dixonout_T1w'], None),
        # Twice the same: which of them is meant?
        (['acq-dixonin_T1w', 'acq-inphase_T1w'], 'IncompleteScanError'),
    ],
)
def test_partners(tiny_dataset: TinyDataset, names: list[str], problem: str | None) -> None:
    root = tiny_dataset(images(*names, 'T2w'))
    scans = find_scans(root, '01', region='lumbar')
    assert kinds(scans) == {'sub-01_acq-T2w': None, 'sub-01_acq-dixon': problem}
    if problem:
        assert names[0] in scans[1].problem.message
    else:
        assert len(scans[1].images) == len(names)
        assert scans[1].warnings == ()


def test_lone_water_is_left_out_beside_a_pair_of_phases(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(images(*(f'acq-dixon{c}_T1w' for c in ('water', 'in', 'out'))))
    (scan,) = find_scans(root, '01', region='lumbar')
    assert list(contents(scan)) == ['inphase', 'opposedphase']
    assert 'dixonwater' in scan.warnings[0]


def test_bad_images_do_not_stop_the_others(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(
        images('acq-good_T2w')
        | images('acq-text_T2w', values=b'not an image')
        | images('acq-empty_T2w', values=b'')
        | images('acq-series_T2w', values=np.ones((4, 4, 3, 2), np.uint8))
        | images('acq-dixonwater_T1w', values=np.ones((4, 4, 3), np.uint8))
        | images('acq-dixonfat_T1w', values=np.ones((4, 5, 3), np.uint8))
    )
    (root / 'sub-01/anat/sub-01_acq-gone_T2w.nii.gz').symlink_to(root / 'annexed')
    scans = find_scans(root, '01', region='lumbar')
    assert kinds(scans) == {
        'sub-01_acq-goodT2w': None,
        'sub-01_acq-textT2w': 'UnreadableImageError',
        'sub-01_acq-emptyT2w': 'UnreadableImageError',
        'sub-01_acq-seriesT2w': 'ImageShapeError',
        'sub-01_acq-dixon': 'GridMismatchError',
        'sub-01_acq-goneT2w': 'MissingInputError',
    }
    for scan in scans:
        if scan.problem:
            assert scan.images[0].path.name in scan.problem.message
            assert scan.problem.remedy


def test_lost_position_is_a_warning(tiny_dataset: TinyDataset) -> None:
    data = np.ones((4, 4, 3), np.uint8)
    affine = np.diag([1.0, 1, 4, 1])
    lost = nib.Nifti1Image(data, affine)
    affine[:3, 3] = -90, -80, 10
    root = tiny_dataset(
        images('acq-dixonwater_T1w', values=lost)
        | images('acq-dixonfat_T1w', values=nib.Nifti1Image(data, affine))
    )
    (scan,) = find_scans(root, '01', region='lumbar')
    assert scan.problem is None
    assert 'lost its position' in scan.warnings[0]


@pytest.mark.parametrize(
    ('orientation', 'turned'),
    [
        ([1, 0, 0, 0, 1, 0], False),
        ([0, -1, 0, -1, 0, 0], False),  # the same slices, stored in another order
        ([1, 0, 0, 0, 0, -1], False),  # coronal slices lie along the same axes
        ([1, 0, 0, 0, 0.866, -0.5], True),
        ([0.5, 0, 0, 0, 1, 0], False),  # no directions
        ([1, 0, 0], False),
        ('axial', False),
    ],
)
def test_a_header_that_turns_the_slices_otherwise_than_the_sidecar(
    tiny_dataset: TinyDataset, orientation: object, turned: bool
) -> None:
    volume = nib.Nifti1Image(np.ones((6, 6, 3), np.uint8), np.diag([-1.0, 1, 4, 1]))
    sidecar = {'sub-01/anat/sub-01_T2w.json': {'ImageOrientationPatientDICOM': orientation}}
    root = tiny_dataset(images('T2w', values=volume), sidecar)
    (scan,) = find_scans(root, '01', region='lumbar')
    assert scan.problem is None
    told = [warning for warning in scan.warnings if '30 degrees' in warning]
    assert bool(told) == turned == bool(scan.warnings)


def test_sagittal_scans_are_of_the_spine(tiny_dataset: TinyDataset) -> None:
    thick = {
        'sag': ((4, 20, 20), [4.0, 1, 1]),
        'cor': ((20, 4, 20), [1.0, 4, 1]),
        'ax': ((20, 20, 4), [1.0, 1, 4]),
        'slab': ((6, 20, 20), [1.0, 1, 1]),
        'cube': ((20, 20, 20), [1.0, 1, 1]),
    }
    root = tiny_dataset(
        {
            name: value
            for key, (shape, zooms) in thick.items()
            for name, value in images(
                f'acq-{key}_T2w',
                values=nib.Nifti1Image(np.ones(shape, np.uint8), np.diag([*zooms, 1])),
            ).items()
        }
    )
    scans = {scan.name: scan for scan in find_scans(root, '01', region='lumbar')}
    regions = {name.removeprefix('sub-01_acq-'): scan.region for name, scan in scans.items()}
    assert regions == {
        'sagT2w': 'spine',
        'slabT2w': 'spine',
        'corT2w': 'lumbar',
        'axT2w': 'lumbar',
        'cubeT2w': 'lumbar',
    }
    assert 'coronal and 4 mm' in scans['sub-01_acq-corT2w'].warnings[0]
    assert all(not scan.problem for scan in scans.values())
    # Nothing need tell the region of a sagittal scan.
    unknown = {scan.name: scan for scan in find_scans(root, '01')}
    assert unknown['sub-01_acq-sagT2w'].problem is None
    assert unknown['sub-01_acq-axT2w'].problem is not None


@pytest.mark.parametrize(
    ('name', 'sidecar', 'dark'),
    [
        ('acq-axspair_T2w', {}, True),
        ('acq-fs_T2w', {}, True),
        ('acq-FatSat_T1w', {}, True),
        ('T2w', {'ScanOptions': ['SAT1', 'FS']}, True),
        ('T2w', {'ScanOptions': 'PFP\\FS'}, True),
        ('T2w', {'ScanOptions': 'PFP'}, False),
        ('acq-fast_T2w', {'ScanOptions': None}, False),
        ('acq-dixonwaterFS_T1w', {}, True),
    ],
)
def test_fat_suppression_is_a_warning(
    tiny_dataset: TinyDataset, name: str, sidecar: dict[str, object], dark: bool
) -> None:
    root = tiny_dataset(images(name), {f'sub-01/anat/sub-01_{name}.json': sidecar})
    (scan,) = find_scans(root, '01', region='lumbar')
    assert any('fat-suppressed' in warning for warning in scan.warnings) == dark
    assert scan.fat_suppressed == dark


def test_fat_saturation_says_nothing_about_a_dixon_scan(tiny_dataset: TinyDataset) -> None:
    pair = images('acq-dixonwater_T1w', 'acq-dixonfat_T1w')
    root = tiny_dataset(pair, {'T1w.json': {'ScanOptions': ['FS']}})
    (scan,) = find_scans(root, '01', region='lumbar')
    assert scan.warnings == ()
    assert not scan.fat_suppressed


def test_echoes_of_a_gradient_echo_series(tiny_dataset: TinyDataset) -> None:
    echo_times_s = {1: 0.00115, 2: 0.0017, 3: 0.0023, 4: 0.00345}
    root = tiny_dataset(
        images(*(f'echo-{echo}_MEGRE' for echo in echo_times_s)),
        {'MEGRE.json': {'MagneticFieldStrength': 3, **LUMBAR}}
        | {
            f'sub-01/anat/sub-01_echo-{echo}_MEGRE.json': {'EchoTime': value}
            for echo, value in echo_times_s.items()
        },
    )
    (scan,) = find_scans(root, '01')
    assert contents(scan) == {
        'inphase': 'sub-01_echo-3_MEGRE.nii.gz',
        'opposedphase': 'sub-01_echo-1_MEGRE.nii.gz',
    }
    assert [image.echo_time_s for image in scan.images] == [0.0023, 0.00115]
    assert (scan.name, scan.suffix) == ('sub-01_acq-T2starwdixon', 'T2starw')
    assert [path.name[12:13] for path in scan.echoes] == ['1', '2', '3', '4']
    assert scan.echo_train == EchoTrain(tuple(echo_times_s.values()), 3.0)
    assert scan.fat_source is FatSource.ECHOES
    assert scan.warnings == ()


def test_too_few_echoes_are_not_fitted(tiny_dataset: TinyDataset) -> None:
    times_s = {1: 0.00115, 2: 0.0023, 3: 0.00345}
    root = tiny_dataset(
        images(*(f'echo-{echo}_MEGRE' for echo in times_s)),
        {'MEGRE.json': {'MagneticFieldStrength': 3, **LUMBAR}}
        | {
            f'sub-01/anat/sub-01_echo-{echo}_MEGRE.json': {'EchoTime': value}
            for echo, value in times_s.items()
        },
    )
    (scan,) = find_scans(root, '01')
    assert scan.problem is None
    assert scan.fat_source is FatSource.PHASES
    assert '3 echo times' in scan.warnings[0]
    assert 'echo-3' in scan.warnings[1]


def test_echoes_that_tell_nothing_of_fat_are_said_to_be_left_out(
    tiny_dataset: TinyDataset,
) -> None:
    sidecars = {
        'MEGRE.json': {'MagneticFieldStrength': 3, **LUMBAR},
        'sub-01/anat/sub-01_echo-1_MEGRE.json': {'EchoTime': 0.0017},
        'sub-01/anat/sub-01_echo-2_MEGRE.json': {'EchoTime': 0.0040},
    }
    root = tiny_dataset(images('echo-1_MEGRE', 'echo-2_MEGRE'), sidecars)
    (scan,) = find_scans(root, '01')
    assert scan.problem is not None
    assert 'in phase nor opposed at any echo time' in scan.problem.message
    root = tiny_dataset(images('echo-1_MEGRE', 'echo-2_MEGRE', 'T2w'), sidecars)
    assert kinds(find_scans(root, '01', region='lumbar')) == {'sub-01_acq-T2w': None}


def test_echoes_without_echo_time(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(images('echo-1_MEGRE', 'echo-2_MEGRE', 'T2w'))
    scans = find_scans(root, '01', region='lumbar')
    assert kinds(scans) == {'sub-01_acq-T2starwdixon': 'BadDataError', 'sub-01_acq-T2w': None}
    assert 'EchoTime' in scans[0].problem.remedy


def test_other_images_are_left_alone(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(
        images('T1w', 'FLAIR', 'acq-scout_T1w', 'part-phase_T2w', 'part-mag_T2w')
        | {'sub-01/func/sub-01_task-rest_bold': None, 'derivatives/x/sub-01/anat/sub-01_T1w': None}
    )
    assert [s.name for s in find_scans(root, '01', region='lumbar')] == [
        'sub-01_acq-T1w',
        'sub-01_acq-T2w_part-mag',
    ]


def test_only_this_participant_is_looked_at(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset({'sub-01/anat/sub-01_T1w': None, 'sub-011/anat/sub-011_T1w': None})
    (root / 'sub-011/anat/broken.json').write_text('{')
    assert kinds(find_scans(root, '01', region='lumbar')) == {'sub-01_acq-T1w': None}


def test_nothing_is_left_behind(tiny_dataset: TinyDataset, tmp_path: Path, monkeypatch) -> None:
    root = tiny_dataset(images('T1w'))
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    before = sorted(root.rglob('*'))
    find_scans(root, '01')
    assert sorted(root.rglob('*')) == before
    assert list(temporary.iterdir()) == []


def test_relative_dataset_path(tiny_dataset: TinyDataset, monkeypatch) -> None:
    root = tiny_dataset(images('T1w'))
    monkeypatch.chdir(root.parent)
    (scan,) = find_scans(Path(root.name), '01', region='lumbar')
    assert scan.images[0].path == Path(root.name, 'sub-01/anat/sub-01_T1w.nii.gz')
    assert scan.problem is None


@pytest.mark.parametrize('content', ['{', '[1]', '"x"', '\xff'])
def test_broken_sidecar_is_left_out_with_a_warning(
    tiny_dataset: TinyDataset, content: str
) -> None:
    other = images('acq-b_T2w', values=np.ones((5, 4, 3), np.uint8))
    root = tiny_dataset(images('acq-a_T2w', 'T1w') | other, {'T2w.json': LUMBAR})
    (root / 'sub-01/anat/sub-01_acq-a_T2w.json').write_text(content, encoding='latin-1')
    (root / 'T1w.json').write_text(content, encoding='latin-1')
    scans = {scan.name: scan for scan in find_scans(root, '01')}
    assert kinds(list(scans.values())) == {
        'sub-01_acq-T1w': 'UnknownRegionError',
        'sub-01_acq-aT2w': None,
        'sub-01_acq-bT2w': None,
    }
    assert 'sub-01_acq-a_T2w.json' in scans['sub-01_acq-aT2w'].warnings[0]
    assert 'T1w.json' in scans['sub-01_acq-T1w'].warnings[0]
    assert scans['sub-01_acq-bT2w'].warnings == ()


@pytest.mark.parametrize(
    'content',
    [
        '{"ProtocolName": "\\ud800"}',
        '{"\\ud800": 1}',
        f'{{"EchoTime": {"9" * 400}}}',
        f'{{"EchoTime": {"9" * 5000}}}',
    ],
)
@pytest.mark.parametrize('place', ['T2w.json', 'sub-01/anat/sub-01_T2w.json'])
def test_an_odd_sidecar_takes_nobody_with_it(
    tiny_dataset: TinyDataset, content: str, place: str
) -> None:
    root = tiny_dataset(images('T2w', 'PDw'))
    (root / place).write_text(content)
    found, other = (scan for scan in find_scans(root, '01', region='lumbar')[::-1])
    assert (found.problem, other.problem, other.warnings) == (None, None, ())
    assert f'{place} is left out' in found.warnings[0]


def test_names_that_are_not_utf8_are_left_out(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(images('T2w'))
    for name in (b'sub-01/anat/sub-01_\xff_T1w.nii.gz', b'sub-01/anat/\xff.json', b'T2w\xff.json'):
        (root / os.fsdecode(name)).write_text('{}')
    (scan,) = find_scans(root, '01', region='lumbar')
    assert scan.problem is None
    assert ['not UTF-8' in warning for warning in scan.warnings] == [True, True]
    (root / os.fsdecode(b'sub-\xff')).mkdir()
    assert list_unusable(root) == ['sub-\\xff']


def test_broken_sidecar_behind_a_link(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset({'store/sub-01_T2w': None})
    (root / 'store/sub-01_T2w.json').write_text('{broken')
    (root / 'sub-01').mkdir()
    (root / 'sub-01/anat').symlink_to(root / 'store')
    (scan,) = find_scans(root, '01', region='lumbar')
    assert scan.problem is None
    assert 'sub-01_T2w.json is left out: it is not JSON' in scan.warnings[0]
    # A link that leads back shows no image twice.
    for target in (root / 'sub-01', root / 'store'):
        (root / 'store/back').symlink_to(target)
        (scan,) = find_scans(root, '01', region='lumbar')
        assert scan.problem is None
        (root / 'store/back').unlink()


@pytest.mark.parametrize(
    'name', ['acq-dixon_T1w', 'acq-dixonwater_T1w', 'acq-dixonopp_T1w', 'MEGRE', 'T2w']
)
def test_several_volumes_in_a_file_are_the_problem_that_is_said(
    tiny_dataset: TinyDataset, name: str
) -> None:
    image = nib.Nifti1Image(np.ones((8, 8, 4, 2), np.int16), np.diag([1, 1, 4, 1]))
    (scan,) = find_scans(tiny_dataset(images(name, values=image)), '01', region='lumbar')
    assert scan.problem is not None
    assert scan.problem.kind == 'ImageShapeError'
    assert '4-dimensional (8 x 8 x 4 x 2)' in scan.problem.message
    assert 'one volume per file' in scan.problem.remedy


@pytest.mark.parametrize(
    ('note', 'command'),
    [
        ('', 'datalad get'),
        ('/annex/objects/MD5E-s123--ab.nii.gz\n', 'datalad get'),
        ('version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
    ],
)
def test_content_that_is_elsewhere_is_to_be_fetched(
    tiny_dataset: TinyDataset, note: str, command: str
) -> None:
    root = tiny_dataset({'sub-01/anat/sub-01_acq-x_T2w': None})
    for name in ('sub-01/anat/sub-01_T2w.nii.gz', 'sub-01/anat/sub-01_T2w.json', 'T2w.json'):
        if note:
            (root / name).write_text(note)
        else:
            (root / name).symlink_to('../../.git/annex/objects/Xx/Yy/MD5E-s1--ab')
    scans = {scan.name: scan for scan in find_scans(root, '01', region='lumbar')}
    scan = scans['sub-01_acq-T2w']
    assert scan.problem is not None
    assert (scan.problem.kind, scan.problem.exit_code) == ('MissingInputError', 66)
    assert f'{command}' in scan.problem.remedy
    assert 'sub-01_T2w.nii.gz' in scan.problem.remedy
    assert sum(command in warning for warning in scan.warnings) == 2
    assert scans['sub-01_acq-xT2w'].problem is None


def test_sidecars_cannot_rename_outputs(tiny_dataset: TinyDataset) -> None:
    """Labels come from the file name only; pybids stops where a sidecar contradicts it."""
    keys = ('acq', 'sub', 'label', 'desc', 'subject', 'acquisition', 'suffix', 'IntendedFor')
    sidecar = {**dict.fromkeys(keys, '../../x'), 'run': 2, 'flip': None, 'BodyPart': 'LSPINE'}
    root = tiny_dataset(images('T2w'), {'T2w.json': sidecar})
    (scan,) = find_scans(root, '01')
    assert scan.entities == (('sub', '01'), ('acq', 'T2w'))
    assert (scan.region, scan.warnings) == ('lumbar', ())


@pytest.mark.parametrize('label', ['../bids/sub-01', '', '.', 'x/..', '99', 'sub-01'])
def test_absent_participant(tiny_dataset: TinyDataset, label: str) -> None:
    root = tiny_dataset(images('T1w'))
    with pytest.raises(MissingInputError, match='participant'):
        find_scans(root, label)


def test_filters(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    pairs = [
        f'acq-dixon{c}{run}_T1w' for c in ('water', 'fat') for run in ('', '_run-1', '_run-2')
    ]
    root = tiny_dataset(images(*pairs, 'acq-a_T2w', 'acq-b_T2w', 'T2w'))
    path = tmp_path / 'filters.json'
    path.write_text(
        '{"water": {"run": [1, 2]}, "fat": {"run": "*"}, "T2w": {"acquisition": null}}'
    )
    names = [s.name for s in find_scans(root, '01', region='lumbar', filters=read_filters(path))]
    assert names == ['sub-01_acq-T2w', 'sub-01_acq-dixon_run-1', 'sub-01_acq-dixon_run-2']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'not JSON'),
        ('[]', 'object of objects'),
        ('{"T2w": 1}', 'object of objects'),
        ('{"t9w": {}}', 't9w'),
        ('{"T2w": {"acq": "x"}}', 'unknown acq'),
    ],
)
def test_bad_filters(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / 'filters.json'
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_filters(path)


def test_start_up_does_not_read_the_cohort(tiny_dataset: TinyDataset, monkeypatch) -> None:
    """The folders of other participants are not opened."""
    root = tiny_dataset({f'sub-{n:02d}/anat/sub-{n:02d}_T1w': None for n in range(1, 6)})
    opened: list[str] = []
    scandir = os.scandir

    def spy(path: object = '.') -> object:
        opened.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', spy)
    find_scans(root, '01')
    assert opened
    assert not [path for path in opened if 'sub-0' in path and 'sub-01' not in path]


@pytest.mark.parametrize('description', [None, '{', '[1]', '{"DatasetType": "derivative"}'])
def test_skipping_validation(tiny_dataset: TinyDataset, description: str | None) -> None:
    root = tiny_dataset(images('T1w'), description=False)
    if description is not None:
        (root / 'dataset_description.json').write_text(description)
    settings = {'bids_dir': root, 'output_dir': root / 'x', 'level': 'participant'}
    with pytest.raises(InvalidDatasetError, match=r'dataset_description\.json'):
        check_input(Settings(**settings))
    check_input(Settings(**settings, skip_bids_validation=True))
    assert kinds(find_scans(root, '01', region='lumbar')) == {'sub-01_acq-T1w': None}
