from __future__ import annotations

from pathlib import Path

import pytest

from bids_muscle.dataset.contrasts import classify, echo_and_field, echo_phase, load_contrast_rules
from bids_muscle.errors import BadDataError, MissingInputError, UsageError

RULES = load_contrast_rules()


def found(name: str, **metadata: object) -> tuple[str | None, dict[str, str]] | None:
    """Classify a file name; the contrast and the labels that remain."""
    *parts, suffix = name.split('_')
    result = classify(RULES, suffix, dict(part.split('-') for part in parts), metadata)
    if result is None:
        return None
    return result.contrast and str(result.contrast), dict(result.entities)


@pytest.mark.parametrize(
    ('name', 'contrast', 'acq'),
    [
        ('acq-dixonwater_T1w', 'water', 'dixon'),
        ('acq-dixonWater_T1w', 'water', 'dixon'),
        ('acq-dixonW_T1w', 'water', 'dixon'),
        ('acq-W_T1w', 'water', None),
        ('acq-water_T2w', 'water', None),
        ('acq-axfat_T1w', 'fat', 'ax'),
        ('acq-mdixonF_T1w', 'fat', 'mdixon'),
        ('acq-dixonin_T1w', 'inphase', 'dixon'),
        ('acq-dixonip_T1w', 'inphase', 'dixon'),
        ('acq-dixoninphase_T1w', 'inphase', 'dixon'),
        ('acq-out_T1w', 'opposedphase', None),
        ('acq-dixonopp_T1w', 'opposedphase', 'dixon'),
        ('acq-dixonop_T1w', 'opposedphase', 'dixon'),
        ('acq-dixonoutphase_T1w', 'opposedphase', 'dixon'),
        ('acq-dixonopposedphase_T1w', 'opposedphase', 'dixon'),
        ('acq-dixonfatfrac_T1w', 'fatfraction', 'dixon'),
        ('acq-dixonff_T1w', 'fatfraction', 'dixon'),
        ('acq-dixon_rec-water_T1w', 'water', 'dixon'),
        ('acq-dixon_rec-F_T1w', 'fat', 'dixon'),
        ('acq-dixon_rec-ip_PDw', 'inphase', 'dixon'),
        ('acq-dixon_water', 'water', 'dixon'),
        ('fat', 'fat', None),
        ('inphase', 'inphase', None),
        ('outphase', 'opposedphase', None),
        ('fatfrac', 'fatfraction', None),
        ('T1w', 'T1w', None),
        ('acq-MTon_T1w', 'T1w', 'MTon'),
        ('acq-highresT2_T2w', 'T2w', 'highresT2'),
        ('PDw', 'PDw', None),
        # Words that only end like a contrast.
        ('acq-thin_T1w', 'T1w', 'thin'),
        ('acq-stop_T1w', 'T1w', 'stop'),
        ('acq-readout_T1w', 'T1w', 'readout'),
        ('acq-nofat_T2w', 'T2w', 'nofat'),
        ('acq-fatsat_T2w', 'T2w', 'fatsat'),
        ('acq-supprfat_T2w', 'T2w', 'supprfat'),
        ('acq-axsuppressedFat_T2w', 'T2w', 'axsuppressedFat'),
        ('acq-lowfat_T1w', 'T1w', 'lowfat'),
        ('acq-highfat_T1w', 'T1w', 'highfat'),
        ('acq-withoutfat_T1w', 'T1w', 'withoutfat'),
        ('acq-waterfat_T1w', 'T1w', 'waterfat'),
        ('acq-fatwater_T1w', 'T1w', 'fatwater'),
        ('acq-nonfat_T2w', 'T2w', 'nonfat'),
        ('acq-highresfat_T1w', 'fat', 'highres'),
        ('acq-supwater_T1w', 'water', 'sup'),
        ('acq-waterexcitation_T1w', 'T1w', 'waterexcitation'),
        ('acq-low_T1w', 'T1w', 'low'),
        ('acq-localizer_T1w', None, 'localizer'),
    ],
)
def test_names(name: str, contrast: str | None, acq: str | None) -> None:
    assert found(f'sub-1_{name}') == (contrast, {'sub': '1'} | ({'acq': acq} if acq else {}))


@pytest.mark.parametrize('name', ['sub-1_FLAIR', 'sub-1_bold', 'sub-1_T1map'])
def test_no_rule(name: str) -> None:
    assert found(name) is None


@pytest.mark.parametrize('rec', ['lowfat', 'supprfat', 'waterfat', 'fatwater'])
def test_what_is_done_to_fat_is_no_fat_image(rec: str) -> None:
    name = f'sub-1_acq-vol_rec-{rec}_T1w'
    assert found(name) == ('T1w', {'sub': '1', 'acq': 'vol', 'rec': rec})


