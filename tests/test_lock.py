"""What the images are built from is what setup.py asks for."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('extra', ['', 'loading'])
def test_the_lock_holds_every_requirement_with_its_hash(extra: str) -> None:
    locks = ['requirements.lock', *([f'requirements-{extra}.lock'] if extra else [])]
    pinned = {}
    for line in (line for lock in locks for line in (ROOT / lock).read_text().splitlines()):
        if not line.startswith('#'):
            match = re.fullmatch(r'([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}', line)
            assert match, line
            assert canonicalize_name(match[1]) not in pinned, line
            pinned[canonicalize_name(match[1])] = match[2]
    wanted = [Requirement(text) for text in metadata.requires('bids_muscle') or []]
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        needed = not requirement.marker or requirement.marker.evaluate({'extra': extra})
        if name != 'torch' and needed:
            assert name in pinned, f'{name}: run .ci/lock'
            assert requirement.specifier.contains(pinned[name]), f'{name}: run .ci/lock'


def test_the_recipes_take_the_same_extras() -> None:
    for recipe in ('Dockerfile', 'singularity.def'):
        text = (ROOT / recipe).read_text()
        assert '${EXTRAS:+-r /src/requirements-${EXTRAS}.lock}' in text
        assert 'EXTRAS=loading' in text


def test_the_recipes_name_the_version_of_the_package() -> None:
    from bids_muscle import __version__

    for recipe in ('Dockerfile', 'singularity.def'):
        assert re.search(rf'version\W+{re.escape(__version__)}\b', (ROOT / recipe).read_text())


def test_the_recipes_start_from_one_image_pinned_by_its_digest() -> None:
    bases = {
        re.search(r'(?:ARG BASE=|From: )(\S+)', (ROOT / recipe).read_text())[1]  # type: ignore[index]
        for recipe in ('Dockerfile', 'singularity.def')
    }
    assert len(bases) == 1
    assert re.fullmatch(r'python:[\w.-]+@sha256:[0-9a-f]{64}', bases.pop())
