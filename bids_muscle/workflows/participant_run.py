"""One participant in a run: the plan, what is finished, and how it ended.

The run, its dry run and the jobs of Slurm all ask here whether something is finished. There are
two answers: :class:`ParticipantRun` reads the images, :func:`seems_finished` only the records.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.corrections import images_digest
from bids_muscle.dataset.kept_maps import remove_network_maps
from bids_muscle.dataset.names import derivative_path, output_contrasts, participant_path
from bids_muscle.dataset.records import (
    ScanRecord,
    read_records,
    read_session_records,
    remove_aside,
    write_record,
)
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_text
from bids_muscle.engine.outcome import RunReport, Status
from bids_muscle.errors import problem_of
from bids_muscle.workflows.planning import RunInputs, plan_participant
from bids_muscle.workflows.records import (
    forget_records,
    is_away,
    is_empty,
    make_record,
    remove_stale,
    sealed,
)
from bids_muscle.workflows.resume import (
    fingerprints,
    finished_scans,
    page_path,
    preparation,
    refresh,
    remove_page,
)


@dataclass(frozen=True)
class ParticipantRun:
    """What there is to do for one participant, and what an earlier run has done.

    Parameters
    ----------
    inputs
        What all participants of the run are processed with.
    participant
        Label without ``sub-``.
    scans
        All of its scans.
    fingerprints
        SHA-256 of all that decides the outputs of a scan, by its name, from before the run.
    finished
        Records of the scans that need not run, by name.
    earlier
        Records that :meth:`begin` set aside, by name; they list the files of the earlier run.
    """

    inputs: RunInputs
    participant: str
    scans: tuple[Scan, ...]
    fingerprints: Mapping[str, str]
    finished: Mapping[str, ScanRecord]
    earlier: Mapping[str, ScanRecord] = field(default_factory=dict)

    @classmethod
    def plan(
        cls, inputs: RunInputs, participant: str, *, only_recorded: bool = False
    ) -> ParticipantRun:
        """Look up the scans of a participant, and which of them are finished.

        Parameters
        ----------
        inputs
            What all participants of the run are processed with.
        participant
            Label without ``sub-``.
        only_recorded
            Do not read the images of a participant without a finished scan.
        """
        settings = inputs.settings
        scans = plan_participant(inputs, participant)
        every = read_records(settings.output_dir, participant)
        records = [] if settings.overwrite else every
        # An image out of reach does not show that it is sagittal, and has not changed.
        away = {scan.name for scan in scans if is_away(settings, scan)}
        spines = {
            each.scan: each.fingerprint
            for each in every
            if each.region == SPINE and each.status == 'done' and each.scan in away
        }
        scans = [replace(scan, region=SPINE) if scan.name in spines else scan for scan in scans]
        asked = not only_recorded or any(record.status == 'done' for record in records)
        prints = fingerprints(settings, scans, inputs.models, spines) if asked else {}
        finished = finished_scans(settings, records, scans, prints)
        return cls(inputs, participant, tuple(scans), prints, finished)

    @property
    def left(self) -> list[Scan]:
        """The scans that are not finished."""
        return [scan for scan in self.scans if scan.name not in self.finished]

    @property
    def is_finished(self) -> bool:
        """Whether no scan is left to run."""
        return not self.left

    @property
    def fuller(self) -> int:
        """Number of finished scans that have more files than this run would keep."""
        level = self.inputs.settings.output_level
        return sum(record.output_level != level for record in self.finished.values())

    def published_spines(self, report: RunReport) -> list[Scan]:
        """Return the sagittal scans whose outputs are there, of an earlier run or of this one."""
        spines = [scan for scan in self.scans if scan.region == SPINE]
        return [
            scan
            for scan in spines
            if scan.name in self.finished
            or ((end := report.of(scan.name).get('publish')) and end.status is Status.DONE)
        ]

    def missing_spines(self, scan: Scan, report: RunReport) -> tuple[str, ...]:
        """Say of which sagittal scans an axial one should have had its vertebral levels."""
        if scan.region == SPINE or self.inputs.settings.levels:
            return ()
        published = self.published_spines(report)
        return tuple(
            f'{spine.name} failed, so its vertebrae do not define the levels of this scan.'
            for spine in self.scans
            if spine.region == SPINE and spine.session == scan.session and spine not in published
        )

    def begin(self) -> ParticipantRun:
        """Take away what the run makes untrue: the page and the records of scans that are left.

        Raises
        ------
        BidsMuscleError
            If one cannot be removed; the participant must not run then.
        """
        settings = self.inputs.settings
        refresh(settings, self.scans, self.finished)
        earlier = forget_records(settings, self.participant, self.left, self.finished)
        for scan in self.left:
            record = earlier.get(scan.name)
            if record and record.images_sha256 and scan.manual:
                now = images_digest(scan.paths.values())
                if now not in ('', record.images_sha256):
                    remove_network_maps(scan, settings.output_dir)
        return replace(self, earlier=earlier)

    def corrected_images(self) -> dict[str, dict[str, Path]]:
        """Return the images that need not be prepared again, by scan and contrast.

        They are those of scans of which only the label map has changed: a person corrected it, or
        withdrew a correction.
        """
        settings = self.inputs.settings
        images = {}
        for scan in self.left:
            record = self.earlier.get(scan.name)
            if record is None or scan.region == SPINE:  # whose image is not prepared
                continue
            by_person = scan.manual or record.processing.get('manual')
            # Images whose water and fat were swapped would not be searched for swaps again.
            if not (by_person and settings.bias_correction) or settings.fix_swaps:
                continue
            names = {
                str(contrast): str(derivative_path(scan, 'preproc', contrast=contrast))
                for contrast in output_contrasts(scan)
            }
            if (
                record.prepared == preparation(settings, scan) != ''
                and record.status == 'done'
                and set(names.values()) <= set(record.outputs)
            ):
                paths = {contrast: settings.output_dir / name for contrast, name in names.items()}
                if all(path.is_file() for path in paths.values()):
                    images[scan.name] = paths
        return images

    def refused(self, error: Exception) -> list[ScanRecord]:
        """Describe, but write nothing about, the scans of a participant who cannot be begun."""
        problem = problem_of(error, f'Removing the records of sub-{self.participant}')
        print(f'bids_muscle: {problem}', file=sys.stderr)
        scans = [replace(scan, problem=scan.problem or problem) for scan in self.scans]
        return [make_record(self.inputs, scan, RunReport(())) for scan in scans]

    def finish(self, report: RunReport) -> list[ScanRecord]:
        """Write the records of the scans that were left, and remove what no record lists.

        Parameters
        ----------
        report
            What became of the steps of all scans.

        Returns
        -------
        list of ScanRecord
            One a scan that was left; what could not be written is the problem of the record.
        """
        settings, scans = self.inputs.settings, self.left
        if self.is_finished and page_path(settings.output_dir, self.participant).is_file():
            return []
        after = fingerprints(settings, self.scans, self.inputs.models, self.fingerprints)
        records = []
        for scan in scans:
            record = make_record(self.inputs, scan, report)
            warnings = (*record.warnings, *self.missing_spines(scan, report))
            records.append(sealed(replace(record, warnings=warnings), self.fingerprints, after))
        ended = []
        others = {each.scan for each in read_records(settings.output_dir, self.participant)}
        for scan, record in zip(scans, records, strict=True):
            stays = record.problem and _has_record(scan, others)
            if not stays:
                ended.append((scan, record))
            if record.problem:
                end = 'has nothing to do.' if is_empty(record) else 'failed.'
                rest = ' What an earlier run wrote of it stays.' if stays else ''
                print(f'bids_muscle: {record.scan} {end} {record.problem}{rest}', file=sys.stderr)
        try:
            remove_stale(settings, self.participant, self.earlier.values(), ended)
            for scan, record in ended:
                write_record(record, scan, settings.output_dir)
            for earlier in self.earlier.values():
                remove_aside(earlier, settings.output_dir)
            # A page made meanwhile, by a job for another session, does not know these scans.
            remove_page(settings.output_dir, self.participant)
            path = settings.output_dir / participant_path(self.participant, 'settings')
            write_text(settings.to_toml(), path)
        except Exception as error:
            problem = problem_of(error, f'Writing the records of sub-{self.participant}')
            print(f'bids_muscle: {problem}', file=sys.stderr)
            return [replace(record, problem=record.problem or problem) for record in records]
        return records


def _has_record(scan: Scan, recorded: Collection[str]) -> bool:
    """Return whether an earlier record of a scan, or of scans at its place, was left."""
    below = f'{scan.name}_'
    return scan.name in recorded or (
        scan.is_place and any(name.startswith(below) for name in recorded)
    )


def seems_finished(inputs: RunInputs, participant: str) -> bool:
    """Return from the records alone whether nothing is left to do for a participant.

    No image is read: that one has changed or has come is noticed by :meth:`ParticipantRun.plan`
    alone. The page is the last file that a run writes. Label maps below ``--derivatives`` may
    have changed, so nobody who has one is finished.
    """
    settings = inputs.settings
    records = read_records(settings.output_dir, participant)
    steps = read_session_records(settings.output_dir, participant)
    maps = (folder.glob(f'sub-{participant}/**/*_dseg.nii*') for folder in settings.derivatives)
    return (
        bool(records)
        and not settings.overwrite
        and all(record.status == 'done' and inputs.fits(record) for record in records)
        and not any(step.problem for step in steps.values())
        and page_path(settings.output_dir, participant).is_file()
        and not any(next(found, None) for found in maps)
    )
