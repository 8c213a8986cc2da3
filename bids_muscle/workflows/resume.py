"""What a second run need not do again: scans that an earlier run finished, identified by content.

Neither times of files nor the place of the dataset, of the work folder or of the outputs count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bids_muscle import __version__
from bids_muscle.anatomy.labels import REGIONS, SPINE
from bids_muscle.dataset.corrections import sha256_of
from bids_muscle.dataset.names import participant_path
from bids_muscle.dataset.participants import height_m, read_participant_info
from bids_muscle.dataset.records import ScanRecord, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.sessions import read_person, read_session_info
from bids_muscle.dataset.spine_maps import find_spine_maps, read_label_names
from bids_muscle.errors import BidsMuscleError
from bids_muscle.files import file_sha256
from bids_muscle.imaging.atlas import CARD, find_atlas
from bids_muscle.settings import levels_from

if TYPE_CHECKING:
    from bids_muscle.segmentation.bundle import ModelBundle
    from bids_muscle.settings import Settings


#: File name and SHA-256 of a map of vertebrae or discs, and the names of its numbers.
DrawnMap = tuple[str, str, dict[int, str]]


def fingerprint(
    settings: Settings, scan: Scan, model: ModelBundle, drawn: Sequence[DrawnMap]
) -> str:
    """Return the SHA-256 (hex) of all that decides the outputs of a scan but how many are kept.

    That is the content of its images and of a corrected label map, the maps of vertebrae and discs
    (`drawn`, from :func:`drawn_maps`), what names and sidecars say
    about them, the height of the participant, the settings that may change a number, the model
    with its weights, the atlas, the levels marked by hand, and the version of bids_muscle.

    Raises
    ------
    OSError
        If an image cannot be read.
    """

    def plain(value: Any) -> str:
        return (
            value.relative_to(settings.bids_dir).as_posix() if isinstance(value, Path) else value
        )

    parts = {
        'version': __version__,
        'settings': settings.science(),
        'model': model.card,
        'weights': model.sha256,
        'atlas': _sha256_once(find_atlas(settings.atlas, model.region) / CARD)
        if model.region in REGIONS
        else None,
        'vertebrae': drawn,
        'levels': _sha256_once(settings.levels) if settings.levels else None,
        'scan': asdict(replace(scan, manual=())),
        'manual': {key: file_sha256(path) for key, path in scan.manual},
        'height_m': height_m(read_person(settings.bids_dir, scan.participant, scan.session)),
        **_content(scan),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=plain).encode()).hexdigest()


def preparation(settings: Settings, scan: Scan) -> str:
    """Return the SHA-256 (hex) of all that decides the prepared images; empty if one is gone."""
    try:
        parts = {
            'version': __version__,
            'bias_correction': settings.bias_correction,
            'fix_swaps': settings.fix_swaps,
            **_content(scan),
            'times': asdict(scan.echo_train) if scan.echo_train else None,
        }
    except OSError:
        return ''
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content(scan: Scan) -> dict[str, Any]:
    """Return the SHA-256 (hex) of the images of a scan."""
    return {
        'images': {str(contrast): file_sha256(path) for contrast, path in scan.paths.items()},
        'echoes': [file_sha256(path) for path in scan.echoes],
    }


def settings_digest(settings: Settings) -> str:
    """Return the SHA-256 (hex) of all settings that may change an output.

    Atlas and levels count by their content, the model has its own checksum in the record. Threads,
    devices, paths and the choice of participants do not count.
    """
    parts = {
        'science': settings.science(),
        'atlas': {
            region: _sha256_once(find_atlas(settings.atlas, region) / CARD) for region in REGIONS
        },
        'levels': _sha256_once(settings.levels) if settings.levels else None,
        'loading': settings.loading_strength if settings.loading else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def drawn_maps(
    settings: Settings, participant: str, sagittal: Collection[str] = ()
) -> list[DrawnMap]:
    """Return what decides in the maps of vertebrae and discs of other programs.

    Parameters
    ----------
    settings
        The settings of the run.
    participant
        Label without ``sub-``.
    sagittal
        Names of the sagittal scans, whose corrections count for themselves.

    Raises
    ------
    BadDataError
        If a lookup table is none.
    """
    own = find_spine_maps([settings.output_dir], participant, sagittal)
    return [
        # One that cannot be read fails the scans that need it, and no other.
        (path.name, sha256_of(path), read_label_names(path, participant))
        for each in (*find_spine_maps(settings.derivatives, participant, sagittal), *own)
        for path in each.paths
        if each not in own or '_desc-' in path.name
    ]


def _sha256_once(path: Path) -> str:
    """Return the SHA-256 (hex) of a file that all scans share; read again only once it changed."""
    state = path.stat()
    return _sha256_of_state(path, state.st_mtime_ns, state.st_size)


@cache
def _sha256_of_state(path: Path, mtime_ns: int, size: int) -> str:
    return file_sha256(path)


def fingerprints(
    settings: Settings,
    scans: Sequence[Scan],
    models: Mapping[str, ModelBundle],
    known: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the fingerprint of each scan by its name; none of those with a problem.

    That of a scan of muscles covers the sagittal scans of its session, which tell its levels. Of
    such a scan with a problem it covers the one that is `known` of an earlier run.
    """
    prints: dict[str, str] = {}
    # The scan fails where a file is needed, with a better message.
    try:
        sagittal = {scan.name for scan in scans if scan.region == SPINE}
        drawn = drawn_maps(settings, scans[0].participant, sagittal) if scans else []
    except BidsMuscleError:
        return prints
    for scan in scans:
        if scan.problem is None and (model := models.get(scan.region or '')):
            with suppress(OSError, BidsMuscleError):
                prints[scan.name] = fingerprint(settings, scan, model, drawn)
        elif scan.problem and scan.name in known:
            prints[scan.name] = known[scan.name]
    spines = {scan.name: scan for scan in scans if scan.region == SPINE}
    for scan in scans:
        if scan.region == SPINE or scan.name not in prints:
            continue
        parts = [prints[scan.name]]
        parts += [
            prints.get(name, '') for name, other in spines.items() if other.session == scan.session
        ]
        if len(parts) > 1:
            prints[scan.name] = hashlib.sha256('\n'.join(parts).encode()).hexdigest()
    return prints


