"""The recipe for conda-forge says what setup.py says."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from bids_muscle import __version__

ROOT = Path(__file__).parents[1]
#: Name on PyPI of what conda-forge calls otherwise.
ON_PYPI = {'pytorch': 'torch', 'matplotlib-base': 'matplotlib', 'python-isal': 'isal'}


@pytest.fixture(scope='module')
def recipe() -> dict[str, Any]:
    text = (ROOT / 'packaging/conda/recipe.yaml').read_text(encoding='utf-8')
    return yaml.safe_load(text)


def test_it_is_of_this_version_and_this_python(recipe: dict[str, Any]) -> None:
    assert recipe['context']['version'] == __version__
    wanted = metadata.metadata('bids_muscle')
    assert f'>={recipe["context"]["python_min"]}' == wanted['Requires-Python']
    assert recipe['about']['summary'] == wanted['Summary']


def test_it_asks_for_the_same_packages(recipe: dict[str, Any]) -> None:
    found = {}
    for line in recipe['requirements']['run']:
        name, _, versions = line.partition(' ')
        if name not in ('python', '__linux'):
            found[canonicalize_name(ON_PYPI.get(name, name))] = SpecifierSet(versions)
    every = map(Requirement, metadata.requires('bids_muscle') or [])
    assert found == {
        canonicalize_name(each.name): each.specifier for each in every if not each.marker
    }


def test_it_installs_the_same_commands(recipe: dict[str, Any]) -> None:
    scripts = metadata.distribution('bids_muscle').entry_points.select(group='console_scripts')
    lines = [f'{script.name} = {script.value}' for script in scripts]
    assert sorted(recipe['build']['python']['entry_points']) == sorted(lines)
