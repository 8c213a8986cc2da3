"""docs/phantom.md names what there is, and its pictures exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bids_muscle.cli.phantom import build_parser
from bids_muscle.phantom.artefacts import ARTEFACTS
from bids_muscle.phantom.protocol import CONTRASTS

DOCS = Path(__file__).parents[2] / 'docs'


@pytest.fixture(scope='module')
def page() -> str:
    return (DOCS / 'phantom.md').read_text(encoding='utf-8')


def test_contrasts_and_artefacts(page: str) -> None:
    assert all(f'`{name}`' in page for name in CONTRASTS)
    for name, share in ARTEFACTS.items():
        assert f'| `{name}` | {share:g} |' in page


def test_commands_parse(page: str) -> None:
    commands = re.findall(r'^bids_muscle-phantom (.*)$', page.replace('\\\n', ''), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        build_parser().parse_args(command.split())


def test_links(page: str) -> None:
    targets = re.findall(r'\]\(([^)]+)\)', page)
    assert len(targets) >= 6
    assert all((DOCS / target).is_file() for target in targets)


def test_the_page_on_dicom_names_every_recipe() -> None:
    page = (DOCS / 'from-dicom.md').read_text(encoding='utf-8')
    targets = {target for target in re.findall(r'\]\(([^)]+)\)', page) if ':' not in target}
    assert all((DOCS / target).exists() for target in targets)
    recipes = {f'dicom/{path.name}' for path in (DOCS / 'dicom').iterdir() if path.is_file()}
    assert recipes <= targets
