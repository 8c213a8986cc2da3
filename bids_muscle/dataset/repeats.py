"""Which scans of a session are repeats, and which only look like it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bids_muscle.anatomy.labels import SPINE
from bids_muscle.dataset.scan import DIXON, Scan
from bids_muscle.dataset.witnesses import seconds_of
from bids_muscle.imaging.conform import VoxelGrid, read_grid

#: Affines of one acquisition differ by no more than this, mm.
_SAME_MM = 0.01


def mark_unlike(scans: Sequence[Scan]) -> list[Scan]:
    """Leave out of the cohort what looks like repeats and is not.

    Images of one contrast and one grid in a session come from one acquisition, or from several
    with another setting, if anything but ``run-`` tells their names apart, or if their times are
    the same: the mean of them is of nothing. Images with fat suppression are compared with such
    images only. Of a Dixon scan in several reconstructions, which differ in ``run-`` and share
    grid and time, the first counts: as repeats they would agree better than any scan does.

    Parameters
    ----------
    scans
        All scans of a participant.
    """
    kinds: dict[tuple[object, ...], list[Scan]] = defaultdict(list)
    for scan in scans:
        if not scan.problem and scan.region != SPINE and scan.images[0].contrast not in DIXON:
            image = scan.images[0]
            kinds[scan.session, scan.region, image.contrast, scan.fat_suppressed].append(scan)
    unlike = _reconstructions(scans)
    for members in kinds.values():
        grids = [read_grid(scan.images[0].path) for scan in members] if len(members) > 1 else []
        for scan, grid in zip(members, grids, strict=False):
            others = [
                other.name
                for other, its in zip(members, grids, strict=True)
                if other is not scan and _is_same(grid, its) and not _is_repeat(scan, other)
            ]
            if others:
                unlike[scan.name] = _reason(scan, others)
    return [
        replace(
            scan,
            left_out=reason,
            warnings=(*scan.warnings, f'It is excluded from the cohort: {reason}'),
        )
        if (reason := unlike.get(scan.name))
        else scan
        for scan in scans
    ]


def _is_same(one: VoxelGrid, other: VoxelGrid) -> bool:
    return one.shape == other.shape and np.allclose(one.affine, other.affine, atol=_SAME_MM)


def _is_repeat(one: Scan, other: Scan) -> bool:
    """Return whether one scan repeats another: only ``run-`` tells them apart, and the time.

    Images of one acquisition, such as those of a Dixon scan, have one time.
    """
    labels = [{pair for pair in scan.entities if pair[0] != 'run'} for scan in (one, other)]
    return labels[0] == labels[1] and not (
        _at_once(one, other) or one.fat_doubt or other.fat_doubt
    )


def _at_once(one: Scan, other: Scan) -> bool:
    return one.acquired == other.acquired and seconds_of(one.acquired) is not None


def _reconstructions(scans: Sequence[Scan]) -> dict[str, str]:
    """Return why a Dixon scan does not count beside an earlier one of the same acquisition."""
    kinds: dict[tuple[object, ...], list[Scan]] = defaultdict(list)
    for scan in scans:
        if not scan.problem and scan.images[0].contrast in DIXON and seconds_of(scan.acquired):
            labels = tuple(pair for pair in scan.entities if pair[0] != 'run')
            kinds[labels, scan.acquired].append(scan)
    found = {}
    for first, *others in kinds.values():
        grid = read_grid(first.images[0].path) if others else None
        for scan in others:
            if grid and _is_same(grid, read_grid(scan.images[0].path)):
                found[scan.name] = (
                    f'it has the grid and the AcquisitionTime of {first.name}, so it is another '
                    'reconstruction of it and no repeat. Select one with --bids-filter-file.'
                )
    return found


def _reason(scan: Scan, others: Sequence[str]) -> str:
    contrast = scan.images[0].contrast
    shown = ', '.join(others[:3]) + (' and others' if len(others) > 3 else '')
    return (
        f'it has the grid and the contrast ({contrast}) of {shown}, but neither its name (run-) '
        'nor its AcquisitionTime marks it as a repeat, so they must not be averaged. Define the '
        'contrasts with --contrast-rules, or select one scan with --bids-filter-file.'
    )
