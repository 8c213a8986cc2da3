"""The people of the cohort: who they are and how their body differs from the atlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Mean and standard deviation of adult height in cm (NCD-RisC 2016, high-income countries).
HEIGHT_CM = {'M': (177.0, 7.0), 'F': (164.0, 6.5)}


@dataclass(frozen=True)
class Person:
    """One participant.

    Parameters
    ----------
    sex
        ``'F'`` or ``'M'``.
    shape_seed
        Seed of everything that makes this person's anatomy differ from the atlas.
    """

    label: str
    age_years: float
    sex: str
    height_cm: float
    bmi: float
    site: str
    shape_seed: int

    @property
    def weight_kg(self) -> float:
        """Body weight that gives the body mass index at this height."""
        return round(self.bmi * (self.height_cm / 100) ** 2, 1)

    @property
    def size(self) -> float:
        """Body length relative to the atlas, drawn for a person of 170 cm."""
        return self.height_cm / 170


def generator(*key: int | str) -> np.random.Generator:
    """Return a random generator that depends only on its key, in any process and order.

    Examples
    --------
    >>> float(generator(1, 'noise').random()) == float(generator(1, 'noise').random())
    True
    >>> float(generator(1, 'noise').random()) == float(generator(1, 'shape').random())
    False
    """
    numbers: list[int] = []
    for part in key:
        numbers.extend(part.encode() if isinstance(part, str) else [part])
        numbers.append(len(numbers) + 2**20)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def draw_person(
    seed: int,
    index: int,
    *,
    age_years: tuple[float, float],
    female_share: float,
    bmi: tuple[float, float],
    sites: tuple[str, ...],
    digits: int = 2,
) -> Person:
    """Draw one participant.

    Parameters
    ----------
    seed
        Seed of the cohort.
    index
        Number of the participant, from 1.
    age_years
        Mean and standard deviation; clipped to 18 to 85.
    female_share
        Probability of a woman.
    bmi
        Mean and standard deviation in kg/m2; clipped to 17 to 45.
    sites
        Names of the sites; participants are dealt to them in turn.
    digits
        Digits of the participant label.
    """
    rng = generator(seed, index, 'person')
    sex = 'F' if rng.random() < female_share else 'M'
    mean_cm, sd_cm = HEIGHT_CM[sex]
    return Person(
        label=f'{index:0{digits}d}',
        age_years=round(float(np.clip(rng.normal(*age_years), 18, 85)), 1),
        sex=sex,
        height_cm=round(float(np.clip(rng.normal(mean_cm, sd_cm), 145, 205)), 1),
        bmi=round(float(np.clip(rng.normal(*bmi), 17, 45)), 1),
        site=sites[(index - 1) % len(sites)],
        shape_seed=int(rng.integers(2**31)),
    )
