"""What other schedulers are told is what the command line takes and the runs write."""

from __future__ import annotations

import fnmatch
import json
import shlex

import pytest

from bids_muscle.cli.boutiques import boutiques_descriptor, tracker
from bids_muscle.cli.parser import make_parser, parse
from bids_muscle.cli.slurm import main
from bids_muscle.dataset.names import expected_outputs
from bids_muscle.dataset.scan import Scan


def test_a_command_line_made_from_the_descriptor_is_understood() -> None:
    descriptor = boutiques_descriptor()
    values = {
        'bids_dir': '/data',
        'output_dir': '/out dir',
        'level': 'participant',
        'participants': ['01', '02'],
        'nprocs': 3,
        'memory_gb': '8G',
        'overwrite': True,
        'notrack': True,
    }
    command = descriptor['command-line']
    for each in descriptor['inputs']:
        value = values.get(each['id'])
        flag = each.get('command-line-flag', '')
        words = [flag] if value is not None else []
        if value is not None and each['type'] != 'Flag':
            words += [shlex.quote(str(v)) for v in (value if each.get('list') else [value])]
        assert value is not None or each['optional']
        command = command.replace(each['value-key'], ' '.join(words))
    assert '[' not in command
    settings = parse(shlex.split(command)[1:])
    assert str(settings.output_dir) == '/out dir'
    assert (settings.participants, settings.nprocs) == (('01', '02'), 3)
    assert (settings.memory_gb, settings.overwrite) == (8.0, True)


def test_every_option_is_described_once() -> None:
    inputs = boutiques_descriptor()['inputs']
    described = {each['id'] for each in inputs}
    assert len(described) == len(inputs)
    assert described == {each.dest for each in make_parser()._actions} - {'help', 'version'}
    assert all(each['description'] for each in inputs)


def test_the_tracker_finds_the_files_of_a_session() -> None:
    scan = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'dixon')), 'T1w', 'lumbar', ())
    written = [str(path) for path in expected_outputs(scan)] + ['sub-01.html']
    for pattern in tracker()['PATHS']:
        for name, label in (('PARTICIPANT_ID', 'sub-01'), ('SESSION_ID', 'ses-a')):
            pattern = pattern.replace(f'[[NIPOPPY_BIDS_{name}]]', label)
        assert fnmatch.filter(written, pattern), pattern


@pytest.mark.parametrize('what', ['boutiques', 'tracker'])
def test_both_are_printed_as_json(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([what]) == 0
    assert json.loads(capsys.readouterr().out)
