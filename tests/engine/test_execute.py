"""Workflows are run with real processes, some of which are killed."""

from __future__ import annotations

import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy_interfaces as toys
from nipype import JoinNode, MapNode, Node, Workflow

from bids_muscle.engine import lease, plugin
from bids_muscle.engine.execute import run_workflow
from bids_muscle.engine.outcome import NodeOutcome, RunReport, Status
from bids_muscle.engine.plugin import ProcessPlugin
from bids_muscle.engine.resources import Resources
from bids_muscle.errors import ExitCode, GridMismatchError


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    (tmp_path / 'meet').mkdir()
    monkeypatch.setattr(lease, '_FOLDER', tmp_path)  # other tests may run beside these
    return Workflow('wf', base_dir=str(tmp_path / 'work'))


def toy(workflow: Workflow, kind: str, name: str, *after: Node, **inputs: Any) -> Node:
    """Add a node that needs those given."""
    resources = {key: inputs.pop(key) for key in ('n_procs', 'mem_gb') if key in inputs}
    folder = str(Path(workflow.base_dir).parent / 'meet')
    node = Node(getattr(toys, kind)(folder=folder, **inputs), name, **resources)
    workflow.add_nodes([node])
    for number, other in enumerate(after):
        workflow.connect(other, 'value', node, ('value', 'other')[number])
    return node


def run(
    workflow: Workflow,
    *,
    stop_on_first_crash: bool = False,
    on_outcome: Callable[[NodeOutcome], None] | None = None,
    by_content: bool = False,
    **limits: Any,
) -> RunReport:
    return run_workflow(
        workflow,
        resources=Resources(**{'nprocs': 2, 'memory_gb': 2.0, **limits}),
        crash_dir=Path(workflow.base_dir) / 'crash',
        stop_on_first_crash=stop_on_first_crash,
        on_outcome=on_outcome,
        by_content=by_content,
    )


def statuses(report: RunReport) -> dict[str, str]:
    return {each.name: str(each.status) for each in report.outcomes}


