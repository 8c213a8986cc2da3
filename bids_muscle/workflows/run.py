"""Drive a level: plan, run, record, report. One bad scan never stops the others."""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.folders import list_unusable
from bids_muscle.dataset.names import participant_path
from bids_muscle.dataset.participants import keep_participants
from bids_muscle.dataset.plan import format_counts, format_plan
from bids_muscle.dataset.records import ScanRecord, read_records
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.sessions import read_visits
from bids_muscle.dataset.writer import remove_torn, write_dataset_files
from bids_muscle.engine.outcome import RunReport
from bids_muscle.errors import (
    ExitCode,
    MissingInputError,
    NothingSelectedError,
    Problem,
    problem_of,
)
from bids_muscle.imaging.atlas import atlas_name
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.tables import MOST_NAMED
from bids_muscle.workflows.parts import join_scans
from bids_muscle.workflows.planning import (
    choose_participants,
    find_atlases,
    find_models,
    folder_remarks,
    left_out,
    plan_participant,
    say_all,
)
from bids_muscle.workflows.progress import Progress
from bids_muscle.workflows.records import (
    finish_page,
    finish_participant,
    forget_records,
    is_empty,
    make_page,
    refused,
)
from bids_muscle.workflows.resume import fingerprints, finished_scans, refresh
from bids_muscle.workflows.spinal_loads import check_loading, measure_participant_loads
from bids_muscle.workflows.spine import join_planes, measure_spines
from bids_muscle.workflows.summary import causes
from bids_muscle.workflows.work_folder import WORKFLOW, work_folder

if TYPE_CHECKING:
    from bids_muscle.engine.nipype_plugin import NipypePlugin
    from bids_muscle.engine.resources import Resources
    from bids_muscle.settings import Settings


