"""Run a workflow with one of Nipype's own plugins, as on a cluster that has no Slurm.

Nipype tells little of what became of a node, so each node writes its own outcome into the work
folder, which all machines must see.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import yaml
from nipype import Node
from nipype.pipeline import plugins
from nipype.pipeline.plugins.base import DistributedPluginBase
from nipype.utils.filemanip import loadpkl, savepkl

from bids_muscle.engine.outcome import NodeOutcome, Status, outcome_of_node
from bids_muscle.engine.worker import limit_threads, outcome_of
from bids_muscle.errors import MissingInputError, UsageError, WorkerDiedError
from bids_muscle.files import read_small

if TYPE_CHECKING:
    from nipype import Workflow

_OUTCOMES = 'outcomes'


@dataclass(frozen=True)
class NipypePlugin:
    """One of Nipype's plugins.

    Parameters
    ----------
    name
        As Nipype knows it, such as ``'SGE'``.
    args
        Its ``plugin_args``.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


def known_plugins() -> list[str]:
    """Return the names of the plugins that wait for the nodes they start."""
    waiting = (DistributedPluginBase, plugins.LinearPlugin)
    return sorted(
        name.removesuffix('Plugin')
        for name, value in vars(plugins).items()
        if name.endswith('Plugin') and issubclass(value, waiting)
    )


def read_plugin(name_or_path: str) -> NipypePlugin:
    """Return the plugin of a name, or of a YAML file with ``plugin`` and ``plugin_args``.

    Raises
    ------
    UsageError
        If there is no such plugin or file, or the file is something else.
    MissingInputError
        If the file cannot be read.
    """
    content: Any = {'plugin': name_or_path}
    path = Path(name_or_path)
    if name_or_path not in known_plugins() and path.exists():
        try:
            content = yaml.safe_load(read_small(path))
        except OSError as error:
            raise MissingInputError(
                f'The plugin file {path} cannot be read: {error.strerror}.', 'Check --use-plugin.'
            ) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f'The plugin file {path} is not YAML: {error}.', _REMEDY) from error
    found = content if isinstance(content, dict) else {}
    name, args = found.get('plugin'), found.get('plugin_args') or {}
    if name not in known_plugins() or not isinstance(args, dict):
        raise UsageError(f'--use-plugin {name_or_path} is not a Nipype plugin.', _REMEDY)
    return NipypePlugin(name, args)


_REMEDY = (
    f'Give one of {", ".join(known_plugins())}, or a YAML file with plugin and, if you like, '
    'plugin_args.'
)


class _RecordedNode(Node):
    """A node that writes what became of it into the work folder."""

    def run(self, updatehash: bool = False) -> Any:
        limit_threads(self.n_procs)
        crash_file = Path(self.config['execution']['crashdump_dir'], f'crash-{self.itername}.txt')
        outcome, result = outcome_of(self, lambda: Node.run(self, updatehash), crash_file)
        savepkl(str(_outcome_file(self)), outcome)
        if outcome.problem:
            raise RuntimeError(str(outcome.problem))
        return result


def _outcome_file(node: Node) -> Path:
    return Path(node.base_dir, _OUTCOMES, f'{node.itername}.pklz')


def run_with_plugin(workflow: Workflow, plugin: NipypePlugin) -> list[NodeOutcome]:
    """Run a workflow with a plugin of Nipype and return what became of its nodes."""
    os.environ.setdefault('LOGNAME', str(os.getuid()))  # Nipype names jobs with it
    graphs: list[nx.DiGraph] = []
    runner = getattr(plugins, f'{plugin.name}Plugin')(plugin_args=dict(plugin.args))
    run = runner.run

    def run_recorded(graph: nx.DiGraph, config: Any, updatehash: bool = False) -> None:
        graphs.append(graph)
        for node in graph:
            node.__class__ = _RecordedNode
            _outcome_file(node).parent.mkdir(parents=True, exist_ok=True)
            _outcome_file(node).unlink(missing_ok=True)
        run(graph, config=config, updatehash=updatehash)

    runner.run = run_recorded
    problem = ''
    try:
        workflow.run(plugin=runner)
    except Exception as error:  # raised for any node that failed
        problem = f': {error}'
    outcomes: dict[Node, NodeOutcome] = {}
    for node in nx.topological_sort(graphs[0]):
        needs = [outcomes[each].status for each in graphs[0].predecessors(node)]
        outcomes[node] = _outcome(node, all(each is Status.DONE for each in needs), problem)
    return list(outcomes.values())


def _outcome(node: Node, could_run: bool, problem: str) -> NodeOutcome:
    """Return what a node wrote, or what its silence means."""
    try:
        outcome: NodeOutcome = loadpkl(_outcome_file(node))
    except (OSError, EOFError):
        died = WorkerDiedError(
            f'The step {node.itername} ended without a result{problem}.',
            f'Read the messages of the scheduler in {node.base_dir}, and run again.',
        )
        status = Status.FAILED if could_run else Status.SKIPPED
        return outcome_of_node(node, status, problem=died.problem if could_run else None)
    return outcome
