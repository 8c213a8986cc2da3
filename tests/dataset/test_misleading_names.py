"""Names and sidecars that mislead: what is believed, what is left alone, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.dataset.contrasts import Classified, classify, load_contrast_rules
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.scan import Scan

TinyDataset = Callable[..., Path]
RULES = load_contrast_rules()
ANAT = 'sub-01/anat/sub-01_'
BOTH = ('W', 'F')


def read(name: str, **metadata: object) -> Classified:
    *parts, suffix = f'sub-1_{name}'.split('_')
    found = classify(RULES, suffix, dict(part.split('-') for part in parts), metadata)
    assert found is not None
    return found


def scans_of(root: Path, **options: object) -> list[Scan]:
    return find_scans(root, '01', region='lumbar', **options)


def contents(scan: Scan) -> dict[str, str]:
    return {str(image.contrast): image.path.name for image in scan.images}


def volume(width: int = 8) -> nib.Nifti1Image:
    data = np.random.default_rng(width).integers(1, 999, (width, 8, 4), np.uint16)
    return nib.Nifti1Image(data, np.diag([1.0, 1, 4, 1]))


@pytest.mark.parametrize(
    ('acq', 'contrast', 'left'),
    [
        ('FatIDEALIQ', 'fat', 'IDEALIQ'),
        ('WaterIDEALIQ', 'water', 'IDEALIQ'),
        ('FatFracIDEALIQ', 'fatfraction', 'IDEALIQ'),
        ('InPhaseIDEALIQ', 'inphase', 'IDEALIQ'),
        ('OutPhaseIDEALIQ', 'opposedphase', 'IDEALIQ'),
        ('R2StarIDEALIQ', None, 'R2StarIDEALIQ'),
        ('dixonF1', 'fat', 'dixon1'),
        ('dixonW1', 'water', 'dixon1'),
        ('dixonopp2', 'opposedphase', 'dixon2'),
        # The series of Siemens without its underscores.
        ('t1vibedixontrabhW', 'water', 't1vibedixontrabh'),
        ('t1vibedixontraF', 'fat', 't1vibedixontra'),
        ('t1vibedixontrain', 'inphase', 't1vibedixontra'),
        ('t1vibedixontraopp', 'opposedphase', 't1vibedixontra'),
        ('mDIXONquantFF', 'fatfraction', 'mDIXONquant'),
        ('Wdixon', 'water', 'dixon'),
        ('IPmdixon', 'inphase', 'mdixon'),
        ('lavaflexW', 'water', 'lavaflex'),
        ('LAVAFlexInPhase', 'inphase', 'LAVAFlex'),
        ('wfiF', 'fat', 'wfi'),
        ('dixonT2star', None, 'dixonT2star'),
        ('vibe3D', 'T1w', 'vibe3D'),
        ('flexion', 'T1w', 'flexion'),
        ('spin', 'T1w', 'spin'),
    ],
)
def test_dixon_images_named_in_another_way(acq: str, contrast: str | None, left: str) -> None:
    found = read(f'acq-{acq}_T1w')
    assert (found.contrast, found.entities) == (contrast, {'sub': '1', 'acq': left})
    assert not found.unclear


@pytest.mark.parametrize(
    'acq', ['dixon', 'vibedixonQ', 'IDEAL', 'dixonTE1', 'DixonFatSat', 'dixonwaterfat', 'mdixon7']
)
def test_a_dixon_word_that_no_rule_takes(acq: str) -> None:
    found = read(f'acq-{acq}_T1w')
    assert found.contrast == 'T1w'
    assert found.unclear


@pytest.mark.parametrize(
    ('text', 'contrast'),
    [
        ('WATER: Ax T2 FSE IDEAL', 'water'),
        ('FAT: AX IDEAL', 'fat'),
        ('Water:Ax LAVA-Flex', 'water'),
        ('InPhase: Ax LAVA-Flex', 'inphase'),
        ('OutPhase: Ax LAVA', 'opposedphase'),
        ('FatFrac: IDEAL IQ', 'fatfraction'),
        ('R2Star: IDEAL IQ', None),
        ('t1_vibe_dixon_tra_bh_W', 'water'),
        ('t1_vibe_dixon_tra_F', 'fat'),
        ('t1_vibe_dixon_tra_in', 'inphase'),
        ('t1_vibe_dixon_tra_opp_ND', 'opposedphase'),
        ('t1_vibe_q-dixon_tra_FF', 'fatfraction'),
        ('t1_vibe_q-dixon_tra_R2*', None),
        ('mDIXON-W', 'water'),
        ('sWIP mDIXON_IP SENSE', 'inphase'),
        ('WFS Water', 'water'),
        ('FatSep Fat', 'fat'),
        ('t1_gre_wfi_tra_W', 'water'),
        ('Ax T1 in phase', 'inphase'),
        ('Ax T1 out of phase', 'opposedphase'),
        ('AX T2 FAT SAT', 'T1w'),
        ('T1 without fat', 'T1w'),
        ('water excitation', 'T1w'),
        ('AX DUAL IN/OUT PHASE', 'T1w'),
        ('GRE-MT0', 'T1w'),
    ],
)
@pytest.mark.parametrize('key', ['SeriesDescription', 'ProtocolName'])
def test_series_of_other_vendors(text: str, contrast: str | None, key: str) -> None:
    assert read('acq-vol_T1w', **{key: text}).contrast == contrast


@pytest.mark.parametrize(
    ('values', 'contrast'),
    [
        (['ORIGINAL', 'PRIMARY', 'M', 'ND'], 'T1w'),
        (['ORIGINAL', 'PRIMARY', 'M_FFE', 'M', 'FFE'], 'T1w'),
        (['DERIVED', 'PRIMARY', 'DIXON', 'WATER', 'DIS2D'], 'water'),
        (['DERIVED', 'PRIMARY', 'W', 'W', 'DERIVED'], 'water'),
        ('DERIVED\\PRIMARY\\IP\\IP\\DERIVED', 'inphase'),
        (['ORIGINAL', 'PRIMARY', 'OUT OF PHASE'], 'opposedphase'),
        (['DERIVED', 'PRIMARY', 'FF', 'FF', 'DERIVED'], 'fatfraction'),
        (['DERIVED', 'PRIMARY', 'T2_STAR', 'UNSPECIFIED'], None),
        (['DERIVED', 'PRIMARY', 'Q', 'Q', 'DERIVED'], None),
        (['ORIGINAL', 'PRIMARY', 'P', 'ND'], None),
        (['ORIGINAL', 'PRIMARY', 'PHASE MAP', 'P', 'FFE'], None),
        (['ORIGINAL', 'PRIMARY', 'R_FFE', 'R', 'FFE'], None),
        (['ORIGINAL', 'PRIMARY', 'OTHER', 'IMAGINARY'], None),
    ],
)
@pytest.mark.parametrize('key', ['ImageType', 'ImageTypeText'])
def test_kinds_of_images(values: object, contrast: str | None, key: str) -> None:
    assert read('acq-vol_T1w', **{key: values}).contrast == contrast


def test_the_sidecar_names_a_pair_that_names_do_not(tiny_dataset: TinyDataset) -> None:
    """Numbered runs, numbered labels, and one of them with the contrast in the protocol."""
    pairs = {
        ('run-1', 'run-2'): 'dixon',
        ('acq-vol1', 'acq-vol2'): 'dixon',
        ('acq-vol_run-1', 'acq-vol_run-2'): 'voldixon',
        ('acq-vol_echo-1', 'acq-vol'): 'voldixon',
    }
    for names, acq in pairs.items():
        root = tiny_dataset(
            {f'{ANAT}{name}_T1w': None for name in names},
            {
                f'{ANAT}{names[0]}_T1w.json': {'ImageTypeText': ['DERIVED', 'PRIMARY', 'W']},
                f'{ANAT}{names[1]}_T1w.json': {'ProtocolName': 't1_vibe_dixon_tra_F'},
            },
            name='_'.join(names),
        )
        (scan,) = scans_of(root)
        assert list(contents(scan)) == ['water', 'fat']
        assert scan.name == f'sub-01_acq-{acq}'
        assert scan.problem is None
        assert scan.warnings == ()


@pytest.mark.parametrize('kind', ['P', 'PHASE', 'REAL', 'I'])
def test_images_that_are_no_magnitudes_are_left_alone(
    tiny_dataset: TinyDataset, kind: str
) -> None:
    pair = {f'{ANAT}acq-dixon{c}_T1w': None for c in BOTH}
    root = tiny_dataset(
        {**pair, **{f'{ANAT}acq-dixon{c}_rec-2_T1w': None for c in BOTH}},
        {
            f'{ANAT}acq-dixon{c}_rec-2_T1w.json': {'ImageType': ['ORIGINAL', 'PRIMARY', kind]}
            for c in BOTH
        },
    )
    (scan,) = scans_of(root)
    assert scan.name == 'sub-01_acq-dixon'
    (warning,) = scan.warnings
    assert 'acq-dixonW_rec-2' in warning
    assert 'not a magnitude' in warning


@pytest.mark.parametrize(
    'name', ['rec-phase_T1w', 'acq-dixonph_T1w', 'T1w_e1', 'acq-x_T1w_real', 'W', 'acq-dixon_opp']
)
def test_nothing_but_phase_images_is_said(tiny_dataset: TinyDataset, name: str) -> None:
    (scan,) = scans_of(tiny_dataset({f'{ANAT}{name}': None}))
    assert scan.problem is not None
    assert scan.problem.kind == 'NothingSelectedError'
    assert name in scan.problem.message


@pytest.mark.parametrize('sessions', [('2019-01', '2019-02'), ('pre_op', 'pre_scan')])
def test_sessions_that_bids_does_not_allow_never_meet(
    tiny_dataset: TinyDataset, sessions: tuple[str, str]
) -> None:
    first, second = sessions
    root = tiny_dataset(
        {
            f'sub-01/ses-{first}/anat/sub-01_ses-{first}_acq-dixonwater_T1w': None,
            f'sub-01/ses-{second}/anat/sub-01_ses-{second}_acq-dixonfat_T1w': None,
        }
    )
    scans = scans_of(root)
    assert [scan.session for scan in scans_of(root, sessions=[first])] == [scans[0].session]
    clean = [session.replace('-', '').replace('_', '') for session in sessions]
    assert [scan.session for scan in scans] == clean
    for scan, session, allowed in zip(scans, sessions, clean, strict=True):
        assert session in scan.problem.message
        assert f'ses-{allowed}' in scan.problem.remedy
        assert len(scan.images) == 1


@pytest.mark.parametrize(
    'name',
    [
        'sub-01/ses-1.5/anat/sub-01_ses-1.5_T2w',
        'sub-01/anat/sub-01_acq-axial slow_T2w',
        'sub-01/anat/sub-01_acq-ax_2_T2w',
        'sub-01/anat/sub-01_run-1b_T2w',
        'sub-01/anat/sub-01_run-a_T2w',
        'sub-01/anat/sub-01_run-1_run-2_T2w',
        'sub-01/anat/sub-02_T2w',
        'sub-01/ses-1/anat/sub-01_ses-2_T2w',
        'sub-01/anat/sub-01_acq-_T2w',
    ],
)
def test_labels_that_programs_would_cut(tiny_dataset: TinyDataset, name: str) -> None:
    (scan,) = scans_of(tiny_dataset({name: None}))
    assert scan.problem is not None
    assert scan.problem.remedy
    assert Path(name).name in scan.problem.message


def test_images_of_two_folders_are_no_scan(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset(
        {
            'sub-01/anat/sub-01_acq-dixonwater_T1w': None,
            'sub-01/anat/old/sub-01_acq-dixonfat_T1w': None,
        }
    )
    (scan,) = scans_of(root)
    assert 'different folders' in scan.problem.message


def sidecars(**kinds: object) -> dict[str, object]:
    return {f'{ANAT}acq-dixon{name}_T1w.json': content for name, content in kinds.items()}


def pair(*names: str) -> dict[str, None]:
    return {f'{ANAT}acq-dixon{name}_T1w': None for name in names}


def test_a_sidecar_that_contradicts_the_name_is_believed(tiny_dataset: TinyDataset) -> None:
    names = {'water': 'FAT', 'fat': 'WATER', 'in': 'OPP_PHASE', 'out': 'IN_PHASE'}
    root = tiny_dataset(
        pair(*names), sidecars(**{name: {'ImageType': [kind]} for name, kind in names.items()})
    )
    (scan,) = scans_of(root)
    assert contents(scan) == {
        'water': 'sub-01_acq-dixonfat_T1w.nii.gz',
        'fat': 'sub-01_acq-dixonwater_T1w.nii.gz',
        'inphase': 'sub-01_acq-dixonout_T1w.nii.gz',
        'opposedphase': 'sub-01_acq-dixonin_T1w.nii.gz',
    }
    assert len(scan.warnings) == 4
    assert all('ImageType is used' in warning for warning in scan.warnings)


def test_an_image_whose_name_contradicts_its_sidecar_gets_no_partner(
    tiny_dataset: TinyDataset,
) -> None:
    for name, joined in (('acq-dixon_run-1', True), ('acq-dixonfat_run-1', False)):
        kinds = {f'{ANAT}{name}_T1w': 'WATER', f'{ANAT}acq-dixon_run-2_T1w': 'FAT'}
        root = tiny_dataset(
            dict.fromkeys(kinds),
            {f'{stem}.json': {'ImageType': [kind]} for stem, kind in kinds.items()},
            name=name,
        )
        assert (len(scans_of(root)) == 1) is joined


@pytest.mark.parametrize('shared', [{'ImageType': ['W']}, {'SeriesDescription': 'dixon_W'}])
def test_one_sidecar_for_all_images_tells_nothing(
    tiny_dataset: TinyDataset, shared: dict[str, object]
) -> None:
    (scan,) = scans_of(tiny_dataset(pair('water', 'fat'), {'T1w.json': shared}))
    assert contents(scan) == {
        'water': 'sub-01_acq-dixonwater_T1w.nii.gz',
        'fat': 'sub-01_acq-dixonfat_T1w.nii.gz',
    }
    (warning,) = scan.warnings
    assert 'The name is used' in warning


def test_echo_times_that_contradict_names(tiny_dataset: TinyDataset) -> None:
    in_s, opposed_s = 0.0023, 0.00115
    for times, turned in (((in_s, opposed_s), False), ((opposed_s, in_s), True)):
        root = tiny_dataset(
            pair('in', 'out'),
            {
                'T1w.json': {'MagneticFieldStrength': 3},
                **sidecars(**{'in': {'EchoTime': times[0]}, 'out': {'EchoTime': times[1]}}),
            },
            name=f'turned{turned}',
        )
        (scan,) = scans_of(root)
        assert contents(scan)['inphase'].endswith(f'{"out" if turned else "in"}_T1w.nii.gz')
        assert bool(scan.warnings) == turned == any('EchoTime' in w for w in scan.warnings)


def test_echo_times_in_another_unit_tell_nothing(tiny_dataset: TinyDataset) -> None:
    times = sidecars(**{'in': {'EchoTime': 1.15}, 'out': {'EchoTime': 2.303}})
    root = tiny_dataset(pair('in', 'out'), {'T1w.json': {'MagneticFieldStrength': 3}, **times})
    (scan,) = scans_of(root)
    assert scan.warnings == ()
    assert contents(scan)['inphase'].endswith('in_T1w.nii.gz')


def test_echo_times_do_not_contradict_what_the_scanner_calls_the_images(
    tiny_dataset: TinyDataset,
) -> None:
    named, known = f'{ANAT}acq-dixonin_T1w', f'{ANAT}acq-dixon_T1w'
    root = tiny_dataset(
        {named: None, known: None},
        {
            'T1w.json': {'MagneticFieldStrength': 3},
            f'{named}.json': {'EchoTime': 0.00115},
            f'{known}.json': {'EchoTime': 0.0023, 'ImageType': ['OPP_PHASE']},
        },
    )
    (scan,) = scans_of(root)
    assert contents(scan)['inphase'].endswith('acq-dixonin_T1w.nii.gz')
    assert scan.warnings == ()


def test_other_suffixes_of_bids_are_left_alone_in_silence(tiny_dataset: TinyDataset) -> None:
    others = ('FLAIR', 'T1map', 'part-phase_T2w', 'UNIT1', 'T2starw', 'inv-1_MP2RAGE')
    root = tiny_dataset({f'{ANAT}{name}': None for name in ('T2w', *others)})
    (scan,) = scans_of(root)
    assert scan.warnings == ()


def test_images_that_share_an_echo_time_contradict_nothing(tiny_dataset: TinyDataset) -> None:
    shared = {'T1w.json': {'MagneticFieldStrength': 3, 'EchoTime': 0.00115}}
    (scan,) = scans_of(tiny_dataset(pair('in', 'out', 'water', 'fat'), shared))
    assert scan.warnings == ()
    assert contents(scan)['inphase'].endswith('in_T1w.nii.gz')


def test_a_dixon_image_nobody_knows_has_no_fat(tiny_dataset: TinyDataset) -> None:
    (scan,) = scans_of(tiny_dataset({f'{ANAT}acq-vibedixonX_T1w': None}))
    assert scan.problem is None
    assert 'Dixon' in scan.fat_doubt
    assert not scan.left_out


@pytest.mark.parametrize(
    ('names', 'unlike'),
    [
        (('acq-a_T1w', 'acq-b_T1w'), True),
        (('rec-1_T1w', 'rec-2_T1w', 'rec-3_T1w'), True),
        (('run-1_T1w', 'run-2_T1w'), False),
        (('acq-dixonX_run-1_T1w', 'acq-dixonX_run-2_T1w'), True),
        (('acq-ax_T2w', 'acq-axfs_T2w'), False),
        (('T1w', 'T2w'), False),
    ],
)
def test_images_of_one_grid_are_not_averaged(
    tiny_dataset: TinyDataset, names: tuple[str, ...], *, unlike: bool
) -> None:
    scans = scans_of(tiny_dataset({f'{ANAT}{name}': None for name in names}))
    assert len(scans) == len(names)
    assert {bool(scan.left_out) for scan in scans} == {unlike}
    assert all(any('cohort' in w for w in scan.warnings) == unlike for scan in scans)


@pytest.mark.parametrize(
    ('times', 'unlike'), [(('9:00', '9:00'), True), (('9:00', '9:05'), False)]
)
def test_runs_of_one_acquisition_are_no_repeats(
    tiny_dataset: TinyDataset, times: tuple[str, str], *, unlike: bool
) -> None:
    root = tiny_dataset(
        {f'{ANAT}run-{run}_T1w': None for run in (1, 2)},
        {
            f'{ANAT}run-{run}_T1w.json': {'AcquisitionTime': time}
            for run, time in enumerate(times, 1)
        },
    )
    assert {bool(scan.left_out) for scan in scans_of(root)} == {unlike}


@pytest.mark.parametrize(
    ('times', 'counted'),
    [(('9:00:01', '9:00:01'), 1), (('9:00:01', '9:05:00'), 2), (('00:00:00', '00:00:00'), 2)],
)
def test_reconstructions_of_one_dixon_scan_are_no_repeats(
    tiny_dataset: TinyDataset, times: tuple[str, str], counted: int
) -> None:
    names = {
        (run, kind): f'{ANAT}acq-dixon{kind}_run-{run}_T1w'
        for run in (1, 2)
        for kind in ('water', 'fat')
    }
    root = tiny_dataset(
        dict.fromkeys(names.values()),
        {f'{name}.json': {'AcquisitionTime': times[run - 1]} for (run, _), name in names.items()},
    )
    scans = scans_of(root)
    assert [bool(scan.left_out) for scan in scans] == [False, counted == 1]


def test_other_grids_may_be_averaged(tiny_dataset: TinyDataset) -> None:
    root = tiny_dataset({f'{ANAT}acq-a_T1w': volume(8), f'{ANAT}acq-b_T1w': volume(9)})
    assert not any(scan.left_out for scan in scans_of(root))


def test_a_plain_rule_of_the_user_settles_it(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    table = tmp_path / 'rules.tsv'
    table.write_text('contrast\tsuffix\tacq\nT1w\tT1w\tvibedixonX\n')
    root = tiny_dataset({f'{ANAT}acq-vibedixonX_T1w': None})
    (scan,) = scans_of(root, rules=load_contrast_rules(table))
    assert not scan.fat_doubt


PRECISE = 'UsePhilipsFloatNotDisplayScaling'


def philips(rescale: float, scale: float, precise: object) -> dict[str, object]:
    slopes = {'PhilipsRescaleSlope': rescale, 'PhilipsScaleSlope': scale}
    return {**slopes, PRECISE: precise} if precise is not None else slopes


@pytest.mark.parametrize('names', [('water', 'fat'), ('in', 'out')])
@pytest.mark.parametrize(
    ('one', 'other', 'doubted'),
    [
        (philips(0.8, 7.53, 0), philips(1.7, 2.14, 0), True),
        (philips(0.8, 7.53, False), philips(1.7, 7.53, False), True),
        (philips(0.8, 7.53, 1), philips(1.7, 2.14, 0), True),
        (philips(0.8, 7.53, 1), philips(1.7, 2.14, 1), False),
        (philips(0.8, 7.53, None), philips(1.7, 2.14, None), False),
        (philips(0.8, 2, 0), philips(0.4, 4.001, 0), False),
        ({PRECISE: 0}, {PRECISE: 0}, False),
        (philips(0.8, 7.53, 0), {}, False),
        (philips(0.8, 7.53, 0), philips(1.7, 0, 0), False),
    ],
)
def test_display_scales_of_philips_that_differ(
    tiny_dataset: TinyDataset,
    names: tuple[str, str],
    one: dict[str, object],
    other: dict[str, object],
    *,
    doubted: bool,
) -> None:
    images = pair(*names)
    root = tiny_dataset(images, sidecars(**dict(zip(names, (one, other), strict=True))))
    (scan,) = scans_of(root)
    assert bool(scan.fat_doubt) == doubted == any('-p n' in w for w in scan.warnings)


def test_display_scales_beside_a_fat_fraction_do_not_matter(tiny_dataset: TinyDataset) -> None:
    kinds = {'in': philips(0.8, 7.53, 0), 'out': philips(1.7, 2.14, 0)}
    (scan,) = scans_of(tiny_dataset(pair('in', 'out', 'ff'), sidecars(**kinds)))
    assert scan.fat_doubt == ''
    assert 'fatfraction' in contents(scan)


def test_display_scales_of_echoes_that_differ(tiny_dataset: TinyDataset) -> None:
    for slopes, doubted in (((1.0, 1.0), False), ((1.0, 2.0), True)):
        sidecar = {
            f'{ANAT}echo-{n}_MEGRE.json': {
                'EchoTime': 0.00115 * n,
                'MagneticFieldStrength': 3,
                **philips(slopes[n % 2], 2, 0),
            }
            for n in range(1, 7)
        }
        images = {f'{ANAT}echo-{n}_MEGRE': None for n in range(1, 7)}
        (scan,) = scans_of(tiny_dataset(images, sidecar, name=f'doubted{doubted}'))
        assert len(scan.echoes) == 6
        assert bool(scan.fat_doubt) == doubted


@pytest.mark.parametrize(
    ('one', 'other', 'doubted'),
    [
        ({'AcquisitionTime': '10:00:00'}, {'AcquisitionTime': '11:30:00'}, 'acquired 90 minutes'),
        ({'AcquisitionTime': '10:00:00'}, {'AcquisitionTime': '10:06:00'}, ''),
        ({'AcquisitionTime': '23:58:00'}, {'AcquisitionTime': '00:02:00'}, ''),
        ({'AcquisitionTime': '10:00:00'}, {'AcquisitionTime': '00:00:00'}, ''),
        ({'AcquisitionTime': '10:00:00'}, {}, ''),
        ({'PatientID': 'A1'}, {'PatientID': 'B2'}, 'PatientID'),
        ({'PatientID': 'A1'}, {'PatientID': ['A1']}, ''),
        ({'PatientID': ['A', '1']}, {'PatientID': ''}, ''),
    ],
)
@pytest.mark.parametrize('names', [BOTH, ('in', 'out')])
def test_images_of_two_scans_have_no_fat(
    tiny_dataset: TinyDataset,
    names: tuple[str, str],
    one: dict[str, object],
    other: dict[str, object],
    doubted: str,
) -> None:
    root = tiny_dataset(pair(*names), sidecars(**dict(zip(names, (one, other), strict=True))))
    (scan,) = scans_of(root)
    assert scan.problem is None
    assert bool(scan.fat_doubt) == bool(doubted)
    assert doubted in scan.fat_doubt
    assert bool(doubted) == any('not of one scan' in warning for warning in scan.warnings)


def test_numbers_that_a_program_wrote_as_texts_or_lists(tiny_dataset: TinyDataset) -> None:
    slopes = {
        name: {'PhilipsRescaleSlope': ['0.8'], 'PhilipsScaleSlope': scale, PRECISE: '0'}
        for name, scale in (('W', '7.53'), ('F', [2.14]))
    }
    (scan,) = scans_of(tiny_dataset(pair(*BOTH), sidecars(**slopes), name='philips'))
    assert '-p n' in scan.fat_doubt
    echoes = [f'{ANAT}echo-{n}_MEGRE' for n in range(1, 7)]
    times = {
        f'{name}.json': {
            'EchoTime': f'{0.00115 * n:.5f}',
            'MagneticFieldStrength': ['3'],
            'BodyPart': ['LSPINE'],
        }
        for n, name in enumerate(echoes, 1)
    }
    (scan,) = find_scans(tiny_dataset(dict.fromkeys(echoes), times, name='echoes'), '01')
    assert scan.problem is None
    assert scan.region == 'lumbar'
    assert scan.echo_train is not None
    assert scan.echo_train.times_s[1] == pytest.approx(0.0023)


@pytest.mark.parametrize(
    ('sidecar', 'said'),
    [
        ({'SliceThickness': 4, 'SpacingBetweenSlices': 5}, True),
        ({'SliceThickness': '4', 'SpacingBetweenSlices': ['5']}, True),
        ({'SliceThickness': 4, 'SpacingBetweenSlices': 5, 'MRAcquisitionType': '3D'}, False),
        ({'SliceThickness': 3.2, 'SpacingBetweenSlices': 4}, False),
        ({'SliceThickness': 4, 'SpacingBetweenSlices': 4}, False),
        ({'SliceThickness': 4, 'SpacingBetweenSlices': 0.4}, False),
        ({'SliceThickness': 6, 'SpacingBetweenSlices': 7}, False),
        ({'SliceThickness': 4}, False),
        ({'SliceThickness': 'thick', 'SpacingBetweenSlices': [4, 5]}, False),
    ],
)
def test_gaps_between_slices_that_the_header_has_lost(
    tiny_dataset: TinyDataset, sidecar: dict[str, object], *, said: bool
) -> None:
    (scan,) = scans_of(tiny_dataset({f'{ANAT}T2w': None}, {f'{ANAT}T2w.json': sidecar}))
    assert scan.problem is None
    assert any('too small by 20 %' in warning for warning in scan.warnings) == said


@pytest.mark.parametrize(
    ('label', 'sidecar', 'said'),
    [
        ('ses-neck', {}, True),
        ('ses-1', {'BodyPartExamined': 'CSPINE'}, True),
        ('ses-neck', {'BodyPartExamined': 'LSPINE'}, False),
        ('ses-1', {'BodyPartExamined': 'SHOULDER'}, False),
        ('ses-1', {}, False),
    ],
)
def test_a_region_that_contradicts_the_dataset(
    tiny_dataset: TinyDataset, label: str, sidecar: dict[str, object], *, said: bool
) -> None:
    name = f'sub-01/{label}/anat/sub-01_{label}_T2w'
    (scan,) = scans_of(tiny_dataset({name: None}, {f'{name}.json': sidecar}))
    assert scan.region == 'lumbar'
    assert any('--region' in warning for warning in scan.warnings) == said
