"""Vertebral levels by the atlas, against discs seen in the real scans (borders.md)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, voxel_sizes

from bids_muscle.anatomy.levels import SliceLevels
from bids_muscle.imaging.alignment import Alignment, align_scan, level_probabilities
from bids_muscle.imaging.atlas import find_atlas, read_atlas
from bids_muscle.imaging.conform import load_image
from bids_muscle.imaging.levels import likeliest
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.segmentation.stack_discs import find_discs

#: Other images of a scan, and what each is called.
CONTRASTS = {
    'dixonfat': ('dixonwater', 'fat', 'water'),
    'dixonin': ('dixonout', 'in-phase', 'opposed-phase'),
}


def read_borders() -> dict[str, list[dict[str, str]]]:
    scans: dict[str, list[dict[str, str]]] = {}
    with Path(__file__).with_name('borders.tsv').open(encoding='utf-8', newline='') as stream:
        for row in csv.DictReader(stream, delimiter='\t'):
            scans.setdefault(row['scan'], []).append(row)
    return scans


def align(folder: Path, scan: str) -> tuple[Alignment, SliceLevels]:
    region = 'cervical' if scan.startswith('neck') else 'lumbar'
    acq = scan.split('acq-')[1].split('_')[0] if 'acq-' in scan else ''
    paths = {scan.rsplit('_', 1)[1]: scan}
    if acq == 'dixonout':
        paths = {'opposed-phase': scan}
    if acq in CONTRASTS:
        other, own_name, other_name = CONTRASTS[acq]
        paths = {own_name: scan, other_name: scan.replace(acq, other)}
        if other_name == 'water':  # first, as in a run
            paths = dict(reversed(paths.items()))
    ready = prepare_scan(
        {name: load_image(folder / f'{path}.nii.gz') for name, path in paths.items()}
    )
    labels = Predictor(find_model(None, region)).segment(ready.corrected).labels
    atlas = read_atlas(find_atlas(None, region))
    images, mask = ready.corrected, ready.body_mask
    discs_mm, support = find_discs(images, labels, atlas.table, region)
    found = align_scan(images, labels, mask, atlas, discs_mm=discs_mm, support=support)
    shares = level_probabilities(found, atlas, nib.Nifti1Image(labels.dataobj, labels.affine))
    return found, likeliest(shares, labels.shape[2], 'atlas')


def seen(rows: list[dict[str, str]], n_slices: int) -> Iterator[tuple[int, str]]:
    """Yield the slices between the outermost discs that were read, and their level."""
    places = sorted(((float(r['first']) + float(r['second'])) / 2, r['border']) for r in rows)
    for k in range(n_slices):
        below = [border for place, border in places if place <= k]
        if below and k < places[-1][0]:
            yield k, below[-1].split('-')[0]


@pytest.fixture(scope='module')
def aligned(real_data: Path) -> dict[str, Any]:
    return {scan: align(real_data, scan) for scan in read_borders()}


def test_levels_are_right_as_often_as_they_are_sure(aligned: dict[str, Any]) -> None:
    right, sure = {}, {}
    for scan, rows in read_borders().items():
        if rows[0]['name'] == 'open':
            continue
        region = scan.split('/')[0]
        _, levels = aligned[scan]
        for k, level in seen(rows, len(levels.names)):
            if levels.names[k]:
                right.setdefault(region == 'neck', []).append(levels.names[k] == level)
                sure.setdefault(region == 'neck', []).append(levels.confidence[k])
    for neck in (False, True):
        if neck not in right:
            continue
        share, confidence = np.mean(right[neck]), np.mean(sure[neck])
        print('neck' if neck else 'back', len(right[neck]), share, confidence)
        assert share > confidence - 0.1, (neck, share, confidence)


def test_discs_are_where_they_were_read(aligned: dict[str, Any], real_data: Path) -> None:
    apart = []
    for scan, rows in read_borders().items():
        found, _ = aligned[scan]
        image = nib.as_closest_canonical(nib.load(real_data / f'{scan}.nii.gz'))
        places = found.counts[0].discs_mm
        heights = apply_affine(np.linalg.inv(image.affine), places)[:, 2]
        slice_mm = float(voxel_sizes(image.affine)[2])
        for row in rows:
            read = (float(row['first']) + float(row['second'])) / 2
            apart.append(slice_mm * np.abs(heights - read).min())
    print(len(apart), np.median(apart), np.mean(np.array(apart) < 5))
    assert np.median(apart) < 2.5
    assert np.mean(np.array(apart) < 5) > 0.8


@pytest.mark.parametrize('neck', [False, True])
def test_most_slices_get_a_level_and_it_is_right(aligned: dict[str, Any], neck: bool) -> None:
    known, right = 0, []
    for scan, rows in read_borders().items():
        if scan.startswith('neck') != neck or rows[0]['name'] == 'open':
            continue
        found, levels = aligned[scan]
        assert found.trusted, (scan, found.reasons)
        truth = dict(seen(rows, len(levels.names)))
        known += len(truth)
        right += [levels.names[k] == name for k, name in truth.items() if levels.names[k]]
    print(neck, known, len(right), np.mean(right))
    assert len(right) > 0.75 * known
    assert np.mean(right) > 0.9


def test_an_alignment_is_not_trusted_where_no_slice_gets_a_level(
    aligned: dict[str, Any],
) -> None:
    for scan, (found, levels) in aligned.items():
        assert found.trusted == any(levels.names), scan
