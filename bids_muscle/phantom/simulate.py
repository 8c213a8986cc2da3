"""One scan: images of a contrast with noise, coil and artefacts, from the noise-free model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.anatomy import Anatomy
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import generator
from bids_muscle.phantom.protocol import Sequence, fat_phasor, sequence_for
from bids_muscle.phantom.render import Samples, make_component, render
from bids_muscle.phantom.scanner import coil_sensitivity, complex_noise, magnitude, to_stored
from bids_muscle.phantom.tissues import load_tissues

FloatImage = NDArray[np.float32]

#: Stored value of pure fat under the mean coil sensitivity.
FAT_VALUE = 1000.0


@dataclass(frozen=True)
class Image:
    """One image of a scan.

    Parameters
    ----------
    kind
        ``'water'``, ``'fat'``, ``'inphase'``, ``'opposedphase'``, ``'echo-1'`` ..., ``'t1w'`` or
        ``'t2w'``.
    data
        (X, Y, Z) stored numbers.
    echo_time_ms
        Echo time for the sidecar.
    """

    kind: str
    data: NDArray[np.uint16]
    echo_time_ms: float
    sequence: Sequence


def simulate_scan(
    anatomy: Anatomy,
    samples: Samples,
    fat_by_label: Mapping[int, NDArray[np.float64]],
    kinds: tuple[str, ...],
    options: Options,
    key: tuple[int | str, ...],
) -> list[Image]:
    """Simulate the images of one scan.

    Parameters
    ----------
    samples, fat_by_label
        What lies in the voxels and how much fat the muscles hold.
    kinds
        ``('dixon',)``, ``('inout',)`` or both (one acquisition), or one of the other contrasts.
    options
        Settings of the cohort.
    key
        Names this scan; noise and artefacts depend only on it.
    """
    sequence = sequence_for(kinds[0], options.field_strength_t)
    coil = coil_sensitivity(samples.grid, anatomy.region, options.bias, key)
    if kinds[0] == 'megre':
        return _multi_echo(anatomy, samples, fat_by_label, sequence, coil, options, key)
    component = make_component(anatomy, fat_by_label, sequence, options.field_strength_t)
    water, fat = render(samples, component)
    water, fat = water * coil, fat * coil
    rng = generator(*key, 'noise')
    sigma, scale = _levels(sequence, options)
    if kinds[0] in ('t1w', 't2w'):
        stored = to_stored(magnitude(water + fat, sigma, rng), scale)
        return [Image(kinds[0], stored, sequence.echo_times_ms[0], sequence)]
    in_phase: NDArray[np.complex64] | FloatImage = water + fat
    opposed: NDArray[np.complex64] | FloatImage = water - fat
    if sigma:
        in_phase = in_phase + complex_noise(water.shape, sigma, rng)
        opposed = opposed + complex_noise(water.shape, sigma, rng)
    in_ms, opposed_ms = sequence.echo_times_ms
    images = []
    if 'dixon' in kinds:
        images.append(('water', np.abs(in_phase + opposed) / 2, in_ms))
        images.append(('fat', np.abs(in_phase - opposed) / 2, in_ms))
    if 'inout' in kinds:
        images.append(('inphase', np.abs(in_phase), in_ms))
        images.append(('opposedphase', np.abs(opposed), opposed_ms))
    return [Image(name, to_stored(data, scale), echo, sequence) for name, data, echo in images]


def _levels(sequence: Sequence, options: Options) -> tuple[float, float]:
    """Noise per channel, and the factor from signal to stored numbers."""
    tissues = load_tissues(options.field_strength_t)
    muscle, fat = tissues['muscle'], tissues['fat']
    signal = muscle.proton_density * sequence.signal(muscle)
    sigma = 0.0 if options.snr is None else signal / options.snr
    return sigma, FAT_VALUE / (fat.proton_density * sequence.signal(fat))


def _multi_echo(
    anatomy: Anatomy,
    samples: Samples,
    fat_by_label: Mapping[int, NDArray[np.float64]],
    sequence: Sequence,
    coil: FloatImage,
    options: Options,
    key: tuple[int | str, ...],
) -> list[Image]:
    """Magnitude echoes of water and six fat peaks with T2* decay by tissue."""
    rng = generator(*key, 'noise')
    sigma, scale = _levels(sequence, options)
    images = []
    for number, echo_ms in enumerate(sequence.echo_times_ms, start=1):
        component = make_component(
            anatomy, fat_by_label, sequence, options.field_strength_t, echo_time_ms=echo_ms
        )
        water, fat = render(samples, component)
        phasor = np.complex64(fat_phasor(echo_ms, options.field_strength_t))
        echo = magnitude((water + fat * phasor) * coil, sigma, rng)
        images.append(Image(f'echo-{number}', to_stored(echo, scale), echo_ms, sequence))
    return images
