"""Segment people who were held out of a training, and compare with their label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_muscle.dataset.names import read_entities
from bids_muscle.dataset.writer import write_image, write_tsv
from bids_muscle.errors import SegmentationError
from bids_muscle.imaging.conform import voxel_sizes
from bids_muscle.imaging.correction import whole_numbers
from bids_muscle.reports.evaluation import write_evaluation
from bids_muscle.segmentation.bundle import ModelBundle
from bids_muscle.segmentation.catalogue import load_model
from bids_muscle.segmentation.training.sources import UNKNOWN, TrainingCase, counts_as, recode
from bids_muscle.statistics.evaluation import compare_maps, people_of
from bids_muscle.workflows.evaluation_maps import scan_columns


def segment_held_out(
    bundle: ModelBundle, cases: Sequence[TrainingCase], output: Path, device: str
) -> dict[str, Any]:
    """Segment whole scans of people held out as the application does; return their Dice.

    The label maps have the numbers and the names of the label maps that they are compared with,
    and are in one derivatives dataset for each dataset. Where several numbers of a map are one
    class of the network, such as its discs, each voxel gets the number of the nearest, and the
    largest component of each is kept.

    Parameters
    ----------
    bundle
        The model.
    cases
        Label maps with their images.
    output
        Folder of the label maps and of the evaluation.
    device
        See :class:`~bids_muscle.segmentation.predictor.Predictor`.
    """
    import pandas as pd

    from bids_muscle.imaging.prepare import prepare_scan
    from bids_muscle.segmentation.predictor import Predictor

    classes = int(bundle.network['out_channels'])
    # The network's own classes: those for which the label table has no number are wanted as well.
    model = replace(load_model(bundle), numbers=tuple(range(classes)))
    predictor = Predictor(model, device=device)
    numbers = np.array(bundle.card.get('numbers') or range(classes))
    rows: list[dict[str, Any]] = []
    for case in cases:
        prepared = prepare_scan(
            {key: nib.load(path) for key, path in case.images.items()},  # type: ignore[misc]
            bias_correction=case.source.bias_correction,
        )
        images = {name: prepared.corrected[name] for name in case.images}
        try:
            predicted = np.asarray(predictor.segment(images).labels.dataobj)
        except SegmentationError:  # nothing found: all of it is missed, and that is the result
            predicted = np.zeros(prepared.body_mask.shape, np.uint8)
        stem = case.labels.name.split('.')[0].removesuffix('_dseg')
        entities = dict(part.split('-', 1) for part in stem.split('_') if '-' in part)
        # One map may lie on several scans of a person: in other contrasts, or in several runs.
        same = [other for other in cases if other.labels == case.labels]
        if sum(other.images.keys() == case.images.keys() for other in same) > 1:
            scan = read_entities(next(iter(case.images.values())))
            own = ''.join(f'_{key}-{scan[key]}' for key in scan if key not in entities)
            stem = stem.replace('_seg-', f'{own}_seg-')
        if len(same) > 1:
            stem += f'_desc-{"".join(case.images)}'
        truth = nib.as_closest_canonical(nib.load(case.labels))
        codes = whole_numbers(truth, case.labels)
        fat = _water_fat(case, prepared.corrected)
        dataset, _, person = case.participant.rpartition('/')
        _publish(case, predicted, codes, fat, images, output / dataset / person / 'anat' / stem)
        reference = recode(codes, case.source)
        # As in the training: pixels that may be anything, and labels that are joined to others.
        counts = counts_as(case.source.annotated, case.source.joined, classes)
        predicted = np.array([0, *counts])[predicted]
        predicted[reference == UNKNOWN] = 0
        reference[reference >= classes] = 0
        zooms = voxel_sizes(truth.affine)
        fraction = prepared.fat_fraction
        compared = compare_maps(
            numbers[predicted],
            numbers[reference],
            {n: bundle.labels.by_index[n] for n in numbers[list(case.source.annotated)] if n},
            (float(zooms[0]), float(zooms[1]), float(zooms[2])),
            float(abs(np.linalg.det(truth.affine[:3, :3]))),
            None if fraction is None else np.asarray(fraction.dataobj),
            (np.asarray(fat['water'].dataobj), np.asarray(fat['fat'].dataobj)) if fat else None,
        )
        where = scan_columns(entities, f'{dataset}/{stem}')
        rows += [{**where, **row} for row in compared]
    table = pd.DataFrame(rows)
    write_evaluation(
        table, output, f'{bundle.name}: held-out participants of {output.parent.name}'
    )
    people = people_of(table)
    by_person = table.groupby(['name', people], sort=False)['dice'].mean()
    dice = by_person.groupby(level='name', sort=False).mean().dropna()
    return {
        'participants': int(people.nunique()),
        'scans': int(table['scan'].nunique()),
        'dice': {name: round(float(value), 4) for name, value in dice.items()},
    }


def _water_fat(
    case: TrainingCase, corrected: Mapping[str, nib.Nifti1Image]
) -> dict[str, nib.Nifti1Image]:
    """Return water and fat of a scan in RAS+ order, nothing without both."""
    loaded = {key: nib.as_closest_canonical(nib.load(path)) for key, path in case.beside.items()}
    found = {**corrected, **loaded}
    both = ('water', 'fat')
    return {name: found[name] for name in both} if set(both) <= found.keys() else {}


def _publish(
    case: TrainingCase,
    predicted: np.ndarray,
    codes: np.ndarray,
    fat: Mapping[str, nib.Nifti1Image],
    images: Mapping[str, nib.Nifti1Image],
    stem: Path,
) -> None:
    """Write a label map in the numbers of its reference, and what fat is measured in beside it."""
    first = next(iter(images.values()))
    written = in_numbers_of(predicted, codes, case.source.codes)
    # NIfTI header of the image: the reference may have another origin.
    write_image(nib.Nifti1Image(written, first.affine), stem.with_name(f'{stem.name}_dseg.nii.gz'))
    if case.names:
        lookup = [{'index': number, 'name': name} for number, name in case.names.items()]
        write_tsv(lookup, stem.with_name(f'{stem.name}_dseg.tsv'))
    parts = [part for part in stem.name.split('_') if part.split('-')[0] not in ('seg', 'desc')]
    acq = next((part for part in parts if part.startswith('acq-')), None)
    suffix = 'T2w' if 'T2w' in images else 'T1w'
    for name, image in (fat or {'': first}).items():
        named = [f'{part}{name}' if part == acq else part for part in parts]
        named += [f'acq-{name}'] if name and acq is None else []
        path = stem.with_name(f'{"_".join(named)}_desc-preproc_{suffix}.nii.gz')
        write_image(image, path)


def in_numbers_of(
    predicted: np.ndarray, reference: np.ndarray, codes: Mapping[int, int]
) -> np.ndarray:
    """Bring the classes of a network to the numbers of a label map.

    Parameters
    ----------
    predicted
        (X, Y, Z) classes.
    reference
        (X, Y, Z) numbers of the map.
    codes
        Class of each number. Of several numbers of one class a voxel gets that of the nearest
        voxel of the reference, and of each number the largest component is kept.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z) int16.

    Examples
    --------
    >>> found = np.array([[[0, 1, 1, 0, 1, 2]]])
    >>> in_numbers_of(found, np.array([[[101, 101, 0, 0, 102, 0]]]), {101: 1, 102: 1, 7: 2})
    array([[[  0, 101, 101,   0, 102,   7]]], dtype=int16)
    """
    from scipy import ndimage

    out = np.zeros(predicted.shape, np.int16)
    for number in sorted(set(codes.values())):
        own = [code for code, each in codes.items() if each == number]
        mask = predicted == number
        if len(own) == 1:
            out[mask] = own[0]
            continue
        among = np.where(np.isin(reference, own), reference, 0)
        if not among.any():
            continue
        nearest = ndimage.distance_transform_edt(
            among == 0, return_distances=False, return_indices=True
        )
        named = among[tuple(nearest)]
        for code in own:
            pieces, count = ndimage.label(mask & (named == code))
            if count:
                sizes = np.bincount(pieces.ravel())[1:]
                out[pieces == 1 + sizes.argmax()] = code
    return out
