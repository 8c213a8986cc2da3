"""Each artefact does to the signal what it is named after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bids_muscle.phantom import artefacts
from bids_muscle.phantom.dataset import write_dataset
from bids_muscle.phantom.protocol import sequence_for
from bids_muscle.phantom.render import ScanGrid

from phantom_files import TINY, read_image, read_tsv  # isort: skip

GRID = ScanGrid((60, 50, 12), np.diag([-3.0, 3.0, 6.0, 1.0]))
KEY = (1, 2, 'lumbar', 0, 1, 'dixon')


def block() -> np.ndarray:
    image = np.zeros(GRID.shape, np.float32)
    image[10:50, 12:40] = 1
    return image


def test_share_of_scans() -> None:
    has = [
        bool(artefacts.drawn((('swap', 0.1),), (0, number, 'lumbar', 0, 1, 'dixon')))
        for number in range(2000)
    ]
    assert np.mean(has) == pytest.approx(0.1, abs=0.025)


def test_metal_stays_with_the_person() -> None:
    body = block() > 0
    first = artefacts.metal_dropout(GRID, body, KEY)
    other_scan = artefacts.metal_dropout(GRID, body, (*KEY[:3], 1, 1, 't2w'))
    assert np.array_equal(first, other_scan)
    assert first.min() < 0.05
    assert 0.5 < (first == 1).mean() < 1


def test_chemical_shift_moves_fat_along_the_readout() -> None:
    sequence = sequence_for('t1w', 3.0)
    moved = artefacts.shift_fat(block(), sequence, 3.0)
    pixels = 3.4 * 42.577 * 3 / sequence.bandwidth_hz
    middle = [
        np.average(np.arange(60), weights=image.sum(axis=(1, 2))) for image in (block(), moved)
    ]
    assert middle[1] - middle[0] == pytest.approx(pixels, abs=0.05)
    assert moved.sum() == pytest.approx(block().sum(), rel=1e-4)


def test_ghosts_lie_along_the_phase_axis_and_keep_the_energy() -> None:
    image = block()
    ghosted = np.abs(artefacts.ghost(image, KEY))
    assert np.linalg.norm(ghosted) == pytest.approx(np.linalg.norm(image), rel=1e-4)
    assert ghosted[20:40, :8].max() > 0.05
    assert ghosted[:9].max() < 1e-5


def test_wrap_folds_the_front_onto_the_back() -> None:
    image = block() * np.linspace(0, 1, 50, dtype=np.float32)[None, :, None]
    folded = artefacts.wrap_around(image, image > 0, KEY)
    rows = np.nonzero(folded.any(axis=(0, 2)))[0]
    cut = rows[0] - 12
    assert cut >= 1
    assert rows[-1] == 39 - cut
    # Signal is folded, not lost.
    assert folded.sum() == pytest.approx(image.sum(), rel=1e-5)
    assert folded[30, rows[0], 0] == pytest.approx(
        image[30, rows[0], 0] + image[30, rows[-1] + 1, 0]
    )


def test_swap_exchanges_water_and_fat_in_a_region_only(tmp_path: Path) -> None:
    settings = {'participants': 1, 'contrasts': ('dixon', 'inout'), 'snr': None, **TINY}
    plain = write_dataset(tmp_path / 'plain', **settings)
    swapped = write_dataset(tmp_path / 'swapped', artefacts=(('swap', 1.0),), **settings)

    def image(root: Path, name: str) -> np.ndarray:
        return read_image(root / f'sub-01/anat/sub-01_acq-dixon{name}_T1w.nii.gz')

    water, fat = image(plain, 'water'), image(plain, 'fat')
    changed = image(swapped, 'water') != water
    assert 0.002 < changed.mean() < 0.2
    assert np.array_equal(image(swapped, 'water')[changed], fat[changed])
    assert np.array_equal(image(swapped, 'fat')[changed], water[changed])
    for name in ('in', 'out'):
        assert np.array_equal(image(swapped, name), image(plain, name))
    table = 'derivatives/truth/group_muscles.tsv'
    assert {row['artefacts'] for row in read_tsv(swapped / table)} == {'swap'}
    assert {row['artefacts'] for row in read_tsv(plain / table)} == {'none'}
    # The truth is that of the body, whatever the scanner makes of it.
    for row, other in zip(read_tsv(swapped / table), read_tsv(plain / table), strict=True):
        assert row['mfi_pct'] == other['mfi_pct']


def test_noise_is_rician_and_the_coil_falls_off(tmp_path: Path) -> None:
    common = {'participants': 1, 'seed': 4, **TINY}
    clean = write_dataset(tmp_path / 'clean', snr=None, bias=0.0, **common)
    noisy = write_dataset(tmp_path / 'noisy', snr=20.0, bias=0.0, **common)
    coil = write_dataset(tmp_path / 'coil', snr=None, bias=1.0, **common)
    name = 'sub-01/anat/sub-01_acq-dixonwater_T1w.nii.gz'
    truth, image, biased = (read_image(root / name).astype(float) for root in (clean, noisy, coil))
    from bids_muscle.phantom.protocol import muscle_signals

    water, fat = muscle_signals(3.0)
    sigma = 1000 * water / fat / 20 / np.sqrt(2)
    air = truth == 0
    # Rayleigh: mean sigma * sqrt(pi / 2).
    assert image[air].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.03)
    bright = truth > 12 * sigma
    assert (image - truth)[bright].std() == pytest.approx(sigma, rel=0.05)
    ratio = np.where(truth > 50, biased / np.maximum(truth, 1), np.nan)
    back, front = np.nanmedian(ratio[:, 15:25]), np.nanmedian(ratio[:, 38:48])
    assert back > 1.3 * front


def test_the_ends_of_a_slab_fall_off(tmp_path: Path) -> None:
    profile = artefacts.slab_profile(40, KEY)
    assert profile[[0, -1]].max() < 0.25
    assert profile[15:25].min() == pytest.approx(1)
    assert (np.diff(profile[:12]) >= 0).all()
    common = {'participants': 1, 'snr': None, 'contrasts': ('t2w',), **TINY}
    plain, slab = (
        write_dataset(tmp_path / name, artefacts=chosen, **common)
        for name, chosen in (('plain', ()), ('slab', (('slab', 1.0),)))
    )
    images = [read_image(root / 'sub-01/anat/sub-01_T2w.nii.gz') for root in (plain, slab)]
    bright = images[0] > 200
    ratio = [np.median((images[1] / images[0].clip(1))[..., k][bright[..., k]]) for k in (0, 5)]
    assert ratio[0] < 0.25
    assert ratio[1] == pytest.approx(1, abs=0.02)


def test_clipping_gives_a_share_of_the_body_one_value(tmp_path: Path) -> None:
    common = {'participants': 1, 'contrasts': ('t1w',), **TINY}
    root = write_dataset(tmp_path / 'clipped', artefacts=(('clipping', 1.0),), **common)
    image = read_image(root / 'sub-01/anat/sub-01_T1w.nii.gz')
    assert 0.02 < np.mean(image[image > 50] == image.max()) < 0.12
