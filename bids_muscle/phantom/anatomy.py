"""The anatomy of one person as a fine volume of tissue classes, painted slice by slice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_muscle.anatomy.labels import LabelTable, load_label_table
from bids_muscle.phantom.body import BodyDeformation
from bids_muscle.phantom.person import Person, generator
from bids_muscle.phantom.shapes import ClosedSurface, ShapeAtlas, closed_spline, inset, load_atlas
from bids_muscle.phantom.spine import ENDPLATE_DEPTH_MM, SpineAxis, make_spine

Array = NDArray[np.float64]
ByteArray = NDArray[np.uint8]

#: In spine label maps vertebra k is k + 1 and the disc below it this plus k.
DISC_OFFSET = 101

#: Muscles lie in thin sheaths: dense connective tissue with little signal, and fat around it.
WITH_SHEATH = ('muscle', 'muscle_other')
SHEATH = (('intermuscular_fat', 1.0), ('fascia', 0.6))


@dataclass(frozen=True)
class TissueClass:
    """Meaning of a value in the fine volume.

    Parameters
    ----------
    tissue
        Row of the tissue table.
    muscle_index
        Number in the muscle label map, 0 for anything else.
    spine_index
        Number in the spine label map, 0 for anything else.
    """

    tissue: str
    muscle_index: int = 0
    spine_index: int = 0


@dataclass(frozen=True)
class Anatomy:
    """One person's body region on a fine grid.

    Parameters
    ----------
    classes
        (Z, X, Y) tissue class of every cell; z upwards, x to the right, y forwards.
    origin_mm, spacing_mm
        World position (z, x, y) of the centre of cell 0 and the distance between cells.
    legend
        Meaning of every class; class 0 is air.
    spine
        Levels and discs.
    table
        Muscle labels of the region.
    """

    region: str
    classes: ByteArray
    origin_mm: Array
    spacing_mm: Array
    legend: tuple[TissueClass, ...]
    spine: SpineAxis
    table: LabelTable

    @property
    def muscle_index(self) -> ByteArray:
        """Number in the muscle label map, by class."""
        return np.array([item.muscle_index for item in self.legend], np.uint8)

    @property
    def spine_index(self) -> ByteArray:
        """Number in the spine label map, by class."""
        return np.array([item.spine_index for item in self.legend], np.uint8)


def build_anatomy(
    region: str, person: Person, *, in_plane_mm: float = 0.6, slice_mm: float = 1.5
) -> Anatomy:
    """Build the anatomy of one person.

    Parameters
    ----------
    region
        ``'cervical'`` or ``'lumbar'``.
    person
        Whose body it is.
    in_plane_mm, slice_mm
        Spacing of the fine grid.

    Returns
    -------
    Anatomy that reaches from the first to the last level of the atlas.
    """
    atlas = load_atlas(region)
    spine = make_spine(atlas, person)
    body = BodyDeformation(atlas, person, spine)
    table = load_label_table(region)
    structures = _with_bowel(atlas, person)
    bottom, top = spine.reach_mm
    scale = max(1.0, person.size) * (1 + 0.012 * max(person.bmi - 25, 0))
    z = np.arange(bottom, top, slice_mm, dtype=float)
    half_width_mm = atlas.half_width_mm * scale
    x = np.arange(-half_width_mm, half_width_mm, in_plane_mm, dtype=float)
    y = np.arange(-atlas.back_mm * scale, atlas.front_mm * scale, in_plane_mm, dtype=float)
    painter = _Painter(atlas, body, table, structures, z)
    classes = np.empty((z.size, x.size, y.size), np.uint8)
    for k in range(z.size):
        classes[k] = painter.paint(k, x, y)
    return Anatomy(
        region,
        classes,
        np.array([z[0], x[0], y[0]]),
        np.array([slice_mm, in_plane_mm, in_plane_mm]),
        tuple(painter.legend),
        spine,
        table,
    )


class _Painter:
    """Paints one axial slice after the other; later structures cover earlier ones."""

    def __init__(
        self,
        atlas: ShapeAtlas,
        body: BodyDeformation,
        table: LabelTable,
        structures: list[ClosedSurface],
        z_mm: Array,
    ) -> None:
        self.spine = body.spine
        self.z_mm = z_mm
        self.legend = [TissueClass('air')]
        number = {(label.muscle, label.side): label.index for label in table}
        count = len(atlas.level_names)
        discs = range(self.spine.fused_from)
        self.bone = [self._register('marrow', 0, k + 1) for k in range(count)]
        self.plate = [self._register('cortical_bone', 0, k + 1) for k in range(count)]
        self.annulus = [self._register('annulus', 0, DISC_OFFSET + k) for k in discs]
        self.nucleus = [self._register('nucleus', 0, DISC_OFFSET + k) for k in discs]
        # Two classes mark the column until its cells are given to vertebrae and discs.
        self.rim = self._register('cortical_bone', 0, 254)
        self.core = self._register('marrow', 0, 255)
        self.columns: dict[int, Array] = {}
        # Per slice, in painting order: polygon and class.
        self.layers: list[list[tuple[Array, int]]] = [[] for _ in z_mm]
        trunk = next(item for item in structures if item.envelope == 'trunk')
        level = self.spine.level_at(z_mm)
        for item in structures:
            reach = np.nonzero((level >= item.levels[0]) & (level <= item.levels[-1]))[0]
            if not reach.size:
                continue
            points = item.outlines_at(level[reach])
            if item.envelope == 'skin':
                inner = trunk.outlines_at(level[reach])
                points = inner + (points - inner) * body.fat
            if item.column:
                points = points * _waist(level[reach])
            polygons = body.place(item, closed_spline(points), level[reach])
            muscle = number[item.muscle, item.side] if item.muscle else 0
            fill = self.core if item.column else self._register(item.tissue, muscle)
            for tissue, outset_mm in SHEATH if item.tissue in WITH_SHEATH else ():
                self._add(reach, inset(polygons, -outset_mm * item.sheath), self._register(tissue))
            if item.crust:
                crust = self.rim if item.column else self._register(item.crust)
                self._add(reach, polygons, crust)
                self._add(reach, inset(polygons, item.crust_mm), fill)
            else:
                self._add(reach, polygons, fill)
            if item.column:
                self.columns = dict(zip(reach.tolist(), polygons, strict=True))

    def _register(self, tissue: str, muscle: int = 0, spine: int = 0) -> int:
        item = TissueClass(tissue, muscle, spine)
        if item not in self.legend:
            self.legend.append(item)
        return self.legend.index(item)

    def _add(self, reach: NDArray[np.intp], polygons: Array, value: int) -> None:
        for k, polygon in zip(reach.tolist(), polygons, strict=True):
            self.layers[k].append((polygon, value))

    def paint(self, k: int, x: Array, y: Array) -> ByteArray:
        """Paint slice k; returns (X, Y) classes."""
        from PIL import Image, ImageDraw

        image = Image.new('L', (y.size, x.size), 0)
        draw = ImageDraw.Draw(image)
        step = x[1] - x[0]
        for polygon, value in self.layers[k]:
            pixels = (polygon[:, ::-1] - (y[0], x[0])) / step
            draw.polygon(pixels.ravel().tolist(), fill=value)
        canvas = np.array(image)
        if k in self.columns:
            self._divide_column(canvas, self.columns[k], float(self.z_mm[k]), x, y)
        return canvas

    def _divide_column(
        self, canvas: ByteArray, outline: Array, z_mm: float, x: Array, y: Array
    ) -> None:
        """Give the cells of the column to vertebrae, end plates and discs."""
        corner = np.searchsorted(x, outline[:, 0].min()), np.searchsorted(y, outline[:, 1].min())
        window = canvas[
            corner[0] - 1 : np.searchsorted(x, outline[:, 0].max()) + 2,
            corner[1] - 1 : np.searchsorted(y, outline[:, 1].max()) + 2,
        ]
        rows, columns = np.nonzero((window == self.rim) | (window == self.core))
        if rows.size == 0:
            return
        rim = window[rows, columns] == self.rim
        rows, columns = rows + corner[0] - 1, columns + corner[1] - 1
        level = float(self.spine.level_at(z_mm))
        centre = (outline.max(axis=0) + outline.min(axis=0)) / 2
        half = (outline.max(axis=0) - outline.min(axis=0)) / 2
        u, v = (x[rows] - centre[0]) / half[0], (y[columns] - centre[1]) / half[1]
        tilt = np.deg2rad(self.spine.at_level(self.spine.tilt_deg, level)[0])
        # An anterior point of a forward-tilted vertebra belongs to the level further up.
        along = z_mm + np.tan(tilt) * (y[columns] - centre[1])
        discs = self.spine.disc_centre_mm[: self.spine.fused_from]
        nearest = np.abs(along[:, None] - discs).argmin(axis=1)
        away = np.abs(along - discs[nearest]) * np.cos(tilt)
        radius = u * u + v * v
        edge = self.spine.disc_height_mm[nearest] / 2 - ENDPLATE_DEPTH_MM * radius * (1 - 0.4 * v)
        vertebra = (along[:, None] < discs).sum(axis=1)
        bone, plate = np.array(self.bone), np.array(self.plate)
        annulus, nucleus = np.array(self.annulus), np.array(self.nucleus)
        value = np.where(rim | (away < edge + 0.8), plate[vertebra], bone[vertebra])
        core = (u**2 + (v + 0.1) ** 2 < 0.42) & (away < 0.85 * edge)
        value = np.where(away < edge, np.where(core, nucleus[nearest], annulus[nearest]), value)
        canvas[rows, columns] = value


def _waist(level: Array) -> Array:
    """Vertebral bodies are slimmer halfway between their end plates: (n, 1, 1) factor."""
    off_centre = np.abs(level - np.round(level)) * 2
    return np.asarray(0.94 + 0.06 * off_centre**2)[:, None, None]


def _with_bowel(atlas: ShapeAtlas, person: Person) -> list[ClosedSurface]:
    """Return the structures of the atlas with bowel loops drawn at random into the cavity."""
    structures: list[ClosedSurface] = []
    for structure in atlas.structures:
        structures.append(structure)
        if structure.name == 'abdominal cavity':
            structures.extend(_bowel_loops(atlas, person, structure))
    return structures


def _bowel_loops(atlas: ShapeAtlas, person: Person, cavity: ClosedSurface) -> list[ClosedSurface]:
    """Draw loops of bowel at random; the leaner the person, the more of the cavity they fill."""
    rng = generator(person.shape_seed, atlas.region, 'bowel')
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    loops = []
    for number in range(int(np.clip(135 - 2.4 * person.bmi, 40, 92))):
        level = rng.uniform(cavity.levels[0] + 0.8, cavity.levels[-1] - 0.1)
        middle = np.array([rng.uniform(-74, 74), rng.uniform(26, 58)])
        drift = rng.normal(0, 7, 2)
        radius = rng.uniform(9, 16)
        reach = rng.uniform(0.3, 0.7)
        levels = np.linspace(level - reach, level + reach, 5)
        size = radius * np.array([0.25, 0.85, 1.0, 0.85, 0.25])
        stretch, turn = rng.uniform(0.65, 1.5), rng.uniform(0, np.pi)
        wobble = rng.normal(1, 0.12, 8)
        ring = np.stack([np.cos(angles) * stretch, np.sin(angles)], axis=1) * wobble[:, None]
        ring = ring @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        outlines = np.stack(
            [
                middle + drift * t + ring * s
                for t, s in zip(np.linspace(-1, 1, 5), size, strict=True)
            ]
        )
        outlines[..., 1] = np.minimum(outlines[..., 1], 62 - 0.0035 * outlines[..., 0] ** 2)
        tissue = rng.choice(
            ['bowel_fluid', 'stool', 'bowel_wall', 'air'], p=[0.42, 0.2, 0.3, 0.08]
        )
        loops.append(
            replace(
                cavity,
                name=f'bowel loop {number}',
                tissue=str(tissue),
                levels=levels,
                outlines=outlines,
                crust='bowel_wall',
                crust_mm=2.0,
            )
        )
    return loops
