"""The trunk as an OpenSim model, and the loads on its joints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.errors import MissingInputError
from bids_muscle.spinal_loads.base import BODIES, JOINTS, Array, Trunk
from bids_muscle.spinal_loads.sharing import share_load
from bids_muscle.temporary import temporary_folder

if TYPE_CHECKING:
    import opensim

#: Muscle force per area at full activation, with which Burkhart 2018 starts and finds 40 to 130 in
#: people over 65, 75 on average.
SPECIFIC_TENSION_N_CM2 = 100.0
#: Of 60 degrees, 34 come from the lumbar spine (Esola 1996: 1.9 times as much as from the hips up
#: to 30 degrees, then 0.9 times).
LUMBAR_FLEXION_DEG = 30 * 1.9 / 2.9 + 30 * 0.9 / 1.9
GRAVITY_M_S2 = 9.80665
#: Activation of trunk flexors and extensors against each other around upright posture (Cholewicki
#: 1997: 1.7 % of the maximum, SD 0.8, without a load).
COACTIVATION = 0.017
#: The rib cage moves with L1, as in Christophy 2012: the base lacks thoracic muscles that would
#: hold T12 on L1.
MOVING = JOINTS[:-1]


@dataclass(frozen=True)
class Task:
    """A posture that is held.

    Parameters
    ----------
    name
        Its name.
    lumbar_deg, pelvis_deg
        Flexion of the lumbar spine, and forward turn of the pelvis.
    hands_kg
        What both hands hold together.
    coactivation
        Activation that no muscle falls below.
    """

    name: str
    lumbar_deg: float
    pelvis_deg: float
    hands_kg: float
    coactivation: float = 0.0


#: The task of Hess 2022, and before it those in which pressure in the disc is known.
TASKS = (
    Task('standing', 0.0, 0.0, 0.0, COACTIVATION),
    Task('bent-empty', LUMBAR_FLEXION_DEG, 60 - LUMBAR_FLEXION_DEG, 0.0),
    Task('flexion', LUMBAR_FLEXION_DEG, 60 - LUMBAR_FLEXION_DEG, 10.0),
)


@dataclass(frozen=True)
class JointLoad:
    """What the part above a disc does to the part below.

    Parameters
    ----------
    joint
        Name of the disc.
    compression_n
        Force along the axis of the disc, positive where it presses.
    shear_n
        Force across it, positive forward.
    lateral_n
        Force across it, positive to the right.
    moment_n_m
        Moment of the weights less that of disc and ligaments, which the muscles hold; positive
        where it flexes the spine.
    reserve_n_m
        Largest moment about an axis of the joint that the muscles do not hold.
    """

    joint: str
    compression_n: float
    shear_n: float
    lateral_n: float
    moment_n_m: float
    reserve_n_m: float


@dataclass(frozen=True)
class Solution:
    """A task done.

    Parameters
    ----------
    loads
        Of the joints from top to bottom.
    activations
        By fascicle, 0 to 1.
    """

    loads: tuple[JointLoad, ...]
    activations: dict[str, float]


def require_opensim() -> Any:
    """Import OpenSim, with its log off.

    Raises
    ------
    MissingInputError
        If it is not installed.
    """
    try:
        import opensim
    except ImportError as error:
        raise MissingInputError(
            f'Loads on the spine are computed with OpenSim, which cannot be used here: {error}.',
            "Install it with pip install 'bids_muscle[loading]', build the container image with "
            'EXTRAS=loading, or leave out --loading.',
        ) from error
    opensim.Logger.setLevelString('Off')
    return opensim


def build_model(trunk: Trunk, sex: str, weight_kg: float, task: Task) -> opensim.Model:
    """Build the OpenSim model of a trunk that does a task.

    The pelvis is fixed. Each disc below L1 is a gimbal joint, whose axes lie half-way between
    those of its neighbours, with an actuator about each that takes up what muscles leave.
    Fascicles are path actuators: muscles without a dependence of force on length, as a scan shows
    no fibres.
    """
    osim = require_opensim()
    model = osim.Model()
    model.setName('lumbar_spine')
    model.setGravity(osim.Vec3(0, -GRAVITY_M_S2, 0))
    bodies = {name: _body(osim, trunk, name, sex, weight_kg, task) for name in BODIES}
    for body in bodies.values():
        model.addBody(body)
    pelvis = osim.Vec3(0, 0, -np.radians(task.pelvis_deg))
    zero = osim.Vec3(0)
    model.addJoint(
        osim.WeldJoint('hips', model.getGround(), zero, pelvis, bodies['pelvis'], zero, zero)
    )
    for place, name in enumerate(JOINTS):
        below, above = BODIES[place], BODIES[place + 1]
        centre = trunk.joints_mm[place]
        axes = (
            trunk.sacral_axes
            if name == JOINTS[0]
            else _between(trunk.frames[below].axes, trunk.frames[above].axes)
        )
        ends = (
            bodies[below],
            *_place(osim, trunk, below, centre, axes),
            bodies[above],
            *_place(osim, trunk, above, centre, axes),
        )
        if name not in MOVING:
            model.addJoint(osim.WeldJoint(name, *ends))
            continue
        joint = osim.GimbalJoint(name, *ends)
        for axis, motion in enumerate(('bending', 'rotation', 'flexion')):
            joint.upd_coordinates(axis).setName(f'{name}_{motion}')
        # Forward is a negative turn about the axis to the right.
        flexion = -np.radians(task.lumbar_deg) * trunk.flexion_share[place]
        joint.upd_coordinates(2).setDefaultValue(flexion)
        model.addJoint(joint)
        spring = osim.SpringGeneralizedForce(f'{name}_flexion')
        spring.setName(f'passive_{name}')
        spring.setStiffness(float(np.degrees(trunk.stiffness_n_m_deg[place])))
        spring.setRestLength(0)
        spring.setViscosity(0)
        model.addForce(spring)
        for axis in range(3):
            reserve = osim.CoordinateActuator(joint.get_coordinates(axis).getName())
            reserve.setName(f'reserve_{joint.get_coordinates(axis).getName()}')
            reserve.setOptimalForce(1)
            model.addForce(reserve)
    for fascicle in trunk.fascicles:
        actuator = osim.PathActuator()
        actuator.setName(fascicle.name)
        actuator.setOptimalForce(fascicle.area_mm2 / 100 * SPECIFIC_TENSION_N_CM2)
        actuator.setMinControl(0)
        actuator.setMaxControl(1)
        points = enumerate(zip(fascicle.bodies, fascicle.points_mm, strict=True), start=1)
        for place, (name, point) in points:
            local = trunk.frames[name].local(point) / 1000
            actuator.addNewPathPoint(f'{fascicle.name}_{place}', bodies[name], _vec(osim, local))
        model.addForce(actuator)
    model.finalizeConnections()
    return model


def model_file(model: opensim.Model) -> bytes:
    """Return a model as OpenSim's XML; OpenSim writes it to a path only."""
    with temporary_folder() as folder:
        path = folder / 'model.osim'
        model.printToXML(str(path))
        return path.read_bytes()