def print_plan(settings: Settings) -> None:
    """Print what the participant level would do, and compute nothing."""
    models, refusals = find_models(settings)
    atlases = {region: atlas_name(folder) for region, folder in find_atlases(settings).items()}
    participants, _ = choose_participants(settings)
    count = ready = finished = 0
    every: list[Scan] = []
    for participant in participants:
        scans = plan_participant(settings, participant, refusals)
        count += len(scans)
        ready += sum(scan.problem is None for scan in scans)
        # Only images of which it is to be known are read in full.
        known = {
            record.scan
            for record in read_records(settings.output_dir, participant)
            if record.status == 'done' and not settings.overwrite
        }
        prints = fingerprints(settings, [scan for scan in scans if scan.name in known], models)
        finished += len(finished_scans(settings, participant, scans, prints))
        if settings.quiet:
            every += scans
            continue
        print(
            format_plan(
                scans,
                models,
                settings.bids_dir,
                bias_correction=settings.bias_correction,
                atlases=atlases,
                deformable=settings.register == 'deformable',
            )
        )
    if settings.quiet:
        print(format_counts(every), end='')
        for line in causes((scan.name, scan.problem) for scan in every):
            print(line)
    print(
        f'{ready} of {count} scans of {len(participants)} '
        f'{"participants" if len(participants) != 1 else "participant"} can be processed, '
        f'{finished} of them finished before; {left_out(settings.bids_dir)}outputs go to '
        f'{settings.output_dir}. Nothing was computed.'
    )


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
    from bids_muscle.engine.resources import resolve_resources
    from bids_muscle.engine.worker import start_forkserver

    plugin = None
    if settings.use_plugin:
        from bids_muscle.engine.nipype_plugin import read_plugin

        plugin = read_plugin(settings.use_plugin)
    elif _something_left(settings, participants):
        start_forkserver()  # it imports for seconds, while the first participants are looked up
    resources = resolve_resources(settings)
    models, refusals = find_models(settings)
    atlases = find_atlases(settings)
    write_dataset_files(settings.output_dir, settings.bids_dir, list(models.values()))
    progress.begin(participants)
    records: list[ScanRecord] = []
    problems: list[Problem] = []
    spoken_of: set[str | None] = set()
    # As many participants in one graph as there are CPUs keep all of them busy.
    for start in range(0, len(participants), resources.nprocs):
        chosen = participants[start : start + resources.nprocs]
        plans, prints, earlier, known = {}, {}, {}, {}
        for participant in chosen:
            scans = known[participant] = plan_participant(settings, participant, refusals)
            prints[participant] = fingerprints(settings, scans, models)
            try:
                finished = finished_scans(settings, participant, scans, prints[participant])
                progress.plan(participant, scans, finished)
                refresh(settings, scans, finished)
                plans[participant] = [scan for scan in scans if scan.name not in finished]
                earlier[participant] = forget_records(
                    settings, participant, plans[participant], finished
                )
                records += finished.values()
            except Exception as error:
                plans.pop(participant, None)
                records += refused(settings, scans, models, error)
        regions = {scan.region for scans in plans.values() for scan in scans if not scan.problem}
        for region, model in models.items():
            if region in regions - spoken_of:
                say_all(model.remarks())
        spoken_of |= regions
        with work_folder(settings.work_dir) as work_dir:
            # Sagittal scans first: their vertebrae tell the levels of the axial slices.
            report = RunReport(())
            for spines in (True, False):
                part = {
                    participant: [scan for scan in scans if (scan.region == SPINE) == spines]
                    for participant, scans in plans.items()
                }
                told = [
                    scan
                    for scans in known.values()
                    for scan in scans
                    if scan.region == SPINE and _is_published(scan, plans, report)
                ]
                ran = _run_scans(
                    settings, resources, part, models, atlases, told, work_dir, plugin, progress
                )
                report = RunReport((*report.outcomes, *ran.outcomes))
                if settings.stop_on_first_crash and not report.ok:
                    break
            for participant, scans in plans.items():
                ended = finish_participant(
                    settings,
                    participant,
                    scans,
                    known[participant],
                    earlier[participant],
                    prints[participant],
                    models,
                    report,
                )
                records += ended
                if settings.clean_workdir and not any(record.problem for record in ended):
                    shutil.rmtree(_graph_folder(work_dir, participant), ignore_errors=True)
        for participant in chosen:
            if participant in plans:
                problems += join_scans(settings, participant, known[participant])
            problems += measure_spines(settings, participant)
            problems += join_planes(settings, participant)
            problems += measure_participant_loads(settings, participant)
            if participant in plans:
                problems += finish_page(settings, participant, plans[participant])
        if settings.stop_on_first_crash and not report.ok:
            break
    progress.end(records, problems)
    code = _exit_code(records, problems)
    # Who is asked for by name is missed; of all, some may have other scans only.
    complete = complete and not (settings.participants and any(map(is_empty, records)))
    return code if complete or code else ExitCode.NOTHING_SELECTED


def _something_left(settings: Settings, participants: Sequence[str]) -> bool:
    """Say whether some scan surely has to run; a glance at the records, not at the images."""
    if settings.overwrite:
        return True
    known = (read_records(settings.output_dir, participant) for participant in participants)
    return any(not each or any(record.status != 'done' for record in each) for each in known)


def run_group(settings: Settings) -> ExitCode:
    """Run the group level, from the outputs of the participant level alone."""
    from bids_muscle.reports.group import write_group

    records = _require_records(settings)
    for folder in (settings.output_dir, settings.output_dir / 'phenotype'):
        remove_torn(folder, below=False)
    recorded = {record.participant for record in records}
    table = keep_participants(settings.bids_dir, settings.output_dir, recorded)
    remarks = list(table.remarks) if table else []
    if table is None and any(record.participant_info for record in records):
        remarks.append(
            f'There is no participants.tsv in {settings.bids_dir}: what the participant level '
            'noted about people is used.'
        )
    visits, others = read_visits(settings.bids_dir, sorted(recorded))
    remarks += others[:MOST_NAMED]
    if len(others) > MOST_NAMED:
        more = len(others) - MOST_NAMED
        remarks.append(f'{more} more remarks concern other tables of sessions and scans.')
    unusable = list_unusable(settings.bids_dir) if settings.bids_dir.is_dir() else []
    say_all([*folder_remarks(settings.bids_dir), *remarks])
    written = write_group(
        settings.output_dir,
        settings.qc_ratings,
        people=table.rows if table else None,
        unusable=unusable,
        exclude=settings.exclude,
        formula=settings.formula,
        harmonise_sites=settings.harmonise_sites,
        visits=visits,
        remarks=remarks,
        session_order=settings.session_order,
    )
    for path in written:
        print(path)
    return ExitCode.OK


