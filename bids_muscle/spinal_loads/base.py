"""The trunk that every participant's model is scaled from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_muscle.tables import parse_rows

Array = NDArray[np.float64]

#: Lumbar vertebrae and the discs around them, from bottom to top.
VERTEBRAE = ('L5', 'L4', 'L3', 'L2', 'L1')
JOINTS = ('L5-S1', 'L4-L5', 'L3-L4', 'L2-L3', 'L1-L2', 'T12-L1')
#: Bodies of the model from bottom to top: joint k connects body k with body k + 1.
BODIES = ('pelvis', *VERTEBRAE, 'thorax')
SIDES = ('right', 'left')
SEXES = ('male', 'female')


@dataclass(frozen=True)
class Frame:
    """Where a body is and how it is turned.

    Parameters
    ----------
    origin_mm
        (3,) a point of the body in the frame around it.
    axes
        (3, 3) its axes x forward, y up, z right, as columns.
    """

    origin_mm: Array
    axes: Array

    def local(self, points_mm: Array) -> Array:
        """Return (..., 3) points in the axes of the body."""
        return (points_mm - self.origin_mm) @ self.axes

    def world(self, points_mm: Array) -> Array:
        """Return (..., 3) points of the body in the frame around it."""
        return self.origin_mm + points_mm @ self.axes.T


@dataclass(frozen=True)
class Fascicle:
    """A straight-lined part of a muscle.

    Parameters
    ----------
    name, muscle, side
        Names.
    area_mm2
        Physiological cross-sectional area.
    bodies
        To which body each point is fixed, from bottom to top.
    points_mm
        (n, 3) points of its path.
    """

    name: str
    muscle: str
    side: str
    area_mm2: float
    bodies: tuple[str, ...]
    points_mm: Array


@dataclass(frozen=True)
class Mass:
    """A part of the trunk with its weight.

    Parameters
    ----------
    body
        The body that it moves with.
    share
        Its share of body mass, by sex.
    centre_mm
        (3,) its centre.
    """

    body: str
    share: dict[str, float]
    centre_mm: Array


@dataclass(frozen=True)
class Trunk:
    """An upright trunk; x forward, y up, z right, origin in the disc L5-S1.

    Parameters
    ----------
    height_m
        Body height.
    joints_mm
        (6, 3) centres of the discs in the order of :data:`JOINTS`.
    frames
        Place of each body.
    flexion_share
        (6,) share of each joint in the flexion of the lumbar spine.
    stiffness_n_m_deg
        (6,) moment that disc and ligaments of each joint hold for each degree of flexion.
    sacral_axes
        (3, 3) axes of the disc L5-S1 as columns; those of the other discs lie half-way between
        the vertebrae, which the pelvis is not.
    fascicles
        Of both sides.
    masses
        All bodies attached to the lumbar spine.
    """

    height_m: float
    joints_mm: Array
    frames: dict[str, Frame]
    flexion_share: Array
    stiffness_n_m_deg: Array
    sacral_axes: Array
    fascicles: tuple[Fascicle, ...]
    masses: tuple[Mass, ...]


@cache
def base_trunk(sex: str = 'male') -> Trunk:
    """Return the trunk described in ``data/loading``: a man or a woman of average size."""
    folder = resources.files('bids_muscle') / 'data/loading'
    base = tomllib.loads((folder / 'base.toml').read_text(encoding='utf-8'))
    joints = np.array([base['joints_mm'][name] for name in JOINTS])
    rows = parse_rows((folder / 'fascicles.tsv').read_text(encoding='utf-8').splitlines())
    man = Trunk(
        height_m=base['height_m'],
        joints_mm=joints,
        frames=trunk_frames(joints, (joints[:-1] + joints[1:]) / 2),
        flexion_share=np.array([base['flexion_share'][name] for name in JOINTS]),
        stiffness_n_m_deg=np.array([base['flexion_stiffness_n_m_deg'][name] for name in JOINTS]),
        sacral_axes=tilted_axes(base['sacral_tilt_deg']),
        fascicles=tuple(_fascicle(row, side) for row in rows for side in SIDES),
        masses=tuple(
            Mass(
                body,
                {each: share / 100 for each, share in part['mass_pct'].items()},
                np.array(part['centre_mm']),
            )
            for body, part in (
                *base['vertebrae'].items(),
                *(('thorax', part) for part in base['thorax'].values()),
            )
        ),
    )
    return man if sex == 'male' else _woman(man, **base['female'])


def _woman(
    man: Trunk,
    *,
    height_m: float,
    vertebra_height: float,
    vertebra_depth: float,
    muscle_area: float,
) -> Trunk:
    """Make the base of a woman: by body height, but for vertebrae and muscles."""
    size = height_m / man.height_m
    joints = man.joints_mm * vertebra_height
    frames = trunk_frames(joints, (joints[:-1] + joints[1:]) / 2)
    stretch = {name: np.full(3, size) for name in frames}
    stretch |= dict.fromkeys(
        VERTEBRAE, np.array([vertebra_depth, vertebra_height, vertebra_depth])
    )

    def moved(points: Array, body: str) -> Array:
        return frames[body].world(man.frames[body].local(points) * stretch[body])

    return replace(
        man,
        height_m=height_m,
        joints_mm=joints,
        frames=frames,
        fascicles=tuple(
            replace(
                fascicle,
                area_mm2=fascicle.area_mm2 * size**2 * muscle_area,
                points_mm=np.stack(
                    [
                        moved(point, body)
                        for point, body in zip(fascicle.points_mm, fascicle.bodies, strict=True)
                    ]
                ),
            )
            for fascicle in man.fascicles
        ),
        masses=tuple(
            replace(mass, centre_mm=moved(mass.centre_mm, mass.body)) for mass in man.masses
        ),
    )


def axes_along(up: Array) -> Array:
    """Return the (3, 3) axes, as columns, whose second one points along `up`."""
    up = up / np.linalg.norm(up)
    forward = np.cross(up, [0.0, 0.0, 1.0])
    forward /= np.linalg.norm(forward)
    return np.stack([forward, up, np.cross(forward, up)], axis=1)


def tilted_axes(tilt_deg: float) -> Array:
    """Return the axes of a disc whose front is lower by an angle."""
    tilt = np.radians(tilt_deg)
    return axes_along(np.array([np.sin(tilt), np.cos(tilt), 0.0]))


def trunk_frames(joints_mm: Array, centres_mm: Array) -> dict[str, Frame]:
    """Place the bodies of an upright trunk.

    A vertebra's axis runs from the disc below it to the disc above it; pelvis and rib cage stand
    upright, as scans of the lumbar spine do not show how they are turned.

    Parameters
    ----------
    joints_mm
        (6, 3) centres of the discs in the order of :data:`JOINTS`.
    centres_mm
        (5, 3) centroids of the vertebral bodies in the order of :data:`VERTEBRAE`.
    """
    frames = {'pelvis': Frame(joints_mm[0], np.eye(3))}
    for name, centre, below, above in zip(
        VERTEBRAE, centres_mm, joints_mm[:-1], joints_mm[1:], strict=True
    ):
        frames[name] = Frame(centre, axes_along(above - below))
    return frames | {'thorax': Frame(joints_mm[-1], np.eye(3))}


def _fascicle(row: dict[str, Any], side: str) -> Fascicle:
    points = [point.split() for point in row['path'].split('; ')]
    mirror = np.array([1.0, 1.0, 1.0 if side == 'right' else -1.0])
    return Fascicle(
        name=f'{row["fascicle"]}_{side}',
        muscle=row['muscle'],
        side=side,
        area_mm2=float(row['area_mm2']),
        bodies=tuple(point[0] for point in points),
        points_mm=np.array([point[1:] for point in points], dtype=float) * mirror,
    )
