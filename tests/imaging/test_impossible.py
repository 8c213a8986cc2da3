"""Copies, signed magnitudes and swapped phases are found, and nothing is in clean scans."""

from __future__ import annotations

import numpy as np
import pytest
from abdomen import ABDOMEN, AFFINE
from dixon_phantom import DixonPhantom, make_dixon
from scipy import ndimage

from bids_muscle.errors import BadDataError
from bids_muscle.imaging.conform import make_image
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.imaging.impossible import SWAPPED_BACK, Checked, check_images
from bids_muscle.imaging.prepare import PreparedScan, prepare_scan
from bids_muscle.phantom.scanner import complex_noise

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope='module', params=['lumbar', 'cervical'])
def scan(request: pytest.FixtureRequest) -> DixonPhantom:
    return make_dixon(request.param, (96, 96, 8))


def images_of(scan: DixonPhantom, snr: float = 20.0) -> Arrays:
    """Water, fat and both phases with noise of their own, as magnitudes."""
    rng = np.random.default_rng(0)
    sigma = float(np.median(scan.water[scan.labels > 0])) / snr
    signals = {
        'water': scan.water,
        'fat': scan.fat,
        'inphase': scan.water + scan.fat,
        'opposedphase': scan.water - scan.fat,
    }
    return {
        name: np.abs(data + complex_noise(data.shape, sigma, rng)).astype(np.float32)
        for name, data in signals.items()
    }


def check(arrays: Arrays, **options: object) -> Checked:
    return check_images(arrays, fat_source(arrays), **options)


def only(arrays: Arrays, *names: str) -> Arrays:
    return {name: arrays[name] for name in names}


@pytest.mark.parametrize('snr', [50.0, 20.0, 5.0])
def test_clean_scans_raise_nothing(scan: DixonPhantom, snr: float) -> None:
    images = images_of(scan, snr)
    # Reconstructions may keep the sign of noise in water and fat.
    signed = images | {
        'fat': (scan.fat + (images['water'] - scan.water)).astype(np.float32),
    }
    for arrays in (images, signed, only(images, 'inphase', 'opposedphase')):
        checked = check(arrays)
        assert (checked.doubt, checked.warnings) == ('', ())
        assert all(np.array_equal(checked.arrays[name], data) for name, data in arrays.items())


def test_a_lean_person_of_water_raises_nothing(scan: DixonPhantom) -> None:
    """A thin rim of fat is all there is: nothing is a copy, nothing swapped."""
    lean = DixonPhantom(
        np.where(scan.labels > 0, scan.water + scan.fat, scan.water),
        np.where(scan.labels > 0, 0, 0.3 * scan.fat),
        scan.swap,
        scan.labels,
        scan.affine,
    )
    images = images_of(lean)
    for names in (('water', 'fat'), ('inphase', 'opposedphase')):
        checked = check(only(images, *names))
        assert (checked.doubt, checked.warnings) == ('', ())


@pytest.mark.parametrize('factor', [1.0, 0.5, 3.0])
@pytest.mark.parametrize(
    ('given', 'copied', 'doubted'),
    [
        (('water', 'fat'), ('water', 'fat'), True),
        (('inphase', 'opposedphase'), ('inphase', 'opposedphase'), True),
        (('water', 'fat', 'inphase'), ('inphase', 'fat'), True),
        (('water', 'fat', 'inphase', 'opposedphase'), ('inphase', 'opposedphase'), False),
    ],
)
def test_copies(
    scan: DixonPhantom,
    given: tuple[str, ...],
    copied: tuple[str, str],
    *,
    doubted: bool,
    factor: float,
) -> None:
    arrays = only(images_of(scan), *given)
    source, target = copied
    arrays[target] = np.rint(factor * arrays[source]).astype(np.float32)
    checked = check(arrays)
    assert bool(checked.doubt) == doubted
    (warning,) = checked.warnings
    assert source in warning
    assert target in warning
    assert ('copy' in warning) == (factor == 1)


def test_copies_of_echoes_and_a_level_fat_fraction(scan: DixonPhantom) -> None:
    images = images_of(scan)
    echoes = [images['inphase'], images['opposedphase']]
    assert not check_images({}, FatSource.ECHOES, echoes=echoes).doubt
    assert 'echoes' in check_images({}, FatSource.ECHOES, echoes=[*echoes, echoes[0]]).doubt
    total = images['water'] + images['fat']
    fraction = {'fatfraction': images['fat'] / total}
    assert not check(fraction).doubt
    assert 'one value' in check({'fatfraction': np.where(total > 50, 0.5, 0)}).doubt


