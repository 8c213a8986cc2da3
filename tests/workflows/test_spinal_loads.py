"""Tables of vertebrae and muscles become a table of loads, where they are asked for."""

from __future__ import annotations

import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bids_muscle.dataset.writer import write_tsv
from bids_muscle.errors import MissingInputError
from bids_muscle.settings import Settings
from bids_muscle.spinal_loads.base import JOINTS, VERTEBRAE, base_trunk
from bids_muscle.workflows.spinal_loads import check_loading, measure_participant_loads

ANAT = 'sub-01/ses-a/anat'
TABLE = f'{ANAT}/sub-01_ses-a_acq-sag_loads.tsv'
needs_opensim = pytest.mark.skipif(find_spec('opensim') is None, reason='OpenSim is not installed')


def make_settings(folder: Path, **flags: object) -> Settings:
    base = {'bids_dir': folder, 'output_dir': folder / 'out', 'level': 'participant'}
    return Settings.from_sources(base | flags)


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
    path = tmp_path / f'out/{ANAT}/sub-01_ses-a_acq-sag_desc-spine_morph.tsv'
    write_tsv(rows, path)
    (tmp_path / 'participants.tsv').write_text(
        'participant_id\tsex\theight\tweight\nsub-01\tF\t165\t60\n'
    )
    return tmp_path


@needs_opensim
def test_loads_are_written_with_their_dictionary_and_are_the_same_bytes_again(
    folder: Path,
) -> None:
    settings = make_settings(folder, loading=True)
    assert measure_participant_loads(settings, '01') == []
    path = settings.output_dir / TABLE
    with path.open(encoding='utf-8', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['level'] for row in rows] == ['L1', 'L2', 'L3', 'L4', 'L5'] * 2
    assert all(float(row['compression_n']) > 200 for row in rows)
    sidecar = json.loads(path.with_suffix('.json').read_text())
    assert set(rows[0]) <= set(sidecar)
    assert sidecar['SourceFiles'] == ['sub-01_ses-a_acq-sag_desc-spine_morph.tsv']
    before = path.read_bytes()
    measure_participant_loads(settings, '01')
    assert path.read_bytes() == before
    # The model opens in OpenSim.
    import opensim

    model = opensim.Model(str(path.with_suffix('.osim')))
    assert model.getNumBodies() == 7
    # A run that does not ask for them leaves none that may be out of date.
    measure_participant_loads(make_settings(folder), '01')
    assert not list(settings.output_dir.rglob('*_loads.*'))


@needs_opensim
def test_a_session_without_vertebrae_has_a_table_that_says_so(folder: Path) -> None:
    settings = make_settings(folder, loading=True)
    anat = settings.output_dir / 'sub-01/ses-b/anat'
    levels = anat / 'sub-01_ses-b_acq-dixon_seg-lumbarmuscles_desc-levels_morph.tsv'
    write_tsv([{'muscle': 'multifidus', 'side': 'left', 'level': 'L4'}], levels)
    assert measure_participant_loads(settings, '01') == []
    text = (anat / 'sub-01_ses-b_acq-dixon_loads.tsv').read_text()
    assert text.count('sagittal scan') == 10
    assert (settings.output_dir / TABLE).is_file()


@needs_opensim
def test_a_broken_table_is_a_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = make_settings(folder, loading=True)
    (table,) = settings.output_dir.rglob('*_desc-spine_morph.tsv')
    table.write_text('kind\tname\nvertebra\tL1\n')
    (problem,) = measure_participant_loads(settings, '01')
    assert 'desc-spine_morph.tsv' in problem.message
    assert problem.message in capsys.readouterr().err


def test_without_opensim_the_run_ends_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'opensim', None)
    check_loading(make_settings(tmp_path))
    with pytest.raises(MissingInputError, match='pip install'):
        check_loading(make_settings(tmp_path, loading=True))
