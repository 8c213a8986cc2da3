"""One scan made ready."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from abdomen import ABDOMEN, AFFINE

from bids_muscle.errors import GridMismatchError
from bids_muscle.imaging.conform import make_image, to_native
from bids_muscle.imaging.prepare import PreparedScan, prepare_scan

LPS = np.diag([-1.0, -1, 1, 1]) @ AFFINE


def array(img: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(img.dataobj)


@pytest.fixture(scope='module')
def dixon() -> PreparedScan:
    """Prepare a biased Dixon scan stored in LPS voxel order."""
    return prepare_scan(
        {
            'water': make_image((ABDOMEN.water * ABDOMEN.field)[::-1, ::-1], LPS),
            'fat': make_image((ABDOMEN.fat * ABDOMEN.field)[::-1, ::-1], LPS),
        }
    )


def test_all_on_one_canonical_grid(dixon: PreparedScan) -> None:
    every = [*dixon.images.values(), *dixon.corrected.values(), dixon.body_mask]
    for img in every:
        assert nib.aff2axcodes(img.affine) == ('R', 'A', 'S')
        assert np.allclose(img.affine, every[0].affine)
    assert np.allclose(array(dixon.images['water']), ABDOMEN.water * ABDOMEN.field, rtol=1e-5)
    back = to_native(dixon.images['water'], dixon.native)
    assert np.array_equal(array(back), array(dixon.native))


def test_one_field_for_all_images_leaves_the_fat_fraction_alone(dixon: PreparedScan) -> None:
    inside = ABDOMEN.body
    raw = {key: array(img)[inside].astype(float) for key, img in dixon.images.items()}
    new = {key: array(img)[inside].astype(float) for key, img in dixon.corrected.items()}
    field = raw['water'] / new['water']
    assert field.std() > 0.1  # something was corrected
    assert np.allclose(raw['fat'] / new['fat'], field, rtol=1e-5)
    before = raw['fat'] / (raw['fat'] + raw['water'])
    after = new['fat'] / (new['fat'] + new['water'])
    assert np.allclose(before, after, atol=1e-6)
    truth = (ABDOMEN.fat / np.maximum(ABDOMEN.fat + ABDOMEN.water, 1))[inside]
    assert np.allclose(array(dixon.fat_fraction)[inside], truth, atol=1e-5)


def test_correction_brings_tissue_together(dixon: PreparedScan) -> None:
    muscle = ABDOMEN.water == 85
    before, after = (array(images['water'])[muscle] for images in (dixon.images, dixon.corrected))
    assert after.std() / after.mean() < 0.5 * before.std() / before.mean()


def test_phases_are_bounded_and_say_so() -> None:
    scan = prepare_scan(
        {
            'inphase': make_image(ABDOMEN.water + ABDOMEN.fat, AFFINE),
            'opposedphase': make_image(abs(ABDOMEN.water - ABDOMEN.fat), AFFINE),
        },
        bias_correction=False,
    )
    assert scan.bounded
    assert np.nanmax(array(scan.fat_fraction)) <= 0.5 + 1e-6
    assert any('complement' in warning for warning in scan.warnings)
    muscle = ABDOMEN.water == 85
    assert np.allclose(array(scan.fat_fraction)[muscle], 0.15)
    assert set(scan.images) == {'inphase', 'opposedphase', 'water', 'fat'}


def test_scanner_fat_fraction_in_per_mille() -> None:
    truth = ABDOMEN.fat / np.maximum(ABDOMEN.fat + ABDOMEN.water, 1)
    scan = prepare_scan({'fatfraction': make_image(1000 * truth, AFFINE)})
    assert np.allclose(array(scan.fat_fraction), truth, atol=1e-6)
    assert any('0 to 1000' in warning for warning in scan.warnings)
    assert not scan.bounded


@pytest.mark.parametrize(
    ('beside', 'floored'),
    [
        (('inphase',), True),
        (('inphase', 'water', 'opposedphase'), True),
        (('water', 'opposedphase'), True),
        (('water',), False),
        (('opposedphase',), False),
    ],
)
def test_scanner_fat_fraction_of_a_void(beside: tuple[str, ...], *, floored: bool) -> None:
    void = np.zeros(ABDOMEN.body.shape, bool)
    void[30:34, 15:20, 4:6] = True
    rng = np.random.default_rng(0)
    water, fat = (
        np.abs(signal * ~void + rng.normal(0, 0.5, void.shape))
        for signal in (ABDOMEN.water, ABDOMEN.fat)
    )
    signals = {'water': water, 'inphase': water + fat, 'opposedphase': abs(water - fat)}
    signals = {key: signals[key] for key in beside} | {'fatfraction': 100 * fat / (water + fat)}
    scan = prepare_scan(
        {key: make_image(data.astype(np.float32), AFFINE) for key, data in signals.items()},
        bias_correction=False,
    )
    fraction = array(scan.fat_fraction)
    assert np.isnan(fraction[void]).mean() > 0.9 if floored else np.isfinite(fraction[void]).all()
    assert np.isfinite(fraction[ABDOMEN.body & ~void]).all()


def test_a_doubt_from_the_plan_leaves_no_fat_fraction() -> None:
    images = {key: make_image(getattr(ABDOMEN, key), AFFINE) for key in ('water', 'fat')}
    scan = prepare_scan(images, bias_correction=False, fat_doubt='other scales')
    assert scan.fat_doubt == 'other scales'
    assert np.isnan(array(scan.fat_fraction)).all()


def test_single_contrast_without_correction_is_untouched() -> None:
    scan = prepare_scan({'T2w': make_image(ABDOMEN.water, AFFINE)}, bias_correction=False)
    assert np.array_equal(array(scan.corrected['T2w']), array(scan.images['T2w']))
    assert scan.fat_fraction is None


HOLES = (slice(30, 34), slice(15, 20), slice(4, 6))


@pytest.mark.parametrize(
    ('given', 'hole'),
    [
        (('water', 'fat'), 'fat'),
        (('water', 'fat'), 'water'),
        (('inphase', 'opposedphase'), 'inphase'),
        (('inphase', 'opposedphase'), 'opposedphase'),
        (('fatfraction',), 'fatfraction'),
        (('fatfraction', 'opposedphase'), 'fatfraction'),
    ],
)
def test_what_is_undefined_stays_so_and_the_network_sees_zero(
    given: tuple[str, ...], hole: str
) -> None:
    total = ABDOMEN.water + ABDOMEN.fat
    signals = {
        'water': ABDOMEN.water,
        'fat': ABDOMEN.fat,
        'inphase': total,
        'opposedphase': abs(ABDOMEN.water - ABDOMEN.fat),
        'fatfraction': ABDOMEN.fat / np.maximum(total, 1),
    }
    whole = {key: signals[key].astype(np.float32) for key in given}
    holed = {key: data.copy() for key, data in whole.items()}
    holed[hole][HOLES] = np.nan
    whole, holed = (
        prepare_scan({key: make_image(data, AFFINE) for key, data in arrays.items()})
        for arrays in (whole, holed)
    )
    fraction, expected = array(holed.fat_fraction), array(whole.fat_fraction).copy()
    expected[HOLES] = np.nan
    assert np.array_equal(fraction, expected, equal_nan=True)
    assert np.isnan(array(holed.images[hole])[HOLES]).all()
    if 'fatfraction' not in given:
        water, fat = (array(holed.images[key]) for key in ('water', 'fat'))
        assert np.isnan(water + fat)[HOLES].all()
    if hole != 'fatfraction':
        assert np.array_equal(array(holed.body_mask), array(whole.body_mask))
    for key, img in holed.corrected.items():
        assert np.isfinite(array(img)).all()
        assert key != hole or not array(img)[HOLES].any()


def test_grids_that_differ_are_refused() -> None:
    shifted = AFFINE.copy()
    shifted[2, 3] = 8
    far = AFFINE.copy()
    far[2, 3] = 16
    with pytest.raises(GridMismatchError, match='do not share a grid: origin'):
        prepare_scan(
            {
                'water': make_image(ABDOMEN.water, shifted),
                'fat': make_image(ABDOMEN.fat, far),
            }
        )


def test_the_lost_affine_is_replaced_in_every_output() -> None:
    real = AFFINE.copy()
    real[:3, 3] = -160, -120, 300
    scan = prepare_scan(
        {'water': make_image(ABDOMEN.water, AFFINE), 'fat': make_image(ABDOMEN.fat, real)},
        bias_correction=False,
    )
    assert np.allclose(scan.native.affine, real)
    assert np.allclose(scan.images['water'].affine, real)
    assert any('lost its position' in warning for warning in scan.warnings)


@pytest.mark.parametrize('value', [0.0, np.nan])
@pytest.mark.parametrize(
    ('lost', 'given'),
    [
        ('water', ('water', 'fat')),
        ('fat', ('water', 'fat')),
        ('opposedphase', ('inphase', 'opposedphase')),
        ('fatfraction', ('inphase', 'fatfraction')),
    ],
)
def test_a_slice_that_one_image_lacks_has_no_fat_fraction(
    lost: str, given: tuple[str, ...], value: float
) -> None:
    total = ABDOMEN.water + ABDOMEN.fat
    every = {
        'water': ABDOMEN.water,
        'fat': ABDOMEN.fat,
        'inphase': total,
        'opposedphase': abs(ABDOMEN.water - ABDOMEN.fat),
        'fatfraction': ABDOMEN.fat / np.maximum(total, 1),
    }
    images = {name: every[name].copy() for name in given}
    whole = prepare_scan({key: make_image(data, AFFINE) for key, data in images.items()})
    images[lost][..., 4] = value
    prepared = prepare_scan({key: make_image(data, AFFINE) for key, data in images.items()})
    muscle = ABDOMEN.water == 85
    fraction = array(prepared.fat_fraction)
    assert np.isnan(fraction[..., 4][muscle[..., 4]]).all()
    others = np.arange(10) != 4
    assert fraction[..., others][muscle[..., others]] == pytest.approx(0.15, abs=1e-5)
    assert not prepared.fat_doubt
    said = [text for text in prepared.warnings if 'has no signal' in text]
    assert len(said) == 1
    assert said[0].startswith(f'The {lost} image has no signal in slice 4,')
    assert not any('no signal' in text for text in whole.warnings)


def test_empty_slices_of_all_images_are_no_fault_of_one() -> None:
    images = {'water': ABDOMEN.water.copy(), 'fat': ABDOMEN.fat.copy()}
    for data in images.values():
        data[..., 0] = 0
    # Noise that the program which parted water and fat has masked in one of them.
    images['fat'][..., 0] = ABDOMEN.air_noise()[..., 0]
    prepared = prepare_scan({key: make_image(data, AFFINE) for key, data in images.items()})
    assert not any('no signal' in text for text in prepared.warnings)


def test_a_lost_slice_does_not_swap_the_phases() -> None:
    images = {
        'inphase': ABDOMEN.water + ABDOMEN.fat,
        'opposedphase': abs(ABDOMEN.water - ABDOMEN.fat),
    }
    images['inphase'][..., 3:6] = 0
    prepared = prepare_scan({key: make_image(data, AFFINE) for key, data in images.items()})
    assert not any('swapped' in text for text in prepared.warnings)