def test_phases_that_are_exchanged(scan: DixonPhantom) -> None:
    images = images_of(scan)
    turned = {'inphase': images['opposedphase'], 'opposedphase': images['inphase']}
    checked = check(turned)
    assert 'swapped' in checked.doubt
    assert '--fix-swaps' in checked.doubt
    fixed = check(turned, fix_swaps=True)
    assert not fixed.doubt
    assert np.array_equal(fixed.arrays['inphase'], images['inphase'])
    assert fixed.warnings[0].endswith(SWAPPED_BACK)
    # Water and fat of the scanner do not need them.
    beside = check(turned | only(images, 'water', 'fat'))
    assert not beside.doubt
    assert 'swapped' in beside.warnings[0]


@pytest.mark.parametrize('kind', ['phase', 'real', 'imaginary'])
def test_what_is_no_magnitude_is_refused(scan: DixonPhantom, kind: str) -> None:
    images = images_of(scan)
    x = np.linspace(0, 6, scan.water.shape[0])[:, None, None]
    angle = np.angle(np.exp(1j * (x + np.zeros(scan.water.shape))))
    turned = {'phase': 4096 * angle / np.pi, 'real': np.cos(angle), 'imaginary': np.sin(angle)}
    data = turned[kind] if kind == 'phase' else images['water'] * turned[kind]
    with pytest.raises(BadDataError, match='phase'):
        check({'water': data.astype(np.float32), 'fat': images['fat']})


def test_phase_without_signs_is_refused(scan: DixonPhantom) -> None:
    rng = np.random.default_rng(0)
    signal = scan.water * np.exp(1j * np.linspace(0, 9, scan.water.shape[0]))[:, None, None]
    angle = np.angle(signal + complex_noise(signal.shape, 5, rng))
    phase = np.rint(4095 * (angle + np.pi) / (2 * np.pi)).astype(np.float32)
    with pytest.raises(BadDataError, match='phase image'):
        check({'T1w': phase})


def test_resampling_by_splines_raises_nothing(scan: DixonPhantom) -> None:
    images = images_of(scan, snr=50)
    moved = {name: ndimage.shift(data, (0.5, 0.5, 0)) for name, data in images.items()}
    assert (moved['fat'] < 0).sum() > 1000
    assert check(only(moved, 'water', 'fat')).warnings == ()


def test_thousands_of_negative_voxels(scan: DixonPhantom) -> None:
    images = only(images_of(scan), 'water', 'fat')
    where = np.random.default_rng(1).choice(scan.fat.size, 2000, replace=False)
    images['fat'].flat[where] = -0.3 * np.percentile(images['fat'], 99)
    checked = check(images)
    (warning,) = checked.warnings
    assert '2000 voxels' in warning
    assert np.isnan(checked.arrays['fat']).sum() == 2000


def test_values_that_wrapped(scan: DixonPhantom) -> None:
    images = images_of(scan)
    top = np.percentile(images['fat'], 99.5)
    for name in ('water', 'fat'):
        scaled = np.rint(images[name] * 32767 / top).astype(np.int64)
        images[name] = scaled.astype(np.int16).astype(np.float32)
    assert (images['fat'] < 0).any()
    checked = check(only(images, 'water', 'fat'))
    assert any('32767' in warning for warning in checked.warnings)
    assert not (checked.arrays['fat'] < 0).any()


def prepared(arrays: Arrays, affine: np.ndarray = AFFINE) -> PreparedScan:
    images = {name: make_image(data.astype(np.float32), affine) for name, data in arrays.items()}
    return prepare_scan(images, bias_correction=False)


@pytest.mark.parametrize('inside', [True, False])
def test_negative_voxels_are_left_out(*, inside: bool) -> None:
    """In the body they cost the trust in all fat; in the air only a warning."""
    fat = ABDOMEN.fat + ABDOMEN.air_noise(1)
    near = ndimage.binary_dilation(ABDOMEN.body, iterations=4)
    where = np.argwhere(ABDOMEN.body if inside else ~near)[::40]
    fat[tuple(where.T)] = -60
    scan = prepared({'water': ABDOMEN.water + ABDOMEN.air_noise(2), 'fat': fat})
    assert any(f'{len(where)} voxels far below 0' in warning for warning in scan.warnings)
    assert bool(scan.fat_doubt) == inside
    fraction = np.asarray(scan.fat_fraction.dataobj)
    assert np.isnan(fraction).all() == inside


