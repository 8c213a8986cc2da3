"""Drive a level: plan, run, record, report. One bad scan never stops the others."""

from __future__ import annotations

import gc
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.folders import list_participants, list_unusable
from bids_muscle.dataset.names import dataset_path, participant_path
from bids_muscle.dataset.participants import keep_participants
from bids_muscle.dataset.plan import format_counts, format_plan
from bids_muscle.dataset.records import ScanRecord, list_aside, list_recorded, read_records
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.sessions import read_visits
from bids_muscle.dataset.writer import check_still_there, remove_torn, write_dataset_files
from bids_muscle.engine.outcome import Key, NodeOutcome, RunReport, Status
from bids_muscle.errors import (
    ExitCode,
    MissingInputError,
    NothingSelectedError,
    Problem,
    problem_of,
)
from bids_muscle.imaging.atlas import atlas_name
from bids_muscle.tables import MOST_NAMED, name_some
from bids_muscle.workflows.participant_run import ParticipantRun, seems_finished
from bids_muscle.workflows.parts import join_scans
from bids_muscle.workflows.planning import (
    RunInputs,
    choose_participants,
    folder_remarks,
    left_out,
    say_all,
    say_fuller,
)
from bids_muscle.workflows.progress import Progress
from bids_muscle.workflows.records import finish_page, is_empty, make_page
from bids_muscle.workflows.session import check_loading, run_sessions
from bids_muscle.workflows.summary import cause_lines
from bids_muscle.workflows.work_folder import WORKFLOW, work_folder

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

    from bids_muscle.engine.nipype_plugin import NipypePlugin
    from bids_muscle.engine.resources import Resources
    from bids_muscle.reports.outputs import ScanOutputs
    from bids_muscle.settings import Settings


def print_plan(settings: Settings) -> None:
    """Print what the participant level would do, and compute nothing."""
    inputs = RunInputs.find(settings)
    atlases = {region: atlas_name(folder) for region, folder in inputs.atlases.items()}
    participants, _ = choose_participants(settings)
    count = ready = finished = fuller = 0
    every: list[Scan] = []
    for participant in participants:
        run = ParticipantRun.plan(inputs, participant, only_recorded=True)
        count += len(run.scans)
        ready += sum(scan.problem is None for scan in run.scans)
        finished += len(run.finished)
        fuller += run.fuller
        if settings.quiet:
            every += run.scans
            continue
        print(
            format_plan(
                run.scans,
                inputs.models,
                settings.bids_dir,
                bias_correction=settings.bias_correction,
                atlases=atlases,
                deformable=settings.register == 'deformable',
                level=settings.output_level,
            )
        )
    if settings.quiet:
        print(format_counts(every), end='')
        for line in cause_lines((scan.name, scan.problem) for scan in every):
            print(line)
    print(
        f'{ready} of {count} scans of {len(participants)} '
        f'{"participants" if len(participants) != 1 else "participant"} can be processed, '
        f'{finished} of them finished before; {left_out(settings.bids_dir)}outputs go to '
        f'{settings.output_dir}. Nothing was computed.'
    )
    say_fuller(fuller)


def run_participants(settings: Settings) -> ExitCode:
    """Run the participant level.

    Returns
    -------
    ExitCode
        OK if every scan is done; the code of the problem where all problems share one; else
        FAILURE. Where all is done but a participant asked for by name is not there, or has no
        scan, NOTHING_SELECTED.

    Raises
    ------
    BidsMuscleError
        If nothing can be done at all: no dataset, no output folder, no device, nothing selected.
    """
    if settings.reports_only:
        return _report_again(settings)
    with Progress(settings) as progress:
        return _run_participants(settings, progress)


