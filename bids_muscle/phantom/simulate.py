"""One scan: images of a contrast with noise, coil and artefacts, from the noise-free model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom import artefacts
from bids_muscle.phantom.anatomy import Anatomy
from bids_muscle.phantom.artefacts import AnyImage, Key
from bids_muscle.phantom.options import Options
from bids_muscle.phantom.person import generator
from bids_muscle.phantom.protocol import Sequence, fat_phasor, sequence_for
from bids_muscle.phantom.render import Component, Samples, make_component, render
from bids_muscle.phantom.scanner import coil_sensitivity, complex_noise, to_stored
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


@dataclass(frozen=True)
class SimulatedScan:
    """Images of one acquisition and the artefacts they have."""

    images: list[Image]
    artefacts: list[str]


def simulate_scan(
    anatomy: Anatomy,
    samples: Samples,
    fat_by_label: Mapping[int, NDArray[np.float64]],
    kinds: tuple[str, ...],
    options: Options,
    key: Key,
) -> SimulatedScan:
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
    scanner = _Scanner(anatomy, samples, sequence, options, key)
    tissue = partial(make_component, anatomy, fat_by_label, sequence, options.field_strength_t)
    images = []
    if kinds[0] == 'megre':
        for number, echo_ms in enumerate(sequence.echo_times_ms, start=1):
            water, fat = scanner.receive(tissue(echo_time_ms=echo_ms))
            phasor = np.complex64(fat_phasor(echo_ms, options.field_strength_t))
            echo = scanner.measure(water + fat * phasor)
            images.append((f'echo-{number}', np.abs(echo), echo_ms))
    elif kinds[0] in ('t1w', 't2w'):
        water, fat = scanner.receive(tissue())
        images.append((kinds[0], np.abs(scanner.measure(water + fat)), sequence.echo_times_ms[0]))
    else:
        water, fat = scanner.receive(tissue())
        in_phase, opposed = scanner.measure(water + fat), scanner.measure(water - fat)
        in_ms, opposed_ms = sequence.echo_times_ms
        if 'dixon' in kinds:
            computed = np.abs(in_phase + opposed) / 2, np.abs(in_phase - opposed) / 2
            if 'swap' in scanner.artefacts:
                # Swaps are a mistake in the computed images; the echoes do not have it.
                swapped = artefacts.swap_region(samples.grid, scanner.body, key)
                computed = _exchange(*computed, swapped)
            images += [('water', computed[0], in_ms), ('fat', computed[1], in_ms)]
        if 'inout' in kinds:
            images += [
                ('inphase', np.abs(in_phase), in_ms),
                ('opposedphase', np.abs(opposed), opposed_ms),
            ]
    stored = [
        Image(kind, scanner.store(data), echo_ms, sequence) for kind, data, echo_ms in images
    ]
    return SimulatedScan(
        stored, [name for name in scanner.artefacts if name != 'swap' or 'dixon' in kinds]
    )


def _exchange(
    water: FloatImage, fat: FloatImage, where: NDArray[np.bool_]
) -> tuple[FloatImage, FloatImage]:
    return np.where(where, fat, water), np.where(where, water, fat)


class _Scanner:
    """Coil, noise and artefacts of one scan; the noise of every echo is another."""

    def __init__(
        self, anatomy: Anatomy, samples: Samples, sequence: Sequence, options: Options, key: Key
    ) -> None:
        self.samples, self.sequence, self.key = samples, sequence, key
        self.field_strength_t = options.field_strength_t
        self.coil = coil_sensitivity(samples.grid, anatomy.region, options.bias, key)
        self.artefacts = artefacts.drawn(options.artefacts, key)
        self.rng = generator(*key, 'noise')
        tissues = load_tissues(options.field_strength_t)
        muscle, fat = tissues['muscle'], tissues['fat']
        signal = muscle.proton_density * sequence.signal(muscle)
        self.sigma = 0.0 if options.snr is None else signal / options.snr
        self.scale = FAT_VALUE / (fat.proton_density * sequence.signal(fat))
        self.body = np.zeros(0, bool)

    def receive(self, component: Component) -> tuple[FloatImage, FloatImage]:
        """Water and fat signal as the coil receives it, with what happens before the echo."""
        water, fat = render(self.samples, component)
        self.body = (water + fat) * self.scale > FAT_VALUE / 50
        if 'chemical-shift' in self.artefacts:
            fat = artefacts.shift_fat(fat, self.sequence, self.field_strength_t)
        factor = self.coil
        if 'metal' in self.artefacts:
            factor = factor * artefacts.metal_dropout(self.samples.grid, self.body, self.key)
        if 'slab' in self.artefacts:
            factor = factor * artefacts.slab_profile(self.samples.grid.shape[2], self.key)
        return water * factor, fat * factor

    def measure(self, signal: AnyImage) -> AnyImage:
        """Add what happens during encoding, and noise."""
        if 'ghosting' in self.artefacts:
            signal = artefacts.ghost(signal, self.key)
        if 'wrap' in self.artefacts:
            signal = artefacts.wrap_around(signal, self.body, self.key)
        if self.sigma:
            signal = signal + complex_noise(signal.shape, self.sigma, self.rng)
        return signal

    def store(self, image: FloatImage) -> NDArray[np.uint16]:
        """Round to the integers that scanners store, with what happens there."""
        stored = to_stored(image, self.scale)
        return (
            artefacts.clip(stored, self.body, self.key) if 'clipping' in self.artefacts else stored
        )
