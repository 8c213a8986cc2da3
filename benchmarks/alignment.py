"""Overlap of the atlas with true muscles before and after alignment; see docs/benchmarks.md.

    python benchmarks/alignment.py DATASET [DATASET ...] [--region cervical] [--slices 6]

Each DATASET is a BIDS dataset with label maps in its derivatives. The scan, or some slices of its
middle, is aligned by what the packaged model segments, and by its intensities alone; the true
labels only score. Before: the middle of the atlas on the middle of the scan. Where there are label
maps of vertebrae too, levels are counted: slices, those given a level, those given the right one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine

from bids_muscle.dataset.discovery import find_scans
from bids_muscle.dataset.folders import list_participants
from bids_muscle.dataset.label_maps import LabelMap, candidate_scans, find_label_maps
from bids_muscle.imaging import alignment
from bids_muscle.imaging.atlas import Atlas, classes_of, find_atlas, read_atlas
from bids_muscle.imaging.conform import load_image, to_canonical
from bids_muscle.imaging.levels import (
    level_of,
    likeliest,
    slice_probabilities,
    vertebra_boundaries,
)
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.catalogue import find_model
from bids_muscle.segmentation.predictor import Predictor
from bids_muscle.statistics.overlap import overlap


def mean_dice(found: np.ndarray, true: np.ndarray) -> float:
    """Mean Dice over the muscles that the true map has."""
    labels = np.unique(true[true > 0]).tolist()
    return float(np.mean([each.dice for each in overlap(found, true, labels).values()]))


def centred(atlas: Atlas, scan: Nifti1Image) -> alignment.Alignment:
    """Put the middle of the scan on the middle of the atlas."""
    matrix = np.eye(4)
    shape = next(iter(atlas.images.values())).shape
    middle = apply_affine(atlas.affine, (np.array(shape) - 1) / 2)
    matrix[:3, 3] = middle - apply_affine(scan.affine, (np.array(scan.shape) - 1) / 2)
    return alignment.Alignment(matrix, ('', ''), 0, 0, ((0.0, 1.0),), ())


def levels(found: alignment.Alignment, atlas: Atlas, scan: Nifti1Image, spine: LabelMap) -> str:
    """Count slices, those named by the alignment, and those of them named rightly."""
    drawn = load_image(spine.path)
    boundaries = vertebra_boundaries(np.asarray(drawn.dataobj), drawn.affine, spine.names)
    n_slices = scan.shape[2]
    true = likeliest(
        slice_probabilities(boundaries, scan.affine, n_slices), n_slices, 'segmentation'
    )
    shares = alignment.level_probabilities(found, atlas, scan)
    named = likeliest(shares, n_slices, 'atlas').names
    pairs = [pair for pair in zip(true.names, named, strict=True) if pair[0]]
    given = [pair for pair in pairs if pair[1]]
    return f'{len(pairs)}, {len(given)}, {sum(one == other for one, other in given)}'


def measure(bids_dir: Path, region: str, n_slices: int | None) -> Iterable[str]:
    """Give a line of the table for each labelled scan of a dataset."""
    atlas = read_atlas(find_atlas(None, region))
    predictor = Predictor(find_model(None, region))
    maps = [
        each
        for folder in sorted(bids_dir.glob('derivatives/*'))
        for each in find_label_maps(folder)
    ]
    scans = [
        scan
        for label in list_participants(bids_dir)
        for scan in find_scans(bids_dir, label, region=region)
    ]
    for label_map in maps:
        codes = label_map.codes(atlas.table) if label_map.names else {}
        for scan in candidate_scans(label_map, scans) if codes else ():
            made = prepare_scan({str(k): load_image(path) for k, path in scan.paths.items()})
            images = {key: img for key, img in made.corrected.items() if key != 'fatfraction'}
            drawn = to_canonical(load_image(label_map.path))
            cut = slice(None)
            if n_slices:
                first = (drawn.shape[2] - n_slices) // 2
                cut = slice(first, first + n_slices)
            images = {key: img.slicer[:, :, cut] for key, img in images.items()}
            mask = made.body_mask.slicer[:, :, cut]
            numbers = np.asarray(drawn.dataobj)[:, :, cut]
            true = np.zeros(numbers.shape, np.uint8)
            for code, index in codes.items():
                true[numbers == code] = index
            if not true.any():
                continue
            img = next(iter(images.values()))
            segmented = predictor.segment(images).labels
            nothing = Nifti1Image(np.zeros_like(true), img.affine)

            def score(found: alignment.Alignment, img: Nifti1Image, true: np.ndarray) -> str:
                dice = mean_dice(alignment.labels_in_scan(found, atlas, img), true)
                return f'{dice:.2f}'

            start = time.process_time()
            stiff = alignment.align_scan(images, segmented, mask, atlas)
            seconds = time.process_time() - start
            start = time.process_time()
            soft = alignment.deform(
                stiff,
                images[stiff.contrasts[0]],
                np.asarray(mask.dataobj) > 0,
                classes_of(np.asarray(segmented.dataobj), atlas.table),
                atlas,
            )
            syn_seconds = time.process_time() - start
            alone = alignment.align_scan(images, nothing, mask, atlas)
            dices = [score(each, img, true) for each in (centred(atlas, img), alone, stiff, soft)]
            spines = [
                each
                for each in maps
                if any(level_of(name) for name in each.names.values())
                and scan in candidate_scans(each, scans)
            ]
            counted = levels(stiff, atlas, img, spines[0]) if spines else ''
            yield (
                f'| {scan.name}, {img.shape[2]} slices | {" | ".join(dices)} | '
                f'{stiff.overlap:.2f} | {seconds:.1f} | {syn_seconds:.1f} | {counted} |'
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('datasets', type=Path, nargs='+')
    parser.add_argument('--region', default='lumbar')
    parser.add_argument('--slices', type=int, help='of the middle; all by default')
    args = parser.parse_args()
    print('| scan | before | intensities | muscles | SyN | score | CPU s | SyN CPU s | levels |')
    print('|---|---|---|---|---|---|---|---|---|')
    for folder in args.datasets:
        for line in measure(folder, args.region, args.slices):
            print(line, flush=True)


if __name__ == '__main__':
    main()