def events(workflow: Workflow) -> list[list[str]]:
    log = Path(workflow.base_dir).parent / 'meet' / 'log'
    return [line.split() for line in log.read_text().splitlines()]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the nodes that run together, newest last, noted whenever one is started."""
    noted: list[list[str]] = []
    fits = ProcessPlugin._fits

    def note_what_fits(self: Any, node: Node, running: list[Any]) -> bool:
        if fitting := fits(self, node, running):
            noted.append([*(worker.node.name for worker in running), node.name])
        return fitting

    monkeypatch.setattr(ProcessPlugin, '_fits', note_what_fits)
    return noted


def test_values_pass_from_node_to_node(workflow: Workflow) -> None:
    first = toy(workflow, 'Toy', 'first', value=5)
    second = toy(workflow, 'Toy', 'second', first)
    toy(workflow, 'Toy', 'third', second, first)
    seen: list[NodeOutcome] = []
    report = run(workflow, on_outcome=seen.append)
    assert report.ok
    assert [each.outputs['value'] for each in report.outcomes] == [6, 7, 8]
    assert tuple(seen) == report.outcomes
    third = report['wf.third']
    assert third.wall_s > 0
    assert third.peak_mb is not None
    assert 10 < third.peak_mb < 10_000


@pytest.mark.parametrize(
    ('how', 'words'),
    [
        (signal.SIGKILL, 'wf.victim was killed by SIGKILL (9)'),
        (signal.SIGSEGV, 'wf.victim was killed by SIGSEGV (11)'),
        (0, 'wf.victim ended with status 3'),
    ],
)
def test_a_dead_worker_is_a_named_failure_and_its_siblings_finish(
    workflow: Workflow, how: int, words: str
) -> None:
    victim = toy(workflow, 'Die', 'victim', other=int(how))
    sibling = toy(workflow, 'Sibling', 'sibling')
    child = toy(workflow, 'Toy', 'child', victim)
    toy(workflow, 'Toy', 'grandchild', child)
    toy(workflow, 'Toy', 'of_both', victim, sibling)
    toy(workflow, 'Toy', 'nephew', sibling)
    report = run(workflow)
    assert statuses(report) == {
        'victim': 'failed',
        'child': 'skipped',
        'grandchild': 'skipped',
        'of_both': 'skipped',
        'sibling': 'done',
        'nephew': 'done',
    }
    (failure,) = (each for each in report.outcomes if each.status is Status.FAILED)
    assert failure.problem is not None
    assert failure.problem.kind == 'WorkerDiedError'
    assert failure.problem.exit_code == ExitCode.TEMPORARY
    assert words in failure.problem.message
    assert '--mem' in failure.problem.remedy or how == 0


def test_an_error_for_the_user_comes_back_as_it_was_raised(workflow: Workflow) -> None:
    toy(workflow, 'Raise', 'broken', other='user')
    toy(workflow, 'Toy', 'fine')
    report = run(workflow)
    failure = report['wf.broken']
    expected = GridMismatchError('a.nii and b.nii differ.', 'Use images of one scan.').problem
    assert failure.problem == expected
    assert 'GridMismatchError' in failure.traceback
    assert report['wf.fine'].status is Status.DONE
    assert not (Path(workflow.base_dir) / 'crash').exists()


@pytest.mark.parametrize(
    ('error', 'kind', 'code'),
    [
        ('bug', 'ValueError', ExitCode.FAILURE),
        ('exit', 'SystemExit', ExitCode.FAILURE),
        ('memory', 'MemoryError', ExitCode.TEMPORARY),
        ('disk', 'OSError', ExitCode.IO_ERROR),
    ],
)
def test_any_other_error_becomes_a_problem(
    workflow: Workflow, error: str, kind: str, code: int
) -> None:
    toy(workflow, 'Raise', 'broken', other=error)
    problem = run(workflow)['wf.broken'].problem
    assert problem is not None
    assert (problem.kind, problem.exit_code) == (kind, code)
    assert 'wf.broken' in problem.message


def test_a_bug_leaves_its_traceback_in_a_file_named_by_the_remedy(workflow: Workflow) -> None:
    toy(workflow, 'Raise', 'broken', other='bug')
    problem = run(workflow)['wf.broken'].problem
    crash_file = Path(workflow.base_dir) / 'crash' / 'crash-wf.broken.txt'
    assert problem is not None
    assert str(crash_file) in problem.remedy
    text = crash_file.read_text()
    assert 'ValueError: no such thing' in text
    assert 'other = bug' in text


def test_a_node_that_cannot_be_sent_to_a_worker_is_a_failure(workflow: Workflow) -> None:
    toy(workflow, 'Toy', 'unsendable').plugin_args = {'hook': lambda: None}
    report = run(workflow)
    problem = report['wf.unsendable'].problem
    assert problem is not None
    assert 'pickle' in problem.message


def test_stop_on_first_crash_starts_nothing_more(workflow: Workflow) -> None:
    toy(workflow, 'Die', 'victim', other=0)
    sibling = toy(workflow, 'Sibling', 'sibling')
    toy(workflow, 'Toy', 'nephew', sibling)
    report = run(workflow, stop_on_first_crash=True)
    assert statuses(report) == {'victim': 'failed', 'sibling': 'done', 'nephew': 'skipped'}


def test_gpu_nodes_never_share_a_device(workflow: Workflow) -> None:
    names = [f'gpu{number}' for number in range(6)]
    for name in names:
        toy(workflow, 'Log', name, use_gpu=True, other=name)
    toy(workflow, 'Log', 'cpu', other='cpu')
    report = run(workflow, nprocs=4, devices=['cuda:0', 'cuda:3'])
    assert report.ok
    holder: dict[str, str] = {}
    for event, name, device in events(workflow):
        if name == 'cpu':
            assert device == 'none'
        elif event == 'start':
            assert device in ('0', '3')
            assert device not in holder
            holder[device] = name
        else:
            assert holder.pop(device) == name
    assert {device for _, _, device in events(workflow)} == {'0', '3', 'none'}


def test_a_gpu_that_another_run_holds_is_waited_for_and_a_free_one_taken(
    workflow: Workflow,
) -> None:
    held = lease.lease_gpu('cuda:0')
    assert held is not None
    assert lease.lease_gpu('cuda:0') is None

    def give_back(outcome: NodeOutcome) -> None:
        if outcome.name == 'cpu':
            held.give_back()

    toy(workflow, 'Toy', 'gpu', use_gpu=True)
    report = run(workflow, devices=['cuda:0', 'cuda:1'])
    assert report['wf.gpu'].outputs['seen']['CUDA_VISIBLE_DEVICES'] == '1'
    toy(workflow, 'Toy', 'second', use_gpu=True)
    toy(workflow, 'Toy', 'cpu')
    report = run(workflow, devices=['cuda:0'], on_outcome=give_back)
    assert report['wf.second'].outputs['seen']['CUDA_VISIBLE_DEVICES'] == '0'
    names = [each.name for each in report.outcomes]
    assert names.index('cpu') < names.index('second')
    free = lease.lease_gpu('cuda:0')
    assert free is not None
    free.give_back()


def test_a_pipe_in_place_of_the_lock_makes_nobody_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, '_FOLDER', tmp_path)
    monkeypatch.setattr(lease, 'gpu_ids', lambda: ['x'])
    os.mkfifo(tmp_path / 'bids_muscle-gpu-x.lock')
    given = lease.lease_gpu('cuda:0')
    assert given is not None
    given.give_back()


def test_a_killed_run_holds_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, '_FOLDER', tmp_path)
    code = (
        'import time\nfrom pathlib import Path\nfrom bids_muscle.engine import lease\n'
        f'lease._FOLDER = Path({str(tmp_path)!r})\n'
        'held = lease.lease_gpu("cuda:0")\nprint("held", flush=True)\ntime.sleep(3600)'
    )
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b'held\n'
        assert lease.lease_gpu('cuda:0') is None
        holder.kill()
        holder.wait()
    free = lease.lease_gpu('cuda:0')
    assert free is not None
    free.give_back()


def test_where_no_lock_is_possible_the_scheduler_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, '_FOLDER', tmp_path / 'none')
    assert lease.lease_gpu('cuda:0') == lease.Lease('cuda:0', None)
    monkeypatch.setattr(lease, '_FOLDER', tmp_path)
    (tmp_path / 'bids_muscle-gpu-0.lock').symlink_to(tmp_path / 'elsewhere')
    assert lease.lease_gpu('cuda:0') == lease.Lease('cuda:0', None)
    assert not (tmp_path / 'elsewhere').exists()


def test_a_gpu_node_runs_without_a_gpu_where_there_is_none(workflow: Workflow) -> None:
    toy(workflow, 'Toy', 'gpu', use_gpu=True)
    report = run(workflow, devices=['cpu'])
    assert report['wf.gpu'].outputs['seen']['CUDA_VISIBLE_DEVICES'] == ''


def test_memory_and_processor_budgets_hold(workflow: Workflow, together: list[list[str]]) -> None:
    memory_gb = {f'node{number}': 0.1 * (1 + number % 4) for number in range(12)}
    for name, mem_gb in memory_gb.items():
        toy(workflow, 'Toy', name, mem_gb=mem_gb)
    assert run(workflow, nprocs=3, memory_gb=0.5).ok
    assert len(together) == 12
    assert max(sum(memory_gb[name] for name in names) for names in together) <= 0.5 + 1e-6
    assert max(len(names) for names in together) in (2, 3)


def test_two_nodes_run_at_the_same_time(workflow: Workflow) -> None:
    toy(workflow, 'Die', 'one', other=0)  # each waits for the other
    toy(workflow, 'Sibling', 'two')
    assert statuses(run(workflow)) == {'one': 'failed', 'two': 'done'}


def test_a_node_that_wants_more_processors_than_there_are_runs_alone(
    workflow: Workflow, together: list[list[str]]
) -> None:
    for name in ('a', 'b', 'huge', 'c', 'd'):
        toy(workflow, 'Toy', name, **({'n_procs': 64} if name == 'huge' else {}))
    report = run(workflow, nprocs=3)
    assert report.ok
    assert [names for names in together if 'huge' in names] == [['huge']]
    assert report['wf.huge'].outputs['seen']['OMP_NUM_THREADS'] in ('1', '3')


def test_where_a_node_needs_more_memory_than_there_is_nothing_around_it_is_begun(
    workflow: Workflow,
) -> None:
    before = toy(workflow, 'Toy', 'before')
    huge = toy(workflow, 'Toy', 'huge', before, mem_gb=2.01)
    toy(workflow, 'Toy', 'after', huge)
    toy(workflow, 'Toy', 'elsewhere', mem_gb=2.0)
    report = run(workflow, memory_gb=2.0)
    assert statuses(report) == {
        'before': 'skipped',
        'huge': 'failed',
        'after': 'skipped',
        'elsewhere': 'done',
    }
    problem = report['wf.huge'].problem
    assert problem is not None
    assert problem.exit_code == ExitCode.TEMPORARY
    assert '--mem 2.1G' in problem.remedy


def test_a_step_that_never_returns_is_stopped_and_one_that_works_is_not(
    workflow: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, 'PATIENCE_S', 3.0)
    hung = toy(workflow, 'Sleep', 'hung')
    toy(workflow, 'Toy', 'after', hung)
    toy(workflow, 'Work', 'busy', value=5)
    report = run(workflow)
    assert statuses(report) == {'hung': 'failed', 'after': 'skipped', 'busy': 'done'}
    problem = report['wf.hung'].problem
    assert problem is not None
    assert problem.exit_code == ExitCode.TEMPORARY
    assert 'no CPU time' in problem.message
    assert not Path('/proc', (Path(hung.inputs.folder) / 'pid').read_text()).exists()


def test_a_node_gets_the_threads_it_is_counted_with(workflow: Workflow) -> None:
    toy(workflow, 'TorchThreads', 'node', n_procs=2)
    outputs = run(workflow, nprocs=2)['wf.node'].outputs
    assert outputs['value'] == 2
    assert outputs['seen']['OMP_NUM_THREADS'] == '2'
    assert outputs['seen']['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] == '2'


def test_many_small_nodes(workflow: Workflow) -> None:
    last = None
    for number in range(40):
        last = toy(workflow, 'Toy', f'n{number}', *([last] if last and number % 4 else []))
    report = run(workflow)
    assert report.ok
    assert len(report.outcomes) == 40
    assert [report[f'wf.n{number}'].outputs['value'] for number in range(4)] == [1, 2, 3, 4]


def test_map_nodes_join_nodes_and_local_nodes(workflow: Workflow) -> None:
    first = toy(workflow, 'Toy', 'first')
    first.run_without_submitting = True
    mapped = MapNode(toys.Toy(), ['value'], 'mapped')
    mapped.inputs.folder = first.inputs.folder
    mapped.inputs.value = [10, 20]
    spread = toy(workflow, 'Toy', 'spread')
    spread.iterables = ('value', [1, 2, 3])
    joined = JoinNode(toys.Toy(), joinsource='spread', joinfield='other', name='joined')
    joined.inputs.folder = first.inputs.folder
    workflow.connect(first, 'value', mapped, 'other')
    workflow.connect(spread, 'value', joined, 'other')
    report = run(workflow)
    assert report.ok
    assert list(report['wf.mapped'].outputs['value']) == [11, 21]
    assert len({each.fullname for each in report.outcomes}) == len(report.outcomes) == 6


def test_a_part_of_a_map_node_that_dies_or_raises_is_the_failure_of_the_map_node(
    workflow: Workflow,
) -> None:
    folder = toy(workflow, 'Sibling', 'sibling').inputs.folder
    for name, kind, others in (('died', toys.Die, [0, 0]), ('raised', toys.Raise, ['user'] * 2)):
        mapped = MapNode(kind(folder=folder), ['other'], name)
        mapped.inputs.other = others
        workflow.add_nodes([mapped])
    report = run(workflow, nprocs=4)
    assert {each.name for each in report.outcomes if each.status is Status.FAILED} == {
        'died',
        'raised',
    }
    assert (
        report['wf.raised'].problem
        == GridMismatchError('a.nii and b.nii differ.', 'Use images of one scan.').problem
    )


def test_finished_nodes_are_not_run_again(workflow: Workflow) -> None:
    toy(workflow, 'Log', 'once', other='once')
    assert run(workflow).ok
    assert run(workflow).ok
    assert len(events(workflow)) == 2


def test_another_file_of_equal_size_and_time_is_another(
    workflow: Workflow, tmp_path: Path
) -> None:
    path = tmp_path / 'image.nii'
    path.write_text('one')
    toy(workflow, 'Read', 'read', path=str(path))
    for content in ('one', 'two', 'two'):
        path.write_text(content)
        os.utime(path, (1, 1))
        assert run(workflow, by_content=True).ok
    assert (tmp_path / 'meet/log').read_text() == 'one\ntwo\n'


def test_the_server_stays_warm_between_workflows_and_is_replaced_if_it_dies(
    workflow: Workflow, tmp_path: Path
) -> None:
    server = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    toy(workflow, 'Toy', 'node')
    assert run(workflow).ok
    pid = server._forkserver_pid
    workflow.base_dir = str(tmp_path / 'second')
    assert run(workflow).ok
    assert server._forkserver_pid == pid
    os.kill(pid, signal.SIGKILL)
    workflow.base_dir = str(tmp_path / 'third')
    assert run(workflow).ok
    assert server._forkserver_pid != pid


SCRIPT = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    import toy_interfaces as toys
    from nipype import Node, Workflow
    from bids_muscle.engine.execute import run_workflow
    from bids_muscle.engine.resources import Resources
    from bids_muscle.engine.worker import start_forkserver

    if __name__ == '__main__':
        start_forkserver(['nipype.pipeline.engine'])
        folder = Path({folder!r})
        workflow = Workflow('wf', base_dir=str(folder))
        workflow.add_nodes([Node(toys.{kind}(folder=str(folder)), 'node')])
        run_workflow(workflow, resources=Resources(nprocs=1, memory_gb=1), crash_dir=folder)
        print('result')
"""


def script(tmp_path: Path, kind: str) -> list[str]:
    path = tmp_path / 'script.py'
    here = str(Path(__file__).parent)
    path.write_text(textwrap.dedent(SCRIPT).format(here=here, folder=str(tmp_path), kind=kind))
    return [sys.executable, str(path)]


def test_standard_output_is_the_command_s_own(tmp_path: Path) -> None:
    ran = subprocess.run(script(tmp_path, 'Print'), capture_output=True, text=True, check=True)
    assert ran.stdout == 'result\n'
    assert 'noise' in ran.stderr


@pytest.mark.skipif(sys.platform != 'linux', reason='needs the kernel to tell of the death')
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(script(tmp_path, 'Sleep'))
    pid_file = tmp_path / 'pid'
    while not pid_file.exists() or not pid_file.read_text():
        assert parent.poll() is None
        time.sleep(0.05)
    worker = Path('/proc') / pid_file.read_text()
    assert worker.exists()
    parent.kill()
    parent.wait()
    while worker.exists() and (worker / 'stat').read_text().split()[2] != 'Z':
        time.sleep(0.05)