def finished_scans(
    settings: Settings,
    records: Sequence[ScanRecord],
    scans: Sequence[Scan],
    prints: Mapping[str, str],
) -> dict[str, ScanRecord]:
    """Return the records of the scans that need not run, by scan name.

    Their files are all there, and they were made from what there is now; more files than asked for
    do no harm. Muscles wait for the sagittal scans of their session, which tell their levels and
    may have failed before.
    """
    planned = {scan.name for scan in scans if scan.problem is None}
    finished = {
        record.scan: record
        for record in records
        if record.scan in planned
        and record.status == 'done'
        and record.fingerprint == prints.get(record.scan)
        and record.output_level in levels_from(settings.output_level)
        and all((settings.output_dir / name).is_file() for name in record.outputs)
    }
    awaited = {
        scan.session
        for scan in scans
        if scan.region == SPINE
        and scan.name in planned & prints.keys()
        and scan.name not in finished
    }
    return {
        name: record
        for name, record in finished.items()
        if record.region == SPINE or record.session not in awaited
    }


def refresh(settings: Settings, scans: Sequence[Scan], finished: Mapping[str, ScanRecord]) -> None:
    """Write the records of finished scans again where what they say of the run has changed.

    That is their rows in tables of the dataset, and settings that did not concern them.
    """
    digest = settings_digest(settings) if finished else ''
    for scan in scans:
        record = finished.get(scan.name)
        if record is None:
            continue
        current = replace(
            record,
            participant_info=read_participant_info(settings.bids_dir, scan.participant),
            session_info=read_session_info(settings.bids_dir, scan.participant, scan.session),
            settings_digest=digest,
        )
        if current.as_dict() != record.as_dict():
            remove_page(settings.output_dir, scan.participant)
            write_record(current, scan, settings.output_dir)


def page_path(output_dir: Path, participant: str) -> Path:
    """Return where the page of a participant is; a run that was killed leaves none."""
    return output_dir / participant_path(participant, 'report')


def remove_page(output_dir: Path, participant: str) -> None:
    """Remove the page of a participant, to be made again when its records are written."""
    page_path(output_dir, participant).unlink(missing_ok=True)
