"""The trunk of one person: the base, fitted to what the scan shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from bids_muscle.spinal_loads.base import (
    JOINTS,
    SIDES,
    VERTEBRAE,
    Array,
    Fascicle,
    Frame,
    Trunk,
    axes_along,
    base_trunk,
    tilted_axes,
    trunk_frames,
)

#: World axes of NIfTI (right, anterior, superior) as columns of OpenSim's (forward, up, right).
_FROM_RAS = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class MuscleSection:
    """A muscle of one side at one vertebral level, as the scan shows it.

    Parameters
    ----------
    area_mm2
        Cross-sectional area.
    centroid_ras_mm
        (3,) its centroid, or None where it is not to be used.
    """

    area_mm2: float
    centroid_ras_mm: Array | None


@dataclass(frozen=True)
class FittedTrunk:
    """A person's trunk with the muscles whose areas are those of the scan.

    Parameters
    ----------
    trunk
        The trunk.
    imaged
        Area on the scan over that of the base of the same size, by muscle that was imaged on
        both sides.
    """

    trunk: Trunk
    imaged: dict[str, float]


def fit_trunk(
    height_m: float,
    vertebrae_ras_mm: Mapping[str, Array],
    discs_ras_mm: Mapping[str, Array],
    sections: Mapping[tuple[str, str, str], MuscleSection],
    sacral_tilt_deg: float | None = None,
    sex: str = 'male',
) -> FittedTrunk:
    """Fit the base trunk to a person.

    The vertebrae are positioned as in the scan, the spine turned as a whole until the disc
    T12-L1 stands over L5-S1 as in the base, since people are scanned lying. What is fixed to a
    vertebra is stretched along its axis with the distance of its discs; everything else grows with
    body height. A muscle that the scan shows on both sides gets its areas, by one factor for each
    side: the sum of its areas over the levels / that of the fascicles that cross them (Bruno
    2015). Its fascicles are moved forward and sideways by the mean difference of the centroids
    over the levels that they cross. The areas of other muscles grow with the square of height,
    times the mean factor of the muscles imaged.

    Parameters
    ----------
    height_m
        Body height.
    vertebrae_ras_mm
        (3,) centroid of the vertebral body by name, L1 to L5.
    discs_ras_mm
        (3,) centroid of the disc by name. A missing one lies half-way between its two bodies;
        where S1 or T12 is missing too, as far from the middle of L5 or L1 as that vertebra's other
        disc.
    sections
        By muscle, side and level.
    sacral_tilt_deg
        Tilt of the disc L5-S1 in the sagittal plane of the scanner, positive where its front is
        lower, or None for that of the base.
    sex
        ``'male'`` or ``'female'``: whose base is fitted.

    Raises
    ------
    KeyError
        If a lumbar vertebra is missing.
    """
    base = base_trunk(sex)
    joints, centres = _spine(base, vertebrae_ras_mm, discs_ras_mm)
    frames = trunk_frames(joints.opensim_mm, centres)
    size = height_m / base.height_m
    stretch = {name: np.full(3, size) for name in frames}
    lengths = np.linalg.norm(np.diff(joints.opensim_mm, axis=0), axis=1)
    base_lengths = np.linalg.norm(np.diff(base.joints_mm, axis=0), axis=1)
    for name, factor in zip(VERTEBRAE, lengths / base_lengths, strict=True):
        stretch[name] = np.array([size, factor, size])

    def moved(points: Array, body: str) -> Array:
        return frames[body].world(base.frames[body].local(points) * stretch[body])

    fascicles = [
        replace(
            each,
            area_mm2=each.area_mm2 * size**2,
            points_mm=np.stack(
                [
                    moved(point, body)
                    for point, body in zip(each.points_mm, each.bodies, strict=True)
                ]
            ),
        )
        for each in base.fascicles
    ]
    sections = {
        key: replace(
            each,
            centroid_ras_mm=None
            if each.centroid_ras_mm is None
            else joints.turned(each.centroid_ras_mm),
        )
        for key, each in sections.items()
    }
    fascicles, imaged = _fit_muscles(fascicles, frames, sections)
    trunk = Trunk(
        height_m=height_m,
        joints_mm=joints.opensim_mm,
        frames=frames,
        flexion_share=base.flexion_share,
        stiffness_n_m_deg=base.stiffness_n_m_deg,
        sacral_axes=base.sacral_axes
        if sacral_tilt_deg is None
        else axes_along(joints.rotation.apply(tilted_axes(sacral_tilt_deg)[:, 1])),
        fascicles=tuple(fascicles),
        masses=tuple(
            replace(mass, centre_mm=moved(mass.centre_mm, mass.body)) for mass in base.masses
        ),
    )
    return FittedTrunk(trunk, imaged)


def crossing(fascicle: Fascicle, frame: Frame) -> tuple[Array, float] | None:
    """Return where a fascicle crosses the plane of a vertebra, and its area in that plane.

    Returns
    -------
    tuple
        (3,) point in the axes of the vertebra, mm, and the area, mm2: that of the fascicle over
        the cosine between its direction and the vertebra's axis; None where it does not cross.

    Examples
    --------
    >>> upright = Frame(np.zeros(3), np.eye(3))
    >>> path = np.array([[-30.0, -20.0, 10.0], [-30.0, 20.0, 10.0]])
    >>> crossing(Fascicle('', '', 'right', 50.0, ('L5', 'L3'), path), upright)
    (array([-30.,   0.,  10.]), 50.0)
    """
    points = frame.local(fascicle.points_mm)
    for below, above in pairwise(points):
        if below[1] < 0 <= above[1]:
            step = above - below
            cosine = step[1] / float(np.linalg.norm(step))
            return below - step * below[1] / step[1], float(fascicle.area_mm2 / cosine)
    return None


@dataclass(frozen=True)
class _Spine:
    opensim_mm: Array
    origin_ras_mm: Array
    rotation: Rotation

    def turned(self, points_ras_mm: Array) -> Array:
        return self.rotation.apply((points_ras_mm - self.origin_ras_mm) @ _FROM_RAS.T)


def _spine(
    base: Trunk, vertebrae: Mapping[str, Array], discs: Mapping[str, Array]
) -> tuple[_Spine, Array]:
    """Return the discs and the (5, 3) vertebral centroids, standing upright."""

    def joint(name: str) -> Array:
        above, below = name.split('-')
        if name in discs:
            return np.asarray(discs[name])
        if above in vertebrae and below in vertebrae:
            return (np.asarray(vertebrae[above]) + vertebrae[below]) / 2
        inner, other = ('L5', 'L4-L5') if above == 'L5' else ('L1', 'L1-L2')
        return 2 * np.asarray(vertebrae[inner]) - joint(other)

    joints = np.stack([joint(name) for name in JOINTS])
    along = (joints[-1] - joints[0]) @ _FROM_RAS.T
    rotation, _ = Rotation.align_vectors(base.joints_mm[-1:] - base.joints_mm[0], along[None])
    spine = _Spine(np.zeros((0, 3)), joints[0], rotation)
    centres = np.stack([np.asarray(vertebrae[name]) for name in VERTEBRAE])
    return replace(spine, opensim_mm=spine.turned(joints)), spine.turned(centres)


def _fit_muscles(
    fascicles: list[Fascicle],
    frames: Mapping[str, Frame],
    sections: Mapping[tuple[str, str, str], MuscleSection],
) -> tuple[list[Fascicle], dict[str, float]]:
    """Give the fascicles the areas and places of the scan."""
    factors: dict[tuple[str, str], float] = {}
    shifts: dict[tuple[str, str], dict[str, Array]] = {}
    for muscle in dict.fromkeys(each.muscle for each in fascicles):
        for side in SIDES:
            part = [each for each in fascicles if (each.muscle, each.side) == (muscle, side)]
            scan = model = 0.0
            for level in VERTEBRAE:
                section = sections.get((muscle, side, level))
                crossed = [found for each in part if (found := crossing(each, frames[level]))]
                if section is None or not crossed:
                    continue
                areas = np.array([area for _, area in crossed])
                scan, model = scan + section.area_mm2, model + float(areas.sum())
                if section.centroid_ras_mm is not None:
                    middle = np.average([point for point, _ in crossed], axis=0, weights=areas)
                    shift = frames[level].local(section.centroid_ras_mm) - middle
                    shifts.setdefault((muscle, side), {})[level] = shift * [1, 0, 1]
            if scan > 0:
                factors[muscle, side] = scan / model
    imaged = {
        muscle: (factors[muscle, 'right'] + factors[muscle, 'left']) / 2
        for muscle, side in factors
        if side == 'right' and (muscle, 'left') in factors
    }
    others = float(np.mean(list(imaged.values()))) if imaged else 1.0
    return [
        _fit_fascicle(
            each,
            factors[each.muscle, each.side] if each.muscle in imaged else others,
            shifts.get((each.muscle, each.side), {}) if each.muscle in imaged else {},
            frames,
        )
        for each in fascicles
    ], imaged


def _fit_fascicle(
    fascicle: Fascicle, factor: float, shifts: Mapping[str, Array], frames: Mapping[str, Frame]
) -> Fascicle:
    """Give a fascicle its area, and move it by the mean shift of the levels it crosses."""
    crossed = [shift for level, shift in shifts.items() if crossing(fascicle, frames[level])]
    points = fascicle.points_mm
    if crossed:
        shift = np.mean(crossed, axis=0)
        points = points + np.stack([frames[body].axes @ shift for body in fascicle.bodies])
    return replace(fascicle, area_mm2=fascicle.area_mm2 * factor, points_mm=points)
