"""The table of loads: plausible numbers, and n/a with a reason for what cannot be known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip('opensim', reason='OpenSim is not installed')

from bids_muscle.dictionaries import read_dictionary
from bids_muscle.measurement.spine import CUT
from bids_muscle.spinal_loads.base import JOINTS, VERTEBRAE, base_trunk
from bids_muscle.spinal_loads.table import fit_person, measure_loads

PERSON = {'height_m': 1.75, 'weight_kg': 72.0, 'sex': 'male'}
#: Areas of a muscle at each level, cm2, about those of a young man.
AREAS = {
    'multifidus': 5.0,
    'erector spinae': 17.0,
    'psoas major': 10.0,
    'quadratus lumborum': 5.0,
}


def spine(**reasons: str) -> pd.DataFrame:
    """Return the spine of the base trunk, as measured on a scan."""
    base = base_trunk()
    places = {('vertebra', name): base.frames[name].origin_mm for name in VERTEBRAE}
    places |= {('disc', name): base.joints_mm[k] for k, name in enumerate(JOINTS)}
    return pd.DataFrame(
        [
            {
                'kind': kind,
                'name': name,
                'x_ras_mm': z,
                'y_ras_mm': x,
                'z_ras_mm': y,
                'tilt_deg': 30.0 if name == 'L5-S1' else None,
                'reason': reasons.get(name.replace('-', '_')),
            }
            for (kind, name), (x, y, z) in places.items()
        ]
    )


def levels(
    lift_mm: float = 0.0, lean: float = 0.8, aside_mm: float = 0.0, forward_mm: float = 0.0
) -> pd.DataFrame:
    """Return muscles beside and behind the vertebrae."""
    base = base_trunk()
    places = {
        'multifidus': (-40, 15),
        'erector spinae': (-45, 38),
        'psoas major': (5, 38),
        'quadratus lumborum': (-20, 70),
    }
    rows = []
    for muscle, (forward, out) in places.items():
        for side, sign in (('right', 1), ('left', -1), ('both', 0)):
            for level in VERTEBRAE:
                x, y, _ = base.frames[level].origin_mm
                area = AREAS[muscle] * (2 if side == 'both' else 1)
                rows.append(
                    {
                        'muscle': muscle,
                        'side': side,
                        'level': level,
                        'mean_csa_cm2': area,
                        'mfi_lean_csa_cm2': lean * area,
                        'x_ras_mm': sign * out + aside_mm,
                        'y_ras_mm': x + forward + forward_mm,
                        'z_ras_mm': y + lift_mm,
                    }
                )
    return pd.DataFrame(rows)


def test_loads_are_of_the_size_that_the_literature_has() -> None:
    loads = measure_loads(spine(), levels(), **PERSON)
    rows, made = loads.rows, loads.made_from
    assert list(rows[0]) == list(read_dictionary('loading'))
    table = pd.DataFrame(rows).set_index(['task', 'level'])
    assert table['reason'].isna().all()
    standing, flexion = (table.loc[task, 'compression_n'] for task in ('standing', 'flexion'))
    # Half of the body stands on the lumbar spine, held by little muscle.
    assert standing.between(0.45 * 72 * 9.8, 3 * 0.5 * 72 * 9.8).all()
    # Published models and pressures of flexion with 10 kg give 2 to 4 kN.
    assert flexion.between(1800, 4000).all()
    # A reference is of one posture and one load in the hands; of 10 kg there is none.
    upright, empty, loaded = (
        table.loc[(task, 'L4')] for task in ('standing', 'bent-empty', 'flexion')
    )
    assert upright['reference_low_n'] == pytest.approx(0.5 * 1800 * 0.55 * 72 / 70, abs=0.1)
    assert empty['reference_high_n'] == pytest.approx(1.1 * 1800 * 0.77 * 72 / 70, abs=0.1)
    assert np.isnan(loaded['reference_low_n'])
    assert upright['reference_low_n'] < upright['compression_n'] < upright['reference_high_n']
    assert empty['compression_n'] < loaded['compression_n']
    assert table['reserve_n_m'].max() < 5
    assert set(made['AreaOverBase']) == set(AREAS)


def test_a_woman_has_the_base_of_a_woman() -> None:
    man, woman = (
        measure_loads(spine(), None, **PERSON | {'sex': sex}).rows for sex in ('male', 'female')
    )
    for one, other in zip(man, woman, strict=True):
        if one['task'] != 'standing':
            # De Leva: 45.7 % of her mass lie above L4-L5, 48.8 % of his.
            assert 0.88 < other['moment_n_m'] / one['moment_n_m'] < 0.97
    person, _ = fit_person(spine(), None, 1.62, 'female')
    assert person is not None
    small, base = base_trunk('female'), base_trunk()
    areas = [sum(each.area_mm2 for each in trunk.fascicles) for trunk in (person.trunk, base)]
    assert areas[0] / areas[1] == pytest.approx((1.62 / 1.75) ** 2 * 0.81)
    share = {sex: sum(mass.share[sex] for mass in small.masses) for sex in ('male', 'female')}
    assert share == pytest.approx({'male': 0.514, 'female': 0.4858}, abs=1e-3)


def test_strength_by_lean_area_changes_the_load() -> None:
    whole = measure_loads(spine(), levels(), **PERSON).rows
    weak = measure_loads(spine(), levels(lean=0.7), **PERSON, lean=True)
    lean = weak.rows
    assert weak.made_from['Strength'] == 'lean area'
    # Weaker muscles work harder; the weight that they hold is the same.
    for one, other in zip(whole, lean, strict=True):
        assert other['moment_n_m'] == pytest.approx(one['moment_n_m'])
        assert other['compression_n'] != one['compression_n']


def test_lean_area_by_thresholds_counts_where_there_is_no_dixon_scan() -> None:
    table = levels()
    table['threshold_lean_csa_cm2'] = table['mfi_lean_csa_cm2']
    by_thresholds, none = fit_person(
        spine(), table.assign(mfi_lean_csa_cm2=np.nan), 1.75, lean=True
    )
    by_dixon, _ = fit_person(spine(), levels(), 1.75, lean=True)
    assert by_thresholds is not None and by_dixon is not None
    assert none == []
    assert by_thresholds.imaged == by_dixon.imaged
    _, reasons = fit_person(spine(), levels().assign(mfi_lean_csa_cm2=np.nan), 1.75, lean=True)
    assert 'fat was not measured, so no lean area' in reasons


def test_without_height_and_sex_there_is_no_load() -> None:
    rows = measure_loads(spine(), levels(), height_m=None, weight_kg=72, sex=None).rows
    assert {row['reason'] for row in rows} == {'no height and no sex in participants.tsv'}
    assert all(row['compression_n'] is None for row in rows)
    assert len(rows) == 15


def test_without_vertebrae_there_is_no_load() -> None:
    loads = measure_loads(None, levels(), **PERSON)
    assert all('sagittal scan' in row['reason'] for row in loads.rows)
    assert loads.model is None


def test_a_spine_without_l1_has_no_loads() -> None:
    short = spine()
    rows = measure_loads(short[short['name'] != 'L1'], levels(), **PERSON).rows
    assert {row['reason'] for row in rows} == {'not all vertebrae L1 to L5 are shown and named'}


def test_doubts_about_a_vertebra_are_doubts_about_the_loads() -> None:
    doubt = 'as with a lumbosacral transitional vertebra'
    person, reasons = fit_person(spine(L5=doubt, L4=doubt), levels(), 1.75)
    assert person is not None
    assert reasons == [doubt]


def test_a_vertebra_cut_off_above_or_below_has_no_loads() -> None:
    rows = measure_loads(spine(L1=f'a doubt; {CUT}'), levels(), **PERSON).rows
    assert {(row['compression_n'], row['reason']) for row in rows} == {(None, f'L1 {CUT}')}
    # The ends of a sagittal slab cut the sides of any vertebra.
    person, reasons = fit_person(
        spine(L1='reaches the edge of the image, so it may be incomplete'), levels(), 1.75
    )
    assert person is not None
    assert reasons == []


def test_a_sixth_lumbar_vertebra_has_no_place_in_the_model() -> None:
    longer = spine()
    sixth = longer[longer['name'] == 'L5'].assign(name='L6')
    sixth['z_ras_mm'] -= 30
    person, reasons = fit_person(pd.concat([longer, sixth]), None, 1.75)
    assert person is None
    assert 'sixth' in reasons[0]


def test_levels_named_wrongly_are_no_spine() -> None:
    mixed = spine()
    names = {'L2': 'L3', 'L3': 'L2'}
    mixed['name'] = mixed['name'].replace(names)
    person, reasons = fit_person(mixed[mixed['kind'] == 'vertebra'], None, 1.75)
    assert person is None
    assert 'check the names' in reasons[0]


def test_a_disc_at_the_edge_is_not_taken_at_its_word() -> None:
    cut = spine(L5_S1='reaches the edge of the image, so it may be incomplete')
    moved = cut['name'] == 'L5-S1'
    cut.loc[moved, 'z_ras_mm'] += 10
    person, reasons = fit_person(cut, None, 1.75)
    assert person is not None
    assert np.linalg.norm(np.diff(person.trunk.joints_mm, axis=0), axis=1)[0] > 28
    assert any('as far from the centre of L5' in text for text in reasons)


@pytest.mark.parametrize('shift', [{'lift_mm': 50}, {'aside_mm': 14}, {'forward_mm': -130}])
def test_muscles_elsewhere_in_scanner_space_keep_the_place_of_the_base(
    shift: dict[str, float],
) -> None:
    person, reasons = fit_person(spine(), levels(**shift), 1.75)
    assert person is not None
    assert any('do not match in position' in text for text in reasons)
    near, _ = fit_person(spine(), levels(), 1.75)
    assert near is not None
    assert person.imaged == near.imaged


def test_the_movement_between_the_scans_decides_where_it_is_known() -> None:
    apart = 'do not match in position'
    for shift_mm, said in (((0, 0, 9), True), ((1, -2, 0), False)):
        _, reasons = fit_person(spine(), levels(aside_mm=14), 1.75, shift_mm=shift_mm)
        assert any(apart in text for text in reasons) == said


def test_muscles_of_a_scan_without_position_keep_the_place_of_the_base() -> None:
    person, reasons = fit_person(spine(), levels(), 1.75, in_one_world=False)
    assert person is not None
    assert any('has no position' in text for text in reasons)
    far, _ = fit_person(spine(), levels(lift_mm=50), 1.75)
    assert far is not None
    for one, other in zip(person.trunk.fascicles, far.trunk.fascicles, strict=True):
        assert np.array_equal(one.points_mm, other.points_mm)


def test_muscles_too_weak_for_the_task_have_no_load() -> None:
    wasted = levels()
    wasted['mean_csa_cm2'] *= 0.15
    rows = measure_loads(spine(), wasted, **PERSON).rows
    flexed = [row for row in rows if row['task'] == 'flexion']
    assert any('are too weak for the task' in str(row['reason']) for row in flexed)
    assert all(
        row['compression_n'] is None
        for row in flexed
        if 'too weak for the task' in str(row['reason'])
    )


def test_without_an_axial_scan_muscles_are_those_of_the_base() -> None:
    person, reasons = fit_person(spine(), None, 1.75)
    assert person is not None
    assert person.imaged == {}
    assert reasons == [
        'multifidus, erector spinae, psoas major, quadratus lumborum: area of the base model, as '
        'no axial scan shows both sides'
    ]
