"""Label maps and images that the model of the spine is trained on, beside the phantom's.

    python benchmarks/sagittal_data.py DATA OUTPUT

``DATA/sagittal-lumbar`` has eight people with L1-L5 drawn. Their affines are lost, so the axes are
said here; discs are what lies between two drawn bodies; T12 and the sacrum are outlined in one
slice (:data:`OUTLINES`, drawn by eye for this project), and what is near these outlines is left
open. Sacra and thoracic vertebrae are mostly cut off in these scans, hence ``painted``: simple
drawings of whole spines, of which only the shapes are used, in random contrasts.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion

BODY, DISC, SACRUM, UNKNOWN = 1, 2, 3, 9
#: Axes of the files: down, back, to one side.
AFFINE = np.array([[0, 0, 1, -38], [0, -1, 0, 112], [-1, 0, 0, 112], [0, 0, 0, 1]], float)

Outline = Sequence[tuple[float, float]]
#: Slice, T12, S1 and S2 (none where it is not in view): corners (back, down) in voxels.
OUTLINES: dict[str, tuple[int, Outline, Outline, Outline]] = {
    '03': (
        39,
        [(131, 0), (165, 0), (165, 16), (130, 13)],
        [(113, 223), (114, 219), (128, 211), (140, 207), (150, 215), (157, 223)],
        [],
    ),
    '04': (
        39,
        [(133, 2), (172, 2), (170, 28), (134, 22)],
        [(116, 218), (127, 208), (139, 199), (147, 202), (160, 209), (149, 223), (118, 223)],
        [],
    ),
    '05': (
        38,
        [(122, 0), (157, 0), (149, 22), (119, 14)],
        [(102, 206), (124, 189), (142, 200), (131, 217), (126, 218)],
        [(134, 219), (144, 202), (165, 212), (175, 223), (136, 223)],
    ),
    '06': (
        40,
        [(114, 3), (142, 3), (142, 28), (112, 26)],
        [(107, 223), (125, 214), (131, 221), (132, 223)],
        [],
    ),
    '07': (
        38,
        [(124, 0), (152, 0), (147, 20), (120, 15)],
        [(102, 213), (120, 193), (140, 201), (132, 215), (118, 217)],
        [(137, 216), (144, 202), (163, 213), (167, 218)],
    ),
    '08': (
        47,
        [(106, 5), (134, 9), (127, 34), (98, 26)],
        [(107, 214), (127, 190), (146, 201), (139, 212), (120, 215)],
        [(144, 213), (148, 204), (163, 212), (168, 217), (150, 216)],
    ),
    '09': (
        46,
        [(119, 0), (146, 0), (142, 12), (116, 6)],
        [(91, 212), (112, 190), (122, 197), (132, 207), (121, 215), (105, 215)],
        [],
    ),
    '10': (
        52,
        [(105, 0), (132, 0), (130, 19), (103, 14)],
        [(90, 219), (114, 202), (122, 207), (135, 219), (138, 223), (92, 223)],
        [],
    ),
}
#: The outlines hold this far to both sides of their slice, voxels.
REACH = 9
#: People and slices of the drawings.
PAINTED, NECKS, SIDES_MM = 40, 30, np.arange(-36, 37, 6.0)
#: Extent of a drawing to the front and up, mm.
FRONT_MM, UP_MM = 240, 330


def main() -> None:
    """Write the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path)
    parser.add_argument('output', type=Path)
    arguments = parser.parse_args()
    source = arguments.data / 'sagittal-lumbar'
    for person in OUTLINES:
        write_person(source, arguments.output / 'sagittal-lumbar', person)
    shutil.copy(
        source / 'dataset_description.json',
        arguments.output / 'sagittal-lumbar' / 'dataset_description.json',
    )
    for number in range(PAINTED):
        path = arguments.output / 'painted' / f'painted{number:02d}_dseg.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.diag([SIDES_MM[1] - SIDES_MM[0], 1, 1, 1])
        nib.Nifti1Image(paint_person(np.random.default_rng([7, number])), affine).to_filename(path)
    for number in range(NECKS):
        path = arguments.output / 'painted-necks' / f'painted{number:02d}_dseg.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([8, number])
        nib.Nifti1Image(paint_person(rng, neck=True), affine).to_filename(path)


