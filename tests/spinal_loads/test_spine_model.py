"""The OpenSim model: equilibrium by hand, and the tools of OpenSim as the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('opensim', reason='OpenSim is not installed')

from bids_muscle.spinal_loads.base import (
    BODIES,
    JOINTS,
    Fascicle,
    Frame,
    Mass,
    Trunk,
    base_trunk,
    tilted_axes,
)
from bids_muscle.spinal_loads.opensim_model import (
    GRAVITY_M_S2,
    MOVING,
    TASKS,
    Task,
    build_model,
    require_opensim,
    solve,
)

STANDING, _, FLEXION = TASKS
KG = 70.0


def column(forward_mm: float, stiffness_n_m_deg: float = 0) -> Trunk:
    """Make a straight column with half of the body in front of its top, and a muscle a side."""
    joints = np.array([[0.0, 30.0 * place, 0.0] for place in range(len(JOINTS))])
    frames = {'pelvis': Frame(joints[0], np.eye(3))}
    frames |= {name: Frame(joints[k] + [0, 15, 0], np.eye(3)) for k, name in enumerate(BODIES[1:])}
    muscles = tuple(
        Fascicle(
            f'back_{side}',
            'back',
            side,
            3000.0,
            ('pelvis', 'thorax'),
            np.array([[-50.0, -10.0, z], [-50.0, 200.0, z]]),
        )
        for side, z in (('right', 20.0), ('left', -20.0))
    )
    light = [Mass(name, {'male': 1e-9}, joints[0]) for name in BODIES[1:-1]]
    load = Mass('thorax', {'male': 0.5}, np.array([forward_mm, 250.0, 0.0]))
    stiffness = np.full(len(JOINTS), float(stiffness_n_m_deg))
    shares = np.array([0, 0, 0, 0, 0, 1.0])
    return Trunk(1.75, joints, frames, shares, stiffness, np.eye(3), muscles, (*light, load))


def test_one_muscle_a_side_holds_a_weight_in_front_as_on_paper() -> None:
    # 0.5 x 70 kg, 100 mm in front of the column; the muscles pull 50 mm behind it.
    weight = 0.5 * KG * GRAVITY_M_S2
    solution = solve(build_model(column(100), 'male', KG, STANDING))
    for load in solution.loads:
        assert load.moment_n_m == pytest.approx(0.1 * weight, rel=1e-6)
        assert load.reserve_n_m < 0.5
        pull = (0.1 * weight - load.reserve_n_m) / 0.05
        assert load.compression_n == pytest.approx(weight + pull, rel=0.01)
        assert load.shear_n == pytest.approx(0, abs=1e-6)
        assert load.lateral_n == pytest.approx(0, abs=1e-6)
    # 30 cm2 a side, at 100 N/cm2.
    for side in ('right', 'left'):
        assert solution.activations[f'back_{side}'] == pytest.approx(pull / 2 / 3000, rel=0.01)


def test_discs_and_ligaments_hold_a_part_of_the_moment() -> None:
    # All flexion in one disc, 5 degrees: 2 N m for each degree, and no force along the spine.
    shares = np.eye(len(JOINTS))[1]
    task = Task('bent', 5.0, 0.0, 0.0)
    free, held = (
        solve(build_model(replace(column(100, k), flexion_share=shares), 'male', KG, task)).loads
        for k in (0, 2)
    )
    place = [load.joint for load in free].index(JOINTS[1])
    assert free[place].moment_n_m - held[place].moment_n_m == pytest.approx(10)
    assert free[0].moment_n_m == pytest.approx(held[0].moment_n_m)
    assert held[place].compression_n < free[place].compression_n


def test_a_pelvis_turned_forward_turns_weight_into_shear() -> None:
    weight = 0.5 * KG * GRAVITY_M_S2
    turned = solve(build_model(column(0), 'male', KG, Task('turned', 0, 30, 0)))
    lowest = turned.loads[-1]
    # The weight stands 250 mm up the column, which leans forward by 30 degrees.
    assert lowest.moment_n_m == pytest.approx(weight * 0.25 * np.sin(np.pi / 6), rel=1e-6)
    assert lowest.shear_n == pytest.approx(weight * np.sin(np.pi / 6), rel=1e-6)


def test_weight_slides_forward_on_a_sloping_sacrum() -> None:
    weight = 0.5 * KG * GRAVITY_M_S2
    trunk = replace(column(0), sacral_axes=tilted_axes(30.0))
    load = solve(build_model(trunk, 'male', KG, STANDING)).loads[-1]
    assert load.compression_n == pytest.approx(weight * np.cos(np.pi / 6), rel=1e-3)
    assert load.shear_n == pytest.approx(weight * np.sin(np.pi / 6), rel=1e-3)


def test_a_weight_on_the_left_is_held_by_the_right() -> None:
    trunk = column(50)
    load = replace(trunk.masses[-1], centre_mm=np.array([50.0, 250.0, -10.0]))
    trunk = replace(trunk, masses=(*trunk.masses[:-1], load))
    pull = solve(build_model(trunk, 'male', KG, STANDING)).activations
    assert pull['back_right'] > pull['back_left']


def test_weight_in_the_hands_hangs_from_the_shoulders() -> None:
    empty = replace(FLEXION, hands_kg=0)
    trunk = replace(base_trunk(), fascicles=column(0).fascicles)
    with_load, without = (
        solve(build_model(trunk, 'male', KG, task)).loads[-1].moment_n_m
        for task in (FLEXION, empty)
    )
    shoulders = base_trunk().masses[-1].centre_mm
    # In the flexed trunk the shoulders are this far in front of L5-S1.
    model = build_model(trunk, 'male', KG, FLEXION)
    state = model.initSystem()
    osim = require_opensim()
    local = base_trunk().frames['thorax'].local(shoulders) / 1000
    thorax = model.getBodySet().get('thorax')
    arm = thorax.findStationLocationInGround(state, osim.Vec3(*map(float, local))).get(0)
    assert arm > 0.2
    assert with_load - without == pytest.approx(10 * GRAVITY_M_S2 * arm, rel=1e-6)


def test_a_symmetric_trunk_is_loaded_symmetrically() -> None:
    solution = solve(build_model(base_trunk(), 'female', 60, FLEXION))
    for name, activation in solution.activations.items():
        other = name.replace('_right', '_left')
        assert activation == pytest.approx(solution.activations[other], abs=1e-3)
    for load in solution.loads:
        assert abs(load.lateral_n) < 1


def test_static_optimisation_and_joint_reaction_of_opensim_agree(tmp_path: Path) -> None:
    """The same task with OpenSim's own tools, which move the model and read files."""
    osim = require_opensim()
    mine = solve(build_model(base_trunk(), 'male', 75, FLEXION))
    model = build_model(base_trunk(), 'male', 75, FLEXION)
    # The tool scales reserves by their optimal force, as share_load does by 1 N m.
    table = osim.TimeSeriesTable()
    coordinates = [
        model.getCoordinateSet().get(k) for k in range(model.getCoordinateSet().getSize())
    ]
    table.setColumnLabels([each.getAbsolutePathString() + '/value' for each in coordinates])
    held = osim.RowVector([each.getDefaultValue() for each in coordinates])
    for time in np.linspace(0, 0.1, 11):
        table.appendRow(float(time), held)
    table.addTableMetaDataString('inDegrees', 'no')
    osim.STOFileAdapter.write(table, str(tmp_path / 'held.sto'))
    model.printToXML(str(tmp_path / 'model.osim'))

    tool = osim.AnalyzeTool()
    tool.setName('reference')
    tool.setModelFilename(str(tmp_path / 'model.osim'))
    tool.setStatesFileName('')
    tool.setCoordinatesFileName(str(tmp_path / 'held.sto'))
    tool.setInitialTime(0.04)
    tool.setFinalTime(0.05)
    tool.setResultsDir(str(tmp_path))
    optimisation = osim.StaticOptimization()
    optimisation.setActivationExponent(3)
    optimisation.setUseModelForceSet(True)
    optimisation.setStartTime(0)
    optimisation.setEndTime(1)
    tool.getAnalysisSet().cloneAndAppend(optimisation)
    tool.printToXML(str(tmp_path / 'tool.xml'))
    assert osim.AnalyzeTool(str(tmp_path / 'tool.xml')).run()
    forces = osim.TimeSeriesTable(str(tmp_path / 'reference_StaticOptimization_force.sto'))

    reaction = osim.JointReaction()
    reaction.setName('JointReaction')
    reaction.setForcesFileName(str(tmp_path / 'reference_StaticOptimization_force.sto'))
    reaction.setStartTime(0)
    reaction.setEndTime(1)
    ground = osim.ArrayStr()
    ground.append('ground')
    reaction.setInFrame(ground)
    tool.getAnalysisSet().setSize(0)
    tool.getAnalysisSet().cloneAndAppend(reaction)
    tool.printToXML(str(tmp_path / 'tool.xml'))
    assert osim.AnalyzeTool(str(tmp_path / 'tool.xml')).run()
    written = next(tmp_path.glob('reference_JointReaction_ReactionLoads*'))
    reactions = osim.TimeSeriesTable(str(written.rename(tmp_path / 'reactions.sto')))

    labels = forces.getColumnLabels()
    row = forces.getRowAtIndex(0).to_numpy()
    for place, label in enumerate(labels):
        name = label.split('/')[-1]
        if name in mine.activations:
            most = osim.PathActuator.safeDownCast(model.getForceSet().get(name)).getOptimalForce()
            assert row[place] / most == pytest.approx(mine.activations[name], abs=0.02), name
    row = reactions.getRowAtIndex(0).to_numpy()
    columns = {label: place for place, label in enumerate(reactions.getColumnLabels())}
    for load in mine.loads:
        above = BODIES[JOINTS.index(load.joint) + 1]
        theirs = [row[columns[f'{load.joint}_on_{above}_in_ground_f{axis}']] for axis in 'xyz']
        size = np.sqrt(load.compression_n**2 + load.shear_n**2 + load.lateral_n**2)
        assert np.linalg.norm(theirs) == pytest.approx(size, rel=0.01)
    assert set(MOVING) == {load.joint for load in mine.loads}