def _run_participants(settings: Settings, progress: Progress) -> ExitCode:
    participants, complete = choose_participants(settings)
    check_loading(settings)
    inputs = RunInputs.find(settings)
    machine = _find_machine(inputs, participants, progress)
    write_dataset_files(settings.output_dir, settings.bids_dir, list(inputs.models.values()))
    progress.begin(participants)
    records: list[ScanRecord] = []
    problems: list[Problem] = []
    spoken_of: set[str | None] = set()
    fuller = 0
    # As many participants in one graph as there are CPUs keep all of them busy.
    for start in range(0, len(participants), machine.resources.nprocs):
        runs, refused = _begin(
            inputs, participants[start : start + machine.resources.nprocs], progress
        )
        _say_remarks(inputs, runs, spoken_of)
        fuller += sum(run.fuller for run in runs)
        with work_folder(settings.work_dir) as work_dir:
            report, ended = _run_scans(machine, runs, work_dir)
            run_graphs = partial(_run_graphs, machine, settings, work_dir)
            problems += _finish(inputs, runs, run_graphs)
            if settings.clean_workdir:
                failed = {record.participant for record in ended if record.problem}
                for label in {run.participant for run in runs} - failed:
                    shutil.rmtree(_graph_folder(work_dir, label), ignore_errors=True)
        lights = {
            scan_record.scan: scan_record.light
            for run in runs
            for scan_record in read_records(settings.output_dir, run.participant)
        }
        of_runs = [
            *(scan_record for run in runs for scan_record in run.finished.values()),
            *refused,
            *ended,
        ]
        records += [
            replace(scan_record, light=lights.get(scan_record.scan, '')) for scan_record in of_runs
        ]
        check_still_there(settings.output_dir)
        if settings.stop_on_first_crash and not report.ok:
            break
    progress.end(records, problems)
    say_fuller(fuller)
    code = _exit_code(records, problems)
    # Who is asked for by name is missed; of all, some may have other scans only.
    complete = complete and not (settings.participants and any(map(is_empty, records)))
    return code if complete or code else ExitCode.NOTHING_SELECTED


@dataclass(frozen=True)
class _Machine:
    """CPUs, memory and devices or a Nipype plugin for the graphs, and the report of progress."""

    resources: Resources
    plugin: NipypePlugin | None
    progress: Progress


def _find_machine(inputs: RunInputs, participants: Sequence[str], progress: Progress) -> _Machine:
    """Look up what the graphs may use; start the server of the workers if something is left."""
    from bids_muscle.engine.resources import resolve_resources
    from bids_muscle.engine.worker import start_forkserver

    plugin = None
    if inputs.settings.use_plugin:
        from bids_muscle.engine.nipype_plugin import read_plugin

        plugin = read_plugin(inputs.settings.use_plugin)
    elif not all(seems_finished(inputs, participant) for participant in participants):
        start_forkserver()  # it imports for seconds, while the first participants are looked up
    return _Machine(resolve_resources(inputs.settings), plugin, progress)


def run_group(settings: Settings) -> ExitCode:
    """Run the group level, from the outputs of the participant level alone."""
    from bids_muscle.engine.resources import allowed_cpus
    from bids_muscle.reports.kept_scans import kept_scans

    _require_records(settings)
    for folder in (settings.output_dir, settings.output_dir / 'phenotype'):
        remove_torn(folder, below=False)
    gc.disable()  # what a cohort holds is kept to the end; looking at it took a tenth of the time
    try:
        n_procs = settings.nprocs or allowed_cpus()
        with kept_scans(settings.output_dir, n_procs) as scans:
            written = _write_group(settings, scans)
    finally:
        gc.enable()
    tables = sum(path.suffix == '.tsv' for path in written)
    print(f'{tables} tables, each with its data dictionary, in {settings.output_dir}')
    for what, key in (
        ('Text for a paper', 'group_text'),
        ('Review page', 'group_review'),
        ('Cohort page', 'group_report'),
    ):
        print(f'{what}: {settings.output_dir / dataset_path(key)}')
    return ExitCode.OK


