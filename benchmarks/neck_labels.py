"""Label maps of a neck that is not the phantom's, made from the meshes of BodyParts3D.

    python benchmarks/neck_labels.py DATA OUTPUT [--variants 8]

``DATA/anatomy`` has ``bodyparts3d_neck_dseg`` and ``trapezius_on_bodyparts3d_neck``. Their bellies
are too thin, and the trapezius too thick: bellies grow here until they fill the space of the
muscles, each by its own random factor, the trapezius is pared to a sheet on them; longus colli,
discs, airway, vessels, tongue, masseter, fat and skin are drawn. The recipe ``cervical-real``
makes images of them. The maps are derived from CC BY-SA data and are not part of the package.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_fill_holes,
    distance_transform_edt,
    gaussian_filter1d,
)
from scipy.spatial import ConvexHull

#: Numbers of tissues, of which the recipe says the names.
AIR, SKIN_FAT, FAT, BONE, CANAL, AIRWAY, ARTERY, VEIN = 40, 41, 42, 44, 45, 46, 48, 50
TONGUE, CHEWING, LARYNX = 25, 24, 31
#: Part of the name -> number: of the label table (right, left), or of other muscles.
LABELLED = {
    'multifidus': 1,
    'semispinalis_cervicis': 1,
    'longus_capitis': 3,
    'splenius_capitis': 5,
    'semispinalis_capitis': 7,
    'sternocleidomastoid': 9,
    'levator_scapulae': 13,
}
OTHERS = {
    'scalenus': 20,
    'capitis_inferior': 21,
    'capitis_superior': 21,
    'posterior_m': 21,
    'splenius_cervicis': 22,
    'longissimus': 23,
    'iliocostalis': 23,
    'semispinalis_thoracis': 23,
    'rotator': 23,
    'pterygoid': CHEWING,
    'thyro': 26,
    'sterno': 26,
    'hyoid': 26,
    'rhomboid': 27,
    'serratus': 27,
    'supraspinatus': 28,
    'platysma': 29,
}
#: What the space of the deep muscles of the back of the neck is spanned by.
DEEP = (1, 2, 5, 6, 7, 8, 13, 14, 21, 22, 23)
PIXEL_MM = 0.8
#: Slices of the volume that are used, T2 to C1, and the first with the jaw.
SLICES, JAW = range(40, 200, 3), 148


def read_codes(data: Path) -> np.ndarray:
    """Return the volume (x, y, z) with the numbers of this module."""
    names = pd.read_csv(data / 'bodyparts3d_neck_dseg.tsv', sep='\t').set_index('index')
    image = nib.as_closest_canonical(nib.load(data / 'bodyparts3d_neck_dseg.nii.gz'))
    codes = np.asarray(image.dataobj).astype(np.int32)
    sheet = nib.as_closest_canonical(nib.load(data / 'trapezius_on_bodyparts3d_neck.nii.gz'))
    out = np.zeros(sheet.shape, np.uint8)
    corner = np.rint((image.affine[:3, 3] - sheet.affine[:3, 3]) / PIXEL_MM).astype(int)
    inside = out[tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))]
    for number, row in names.iterrows():
        inside[codes == number] = _number(row['name'].lower(), row['group'])
    spine = np.isin(codes, names.index[names['name'].str.contains('vertebra|Atlas|Axis')])
    # Discs and joints close the gaps between vertebrae.
    closed = binary_closing(spine, np.ones((1, 1, 13))) & (inside == 0)
    inside[closed] = BONE
    out[(np.asarray(sheet.dataobj) == 1) & (out == 0)] = 11
    out[(np.asarray(sheet.dataobj) == 2) & (out == 0)] = 12
    return out


def _number(name: str, group: str) -> int:
    if group == 'skeletal':
        return BONE
    for part, number in LABELLED.items():
        if part in name:
            return number + ('left' in name)
    return next((number for part, number in OTHERS.items() if part in name), 0)


def grow(plane: np.ndarray, factors: np.ndarray, reach_px: float) -> np.ndarray:
    """Let the bellies of a plane grow until they meet, each at its own speed."""
    space = hull(np.isin(plane, DEEP))
    best = np.full(plane.shape, reach_px)
    out = plane.copy()
    for number in (n for n in np.unique(plane) if n in DEEP or n in (9, 10, 20, 3, 4)):
        away = distance_transform_edt(plane != number) / factors[number]
        # Muscles outside the common space only round themselves off.
        allowed = space if number in DEEP else away < 2
        nearer = (plane == 0) & allowed & (away < best)
        out[nearer] = number
        best = np.where(nearer, away, best)
    return out


def hull(mask: np.ndarray) -> np.ndarray:
    """Return the convex hull of a mask, filled."""
    points = np.argwhere(mask)
    if len(points) < 10:
        return np.zeros(mask.shape, bool)
    corners = points[ConvexHull(points).vertices]
    image = Image.new('L', mask.shape[::-1])
    ImageDraw.Draw(image).polygon([(float(y), float(x)) for x, y in corners], fill=1)
    return np.asarray(image) > 0


def _ellipse(shape: tuple[int, ...], middle: np.ndarray, radii_mm: tuple[float, float]):
    x, y = np.ogrid[: shape[0], : shape[1]]
    u, v = ((a - m) * PIXEL_MM / r for a, m, r in zip((x, y), middle, radii_mm, strict=True))
    return u * u + v * v < 1


def front_of_spine(codes: np.ndarray) -> np.ndarray:
    """Return (x, y) of the front of the vertebral bodies in every slice, smoothed."""
    middle = codes.shape[0] // 2
    strip = codes[middle - 6 : middle + 7] == BONE
    deep = strip[:, :190].any(0)
    front = np.array([np.flatnonzero(column).max(initial=0) for column in deep.T], float)
    return np.stack([np.full(len(front), middle), gaussian_filter1d(front, 8)], 1)


def make_plane(plane: np.ndarray, front: np.ndarray, has_jaw: bool, draw: dict) -> np.ndarray:
    """Make a complete plane: (x, y) numbers of :func:`read_codes` to numbers of all tissues."""
    plane = plane.copy()
    sheet = np.isin(plane, (11, 12))
    deep = hull(np.isin(plane, DEEP))
    away = distance_transform_edt(~deep) * PIXEL_MM
    thick = (away < draw['sheet_mm']) | ((away > 9) & (distance_transform_edt(sheet) > 1.5))
    plane[sheet & ~thick] = 0
    for side in (-1, 1):
        place = front + np.array([side * 8.5, 2.5]) / PIXEL_MM
        radii = (6.0 * draw['longus'], 3.6 * draw['longus'])
        drawn = _ellipse(plane.shape, place, radii) & (plane == 0)
        plane[drawn] = 3 if side > 0 else 4
    body = hull((plane > 0) & (plane != 29))
    grown = grow(plane, draw['factors'], draw['reach_px'])
    bone = grown == BONE
    holes = binary_fill_holes(bone) & ~bone
    grown[holes & (np.arange(plane.shape[1]) < front[1])] = CANAL
    free = (grown == 0) & body
    jaw = bone & (np.arange(plane.shape[1]) > front[1] + 12)
    if has_jaw and jaw.sum() > 300:
        grown[hull(jaw) & free] = TONGUE
        outside = binary_dilation(jaw, iterations=draw['masseter_px']) & ~hull(jaw) & ~bone
        back = np.arange(plane.shape[1]) < front[1] + 60
        grown[outside & back & (grown == 0)] = CHEWING
        body |= outside
        airway = front + np.array([0, 17]) / PIXEL_MM
    else:
        airway = front + np.array([0, 22]) / PIXEL_MM
        grown[_ellipse(plane.shape, airway, (15, 14)) & (grown == 0)] = LARYNX
    grown[_ellipse(plane.shape, airway, draw['airway_mm']) & ~bone & (grown != 3)] = AIRWAY
    for side in (-1, 1):
        for number, place, radius in ((ARTERY, (24, 10), 3.5), (VEIN, (33, 8), 5.0)):
            at = front + np.array([side * place[0], place[1]]) / PIXEL_MM
            grown[_ellipse(plane.shape, at, (radius, radius)) & np.isin(grown, (0,))] = number
    skin = distance_transform_edt(~body) * PIXEL_MM
    grown[(grown == 0) & body] = FAT
    grown[(grown == 0) & (skin < draw['skin_mm'])] = SKIN_FAT
    grown[grown == 0] = AIR
    return grown


def main() -> None:
    """Write the label maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--variants', type=int, default=8)
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    codes = read_codes(options.data / 'anatomy')
    front = front_of_spine(codes)
    folder = options.output / 'bodyparts3d-neck'
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([PIXEL_MM, PIXEL_MM, PIXEL_MM * SLICES.step, 1])
    for variant in range(1, options.variants + 1):
        rng = np.random.default_rng((options.seed, variant))
        factors = np.exp(rng.normal(0, 0.3, 64))
        # The belly of semispinalis capitis ends too far up in these meshes.
        factors[7] *= 1.6
        factors[2:15:2] = factors[1:14:2] * np.exp(rng.normal(0, 0.05, 7))
        draw = {
            'factors': factors,
            'reach_px': rng.uniform(4, 8),
            'sheet_mm': rng.uniform(2.0, 6.0),
            'longus': rng.uniform(0.8, 1.2),
            'masseter_px': int(rng.integers(6, 14)),
            'airway_mm': (rng.uniform(3, 9), rng.uniform(3, 8)),
            'skin_mm': rng.uniform(2, 15),
        }
        planes = [make_plane(codes[..., k], front[k], k >= JAW, draw) for k in SLICES]
        image = nib.Nifti1Image(np.stack(planes, -1), affine)
        nib.save(image, folder / f'variant-{variant}_dseg.nii.gz')


if __name__ == '__main__':
    main()
