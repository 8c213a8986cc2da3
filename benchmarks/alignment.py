"""Overlap of the atlas with true muscles before and after alignment; see docs/benchmarks.md.

    python benchmarks/alignment.py DATASET [DATASET ...]

Each DATASET is a BIDS dataset with label maps in its derivatives. The scan is aligned by what the
packaged model segments and by its intensities alone; the true labels only score. Before: the
middle of the atlas on the middle of the scan.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import apply_affine

from bids_muscle.dataset.discovery import find_scans, list_participants
from bids_muscle.dataset.label_maps import find_label_maps, scans_of
from bids_muscle.imaging import alignment
from bids_muscle.imaging.atlas import Atlas, find_atlas, read_atlas
from bids_muscle.imaging.conform import load_image, to_canonical
from bids_muscle.imaging.prepare import prepare_scan
from bids_muscle.segmentation.bundle import find_model
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


def measure(bids_dir: Path) -> Iterable[str]:
    """Give a line of the table for each labelled lumbar scan of a dataset."""
    atlas = read_atlas(find_atlas(None, 'lumbar'))
    predictor = Predictor(find_model(None, 'lumbar'))
    maps = [
        each
        for folder in sorted(bids_dir.glob('derivatives/*'))
        for each in find_label_maps(folder)
    ]
    scans = [
        scan
        for label in list_participants(bids_dir)
        for scan in find_scans(bids_dir, label, region='lumbar')
    ]
    for label_map in maps:
        codes = label_map.codes(atlas.table) if label_map.names else {}
        for scan in scans_of(label_map, scans) if codes else ():
            made = prepare_scan({str(k): load_image(path) for k, path in scan.paths.items()})
            images = {key: img for key, img in made.corrected.items() if key != 'fatfraction'}
            drawn = np.asarray(to_canonical(load_image(label_map.path)).dataobj)
            true = np.zeros(drawn.shape, np.uint8)
            for code, index in codes.items():
                true[drawn == code] = index
            if not true.any():
                continue
            first = next(iter(images.values()))
            segmented = predictor.segment(images).labels
            nothing = Nifti1Image(np.zeros_like(true), first.affine)

            def score(found: alignment.Alignment, first: Nifti1Image, true: np.ndarray) -> float:
                return mean_dice(alignment.labels_in_scan(found, atlas, first), true)

            start = time.process_time()
            by_muscles = alignment.align_scan(images, segmented, made.body_mask, atlas)
            seconds = time.process_time() - start
            alone = alignment.align_scan(images, nothing, made.body_mask, atlas)
            numbers = [score(x, first, true) for x in (centred(atlas, first), alone, by_muscles)]
            cells = ' | '.join(f'{value:.2f}' for value in numbers)
            yield f'| {scan.name} | {cells} | {by_muscles.overlap:.2f} | {seconds:.1f} |'


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('datasets', type=Path, nargs='+')
    print('| scan | before | by intensities | by muscles | score told | CPU s |')
    print('|---|---|---|---|---|---|')
    for folder in parser.parse_args().datasets:
        for line in measure(folder):
            print(line, flush=True)


if __name__ == '__main__':
    main()