def _write_group(settings: Settings, scans: Sequence[ScanOutputs]) -> list[Path]:
    """Read what the raw dataset says of the people of the scans, and write the outputs."""
    from bids_muscle.reports.cohort_input import GroupOptions, RawTables
    from bids_muscle.reports.group import write_group

    records = [scan.record for scan in scans]
    recorded = {record.participant for record in records}
    named = ' '.join((settings.formula or '', *settings.group))
    table = keep_participants(settings.bids_dir, settings.output_dir, recorded, named)
    remarks = [*_unfinished(settings.output_dir), *(table.remarks if table else ())]
    if table is None and any(record.participant_info for record in records):
        remarks.append(
            f'There is no participants.tsv in {settings.bids_dir}. The data that the participant '
            'level recorded are used.'
        )
    visits, others = read_visits(settings.bids_dir, sorted(recorded))
    remarks += others[:MOST_NAMED]
    if len(others) > MOST_NAMED:
        more = len(others) - MOST_NAMED
        remarks.append(f'There are {more} more remarks about tables of sessions and scans.')
    is_there = settings.bids_dir.is_dir()
    unusable = list_unusable(settings.bids_dir) if is_there else []
    labels = list_participants(settings.bids_dir) if is_there else []
    # A dataset without anybody is not here; what an earlier run wrote counts then.
    if gone := sorted(recorded - set(labels)) if labels else []:
        remarks.append(
            f'{len(gone)} participant{"s have" if gone[1:] else " has"} results in '
            f'{settings.output_dir} and no folder in {settings.bids_dir}, or .bidsignore excludes '
            f'them: {name_some(f"sub-{label}" for label in gone)}. They count in the cohort. '
            'Exclude them with --exclude, or remove their folders in the output folder and in its '
            'logs.'
        )
    say_all([*folder_remarks(settings.bids_dir), *remarks])
    return write_group(
        settings.output_dir,
        GroupOptions(
            ratings=settings.qc_ratings,
            exclude=settings.exclude,
            formula=settings.formula,
            groups=settings.group,
            harmonise_sites=settings.harmonise_sites,
            session_order=settings.session_order,
            norms=settings.norms,
            detectable=settings.sdc,
        ),
        RawTables(table.rows if table else None, unusable, visits, remarks, labels),
        scans,
    )


def _unfinished(output_dir: Path) -> list[str]:
    """Say which scans had results and have none while they run, or since their run was killed."""
    names = list_aside(output_dir)
    return [
        'Without results, as a run of the participant level is under way or was killed: '
        f'{name_some(names)}. Let it end, or run it again.'
    ][: len(names)]


def _require_records(settings: Settings) -> list[str]:
    """Return the participants of whom the output folder has a scan record, at least one."""
    if not settings.output_dir.is_dir():
        raise MissingInputError(
            f'The output folder {settings.output_dir} does not exist.',
            'Run the participant level first.',
        )
    participants = list_recorded(settings.output_dir)
    if not participants:
        raise NothingSelectedError(
            f'{settings.output_dir} has no scan of the participant level.',
            'Run the participant level first, with the same output folder.',
        )
    return participants


def _begin(
    inputs: RunInputs, participants: Sequence[str], progress: Progress
) -> tuple[list[ParticipantRun], list[ScanRecord]]:
    """Plan some participants; return their runs, and records of those that cannot run."""
    runs, refused = [], []
    for participant in participants:
        run = ParticipantRun.plan(inputs, participant)
        progress.plan(participant, run.scans, run.finished)
        try:
            runs.append(run.begin())
        except Exception as error:
            refused += run.refused(error)
    return runs, refused


def _say_remarks(
    inputs: RunInputs, runs: Sequence[ParticipantRun], spoken_of: set[str | None]
) -> None:
    """Report, once per region, the muscles that its model does not segment."""
    regions = {scan.region for run in runs for scan in run.left if not scan.problem}
    for region, model in inputs.models.items():
        if region in regions - spoken_of:
            say_all(model.remarks())
    spoken_of |= regions


def _run_scans(
    machine: _Machine, runs: Sequence[ParticipantRun], work_dir: Path
) -> tuple[RunReport, list[ScanRecord]]:
    """Run the scans that are left and write their records."""
    report = RunReport(())
    # Sagittal scans first: their vertebrae define the levels of the axial scans.
    for spines in (True, False):
        report += _run_plane(machine, runs, report, work_dir, spines=spines)
        if runs and runs[0].inputs.settings.stop_on_first_crash and not report.ok:
            break
    return report, [record for run in runs for record in run.finish(report)]