def solve(model: opensim.Model, coactivation: float = 0.0) -> Solution:
    """Let the muscles of a model hold its weight, and find the loads on its joints.

    Moment arms, the moments that gravity asks for and the joint reactions are OpenSim's; how the
    muscles share the load is :func:`share_load`.
    """
    osim = require_opensim()
    state = model.initSystem()
    actuators = [osim.PathActuator.safeDownCast(each) for each in model.getActuators()]
    fascicles = [each for each in actuators if each is not None]
    joints = [model.getJointSet().get(name) for name in MOVING]
    coordinates = [joint.get_coordinates(axis) for joint in joints for axis in range(3)]
    reserves = [
        osim.CoordinateActuator.safeDownCast(model.getForceSet().get(f'reserve_{each.getName()}'))
        for each in coordinates
    ]
    for each in (*fascicles, *reserves):
        each.overrideActuation(state, True)
        each.setOverrideActuation(state, 0)
    model.realizeVelocity(state)
    capacity = np.array(
        [
            [each.computeMomentArm(state, axis) * each.getOptimalForce() for each in fascicles]
            for axis in coordinates
        ]
    )
    # One joint follows the other, so the forces come in the order of the coordinates.
    still = osim.Vector(state.getNU(), 0)
    needed = osim.InverseDynamicsSolver(model).solve(state, still).to_numpy()
    activations, rest = share_load(capacity, needed, least=coactivation)
    for each, activation in zip(fascicles, activations, strict=True):
        each.setOverrideActuation(state, float(activation) * each.getOptimalForce())
    for each, moment in zip(reserves, rest, strict=True):
        each.setOverrideActuation(state, float(moment))
    model.realizeAcceleration(state)
    loads = []
    for number, joint in enumerate(joints):
        # The force from below on the part above; what presses the disc is its counterpart.
        force = joint.calcReactionOnChildExpressedInGround(state).get(1).to_numpy()
        forward, up, right = _disc_axes(joint, state).T
        mine = slice(3 * number, 3 * number + 3)
        loads.append(
            JointLoad(
                joint=MOVING[number],
                compression_n=float(force @ up),
                shear_n=float(-force @ forward),
                lateral_n=float(-force @ right),
                moment_n_m=float(needed[mine][2]),
                reserve_n_m=float(np.abs(rest[mine]).max()),
            )
        )
    names = [each.getName() for each in fascicles]
    return Solution(tuple(loads[::-1]), dict(zip(names, map(float, activations), strict=True)))