def _require_records(settings: Settings) -> list[ScanRecord]:
    """Return the scan records of the output folder, at least one."""
    if not settings.output_dir.is_dir():
        raise MissingInputError(
            f'The output folder {settings.output_dir} is not there.',
            'Run the participant level first.',
        )
    records = read_records(settings.output_dir)
    if not records:
        raise NothingSelectedError(
            f'{settings.output_dir} holds no scan of the participant level.',
            'Run the participant level first, with the same output folder.',
        )
    return records


def _run_scans(
    settings: Settings,
    resources: Resources,
    plans: Mapping[str, Sequence[Scan]],
    models: Mapping[str, ModelBundle],
    atlases: Mapping[str, Path],
    sagittal: Sequence[Scan],
    work_dir: Path,
    plugin: NipypePlugin | None,
    progress: Progress,
) -> RunReport:
    """Run the graphs of some participants side by side."""
    if not any(plans.values()):
        return RunReport(())
    from nipype.pipeline.engine import Workflow

    from bids_muscle.engine.execute import run_workflow
    from bids_muscle.workflows.participant import init_participant_wf

    workflow = Workflow(WORKFLOW, base_dir=work_dir)
    for participant, scans in plans.items():
        graph = init_participant_wf(
            participant=participant,
            scans=[scan for scan in scans if scan.problem is None],
            models=models,
            atlases=atlases,
            levels=settings.levels,
            derivatives=settings.derivatives,
            sagittal=sagittal,
            bids_dir=settings.bids_dir,
            output_dir=settings.output_dir,
            settings=settings.science(),
            omp_nthreads=resources.omp_nthreads,
            use_gpu=resources.use_gpu,
        )
        if settings.write_graph and scans:
            # Sagittal and axial scans run one after the other, in graphs of their own.
            name = 'graph_sagittal' if scans[0].region == SPINE else 'graph'
            path = settings.output_dir / participant_path(participant, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            graph.write_hierarchical_dotfile(str(path))
        workflow.add_nodes([graph])
    return run_workflow(
        workflow,
        nprocs=resources.nprocs,
        memory_gb=resources.memory_gb,
        devices=resources.devices,
        crash_dir=settings.output_dir / 'logs/crash',
        stop_on_first_crash=settings.stop_on_first_crash,
        on_start=progress.begin_step,
        on_outcome=progress.end_step,
        plugin=plugin,
    )


def _is_published(scan: Scan, plans: Mapping[str, Sequence[Scan]], report: RunReport) -> bool:
    """Say whether the outputs of a scan are there, from an earlier run or from this one."""
    from bids_muscle.workflows.participant import workflow_name

    if scan.name not in {each.name for each in plans.get(scan.participant, ())}:
        return True
    end = f'.{workflow_name(scan.name)}.publish'
    return any(each.fullname.endswith(end) and each.status == 'done' for each in report.outcomes)


def _report_again(settings: Settings) -> ExitCode:
    """Make the pages again from the outputs alone."""
    code = ExitCode.OK
    known = sorted({record.participant for record in _require_records(settings)})
    wanted = [label for label in known if label in (settings.participants or known)]
    if not wanted:
        raise NothingSelectedError(
            f'{settings.output_dir} holds none of the participants asked for.',
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
