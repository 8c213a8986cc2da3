"""Drive a level: plan, run, record, report. One bad scan never stops the others."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle import __version__
from bids_muscle.anatomy.labels import REGIONS
from bids_muscle.dataset.contrasts import load_contrast_rules
from bids_muscle.dataset.discovery import (
    find_scans,
    read_participant_info,
    select_participants,
)
from bids_muscle.dataset.index import read_filters
from bids_muscle.dataset.names import participant_path
from bids_muscle.dataset.plan import format_plan
from bids_muscle.dataset.records import ScanRecord, Step, read_records, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_dataset_files, write_text
from bids_muscle.errors import (
    BidsMuscleError,
    ExitCode,
    MissingInputError,
    ModelError,
    NothingSelectedError,
    OutputError,
    Problem,
    TemporaryError,
)
from bids_muscle.segmentation.bundle import ModelBundle, find_model

if TYPE_CHECKING:
    from bids_muscle.engine.outcome import NodeOutcome, RunReport
    from bids_muscle.engine.resources import Resources
    from bids_muscle.settings import Settings

WORKFLOW = 'bids_muscle_wf'
_PACKAGES = ('antspyx', 'monai', 'nibabel', 'nipype', 'numpy', 'pybids', 'scipy', 'torch')


def print_plan(settings: Settings) -> None:
    """Print what the participant level would do, and compute nothing."""
    models, refusals = _find_models(settings)
    for participant in _participants(settings):
        scans = _plan(settings, participant, refusals)
        print(
            format_plan(
                scans,
                models,
                settings.bids_dir,
                settings.output_dir,
                bias_correction=settings.bias_correction,
            )
        )


def run_participants(settings: Settings) -> ExitCode:
    """Run the participant level.

    Returns
    -------
    ExitCode
        OK if every scan is done; the code of the problem where all problems share one; else
        FAILURE.

    Raises
    ------
    BidsMuscleError
        If nothing can be done at all: no dataset, no output folder, no device, nothing selected.
    """
    participants = _participants(settings)
    if settings.reports_only:
        return _report_again(settings, participants)
    from bids_muscle.engine.resources import resolve_resources
    from bids_muscle.engine.worker import start_forkserver

    start_forkserver()  # it imports for seconds, while the first participants are looked up
    resources = resolve_resources(settings)
    models, refusals = _find_models(settings)
    write_dataset_files(settings.output_dir, settings.bids_dir, list(models.values()))
    records: list[ScanRecord] = []
    with _work_folder(settings) as work_dir:
        # As many participants in one graph as there are CPUs keep all of them busy.
        for start in range(0, len(participants), resources.nprocs):
            plans = {
                participant: _plan(settings, participant, refusals)
                for participant in participants[start : start + resources.nprocs]
            }
            report = _run_scans(settings, resources, plans, models, work_dir)
            for participant, scans in plans.items():
                records += _finish_participant(settings, participant, scans, models, report)
            if settings.stop_on_first_crash and not report.ok:
                break
    return _exit_code(records)


def run_group(settings: Settings) -> ExitCode:
    """Run the group level, from the outputs of the participant level alone."""
    from bids_muscle.reports.group import write_group

    if not settings.output_dir.is_dir():
        raise MissingInputError(
            f'The output folder {settings.output_dir} is not there.',
            'Run the participant level first.',
        )
    if not read_records(settings.output_dir):
        raise NothingSelectedError(
            f'{settings.output_dir} holds no scan of the participant level.',
            'Run the participant level first, with the same output folder.',
        )
    for path in write_group(settings.output_dir, settings.qc_ratings):
        print(path)
    return ExitCode.OK


def _participants(settings: Settings) -> list[str]:
    found, missing = select_participants(settings.bids_dir, settings.participants)
    if not found:
        raise _nothing(settings)
    for label in missing:
        print(
            f'bids_muscle: sub-{label} is not in {settings.bids_dir} and is left out.',
            file=sys.stderr,
        )
    return found


def _nothing(settings: Settings, participant: str | None = None) -> NothingSelectedError:
    where = f'sub-{participant} in {settings.bids_dir}' if participant else settings.bids_dir
    return NothingSelectedError(
        f'Nothing of {where} fits the participants, sessions and filters asked for.',
        'Look with --dry-run, and check the labels, --bids-filter-file and --contrast-rules.',
    )


def _find_models(settings: Settings) -> tuple[dict[str, ModelBundle], dict[str, Problem]]:
    """Return the model of each region, and why a region has none."""
    models, refusals = {}, {}
    for region in REGIONS:
        try:
            models[region] = find_model(settings.model, region)
        except ModelError as error:
            refusals[region] = error.problem
    if not models:
        refusal = refusals[settings.region or REGIONS[0]]
        raise ModelError(refusal.message, refusal.remedy)
    return models, refusals


def _plan(settings: Settings, participant: str, refusals: Mapping[str, Problem]) -> list[Scan]:
    """List the scans of a participant; one without a model gets that as its problem.

    A participant without scans has one nameless scan whose problem says so.
    """
    rules = load_contrast_rules(settings.contrast_rules)
    filters = read_filters(settings.bids_filter_file) if settings.bids_filter_file else None
    try:
        scans = find_scans(
            settings.bids_dir,
            participant,
            rules=rules,
            sessions=settings.sessions,
            region=settings.region,
            filters=filters,
        )
        problem = None if scans else _nothing(settings, participant).problem
    except Exception as error:
        scans, problem = [], _unforeseen(error, f'looking up sub-{participant}')
    if problem:
        return [Scan((('sub', participant),), 'T1w', settings.region, (), problem=problem)]
    return [
        replace(scan, problem=scan.problem or refusals.get(scan.region or '')) for scan in scans
    ]


def _run_scans(
    settings: Settings,
    resources: Resources,
    plans: Mapping[str, Sequence[Scan]],
    models: Mapping[str, ModelBundle],
    work_dir: Path,
) -> RunReport:
    """Run the graphs of some participants side by side."""
    from nipype.pipeline.engine import Workflow

    from bids_muscle.engine.execute import run_workflow
    from bids_muscle.workflows.participant import init_participant_wf

    # The sidecars name the model with its checksum; its path may differ between machines.
    science = {key: value for key, value in settings.science().items() if key != 'model'}
    workflow = Workflow(WORKFLOW, base_dir=work_dir)
    for participant, scans in plans.items():
        graph = init_participant_wf(
            participant=participant,
            scans=[scan for scan in scans if scan.problem is None],
            models={region: (model.path, model.sha256) for region, model in models.items()},
            bids_dir=settings.bids_dir,
            output_dir=settings.output_dir,
            settings=science,
            omp_nthreads=resources.omp_nthreads,
            use_gpu=resources.devices != ('cpu',),
        )
        if settings.write_graph:
            path = settings.output_dir / participant_path(participant, 'graph')
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
        on_outcome=_say if settings.verbosity else None,
    )


def _say(outcome: NodeOutcome) -> None:
    name = outcome.fullname.removeprefix(f'{WORKFLOW}.')
    print(f'{name}: {outcome.status} in {outcome.wall_s:.1f} s', file=sys.stderr, flush=True)


def _finish_participant(
    settings: Settings,
    participant: str,
    scans: Sequence[Scan],
    models: Mapping[str, ModelBundle],
    report: RunReport,
) -> list[ScanRecord]:
    """Write the records and the page of a participant once its graph has run."""
    from bids_muscle.reports.participant import write_participant_report

    records = []
    for scan in scans:
        record = _record(settings, scan, models, report)
        if record.problem:
            print(f'bids_muscle: {record.scan} failed. {record.problem}', file=sys.stderr)
        write_record(record, scan, settings.output_dir)
        records.append(record)
    write_text(settings.to_toml(), settings.output_dir / participant_path(participant, 'settings'))
    try:
        print(write_participant_report(settings.output_dir, participant), flush=True)
    except Exception as error:
        # The measures are there; the page can be made again.
        problem = _unforeseen(error, f'making the page of sub-{participant}')
        print(f'bids_muscle: {problem}', file=sys.stderr)
        records = [replace(record, problem=record.problem or problem) for record in records]
    return records


def _unforeseen(error: Exception, doing: str) -> Problem:
    """Describe an error of one participant, so that the others go on."""
    if isinstance(error, BidsMuscleError):
        return error.problem
    kind = type(error).__name__
    return Problem(
        kind,
        f'Something unforeseen went wrong when {doing}: {kind}: {error}.',
        'Report it with the version of bids_muscle and this sentence.',
    )


def _record(
    settings: Settings, scan: Scan, models: Mapping[str, ModelBundle], report: RunReport
) -> ScanRecord:
    """Describe how a scan ended."""
    from bids_muscle.workflows.participant import workflow_name

    prefix = f'.{workflow_name(scan.name)}.'
    outcomes = [outcome for outcome in report.outcomes if prefix in f'.{outcome.fullname}.']
    outputs = {outcome.name: outcome.outputs for outcome in outcomes}
    prepared, segmented = outputs.get('prepare', {}), outputs.get('segment', {})
    model = models.get(scan.region or '')
    failure = next((outcome.problem for outcome in outcomes if outcome.problem), None)
    problem = scan.problem or failure or _not_run(scan, outcomes)
    return ScanRecord(
        participant=scan.participant,
        session=scan.session,
        scan=scan.name,
        region=scan.region,
        status='failed' if problem else 'done',
        problem=problem,
        # Both look at the headers, so both may say the same.
        warnings=tuple(dict.fromkeys((*scan.warnings, *prepared.get('warnings', ())))),
        inputs={
            str(contrast): path.relative_to(settings.bids_dir).as_posix()
            for contrast, path in scan.paths.items()
        },
        model={'name': model.name, 'version': model.version, 'sha256': model.sha256}
        if model and outcomes
        else {},
        versions={'bids_muscle': __version__} | {name: version(name) for name in _PACKAGES},
        device=segmented.get('device', ''),
        processing={
            'bias_correction': settings.bias_correction,
            'bounded': prepared.get('bounded', False),
        },
        participant_info=read_participant_info(settings.bids_dir, scan.participant),
        settings_digest=settings.science_digest(),
        steps=tuple(
            Step(outcome.name, round(outcome.wall_s, 2), outcome.peak_mb) for outcome in outcomes
        ),
    )


def _not_run(scan: Scan, outcomes: Sequence[NodeOutcome]) -> Problem | None:
    """Return a problem for a scan that was skipped since another one failed."""
    if all(outcome.status == 'done' for outcome in outcomes):
        return None
    return TemporaryError(
        f'{scan.name} was not run, because another scan failed before it.',
        'Run again without --stop-on-first-crash.',
    ).problem


def _report_again(settings: Settings, participants: Sequence[str]) -> ExitCode:
    """Make the pages again from the outputs."""
    from bids_muscle.reports.participant import write_participant_report

    for participant in participants:
        print(write_participant_report(settings.output_dir, participant))
    return ExitCode.OK


def _exit_code(records: Sequence[ScanRecord]) -> ExitCode:
    """Return OK, or the code that all failed scans share, or FAILURE.

    A participant without any scan counts only where no other has one.
    """
    present = [r for r in records if not _is_empty(r)] or list(records)
    codes = {ExitCode(r.problem.exit_code) for r in present if r.problem}
    return codes.pop() if len(codes) == 1 else ExitCode.FAILURE if codes else ExitCode.OK


def _is_empty(record: ScanRecord) -> bool:
    return bool(record.problem and record.problem.kind == NothingSelectedError.__name__)


@contextmanager
def _work_folder(settings: Settings) -> Iterator[Path]:
    """Give the folder for intermediate files; one that nobody asked for is removed."""
    if settings.work_dir is None:
        with tempfile.TemporaryDirectory(prefix='bids_muscle-') as folder:
            yield Path(folder)
        return
    try:
        settings.work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f'The work folder {settings.work_dir} cannot be made: {error.strerror}.',
            'Name a folder that can be written with --work-dir.',
        ) from error
    yield settings.work_dir
    if settings.clean_workdir:
        shutil.rmtree(settings.work_dir / WORKFLOW, ignore_errors=True)
