"""Tissues and the signal they give: published relaxation times and closed signal equations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from bids_muscle.errors import UsageError
from bids_muscle.tables import parse_rows

#: Field strengths with relaxation times in the tissue table, in tesla.
FIELD_STRENGTHS_T = (1.5, 3.0)


@dataclass(frozen=True)
class Tissue:
    """One row of the tissue table at one field strength.

    Parameters
    ----------
    proton_density
        MR-visible protons relative to free water.
    fat_fraction
        Share of these protons that is fat, 0 to 1.
    texture
        Random variation from place to place, as a share of the value, 0 to 1.
    t1_ms, t2_ms, t2star_ms
        Relaxation times of the water part.
    """

    name: str
    proton_density: float
    fat_fraction: float
    texture: float
    t1_ms: float
    t2_ms: float
    t2star_ms: float
    source: str


@lru_cache(maxsize=2)
def load_tissues(field_strength_t: float) -> dict[str, Tissue]:
    """Read the tissue table at a field strength.

    T2* at 1.5 T is twice that at 3 T, as far as T2 allows: susceptibility dephasing is
    proportional to the field.

    Raises
    ------
    UsageError
        If the field strength is not in the table.

    Examples
    --------
    >>> load_tissues(3.0)['muscle'].t1_ms
    1420.0
    """
    if field_strength_t not in FIELD_STRENGTHS_T:
        raise UsageError(
            f'The tissue table has no field strength {field_strength_t:g} T.', 'Use 1.5 or 3.'
        )
    tag = f'{field_strength_t:g}'
    text = (resources.files('bids_muscle') / 'data/phantom/tissues.tsv').read_text('utf-8')
    tissues = {}
    for row in parse_rows(text.splitlines()):
        t2_ms = float(row[f't2_{tag}t_ms'])
        t2star_ms = float(row['t2star_3t_ms']) * (2 if tag == '1.5' else 1)
        tissues[row['tissue']] = Tissue(
            row['tissue'],
            float(row['proton_density']),
            float(row['fat_pct']) / 100,
            float(row['texture_pct']) / 100,
            float(row[f't1_{tag}t_ms']),
            t2_ms,
            min(t2star_ms, t2_ms),
            row['source'],
        )
    return tissues


def spoiled_gradient_echo(
    tissue: Tissue, *, repetition_time_ms: float, flip_angle_deg: float
) -> float:
    """Steady-state signal of a spoiled gradient echo at echo time zero, per proton.

    The Ernst equation (Haacke 1999, eq. 18.14).

    Examples
    --------
    >>> muscle, fat = (load_tissues(3.0)[name] for name in ('muscle', 'fat'))
    >>> settings = {'repetition_time_ms': 7.05, 'flip_angle_deg': 12}
    >>> spoiled_gradient_echo(fat, **settings) > 2 * spoiled_gradient_echo(muscle, **settings)
    True
    """
    e1 = math.exp(-repetition_time_ms / tissue.t1_ms)
    angle = math.radians(flip_angle_deg)
    return math.sin(angle) * (1 - e1) / (1 - math.cos(angle) * e1)


def spin_echo(tissue: Tissue, *, repetition_time_ms: float, echo_time_ms: float) -> float:
    """Signal of a spin echo, per proton: (1 - exp(-TR/T1)) exp(-TE/T2)."""
    recovery = 1 - math.exp(-repetition_time_ms / tissue.t1_ms)
    return recovery * math.exp(-echo_time_ms / tissue.t2_ms)
