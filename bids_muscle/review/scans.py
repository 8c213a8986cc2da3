"""What the editor shows of a scan, and where its files lie.

They lie in the output folder, but for the image of a sagittal scan, which is in the raw dataset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from bids_muscle.anatomy.labels import SPINE, LabelTable
from bids_muscle.anatomy.spine import spine_names
from bids_muscle.anatomy.structures import read_published_table
from bids_muscle.dataset.corrections import (
    Correction,
    choose_correction,
    correction_path,
    find_corrections,
    images_digest,
    sha256_of,
)
from bids_muscle.dataset.kept_maps import is_of_person, kept_path
from bids_muscle.dataset.names import derivative_path, map_keys
from bids_muscle.dataset.records import ScanRecord
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.imaging.conform import read_grid
from bids_muscle.reports.outputs import ScanOutputs, edited_scans, read_scans
from bids_muscle.reports.spine_figure import spine_labels
from bids_muscle.review.raw import raw_images
from bids_muscle.review.voxels import canonical_affine
from bids_muscle.tables import read_rows

#: Maps that are laid over an image, with what they are called.
MAPS = {'confidence': 'Confidence of the network', 'fat_fraction': 'Fat fraction'}
#: Starts of a correction: the map of the network, and that of a person which the pages show now.
NETWORK, PUBLISHED = 'network', 'published'
#: Where a reader begins, the first that is there.
_FIRST = (PUBLISHED, NETWORK)
_NAME = re.compile(r'sub-([0-9A-Za-z+]+)(_[a-z]+-[0-9A-Za-z+]+)*')
#: The browser has one byte for each voxel.
_MOST_LABELS = 255


class JoinedScanError(BadDataError):
    """A scan that was joined from parts has no label map of its own."""

    def __init__(self, name: str, parts: Sequence[str]) -> None:
        super().__init__(
            f'{name} is joined from the label maps of its parts.',
            'Correct these. "Measure again" joins them again.',
        )
        self.parts = parts


@dataclass(frozen=True)
class EditorScan:
    """A scan whose label maps can be corrected.

    Parameters
    ----------
    outputs
        As the reports see it.
    scan
        Its name, as that of outputs.
    labels
        Its published label maps by key, on the grid and in the voxel order of the scan.
    tables
        What the numbers of each may mean; no number is in two of them.
    images
        Corrected images by contrast; the raw image of a sagittal scan.
    maps
        Those of :data:`MAPS` that it has.
    siblings
        The scans that show the other parts of the body, of a scan that shows a part.
    """

    outputs: ScanOutputs
    scan: Scan
    labels: Mapping[str, Path]
    tables: Mapping[str, LabelTable]
    images: Mapping[str, Path]
    maps: Mapping[str, Path]
    siblings: tuple[str, ...] = ()

    @cached_property
    def images_sha256(self) -> str:
        """Digest of the images of the raw dataset that it shows, as far as it is known."""
        if self.scan.region == SPINE:  # they may have changed since the last run
            return images_digest(self.images.values())
        return self.outputs.record.images_sha256

    @property
    def like(self) -> Path:
        """A map that has its grid."""
        return next(iter(self.labels.values()))

    @property
    def table(self) -> LabelTable:
        """The labels of all maps, in the order in which the browser counts them."""
        labels = tuple(label for table in self.tables.values() for label in table)
        return replace(next(iter(self.tables.values())), labels=labels)


@dataclass(frozen=True)
class StartMaps:
    """Label maps that a correction may start from.

    Parameters
    ----------
    paths
        The files by key.
    manual
        Whether a person made them.
    correction
        What is known of those that a person saved in the browser.
    """

    paths: Mapping[str, Path]
    manual: bool
    correction: Correction | None = None

    @property
    def rater(self) -> str:
        """Who saved them in the browser, or nobody."""
        return self.correction.rater if self.correction else ''

    @property
    def digest(self) -> str:
        """SHA-256 of each file, with commas between."""
        return ','.join(sha256_of(path) for path in self.paths.values())


def inside(output_dir: Path, name: str | PurePath) -> Path:
    """Return a path in the output folder that no link leads out of.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    name
        Relative to it.

    Raises
    ------
    BadDataError
        If it lies elsewhere.
    """
    path = output_dir / name
    # What is not there yet is judged by its folder.
    if not path.resolve().is_relative_to(output_dir.resolve()):
        raise BadDataError(
            f'{path} is a link that leads out of the output folder.',
            'Put the file itself into the output folder.',
        )
    return path


def participant_of(name: str) -> str:
    """Return the participant of a scan.

    Raises
    ------
    MissingInputError
        If it is not the name of a scan.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise MissingInputError('This is not the name of a scan.', 'Open it from the review page.')
    return match[1]


