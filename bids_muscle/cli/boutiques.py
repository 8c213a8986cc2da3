"""Descriptions of bids_muscle for other schedulers, generated from its own command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bids_muscle import __version__
from bids_muscle.cli.parser import make_parser
from bids_muscle.dataset.names import io_spec
from bids_muscle.settings import OPTIONS

_TYPES = {Path: 'File', int: 'Number'}


def boutiques_descriptor() -> dict[str, Any]:
    """Return the Boutiques descriptor (schema 0.5) of the command ``bids_muscle``."""
    parser = make_parser()
    actions = [each for each in parser._actions if each.dest not in ('help', 'version')]
    inputs = [_input(action) for action in actions]
    return {
        'name': 'bids_muscle',
        'description': parser.description,
        'tool-version': __version__,
        'schema-version': '0.5',
        'command-line': ' '.join(['bids_muscle', *(each['value-key'] for each in inputs)]),
        'inputs': inputs,
        'output-files': [
            {
                'id': 'output',
                'name': 'Output folder',
                'description': 'The derivatives dataset.',
                'path-template': '[OUTPUT_DIR]',
            }
        ],
        'error-codes': [
            {'code': code, 'description': text}
            for code, text in ((1, 'Something failed.'), (75, 'Temporary failure, run again.'))
        ],
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    """Describe one argument or option."""
    described: dict[str, Any] = {
        'id': action.dest,
        'name': action.dest.replace('_', ' '),
        'description': action.help or '',
        'type': _TYPES.get(action.type, 'String'),  # type: ignore[call-overload]
        'value-key': f'[{action.dest.upper()}]',
        'optional': bool(action.option_strings),
    }
    if described['type'] == 'Number':
        described['integer'] = True
    option = OPTIONS.get(action.dest)
    if option and option.choices:
        described['value-choices'] = list(option.choices)
    if action.dest == 'output_dir':
        described['type'] = 'String'  # it need not be there
    if action.option_strings:
        described['command-line-flag'] = max(action.option_strings, key=len)
        if action.nargs == '+':
            described |= {'list': True, 'list-separator': ' '}
        elif action.nargs == 0:
            described['type'] = 'Flag'
    return described


def tracker() -> dict[str, Any]:
    """Return the nipoppy tracker configuration: the files of a finished session, as patterns."""
    sub, ses = '[[NIPOPPY_BIDS_PARTICIPANT_ID]]', '[[NIPOPPY_BIDS_SESSION_ID]]'
    names = ('dseg', 'dseg_json', 'dseg_tsv', 'morph', 'morph_json')
    fields = {'anat': f'{sub}/{ses}/anat', 'scan': f'{sub}_{ses}*', 'seg': '*'}
    paths = [io_spec()['scan'][name].format(**fields) for name in names]
    return {'PATHS': [*paths, f'logs/{sub}/{sub}_{ses}*.json', f'{sub}.html']}
