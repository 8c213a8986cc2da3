"""From the command line to the settings; the options are those of the fields of Settings."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn

from bids_muscle import __version__
from bids_muscle.config import build_settings, read_config
from bids_muscle.errors import UsageError
from bids_muscle.settings import OPTIONS, TABLES, Settings, only_at, value_type

_PREFIXES = {'k': 1, 'm': 2, 'g': 3, 't': 4}
_BYTES = {
    **{prefix: 1000**power for prefix, power in _PREFIXES.items()},
    **{f'{prefix}b': 1000**power for prefix, power in _PREFIXES.items()},
    **{f'{prefix}ib': 1024**power for prefix, power in _PREFIXES.items()},
}

_DESCRIPTION = (
    'Muscle fat infiltration, volume and cross-sectional area from MRI of the neck and the '
    'lumbar spine, as a BIDS App.'
)
_EPILOG = """
Options may be written with _ instead of -. The command line takes precedence over --config-file.

exit codes: 0 all done; 1 something failed; 16 not a BIDS dataset; 17 unknown analysis level;
18 nothing selected; 64 wrong usage; 65 unusable data; 66 input missing or unreadable;
73 output cannot be created; 74 input/output error; 75 temporary failure, run again.
"""
_TITLES = (
    'What is computed',
    'How it is measured',
    'How the cohort is analysed (group level)',
    'How it is run',
)
_FIELDS = {each.name: each for each in fields(Settings)}

#: How shells complete a path.
_PATHS = {'bash': '_shtab_compgen_files', 'zsh': '_files', 'tcsh': 'f'}


class _Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and exit with 2."""

    def error(self, message: str) -> NoReturn:
        remedy = f'See {self.prog} --help.'
        if 'arguments are required' in message:
            remedy = (
                'Give <bids_dir> <output_dir> participant|group first, then the options, because '
                'options with several values take all words that follow.'
            )
        if match := re.search(r'unrecognized arguments: (--?[\w-]+)', message):
            close = difflib.get_close_matches(match[1], self._option_string_actions, n=1)
            remedy = f'Did you mean {close[0]}?' if close else remedy
        raise UsageError(f'{message[0].upper()}{message[1:].rstrip(".")}.', remedy)


def memory_gb(text: str) -> float:
    """Return an amount of memory in GB (10^9 bytes).

    A number without a unit is refused, since it means MB to some BIDS Apps and GB to others.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no number or no unit.

    Examples
    --------
    >>> memory_gb('8G'), memory_gb('8000 MB'), memory_gb('1GiB')
    (8.0, 8.0, 1.073741824)
    """
    match = re.fullmatch(r'([0-9]*\.?[0-9]+) *([a-z]+)', text.strip().lower())
    if not match or match[2] not in _BYTES:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not an amount of memory with a unit, such as 8G or 8000M"
        )
    return float(match[1]) * _BYTES[match[2]] / 1e9


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the destinations are the fields of Settings, None where not given."""
    parser = _Parser(
        prog='bids_muscle',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {
        table: parser.add_argument_group(title)
        for table, title in zip(TABLES, _TITLES, strict=True)
    }
    for name, option in OPTIONS.items():
        if _FIELDS[name].default is MISSING:
            parser.add_argument(name, **_action(name))
        else:
            flags = option.flags or (f'--{name.replace("_", "-")}',)
            groups[option.table].add_argument(*flags, dest=name, **_action(name))
    groups['execution'].add_argument(
        '--config-file',
        type=Path,
        metavar='FILE',
        help='Settings file in TOML. Each run writes one into its logs.',
    )
    groups['execution'].add_argument(
        '--notrack',
        action='store_true',
        default=argparse.SUPPRESS,
        help='Accepted for compatibility with other BIDS Apps. bids_muscle never sends data '
        'anywhere.',
    )
    groups['execution'].add_argument(
        '--version',
        action='version',
        version=f'bids_muscle {__version__}',
        help='Print the version.',
    )
    groups['execution'].add_argument('-h', '--help', action='help', help='Print this help.')
    for action in parser._actions:
        if action.type is Path:
            action.complete = _PATHS  # type: ignore[attr-defined]  # shtab reads it
    return parser


def parse(argv: Sequence[str], *, both_levels: bool = False) -> Settings:
    """Return the settings from the words of the command line and the settings file they name.

    Parameters
    ----------
    argv
        Words after the command.
    both_levels
        Allow options of the other level; in a settings file they always are.

    Raises
    ------
    UsageError
        If the command line or the settings file cannot be understood.
    MissingInputError
        If the settings file cannot be read.
    SystemExit
        After ``--help`` and ``--version``.
    """
    parser = make_parser()
    flags = vars(parser.parse_args([_with_dashes(word) for word in argv]))
    if not both_levels:
        _check_level(parser, flags)
    config_file = flags.pop('config_file')
    flags.pop('notrack', None)
    return build_settings(flags, read_config(config_file) if config_file else None)


def _check_level(parser: argparse.ArgumentParser, flags: Mapping[str, Any]) -> None:
    """Raise UsageError where an option has no effect at the level that is to run."""
    level = flags['level']
    other_level = {'participant': 'group', 'group': 'participant'}.get(level, '')
    foreign = [
        action.option_strings[-1]
        for action in parser._actions
        if flags.get(action.dest) is not None and action.dest in only_at(other_level)
    ]
    if foreign:
        names = ', '.join(foreign)
        raise UsageError(
            f'At the {level} level {names} would have no effect.', f'Use it with {other_level}.'
        )


def describe_option(name: str, *, more: bool = False) -> str:
    """Return what a setting means and its default, in Markdown.

    Parameters
    ----------
    name
        Field of :class:`Settings`.
    more
        With what only docs/usage.md says.

    Examples
    --------
    >>> describe_option('register')
    'How a scan is aligned with its atlas. Default: affine.'
    """
    option = OPTIONS[name]
    default = _FIELDS[name].default
    unset = option.unset or (default if isinstance(default, str) else '')
    sentences = (
        option.text,
        f'Default: {unset}.' if unset else '',
        option.more if more else '',
    )
    return ' '.join(filter(None, sentences))


def _action(name: str) -> dict[str, Any]:
    """Return how argparse reads a setting; None, its default, leaves it to the settings file."""
    option = OPTIONS[name]
    described: dict[str, Any] = {'help': describe_option(name).replace('`', '').replace('%', '%%')}
    if metavar := '|'.join(option.choices) or option.metavar:
        described['metavar'] = metavar
    kind, several = value_type(name)
    if several:
        described |= {'nargs': '+', 'action': 'extend'}
    if name == 'verbosity':
        described['action'] = 'count'
    elif name == 'memory_gb':
        described['type'] = memory_gb
    elif kind is bool:
        described |= {'action': 'store_const', 'const': not _FIELDS[name].default}
    elif kind in (int, float, Path):
        described['type'] = kind
    return described


def _with_dashes(word: str) -> str:
    """Return an option with dashes where BIDS Apps in the wild have underscores."""
    if not word.startswith('--'):
        return word
    option, equals, value = word.partition('=')
    return option.replace('_', '-') + equals + value
