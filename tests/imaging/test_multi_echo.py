"""Water and fat fitted to the magnitudes of several echoes."""

from __future__ import annotations

import numpy as np
import pytest

from bids_muscle.imaging.conform import make_image, to_canonical
from bids_muscle.imaging.dixon import FatSource, fat_source
from bids_muscle.imaging.multi_echo import EchoTrain, fit_water_fat
from bids_muscle.imaging.prepare import prepare_scan
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


def test_scanner_images_come_first() -> None:
    assert fat_source(['inphase', 'opposedphase', 'echoes']) is FatSource.ECHOES
    assert fat_source(['fatfraction', 'echoes']) is FatSource.SCANNER