def test_image_type_names_the_contrast() -> None:
    kinds = {'WATER': 'water', 'F': 'fat', 'IN_PHASE': 'inphase', 'OPP_PHASE': 'opposedphase'}
    for kind, contrast in kinds.items():
        expected = (contrast, {'sub': '1', 'acq': 'vol'})
        for name in ('sub-1_acq-vol_rec-2_T1w', 'sub-1_acq-vol_T1w'):
            assert found(name, ImageType=['DERIVED', 'PRIMARY', kind]) == expected
    assert found('sub-1_T1w', ImageType=['ORIGINAL', 'PRIMARY', 'M', 'ND'])[0] == 'T1w'
    assert found('sub-1_T1w', ImageType='M')[0] == 'T1w'


# 144.8 Hz/T: at 1.5 T fat turns once against water in 4.6 ms, at 3 T in 2.3 ms.
@pytest.mark.parametrize(
    ('echo_time_ms', 'field_t', 'phase'),
    [
        (4.6, 1.5, 'in'),
        (2.3, 1.5, 'opposed'),
        (2.39, 1.5, 'opposed'),  # UK Biobank
        (4.77, 1.5, 'in'),
        (1.15, 3.0, 'opposed'),
        (2.3, 3.0, 'in'),
        (3.45, 3.0, 'opposed'),
        (4.6, 3.0, 'in'),
        (1.7, 3.0, None),
        (0.05, 3.0, None),  # before the first turn nothing is known
    ],
)
def test_echo_phase(echo_time_ms: float, field_t: float, phase: str | None) -> None:
    assert echo_phase(echo_time_ms / 1000, field_t) == phase


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('EchoTime', 0.2),
        ('EchoTime', 2.3),
        ('EchoTime', 0),
        ('EchoTime', '0.0023'),
        ('MagneticFieldStrength', 20),
        ('MagneticFieldStrength', 30000),
        ('MagneticFieldStrength', 0.0),
        ('MagneticFieldStrength', None),
    ],
)
def test_times_and_fields_in_other_units_are_refused(key: str, value: object) -> None:
    highest = {'EchoTime': 0.199, 'MagneticFieldStrength': 19.9}
    assert echo_and_field(highest) == (0.199, 19.9)
    with pytest.raises(BadDataError, match=key):
        echo_and_field({**highest, key: value})


def test_echoes() -> None:
    sidecar = {'MagneticFieldStrength': 3}
    assert found('sub-1_echo-1_MEGRE', EchoTime=0.00115, **sidecar) == (
        'opposedphase',
        {'sub': '1'},
    )
    assert found('sub-1_echo-2_MEGRE', EchoTime=0.0023, **sidecar) == ('inphase', {'sub': '1'})
    assert found('sub-1_echo-3_MEGRE', EchoTime=0.0017, **sidecar) is None


@pytest.mark.parametrize(
    ('sidecar', 'key'),
    [
        ({'MagneticFieldStrength': 3}, 'EchoTime'),
        ({'EchoTime': 2.3, 'MagneticFieldStrength': 3}, 'EchoTime'),  # milliseconds
        ({'EchoTime': [0.001, 0.002], 'MagneticFieldStrength': 3}, 'EchoTime'),
        ({'EchoTime': 0.0023}, 'MagneticFieldStrength'),
        ({'EchoTime': 0.0023, 'MagneticFieldStrength': 30000}, 'MagneticFieldStrength'),
        ({'EchoTime': 0.0023, 'MagneticFieldStrength': '3'}, 'MagneticFieldStrength'),
    ],
)
def test_echo_that_cannot_be_understood(sidecar: dict[str, object], key: str) -> None:
    with pytest.raises(BadDataError, match=f'as {key}'):
        found('sub-1_echo-1_MEGRE', **sidecar)


def test_own_rules_replace_ours(tmp_path: Path) -> None:
    path = tmp_path / 'rules.tsv'
    path.write_text('# mine\nsuffix\tcontrast\tce\n\nT1w\tFat\t(lipid).*\n')
    rules = load_contrast_rules(path)
    result = classify(rules, 'T1w', {'sub': '1', 'ce': 'lipid2'}, {})
    assert result is not None
    assert (result.contrast, result.entities) == ('fat', {'sub': '1', 'ce': '2'})
    assert classify(rules, 'T1w', {'sub': '1'}, {}) is None


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no rule'),
        ('contrast\tsuffix\n', 'no rule'),
        ('contrast\tsufix\nT1w\tT1w\n', 'Line 1 .*sufix'),
        ('contrast\nT1w\n', 'Line 1 .*lacks .*suffix'),
        ('contrast\tsuffix\tsuffix\nT1w\tT1w\tT1w\n', 'line 1 repeats'),
        ('contrast\tsuffix\nT1w\tT1w\n# x\nT9w\tT1w\n', 'Line 4 .*t9w'),
        ('contrast\tsuffix\nT1w\n', 'line 2 has 1 cells, not 2'),
        ('contrast\tsuffix\nT1w\t(T1w\n', r'Line 2 .*\(T1w'),
        ('contrast\tsuffix\tphase\nT1w\tT1w\tout\n', 'Line 2 .*out'),
    ],
)
def test_bad_rules_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'rules.tsv'
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_contrast_rules(path)


def test_absent_rules(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match='--contrast-rules'):
        load_contrast_rules(tmp_path / 'none.tsv')