def open_scan(output_dir: Path, name: str) -> EditorScan:
    """Find the files of a scan.

    Raises
    ------
    MissingInputError
        If there is no such scan, or the raw image of a sagittal one is gone.
    BadDataError
        If its label maps cannot be corrected here.
    """
    every = {each.record.scan: each for each in read_scans(output_dir, participant_of(name))}
    if name not in every:
        raise MissingInputError(
            f'{output_dir} has no scan {name}.', 'Open a scan from the review page.'
        )
    outputs = every[name]
    if outputs.record.parts:
        raise JoinedScanError(name, edited_scans(outputs))
    if remark := _why_not(outputs):
        raise BadDataError(f'{name} {remark[0]}', remark[1])
    record = outputs.record
    scan = Scan(_entities(name), 'dseg', record.region, (), seg=record.seg)
    labels = {key: inside(output_dir, derivative_path(scan, key)) for key in map_keys(scan)}
    for path in labels.values():
        read_grid(path)  # raises where it is missing or broken
    whole = every.get(outputs.part_of)
    editor_scan = EditorScan(
        outputs,
        scan,
        labels,
        _tables(output_dir, scan, outputs),
        _images(output_dir, scan, record),
        _maps(output_dir, scan),
        tuple(part for part in whole.record.parts if part != name) if whole else (),
    )
    if len(editor_scan.table) > _MOST_LABELS:
        raise BadDataError(
            f'{name} has more than {_MOST_LABELS} labels.', 'Correct it in another program.'
        )
    return editor_scan


def _entities(name: str) -> tuple[tuple[str, str], ...]:
    parts = (part.partition('-') for part in name.split('_'))
    return tuple((key, label) for key, _, label in parts)


def _why_not(outputs: ScanOutputs) -> tuple[str, str] | None:
    record = outputs.record
    if record.status != 'done':
        return 'failed, so there is nothing to correct.', 'Run the participant level again.'
    if outputs.table is None and record.region != SPINE:
        return 'has no table of its labels.', 'Run the participant level again.'
    whole = record.region != SPINE and not record.parts
    if whole and not any('_desc-preproc_' in name for name in record.outputs):
        return (
            'has no image, as it was made with --output-level minimal.',
            'Run the participant level again with --output-level standard.',
        )
    return None


def _tables(output_dir: Path, scan: Scan, outputs: ScanOutputs) -> dict[str, LabelTable]:
    """Return what the numbers of each map may mean.

    Those of vertebrae and discs have what is in the published map, and all that may be drawn.
    """
    if scan.region != SPINE:
        assert outputs.table is not None  # noqa: S101 - _why_not
        return {'dseg': outputs.table}
    tables = {}
    for key in map_keys(scan):
        path = inside(output_dir, derivative_path(scan, f'{key}_tsv'))
        try:
            published = read_published_table(path, SPINE, '').by_index
        except (OSError, KeyError, ValueError):
            published = {}
        offered = spine_labels(spine_names(key)).by_index | published
        tables[key] = LabelTable(SPINE, tuple(offered[number] for number in sorted(offered)))
    return tables


def _images(output_dir: Path, scan: Scan, record: ScanRecord) -> dict[str, Path]:
    """Return the corrected images by contrast; the raw ones of a scan that has none."""
    if scan.region == SPINE:
        return raw_images(output_dir, record)
    found = {}
    for name in record.outputs:
        if '_desc-preproc_' in name and name.endswith('.nii.gz') and '_space-' not in name:
            with_suffix = replace(scan, suffix=name.rpartition('_')[2].removesuffix('.nii.gz'))
            for contrast in Contrast:
                if str(derivative_path(with_suffix, 'preproc', contrast=contrast)) == name:
                    found[str(contrast)] = inside(output_dir, name)
    return found


def _maps(output_dir: Path, scan: Scan) -> dict[str, Path]:
    if scan.region == SPINE:
        return {}
    paths = {key: inside(output_dir, derivative_path(scan, key)) for key in MAPS}
    return {key: path for key, path in paths.items() if path.is_file()}


