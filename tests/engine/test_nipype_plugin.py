"""Nipype's own plugins run the same graphs, and say as much of what became of each node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toy_interfaces as toys
from nipype import Node, Workflow

from bids_muscle.engine import nipype_plugin
from bids_muscle.engine.execute import run_workflow
from bids_muscle.engine.nipype_plugin import NipypePlugin, read_plugin
from bids_muscle.engine.outcome import NodeOutcome, Status
from bids_muscle.engine.resources import Resources
from bids_muscle.errors import ExitCode, GridMismatchError, UsageError


def test_outcomes_are_those_of_our_own_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = Workflow('wf', base_dir=str(tmp_path / 'work'))
    kinds = {'first': toys.Toy, 'broken': toys.Raise, 'after': toys.Toy, 'silent': toys.Toy}
    nodes = {name: Node(kind(folder=str(tmp_path)), name) for name, kind in kinds.items()}
    nodes['broken'].inputs.other = 'user'
    workflow.connect(nodes['first'], 'value', nodes['broken'], 'value')
    workflow.connect(nodes['broken'], 'value', nodes['after'], 'value')
    workflow.connect(nodes['first'], 'value', nodes['silent'], 'value')
    save = nipype_plugin.savepkl

    def save_unless_killed(path: str, outcome: Any) -> None:
        if 'silent' not in path:
            save(path, outcome)

    monkeypatch.setattr(nipype_plugin, 'savepkl', save_unless_killed)
    seen: list[NodeOutcome] = []
    report = run_workflow(
        workflow,
        resources=Resources(nprocs=1, memory_gb=1),
        crash_dir=tmp_path / 'crash',
        on_outcome=seen.append,
        plugin=NipypePlugin('Linear'),
    )
    assert {each.name: each.status for each in report.outcomes} == {
        'first': Status.DONE,
        'broken': Status.FAILED,
        'after': Status.SKIPPED,
        'silent': Status.FAILED,
    }
    assert tuple(seen) == report.outcomes
    assert report['wf.first'].outputs['value'] == 1
    expected = GridMismatchError('a.nii and b.nii differ.', 'Use images of one scan.').problem
    assert report['wf.broken'].problem == expected
    problem = report['wf.silent'].problem
    assert problem is not None
    assert problem.exit_code == ExitCode.TEMPORARY


def test_a_plugin_is_a_name_or_a_file(tmp_path: Path) -> None:
    assert read_plugin('SGE') == NipypePlugin('SGE')
    file = tmp_path / 'plugin.yml'
    file.write_text('plugin: PBS\nplugin_args: {qsub_args: -q long}\n')
    assert read_plugin(str(file)) == NipypePlugin('PBS', {'qsub_args': '-q long'})


@pytest.mark.parametrize(
    'content',
    [
        None,
        'plugin: Nobody',
        'plugin: SLURMGraph',  # would not wait for its jobs
        'plugin: [SGE]',
        'plugin: SGE\nplugin_args: 3',
        '{',
        '!!python/object/apply:os.system [echo]',
    ],
)
def test_no_other_file_is_taken(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / 'plugin.yml'
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match='plugin'):
        read_plugin(str(file))
