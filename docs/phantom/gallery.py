"""Draw the pictures of docs/phantom.md: ``python docs/phantom/gallery.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
from PIL import Image

from bids_muscle.anatomy.labels import load_label_table
from bids_muscle.phantom.dataset import write_dataset
from bids_muscle.phantom.effects import load_effects

mpl.use('Agg')
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
Panel = tuple[str, np.ndarray, np.ndarray | None]


def load(path: Path) -> np.ndarray:
    """Return an image in RAS+ voxel order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def scan(root: Path, stem: str, label: str = 'dixon') -> tuple[np.ndarray, np.ndarray]:
    """Return an image of sub-01 and its true label map."""
    region = next(root.glob('derivatives/truth/seg-*muscles_dseg.tsv')).name[4:-9]
    truth = f'derivatives/truth/sub-01/anat/sub-01_acq-{label}_seg-{region}_dseg.nii.gz'
    return load(root / f'sub-01/anat/sub-01_{stem}.nii.gz'), load(root / truth)


def draw(panels: list[list[Panel]], name: str, region: str) -> None:
    """Draw rows of slices, seen from below: the person's right is on the left."""
    colors = {label.index: np.array(label.rgb) / 255 for label in load_label_table(region)}
    rows, columns = len(panels), len(panels[0])
    x, y = panels[0][0][1].shape
    width = 2.1 * columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, 1.02 * rows * 2.1 * y / x), squeeze=False
    )
    for row, line in zip(axes, panels, strict=True):
        for axis, (title, image, labels) in zip(row, line, strict=True):
            top = max(np.percentile(image, 99.3), 1)
            shown = np.repeat(np.clip(image / top, 0, 1)[..., None], 3, axis=2)
            if labels is not None:
                for index, color in colors.items():
                    inside = labels == index
                    shown[inside] = 0.55 * shown[inside] + 0.45 * color
            axis.imshow(shown[::-1].transpose(1, 0, 2), origin='lower', interpolation='bilinear')
            axis.text(0.02, 0.97, title, color='w', va='top', transform=axis.transAxes, size=7)
            axis.axis('off')
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    path = HERE / f'{name}.png'
    figure.savefig(path, dpi=100, facecolor='k')
    plt.close(figure)
    with Image.open(path) as full:
        small = full.convert('RGB').quantize(96)
    small.save(path, optimize=True)


def main() -> None:
    """Simulate and draw."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        common: dict[str, Any] = {'participants': 1, 'seed': 4}
        for region, slices in (('lumbar', (5, 13, 21, 31)), ('cervical', (4, 14, 22, 32))):
            data = write_dataset(
                root / region,
                regions=(region,),
                contrasts=('dixon', 't1w', 't2w'),
                **common,
            )
            names = {
                'water': 'acq-dixonwater_T1w',
                'fat': 'acq-dixonfat_T1w',
                'T1w': 'T1w',
                'T2w': 'T2w',
            }
            images = {title: scan(data, stem) for title, stem in names.items()}
            keep = slice(None) if region == 'lumbar' else slice(60, 340)
            rows: list[list[Panel]] = [
                [(title, image[keep, :, k], None) for k in slices]
                for title, (image, _) in images.items()
            ]
            water, labels = images['water']
            rows.append([('truth', water[keep, :, k], labels[keep, :, k]) for k in slices])
            draw(rows, region, region)
        _artefacts(root, common)
        _fat(root, common)


def _artefacts(root: Path, common: dict[str, Any]) -> None:
    small = {'shape': (240, 240, 12), 'voxel_mm': (1.5, 1.5, 5.0)}
    line: list[Panel] = []
    for name in ('swap', 'ghosting', 'metal', 'wrap', 'chemical-shift'):
        data = write_dataset(
            root / name, artefacts=((name, 1.0),), contrasts=('dixon', 't1w'), **small, **common
        )
        stem = 'acq-dixonwater_T1w' if name == 'swap' else 'T1w'
        image = scan(data, stem)[0]
        plain = write_dataset(
            root / f'{name}-plain', contrasts=('dixon', 't1w'), **small, **common
        )
        change = np.abs(image.astype(float) - scan(plain, stem)[0]).sum(axis=(0, 1))
        line.append((name, image[:, :, int(change.argmax())], None))
    draw([line], 'artefacts', 'lumbar')


def _fat(root: Path, common: dict[str, Any]) -> None:
    line: list[Panel] = []
    for mean in (8, 18, 30, 45):
        own = root / f'{mean}.toml'
        muscles = load_effects().mfi['lumbar']
        lines = [f'"{name}" = {{ mean = {mean}, sd = 0 }}' for name in muscles]
        own.write_text('\n'.join(['[mfi.lumbar]', *lines]) + '\n', encoding='utf-8')
        data = write_dataset(
            root / f'fat{mean}',
            effects=load_effects(own),
            contrasts=('dixon', 't2w'),
            shape=(320, 320, 8),
            voxel_mm=(0.7, 0.7, 4.5),
            **common,
        )
        image, _ = scan(data, 'T2w')
        line.append((f'mean MFI {mean} %', image[50:270, 30:200, 4], None))
    draw([line], 'fat', 'lumbar')


if __name__ == '__main__':
    main()
