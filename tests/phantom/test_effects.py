"""The cohort model: published effects come back, and a wrong file is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bids_muscle.errors import MissingInputError, UsageError
from bids_muscle.phantom.effects import load_effects
from bids_muscle.phantom.person import Person, draw_person


def draw(count: int, sites: tuple[str, ...] = ('main',)) -> list[Person]:
    return [
        draw_person(
            5, k, age_years=(45, 14), female_share=0.5, bmi=(26, 4.5), sites=sites, digits=3
        )
        for k in range(1, count + 1)
    ]


def test_regression_on_a_cohort_finds_the_effects() -> None:
    effects = load_effects()
    people = draw(1500)
    wanted = effects.mfi['lumbar']['multifidus']
    mfi = np.array(
        [
            np.mean([effects.planted_mfi(person, 'lumbar', 0, 0)[index] for index in (1, 2)])
            for person in people
        ]
    )
    design = np.array(
        [
            (1, (p.sex == 'F') - 0.5, (p.age_years - 45) / 10, p.bmi - effects.cohort['bmi_mean'])
            for p in people
        ]
    )
    found, residual, *_ = np.linalg.lstsq(design, mfi, rcond=None)
    names = ('mean', 'female', 'per_decade', 'per_bmi')
    for name, value, margin in zip(names, found, (0.5, 0.9, 0.4, 0.12), strict=True):
        assert value == pytest.approx(wanted[name], abs=margin), name
    assert np.sqrt(residual[0] / 1496) == pytest.approx(wanted['sd'], rel=0.1)


def test_deep_neck_muscles_hold_more_fat_than_superficial_ones() -> None:
    """Weber 2021, Figure 5."""
    mean = {name: effect['mean'] for name, effect in load_effects().mfi['cervical'].items()}
    deep = [
        'multifidus and semispinalis cervicis',
        'longus colli and capitis',
        'semispinalis capitis',
    ]
    assert min(mean[name] for name in deep) > max(mean[name] for name in mean if name not in deep)


def test_sessions_and_sites(tmp_path: Path) -> None:
    path = tmp_path / 'effects.toml'
    path.write_text(
        '[change_per_session]\nmean = 2.0\nsd = 0.0\n[sites]\nalpha = 0.0\nbeta = 3.0\n'
    )
    effects = load_effects(path)
    person = draw(1, sites=('alpha',))[0]
    first, second = (effects.planted_mfi(person, 'lumbar', 0, session) for session in (0, 1))
    moved = effects.planted_mfi(replace(person, site='beta'), 'lumbar', 0, 0)
    for index, value in first.items():
        assert second[index] == pytest.approx(value + 2)
        assert moved[index] == pytest.approx(value + 3)
    assert [p.site for p in draw(3, sites=tuple(effects.sites))] == ['alpha', 'beta', 'alpha']


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('[mfi.lumbar.psoas]\nmean = 3', 'mfi.lumbar.psoas'),
        ('[cohort]\nage_mean = 3', 'cohort.age_mean'),
        ('[cohort]\nage_mean_years = "old"', 'not a number'),
        ('[cohort]\nage_mean_years = true', 'not a number'),
        ('cohort = 3', 'not a table'),
        ('[cohort]\nfemale_share = 1.5', 'female_share'),
        ('[between_people]\nshared_sd_share = -1', 'shared_sd_share'),
        ('[cohort]\nbmi_sd = -1', 'bmi_sd'),
        ('[cohort]\nbmi_sd = nan', 'bmi_sd'),
        ('[sites]\n', 'site'),
        ('[cohort', 'TOML'),
    ],
)
def test_wrong_effects_file(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / 'own.toml'
    path.write_text(text)
    with pytest.raises(UsageError, match=problem) as caught:
        load_effects(path)
    assert 'own.toml' in str(caught.value)


def test_missing_effects_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r'none\.toml'):
        load_effects(tmp_path / 'none.toml')
