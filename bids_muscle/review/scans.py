"""What the editor shows of a scan, and where its files lie: nowhere but in the output folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from bids_muscle.anatomy.labels import SPINE, LabelTable
from bids_muscle.dataset.corrections import (
    Correction,
    choose_correction,
    find_corrections,
    sha256_of,
)
from bids_muscle.dataset.names import derivative_path
from bids_muscle.dataset.scan import Contrast, Scan
from bids_muscle.errors import BadDataError, MissingInputError
from bids_muscle.imaging.conform import read_grid
from bids_muscle.reports.outputs import ScanOutputs, read_scans
from bids_muscle.review.voxels import canonical_affine
from bids_muscle.tables import read_rows

#: Maps that are laid over an image, with what they are called.
MAPS = {'confidence': 'Confidence of the network', 'fat_fraction': 'Fat fraction'}
#: The map that the pages show now, as a start of a correction.
PUBLISHED = 'published'
_NAME = re.compile(r'sub-([0-9A-Za-z+]+)(_[a-z]+-[0-9A-Za-z+]+)*')
#: The browser has one byte for each voxel.
_MOST_LABELS = 255


@dataclass(frozen=True)
class EditorScan:
    """A scan whose label map can be corrected.

    Parameters
    ----------
    outputs
        As the reports see it.
    scan
        Its name, as that of outputs.
    labels
        Its published label map, on the grid and in the voxel order of the scan.
    table
        What the numbers mean.
    images
        Corrected images by contrast.
    maps
        Those of :data:`MAPS` that it has.
    """

    outputs: ScanOutputs
    scan: Scan
    labels: Path
    table: LabelTable
    images: Mapping[str, Path]
    maps: Mapping[str, Path]


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
        If there is no such scan.
    BadDataError
        If its label map cannot be corrected here.
    """
    found = [s for s in read_scans(output_dir, participant_of(name)) if s.record.scan == name]
    if not found:
        raise MissingInputError(
            f'{output_dir} has no scan {name}.', 'Open a scan from the review page.'
        )
    outputs = found[0]
    if remark := _why_not(outputs):
        raise BadDataError(f'{name} {remark[0]}', remark[1])
    entities = tuple(
        (key, label) for key, _, label in (part.partition('-') for part in name.split('_'))
    )
    scan = Scan(entities, 'dseg', outputs.record.region, (), seg=outputs.record.seg)
    labels = inside(output_dir, derivative_path(scan, 'dseg'))
    read_grid(labels)  # raises where it is missing or broken
    assert outputs.table is not None  # noqa: S101 - _why_not
    maps = {key: inside(output_dir, derivative_path(scan, key)) for key in MAPS}
    return EditorScan(
        outputs,
        scan,
        labels,
        outputs.table,
        {name: inside(output_dir, path) for name, path in _images(scan, outputs).items()},
        {key: path for key, path in maps.items() if path.is_file()},
    )


def _why_not(outputs: ScanOutputs) -> tuple[str, str] | None:
    record = outputs.record
    if record.region == SPINE:
        return (
            'is a sagittal scan, whose image is not in the output folder.',
            'Correct its label maps in another program, as docs/outputs.md says.',
        )
    if record.parts:
        return 'is a joined scan.', f'Correct its parts: {", ".join(record.parts)}.'
    if record.status != 'done':
        return 'failed, so there is nothing to correct.', 'Run the participant level again.'
    if outputs.table is None:
        return 'has no table of its labels.', 'Run the participant level again.'
    if len(outputs.table) > _MOST_LABELS:
        return f'has more than {_MOST_LABELS} labels.', 'Correct it in another program.'
    return None


def _images(scan: Scan, outputs: ScanOutputs) -> dict[str, str]:
    """Return the corrected images among the outputs, by contrast."""
    found = {}
    for name in outputs.record.outputs:
        if '_desc-preproc_' in name and name.endswith('.nii.gz') and '_space-' not in name:
            with_suffix = replace(scan, suffix=name.rpartition('_')[2].removesuffix('.nii.gz'))
            for contrast in Contrast:
                if str(derivative_path(with_suffix, 'preproc', contrast=contrast)) == name:
                    found[str(contrast)] = name
    return found


def starts(output_dir: Path, scan: EditorScan) -> dict[str, Correction]:
    """Return the label maps that a correction may start from, by key.

    The first is the published one, the others are those that persons saved in the browser.
    """
    own = {
        each.path.name: each
        for each in find_corrections(scan.scan, output_dir)
        if each.rater and inside(output_dir, each.path.relative_to(output_dir))
    }
    return {PUBLISHED: Correction(scan.labels), **own}


def find_start_map(output_dir: Path, scan: EditorScan, key: str) -> Correction:
    """Return the label map that a correction starts from.

    Raises
    ------
    MissingInputError
        If it is not there any more.
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
    grid = read_grid(scan.labels)
    affine, shape = canonical_affine(grid.affine, grid.shape)
    given = starts(output_dir, scan)
    own = next((key for key, each in given.items() if each.rater == rater != ''), '')
    counting = choose_correction(find_corrections(scan.scan, output_dir), scan.scan.name)
    return {
        'scan': scan.scan.name,
        'participant': scan.scan.participant,
        'segmentation': scan.outputs.segmentation,
        'shape': list(shape),
        'affine': affine.tolist(),
        'images': list(scan.images),
        'maps': {key: MAPS[key] for key in scan.maps},
        'labels': [
            {'name': label.name, 'muscle': label.muscle, 'side': label.side, 'rgb': label.rgb}
            for label in scan.table
        ],
        'levels': _levels(scan, shape[2]),
        'starts': [
            {
                'key': key,
                'rater': each.rater,
                'savedAt': each.saved_at,
                'passed': each.passed,
                'counts': counting is not None and counting.path == each.path,
            }
            for key, each in given.items()
        ],
        'own': own,
        'revision': sha256_of(given[own].path) if own else '',
    }


def _levels(scan: EditorScan, n_slices: int) -> list[str]:
    """Return the vertebral level of each axial slice, from inferior to superior; '' if unknown."""
    levels = [''] * n_slices
    path = scan.labels.with_name(f'{scan.scan.name}_levels.tsv')
    try:
        for row in read_rows(path):
            if row['level'] != 'n/a' and 0 <= int(row['slice']) < n_slices:
                levels[int(row['slice'])] = row['level']
    except (OSError, ValueError, KeyError):
        return [''] * n_slices
    return levels
