"""Tables of vertebrae and muscles become a table of loads, where they are asked for."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from last_steps import finish_sessions

from bids_muscle.config import build_settings
from bids_muscle.dataset.records import ScanRecord, read_session_records, write_record
from bids_muscle.dataset.scan import Scan
from bids_muscle.dataset.writer import write_tsv
from bids_muscle.errors import MissingInputError
from bids_muscle.interfaces.session import ComputeLoads
from bids_muscle.settings import Settings
from bids_muscle.spinal_loads.base import JOINTS, VERTEBRAE, base_trunk
from bids_muscle.workflows.participant import _MEMORY
from bids_muscle.workflows.session import check_loading

ANAT = 'sub-01/ses-a/anat'
TABLE = f'{ANAT}/sub-01_ses-a_acq-sag_loads.tsv'


class Dying(ComputeLoads):
    """As if OpenSim crashed."""

    def _run_interface(self, runtime: object) -> object:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError


needs_opensim = pytest.mark.skipif(find_spec('opensim') is None, reason='OpenSim is not installed')


def make_settings(folder: Path, **flags: object) -> Settings:
    base = {'bids_dir': folder, 'output_dir': folder / 'out', 'level': 'participant'}
    return build_settings(base | flags)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a participant with a table of vertebrae and discs, and none of muscles."""
    base = base_trunk()
    places = [('vertebra', name, base.frames[name].origin_mm) for name in VERTEBRAE]
    places += [('disc', name, base.joints_mm[k]) for k, name in enumerate(JOINTS)]
    rows = [
        {
            'kind': kind,
            'name': name,
            'x_ras_mm': z,
            'y_ras_mm': x,
            'z_ras_mm': y,
            'reason': None,
            'tilt_deg': None,
        }
        for kind, name, (x, y, z) in places
    ]
    scan = Scan((('sub', '01'), ('ses', 'a'), ('acq', 'sag')), 'T2w', 'spine', ())
    record = ScanRecord(
        participant='01',
        session='a',
        scan=scan.name,
        region='spine',
        status='done',
        outputs=(f'{ANAT}/sub-01_ses-a_acq-sag_desc-spine_morph.tsv',),
    )
    write_record(record, scan, tmp_path / 'out')
    write_tsv(rows, tmp_path / 'out' / record.outputs[0])
    (tmp_path / 'participants.tsv').write_text(
        'participant_id\tsex\theight\tweight\nsub-01\tF\t165\t60\n'
    )
    return tmp_path


def add_muscles(
    settings: Settings, session: str, seg: str, rows: list[dict[str, object]], **fields: object
) -> None:
    """Add a scan with a table of muscles by level to the outputs."""
    entities = (('sub', '01'), ('ses', session), ('acq', 'dixon'))
    region = str(fields.get('region', 'lumbar'))
    scan = Scan(entities, 'T1w', region, ())
    table = f'sub-01/ses-{session}/anat/{scan.name}_seg-{seg}_desc-levels_morph.tsv'
    record = ScanRecord(
        participant='01',
        session=session,
        scan=scan.name,
        region=region,
        status='done',
        outputs=(table,),
    )
    write_record(record, scan, settings.output_dir)
    write_tsv(rows, settings.output_dir / table)


@needs_opensim
def test_loads_are_written_with_their_dictionary_and_are_the_same_bytes_again(
    folder: Path,
) -> None:
    settings = make_settings(folder, loading=True)
    assert finish_sessions(settings) == []
    path = settings.output_dir / TABLE
    with path.open(encoding='utf-8', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['level'] for row in rows] == ['L1', 'L2', 'L3', 'L4', 'L5'] * 3
    assert all(float(row['compression_n']) > 200 for row in rows)
    sidecar = json.loads(path.with_suffix('.json').read_text())
    assert set(rows[0]) <= set(sidecar)
    assert sidecar['SourceFiles'] == ['sub-01_ses-a_acq-sag_desc-spine_morph.tsv']
    before = path.read_bytes()
    ran: list[str] = []
    finish_sessions(settings, ran)
    assert ran == []  # they are finished
    finish_sessions(replace(settings, overwrite=True), ran)
    assert ran == ['loads']
    assert path.read_bytes() == before
    record = read_session_records(settings.output_dir, '01')['sub-01_ses-a_acq-sag_loads']
    assert record.step
    assert record.step.peak_mb
    assert record.step.peak_mb < 1000 * _MEMORY['loads'][0]
    # The model opens in OpenSim.
    import opensim

    model = opensim.Model(str(path.with_suffix('.osim')))
    assert model.getNumBodies() == 7
    # A run that does not ask for them leaves none that may be out of date.
    finish_sessions(make_settings(folder))
    assert not list(settings.output_dir.rglob('*_loads.*'))