def write_person(source: Path, output: Path, person: str) -> None:
    """Write the image with its axes, and the completed label map."""
    name = f'sub-{person}/anat/sub-{person}_acq-sag'
    image = nib.load(source / f'{name}_T1w.nii.gz')
    drawn = nib.load(source / 'derivatives/manual' / f'{name}_seg-vertebrae_dseg.nii.gz')
    for data, path in (
        (np.asarray(image.dataobj), output / f'{name}_T1w.nii.gz'),
        (
            complete(np.asarray(drawn.dataobj), *OUTLINES[person]),
            output / 'derivatives/manual' / f'{name}_seg-spine_dseg.nii.gz',
        ),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(data, AFFINE).to_filename(path)


def complete(drawn: np.ndarray, middle: int, t12: Outline, s1: Outline, s2: Outline) -> np.ndarray:
    """Return bodies, discs, sacrum and what is unknown, from L1-L5 and outlines in a slice."""
    labels = np.zeros(drawn.shape, np.uint8)
    masks = [fill(outline, drawn.shape[:2]) for outline in (t12, s1, s2)]
    open_top, open_bottom = (_around(mask) for mask in (masks[0], masks[1] | masks[2]))
    for k in range(drawn.shape[2]):
        plane, numbers = labels[..., k], drawn[..., k]
        plane[open_top | open_bottom] = UNKNOWN
        known = abs(k - middle) <= REACH
        column = [masks[0], *(numbers == number for number in range(1, 6)), masks[1]]
        if not known:
            column = column[1:-1]
        if known:
            for mask, label in zip(masks, (BODY, SACRUM, SACRUM), strict=True):
                plane[mask] = UNKNOWN
                plane[binary_erosion(mask)] = label
        for upper, lower in pairwise(column):
            if upper.any() and lower.any():
                plane[between(upper, lower)] = DISC
        plane[numbers > 0] = BODY
    return labels


def fill(outline: Outline, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels within an outline."""
    canvas = Image.new('1', (shape[1], shape[0]))
    if outline:
        ImageDraw.Draw(canvas).polygon(list(outline), fill=1)
    return np.array(canvas)


def _around(mask: np.ndarray) -> np.ndarray:
    """Where the spine beyond the drawn vertebrae may be: rows of the mask, and near it."""
    rows = np.flatnonzero(mask.any(1))
    near = binary_dilation(mask, iterations=3)
    columns = np.flatnonzero(mask.any(0))
    low, high = max(columns[0] - 15, 0), columns[-1] + 40
    last = mask.shape[0] - 1
    at_top = rows[0] < last - rows[-1]
    rows_open = slice(0, rows[-1] - 4) if at_top else slice(rows[0] + 6, last + 1)
    near[rows_open, low:high] = True
    return near


def between(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return the pixels between two vertebrae, along the line from one middle to the other."""
    first, second = (np.argwhere(mask).mean(0) for mask in (upper, lower))
    axis = (second - first) / np.linalg.norm(second - first)
    across = np.array([-axis[1], axis[0]])
    grid = np.indices(upper.shape).reshape(2, -1).T - first
    along, aside = grid @ axis, np.floor(grid @ across).astype(int)
    aside -= aside.min()
    top, bottom = np.full(aside.max() + 1, -np.inf), np.full(aside.max() + 1, np.inf)
    np.maximum.at(top, aside[upper.ravel()], along[upper.ravel()])
    np.minimum.at(bottom, aside[lower.ravel()], along[lower.ravel()])
    gap = bottom - top
    fits = np.isfinite(gap) & (gap > 0)
    if not fits.any():
        return np.zeros_like(upper)
    fits &= gap < 1.8 * np.median(gap[fits]) + 2
    found = fits[aside] & (along > top[aside]) & (along < bottom[aside])
    return found.reshape(upper.shape) & ~upper & ~lower


# A drawn person. Structures beside body, disc and sacrum:
(CANAL, CORD, PROCESS, LIGAMENT, MUSCLE, SKIN_FAT, SKIN, VISCERAL) = range(10, 18)
VESSEL, BOWEL, PEDICLE, FORAMEN, WALL = 18, 19, 25, 26, 27
REMNANT = UNKNOWN


def paint_person(rng: np.random.Generator, neck: bool = False) -> np.ndarray:
    """Draw the spine of nobody: (sides, front, up), uint8; a neck as large as a back."""
    spine = _Spine(rng, neck)
    return np.stack([spine.plane(float(side)) for side in SIDES_MM])


class _Spine:
    """Vertebrae T8-L5 (or L6) and the sacrum as tilted quadrilaterals, mm, (front, up)."""

    def __init__(self, rng: np.random.Generator, neck: bool = False) -> None:
        self.rng = rng
        self.neck = neck
        size = rng.uniform(0.85, 1.15)
        slope = np.deg2rad(np.clip(rng.normal(38, 10), 12, 62))
        count = 10
        # From S1 upwards the tilt falls through the lumbar spine and rises again above it.
        flat = rng.uniform(0.7, 1.15)
        fall = np.array([17, 13, 10, 8, 6, 2, -2, -3, -4, -4]) * flat * slope / np.deg2rad(38)
        tilt = slope - np.deg2rad(np.cumsum(fall + rng.normal(0, 2, count)))
        place = np.array([95 + rng.uniform(-15, 15), rng.uniform(70, 120)])
        wear = rng.uniform(0.25, 1.2, count) ** (rng.random() < 0.4)
        disc_mm = np.array([10, 11, 10.5, 9.5, 8.5, 7, 6, 5.5, 5, 5]) * size * wear
        height = np.array([27, 28, 28, 27.5, 26.5, 25.5, 24.5, 23.5, 22.5, 21.5]) * size
        depth = np.array([35, 35, 34.5, 34, 33, 32, 31, 30, 29, 28]) * size * rng.uniform(0.9, 1.1)
        height *= rng.normal(1, 0.05, count)
        if neck:
            # Nearly upright, bent by the pillow, with a wide canal and no sacrum.
            low, bend = rng.uniform(0, 22), rng.uniform(-8, 25)
            tilt = np.deg2rad(np.linspace(low, low - bend, count) + rng.normal(0, 2, count))
            slope = tilt[0]
            place = np.array([95 + rng.uniform(-15, 15), rng.uniform(-60, 30)])
            height, depth = np.full(count, 25 * size), np.full(count, 32 * size)
            height *= rng.normal(1, 0.06, count)
            depth *= rng.uniform(0.9, 1.15)
            disc_mm = np.full(count, 10 * size) * wear
        self.width = 24 * size
        self.bodies, self.discs, self.sacrum, self.remnants = [], [], [], []
        self.size = size
        last_tilt = slope
        for k in range(count):
            up_mean = _up((tilt[k] + last_tilt) / 2)
            low = place + up_mean * disc_mm[k]
            self.discs.append((depth[k], place, low, last_tilt, tilt[k]))
            middle = low + _up(tilt[k]) * height[k] / 2
            self.bodies.append((middle, tilt[k], depth[k], height[k]))
            place = low + _up(tilt[k]) * height[k]
            last_tilt = tilt[k]
        # Down the sacrum: ever smaller, bent backwards, then forwards.
        place, angle = self.discs[0][1], slope
        piece_h, piece_d = 27 * size, 32 * size * rng.uniform(0.9, 1.1)
        bend = rng.uniform(6, 16)
        for k in range(5):
            middle = place - _up(angle) * piece_h / 2
            self.sacrum.append((middle, angle, piece_d, piece_h))
            place = place - _up(angle) * piece_h
            gap = rng.uniform(0.5, 4.5) * (0.5**k)
            self.remnants.append((place - _up(angle) * gap / 2, angle, piece_d * 0.85, gap))
            place = place - _up(angle) * gap
            angle += np.deg2rad(bend if k < 2 else -bend * 1.5)
            piece_h, piece_d = piece_h * 0.82, piece_d * 0.76
        # Scoliosis: every level has its own middle.
        bend_mm = rng.normal(0, 4) if rng.random() < 0.7 else rng.normal(0, 12)
        self.offset = bend_mm * np.sin(np.linspace(0, np.pi * rng.uniform(0.5, 2), count))
        self.canal_mm = rng.uniform(20, 30) * size if neck else rng.uniform(11, 18) * size
        self.back_fat = rng.uniform(5, 45)
        self.belly = rng.uniform(50, 130)
        self.airway_mm = rng.uniform(8, 25), rng.uniform(12, 35)
        self.concave = rng.uniform(0.3, 2.5)
        self.bowel = [
            (
                rng.uniform(0, 1),
                rng.uniform(0, UP_MM),
                rng.uniform(6, 26),
                rng.uniform(6, 26),
                int(rng.integers(0, 6)),
            )
            for _ in range(30)
        ]

    def plane(self, side: float) -> np.ndarray:
        """Draw the slice at a distance from the middle, (front, up)."""
        rng = self.rng
        canvas = Image.new('L', (FRONT_MM, UP_MM), 0)
        self.draw = ImageDraw.Draw(canvas)
        chain = [*reversed([s[:4] for s in self.sacrum]), *self.bodies]
        front = np.array([m + _ahead(t) * d / 2 for m, t, d, _ in chain])
        back = np.array([m - _ahead(t) * d / 2 for m, t, d, _ in chain])
        heights = np.arange(-40, UP_MM + 40, 4.0)
        order = np.argsort(back[:, 1])
        wall = np.interp(heights, back[order, 1], back[order, 0])
        ahead = np.interp(heights, front[order, 1], front[order, 0])
        wall = np.convolve(np.pad(wall, 4, 'edge'), np.ones(9) / 9, 'valid')
        depth_muscle = 45 + 8 * np.sin(heights / 60 + rng.uniform(0, 6))
        belly = np.minimum(ahead + self.belly, FRONT_MM - 12)
        skin_back = wall - self.canal_mm - depth_muscle - self.back_fat
        self._band(heights, skin_back, belly + 8, SKIN)
        self._band(heights, skin_back + 2, belly + 6, SKIN_FAT)
        self._band(heights, skin_back + self.back_fat, wall, MUSCLE if abs(side) > 5 else LIGAMENT)
        self._band(heights, ahead, belly - 8, WALL)
        self._band(heights, ahead, belly - 18, VISCERAL)
        for share, up, rx, ry, kind in self.bowel:
            at = np.interp(up, heights, ahead) + 12 + share * max(self.belly - 30, 5)
            self._ellipse((at, up), (rx, ry), 0.0, BOWEL + kind)
        if self.neck and abs(side) < 16:
            gap, wide = self.airway_mm
            self._band(heights, ahead + gap, ahead + gap + wide, 0)
        elif abs(side) < 16:
            self._band(heights, ahead + 4, ahead + 4 + 14 * self.size, VESSEL)
        elif abs(side) > 18:
            self._band(heights, wall - 2, ahead + 8, MUSCLE)
        away = abs(side)
        if away < 11 * self.size:
            self._band(heights, wall - self.canal_mm, wall, CANAL)
            self._band(heights, wall - self.canal_mm * 0.75, wall - self.canal_mm * 0.3, CORD)
        for middle, tilt, depth, height in chain:
            behind = middle - _ahead(tilt) * (depth / 2)
            if away < 7:
                at = behind - _ahead(tilt) * (self.canal_mm + 14) - _up(tilt) * 8
                self._box(at, tilt - 0.25, 26, height * 0.55, PROCESS, 0.0)
            elif away < 24:
                at = behind - _ahead(tilt) * 10 + _up(tilt) * height * 0.2
                if away > 10:
                    self._box(at, tilt, 24, height * 0.35, PEDICLE, 0.0)
                    self._ellipse(at - _up(tilt) * height * 0.5, (6, 8), tilt, FORAMEN)
                self._ellipse(at - _ahead(tilt) * 16 - _up(tilt) * 6, (7, 14), tilt, PROCESS)
        for k, (depth, low, high, t_low, t_high) in enumerate(self.discs):
            share = self._share(side, k)
            if share:
                half = depth * share * rng.uniform(0.95, 1.06) / 2
                corners = [
                    low - _ahead(t_low) * half - _up(t_low),
                    low + _ahead(t_low) * half - _up(t_low),
                    high + _ahead(t_high) * half + _up(t_high),
                    high - _ahead(t_high) * half + _up(t_high),
                ]
                self._polygon(corners, DISC)
        for k, (middle, tilt, depth, height) in enumerate(self.bodies):
            share = self._share(side, k)
            if share:
                self._box(middle, tilt, depth * share, height, BODY, self.concave)
        share = self._share(side, 0)
        if self.neck:  # what follows below is the next vertebra
            return np.asarray(canvas).T.copy()
        for middle, tilt, depth, height in self.sacrum if share else ():
            self._box(middle, tilt, depth * share, height, SACRUM, 0.0)
        for middle, tilt, depth, height in self.remnants if share else ():
            self._box(middle, tilt, depth, max(height, 1.0), REMNANT, 0.0)
        return np.asarray(canvas).T.copy()

    def _share(self, side: float, level: int) -> float:
        """How deep a vertebra is in a slice, as a share; 0 beyond its side."""
        away = abs(side - self.offset[min(level, len(self.offset) - 1)]) / self.width
        return float((1 - away**4) ** 0.25) if away < 0.95 else 0.0

    def _band(self, heights: np.ndarray, low: np.ndarray, high: np.ndarray, fill: int) -> None:
        right, left = np.stack([high, heights], 1), np.stack([low, heights], 1)
        self._polygon([*right, *left[::-1]], fill)

    def _box(
        self,
        middle: np.ndarray,
        tilt: float,
        depth: float,
        height: float,
        fill: int,
        concave: float,
    ) -> None:
        """Draw a vertebra: end plates and walls are hollow."""
        u = np.array([-1, -0.5, 0, 0.5, 1])
        top = np.stack([u * depth / 2, height / 2 - concave * (1 - u**2)], 1)
        v = np.array([0.6, 0, -0.6])
        wall = np.stack([depth / 2 - concave * (1 - v**2), v * height / 2], 1)
        corners = [*top, *wall, *(top * (1, -1))[::-1], *(wall * (-1, 1))[::-1]]
        self._polygon([middle + x * _ahead(tilt) + y * _up(tilt) for x, y in corners], fill)

    def _ellipse(
        self, middle: Sequence[float] | np.ndarray, radii: Sequence[float], tilt: float, fill: int
    ) -> None:
        points = [
            np.asarray(middle)
            + radii[0] * np.cos(angle) * _ahead(tilt)
            + radii[1] * np.sin(angle) * _up(tilt)
            for angle in np.linspace(0, 2 * np.pi, 20)
        ]
        self._polygon(points, fill)

    def _polygon(self, points: Sequence[np.ndarray], fill: int) -> None:
        self.draw.polygon([(float(x), float(y)) for x, y in points], fill=fill)


def _up(tilt: float) -> np.ndarray:
    """Along a vertebra, (front, up), where its end plates fall forward by an angle."""
    return np.array([np.sin(tilt), np.cos(tilt)])


def _ahead(tilt: float) -> np.ndarray:
    return np.array([np.cos(tilt), -np.sin(tilt)])


if __name__ == '__main__':
    main()
