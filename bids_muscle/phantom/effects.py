"""The cohort model: how muscle fat and size depend on age, sex, BMI, time and site."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.errors import PARSE_ERRORS, MissingInputError, UsageError
from bids_muscle.files import read_small
from bids_muscle.phantom.person import Person, generator

#: Effects are far below; this is neither infinite nor more than a float can be.
_MOST = 1e9


@dataclass(frozen=True)
class Effects:
    """Effect sizes of a cohort, as read from TOML.

    Parameters
    ----------
    cohort
        Age, sex and BMI of the participants.
    mfi
        Region -> muscle -> effect sizes in percentage points of MFI.
    shared_sd_share
        Share of the variance between people that all muscles of a person have in common.
    side_sd
        Standard deviation of half the left-right difference, percentage points.
    change_per_session
        Added at every session after the first, percentage points: mean and standard deviation
        between people.
    sites
        Site -> added MFI in percentage points.
    """

    cohort: Mapping[str, float]
    mfi: Mapping[str, Mapping[str, Mapping[str, float]]]
    shared_sd_share: float
    side_sd: float
    change_per_session: Mapping[str, float]
    sites: Mapping[str, float]
    source: str

    def planted_mfi(
        self, person: Person, region: str, seed: int, session: int
    ) -> dict[int, float]:
        """Return the MFI in percent planted in every muscle.

        Parameters
        ----------
        session
            Number of the session, from 0.

        Returns
        -------
        MFI by number in the label map, between 2 and 90.
        """
        rng = generator(seed, person.shape_seed, region, 'mfi')
        change = self.change_per_session
        slope = rng.normal(change['mean'], change['sd'])
        common = rng.normal()
        drawn: dict[str, float] = {}
        planted = {}
        for label in load_label_table(region):
            effect = self.mfi[region][label.muscle]
            if label.muscle not in drawn:
                share = self.shared_sd_share
                drawn[label.muscle] = common * share**0.5 + rng.normal() * (1 - share) ** 0.5
            side = rng.normal(0, self.side_sd)
            value = (
                effect['mean']
                # `mean` is that of a cohort with as many women as men.
                + effect['female'] * (0.5 if person.sex == 'F' else -0.5)
                + effect['per_decade'] * (person.age_years - self.cohort['age_mean_years']) / 10
                + effect['per_bmi'] * (person.bmi - self.cohort['bmi_mean'])
                + effect['sd'] * drawn[label.muscle]
                + side
                + slope * session
                + self.sites[person.site]
            )
            planted[label.index] = float(np.clip(value, 2.0, 90.0))
        return planted


def load_effects(path: Path | None = None) -> Effects:
    """Read effect sizes; keys that the file does not set keep their defaults.

    Parameters
    ----------
    path
        TOML file of the user, or None for the defaults of the package.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If it is not TOML, has a key that does not exist, or a value that is not a number.
    """
    text = (resources.files('bids_muscle') / 'data/phantom/effects.toml').read_text('utf-8')
    defaults = tomllib.loads(text)
    source = 'bids_muscle default (Weber 2021)'
    if path is not None:
        try:
            own = tomllib.loads(read_small(path).decode())
        except OSError as error:
            raise MissingInputError(
                f'The effects file {path} cannot be read ({error.strerror}).', 'Check the path.'
            ) from error
        except PARSE_ERRORS as error:
            raise UsageError(
                f'The effects file {path} is not valid TOML: {error}.', 'Correct that line.'
            ) from error
        if 'sites' in own:
            defaults['sites'] = dict.fromkeys(_table(own['sites'], f'{path}: sites'), 0.0)
        _merge(defaults, own, path, ())
        source = path.name
        _check_values(defaults, path)
    return Effects(
        cohort=defaults['cohort'],
        mfi=defaults['mfi'],
        shared_sd_share=defaults['between_people']['shared_sd_share'],
        side_sd=defaults['between_people']['side_sd'],
        change_per_session=defaults['change_per_session'],
        sites=defaults['sites'],
        source=source,
    )


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f'{where} is not a table.', 'See docs/phantom.md for the keys.')
    return value


def _merge(defaults: dict[str, Any], own: dict[str, Any], path: Path, at: tuple[str, ...]) -> None:
    for key, value in own.items():
        where = '.'.join((*at, key))
        if key not in defaults:
            raise UsageError(
                f'The effects file {path} has the unknown key {where!r}.',
                f'Known here: {", ".join(defaults)}.',
            )
        if isinstance(defaults[key], dict):
            _merge(defaults[key], _table(value, f'{path}: {where}'), path, (*at, key))
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(
                f'The effects file {path} has a value for {where!r} that is not a number.',
                'Write a number.',
            )
        else:
            defaults[key] = value


def _check_values(values: dict[str, Any], path: Path) -> None:
    """Refuse shares outside 0 to 1, negative spreads and a cohort without a site."""
    if not values['sites']:
        raise UsageError(f'The effects file {path} has no site.', 'Name at least one in [sites].')
    for table, key, value in _leaves(values):
        bad = not abs(value) < _MOST
        bad |= key.endswith('share') and not 0 <= value <= 1
        bad |= key in ('sd', 'side_sd', 'age_sd_years', 'bmi_sd') and value < 0
        if bad:
            raise UsageError(
                f'The effects file {path} has the impossible value {value} for {table}.{key}.',
                'Shares lie between 0 and 1; standard deviations are not negative.',
            )


def _leaves(values: dict[str, Any], at: str = '') -> Iterator[tuple[str, str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f'{at}.{key}'.lstrip('.'))
        else:
            yield at, key, value
