"""Loads on the lumbar spine from the label maps of an experiment (Hess 2022)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.dataset.label_maps import LabelMap, find_label_maps, translated
from bids_muscle.dataset.participants import height_m, read_participant_info, sex, weight_kg
from bids_muscle.dataset.writer import write_tsv
from bids_muscle.errors import BidsMuscleError, MissingInputError

#: Label maps that a model of a person is made from.
NEEDED = ('vertebrae', 'discs', 'lumbarmuscles')


def write_loads(
    predictions: Path, reference: Path, data: Path, report: Callable[[str], None]
) -> list[str]:
    """Write a table of loads beside the label maps of each person who has all of them in both.

    Parameters
    ----------
    predictions, reference
        Derivatives datasets.
    data
        BIDS dataset with height, weight and sex in ``participants.tsv``.
    report
        Receives progress lines.

    Returns
    -------
    list of str
        Why there are no loads of a person.
    """
    maps = {
        (folder, m.entities['sub'], m.entities['seg']): m
        for folder in (predictions, reference)
        for m in find_label_maps(folder)
        if m.entities.get('seg') in NEEDED
    }
    people = sorted({sub for folder, sub, _ in maps if folder == predictions})
    reasons = []
    for sub in people:
        try:
            for folder in (predictions, reference):
                own = [maps.get((folder, sub, seg)) for seg in NEEDED]
                there = [each for each in own if each]
                if len(there) < len(NEEDED):
                    raise MissingInputError(
                        f'{folder} has not all of {", ".join(NEEDED)} of this participant.',
                        'Add the label maps.',
                    )
                spine, discs, muscles = there
                path = folder / f'sub-{sub}/anat/sub-{sub}_loads.tsv'
                write_tsv(_loads(spine, discs, muscles, data, sub), path)
            report(f'loads of sub-{sub}')
        except BidsMuscleError as error:
            reasons.append(f'sub-{sub} has no loads: {error.message}')
    return list(dict.fromkeys(reasons))


def _loads(
    vertebrae: LabelMap, discs: LabelMap, muscles: LabelMap, data: Path, participant: str
) -> list[dict[str, object]]:
    from bids_muscle.imaging.conform import load_image, to_canonical
    from bids_muscle.imaging.correction import whole_numbers
    from bids_muscle.imaging.levels import drawn_shares, likeliest
    from bids_muscle.measurement.images import ScanImages
    from bids_muscle.measurement.spine import measure_spine
    from bids_muscle.measurement.table import measure_scan
    from bids_muscle.spinal_loads.table import measure_loads

    info = read_participant_info(data, participant)
    bones, soft = (load_image(each.path) for each in (vertebrae, discs))
    spine = measure_spine((bones, vertebrae.names), (soft, discs.names))
    axial = to_canonical(load_image(muscles.path))
    table = load_label_table('lumbar')
    drawn = whole_numbers(axial, muscles.path)
    labels = translated(drawn, muscles.codes(table)).astype(np.uint8)
    image = nib.Nifti1Image(labels, axial.affine)
    shares, _ = drawn_shares(bones, vertebrae.names, axial.affine, labels.shape[2])
    levels = likeliest(shares, labels.shape[2], 'segmentation')
    measures = measure_scan(image, table, ScanImages(contrast='T1w'), levels=levels)
    return measure_loads(
        spine,
        measures.levels,
        height_m=height_m(info),
        weight_kg=weight_kg(info),
        sex=sex(info),
    ).rows