@needs_opensim
def test_a_session_without_vertebrae_has_a_table_that_says_so(folder: Path) -> None:
    settings = make_settings(folder, loading=True)
    row = {'muscle': 'multifidus', 'side': 'left', 'level': 'L4'}
    add_muscles(settings, 'b', 'lumbarmuscles', [row])
    assert finish_sessions(settings) == []
    anat = settings.output_dir / 'sub-01/ses-b/anat'
    text = (anat / 'sub-01_ses-b_acq-dixon_loads.tsv').read_text()
    assert text.count('sagittal scan') == 15
    assert (settings.output_dir / TABLE).is_file()


@needs_opensim
def test_muscles_of_any_model_count(folder: Path) -> None:
    settings = make_settings(folder, loading=True)
    vertebra = base_trunk().frames['L3'].origin_mm
    rows = [
        {'muscle': muscle, 'side': side, 'level': 'L3', 'mean_csa_cm2': area_cm2}
        | dict(zip(('y_ras_mm', 'z_ras_mm', 'x_ras_mm'), vertebra + place, strict=True))
        for muscle, area_cm2, back_mm in (('multifidus', 9.0, -40), ('erector spinae', 16.0, -50))
        for side, right_mm in (('left', -20), ('right', 20))
        for place in [[back_mm, 0, right_mm]]
    ]
    path, texts = settings.output_dir / TABLE, {}
    kidney = rows[0] | {'muscle': 'kidney', 'mean_csa_cm2': 20.0, 'x_ras_mm': 400.0}
    for seg, more in (('', []), ('lumbarmuscles', []), ('wholebody', [kidney])):
        if seg:
            add_muscles(settings, 'a', seg, [*rows, *more])
        assert finish_sessions(settings) == []
        texts[seg] = path.read_text()
    assert texts['wholebody'] == texts['lumbarmuscles'] != texts['']
    # Scans of the neck and tables of a model that was used before do not count.
    add_muscles(settings, 'a', 'wholebody', rows, region='cervical')
    assert finish_sessions(settings) == []
    assert path.read_text() == texts['']


@needs_opensim
@pytest.mark.parametrize('change', ['table', 'weight', 'session', 'strength', 'output'])
def test_loads_are_computed_again_when_something_has_changed(folder: Path, change: str) -> None:
    settings = make_settings(folder, loading=True)
    ran: list[str] = []
    finish_sessions(settings, ran)
    path = settings.output_dir / TABLE
    if change == 'table':
        (table,) = settings.output_dir.rglob('*_desc-spine_morph.tsv')
        table.write_text(table.read_text() + '\n')
    elif change == 'weight':
        people = folder / 'participants.tsv'
        people.write_text(people.read_text().replace('60', '61'))
    elif change == 'session':
        (folder / 'sub-01/ses-a').mkdir(parents=True)
        weights = folder / 'sub-01/sub-01_sessions.tsv'
        weights.write_text('session_id\tweight\nses-a\t61\n')
    elif change == 'strength':
        settings = replace(settings, loading_strength='lean')
    else:
        path.write_text('task\n')
    finish_sessions(settings, ran)
    assert ran == ['loads', 'loads']
    assert path.stat().st_size > 100


def test_a_process_that_dies_is_a_problem_and_leaves_nothing_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(folder, loading=True)
    old = settings.output_dir / TABLE
    old.write_text('task\n')
    monkeypatch.setattr('bids_muscle.interfaces.session.ComputeLoads', Dying)
    (problem,) = finish_sessions(settings)
    assert 'SIGSEGV' in problem.message
    assert not old.exists()
    record = read_session_records(settings.output_dir, '01')['sub-01_ses-a_acq-sag_loads']
    assert record.problem == problem


@needs_opensim
def test_a_broken_table_is_a_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_settings(folder, loading=True)
    (table,) = settings.output_dir.rglob('*_desc-spine_morph.tsv')
    table.write_text('kind\tname\nvertebra\tL1\n')
    (problem,) = finish_sessions(settings)
    assert 'sub_01_ses_a_acq_sag_loads' in problem.message
    assert problem.message in capsys.readouterr().err


def test_without_opensim_the_run_ends_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'opensim', None)
    check_loading(make_settings(tmp_path))
    with pytest.raises(MissingInputError, match='pip install'):
        check_loading(make_settings(tmp_path, loading=True))
