"""The table of loads of one person: what goes in, what comes out, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.imaging.movement import moved
from bids_muscle.measurement.spine import ASIDE_MM, CUT, NEAR_MM, aside_mm, away_mm
from bids_muscle.spinal_loads.base import JOINTS, SIDES, VERTEBRAE, Array
from bids_muscle.spinal_loads.person import FittedTrunk, MuscleSection, fit_trunk

if TYPE_CHECKING:
    import pandas as pd

    from bids_muscle.spinal_loads.opensim_model import JointLoad

#: Muscles that scans of the lumbar spine show, and whose areas are the person's own.
IMAGED = ('multifidus', 'erector spinae', 'psoas major', 'quadratus lumborum')
#: Columns of the area that scales strength; the first with a value is used.
AREAS = {
    False: ('mean_csa_cm2',),
    True: ('mfi_lean_csa_cm2', 'threshold_lean_csa_cm2'),
}

#: Pressure in the disc L4-L5 of one man (Wilke 1999): relaxed standing, bent forward with empty
#: hands. With the 10 kg of Hess 2022 it was not measured.
_PRESSURE_MPA = {'standing': 0.5, 'bent-empty': 1.1}
_WILKE_AREA_MM2, _WILKE_KG = 1800, 70
#: Force is pressure times area times a factor that depends on posture (Dreischarf 2013).
_FACTOR = (0.55, 0.77)
_REFERENCE_JOINT = 'L4-L5'

#: More than this, and than this share of the moment (Hicks 2015), and the muscles do not hold the
#: task.
_MAX_RESERVE_N_M, _MAX_RESERVE = 5.0, 0.1
#: Distances between neighbouring lumbar discs that anatomy allows.
_SPACING_MM = (18.0, 55.0)
#: A muscle's centroid may lie so far above or below the vertebra of its level.
_MAX_OFFSET_MM = 30.0

_NO_SPINE = 'neither a sagittal scan nor a label map of other programs shows the vertebrae'
_NOT_LUMBAR = 'not all vertebrae L1 to L5 are shown and named'
_SIXTH = 'there is a sixth lumbar vertebra; the model has five'
_NO_SACRUM = (
    'neither the disc L5-S1 nor S1 is complete on the scan, so the disc is assumed as far from '
    'the centre of L5 as L4-L5 is'
)
_NOT_IN_ORDER = (
    'the distances between neighbouring discs do not match a lumbar spine: check the names'
)
_WEAK = 'muscles of this size are too weak for the task in this model'
_APART = (
    'muscles and vertebrae do not match in position, so the muscle positions are those of the '
    'base model'
)
_NO_PLACE = (
    'the header of the axial or of the sagittal scan has no position, so the muscle positions are '
    'those of the base model'
)


@dataclass(frozen=True)
class Loads:
    """The loads of one person.

    Parameters
    ----------
    rows
        One per task and level, columns as in the dictionary ``loading``.
    made_from
        What the model was made from, for the sidecar.
    model
        OpenSim file of the model in the last task, or None where there is no model.
    """

    rows: list[dict[str, Any]]
    made_from: dict[str, Any]
    model: bytes | None


def measure_loads(
    spine: pd.DataFrame | None,
    levels: pd.DataFrame | None,
    *,
    height_m: float | None,
    weight_kg: float | None,
    sex: str | None,
    lean: bool = False,
    shift_mm: Sequence[float] | None = None,
    in_one_world: bool = True,
) -> Loads:
    """Compute the loads on the lumbar spine of one person.

    Parameters
    ----------
    spine
        Table of vertebrae and discs, columns as in the dictionary ``morph_spine``, or None.
    levels
        Table of muscles by vertebral level, as in ``morph_levels``, or None.
    height_m, weight_kg
        Body height and mass, or None where unknown.
    sex
        ``'male'`` or ``'female'``, or None.
    lean
        Whether strength goes with the area without fat.
    shift_mm
        (3,) how far the scan of the muscles lies from that of the spine, or None where unknown.
    in_one_world
        Whether places in the two tables can be compared: both headers have a position.
    """
    from bids_muscle.spinal_loads.opensim_model import TASKS, build_model, model_file, solve

    reasons: list[str] = []
    person = None
    known = {'height': height_m, 'weight': weight_kg, 'sex': sex}
    if lacking := [name for name, value in known.items() if value is None]:
        reasons.append(f'no {" and no ".join(lacking)} in participants.tsv')
    elif spine is None:
        reasons.append(_NO_SPINE)
    else:
        assert height_m is not None  # noqa: S101 - nothing is lacking
        assert sex is not None  # noqa: S101 - as above
        person, reasons = fit_person(
            spine,
            levels,
            height_m,
            sex,
            lean=lean,
            shift_mm=shift_mm,
            in_one_world=in_one_world,
        )
    rows: list[dict[str, Any]] = []
    file = None
    for task in TASKS:
        loads: dict[str, JointLoad] = {}
        if person is not None:
            assert weight_kg is not None and sex is not None  # noqa: S101 - as above
            model = build_model(person.trunk, sex, weight_kg, task)
            file = model_file(model)
            loads = {each.joint: each for each in solve(model, task.coactivation).loads}
        for level, joint in zip(VERTEBRAE[::-1], JOINTS[-2::-1], strict=True):
            row: dict[str, Any] = {'task': task.name, 'level': level, 'joint': joint}
            row |= _load_columns(loads.get(joint), reasons)
            row |= _reference(task.name, joint, weight_kg)
            rows.append({name: row[name] for name in read_dictionary('loading')})
    made_from = {
        'Strength': 'lean area' if lean else 'area',
        'AreaOverBase': {
            name: round(factor, 3) for name, factor in (person.imaged if person else {}).items()
        },
    }
    return Loads(rows, made_from, file)


def fit_person(
    spine: pd.DataFrame,
    levels: pd.DataFrame | None,
    height_m: float,
    sex: str = 'male',
    *,
    lean: bool = False,
    shift_mm: Sequence[float] | None = None,
    in_one_world: bool = True,
) -> tuple[FittedTrunk | None, list[str]]:
    """Fit the trunk to the tables of a scan.

    Returns
    -------
    tuple
        The person, or None where the spine is not there in full; and what limits the result.
    """
    centres = {
        kind: {
            str(row['name']): np.array([row[f'{axis}_ras_mm'] for axis in 'xyz'], dtype=float)
            for _, row in spine[(spine['kind'] == kind) & spine['x_ras_mm'].notna()].iterrows()
            # What is cut off has its centroid elsewhere; lumbar vertebrae are looked at below.
            if row['name'] in VERTEBRAE or 'edge' not in str(row['reason'])
        }
        for kind in ('vertebra', 'disc')
    }
    vertebrae, discs = centres['vertebra'], centres['disc']
    if not set(VERTEBRAE) <= set(vertebrae):
        return None, [_NOT_LUMBAR]
    if 'L6' in vertebrae:
        return None, [_SIXTH]
    lumbar = spine[(spine['kind'] == 'vertebra') & spine['name'].isin(VERTEBRAE)]
    cut = lumbar['name'][[CUT in str(reason) for reason in lumbar['reason']]]
    if len(cut):
        return None, [f'{name} {CUT}' for name in cut]
    sections, reasons = _sections(
        vertebrae, levels, lean=lean, shift_mm=shift_mm, in_one_world=in_one_world
    )
    if 'L5-S1' not in discs and 'S1' not in vertebrae:
        reasons.append(_NO_SACRUM)
    # What is doubtful about a vertebra is doubtful about its load, but not that the end of a
    # sagittal slab cuts its sides.
    doubts = [text for each in lumbar['reason'].dropna() for text in each.split('; ')]
    reasons += [text for text in dict.fromkeys(doubts) if 'edge' not in text]
    sacral = spine[(spine['kind'] == 'disc') & (spine['name'] == 'L5-S1')]
    tilt = float(sacral['tilt_deg'].iloc[0]) if 'L5-S1' in discs else np.nan
    tilt_deg = tilt if np.isfinite(tilt) else None
    person = fit_trunk(height_m, vertebrae, discs, sections, tilt_deg, sex)
    spacing = np.linalg.norm(np.diff(person.trunk.joints_mm, axis=0), axis=1)
    if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
        return None, [_NOT_IN_ORDER]
    if absent := [name for name in IMAGED if name not in person.imaged]:
        reasons.append(
            f'{", ".join(absent)}: area of the base model, as no axial scan shows both sides'
        )
    return person, reasons


def _sections(
    vertebrae: Mapping[str, Array],
    levels: pd.DataFrame | None,
    *,
    lean: bool,
    shift_mm: Sequence[float] | None,
    in_one_world: bool,
) -> tuple[dict[tuple[str, str, str], MuscleSection], list[str]]:
    """Read area and place of each muscle at each level."""
    if levels is None:
        return {}, []
    # Models of other programs also know structures far away from the spine.
    known = levels['muscle'].isin(IMAGED) & levels['side'].isin(SIDES)
    usable = levels[known & levels['level'].isin(VERTEBRAE)]
    named = [name for name in AREAS[lean] if name in usable and usable[name].notna().any()]
    if not named:
        return {}, ['fat was not measured, so no lean area'] if lean else []
    sections: dict[tuple[str, str, str], MuscleSection] = {}
    pairs = []
    for row in usable[usable[named[0]] > 0].to_dict('records'):
        place = np.array([row[f'{axis}_ras_mm'] for axis in 'xyz'], dtype=float)
        sections[row['muscle'], row['side'], row['level']] = MuscleSection(
            100 * row[named[0]], place
        )
        bone = zip('xyz', vertebrae[row['level']], strict=True)
        pairs.append(row | {f'vertebra_{axis}_ras_mm': float(value) for axis, value in bone})
    without = {key: MuscleSection(each.area_mm2, None) for key, each in sections.items()}
    if pairs and not in_one_world:
        return without, [_NO_PLACE]
    if pairs and (
        np.median([abs(row['z_ras_mm'] - row['vertebra_z_ras_mm']) for row in pairs])
        > _MAX_OFFSET_MM
        or max(away_mm(row) for row in pairs) > NEAR_MM
        or (moved(shift_mm) if shift_mm else abs(aside_mm(pairs)) > ASIDE_MM)
    ):
        return without, [_APART]
    return sections, []


def _load_columns(load: JointLoad | None, reasons: list[str]) -> dict[str, Any]:
    if load is None:
        values: dict[str, Any] = dict.fromkeys(_LOADS)
        return values | {'reason': '; '.join(reasons)}
    if load.reserve_n_m > max(_MAX_RESERVE_N_M, _MAX_RESERVE * abs(load.moment_n_m)):
        kept = {'moment_n_m': load.moment_n_m, 'reserve_n_m': load.reserve_n_m}
        text = '; '.join([_WEAK, *reasons])
        return dict.fromkeys(_LOADS) | {k: round(v, 2) for k, v in kept.items()} | {'reason': text}
    values = {name: round(value, 2) for name, value in asdict(load).items() if name != 'joint'}
    return values | {'reason': '; '.join(reasons) or None}


_LOADS = ('compression_n', 'shear_n', 'lateral_n', 'moment_n_m', 'reserve_n_m')


def _reference(task: str, joint: str, weight_kg: float | None) -> dict[str, float | None]:
    """Return the compression that pressures in the disc of one man speak for."""
    if joint != _REFERENCE_JOINT or weight_kg is None or task not in _PRESSURE_MPA:
        return {'reference_low_n': None, 'reference_high_n': None}
    force_n = _PRESSURE_MPA[task] * _WILKE_AREA_MM2 * weight_kg / _WILKE_KG
    low, high = (round(force_n * factor, 1) for factor in _FACTOR)
    return {'reference_low_n': low, 'reference_high_n': high}
