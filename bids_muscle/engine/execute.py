"""Run a Nipype workflow to its end, whatever happens to its nodes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bids_muscle.engine.outcome import Key, NodeOutcome, RunReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nipype import Workflow

    from bids_muscle.engine.nipype_plugin import NipypePlugin
    from bids_muscle.engine.resources import Resources

_CONFIG = {
    'create_report': 'false',
    'remove_unnecessary_outputs': 'false',
}


def run_workflow(
    workflow: Workflow,
    *,
    resources: Resources,
    crash_dir: Path,
    stop_on_first_crash: bool = False,
    log_level: int = logging.ERROR,
    on_start: Callable[[Key], None] | None = None,
    on_outcome: Callable[[NodeOutcome], None] | None = None,
    plugin: NipypePlugin | None = None,
    by_content: bool = False,
) -> RunReport:
    """Run a workflow with one process per node.

    Parameters
    ----------
    workflow
        The workflow, with its ``base_dir`` set.
    resources
        What its nodes may use together; a node whose input ``use_gpu`` is true leases one GPU.
    crash_dir
        Folder for the tracebacks of errors that are not meant for the user.
    stop_on_first_crash
        Start no further node after the first that fails.
    log_level
        Level of Nipype's loggers.
    on_start
        Called with the key of each node as it starts; never with a plugin of Nipype's own.
    on_outcome
        Called with each outcome as it arrives; with a plugin of Nipype's own, when all have ended.
    plugin
        One of Nipype's own, which then decides what runs where; `resources` are its affair.
    by_content
        Tell by their content, not by size and time, whether files are those of an earlier run in
        the folder of the workflow. It takes a second for each scan.

    Returns
    -------
    RunReport
        What became of every node. A node that fails does not raise.
    """
    from bids_muscle.engine.worker import quiet_nipype

    quiet_nipype(log_level)
    config = {
        **_CONFIG,
        'hash_method': 'content' if by_content else 'timestamp',
        'stop_on_first_crash': str(stop_on_first_crash).lower(),
        'crashdump_dir': str(crash_dir),
        'crashfile_format': 'txt',
    }
    workflow.config['execution'] = {**workflow.config.get('execution', {}), **config}
    if plugin is not None:
        from bids_muscle.engine.nipype_plugin import run_with_plugin

        outcomes = run_with_plugin(workflow, plugin)
        if on_outcome:
            for outcome in outcomes:
                on_outcome(outcome)
        return RunReport(tuple(outcomes))
    from bids_muscle.engine.plugin import ProcessPlugin

    own = ProcessPlugin(
        {
            'n_procs': resources.nprocs,
            'memory_gb': resources.memory_gb,
            'devices': tuple(device for device in resources.devices if device != 'cpu'),
            'crash_dir': crash_dir,
            'stop_on_first_crash': stop_on_first_crash,
            'log_level': log_level,
            'on_start': on_start,
            'on_outcome': on_outcome,
        }
    )
    workflow.run(plugin=own)
    return RunReport(tuple(own.outcomes))