def _body(
    osim: Any, trunk: Trunk, name: str, sex: str, weight_kg: float, task: Task
) -> opensim.Body:
    """Return a body with the mass of its parts; nothing moves, so its inertia is any."""
    parts = [
        (mass.share[sex] * weight_kg, mass.centre_mm) for mass in trunk.masses if mass.body == name
    ]
    if name == 'thorax':
        # The hands hang under the shoulders, the last of the parts of the base.
        parts.append((task.hands_kg, parts[-1][1]))
    if not parts:  # the pelvis, which is fixed
        return osim.Body(name, 1.0, osim.Vec3(0), osim.Inertia(0.01, 0.01, 0.01))
    weights = np.array([kg for kg, _ in parts])
    centre = weights @ np.array([place for _, place in parts]) / weights.sum()
    local = trunk.frames[name].local(centre) / 1000
    inertia = osim.Inertia(0.01, 0.01, 0.01)
    return osim.Body(name, float(weights.sum()), _vec(osim, local), inertia)


def _between(first: Array, second: Array) -> Array:
    """Return the axes half-way between two sets of axes."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(np.stack([first, second])).mean().as_matrix())


def _place(osim: Any, trunk: Trunk, body: str, centre_mm: Array, axes: Array) -> tuple[Any, Any]:
    """Return position and body-fixed x-y-z angles of a joint in a body."""
    from scipy.spatial.transform import Rotation

    frame = trunk.frames[body]
    angles = Rotation.from_matrix(frame.axes.T @ axes).as_euler('XYZ')
    return _vec(osim, frame.local(centre_mm) / 1000), _vec(osim, angles)


def _disc_axes(joint: opensim.Joint, state: opensim.State) -> Array:
    """Return the (3, 3) axes of a disc in the ground, as columns: between its two neighbours."""
    ends = [
        frame.getTransformInGround(state).R().asMat33()
        for frame in (joint.getParentFrame(), joint.getChildFrame())
    ]
    return _between(*(np.array([[m.get(i, j) for j in range(3)] for i in range(3)]) for m in ends))


def _vec(osim: Any, values: Array) -> Any:
    return osim.Vec3(*(float(value) for value in values))
