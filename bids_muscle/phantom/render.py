"""From the fine anatomy to the voxels of a scan, with partial volume, and the truth about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_muscle.phantom.anatomy import Anatomy
from bids_muscle.phantom.fat import PATTERN_MM, FatPattern, fat_by_rank
from bids_muscle.phantom.protocol import Sequence, fat_share, sequence_for
from bids_muscle.phantom.tissues import load_tissues

Array = NDArray[np.float64]
FloatImage = NDArray[np.float32]
ByteArray = NDArray[np.uint8]

#: Signal of flowing over resting blood: void in spin echo, inflow in gradient echo.
FLOW = {
    ('blood_artery', 'spin echo'): 0.08,
    ('blood_vein', 'spin echo'): 0.25,
    ('blood_artery', 'gradient echo'): 1.8,
    ('blood_vein', 'gradient echo'): 1.3,
}


@dataclass(frozen=True)
class ScanGrid:
    """Voxel grid of a scan.

    Parameters
    ----------
    shape
        Number of voxels along each axis.
    affine
        (4, 4) voxel to world RAS+ mm.
    """

    shape: tuple[int, int, int]
    affine: Array

    @property
    def voxel_mm(self) -> Array:
        """Voxel size along each axis."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_ml(self) -> float:
        """Voxel volume."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    @property
    def samples(self) -> tuple[int, int, int]:
        """Points per voxel along each axis: 2 to 4, if possible 0.6 mm apart (1.5 mm along z)."""
        fine = (0.6, 0.6, 1.5)
        return tuple(  # type: ignore[return-value]
            int(np.clip(math.ceil(size / step - 0.2), 2, 4))
            for size, step in zip(self.voxel_mm, fine, strict=True)
        )

    @property
    def detail_mm(self) -> tuple[float, float]:
        """In-plane and slice spacing of the anatomy that these points need."""
        step = self.voxel_mm / self.samples
        return float(np.clip(step[:2].min(), 0.6, 1.5)), float(np.clip(step[2], 1.5, 3.0))


@dataclass(frozen=True)
class Samples:
    """What lies at regularly placed points of every voxel; enough to render any contrast.

    Parameters
    ----------
    index
        (Z, points, X * Y) 256 times the tissue class plus the fat rank.
    labels, spine
        (X, Y, Z) muscle label that holds most of the voxel; vertebra or disc at its centre.
    counts
        (classes, 256) number of points per tissue class and fat rank.
    label_counts
        (labels + 1, classes, 256) the same over the voxels of each label; row 0 is empty.
    """

    grid: ScanGrid
    index: NDArray[np.uint16]
    labels: ByteArray
    spine: ByteArray
    counts: NDArray[np.int64]
    label_counts: NDArray[np.int64]

    @property
    def point_ml(self) -> float:
        """Volume that one point represents."""
        return self.grid.voxel_ml / self.index.shape[1]


def sample_grid(anatomy: Anatomy, pattern: FatPattern, grid: ScanGrid) -> Samples:
    """Look up what lies at every sample point of a scan.

    Parameters
    ----------
    anatomy, pattern
        The body and its fat pattern.
    grid
        Voxel grid, any orientation.
    """
    shape = grid.shape
    table = anatomy.muscle_index
    names = int(table.max()) + 1
    size = len(anatomy.legend) * 256
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in grid.samples]
    points = [(i, j, k) for k in offsets[2] for j in offsets[1] for i in offsets[0]]
    flat = np.arange(shape[0] * shape[1])
    index = np.empty((shape[2], len(points), flat.size), np.uint16)
    labels, spine = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    counts = np.zeros(size, np.int64)
    label_counts = np.zeros(names * size, np.int64)
    sampler = _Sampler(anatomy, pattern, grid)
    for k in range(shape[2]):
        votes = np.zeros((names, flat.size), np.uint16)
        for number, (di, dj, dk) in enumerate(points):
            classes, rank = sampler.at(di, dj, k + dk)
            index[k, number] = classes.astype(np.uint16) * 256 + rank
            votes[table[classes], flat] += 2
        # What lies at the very centre breaks ties, else muscles would lose half a point each time.
        middle = sampler.at(0, 0, k)[0]
        votes[table[middle], flat] += 1
        counts += np.bincount(index[k].ravel(), minlength=size)
        chosen = votes.argmax(axis=0)
        inside = np.nonzero(chosen)[0]
        of_label = index[k][:, inside].astype(np.int64) + chosen[inside] * size
        label_counts += np.bincount(of_label.ravel(), minlength=label_counts.size)
        labels[:, :, k] = chosen.reshape(shape[:2])
        spine[:, :, k] = anatomy.spine_index[middle].reshape(shape[:2])
    return Samples(
        grid, index, labels, spine, counts.reshape(-1, 256), label_counts.reshape(names, -1, 256)
    )


@dataclass(frozen=True)
class Component:
    """What one echo receives: signal of every tissue class and fat rank.

    Parameters
    ----------
    water, fat
        (classes, 256) signal of pure voxels.
    """

    water: NDArray[np.float32]
    fat: NDArray[np.float32]


def make_component(
    anatomy: Anatomy,
    fat_by_label: Mapping[int, Array],
    sequence: Sequence,
    field_strength_t: float,
    *,
    echo_time_ms: float = 0.0,
) -> Component:
    """Signal of every tissue class and fat rank for one sequence.

    Parameters
    ----------
    fat_by_label
        (256,) fat share by rank, for every muscle label.
    echo_time_ms
        Time of T2* decay; 0 where the sequence's signal already has its decay or the decay
        cancels (two-point Dixon).
    """
    tissues = load_tissues(field_strength_t)
    pure_fat = tissues['fat']
    deviation = (np.arange(256) - 128) / 50
    water = np.zeros((len(anatomy.legend), 256), np.float32)
    fat = np.zeros_like(water)

    def decay(t2star_ms: float) -> float:
        return math.exp(-echo_time_ms / t2star_ms)

    fat_signal = pure_fat.proton_density * sequence.signal(pure_fat) * decay(pure_fat.t2star_ms)
    for number, item in enumerate(anatomy.legend):
        tissue = tissues[item.tissue]
        signal = sequence.signal(tissue) * decay(tissue.t2star_ms)
        signal *= tissue.proton_density * FLOW.get((item.tissue, sequence.kind), 1.0)
        if item.muscle_index:
            share = fat_by_label.get(item.muscle_index, np.zeros(256))
            water[number], fat[number] = signal * (1 - share), fat_signal * share
            continue
        texture = np.clip(1 + tissue.texture * deviation, 0, 2)
        water[number] = signal * (1 - tissue.fat_fraction) * texture
        fat[number] = fat_signal * tissue.proton_density * tissue.fat_fraction * texture
    return Component(water, fat)


def render(samples: Samples, component: Component) -> tuple[FloatImage, FloatImage]:
    """Average the signal over the points of every voxel.

    Returns
    -------
    (X, Y, Z) water and fat signal without noise, bias or artefacts.
    """
    shape = samples.grid.shape
    water, fat = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for k, index in enumerate(samples.index):
        for image, table in ((water, component.water), (fat, component.fat)):
            total = np.zeros(index.shape[1], np.float32)
            for row in index:
                total += table.ravel()[row]
            image[:, :, k] = (total / index.shape[0]).reshape(shape[:2])
    return water, fat


def mfi_pct(component: Component, counts: NDArray[np.int64]) -> float:
    """MFI of a set of points: 100 F / (F + W), with W and F their summed signals (Weber 2021).

    Returns NaN where there is no point.
    """
    fat, water = float((component.fat * counts).sum()), float((component.water * counts).sum())
    return 100 * fat / (fat + water) if counts.any() else math.nan


def plant_fat(
    anatomy: Anatomy,
    samples: Samples,
    planted_mfi_pct: Mapping[int, float],
    field_strength_t: float,
) -> dict[int, Array]:
    """Fill every muscle with fat until a noise-free Dixon scan shows the planted MFI.

    The MFI is that of the voxels of the true label map, so it includes what partial volume adds
    at the muscle's surface, as in any measurement on a scan. Where the surface alone exceeds the
    planted value (thin muscles, coarse voxels), the muscle keeps 0.5 % of fat of its own, and
    the truth tells the value reached.

    Parameters
    ----------
    planted_mfi_pct
        MFI in percent by label number.

    Returns
    -------
    (256,) fat share by rank, for every label in the scan.
    """
    sequence = sequence_for('dixon', field_strength_t)
    rows = {
        item.muscle_index: number
        for number, item in enumerate(anatomy.legend)
        if item.muscle_index and samples.label_counts[item.muscle_index].any()
    }
    share = {index: fat_share(planted_mfi_pct[index] / 100, field_strength_t) for index in rows}
    profiles: dict[int, Array] = {}
    # Muscles share surface voxels, so that one pass after the other settles all of them.
    for _ in range(12):
        profiles = {
            index: fat_by_rank(samples.counts[row].astype(float), share[index])
            for index, row in rows.items()
        }
        component = make_component(anatomy, profiles, sequence, field_strength_t)
        worst = 0.0
        for index in rows:
            reached = mfi_pct(component, samples.label_counts[index])
            error = fat_share(planted_mfi_pct[index] / 100, field_strength_t) - fat_share(
                reached / 100, field_strength_t
            )
            wanted = float(np.clip(share[index] + error, 0.005, 0.98))
            worst = max(worst, abs(wanted - share[index]))
            share[index] = wanted
        if worst < 1e-5:
            break
    return profiles


class _Sampler:
    """Looks up tissue class and fat rank at fractional voxel coordinates of a slice."""

    def __init__(self, anatomy: Anatomy, pattern: FatPattern, grid: ScanGrid) -> None:
        # Rows of the anatomy are z, x, y.
        order = [2, 0, 1]
        matrix, shift = grid.affine[order, :3], grid.affine[order, 3] - anatomy.origin_mm
        self.classes = (
            anatomy.classes,
            matrix / anatomy.spacing_mm[:, None],
            shift / anatomy.spacing_mm,
        )
        self.rank = (pattern.rank, matrix / PATTERN_MM[:, None], shift / PATTERN_MM)
        i, j = np.meshgrid(np.arange(grid.shape[0]), np.arange(grid.shape[1]), indexing='ij')
        self.i, self.j = i.ravel().astype(np.float32), j.ravel().astype(np.float32)

    def at(self, di: float, dj: float, k: float) -> tuple[ByteArray, ByteArray]:
        """Return class and rank of all voxels of slice k, displaced by (di, dj)."""
        classes, outside = self._look_up(*self.classes, di, dj, k)
        classes[outside] = 0
        return classes, self._look_up(*self.rank, di, dj, k)[0]

    def _look_up(
        self, volume: ByteArray, matrix: Array, shift: Array, di: float, dj: float, k: float
    ) -> tuple[ByteArray, NDArray[np.bool_]]:
        start = (matrix @ (di, dj, k) + shift + 0.5).astype(np.float32)
        steps = matrix.astype(np.float32)
        linear = np.zeros(self.i.size, np.int32)
        outside = np.zeros(self.i.size, bool)
        for axis, length in enumerate(volume.shape):
            position = start[axis] + steps[axis, 0] * self.i + steps[axis, 1] * self.j
            # Truncation equals floor for all that lies inside.
            index = position.astype(np.int32)
            outside |= (position < 0) | (index >= length)
            np.clip(index, 0, length - 1, out=index)
            linear = linear * length + index
        return volume.ravel()[linear], outside