def _run_plane(
    machine: _Machine,
    runs: Sequence[ParticipantRun],
    before: RunReport,
    work_dir: Path,
    *,
    spines: bool,
) -> RunReport:
    """Run the graphs of the sagittal scans, or of the axial scans, of some participants."""
    from bids_muscle.workflows.participant import init_participant_wf

    graphs = []
    failed: list[NodeOutcome] = []
    for run in runs:
        settings = run.inputs.settings
        scans = [scan for scan in run.left if (scan.region == SPINE) == spines]
        scans = [scan for scan in scans if scan.problem is None]
        if not scans:
            continue
        try:
            graph = init_participant_wf(
                participant=run.participant,
                scans=scans,
                sagittal=run.published_spines(before),
                inputs=run.inputs,
                resources=machine.resources,
                corrected=run.corrected_images(),
            )
        except Exception as error:  # such as an image that has gone since the plan
            problem = problem_of(error, f'Planning the steps of sub-{run.participant}')
            failed += [
                NodeOutcome(
                    name='plan',
                    fullname=f'{scan.name}.plan',
                    key=Key(scan.name, 'plan'),
                    status=Status.FAILED,
                    problem=problem,
                )
                for scan in scans
            ]
            continue
        if settings.write_graph:
            # Sagittal and axial scans run one after the other, in graphs of their own.
            name = 'graph_sagittal' if spines else 'graph'
            path = settings.output_dir / participant_path(run.participant, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            graph.write_hierarchical_dotfile(str(path))
        graphs.append(graph)
    report = _run_graphs(machine, settings, work_dir, graphs) if graphs else RunReport(())
    return report + RunReport(tuple(failed))


def _finish(
    inputs: RunInputs,
    runs: Sequence[ParticipantRun],
    run_graphs: Callable[[Sequence[Workflow]], RunReport],
) -> list[Problem]:
    """Do what follows the scans of some participants: parts, sessions, pages."""
    problems = []
    for run in runs:
        problems += join_scans(
            inputs.settings, run.participant, run.scans, inputs.models, run.earlier
        )
    labels = [run.participant for run in runs]
    problems += run_sessions(inputs.settings, labels, run_graphs)
    for label in labels:
        problems += finish_page(inputs.settings, label)
    return problems


def _run_graphs(
    machine: _Machine, settings: Settings, work_dir: Path, graphs: Sequence[Workflow]
) -> RunReport:
    """Run the graphs of some participants side by side."""
    from nipype.pipeline.engine import Workflow

    from bids_muscle.engine.execute import run_workflow

    workflow = Workflow(WORKFLOW, base_dir=work_dir)
    workflow.add_nodes(list(graphs))
    return run_workflow(
        workflow,
        resources=machine.resources,
        crash_dir=settings.output_dir / 'logs/crash',
        stop_on_first_crash=settings.stop_on_first_crash,
        on_start=machine.progress.begin_step,
        on_outcome=machine.progress.end_step,
        plugin=machine.plugin,
        by_content=settings.work_dir is not None,  # else it is empty, and no file of another run
    )


def _report_again(settings: Settings) -> ExitCode:
    """Make the pages again from the outputs alone."""
    code = ExitCode.OK
    known = _require_records(settings)
    wanted = [label for label in known if label in (settings.participants or known)]
    if strange := sorted(set(settings.participants) - set(known)):
        say_all(
            [
                f'{settings.output_dir} has no scan of {name_some(strange)}, who were asked for. '
                'Check --participant-label.'
            ]
        )
        code = ExitCode.NOTHING_SELECTED
    if not wanted:
        raise NothingSelectedError(
            f'{settings.output_dir} has none of the requested participants.',
            'Check --participant-label, and that the participant level has run for them.',
        )
    for participant in wanted:
        try:
            make_page(settings.output_dir, participant)
        except Exception as error:
            problem = problem_of(error, f'Making the page of sub-{participant}')
            print(f'bids_muscle: {problem}', file=sys.stderr)
            if settings.verbosity > 1:
                traceback.print_exc()
            code = ExitCode(problem.exit_code)
    return code


def _exit_code(records: Sequence[ScanRecord], problems: Sequence[Problem] = ()) -> ExitCode:
    """Return OK, or the code that all failed scans share, or FAILURE.

    A participant without any scan counts only where no other has one.
    """
    present = [record for record in records if not is_empty(record)] or list(records)
    problems = [record.problem for record in present if record.problem] + list(problems)
    codes = {ExitCode(problem.exit_code) for problem in problems}
    return codes.pop() if len(codes) == 1 else ExitCode.FAILURE if codes else ExitCode.OK


def _graph_folder(work_dir: Path, participant: str) -> Path:
    """Return the folder of a participant's graph: other jobs may share the rest."""
    from bids_muscle.workflows.participant import workflow_name

    return work_dir / WORKFLOW / workflow_name(f'sub-{participant}')
