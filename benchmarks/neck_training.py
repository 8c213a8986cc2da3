"""Real necks with the outlines of ``references/neck``, as the recipe ``cervical-real`` reads them.

    python benchmarks/neck_training.py DATA OUTPUT

``DATA/neck`` has the scans. Each image on the grid of an outlined one gets its label map: the two
gradient echoes of a person differ in contrast alone. Magnetisation transfer (MT) halves the signal
of muscle and leaves that of fat, so that the two also give images like water and fat. Where a
slice lacks some muscle of the table, all that is not outlined in it is unknown. But where a muscle
was looked for and not found, its place in the nearest slice that has it is background, and so is
the face.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from neck_references import Reference, image_path, rasterise, read_outlines
from scipy.ndimage import binary_dilation, gaussian_filter

#: Number of a pixel that may be anything.
UNKNOWN = 99
#: Longus colli and capitis, and how far in front of it no other muscle of the table is, mm.
LONGUS, FRONT_MM = (3, 4), 12.0
#: Signal of muscle with MT as a share of that without, the median inside the outlines of sub-01.
MUSCLE_RATIO = 0.51


def known_labels(reference: Reference, pixel_mm: float) -> np.ndarray:
    """Return the label map with what nobody looked for as unknown."""
    drawn, known = reference.labels, reference.known
    complete = known[:, 1:].all(axis=1)
    unknown = (drawn == 0) & ~complete
    # Above, only masseter, pterygoids and tongue lie this far in front of longus colli.
    top = np.flatnonzero(complete).max()
    front = np.flatnonzero(np.isin(drawn[..., top], LONGUS).any(0)).max()
    unknown[:, front + round(FRONT_MM / pixel_mm) :, top + 1 :] = False
    for label in range(1, known.shape[1]):
        found = (drawn == label).any((0, 1))
        for k in np.flatnonzero(known[:, label] & ~found):
            there = np.flatnonzero(found)[np.abs(np.flatnonzero(found) - k).argmin()]
            unknown[binary_dilation(drawn[..., there] == label, iterations=4), k] = False
    return np.where(unknown, UNKNOWN, drawn).astype(np.uint8)


def water_and_fat(on: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split the signal without MT into what MT takes from (water) and what it leaves (fat).

    Vessels and the spinal canal, which MT leaves as well, come out as fat; air is split in halves.
    """
    smooth_on, smooth_off = (gaussian_filter(image, (0.6, 0.6, 0)) for image in (on, off))
    share = (1 - smooth_on / np.maximum(smooth_off, 1)) / (1 - MUSCLE_RATIO)
    share[smooth_off < 0.03 * np.percentile(off, 99)] = 0.5
    water = off * share.clip(0, 1)
    return water, off - water


def same_grid(path: Path, drawn: nib.Nifti1Image) -> bool:
    """Return whether an image has the voxels of the one that was drawn on."""
    other = nib.as_closest_canonical(nib.load(path))
    return other.shape == drawn.shape and np.allclose(other.affine, drawn.affine, atol=0.01)


def main() -> None:
    """Write the scans and their label maps as a BIDS dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('output', type=Path)
    options = parser.parse_args()
    root = options.output / 'neck-outlined'
    outlines = read_outlines()
    for person in sorted({outline.participant for outline in outlines}):
        drawn_on = image_path(options.data / 'neck', person, outlines)
        drawn = nib.as_closest_canonical(nib.load(drawn_on))
        mine = [o for o in outlines if (o.participant, o.reading) == (person, 1)]
        labels = known_labels(rasterise(mine, drawn.shape), drawn.header.get_zooms()[1])
        paths = [p for p in sorted(drawn_on.parent.glob('*.nii.gz')) if same_grid(p, drawn)]
        for path in paths:
            scan = root / person / 'anat' / path.name
            name = f'{path.name.rsplit("_", 1)[0]}_seg-outlines_dseg.nii.gz'
            seg = root / 'derivatives/outlines' / person / 'anat' / name
            for file in (scan, seg):
                file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, scan)
            nib.save(nib.Nifti1Image(labels, drawn.affine), seg)
        pair = [p for mt in ('on', 'off') for p in paths if f'_acq-MT{mt}_' in p.name]
        if len(pair) == 2:
            on, off = (nib.as_closest_canonical(nib.load(p)).get_fdata() for p in pair)
            for kind, values in zip(('water', 'fat'), water_and_fat(on, off), strict=True):
                image = nib.Nifti1Image(values.astype(np.float32), drawn.affine)
                nib.save(image, root / person / 'anat' / f'{person}_acq-MT{kind}_T1w.nii.gz')


if __name__ == '__main__':
    main()
