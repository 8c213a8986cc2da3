"""Writes the tables of options in usage.md from the command line: ``python docs/options.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from bids_muscle.cli.parser import describe_option, make_parser
from bids_muscle.settings import OPTIONS

PAGE = Path(__file__).with_name('usage.md')
#: The headings around the tables.
BEGIN, END = '## Options\n', '\n## Settings file\n'


def page() -> str:
    """Return usage.md with the options of the command line as it is now."""
    before, rest = PAGE.read_text(encoding='utf-8').split(BEGIN)
    _, after = rest.split(END)
    groups = [group for group in make_parser()._action_groups if group._group_actions]
    tables = (
        f'\n| {group.title} | |\n|---|---|\n' + ''.join(map(_row, group._group_actions))
        for group in groups
        if all(action.option_strings for action in group._group_actions)
    )
    return before + BEGIN + ''.join(tables) + END + after


def _row(action: argparse.Action) -> str:
    value = f' {action.metavar}' if action.metavar else ''
    several = ' ...' if action.nargs == '+' else ''
    spellings = ', '.join(f'{flag}{value}{several}' for flag in action.option_strings)
    text = describe_option(action.dest, more=True) if action.dest in OPTIONS else action.help
    cells = ('`' + spellings.replace(', ', '`, `') + '`', text)
    return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |\n'


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