def starts(output_dir: Path, scan: EditorScan) -> dict[str, StartMaps]:
    """Return the label maps that a correction may start from, by key.

    First those of the network, as far as they are there; the published ones, where a person made
    one; then those that persons saved in the browser.
    """
    manual = {key: is_of_person(path) for key, path in scan.labels.items()}
    network = {
        key: inside(output_dir, kept_path(scan.scan, key)) if manual[key] else path
        for key, path in scan.labels.items()
    }
    by_key: dict[str, StartMaps] = {}
    if all(path.is_file() for path in network.values()):
        by_key[NETWORK] = StartMaps(network, manual=False)
    if any(manual.values()):
        by_key[PUBLISHED] = StartMaps(scan.labels, manual=True)
    for correction in corrections_of(output_dir, scan):
        paths = {
            key: inside(output_dir, correction_path(scan.scan, correction.rater, key))
            for key in scan.labels
        }
        if all(path.is_file() for path in paths.values()):
            by_key[correction.path.name] = StartMaps(paths, manual=True, correction=correction)
    return by_key


def corrections_of(output_dir: Path, scan: EditorScan) -> list[Correction]:
    """Return what persons saved in the browser; of a sagittal scan the maps of vertebrae."""
    found = find_corrections(scan.scan, output_dir, next(iter(scan.labels)))
    return [each for each in found if each.rater]


def find_start_map(output_dir: Path, scan: EditorScan, key: str) -> StartMaps:
    """Return the label maps that a correction starts from.

    Raises
    ------
    MissingInputError
        If they are not there any more.
    """
    given = starts(output_dir, scan)
    if key not in given:
        raise MissingInputError(f'{scan.scan.name} has no label map {key}.', 'Reload the page.')
    return given[key]


def scan_facts(output_dir: Path, scan: EditorScan, rater: str) -> dict[str, Any]:
    """Return what the page of the editor needs of a scan, JSON-ready.

    Parameters
    ----------
    output_dir
        The derivatives dataset.
    scan
        The scan.
    rater
        Who reads; the own correction of this person is where the work goes on.
    """
    grid = read_grid(scan.like)
    affine, shape = canonical_affine(grid.affine, grid.shape)
    choices = starts(output_dir, scan)
    own = next((key for key, choice in choices.items() if choice.rater == rater != ''), '')
    withdrawn = bool(own) and choices[own].correction.withdrawn  # type: ignore[union-attr]
    first = next(iter(scan.labels))
    counting = choose_correction(find_corrections(scan.scan, output_dir, first), scan.scan.name)
    return {
        'scan': scan.scan.name,
        'participant': scan.scan.participant,
        'segmentation': scan.outputs.segmentation,
        'plane': 'sagittal' if scan.scan.region == SPINE else 'axial',
        'shape': list(shape),
        'affine': affine.tolist(),
        'images': list(scan.images),
        'imagesSha256': scan.images_sha256,
        'maps': {key: MAPS[key] for key in scan.maps},
        'labels': [
            {
                'index': label.index,
                'name': label.name,
                'muscle': label.muscle,
                'side': label.side,
                'rgb': label.rgb,
            }
            for label in scan.table
        ],
        'levels': _levels(scan, shape[2]),
        'starts': [
            {
                'key': key,
                'rater': choice.rater,
                'savedAt': choice.correction.saved_at if choice.correction else '',
                'state': _state_of(choice, counting),
                'onOthers': choice.correction is not None
                and choice.correction.is_on_others(scan.images_sha256),
            }
            for key, choice in choices.items()
        ],
        'begin': own if own and not withdrawn else next((k for k in _FIRST if k in choices), ''),
        'own': own,
        'revision': choices[own].digest if own else '',
    }


def _state_of(start: StartMaps, counting: Correction | None) -> str:
    """Say what a map is to the next run."""
    if start.correction is None:
        return ''
    if start.correction.withdrawn:
        return 'withdrawn'
    if not start.correction.passed:
        return 'draft'
    return 'counts' if counting and counting.path in start.paths.values() else ''


def _levels(scan: EditorScan, n_slices: int) -> list[str]:
    """Return the vertebral level of each axial slice, from inferior to superior; '' if unknown."""
    levels = [''] * n_slices
    path = scan.like.with_name(f'{scan.scan.name}_levels.tsv')
    try:
        for row in read_rows(path):
            if row['level'] != 'n/a' and 0 <= int(row['slice']) < n_slices:
                levels[int(row['slice'])] = row['level']
    except (OSError, ValueError, KeyError):
        return [''] * n_slices
    return levels
