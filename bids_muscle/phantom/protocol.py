"""What is scanned: contrasts, sequence settings and the default grid of every region."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.errors import UsageError
from bids_muscle.phantom.tissues import Tissue, load_tissues, spin_echo, spoiled_gradient_echo

Array = NDArray[np.float64]

#: Contrasts of the phantom.
CONTRASTS = ('dixon', 'inout', 'megre', 't1w', 't2w')

#: Default field of view (right-left, anterior-posterior, up-down in mm) and matrix per region.
FIELD_OF_VIEW_MM = {
    'lumbar': (360.0, 360.0, 176.0),
    'cervical': (320.0, 240.0, 120.0),
    'lumbar sagittal': (66.0, 288.0, 216.0),
    'cervical sagittal': (52.0, 240.0, 120.0),
}
MATRIX = {
    'lumbar': (320, 320, 40),
    'cervical': (400, 300, 40),
    'lumbar sagittal': (15, 320, 240),
    'cervical sagittal': (13, 300, 150),
}

#: World y of the centre of the field of view relative to the vertebral bodies.
CENTRE_Y_MM = {'lumbar': 5.0, 'cervical': 0.0}

#: Methylene fat resonates this far below water (Hamilton 2011: 3.4 ppm; 42.577 MHz/T).
FAT_SHIFT_PPM = -3.4
GAMMA_MHZ_PER_T = 42.577

#: Six-peak fat spectrum: shift from water in ppm and relative amplitude (Hamilton 2011).
FAT_PEAKS = np.array(
    [[-3.80, 0.087], [-3.40, 0.693], [-2.60, 0.128], [-1.94, 0.004], [-0.39, 0.039], [0.60, 0.048]]
)


@dataclass(frozen=True)
class Sequence:
    """Settings of a pulse sequence.

    Parameters
    ----------
    echo_times_ms
        Echo times; for the two-point Dixon the in-phase and the opposed-phase echo.
    bandwidth_hz
        Receiver bandwidth per pixel: fat is displaced by the fat shift over this.
    """

    kind: str
    repetition_time_ms: float
    echo_times_ms: tuple[float, ...]
    flip_angle_deg: float
    bandwidth_hz: float

    def signal(self, tissue: Tissue) -> float:
        """Signal per proton without T2* decay (spin echo: with T2 decay)."""
        if self.kind == 'spin echo':
            return spin_echo(
                tissue,
                repetition_time_ms=self.repetition_time_ms,
                echo_time_ms=self.echo_times_ms[0],
            )
        return spoiled_gradient_echo(
            tissue,
            repetition_time_ms=self.repetition_time_ms,
            flip_angle_deg=self.flip_angle_deg,
        )


def sequence_for(contrast: str, field_strength_t: float) -> Sequence:
    """Return the sequence of a contrast.

    The Dixon settings are those of Weber 2021 (TR 7.05 ms, TE 2.46 and 3.69 ms, 12 degrees,
    510 Hz) at 3 T; at 1.5 T the echo times are those of the same phases.

    Raises
    ------
    UsageError
        If the contrast is unknown.
    """
    if contrast not in CONTRASTS:
        raise UsageError(
            f'The phantom has no contrast {contrast!r}.',
            f'Use one or more of {", ".join(CONTRASTS)}.',
        )
    if contrast in ('dixon', 'inout'):
        pair = (2.46, 3.69) if field_strength_t == 3 else (4.77, 2.38)
        return Sequence('gradient echo', 7.05, pair, 12, 510)
    if contrast == 'megre':
        step = 1.15 if field_strength_t == 3 else 2.3
        times = tuple(round(step * (echo + 1), 2) for echo in range(6))
        return Sequence('gradient echo', 12 if field_strength_t == 3 else 18, times, 4, 1200)
    if contrast == 't1w':
        return Sequence('spin echo', 600, (9.0,), 90, 220)
    return Sequence('spin echo', 4000, (100.0,), 90, 220)


def fat_share(mfi: float, field_strength_t: float = 3.0) -> float:
    """Fat share of muscle that a Dixon scan measures as a given MFI.

    T1 weighting makes fat brighter than muscle water, so that MFI exceeds the fat share.

    Examples
    --------
    >>> 0 < fat_share(0.2) < 0.2
    True
    """
    water, fat = muscle_signals(field_strength_t)
    return mfi * water / (mfi * water + (1 - mfi) * fat)


def muscle_signals(field_strength_t: float) -> tuple[float, float]:
    """Dixon signal of pure muscle water and of pure fat."""
    tissues = load_tissues(field_strength_t)
    sequence = sequence_for('dixon', field_strength_t)
    muscle, fat = tissues['muscle'], tissues['fat']
    return (
        muscle.proton_density * sequence.signal(muscle),
        fat.proton_density * sequence.signal(fat),
    )


def fat_phasor(echo_time_ms: float, field_strength_t: float) -> complex:
    """Sum of the six fat peaks at an echo time, relative to their sum at time zero."""
    shift_hz = FAT_PEAKS[:, 0] * GAMMA_MHZ_PER_T * field_strength_t
    phase = np.exp(2j * math.pi * shift_hz * echo_time_ms / 1000)
    return complex(FAT_PEAKS[:, 1] @ phase / FAT_PEAKS[:, 1].sum())
