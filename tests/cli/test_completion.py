"""The scripts that make completion writes, in a real bash; and what the package says of itself."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import shtab
import yaml

from bids_muscle import __version__

ROOT = Path(__file__).parents[2]
#: Module by command, as they are installed.
COMMANDS = {
    name: f'bids_muscle.cli.{module.replace("main", "parser")}'
    for name, module in re.findall(
        r"'(bids_muscle\S*) = bids_muscle\.cli\.start:(\w+)'", (ROOT / 'setup.py').read_text()
    )
}


def complete(command: str, *words: str, folder: Path) -> list[str]:
    """Return what bash offers for the last word."""
    module = import_module(COMMANDS[command])
    parser = getattr(module, 'make_parser', None) or module.build_parser
    script = shtab.complete(parser(), shell='bash')  # noqa: S604 - a name, not a process
    given = ' '.join(f"'{word}'" for word in (command, *words))
    name = f'_shtab_{command.replace("-", "_")}'
    script += f'\nCOMP_WORDS=({given}); COMP_CWORD={len(words)}; {name}'
    script += '\nprintf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ['bash', '-c', script], capture_output=True, text=True, cwd=folder, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize('command', COMMANDS)
def test_options_of_every_command_complete(command: str, tmp_path: Path) -> None:
    assert '--version' in complete(command, '--vers', folder=tmp_path)


def test_paths_complete(tmp_path: Path) -> None:
    (tmp_path / 'dataset').mkdir()
    assert 'dataset' in ''.join(complete('bids_muscle', 'data', folder=tmp_path))


def test_make_completion_leaves_no_command_out() -> None:
    (names,) = re.findall(r'for name in (.*); do', (ROOT / 'Makefile').read_text())
    assert {f'bids_muscle-{name}' for name in names.split()} | {'bids_muscle'} == set(COMMANDS)


def test_the_citation_is_of_this_version() -> None:
    content = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert content['version'] == __version__
