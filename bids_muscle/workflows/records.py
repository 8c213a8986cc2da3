"""What is left of a run: records, pages, and nothing that an earlier run left and this one lost.

A scan's record is set aside before it runs and written when it has ended, so that a run which is
killed leaves no record that speaks of other files than those that are there, and the next run
still knows what to remove.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle import __version__
from bids_muscle.anatomy.labels import REGIONS, SPINE
from bids_muscle.dataset.corrections import images_digest
from bids_muscle.dataset.kept_maps import kept_files
from bids_muscle.dataset.names import expected_outputs
from bids_muscle.dataset.participants import read_participant_info
from bids_muscle.dataset.records import (
    ScanRecord,
    StepCost,
    read_aside,
    read_records,
    set_record_aside,
    write_light,
)
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.sessions import read_session_info
from bids_muscle.dataset.writer import remove_torn
from bids_muscle.errors import (
    MissingInputError,
    NothingSelectedError,
    Problem,
    TemporaryError,
    problem_of,
)
from bids_muscle.imaging.atlas import atlas_name, find_atlas
from bids_muscle.workflows.resume import page_path, preparation, remove_page, settings_digest

if TYPE_CHECKING:
    from bids_muscle.engine.outcome import NodeOutcome, RunReport
    from bids_muscle.segmentation.bundle import ModelBundle
    from bids_muscle.settings import Settings
    from bids_muscle.workflows.planning import RunInputs

_PACKAGES = ('antspyx', 'monai', 'nibabel', 'nipype', 'numpy', 'pybids', 'scipy', 'torch')


def forget_records(
    settings: Settings, participant: str, scans: Sequence[Scan], finished: Collection[str] = ()
) -> dict[str, ScanRecord]:
    """Remove the page, and set aside the records of scans about to run or no longer there.

    Finished scans whose images cannot be looked at stay as they are: an image that
    ``datalad drop`` removed, or a folder that cannot be read, has not changed for all we know.

    Parameters
    ----------
    settings
        The settings of the run.
    participant
        Label without ``sub-``.
    scans
        Scans that are about to run.
    finished
        Names of scans that need not run.

    Returns
    -------
    dict
        These records by scan name, with those of a run that was killed; they say which files the
        earlier run wrote.

    Raises
    ------
    OutputError
        If one cannot be removed; the participant must not run then.
    """
    planned = {scan.name for scan in scans}
    records = read_records(settings.output_dir, participant)
    kept = _out_of_reach(settings, scans, records)
    planned -= kept
    current = {*planned, *finished, *kept}
    places = {f'sub-{participant}', *(f'sub-{participant}_ses-{scan.session}' for scan in scans)}
    known = {record.scan for record in records}
    # Of what these list, the killed run may have written some again, from other images.
    killed = [
        replace(record, prepared='')
        for record in read_aside(settings.output_dir, participant)
        if record.scan not in known
    ]
    removed = {}
    for record in [*records, *killed]:
        if record.scan in finished or record.scan in kept:
            continue
        # A joined scan stays while nothing happens to its parts.
        touched = not planned.isdisjoint(record.parts)
        if record.parts and not touched and current.issuperset(record.parts):
            continue
        narrowed = settings.bids_filter_file or (
            settings.sessions and record.session not in settings.sessions
        )
        if record.scan in planned | places or touched or not narrowed:
            set_record_aside(record, settings.output_dir)
            removed[record.scan] = record
    if scans or removed:
        # Were this run killed, a page of the earlier one would speak of what is gone.
        remove_page(settings.output_dir, participant)
    return removed


def _out_of_reach(
    settings: Settings, scans: Sequence[Scan], records: Sequence[ScanRecord]
) -> set[str]:
    """Return the names of finished scans whose images cannot be looked at now."""
    away = [scan for scan in scans if is_away(settings, scan)]
    names = {scan.name for scan in away}
    planned = {scan.name for scan in scans} - names
    places = tuple(f'{scan.name}_' for scan in away if scan.is_place)
    return {
        record.scan
        for record in records
        if record.status == 'done'
        and (
            record.scan in names or (record.scan.startswith(places) and record.scan not in planned)
        )
    }


def is_away(settings: Settings, scan: Scan) -> bool:
    """Return whether the images of a scan, or of a whole place, are there but out of reach.

    A participant's folder without anything in it is a DataLad dataset that is not installed: git
    keeps no empty folders.
    """
    if scan.problem is None:
        return False
    if scan.problem.kind == MissingInputError.__name__:
        return True
    folder = settings.bids_dir / f'sub-{scan.participant}'
    return scan.is_place and folder.is_dir() and not any(folder.iterdir())


def sealed(record: ScanRecord, before: Mapping[str, str], after: Mapping[str, str]) -> ScanRecord:
    """Add the fingerprint to a record, or a problem if the inputs changed while they were read."""
    if record.problem or before.get(record.scan) == after.get(record.scan):
        return replace(record, fingerprint=before.get(record.scan, ''))
    problem = TemporaryError(
        f'The images of {record.scan} changed while they were read.',
        'Run again when no other program writes to the dataset.',
    ).problem
    return replace(record, status='failed', problem=problem, outputs=())


def finish_page(settings: Settings, participant: str) -> list[Problem]:
    """Write the page of a participant, the last of all, if it is not there.

    Whatever changes something that the page shows has removed it.

    Returns
    -------
    list of Problem
        What went wrong.
    """
    page = page_path(settings.output_dir, participant)
    try:
        if page.is_file():
            print(page, flush=True)
        else:
            make_page(settings.output_dir, participant)
    except Exception as error:
        problem = problem_of(error, f'Making the page of sub-{participant}')
        print(f'bids_muscle: {problem}', file=sys.stderr)
        return [problem]
    return []


def make_page(output_dir: Path, participant: str) -> None:
    """Write the page of a participant and print where it is; records keep what it says of scans.

    A summary of a cohort needs to read nothing but the records then.
    """
    from bids_muscle.reports.lights import scan_light
    from bids_muscle.reports.outputs import read_scans
    from bids_muscle.reports.participant import write_participant_report

    scans = read_scans(output_dir, participant)
    for scan in scans:
        if scan.done:
            write_light(scan.record, scan_light(scan).level, output_dir)
    print(write_participant_report(output_dir, participant, scans), flush=True)


def make_record(inputs: RunInputs, scan: Scan, report: RunReport) -> ScanRecord:
    """Describe how a scan ended."""
    settings = inputs.settings
    steps = report.of(scan.name)
    outcomes = list(steps.values())
    prepared, segmented, corrected, aligned, measured, published = (
        steps[step].outputs if step in steps else {}
        for step in ('prepare', 'segment', 'correct', 'align', 'measure', 'publish')
    )
    model = inputs.models.get(scan.region or '')
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
        warnings=tuple(
            dict.fromkeys(
                warning
                for warnings in (
                    scan.warnings,
                    model.warnings() if model and outcomes and not scan.manual else (),
                    *(
                        step.get('warnings', ())
                        for step in (prepared, segmented, corrected, aligned, measured)
                    ),
                )
                for warning in warnings
            )
        ),
        inputs={
            str(contrast): path.relative_to(settings.bids_dir).as_posix()
            for contrast, path in scan.paths.items()
        },
        outputs=tuple(published.get('paths', ())),
        model=_model_fields(model, settings) if model and outcomes and not scan.manual else {},
        versions={'bids_muscle': __version__} | {name: version(name) for name in _PACKAGES},
        device=segmented.get('device', ''),
        processing={
            'bias_correction': settings.bias_correction and scan.region != SPINE,
            'bounded': prepared.get('bounded', False),
            'manual': bool(scan.manual),
            'fitted_echoes': bool(scan.echoes),
        },
        participant_info=read_participant_info(settings.bids_dir, scan.participant),
        session_info=read_session_info(settings.bids_dir, scan.participant, scan.session),
        left_out=scan.left_out,
        seg=scan.seg,
        settings_digest=settings_digest(settings),
        output_level=settings.output_level,
        prepared='' if problem or scan.region == SPINE else preparation(settings, scan),
        images_sha256=images_digest(scan.paths.values()),
        steps=tuple(
            StepCost(outcome.name, round(outcome.wall_s, 2), outcome.peak_mb)
            for outcome in outcomes
        ),
    )


def _model_fields(model: ModelBundle, settings: Settings) -> dict[str, str]:
    """Return what a record keeps of a model; a card of another program has fewer fields."""
    kept = ('limits', 'license', 'citation', 'external')
    fields = {name: str(model.card[name]) for name in kept if name in model.card}
    if 'external' in fields and settings.model_overlap is not None:
        fields['overlap'] = f'{settings.model_overlap:g}'
    return {'name': model.name, 'version': model.version, 'sha256': model.sha256, **fields}


def is_empty(record: ScanRecord) -> bool:
    """Return whether a record is of a participant without any scan to process."""
    return bool(record.problem and record.problem.kind == NothingSelectedError.__name__)


def _not_run(scan: Scan, outcomes: Sequence[NodeOutcome]) -> Problem | None:
    """Return a problem for a scan that was skipped since another one failed."""
    if outcomes and all(outcome.status == 'done' for outcome in outcomes):
        return None
    return TemporaryError(
        f'{scan.name} was not run, because another scan failed before it.',
        'Run again without --stop-on-first-crash.',
    ).problem


def _has_files(scan: Scan) -> bool:
    """Return whether there can be files of a scan; none of a region that has no model."""
    return scan.region in (*REGIONS, SPINE) or bool(scan.seg)


def remove_stale(
    settings: Settings,
    participant: str,
    earlier: Iterable[ScanRecord],
    ended: Sequence[tuple[Scan, ScanRecord]],
) -> None:
    """Remove what an earlier run, or a step that failed midway, wrote and no record speaks of."""
    stale = {name for record in earlier for name in record.outputs}
    for scan, record in ended:
        if record.problem and _has_files(scan):
            expected = expected_outputs(
                scan,
                atlas=atlas_name(find_atlas(settings.atlas, scan.region))
                if scan.region in REGIONS
                else None,
                deformable=settings.register == 'deformable',
                level=settings.output_level,
            )
            stale.update(str(path) for path in expected)
    for scan, _ in ended:
        # What the network said stays while a person's map takes its place, even in vain.
        stale.difference_update(kept_files(scan) if scan.manual else ())
        stale.update(kept_files(scan) if _has_files(scan) and not scan.manual else ())
    output_dir = settings.output_dir
    for place in (output_dir / f'sub-{participant}', output_dir / 'logs' / f'sub-{participant}'):
        remove_torn(place)
    folder = output_dir.resolve() / f'sub-{participant}'
    for name in sorted(stale - {name for _, record in ended for name in record.outputs}):
        # A record is a file that anybody may have edited, and a folder may be a link elsewhere.
        if (output_dir / name).resolve().is_relative_to(folder):
            (output_dir / name).unlink(missing_ok=True)
