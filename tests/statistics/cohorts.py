"""Cohorts with planted effects, as wide values and as the table of the group level."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.person import draw_person

MEASURE = 'mfi_ratio_of_means_pct'


def group_table(
    n: int = 84, *, region: str = 'cervical', sessions: int = 1, seed: int = 1
) -> pd.DataFrame:
    """Return ``group_muscles`` of a cohort with the effects of Weber 2021, values as text."""
    effects = load_effects()
    rows = []
    for index in range(1, n + 1):
        person = draw_person(
            seed,
            index,
            age_years=(34.2, 10.7),
            female_share=61 / 84,
            bmi=(26.0, 4.5),
            sites=('main',),
        )
        for session in range(sessions):
            planted = effects.planted_mfi(person, region, seed, session)
            rows += [
                {
                    'participant_id': f'sub-{person.label}',
                    'session_id': f'ses-{session + 1}' if sessions > 1 else 'n/a',
                    'scan': f'sub-{person.label}_acq-dixon',
                    'region': region,
                    'contrast': 'fat+water',
                    'index': str(label.index),
                    'name': label.name,
                    'muscle': label.muscle,
                    'side': label.side,
                    MEASURE: repr(planted[label.index]),
                    'reason': 'n/a',
                    'age': str(person.age_years),
                    'sex': person.sex,
                    'bmi': str(person.bmi),
                }
                for label in load_label_table(region)
            ]
    return pd.DataFrame(rows, dtype=object)


def people(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """Return sex, age and BMI of a random cohort."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            'sex': np.where(rng.random(n) < 0.6, 'F', 'M'),
            'age': rng.normal(40, 12, n),
            'bmi': rng.normal(26, 4, n),
        },
        index=[f'sub-{i:03d}' for i in range(n)],
    )


def values(who: pd.DataFrame, k: int = 4, seed: int = 0) -> pd.DataFrame:
    """Return correlated values of k muscles with effects of sex and age."""
    rng = np.random.default_rng(seed)
    n = len(who)
    data = rng.normal(size=(n, 1)) * 2 + rng.normal(size=(n, k)) * np.linspace(1, 2, k)
    data += 10 + np.arange(k) + 1.5 * (who['sex'] == 'F').to_numpy()[:, None]
    data += 0.05 * who['age'].to_numpy()[:, None] * np.linspace(0, 1, k)
    return pd.DataFrame(data, index=who.index, columns=[f'muscle {i}' for i in range(k)])
