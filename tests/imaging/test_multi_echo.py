"""Water and fat fitted to the magnitudes of several echoes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_muscle.imaging.conform import load_image, make_image, to_canonical
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.imaging.multi_echo import EchoTrain, fit_water_fat
from bids_muscle.imaging.prepare import PreparedScan, prepare_scan
from bids_muscle.phantom.anatomy import build_anatomy
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.fat import make_pattern
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import draw_person
from bids_muscle.phantom.protocol import fat_phasor, sequence_for
from bids_muscle.phantom.render import make_component, mfi_pct, plant_fat, sample_grid
from bids_muscle.phantom.simulate import simulate_scan


@pytest.mark.parametrize(('field_t', 'step_ms'), [(3.0, 1.15), (1.5, 2.3), (3.0, 1.0)])
def test_noise_free_echoes_give_back_fat_and_water(field_t: float, step_ms: float) -> None:
    rng = np.random.default_rng(1)
    share, rate = rng.uniform(0, 1, (20, 10, 2)), rng.uniform(20, 100, (20, 10, 2))
    times_ms = [step_ms * (echo + 1) for echo in range(6)]
    echoes = [
        80 * np.exp(-rate * t / 1000) * abs(1 - share + share * fat_phasor(t, field_t))
        for t in times_ms
    ]
    echoes[2][0, 0, 0] = np.nan
    where = np.ones(share.shape, bool)
    where[1] = False
    train = EchoTrain(tuple(t / 1000 for t in times_ms), field_t)
    water, fat = fit_water_fat(echoes, train, where)
    assert np.isnan(water[0, 0, 0])
    assert np.isnan(fat[0, 0, 0])
    assert not fat[1].any()
    where[0, 0, 0] = False
    assert np.allclose(fat[where], 80 * share[where], atol=0.05)
    assert np.allclose(water[where], 80 * (1 - share[where]), atol=0.05)


def test_muscle_fat_of_a_phantom() -> None:
    effects = load_effects()
    options = Options(
        1, effects, regions=('lumbar',), contrasts=('megre',), shape=(96, 96, 4), snr=40.0
    )
    person = draw_person(
        3,
        1,
        age_years=(60, 5),
        female_share=0.5,
        bmi=(26, 3),
        sites=tuple(effects.sites),
        digits=3,
    )
    grid = options.grid('lumbar')
    in_plane_mm, slice_mm = grid.detail_mm
    anatomy = build_anatomy('lumbar', person, in_plane_mm=in_plane_mm, slice_mm=slice_mm)
    samples = sample_grid(anatomy, make_pattern(anatomy, person), grid)
    shares = plant_fat(anatomy, samples, effects.planted_mfi(person, 'lumbar', 3, 0), 3.0)
    images = simulate_scan(anatomy, samples, shares, ('megre',), options, (3, 1, 'lumbar')).images
    echoes = [make_image(image.data.astype(np.float32), grid.affine) for image in images]
    scan = prepare_scan(
        {'inphase': echoes[1], 'opposedphase': echoes[0]},
        echoes=echoes,
        echo_train=EchoTrain(tuple(image.echo_time_ms / 1000 for image in images), 3.0),
        bias_correction=False,
    )
    assert not scan.bounded
    water, fat = (np.asarray(scan.images[name].dataobj) for name in ('water', 'fat'))
    fraction = np.asarray(scan.fat_fraction.dataobj)
    assert np.nanpercentile(fraction, 95) > 0.9
    labels = np.asarray(to_canonical(make_image(samples.labels, grid.affine)).dataobj)
    truth = make_component(anatomy, shares, sequence_for('megre', 3.0), 3.0)
    errors = []
    for label in anatomy.table:
        inside = labels == label.index
        if np.count_nonzero(inside) > 100:
            found = 100 * fat[inside].sum() / (fat + water)[inside].sum()
            errors.append(found - mfi_pct(truth, samples.label_counts[label.index]))
    assert len(errors) >= 6
    assert np.abs(errors).max() < 2
    assert np.abs(errors).mean() < 1


TIMES_S = tuple(0.0012 * echo for echo in range(1, 7))


def cylinder_echoes(*, noise: float = 0.0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return six echoes of a body of little fat under a fat skin, a void in it, and the body."""
    rng = np.random.default_rng(0)
    x, y, _ = np.indices((60, 60, 3)) - 29.5
    radius = np.hypot(x, y)
    body, void = radius < 25, np.hypot(x - 8, y) < 5
    share = np.where(radius > 21, 0.92, np.where(np.abs(x + 10) < 4, 0.5, 0.1))
    signal = 1000.0 * (body & ~void)
    echoes = []
    for time_s in TIMES_S:
        phasor = fat_phasor(1000 * time_s, 3.0)
        pure = signal * np.exp(-40 * time_s) * abs(1 - share + share * phasor)
        spread = rng.normal(0, noise, (2, *pure.shape))
        echoes.append(np.hypot(pure + spread[0], spread[1]).astype(np.float32))
    return echoes, void, body


def prepared(echoes: list[nib.Nifti1Image]) -> PreparedScan:
    return prepare_scan(
        {'inphase': echoes[1], 'opposedphase': echoes[0]},
        echoes=echoes,
        echo_train=EchoTrain(TIMES_S, 3.0),
        bias_correction=False,
    )


def test_what_reading_an_echo_says_is_said_once(tmp_path: Path) -> None:
    images = []
    for number, echo in enumerate(cylinder_echoes()[0], start=1):
        if number in (2, 5):  # the in-phase image, and an echo that is no image of its own
            echo[30:34] = np.nan
        path = tmp_path / f'echo-{number}.nii'
        nib.save(make_image(echo, np.diag([3.0, 3, 5, 1])), path)
        images.append(load_image(path))
    said = [text for text in prepared(images).warnings if 'NaN' in text]
    assert [text.split()[0] for text in said] == ['echo-2.nii', 'echo-5.nii']


def test_the_noise_of_a_void_has_no_fat_fraction() -> None:
    arrays, void, body = cylinder_echoes(noise=12)
    scan = prepared([make_image(echo, np.diag([3.0, 3, 5, 1])) for echo in arrays])
    fraction = np.asarray(scan.fat_fraction.dataobj)
    assert np.isnan(fraction[void]).mean() > 0.95
    assert np.isfinite(fraction[body & ~void & (arrays[1] > 300)]).all()
    # Half fat, half water: dark in the opposed echoes.
    half = np.zeros(body.shape, bool)
    half[17:22, 28:32] = True
    assert np.median(arrays[0][half]) < 200
    assert np.nanmedian(fraction[half]) == pytest.approx(0.5, abs=0.03)


def test_scanner_images_come_first() -> None:
    assert fat_source(['inphase', 'opposedphase', 'echoes']) is FatSource.ECHOES
    assert fat_source(['fatfraction', 'echoes']) is FatSource.SCANNER
