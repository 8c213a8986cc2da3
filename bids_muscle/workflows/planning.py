"""What there is to do: the participants, the scans of each, and the model of each region."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from bids_muscle import __version__
from bids_muscle.anatomy.labels import BODY, OTHER_REGIONS, REGIONS, SPINE
from bids_muscle.dataset.contrasts import load_contrast_rules
from bids_muscle.dataset.corrections import (
    find_correction,
    images_digest,
    read_correction_facts,
)
from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import (
    CONVERT,
    find_dicom,
    list_ignored,
    list_participants,
    list_unusable,
    missing_sessions,
    select_participants,
)
from bids_muscle.dataset.index import read_filters
from bids_muscle.dataset.participants import read_participants
from bids_muscle.dataset.records import MadeWith, ScanRecord
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.spine_maps import find_spine_maps
from bids_muscle.errors import (
    BidsMuscleError,
    MissingInputError,
    ModelError,
    NothingSelectedError,
    Problem,
    problem_of,
)
from bids_muscle.files import RESTORE, how_to_fetch, leads_to
from bids_muscle.imaging.atlas import find_atlas
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import find_external, find_model
from bids_muscle.segmentation.external import bundle_for
from bids_muscle.settings import levels_from
from bids_muscle.tables import MISSING, name_some
from bids_muscle.user_tables import read_table
from bids_muscle.workflows.resume import settings_digest

if TYPE_CHECKING:
    from bids_muscle.settings import Settings

#: Read once for all participants.
_load_rules = lru_cache(maxsize=1)(load_contrast_rules)


@dataclass(frozen=True)
class RunInputs:
    """What all participants of a run are processed with.

    Parameters
    ----------
    settings
        The settings of the run.
    models
        Model by region.
    refusals
        Why a region has no model, by region.
    atlases
        Folder of the atlas by region.
    """

    settings: Settings
    models: Mapping[str, ModelBundle]
    refusals: Mapping[str, Problem]
    atlases: Mapping[str, Path]

    @classmethod
    def find(cls, settings: Settings) -> RunInputs:
        """Find the models and atlases that the settings name; see the functions below."""
        models, refusals = find_models(settings)
        return cls(settings, models, refusals, find_atlases(settings))

    def fits(self, record: ScanRecord) -> bool:
        """Return whether a scan was processed with these settings, this model and this version.

        It may have more files than these settings keep.
        """
        model = self.models.get(record.region or '')
        found = record.made_with
        # A scan that a person outlined has no model.
        wanted = model.sha256 if model and found.model else ''
        return found == MadeWith(
            __version__, settings_digest(self.settings), wanted
        ) and record.output_level in levels_from(self.settings.output_level)


def find_models(settings: Settings) -> tuple[dict[str, ModelBundle], dict[str, Problem]]:
    """Return the model of each region and of the spine, and why one has none.

    ``--model`` names a model for muscles or one for the spine. Where it is not for a region, that
    of ``[models]`` in the settings file counts, else the default.

    Raises
    ------
    ModelError
        If no region of muscles has one.
    """
    models, refusals = {}, {}
    # The checksum of a model of another program is that of large files: read once for all regions.
    find = cache(find_external)
    chosen: dict[str, tuple[str, str | None]] = {
        region: (name, None) for region, name in settings.models
    }
    regions = (*REGIONS, *OTHER_REGIONS)
    if settings.model:
        own = settings.model, settings.model_orientation
        chosen |= dict.fromkeys([SPINE] if _is_for_spine(find, *own) else regions, own)
    for region in (SPINE, *regions):
        name, orientation = chosen.get(region, (None, None))
        try:
            other = find(name, orientation) if name else None
            models[region] = (
                bundle_for(other, region) if other else find_model(name, region, orientation)
            )
        except ModelError as error:
            refusals[region] = error.problem
    if not models.keys() - {SPINE}:
        refusal = refusals[settings.region or REGIONS[0]]
        raise ModelError(refusal.message, refusal.remedy)
    if settings.model_overlap is not None and not any(
        'external' in bundle.card for bundle in models.values()
    ):
        raise ModelError(
            f'The model {settings.model} is not a model of another program.',
            'Omit --model-overlap.',
        )
    return models, refusals


def _is_for_spine(
    find: Callable[[str, str | None], ModelBundle | None], model: str, orientation: str | None
) -> bool:
    try:
        return not find(model, orientation) and bool(find_model(model, SPINE, orientation))
    except ModelError:
        return False


def find_atlases(settings: Settings) -> dict[str, Path]:
    """Return the folder of the atlas of each region.

    Raises
    ------
    MissingInputError
        If the folder of ``--atlas`` holds none.
    BadDataError
        If the atlas cannot be read.
    """
    return {region: find_atlas(settings.atlas, region) for region in REGIONS}


def plan_participant(inputs: RunInputs, participant: str) -> list[Scan]:
    """List the scans of a participant; one without a model gets that as its problem.

    A participant without scans has one nameless scan whose problem says so.
    """
    settings = inputs.settings
    rules = _load_rules(settings.contrast_rules)
    filters = read_filters(settings.bids_filter_file) if settings.bids_filter_file else None
    try:
        scans = find_scans(
            settings.bids_dir,
            participant,
            rules=rules,
            sessions=settings.sessions,
            region=settings.region,
            otherwise=BODY if BODY in inputs.models else None,
            filters=filters,
        )
        problem = None if scans else nothing_selected(settings, participant).problem
    except Exception as error:
        scans, problem = [], problem_of(error, f'Looking up sub-{participant}')
    if problem:
        return [Scan((('sub', participant),), 'T1w', settings.region, (), problem=problem)]
    elsewhere = _maps_elsewhere(settings, participant)
    return [
        _with_labels(
            settings,
            scan,
            inputs.models.get(scan.region or ''),
            inputs.refusals.get(scan.region or '')
            or (elsewhere.get(scan.session) if scan.region != SPINE else None),
        )
        for scan in scans
    ]


def _maps_elsewhere(settings: Settings, participant: str) -> dict[str | None, Problem]:
    """Return, by session, why a map of vertebrae that tells the levels of muscles is not here."""
    found = {}
    for each in find_spine_maps(settings.derivatives, participant):
        path = each.vertebrae
        if path and ((fetch := how_to_fetch(path)) or not path.is_file()):
            found[each.session] = MissingInputError(
                f'{path}, which tells the vertebral levels of this session, cannot be read.',
                fetch or RESTORE,
            ).problem
    return found


def _with_labels(
    settings: Settings, scan: Scan, model: ModelBundle | None, refusal: Problem | None
) -> Scan:
    """Add whose labels it gets: of what model, of a person, or the problem of having none."""
    scan = replace(scan, seg=model.labels.seg if model else '')
    if scan.problem or refusal:
        return replace(scan, problem=scan.problem or refusal)
    try:
        folders = (settings.output_dir, *settings.derivatives)
        scan = replace(scan, manual=find_correction(scan, folders))
    except BidsMuscleError as error:
        return replace(scan, problem=error.problem)
    return replace(scan, warnings=(*scan.warnings, *_drawn_on_others(scan)))


def _drawn_on_others(scan: Scan) -> Iterator[str]:
    """Say which corrected label maps of a scan were drawn before its images changed."""
    for _, path in scan.manual:
        correction = read_correction_facts(path)
        if (
            correction
            and correction.images_sha256  # so that images are read for nothing else
            and correction.is_on_others(images_digest(scan.paths.values()))
        ):
            yield (
                f'The images have changed since {path.name} was drawn, so its outlines may not '
                'fit them. Check it in the editor (bids_muscle-report serve) and save it again.'
            )


def choose_participants(settings: Settings) -> tuple[list[str], bool]:
    """Return the participants to run, and whether all that were asked for are there.

    What has to be said about the dataset as a whole is said on standard error.

    Raises
    ------
    NothingSelectedError
        If there is none.
    """
    chosen, missing = select_participants(settings.bids_dir, settings.participants)
    say_all(folder_remarks(settings.bids_dir))
    say_all(read_participants(settings.bids_dir).remarks)
    if settings.levels:
        say_all(_unfit_marks(settings.levels, list_participants(settings.bids_dir)))
    if not chosen:
        raise nothing_selected(settings)
    # Some people miss a session; one that nobody has, of those not asked for too, is an error.
    strange = missing_sessions(settings.bids_dir, settings.sessions)
    say_all(
        f'No participant has the session {session} and it is skipped. Check --session-label.'
        for session in strange
    )
    say_all(
        f'sub-{label} is not in {settings.bids_dir} and is skipped. Check --participant-label.'
        for label in missing
    )
    return chosen, not (missing or strange)


def _unfit_marks(levels: Path, labels: Sequence[str]) -> list[str]:
    """Return which rows of a table of levels are about nobody in the dataset."""
    rows = read_table(levels).rows
    named = {row.get('participant_id', MISSING).removeprefix('sub-') for row in rows}
    unfit = sorted(named - {*labels, MISSING})
    if not unfit:
        return []
    return [f'{levels.name} has rows for {name_some(unfit)}, who are not in the dataset.']


def say_all(remarks: Iterable[str]) -> None:
    """Print sentences on standard error."""
    for remark in remarks:
        print(f'bids_muscle: {remark}', file=sys.stderr)


def say_fuller(count: int) -> None:
    """Say of how many finished scans there are more files than this run would keep."""
    if count:
        say_all(
            [
                f'Finished scans that keep the files of a fuller --output-level: {count}. '
                'To have fewer files, run with --overwrite.'
            ]
        )


def left_out(bids_dir: Path) -> str:
    """Return the number of folders that are no participants as part of a summary."""
    count = len(list_unusable(bids_dir))
    return f'{count} {"folders are" if count > 1 else "folder is"} skipped; ' if count else ''


def folder_remarks(bids_dir: Path) -> list[str]:
    """Return sentences about folders and images of the raw dataset that nothing is done with.

    None where the dataset is gone, as it may be at the group level.
    """
    try:
        unusable, ignored = list_unusable(bids_dir), list_ignored(bids_dir)
    except MissingInputError:
        return []
    gone = [name for name in unusable if leads_to(bids_dir / name)]
    misnamed = [name for name in unusable if name not in gone]
    remarks = []
    if gone:
        folders = 'folders are links' if gone[1:] else 'folder is a link'
        remarks.append(
            f'{len(gone)} {folders} to what is not there, and skipped: {name_some(gone)}. '
            f'{RESTORE}'
        )
    if misnamed:
        are = (
            'folders are not BIDS participants and are skipped'
            if misnamed[1:]
            else 'folder is not a BIDS participant and is skipped'
        )
        remarks.append(
            f'{len(misnamed)} {are}: {name_some(misnamed)}. '
            'Rename to sub- with letters and digits, or list in .bidsignore.'
        )
    if ignored:
        remarks.append(f'.bidsignore excludes {name_some(ignored)}.')
    return remarks


def nothing_selected(settings: Settings, participant: str | None = None) -> NothingSelectedError:
    """Return the error for a participant, or a whole dataset, in which there is nothing to do."""
    where = f'sub-{participant} in {settings.bids_dir}' if participant else settings.bids_dir
    folder = settings.bids_dir / f'sub-{participant}' if participant else settings.bids_dir
    if dicom := find_dicom(folder):
        return NothingSelectedError(
            f'{folder} has DICOM images, such as {dicom}, and no NIfTI images.', CONVERT
        )
    if participant and not any(folder.iterdir()):
        return NothingSelectedError(
            f'No scan of {where} can be looked at: its folder is empty.',
            f'Fetch its content (datalad get -n sub-{participant}), or remove the folder.',
        )
    return NothingSelectedError(
        f'No scan of {where} matches the requested participants, sessions and filters.',
        'Use --dry-run, and check the labels, --bids-filter-file, --contrast-rules and '
        '.bidsignore.',
    )
