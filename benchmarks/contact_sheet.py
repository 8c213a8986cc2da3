"""Show how a model outlines slices that nobody outlined: one picture with all of them.

    python benchmarks/contact_sheet.py ../shared/data/lumbar-slices sheet.webp [--model MODEL]

Each PNG in the folder is one axial slice as on screen: front up, the person's right at the left.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from pseudo_labels import read_slices

from bids_muscle.errors import SegmentationError
from bids_muscle.segmentation.catalogue import find_model, load_model
from bids_muscle.segmentation.predictor import Predictor

COLUMNS, TILE_PX = 10, 128
#: Side of the middle of a slice that is shown, as a share of it.
SHOWN = 0.7


def tile(plane: np.ndarray, labels: np.ndarray, colours: dict[int, str]) -> Image.Image:
    """Outlines on the slice, as on screen."""
    grey = np.clip(plane / np.quantile(plane, 0.99), 0, 1) * 255
    picture = np.repeat(grey[..., None], 3, axis=2)
    for number, colour in colours.items():
        mask = labels == number
        inside = mask.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            inside &= np.roll(mask, step, axis)
        picture[mask & ~inside] = ImageColor.getrgb(colour)
    # Right to left and front up: RAS+ turned over.
    screen = Image.fromarray(picture.astype(np.uint8)[::-1, ::-1].transpose(1, 0, 2))
    cut = [round((1 - SHOWN) / 2 * side) for side in screen.size]
    box = (cut[0], 2 * cut[1], screen.width - cut[0], screen.height)
    return screen.crop(box).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)


def main() -> None:
    """Segment every slice and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--model', help='name or folder')
    parser.add_argument('--pixel-mm', type=float, default=0.6875)
    options = parser.parse_args()
    bundle = find_model(options.model, 'lumbar')
    colours = {label.index: label.color for label in bundle.labels}
    predictor = Predictor(load_model(bundle))
    tiles = []
    for _, _, corrected in read_slices(options.folder, options.pixel_mm):
        try:
            labels = np.asarray(predictor.segment({'T2w': corrected}).labels.dataobj)[..., 0]
        except SegmentationError:
            labels = np.zeros(corrected.shape[:2], np.uint8)
        plane = np.asarray(corrected.dataobj, np.float32)[..., 0]
        tiles.append(tile(plane, labels, colours))
    sheet = Image.new('RGB', (COLUMNS * TILE_PX, -(-len(tiles) // COLUMNS) * TILE_PX))
    for k, picture in enumerate(tiles):
        sheet.paste(picture, (k % COLUMNS * TILE_PX, k // COLUMNS * TILE_PX))
    sheet.save(options.output, quality=60, method=6)


if __name__ == '__main__':
    main()