def test_an_opposed_phase_that_exceeds_the_in_phase_everywhere() -> None:
    total = (ABDOMEN.water + ABDOMEN.fat) * ABDOMEN.body
    opposed = total * (1.05 + 0.3 * ABDOMEN.field / ABDOMEN.field.max())
    scan = prepared({'inphase': total, 'opposedphase': opposed})
    assert 'is higher than' in scan.fat_doubt
    assert np.isnan(np.asarray(scan.fat_fraction.dataobj)).all()


def test_undefined_voxels_of_exchanged_phases_are_not_negative(scan: DixonPhantom) -> None:
    images = images_of(scan)
    turned = {'inphase': images['opposedphase'], 'opposedphase': images['inphase'].copy()}
    turned['opposedphase'][40:60, 40:60] = np.nan
    given = {name: make_image(data, scan.affine) for name, data in turned.items()}
    assert prepare_scan(given, bias_correction=False, fix_swaps=True).fat_doubt == ''


def test_no_fat_fraction_of_copies_and_exchanged_phases(scan: DixonPhantom) -> None:
    images = images_of(scan)
    for arrays in (
        {'water': images['water'], 'fat': images['water']},
        {'inphase': images['opposedphase'], 'opposedphase': images['inphase']},
    ):
        found = prepared(arrays, scan.affine)
        assert found.fat_doubt
        assert np.isnan(np.asarray(found.fat_fraction.dataobj)).all()
        assert any(word in ' '.join(found.warnings) for word in ('copy', 'swapped'))


@pytest.mark.parametrize('names', [('water', 'fat'), ('inphase', 'opposedphase')])
def test_images_that_were_each_scaled_to_their_maximum(
    scan: DixonPhantom, names: tuple[str, str]
) -> None:
    images = only(images_of(scan), *names)
    for full in (1.0, 255.0, 4095.0):
        each = {name: np.float32(full / data.max()) * data for name, data in images.items()}
        if full == 255.0:  # the brightest voxels cut off, whole numbers
            each = {name: np.rint(np.minimum(1.1 * data, full)) for name, data in each.items()}
        checked = check(each)
        assert 'own maximum' in checked.doubt
        assert any(f'{full:g}' in warning for warning in checked.warnings)
        top = max(data.max() for data in images.values())
        together = {name: np.float32(full / top) * data for name, data in images.items()}
        assert not check(together).doubt


def test_images_that_a_scanner_clips_or_that_add_up_to_one(scan: DixonPhantom) -> None:
    images = only(images_of(scan), 'water', 'fat')
    clipped = {
        name: np.minimum(5000 / data.max() * data, 4095).astype(np.float32)
        for name, data in images.items()
    }
    total = images['water'] + images['fat']
    water = np.clip(1.2 * images['water'] / total - 0.1, 0, 1)
    tissue = total > 0.05 * total.max()
    shares = {'water': water * tissue, 'fat': (1 - water) * tissue}
    for each in (clipped, shares):
        assert all(data.max() == next(iter(each.values())).max() for data in each.values())
        assert not check(each).doubt


@pytest.mark.parametrize('names', [('water', 'fat'), ('inphase', 'opposedphase')])
def test_a_constant_that_was_added(scan: DixonPhantom, names: tuple[str, str]) -> None:
    images = only(images_of(scan), *names)
    top = max(data.max() for data in images.values())
    lifted = {name: data + np.float32(0.3 * top) for name, data in images.items()}
    checked = check(lifted)
    assert 'constant' in checked.doubt
    assert len(checked.warnings) == 1
    # A border that a program filled is not the whole image.
    filled = {name: data.copy() for name, data in images.items()}
    for data in filled.values():
        data[:8] = top
    assert not check(filled).doubt
    echoes = [*lifted.values(), *(2 * data for data in lifted.values())]
    assert 'constant' in check_images({}, FatSource.ECHOES, echoes=echoes).doubt
