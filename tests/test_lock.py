"""What the images are built from is what setup.py asks for."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_the_lock_holds_every_requirement_with_its_hash() -> None:
    lines = (ROOT / 'requirements.lock').read_text().splitlines()
    pinned = {}
    for line in lines:
        if not line.startswith('#'):
            match = re.fullmatch(r'([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}', line)
            assert match, line
            pinned[canonicalize_name(match[1])] = match[2]
    wanted = [Requirement(text) for text in metadata.requires('bids_muscle') or []]
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name != 'torch' and (not requirement.marker or requirement.marker.evaluate()):
            assert name in pinned, f'{name}: run .ci/lock'
            assert requirement.specifier.contains(pinned[name]), f'{name}: run .ci/lock'


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
